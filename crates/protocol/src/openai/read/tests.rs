//! What servers send, and the events it is.

use super::*;

fn text(choice: usize, text: &str) -> Event {
    Event::Text { choice, text: text.to_owned(), logprobs: Vec::new() }
}

fn call(index: usize, first: Option<(&str, &str)>, arguments: &str) -> Event {
    let (id, name) = first.map(|(id, name)| (id.to_owned(), name.to_owned())).unzip();
    Event::ToolCall { choice: 0, index, id, name, arguments: arguments.to_owned() }
}

fn ends(reason: FinishReason) -> Event {
    Event::Finished { choice: 0, reason }
}

/// Everything but the beginning.
fn read(n: usize, data: &[&str]) -> Result<Vec<Event>, Error> {
    let mut reader = Reader::new(n, vec!["A".to_owned(), "B".to_owned()]);
    let mut events = Vec::new();
    for data in data {
        events.extend(reader.push(data)?);
    }
    events.extend(reader.finish()?);
    assert!(matches!(events.first(), Some(Event::Started { .. })));
    Ok(events.split_off(1))
}

#[test]
fn chunks_become_events() {
    let done = |completion_tokens| Event::Done(Usage { completion_tokens, ..Usage::default() });
    let check = |chunks: &[&str], expected: &[Event]| assert_eq!(read(1, chunks).unwrap(), expected, "{chunks:?}");
    let stop = r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;
    check(
        &[r#"{"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}"#, stop, "[DONE]"],
        &[ends(FinishReason::Stop), done(0)],
    );
    check(
        &[r#"{"choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":null}],"usage":null}"#, stop],
        &[text(0, "Hi"), ends(FinishReason::Stop), done(1)],
    );
    check(
        &[r#"{"choices":[{"index":0,"text":"Hi","finish_reason":"stop","stop_reason":"B"}]}"#],
        &[text(0, "Hi"), ends(FinishReason::StopString(1)), done(1)],
    );
    check(
        &[r#"{"choices":[{"index":0,"delta":{"refusal":"No."},"finish_reason":"content_filter"}]}"#],
        &[text(0, "No."), ends(FinishReason::ContentFilter), done(1)],
    );
    check(
        &[r#"{"choices":[{"index":0,"delta":{"reasoning_content":"hm"}}]}"#, stop],
        &[ends(FinishReason::Stop), done(0)],
    );
    let usage = r#"{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":1}}}"#;
    let counted = Usage { prompt_tokens: 3, cached_tokens: 1, completion_tokens: 2, ..Usage::default() };
    check(&[stop, usage, "[DONE]"], &[ends(FinishReason::Stop), Event::Done(counted)]);
    for (said, processor_micros) in [("1500", Some(1500)), ("\"a while\"", None), ("-1", None)] {
        let told = usage.replace("2,", &format!("2,\"processor_micros\":{said},"));
        check(
            &[stop, &told, "[DONE]"],
            &[ends(FinishReason::Stop), Event::Done(Usage { processor_micros, ..counted })],
        );
    }
    let absurd = usage.replace(['3', '2'], "18446744073709551615");
    let (prompt_tokens, completion_tokens) = (Usage::MOST, Usage::MOST);
    let believed = Usage { prompt_tokens, cached_tokens: 1, completion_tokens, ..Usage::default() };
    check(&[stop, &absurd, "[DONE]"], &[ends(FinishReason::Stop), Event::Done(believed)]);
}

#[test]
fn calls_have_one_beginning() {
    let delta = |call: &str| format!(r#"{{"choices":[{{"index":0,"delta":{{"tool_calls":[{call}]}}}}]}}"#);
    let check = |calls: &[&str], expected: &[Event]| {
        let chunks: Vec<String> = calls.iter().map(|call| delta(call)).collect();
        let end = r#"{"choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}"#;
        let chunks: Vec<&str> = chunks.iter().map(String::as_str).chain([end]).collect();
        let events = read(1, &chunks).unwrap();
        assert_eq!(events[..events.len() - 2], *expected, "{calls:?}");
    };
    let first = r#"{"index":0,"id":"a","type":"function","function":{"name":"f","arguments":""}}"#;
    let more = r#"{"index":0,"function":{"arguments":"{}"}}"#;
    check(&[first, more], &[call(0, Some(("a", "f")), ""), call(0, None, "{}")]);
    // The id and the name come again; the second call's index is not the next one.
    let again = r#"{"index":0,"id":"a","function":{"name":"f","arguments":"1"}}"#;
    let second = r#"{"index":7,"id":"b","function":{"name":"g","arguments":null}}"#;
    check(&[first, again, second], &[call(0, Some(("a", "f")), ""), call(0, None, "1"), call(1, Some(("b", "g")), "")]);
    // No index, no id.
    let whole = r#"{"id":"a","function":{"name":"f","arguments":"{}"}}"#;
    let other = r#"{"id":"b","function":{"name":"f","arguments":"{}"}}"#;
    let rest = r#"{"function":{"arguments":"x"}}"#;
    let (a, b) = (call(0, Some(("a", "f")), "{}"), call(1, Some(("b", "f")), "{}"));
    check(&[whole, other, rest], &[a, b, call(1, None, "x")]);
    check(&[r#"{"index":0,"function":{"name":"f"}}"#], &[call(0, Some(("call_0_0", "f")), "")]);
    let many: Vec<String> = (0..=MOST_CALLS).map(|i| delta(&format!(r#"{{"index":{i}}}"#))).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(read(1, &many).unwrap_err(), too_many_calls());
}

#[test]
fn errors_are_told_apart() {
    let check = |chunk: &str, kind: ErrorKind, message: &str| {
        let error = read(1, &[chunk]).unwrap_err();
        assert_eq!((error.kind, error.message.as_str()), (kind, message), "{chunk}");
    };
    check(r#"{"error":{"message":"m","type":"BadRequestError","param":null,"code":400}}"#, ErrorKind::Invalid, "m");
    check(r#"{"error":{"message":"m","type":"server_error","code":null}}"#, ErrorKind::Upstream, "m");
    check(r#"{"error":{"message":"m","type":"insufficient_quota"}}"#, ErrorKind::Upstream, "m");
    check(r#"{"error":{"message":"m","code":"rate_limit_exceeded"}}"#, ErrorKind::Overloaded, "m");
    check(r#"{"error":{"message":"m","code":"503"}}"#, ErrorKind::Overloaded, "m");
    check(r#"{"error":{"message":"m","code":"content_filter"}}"#, ErrorKind::Blocked, "m");
    check(r#"{"error":"plain words"}"#, ErrorKind::Upstream, "plain words");
    check(r#"{"object":"error","message":"old","type":"x","code":404}"#, ErrorKind::Upstream, "old");
    check(
        r#"{"choices":[{"index":0,"finish_reason":"abort"}]}"#,
        ErrorKind::Upstream,
        "The upstream gave the answer up (abort).",
    );
    check(r#"{"choices":[{"index":3}]}"#, ErrorKind::Upstream, "The upstream sent answer 3 of 1.");
    check(
        r#"{"choices":[{"index":0,"text":"a"}]}"#,
        ErrorKind::Upstream,
        "The upstream ended the answer before its end.",
    );
    let error = error_of(
        &serde_json::json!({"message": "long", "code": "context_length_exceeded", "param": "messages", "type": "invalid_request_error"}),
    );
    assert_eq!((error.kind, error.param.as_deref()), (ErrorKind::Invalid, Some("messages")));
    assert_eq!(error.code.as_deref(), Some("context_length_exceeded"));
}

#[test]
fn scores_are_read_in_both_shapes() {
    let chat = r#"{"choices":[{"index":0,"delta":{"content":"é"},"finish_reason":"stop","logprobs":{"content":[{"token":"é","logprob":-0.5,"bytes":[195,169],"top_logprobs":[{"token":"e","logprob":-1.5,"bytes":null}]}],"refusal":null}}]}"#;
    let completion = r#"{"choices":[{"index":0,"text":"é","finish_reason":"stop","logprobs":{"tokens":["é"],"token_logprobs":[-0.5],"top_logprobs":[{"e":-1.5}],"text_offset":[0]}}]}"#;
    let id = TokenLogprob::UNKNOWN;
    let score = TokenLogprob { id, bytes: vec![195, 169], logprob: Some(-0.5), top: vec![(id, b"e".to_vec(), -1.5)] };
    for chunk in [chat, completion] {
        let Event::Text { logprobs, .. } = &read(1, &[chunk]).unwrap()[0] else { panic!("a text") };
        assert_eq!(logprobs.as_slice(), std::slice::from_ref(&score), "{chunk}");
    }
    assert_eq!((written("bytes:\\xe2\\x80"), written("bytes:x")), (vec![0xe2, 0x80], b"bytes:x".to_vec()));
}

#[test]
fn two_answers_end_apart() {
    let end =
        |i: usize| format!(r#"{{"choices":[{{"index":{i},"delta":{{"content":"x"}},"finish_reason":"length"}}]}}"#);
    let (first, second) = (end(1), end(0));
    let events = read(2, &[&first, &second, "[DONE]"]).unwrap();
    assert_eq!((events.len(), &events[0]), (5, &text(1, "x")));
    assert!(read(2, &[&first, "[DONE]"]).is_err());
}
