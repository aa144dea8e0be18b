//! Every mistake is a refusal that names its place.

use protocol::anthropic;
use serde_json::{Value, json};

/// A body with these fields beside the least one needs.
#[expect(clippy::needless_pass_by_value, reason = "a literal reads best in its place")]
fn body(fields: Value) -> Vec<u8> {
    let mut body = json!({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]});
    for (name, value) in fields.as_object().unwrap() {
        body[name] = value.clone();
    }
    serde_json::to_vec(&body).unwrap()
}

#[test]
fn mistakes_are_named() {
    let turn = |role: &str, content: Value| json!({"messages": [{"role": role, "content": content}]});
    let cases = [
        (json!({"model": ""}), "model"),
        (json!({"max_tokens": null}), "max_tokens"),
        (json!({"max_tokens": 0}), "max_tokens"),
        (json!({"messages": []}), "messages"),
        (json!({"temperature": 1.5}), "temperature"),
        (json!({"top_p": -0.1}), "top_p"),
        (json!({"stop_sequences": ["a", ""]}), "stop_sequences[1]"),
        (json!({"mcp_servers": []}), "mcp_servers"),
        (json!({"seed": 1}), "seed"),
        (json!({"metadata": {"who": 1}}), "metadata.who"),
        (json!({"thinking": {"type": "sometimes"}}), "thinking.type"),
        (json!({"output_config": {"effort": "huge"}}), "output_config.effort"),
        (json!({"output_config": {"format": {"type": "json_schema"}}}), "output_config.format"),
        (json!({"system": [{"type": "image"}]}), "system[0].type"),
        (turn("tool", json!("x")), "messages[0].role"),
        (turn("user", json!([])), "messages[0].content"),
        (turn("assistant", json!([])), "messages[0].content"),
        (turn("user", json!([{"type": "text"}])), "messages[0].content[0].text"),
        (turn("user", json!([{"type": "text", "text": "a", "id": "b"}])), "messages[0].content[0].id"),
        (turn("user", json!([{"type": "text", "text": "a", "tone": "b"}])), "messages[0].content[0].tone"),
        (turn("user", json!([{"type": "image", "source": {}}])), "messages[0].content[0].type"),
        (turn("user", json!([{"type": "tool_use", "id": "a", "name": "b"}])), "messages[0].content[0].type"),
        (turn("user", json!([{"type": "tool_result"}])), "messages[0].content[0].tool_use_id"),
        (
            turn("assistant", json!([{"type": "tool_use", "id": "a", "name": "b", "input": 1}])),
            "messages[0].content[0].input",
        ),
        (json!({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}), "tools[0].type"),
        (json!({"tools": [{"name": "a b"}]}), "tools[0].name"),
        (json!({"tools": [{"name": "a"}, {"name": "a"}]}), "tools[1].name"),
        (json!({"tools": [{"name": "a", "input_schema": 1}]}), "tools[0].input_schema"),
        (json!({"tools": [{"name": "a", "defer_loading": true}]}), "tools[0].defer_loading"),
        (json!({"tool_choice": {"type": "any"}}), "tool_choice"),
        (json!({"tool_choice": {"type": "tool", "name": "a"}}), "tool_choice.name"),
        (json!({"tool_choice": {"type": "auto", "why": 1}}), "tool_choice.why"),
    ];
    for (fields, place) in cases {
        let error = anthropic::parse(&body(fields.clone())).expect_err(&fields.to_string());
        assert_eq!(error.param.as_deref(), Some(place), "{fields}: {error}");
    }
}

#[test]
fn what_clients_send_is_taken() {
    let cached = json!({"type": "ephemeral"});
    let turns = json!([
        {"role": "user", "content": [{"type": "text", "text": "a", "cache_control": cached}]},
        {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "hm", "signature": "x"},
            {"type": "text", "text": "b", "citations": null},
            {"type": "tool_use", "id": "1", "name": "f", "input": {"k": 2}, "caller": {"type": "direct"}},
        ]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "1", "is_error": true, "content": [{"type": "text", "text": "bad"}]},
            {"type": "text", "text": "c"},
        ]},
    ]);
    let fields = json!({
        "messages": turns, "service_tier": "auto", "metadata": {"user_id": "u"}, "system": [{"type": "text", "text": "s"}],
        "thinking": {"type": "enabled", "budget_tokens": 1024}, "tools": [{"name": "f", "input_schema": {"type": "object"}}],
        "tool_choice": {"type": "auto", "disable_parallel_tool_use": true},
    });
    let call = anthropic::parse(&body(fields)).unwrap();
    assert_eq!(call.recorded.keys().collect::<Vec<_>>(), ["service_tier", "metadata"]);
    let [request] = call.requests.as_slice() else { panic!("one request") };
    let protocol::Prompt::Chat(chat) = &request.prompt else { panic!("a chat") };
    let said: Vec<_> = chat.messages.iter().map(|m| (m.role.as_str(), m.content.as_deref().unwrap())).collect();
    let expected = [("system", "s"), ("user", "a"), ("assistant", "b"), ("tool", "Error: bad"), ("user", "c")];
    assert_eq!(said, expected);
    assert_eq!(chat.messages[2].tool_calls[0].arguments, r#"{"k":2}"#);
    assert_eq!((request.tenant.as_str(), chat.parallel_tool_calls), ("u", false));
    assert_eq!(chat.template_args["enable_thinking"], true);
}
