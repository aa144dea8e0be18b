//! The capability matrix as a table: what is asked for, with the capability and without it.

use protocol::{
    Capabilities, Chat, ErrorKind, Event, Finding, Format, GenerateRequest, Outcome, Prompt, TextOrTokens, Tool, Usage,
};
use serde_json::json;
use services::Capable;

use crate::fake::{Fake, Step, answer, events, request, says};

const NONE: Capabilities = Capabilities {
    schema: false,
    grammar: false,
    logprobs: false,
    scoring: false,
    seed: false,
    tools: false,
    images: false,
    prefill: false,
    replay: false,
};

fn chat(request: &mut GenerateRequest) -> &mut Chat {
    match &mut request.prompt {
        Prompt::Chat(chat) => chat,
        Prompt::Raw(_) => panic!("a chat"),
    }
}

#[tokio::test]
async fn what_is_absent_is_refused_by_name() {
    type Wish = fn(&mut GenerateRequest);
    let tool = || Tool { name: "f".to_owned(), description: None, parameters: None, strict: false };
    let cases: [(&str, Wish); 7] = [
        ("response_format", |r| r.format = Format::Regex("a".to_owned())),
        ("response_format", |r| r.format = Format::Lark("start: \"a\"".to_owned())),
        ("logprobs", |r| r.logprobs = Some(2)),
        ("echo", |r| (r.logprobs, r.echo) = (Some(2), true)),
        ("seed", |r| r.sampling.seed = Some(1)),
        ("continue_final_message", |r| chat(r).continue_last = true),
        ("resume", |r| r.resume = vec![vec![1]]),
    ];
    let mut with_tools = request();
    chat(&mut with_tools).tools.push(tool());
    let wish = |(name, wish): &(&'static str, Wish)| {
        let mut request = request();
        wish(&mut request);
        (*name, request)
    };
    let requests = cases.iter().map(wish).chain([("tools", with_tools)]);
    for (name, request) in requests {
        // `echo` is refused for the scores of the prompt, which are beside those of the answer.
        let absent = Capabilities { logprobs: name == "echo", ..NONE };
        let fake = Fake::new([]).able(absent);
        let refused = answer(&Capable::new(fake.arc(), true), request.clone()).await.unwrap_err();
        assert_eq!((refused.kind, refused.param.as_deref()), (ErrorKind::Unsupported, Some(name)), "{refused}");
        assert_eq!(fake.times(), 0, "{name}");
        let fake = Fake::new([]);
        answer(&Capable::new(fake.arc(), true), request.clone()).await.unwrap();
        assert_eq!(*fake.asked.lock(), [request], "{name}: passed on as it is");
    }
}

const SCHEMA: &str = r#"{"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}"#;

fn under_schema() -> GenerateRequest {
    GenerateRequest { format: Format::JsonSchema(serde_json::from_str(SCHEMA).unwrap()), ..request() }
}

/// Answers in turn from a service without schemas: how often it was asked, what its caller hears, and the finding.
async fn check(answers: &[&str], times: usize, heard: &str, outcome: Outcome, detail: &str) {
    let fake = Fake::new(answers.iter().map(|words| Ok(says(words)))).able(NONE);
    let events = events(&Capable::new(fake.arc(), true), under_schema()).await.unwrap();
    let said: Vec<&str> = events
        .iter()
        .filter_map(|event| match event {
            Event::Text { text, .. } => Some(text.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!((fake.times(), said.as_slice()), (times, [heard].as_slice()), "{answers:?}");
    let finding = Finding { choice: Some(0), rule: "schema".to_owned(), outcome, detail: detail.to_owned() };
    assert!(events.contains(&Event::Checked(finding)), "{answers:?}: {events:?}");
    let tokens = 2 * times;
    let usage = Usage { prompt_tokens: 3 * times, cached_tokens: 0, completion_tokens: tokens, ..Usage::default() };
    assert_eq!(events.last(), Some(&Event::Done(usage)), "both answers are paid for");
    for request in fake.asked.lock().iter() {
        assert_eq!(request.format, Format::JsonObject);
        let Prompt::Chat(chat) = &request.prompt else { panic!("a chat") };
        assert_eq!(chat.messages[0].role, "system");
        assert!(chat.messages[0].content.as_ref().unwrap().contains(r#""required":["n"]"#));
    }
}

#[tokio::test]
async fn a_schema_is_told_checked_and_asked_for_once_more() {
    let (good, bad) = (r#"{"n": 1}"#, r#"{"n": "secret"}"#);
    check(&[good], 1, good, Outcome::Passed, "").await;
    check(&["```json\n{\"n\": 1}\n```"], 1, good, Outcome::Passed, "").await;
    check(&[bad, good], 2, good, Outcome::Passed, "").await;
    check(&["no", good], 2, good, Outcome::Passed, "").await;
    let mistake = "/n breaks /properties/n/type";
    check(&[bad, bad], 2, bad, Outcome::Failed, mistake).await;
    check(&["no", "no"], 2, "no", Outcome::Failed, "it is not JSON").await;
}

#[tokio::test]
async fn json_without_a_json_mode() {
    let fake = Fake::new([Ok(says("[1]")), Ok(says("{}"))]).able(NONE);
    let request = GenerateRequest { format: Format::JsonObject, ..request() };
    assert_eq!(answer(&Capable::new(fake.arc(), false), request.clone()).await.unwrap(), "{}");
    assert!(fake.asked.lock().iter().all(|asked| asked.format == Format::Text));
    // With one, it is the service's own business.
    let fake = Fake::new([Ok(says("[1]"))]).able(NONE);
    assert_eq!(answer(&Capable::new(fake.arc(), true), request).await.unwrap(), "[1]");
}

#[tokio::test]
async fn what_cannot_be_checked_is_refused() {
    let raw = Prompt::Raw(TextOrTokens::Text("x".to_owned()));
    let cases = [
        ("n", GenerateRequest { n: 2, ..under_schema() }),
        ("response_format", GenerateRequest { prompt: raw, ..under_schema() }),
        ("response_format", GenerateRequest { format: Format::JsonSchema(json!({"type": 3})), ..request() }),
    ];
    for (name, request) in cases {
        let fake = Fake::new([]).able(NONE);
        let refused = answer(&Capable::new(fake.arc(), true), request).await.unwrap_err();
        assert_eq!((refused.param.as_deref(), fake.times()), (Some(name), 0), "{refused}");
    }
}

/// An answer that calls tools has nothing to check.
#[tokio::test]
async fn calls_are_not_checked() {
    let mut steps = says("");
    let call =
        Event::ToolCall { choice: 0, index: 0, id: Some("1".into()), name: Some("f".into()), arguments: "{}".into() };
    steps[1] = Step::Send(call.clone());
    let fake = Fake::new([Ok(steps)]).able(Capabilities { tools: true, ..NONE });
    let events = events(&Capable::new(fake.arc(), true), under_schema()).await.unwrap();
    assert!(events.contains(&call) && !events.iter().any(|event| matches!(event, Event::Checked(_))), "{events:?}");
}
