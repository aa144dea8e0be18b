//! The guard where rules are easily passed by: tools and schemas on the way in, interleaved calls on the way out.

use std::sync::LazyLock;

use guard::{Action, Fail, Guard, Policy, Terms};
use protocol::{
    Chat, ErrorKind, Event, Format, GenerateRequest, MOST_CALLS, Message, Prompt, Tool, ToolCall, ToolChoice,
};
use serde_json::{Value, json};
use services::Guarded;

use crate::{
    fake::{Fake, Step, done, ends, events, request, says, started, text},
    guarded::asking,
};

/// Personal data is masked, `cactus` blocks.
static GUARD: LazyLock<Guard> = LazyLock::new(|| {
    let mut policy = Policy::default();
    (policy.personal.input, policy.personal.output) = (Action::Mask, Action::Mask);
    let words = vec!["cactus".to_owned()];
    policy.terms.insert("thorn".to_owned(), Terms { words, input: Action::Block, output: Action::Block });
    Guard::new(&policy).unwrap()
});

/// A request with every text that a service may read.
fn asks(change: impl FnOnce(&mut Chat, &mut Format)) -> GenerateRequest {
    let call = ToolCall { id: "1".to_owned(), name: "f".to_owned(), arguments: "{}".to_owned() };
    let said = Message {
        role: "assistant".to_owned(),
        name: Some("bo".to_owned()),
        tool_calls: vec![call],
        ..Message::default()
    };
    let tool = Tool { name: "f".to_owned(), description: None, parameters: Some(json!({})), strict: false };
    let mut chat = Chat { messages: vec![said], tools: vec![tool], ..Chat::default() };
    let mut format = Format::Text;
    change(&mut chat, &mut format);
    GenerateRequest { format, ..GenerateRequest { prompt: Prompt::Chat(chat), ..request() } }
}

