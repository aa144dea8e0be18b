//! Plain events become the same message in pieces and whole; a client that reads the pieces has the events back.

use expect_test::expect;
use proptest::{collection::vec, prelude::*};
use protocol::{
    Error, ErrorKind, Event, FinishReason, Usage,
    anthropic::{self, Collector, ErrorBody, Reader, Stream},
    openai::{Call, Collected, Envelope, Streamed},
};

const USAGE: Usage = Usage { prompt_tokens: 9, cached_tokens: 4, completion_tokens: 3, processor_micros: None };

fn envelope() -> Envelope {
    Envelope { id: "msg_1".to_owned(), model: "m".to_owned(), ..Envelope::default() }
}

/// A call that watches for two strings.
fn asked() -> Call {
    let turns = r#"[{"role":"user","content":"Hi"}]"#;
    let body = format!(r#"{{"model":"m","max_tokens":9,"messages":{turns},"stop_sequences":["A","B"]}}"#);
    anthropic::parse(body.as_bytes()).unwrap()
}

fn text(text: &str) -> Event {
    Event::Text { choice: 0, text: text.to_owned(), logprobs: Vec::new() }
}

fn call(index: usize, first: bool, arguments: &str) -> Event {
    let first = |word: String| first.then_some(word);
    let (id, name) = (first(format!("call_{index}")), first("f".to_owned()));
    Event::ToolCall { choice: 0, index, id, name, arguments: arguments.to_owned() }
}

fn whole(middle: Vec<Event>, reason: FinishReason) -> Vec<Event> {
    let started = Event::Started { prompt_tokens: USAGE.prompt_tokens, cached_tokens: USAGE.cached_tokens };
    let end = [Event::Finished { choice: 0, reason }, Event::Done(USAGE)];
    [started].into_iter().chain(middle).chain(end).collect()
}

fn written(events: &[Event]) -> Vec<String> {
    let mut stream = Stream::new(envelope(), &asked());
    let mut pieces: Vec<_> = events.iter().flat_map(|event| stream.push(0, event.clone())).collect();
    pieces.extend(stream.finish());
    pieces.iter().map(|piece| serde_json::to_string(piece).unwrap()).collect()
}

fn read(lines: &[String]) -> Vec<Event> {
    let mut reader = Reader::new(vec!["A".to_owned(), "B".to_owned()]);
    lines.iter().flat_map(|line| reader.push(line).unwrap()).collect()
}

/// Texts and, after them, calls whose arguments come in pieces.
fn events() -> impl Strategy<Value = Vec<Event>> {
    let calls = vec(vec("[a-z]{1,3}", 0..3), 0..3);
    let reasons = [FinishReason::Stop, FinishReason::StopString(1), FinishReason::Length, FinishReason::ContentFilter];
    let reason = prop::sample::select(reasons.to_vec());
    (vec(".{1,6}", 0..4), calls, reason).prop_map(|(texts, calls, reason)| {
        let mut middle: Vec<Event> = texts.iter().map(|piece| text(piece)).collect();
        for (index, pieces) in calls.iter().enumerate() {
            middle.push(call(index, true, ""));
            middle.extend(pieces.iter().map(|piece| call(index, false, piece)));
        }
        whole(middle, if calls.is_empty() { reason } else { FinishReason::ToolCalls })
    })
}

proptest! {
    #[test]
    fn a_client_reads_what_was_written(events in events()) {
        prop_assert_eq!(read(&written(&events)), events);
    }
}

#[test]
fn a_stream() {
    let middle = vec![text("Hi"), text(" there"), call(0, true, ""), call(0, false, "{\"a\":"), call(0, false, "1}")];
    let lines = written(&whole(middle, FinishReason::ToolCalls)).join("\n");
    expect![[r#"
        {"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","model":"m","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":5,"cache_creation_input_tokens":0,"cache_read_input_tokens":4,"output_tokens":0}}}
        {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}
        {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hi"}}
        {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":" there"}}
        {"type":"content_block_stop","index":0}
        {"type":"content_block_start","index":1,"content_block":{"type":"tool_use","id":"call_0","name":"f","input":{}}}
        {"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":"{\"a\":"}}
        {"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":"1}"}}
        {"type":"content_block_stop","index":1}
        {"type":"message_delta","delta":{"stop_reason":"tool_use","stop_sequence":null},"usage":{"input_tokens":5,"cache_creation_input_tokens":0,"cache_read_input_tokens":4,"output_tokens":3}}
        {"type":"message_stop"}"#]]
    .assert_eq(&lines);
}

#[test]
fn a_message() {
    let mut collector = Collector::new(envelope(), &asked());
    let middle = vec![text("Hi"), call(0, true, "{\"a\":"), call(0, false, "1}"), call(1, true, ""), text("bye")];
    whole(middle, FinishReason::Length).into_iter().for_each(|event| collector.push(0, event));
    expect![[r#"{"id":"msg_1","type":"message","role":"assistant","model":"m","content":[{"type":"text","text":"Hi"},{"type":"tool_use","id":"call_0","name":"f","input":{"a":1}},{"type":"tool_use","id":"call_1","name":"f","input":{}},{"type":"text","text":"bye"}],"stop_reason":"max_tokens","stop_sequence":null,"usage":{"input_tokens":5,"cache_creation_input_tokens":0,"cache_read_input_tokens":4,"output_tokens":3}}"#]]
    .assert_eq(&serde_json::to_string(&collector.finish()).unwrap());
}

#[test]
fn what_a_reader_meets() {
    let mut reader = Reader::new(vec!["A".to_owned(), "B".to_owned()]);
    let mut check = |line: &str, expected: &[Event]| assert_eq!(reader.push(line).unwrap(), expected, "{line}");
    check(r#"{"type":"ping"}"#, &[]);
    check(r#"{"type":"tomorrow","x":[1]}"#, &[]);
    let start = r#"{"type":"message_start","message":{"id":"x","usage":{"input_tokens":2,"cache_creation_input_tokens":3,"cache_read_input_tokens":null,"output_tokens":1}}}"#;
    check(start, &[Event::Started { prompt_tokens: 5, cached_tokens: 0 }]);
    check(r#"{"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":""}}"#, &[]);
    check(r#"{"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"hm"}}"#, &[]);
    check(
        r#"{"type":"content_block_start","index":3,"content_block":{"type":"tool_use","id":"call_0","name":"f","input":{}}}"#,
        &[call(0, true, "")],
    );
    check(
        r#"{"type":"content_block_delta","index":3,"delta":{"type":"input_json_delta","partial_json":"{}"}}"#,
        &[call(0, false, "{}")],
    );
    check(r#"{"type":"content_block_delta","index":7,"delta":{"type":"input_json_delta","partial_json":"{}"}}"#, &[]);
    let usage = Usage { prompt_tokens: 5, cached_tokens: 0, completion_tokens: 8, ..Usage::default() };
    check(r#"{"type":"message_delta","delta":{},"usage":{"output_tokens":8}}"#, &[]);
    let stop = Event::Finished { choice: 0, reason: FinishReason::Stop };
    check(r#"{"type":"message_stop"}"#, &[stop, Event::Done(usage)]);
    let error =
        reader.push(r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#).unwrap_err();
    assert_eq!((error.kind, error.message.as_str()), (ErrorKind::Overloaded, "Overloaded"));
    assert_eq!(reader.push("{").unwrap_err().kind, ErrorKind::Upstream);
}

#[test]
fn errors_have_this_apis_words() {
    let word = |kind: ErrorKind| ErrorBody::from(&Error::new(kind, "x")).error.kind;
    assert_eq!(word(ErrorKind::Invalid), "invalid_request_error");
    assert_eq!(word(ErrorKind::Overloaded), "rate_limit_error");
    assert_eq!(word(ErrorKind::ShuttingDown), "overloaded_error");
    assert_eq!(word(ErrorKind::Internal), "api_error");
}
