//! Plain requests survive the way over the wire; what the wire cannot say is refused by name.

use std::collections::BTreeMap;

use proptest::{collection::vec, option, prelude::*};
use protocol::{
    Chat, ErrorKind, Format, GenerateRequest, Message, Prompt, Sampling, Stop, TextOrTokens, Tool, ToolCall,
    ToolChoice,
    anthropic::{self, MessagesRequest},
};
use serde_json::{Value, json};

fn message(role: &str, content: Option<String>) -> Message {
    Message { role: role.to_owned(), content, ..Message::default() }
}

/// A question, then rounds of calls with their results and answers: what a conversation looks like when it is whole.
fn messages() -> impl Strategy<Value = Vec<Message>> {
    let call = ("[a-z]{1,5}", "[a-z]{1,5}", "[a-z]{0,4}");
    let call = call.prop_map(|(id, name, word)| {
        let arguments = json!({ "word": word }).to_string();
        ToolCall { id, name, arguments }
    });
    let round = (vec(call, 0..3), option::of(".{1,12}"), ".{1,12}");
    (option::of(".{1,12}"), ".{1,12}", vec(round, 0..3)).prop_map(|(system, first, rounds)| {
        let mut messages: Vec<_> = system.map(|text| message("system", Some(text))).into_iter().collect();
        messages.push(message("user", Some(first)));
        for (tool_calls, said, next) in rounds {
            let said = said.or(tool_calls.is_empty().then(|| "well".to_owned()));
            let ids: Vec<_> = tool_calls.iter().map(|call| call.id.clone()).collect();
            messages.push(Message { tool_calls, ..message("assistant", said) });
            let result = |id: String| Message { tool_call_id: Some(id), ..message("tool", Some("r".to_owned())) };
            messages.extend(ids.into_iter().map(result));
            messages.push(message("user", Some(next)));
        }
        messages
    })
}

fn tools() -> impl Strategy<Value = (Vec<Tool>, ToolChoice)> {
    let tool = (option::of(".{0,8}"), "[a-z]{1,5}", any::<bool>());
    (vec(tool, 0..3), 0usize..4).prop_map(|(tools, choice)| {
        let named = |(i, (description, field, strict))| {
            let schema = json!({"type": "object", "properties": BTreeMap::from([(field, json!({"type": "string"}))])});
            Tool { name: format!("tool_{i}"), description, parameters: Some(schema), strict }
        };
        let tools: Vec<Tool> = tools.into_iter().enumerate().map(named).collect();
        let choice = match (choice, tools.first()) {
            (1, Some(_)) => ToolChoice::None,
            (2, Some(_)) => ToolChoice::Required,
            (3, Some(tool)) => ToolChoice::Named(tool.name.clone()),
            _ => ToolChoice::Auto,
        };
        (tools, choice)
    })
}

fn chat() -> impl Strategy<Value = Chat> {
    let thinking = option::of(Just(("enable_thinking".to_owned(), Value::Bool(false))));
    let effort = option::of(Just(("reasoning_effort".to_owned(), Value::from("low"))));
    (messages(), tools(), any::<bool>(), thinking, effort).prop_map(|(messages, tools, parallel, thinking, effort)| {
        let (tools, tool_choice) = tools;
        // Without tools, or when none may be called, the wire has no place for the switch.
        let parallel_tool_calls = parallel || tools.is_empty() || tool_choice == ToolChoice::None;
        let template_args = thinking.into_iter().chain(effort).collect();
        Chat { messages, tools, tool_choice, parallel_tool_calls, template_args, continue_last: false }
    })
}

proptest! {
    #[test]
    fn requests(mut chat in chat(), begun in any::<bool>(), temperature in 0.0f32..=1.0, top_k in 0usize..50, top_p in 0.0f32..=1.0,
                max in 1usize..9999, strings in vec(".{1,5}", 0..3), tenant in "[a-z]{0,4}", schema in any::<bool>()) {
        if begun {
            chat.messages.push(message("assistant", Some("So".to_owned())));
            chat.continue_last = true;
        }
        let format = if schema { Format::JsonSchema(json!({"type": "object"})) } else { Format::Text };
        let plain = GenerateRequest {
            model: "m".to_owned(),
            sampling: Sampling { temperature, top_k, top_p, ..Sampling::default() },
            stop: Stop { max_tokens: Some(max), strings, ignore_eos: false },
            format,
            tenant,
            ..GenerateRequest::new(Prompt::Chat(chat.clone()), 0)
        };
        let wire = serde_json::to_vec(&MessagesRequest::show(&plain, &chat).unwrap()).unwrap();
        prop_assert_eq!(anthropic::parse(&wire).unwrap().requests, vec![plain]);
    }

    #[test]
    fn no_body_panics(bytes in vec(any::<u8>(), 0..200)) {
        drop(anthropic::parse(&bytes));
    }
}

#[test]
fn what_the_wire_cannot_say_is_refused_by_name() {
    type Change = fn(&mut GenerateRequest, &mut Chat);
    let cases: [(&str, Change); 10] = [
        ("n", |plain, _| plain.n = 2),
        ("logprobs", |plain, _| plain.logprobs = Some(0)),
        ("seed", |plain, _| plain.sampling.seed = Some(1)),
        ("min_p", |plain, _| plain.sampling.min_p = 0.1),
        ("frequency_penalty", |plain, _| plain.sampling.frequency_penalty = 0.5),
        ("temperature", |plain, _| plain.sampling.temperature = 1.5),
        ("response_format", |plain, _| plain.format = Format::Regex("a".to_owned())),
        ("messages.name", |_, chat| chat.messages[0].name = Some("Ann".to_owned())),
        ("messages", |_, chat| chat.messages.push(message("assistant", Some("Ho".to_owned())))),
        ("chat_template_kwargs", |_, chat| drop(chat.template_args.insert("x".to_owned(), Value::Null))),
    ];
    for (name, change) in cases {
        let mut chat = Chat { messages: vec![message("user", Some("Hi".to_owned()))], ..Chat::default() };
        let mut plain = GenerateRequest::new(Prompt::Raw(TextOrTokens::Text(String::new())), 9);
        change(&mut plain, &mut chat);
        let error = MessagesRequest::show(&plain, &chat).unwrap_err();
        assert_eq!((error.kind, error.param.as_deref()), (ErrorKind::Unsupported, Some(name)), "{error}");
    }
}

/// Nothing else about a conversation gets lost either: system messages go to the front, neighbours of one role become one turn.
#[test]
fn turns_are_put_together() {
    let tool = |id: &str| Message { tool_call_id: Some(id.to_owned()), ..message("tool", Some(id.to_uppercase())) };
    let said = |role: &str, text: &str| message(role, Some(text.to_owned()));
    let messages =
        vec![said("user", "a"), said("user", "b"), said("developer", "c"), tool("d"), said("assistant", ""), tool("e")];
    let chat = Chat { messages, ..Chat::default() };
    let plain = GenerateRequest::new(Prompt::Chat(chat.clone()), 9);
    let wire = serde_json::to_value(MessagesRequest::show(&plain, &chat).unwrap()).unwrap();
    let text = |text: &str| json!({"type": "text", "text": text});
    let result = |id: &str| json!({"type": "tool_result", "tool_use_id": id, "content": id.to_uppercase()});
    let (first, second) = (vec![text("a"), text("b"), result("d")], vec![result("e")]);
    let expected = json!({
        "model": "", "max_tokens": 9, "system": "c",
        "messages": [{"role": "user", "content": first}, {"role": "user", "content": second}],
    });
    assert_eq!(wire, expected);
}