#[tokio::test]
async fn whatever_a_service_may_read_is_judged() {
    type Put = fn(&mut Chat, &mut Format, &str);
    let check = async |put: Put, place: &str, masks: bool| {
        let play = async |words: &str| {
            let fake = Fake::new([]);
            let service = Guarded::new(fake.arc(), GUARD.clone());
            let heard = events(&service, asks(|chat, format| put(chat, format, words))).await;
            heard.map(|_| fake.asked.lock()[0].clone())
        };
        let masked = |words: &str| asks(|chat, format| put(chat, format, words));
        let judge = Fake::new([Ok(says("no"))]);
        let (policy, panel) = asking(&judge, (Action::Block, Action::Allow), Fail::Closed);
        let service = Guarded::new(Fake::new([]).arc(), Guard::new(&policy).unwrap()).with_panel(panel);
        events(&service, masked("unusual")).await.unwrap();
        assert!(format!("{:?}", judge.asked.lock()[0].prompt).contains("unusual"), "models are asked about {place}");
        assert_eq!(play("plain").await.unwrap().prompt, masked("plain").prompt, "{place}");
        let refused = play("cactus").await.unwrap_err();
        assert_eq!((refused.kind, refused.param.as_deref()), (ErrorKind::Blocked, Some(place)), "{place}");
        match play("ada@example.org").await {
            Ok(asked) => {
                let expected = masked("[email]");
                assert!(masks, "{place}");
                assert_eq!((asked.prompt, asked.format), (expected.prompt, expected.format), "{place}");
            }
            Err(error) => {
                assert!(!masks, "{place}: {error}");
                assert!(error.message.contains("personal.email") && !error.message.contains("ada"), "{error}");
            }
        }
    };
    check(|chat, _, words| chat.messages[0].content = Some(words.to_owned()), "messages[0].content", true).await;
    check(|chat, _, words| chat.messages[0].name = Some(words.to_owned()), "messages[0].name", false).await;
    let put: Put = |chat, _, words| words.clone_into(&mut chat.messages[0].tool_calls[0].name);
    check(put, "messages[0].tool_calls[0].function.name", false).await;
    let put: Put = |chat, _, words| chat.messages[0].tool_calls[0].arguments = format!(r#"{{"a":"{words}"}}"#);
    check(put, "messages[0].tool_calls[0].function.arguments", true).await;
    check(|chat, _, words| words.clone_into(&mut chat.tools[0].name), "tools[0].function.name", false).await;
    let put: Put = |chat, _, words| chat.tools[0].description = Some(words.to_owned());
    check(put, "tools[0].function.description", true).await;
    let put: Put =
        |chat, _, words| chat.tools[0].parameters = Some(json!({"properties": {"a": {"description": words}}}));
    check(put, "tools[0].function.parameters", true).await;
    let put: Put = |chat, _, words| chat.tools[0].parameters = Some(json!({"properties": {words: {}}}));
    check(put, "tools[0].function.parameters", false).await;
    check(|chat, _, words| chat.tool_choice = ToolChoice::Named(words.to_owned()), "tool_choice", false).await;
    let put: Put = |chat, _, words| _ = chat.template_args.insert("x".to_owned(), Value::from(words));
    check(put, "chat_template_kwargs", true).await;
    let put: Put = |_, format, words| *format = Format::JsonSchema(json!({"anyOf": [{"description": words}]}));
    check(put, "response_format", true).await;
    let put: Put = |_, format, words| *format = Format::JsonSchema(json!({"enum": ["x", words]}));
    check(put, "response_format", true).await;
    let put: Put = |_, format, words| *format = Format::JsonSchema(json!({"pattern": words, "maximum": 1}));
    check(put, "response_format", false).await;
    check(|_, format, words| *format = Format::Regex(words.to_owned()), "response_format", false).await;
}

/// A piece of a call; the first has a name.
fn call(index: usize, first: bool, arguments: &str) -> Event {
    let word = |word: &str| first.then(|| word.to_owned());
    Event::ToolCall { choice: 0, index, id: word("1"), name: word("f"), arguments: arguments.to_owned() }
}

/// What leaves: runs of text and of calls, in order.
async fn leaves(pieces: Vec<Event>) -> Result<Vec<String>, ErrorKind> {
    leaves_of(Format::Text, pieces).await
}

async fn leaves_of(format: Format, pieces: Vec<Event>) -> Result<Vec<String>, ErrorKind> {
    let all = [started()].into_iter().chain(pieces).chain([ends(), done()]);
    let fake = Fake::new([Ok(all.map(Step::Send).collect())]);
    let request = GenerateRequest { format, ..request() };
    let heard = events(&Guarded::new(fake.arc(), GUARD.clone()), request).await.map_err(|error| error.kind)?;
    let mut runs: Vec<(String, String)> = Vec::new();
    for event in heard {
        let (who, more) = match event {
            Event::Text { text, .. } => ("text".to_owned(), text),
            Event::ToolCall { index, arguments, .. } => (index.to_string(), arguments),
            Event::Finished { reason, .. } => (format!("{reason:?}"), String::new()),
            _ => continue,
        };
        match runs.last_mut() {
            Some((last, all)) if *last == who => *all += &more,
            _ => runs.push((who, more)),
        }
    }
    Ok(runs.into_iter().map(|(who, all)| format!("{who}: {all}")).collect())
}

#[tokio::test]
async fn what_is_cut_by_a_call_is_found() {
    let check = async |pieces: Vec<Event>, expected: &[&str]| assert_eq!(leaves(pieces).await.unwrap(), expected);
    check(
        vec![
            call(0, true, "{\"a\":\"alice@exam"),
            call(1, true, "{}"),
            call(0, false, "ple.com\"}"),
            call(2, true, "{\"b\":\"\\u0062o\\u00"),
            call(2, false, "40example.com\"}"),
        ],
        &["0: {\"a\":\"[email]\"}", "1: {}", "2: {\"b\":\"[email]\"}", "Stop: "],
    )
    .await;
    let card = vec![text("card 4111 1111 "), call(0, true, "{}"), text("1111 1111")];
    check(card, &["text: card [card]", "0: {}", "Stop: "]).await;
    // Text keeps its place in front of a call, and nothing that follows blocks it.
    check(vec![text("Look at x"), call(0, true, "{}")], &["text: Look at x", "0: {}", "Stop: "]).await;
    let blocked = leaves(vec![call(0, true, "{\"a\":\"cac"), call(1, true, "{}"), call(0, false, "tus\"}")]).await;
    assert_eq!(blocked.unwrap().last().unwrap(), "ContentFilter: ");
}

/// A name leaves whole or not at all.
#[tokio::test]
async fn names_of_calls_are_judged() {
    let check = async |name: &str, expected: &[&str]| {
        let named = Event::ToolCall {
            choice: 0,
            index: 0,
            id: Some("1".to_owned()),
            name: Some(name.to_owned()),
            arguments: "{}".to_owned(),
        };
        assert_eq!(leaves(vec![named, call(1, true, "{}")]).await.unwrap(), expected, "{name}");
    };
    check("water", &["0: {}", "1: {}", "Stop: "]).await;
    check("cactus", &["ContentFilter: "]).await;
    check("ada@example.org", &["ContentFilter: "]).await;
}

/// `\u0040` is an `@` wherever JSON is wanted, and stays what it is elsewhere.
#[tokio::test]
async fn json_is_judged_as_what_it_means() {
    let spelt = [r#"{"a": "ada\u00"#, r#"40example.org", "b": "x\ty"}"#].map(text);
    for format in [Format::JsonObject, Format::JsonSchema(json!({}))] {
        let left = leaves_of(format.clone(), spelt.to_vec()).await.unwrap();
        assert_eq!(left, [r#"text: {"a": "[email]", "b": "x\ty"}"#, "Stop: "]);
        let blocked = leaves_of(format, [r#"{"a": "c\u0061c"#, r#"tus"}"#].map(text).to_vec()).await.unwrap();
        assert_eq!(blocked.last().unwrap(), "ContentFilter: ");
        assert!(!blocked[0].contains("0061"), "{blocked:?}");
    }
    let code = r#"text: {"a": "ada\u0040example.org", "b": "x\ty"}"#;
    assert_eq!(leaves(spelt.to_vec()).await.unwrap(), [code, "Stop: "]);
}

/// A model that is asked hears the calls of an answer, too.
#[tokio::test]
async fn models_are_asked_about_calls() {
    let judge = Fake::new([Ok(says("yes"))]);
    let (policy, panel) = asking(&judge, (Action::Allow, Action::Block), Fail::Open);
    let all = [started(), call(0, true, r#"{"a":"\u0061spirin"}"#), ends(), done()];
    let fake = Fake::new([Ok(all.map(Step::Send).to_vec())]);
    let service = Guarded::new(fake.arc(), Guard::new(&policy).unwrap()).with_panel(panel);
    let heard = events(&service, request()).await.unwrap();
    assert!(!heard.iter().any(|event| matches!(event, Event::ToolCall { .. })), "{heard:?}");
    assert!(format!("{:?}", judge.asked.lock()[0].prompt).contains("f: {\\\"a\\\":\\\"aspirin"), "decoded");
}

#[tokio::test]
async fn an_answer_has_so_many_calls() {
    let calls = |n: usize| (0..n).map(|index| call(index, true, "{}")).collect::<Vec<_>>();
    assert_eq!(leaves(calls(MOST_CALLS)).await.unwrap().len(), MOST_CALLS + 1);
    assert_eq!(leaves(calls(MOST_CALLS + 1)).await, Err(ErrorKind::Upstream));
}
