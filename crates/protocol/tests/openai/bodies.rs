//! Bodies as the official Python SDK (3.54.0) sends them: decoded, checked, and encoded again without a loss.

use expect_test::{Expect, expect};
use protocol::{
    GenerateRequest,
    openai::{Call, chat, completion, embedding},
};
use serde_json::{Value, json};

macro_rules! body {
    ($name:literal) => {
        include_str!(concat!("../data/requests/", $name, ".json"))
    };
}

/// The value without nulls, which mean the same as absence, and with 0 and 0.0 as one number.
fn spare(value: Value) -> Value {
    match value {
        Value::Object(map) => map.into_iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k, spare(v))).collect(),
        Value::Array(items) => items.into_iter().map(spare).collect(),
        Value::Number(number) => json!(number.as_f64()),
        other => other,
    }
}

/// Decoding and encoding gives the same body.
fn survives<T: serde::Serialize + serde::de::DeserializeOwned>(body: &str) {
    let wire: T = serde_json::from_str(body).unwrap();
    let again = serde_json::to_string(&wire).unwrap();
    assert_eq!(spare(serde_json::from_str(&again).unwrap()), spare(serde_json::from_str(body).unwrap()));
}

/// The parts of a request, each on its line unless it is neutral.
fn parts(request: &GenerateRequest) -> Vec<String> {
    let GenerateRequest { sampling, stop, format, n, logprobs, echo, score_from, tenant, .. } = request;
    let scores = format!("n {n}, logprobs {logprobs:?}, echo {echo}, score_from {score_from}, tenant {tenant:?}");
    vec![format!("{:?}", request.prompt), format!("{sampling:?}"), format!("{stop:?}"), format!("{format:?}"), scores]
}

fn shown(call: &Call) -> String {
    let neutral = parts(&GenerateRequest::new(call.requests[0].prompt.clone(), 0));
    let mut out = String::new();
    for request in &call.requests {
        assert_eq!(request.model, "m");
        let mut lines = parts(request).into_iter();
        out += &format!("{}\n", lines.next().unwrap());
        lines.filter(|line| !neutral.contains(line)).for_each(|line| out += &format!("  {line}\n"));
    }
    let Call { stream, include_usage, recorded, .. } = call;
    out + &format!("stream {stream}, usage {include_usage}, recorded {}\n", json!(recorded))
}

fn check_chat(body: &str, expected: Expect) {
    survives::<chat::ChatRequest>(body);
    expected.assert_eq(&shown(&chat::parse(body.as_bytes()).unwrap()));
}

fn check_completion(body: &str, expected: Expect) {
    survives::<completion::CompletionRequest>(body);
    expected.assert_eq(&shown(&completion::parse(body.as_bytes()).unwrap()));
}

fn check_embedding(body: &str, expected: Expect) {
    survives::<embedding::EmbeddingRequest>(body);
    expected.assert_eq(&format!("{:?}\n", embedding::parse(body.as_bytes()).unwrap()));
}

