//! Calls of tools over the fake model: their pieces, what cuts them, and calls beside JSON.

use protocol::{Chat, Message, Tool, ToolChoice};
use serde_json::{Value, json};
use text::ChatTemplate;

use super::*;

/// A template that lays out no tools: they are written into the conversation.
const PLAIN: &str = "{% for message in messages %}{{ message.content }}\n{% endfor %}";
/// One whose model writes calls as bare JSON.
const BARE: &str = "{% for message in messages %}{{ message.content }}{% for call in message.tool_calls %}\
    {\"name\": \"{{ call.function.name }}\", \"parameters\": {{ call.function.arguments | tojson }}}{% endfor %}\n{% endfor %}\
    {% for tool in tools %}{{ tool | tojson }}{% endfor %}";

fn chat_engine(template: &str) -> Engine {
    let template = ChatTemplate::new(template, &fake::tokenizer()).unwrap();
    let config = EngineConfig { name: "fake".into(), ..EngineConfig::default() };
    let executor = FakeExecutor::new(64, VirtualClock::default());
    Engine::start(executor, fake::tokenizer(), Some(template), config).unwrap()
}

fn asking(tool_choice: ToolChoice, format: Format, seed: u64) -> GenerateRequest {
    let schema = json!({
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 9}, "days": {"enum": [1, 7]}},
        "required": ["city", "days"],
        "additionalProperties": false
    });
    let tool = Tool { name: "weather".into(), description: None, parameters: Some(schema), strict: false };
    let user = Message { role: "user".into(), content: Some("Rain?".into()), ..Message::default() };
    let chat = Chat { messages: vec![user], tools: vec![tool], tool_choice, ..Chat::default() };
    let mut request = GenerateRequest::new(Prompt::Chat(chat), 300);
    request.sampling.seed = Some(seed);
    request.format = format;
    request
}

/// The text, the pieces of all calls (index, name, arguments), and why it ended.
type Told = (String, Vec<(usize, Option<String>, String)>, FinishReason);

fn ask(engine: &Engine, request: GenerateRequest) -> Result<Told, Error> {
    block_on(async {
        let mut told = (String::new(), Vec::new(), FinishReason::Length);
        let mut events = engine.generate(request).await?;
        while let Some(event) = events.next().await {
            match event? {
                Event::Text { text, .. } => told.0.push_str(&text),
                Event::ToolCall { index, id, name, arguments, .. } => {
                    assert_eq!(id.is_some(), name.is_some());
                    told.1.push((index, name, arguments));
                }
                Event::Finished { reason, .. } => told.2 = reason,
                _ => {}
            }
        }
        Ok(told)
    })
}

fn check_call(arguments: &str) {
    let value: Value = serde_json::from_str(arguments).unwrap();
    assert!(value["city"].is_string() && [json!(1), json!(7)].contains(&value["days"]), "{arguments}");
}

#[test]
fn arguments_come_in_pieces() {
    for template in [PLAIN, BARE] {
        let engine = chat_engine(template);
        for seed in 0..10 {
            let mut request = asking(ToolChoice::Named("weather".into()), Format::Text, seed);
            let (text, pieces, reason) = ask(&engine, request.clone()).unwrap();
            assert_eq!((text.as_str(), reason), ("", FinishReason::ToolCalls));
            assert_eq!(pieces[0], (0, Some("weather".into()), String::new()));
            assert!(pieces.len() > 4 && pieces[1..].iter().all(|piece| piece.1.is_none()), "{pieces:?}");
            let arguments: String = pieces.into_iter().map(|piece| piece.2).collect();
            check_call(&arguments);
            // A limit cuts them where they are, and no call counts as made; a stop string does the same.
            request.stop.max_tokens = Some(60);
            let (text, cut, reason) = ask(&engine, request.clone()).unwrap();
            assert_eq!((text.as_str(), reason), ("", FinishReason::Length));
            let cut: String = cut.into_iter().map(|piece| piece.2).collect();
            // What was cut may be a character.
            assert!(arguments.starts_with(cut.trim_end_matches('\u{FFFD}')), "{cut} {arguments}");
            request.stop.max_tokens = Some(300);
            request.stop.strings = vec!["\"days\"".into()];
            let (_, cut, reason) = ask(&engine, request).unwrap();
            let cut: String = cut.into_iter().map(|piece| piece.2).collect();
            assert_eq!(
                (cut.as_str(), reason),
                (arguments.split("\"days\"").next().unwrap(), FinishReason::StopString(0))
            );
        }
    }
}

#[test]
fn a_call_or_json_as_the_model_likes() {
    let engine = chat_engine(PLAIN);
    let schema = json!({"type": "object", "properties": {"rain": {"type": "boolean"}}, "required": ["rain"], "additionalProperties": false});
    let (mut calls, mut answers) = (0, 0);
    for seed in 0..40 {
        let request = asking(ToolChoice::Auto, Format::JsonSchema(schema.clone()), seed);
        let (text, pieces, reason) = ask(&engine, request).unwrap();
        if pieces.is_empty() {
            assert!(["{\"rain\": true}", "{\"rain\": false}"].contains(&text.as_str()), "{text}");
            assert_eq!(reason, FinishReason::Stop);
            answers += 1;
        } else {
            assert_eq!((text.as_str(), reason), ("", FinishReason::ToolCalls));
            check_call(&pieces.into_iter().map(|piece| piece.2).collect::<String>());
            calls += 1;
        }
    }
    assert!(calls > 0 && answers > 0, "{calls} calls, {answers} answers");
}

#[test]
fn only_words_of_the_assistant_are_gone_on_with() {
    let asked = |role: &str, tools: bool| {
        let mut request = asking(ToolChoice::Auto, Format::Text, 0);
        let Prompt::Chat(chat) = &mut request.prompt else { unreachable!() };
        let last = Message { role: role.into(), content: Some("It".into()), ..Message::default() };
        chat.messages.push(last);
        chat.continue_last = true;
        chat.tools.truncate(usize::from(tools));
        ask(&chat_engine(PLAIN), request).map_err(|error| error.param.unwrap_or_default())
    };
    assert!(asked("assistant", false).is_ok());
    for (role, tools) in [("user", false), ("assistant", true)] {
        assert_eq!(asked(role, tools).unwrap_err(), "continue_final_message", "{role} {tools}");
    }
}

#[test]
fn formats_that_cannot_stand_beside_calls_are_refused() {
    let check = |template: &str, format: Format, param: &str| {
        let error = ask(&chat_engine(template), asking(ToolChoice::Auto, format, 0)).unwrap_err();
        assert_eq!((error.kind, error.param.as_deref()), (ErrorKind::Invalid, Some(param)), "{error}");
    };
    check(PLAIN, Format::Regex("a".into()), "response_format");
    check(PLAIN, Format::Lark("start: \"a\"".into()), "response_format");
    check(PLAIN, Format::JsonSchema(json!({"type": "strnig"})), "response_format");
    check(BARE, Format::JsonObject, "response_format");
}