#[test]
fn chats() {
    check_chat(
        body!("chat_plain"),
        expect![[r#"
            Chat(Chat { messages: [Message { role: "system", content: Some("Be brief."), name: None, tool_calls: [], tool_call_id: None }, Message { role: "user", content: Some("Hi 你好 🙂"), name: None, tool_calls: [], tool_call_id: None }], tools: [], tool_choice: Auto, parallel_tool_calls: true, template_args: {}, continue_last: false })
              Sampling { temperature: 0.2, top_k: 0, top_p: 1.0, min_p: 0.0, presence_penalty: 0.0, frequency_penalty: 0.0, repetition_penalty: 1.0, logit_bias: {}, seed: Some(7) }
              Stop { max_tokens: Some(20), strings: [], ignore_eos: false }
              n 1, logprobs None, echo false, score_from 0, tenant "ann"
            stream false, usage false, recorded {"user":"ann"}
        "#]],
    );
    check_chat(
        body!("chat_everything"),
        expect![[r#"
            Chat(Chat { messages: [Message { role: "developer", content: Some("Be brief."), name: None, tool_calls: [], tool_call_id: None }, Message { role: "user", content: Some("a\nb"), name: None, tool_calls: [], tool_call_id: None }], tools: [], tool_choice: Auto, parallel_tool_calls: true, template_args: {"enable_thinking": Bool(true), "reasoning_effort": String("none")}, continue_last: false })
              Sampling { temperature: 1.0, top_k: 40, top_p: 1.0, min_p: 0.05, presence_penalty: 0.5, frequency_penalty: -0.5, repetition_penalty: 1.1, logit_bias: {50: -100.0, 51: 5.0}, seed: None }
              Stop { max_tokens: None, strings: ["\n\n", "END"], ignore_eos: false }
              n 2, logprobs Some(3), echo false, score_from 0, tenant "s"
            stream false, usage false, recorded {"service_tier":"auto","metadata":{"run":"1"},"prediction":{"type":"content","content":"b"},"prompt_cache_key":"k","safety_identifier":"s","store":false,"verbosity":"low"}
        "#]],
    );
    check_chat(
        body!("chat_parse"),
        expect![[r##"
            Chat(Chat { messages: [Message { role: "user", content: Some("cities"), name: None, tool_calls: [], tool_call_id: None }], tools: [], tool_choice: Auto, parallel_tool_calls: true, template_args: {}, continue_last: false })
              Stop { max_tokens: None, strings: [], ignore_eos: false }
              JsonSchema(Object {"$defs": Object {"City": Object {"properties": Object {"name": Object {"title": String("Name"), "type": String("string")}, "population": Object {"title": String("Population"), "type": String("integer")}}, "required": Array [String("name"), String("population")], "title": String("City"), "type": String("object"), "additionalProperties": Bool(false)}}, "properties": Object {"cities": Object {"items": Object {"$ref": String("#/$defs/City")}, "title": String("Cities"), "type": String("array")}}, "required": Array [String("cities")], "title": String("Cities"), "type": String("object"), "additionalProperties": Bool(false)})
            stream false, usage false, recorded {}
        "##]],
    );
}

#[test]
fn answers_sent_back() {
    check_chat(
        body!("chat_parsed_sent_back"),
        expect![[r#"
            Chat(Chat { messages: [Message { role: "user", content: Some("cities"), name: None, tool_calls: [], tool_call_id: None }, Message { role: "assistant", content: Some("{\"cities\":[]}"), name: None, tool_calls: [], tool_call_id: None }, Message { role: "user", content: Some("more"), name: None, tool_calls: [], tool_call_id: None }], tools: [], tool_choice: Auto, parallel_tool_calls: true, template_args: {}, continue_last: false })
              Stop { max_tokens: None, strings: [], ignore_eos: false }
            stream false, usage false, recorded {}
        "#]],
    );
    check_chat(
        body!("chat_tool_answer"),
        expect![[r#"
            Chat(Chat { messages: [Message { role: "user", content: Some("Oslo?"), name: None, tool_calls: [], tool_call_id: None }, Message { role: "assistant", content: None, name: None, tool_calls: [ToolCall { id: "call_1", name: "weather", arguments: "{\"city\": \"Oslo\"}" }], tool_call_id: None }, Message { role: "tool", content: Some("rain"), name: None, tool_calls: [], tool_call_id: Some("call_1") }], tools: [Tool { name: "weather", description: Some("Weather of a city."), parameters: Some(Object {"description": String("Weather of a city."), "properties": Object {"city": Object {"title": String("City"), "type": String("string")}}, "required": Array [String("city")], "title": String("weather"), "type": String("object"), "additionalProperties": Bool(false)}), strict: true }], tool_choice: Auto, parallel_tool_calls: true, template_args: {}, continue_last: false })
              Stop { max_tokens: None, strings: [], ignore_eos: false }
            stream false, usage false, recorded {}
        "#]],
    );
    check_chat(
        body!("chat_tool_answer_dump"),
        expect![[r#"
            Chat(Chat { messages: [Message { role: "user", content: Some("Oslo?"), name: None, tool_calls: [], tool_call_id: None }, Message { role: "assistant", content: None, name: None, tool_calls: [ToolCall { id: "call_1", name: "weather", arguments: "{\"city\": \"Oslo\"}" }], tool_call_id: None }, Message { role: "tool", content: Some("rain"), name: None, tool_calls: [], tool_call_id: Some("call_1") }], tools: [Tool { name: "weather", description: Some("Weather of a city."), parameters: Some(Object {"description": String("Weather of a city."), "properties": Object {"city": Object {"title": String("City"), "type": String("string")}}, "required": Array [String("city")], "title": String("weather"), "type": String("object"), "additionalProperties": Bool(false)}), strict: true }], tool_choice: Auto, parallel_tool_calls: true, template_args: {}, continue_last: false })
              Stop { max_tokens: None, strings: [], ignore_eos: false }
            stream false, usage false, recorded {}
        "#]],
    );
    check_chat(
        body!("chat_tool_parsed_answer"),
        expect![[r#"
            Chat(Chat { messages: [Message { role: "user", content: Some("Oslo?"), name: None, tool_calls: [], tool_call_id: None }, Message { role: "assistant", content: None, name: None, tool_calls: [ToolCall { id: "call_1", name: "weather", arguments: "{\"city\": \"Oslo\"}" }], tool_call_id: None }, Message { role: "tool", content: Some("rain"), name: None, tool_calls: [], tool_call_id: Some("call_1") }], tools: [Tool { name: "weather", description: Some("Weather of a city."), parameters: Some(Object {"description": String("Weather of a city."), "properties": Object {"city": Object {"title": String("City"), "type": String("string")}}, "required": Array [String("city")], "title": String("weather"), "type": String("object"), "additionalProperties": Bool(false)}), strict: true }], tool_choice: Auto, parallel_tool_calls: true, template_args: {}, continue_last: false })
              Stop { max_tokens: None, strings: [], ignore_eos: false }
            stream false, usage false, recorded {}
        "#]],
    );
}

#[test]
fn tools() {
    check_chat(
        body!("chat_tools"),
        expect![[r#"
            Chat(Chat { messages: [Message { role: "user", content: Some("Oslo?"), name: None, tool_calls: [], tool_call_id: None }], tools: [Tool { name: "weather", description: Some("Weather of a city."), parameters: Some(Object {"description": String("Weather of a city."), "properties": Object {"city": Object {"title": String("City"), "type": String("string")}}, "required": Array [String("city")], "title": String("weather"), "type": String("object"), "additionalProperties": Bool(false)}), strict: true }], tool_choice: Required, parallel_tool_calls: false, template_args: {}, continue_last: false })
              Stop { max_tokens: None, strings: [], ignore_eos: false }
            stream false, usage false, recorded {}
        "#]],
    );
}

#[test]
fn completions() {
    check_completion(
        body!("completion_score"),
        expect![[r#"
            Raw(Text("a"))
              Sampling { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, presence_penalty: 0.0, frequency_penalty: 0.0, repetition_penalty: 1.0, logit_bias: {}, seed: Some(1234) }
              n 1, logprobs Some(1), echo true, score_from 0, tenant ""
            Raw(Text("b"))
              Sampling { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, presence_penalty: 0.0, frequency_penalty: 0.0, repetition_penalty: 1.0, logit_bias: {}, seed: Some(1234) }
              n 1, logprobs Some(1), echo true, score_from 0, tenant ""
            stream false, usage false, recorded {}
        "#]],
    );
    check_completion(
        body!("completion_ids"),
        expect![[r#"
            Raw(Tokens([1, 2]))
              Sampling { temperature: 1.0, top_k: 0, top_p: 0.9, min_p: 0.0, presence_penalty: 0.0, frequency_penalty: 0.0, repetition_penalty: 1.0, logit_bias: {}, seed: None }
              Stop { max_tokens: Some(16), strings: ["x"], ignore_eos: false }
              Regex("[a-z]+")
              n 1, logprobs Some(0), echo true, score_from 2, tenant ""
            Raw(Tokens([3]))
              Sampling { temperature: 1.0, top_k: 0, top_p: 0.9, min_p: 0.0, presence_penalty: 0.0, frequency_penalty: 0.0, repetition_penalty: 1.0, logit_bias: {}, seed: None }
              Stop { max_tokens: Some(16), strings: ["x"], ignore_eos: false }
              Regex("[a-z]+")
              n 1, logprobs Some(0), echo true, score_from 2, tenant ""
            stream false, usage false, recorded {}
        "#]],
    );
}

#[test]
fn embeddings() {
    check_embedding(
        body!("embedding"),
        expect![[r#"
        EmbedCall { request: EmbedRequest { model: "m", inputs: [Text("a"), Text("b")], dimensions: Some(8) }, encoding: Base64, recorded: {} }
    "#]],
    );
    check_embedding(
        body!("embedding_ids"),
        expect![[r#"
        EmbedCall { request: EmbedRequest { model: "m", inputs: [Tokens([1, 2, 3])], dimensions: None }, encoding: Float, recorded: {"user": String("ann")} }
    "#]],
    );
}
