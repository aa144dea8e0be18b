//! `POST /v1/chat/completions`, whole and in pieces.

use expect_test::{Expect, expect};
use protocol::{Error, ErrorKind, Event, FinishReason};

use crate::{
    check,
    fake::{Fake, Step, done, ends, says, scored, started},
    post, send, shown,
};

const PATH: &str = "/v1/chat/completions";

async fn chat(fake: &Fake, extra: &str, expected: Expect) {
    let body = format!(r#"{{"model":"talker","messages":[{{"role":"user","content":"Hi"}}]{extra}}}"#);
    check(fake, post(PATH, &body), expected).await;
}

fn two_words() -> Fake {
    Fake::saying(vec![started(), says(0, "Hello"), says(0, ""), says(0, " you"), ends(0), done()])
}

fn call(index: usize, id: Option<&str>, name: Option<&str>, arguments: &str) -> Event {
    let owned = |s: Option<&str>| s.map(str::to_owned);
    Event::ToolCall { choice: 0, index, id: owned(id), name: owned(name), arguments: arguments.to_owned() }
}

pub(crate) fn two_calls() -> Fake {
    let finished = Event::Finished { choice: 0, reason: FinishReason::ToolCalls };
    Fake::saying(vec![
        started(),
        call(0, Some("call_1"), Some("add"), ""),
        call(0, None, None, "{\"a\":"),
        call(0, None, None, "1}"),
        call(1, Some("call_2"), Some("sub"), "{}"),
        finished,
        done(),
    ])
}

#[tokio::test]
async fn whole() {
    chat(&two_words(), "", expect![[r#"
        200 OK
        content-type: application/json

        {"id":"chatcmpl-t1","object":"chat.completion","created":0,"model":"talker","system_fingerprint":"tessera-0.1.0","choices":[{"index":0,"message":{"role":"assistant","content":"Hello you","refusal":null},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5,"prompt_tokens_details":{"cached_tokens":1}}}
    "#]]).await;
}

#[tokio::test]
async fn streamed() {
    chat(&two_words(), r#","stream":true"#, expect![[r#"
        200 OK
        content-type: text/event-stream

        data: {"id":"chatcmpl-t1","object":"chat.completion.chunk","created":0,"model":"talker","system_fingerprint":"tessera-0.1.0","choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}],"usage":null}

        data: {"id":"chatcmpl-t1","object":"chat.completion.chunk","created":0,"model":"talker","system_fingerprint":"tessera-0.1.0","choices":[{"index":0,"delta":{"content":"Hello"},"logprobs":null,"finish_reason":null}],"usage":null}

        data: {"id":"chatcmpl-t1","object":"chat.completion.chunk","created":0,"model":"talker","system_fingerprint":"tessera-0.1.0","choices":[{"index":0,"delta":{"content":" you"},"logprobs":null,"finish_reason":null}],"usage":null}

        data: {"id":"chatcmpl-t1","object":"chat.completion.chunk","created":0,"model":"talker","system_fingerprint":"tessera-0.1.0","choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}],"usage":null}

        data: [DONE]


    "#]]).await;
}

#[tokio::test]
async fn streamed_with_usage_and_tier() {
    let extra = r#","stream":true,"stream_options":{"include_usage":true},"service_tier":"flex""#;
    chat(&two_words(), extra, expect![[r#"
        200 OK
        content-type: text/event-stream

        data: {"id":"chatcmpl-t1","object":"chat.completion.chunk","created":0,"model":"talker","system_fingerprint":"tessera-0.1.0","choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}],"usage":null,"service_tier":"default"}

        data: {"id":"chatcmpl-t1","object":"chat.completion.chunk","created":0,"model":"talker","system_fingerprint":"tessera-0.1.0","choices":[{"index":0,"delta":{"content":"Hello"},"logprobs":null,"finish_reason":null}],"usage":null,"service_tier":"default"}

        data: {"id":"chatcmpl-t1","object":"chat.completion.chunk","created":0,"model":"talker","system_fingerprint":"tessera-0.1.0","choices":[{"index":0,"delta":{"content":" you"},"logprobs":null,"finish_reason":null}],"usage":null,"service_tier":"default"}

        data: {"id":"chatcmpl-t1","object":"chat.completion.chunk","created":0,"model":"talker","system_fingerprint":"tessera-0.1.0","choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}],"usage":null,"service_tier":"default"}

        data: {"id":"chatcmpl-t1","object":"chat.completion.chunk","created":0,"model":"talker","system_fingerprint":"tessera-0.1.0","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5,"prompt_tokens_details":{"cached_tokens":1}},"service_tier":"default"}

        data: [DONE]


    "#]]).await;
}

#[tokio::test]
async fn several_choices_interleave() {
    let events = vec![started(), says(1, "b"), says(0, "a"), ends(1), says(0, "A"), ends(0), done()];
    chat(&Fake::saying(events.clone()), r#","n":2"#, expect![[r#"
        200 OK
        content-type: application/json

        {"id":"chatcmpl-t1","object":"chat.completion","created":0,"model":"talker","system_fingerprint":"tessera-0.1.0","choices":[{"index":0,"message":{"role":"assistant","content":"aA","refusal":null},"logprobs":null,"finish_reason":"stop"},{"index":1,"message":{"role":"assistant","content":"b","refusal":null},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5,"prompt_tokens_details":{"cached_tokens":1}}}
    "#]]).await;
    chat(&Fake::saying(events), r#","n":2,"stream":true"#, expect![[r#"
        200 OK
        content-type: text/event-stream

        data: {"id":"chatcmpl-t1","object":"chat.completion.chunk","created":0,"model":"talker","system_fingerprint":"tessera-0.1.0","choices":[{"index":1,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}],"usage":null}

        data: {"id":"chatcmpl-t1","object":"chat.completion.chunk","created":0,"model":"talker","system_fingerprint":"tessera-0.1.0","choices":[{"index":1,"delta":{"content":"b"},"logprobs":null,"finish_reason":null}],"usage":null}

        data: {"id":"chatcmpl-t1","object":"chat.completion.chunk","created":0,"model":"talker","system_fingerprint":"tessera-0.1.0","choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}],"usage":null}

        data: {"id":"chatcmpl-t1","object":"chat.completion.chunk","created":0,"model":"talker","system_fingerprint":"tessera-0.1.0","choices":[{"index":0,"delta":{"content":"a"},"logprobs":null,"finish_reason":null}],"usage":null}

        data: {"id":"chatcmpl-t1","object":"chat.completion.chunk","created":0,"model":"talker","system_fingerprint":"tessera-0.1.0","choices":[{"index":1,"delta":{},"logprobs":null,"finish_reason":"stop"}],"usage":null}

        data: {"id":"chatcmpl-t1","object":"chat.completion.chunk","created":0,"model":"talker","system_fingerprint":"tessera-0.1.0","choices":[{"index":0,"delta":{"content":"A"},"logprobs":null,"finish_reason":null}],"usage":null}

        data: {"id":"chatcmpl-t1","object":"chat.completion.chunk","created":0,"model":"talker","system_fingerprint":"tessera-0.1.0","choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}],"usage":null}

        data: [DONE]


    "#]]).await;
}

#[tokio::test]
async fn tool_calls() {
    chat(&two_calls(), "", expect![[r#"
        200 OK
        content-type: application/json

        {"id":"chatcmpl-t1","object":"chat.completion","created":0,"model":"talker","system_fingerprint":"tessera-0.1.0","choices":[{"index":0,"message":{"role":"assistant","content":null,"refusal":null,"tool_calls":[{"id":"call_1","type":"function","function":{"name":"add","arguments":"{\"a\":1}"}},{"id":"call_2","type":"function","function":{"name":"sub","arguments":"{}"}}]},"logprobs":null,"finish_reason":"tool_calls"}],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5,"prompt_tokens_details":{"cached_tokens":1}}}
    "#]]).await;
    chat(&two_calls(), r#","stream":true"#, expect![[r#"
        200 OK
        content-type: text/event-stream

        data: {"id":"chatcmpl-t1","object":"chat.completion.chunk","created":0,"model":"talker","system_fingerprint":"tessera-0.1.0","choices":[{"index":0,"delta":{"role":"assistant"},"logprobs":null,"finish_reason":null}],"usage":null}

        data: {"id":"chatcmpl-t1","object":"chat.completion.chunk","created":0,"model":"talker","system_fingerprint":"tessera-0.1.0","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"call_1","type":"function","function":{"name":"add","arguments":""}}]},"logprobs":null,"finish_reason":null}],"usage":null}

        data: {"id":"chatcmpl-t1","object":"chat.completion.chunk","created":0,"model":"talker","system_fingerprint":"tessera-0.1.0","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{\"a\":"}}]},"logprobs":null,"finish_reason":null}],"usage":null}

        data: {"id":"chatcmpl-t1","object":"chat.completion.chunk","created":0,"model":"talker","system_fingerprint":"tessera-0.1.0","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"1}"}}]},"logprobs":null,"finish_reason":null}],"usage":null}

        data: {"id":"chatcmpl-t1","object":"chat.completion.chunk","created":0,"model":"talker","system_fingerprint":"tessera-0.1.0","choices":[{"index":0,"delta":{"tool_calls":[{"index":1,"id":"call_2","type":"function","function":{"name":"sub","arguments":"{}"}}]},"logprobs":null,"finish_reason":null}],"usage":null}

        data: {"id":"chatcmpl-t1","object":"chat.completion.chunk","created":0,"model":"talker","system_fingerprint":"tessera-0.1.0","choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"tool_calls"}],"usage":null}

        data: [DONE]


    "#]]).await;
}

#[tokio::test]
async fn logprobs() {
    let token = scored("é".as_bytes(), Some(-0.1), &[(b"e", -0.05), (b"\xc3", f32::NEG_INFINITY)]);
    let text = Event::Text { choice: 0, text: "é".to_owned(), logprobs: vec![token] };
    let fake = Fake::saying(vec![started(), text, ends(0), done()]);
    chat(&fake, r#","logprobs":true,"top_logprobs":2"#, expect![[r#"
        200 OK
        content-type: application/json

        {"id":"chatcmpl-t1","object":"chat.completion","created":0,"model":"talker","system_fingerprint":"tessera-0.1.0","choices":[{"index":0,"message":{"role":"assistant","content":"é","refusal":null},"logprobs":{"content":[{"token":"é","logprob":-0.1,"bytes":[195,169],"top_logprobs":[{"token":"e","logprob":-0.05,"bytes":[101]},{"token":"�","logprob":-9999.0,"bytes":[195]}]}],"refusal":null},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5,"prompt_tokens_details":{"cached_tokens":1}}}
    "#]]).await;
    chat(&fake, r#","logprobs":true,"top_logprobs":2,"stream":true"#, expect![[r#"
        200 OK
        content-type: text/event-stream

        data: {"id":"chatcmpl-t1","object":"chat.completion.chunk","created":0,"model":"talker","system_fingerprint":"tessera-0.1.0","choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}],"usage":null}

        data: {"id":"chatcmpl-t1","object":"chat.completion.chunk","created":0,"model":"talker","system_fingerprint":"tessera-0.1.0","choices":[{"index":0,"delta":{"content":"é"},"logprobs":{"content":[{"token":"é","logprob":-0.1,"bytes":[195,169],"top_logprobs":[{"token":"e","logprob":-0.05,"bytes":[101]},{"token":"�","logprob":-9999.0,"bytes":[195]}]}],"refusal":null},"finish_reason":null}],"usage":null}

        data: {"id":"chatcmpl-t1","object":"chat.completion.chunk","created":0,"model":"talker","system_fingerprint":"tessera-0.1.0","choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}],"usage":null}

        data: [DONE]


    "#]]).await;
}

#[tokio::test]
async fn an_empty_answer_is_text() {
    chat(&Fake::saying(vec![started(), ends(0), done()]), "", expect![[r#"
        200 OK
        content-type: application/json

        {"id":"chatcmpl-t1","object":"chat.completion","created":0,"model":"talker","system_fingerprint":"tessera-0.1.0","choices":[{"index":0,"message":{"role":"assistant","content":"","refusal":null},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5,"prompt_tokens_details":{"cached_tokens":1}}}
    "#]]).await;
}

#[tokio::test]
async fn refused_on_admission() {
    let too_long = Error::invalid("messages", "The prompt has 99 tokens, the context holds 64.")
        .with_code("context_length_exceeded");
    chat(&Fake::refusing(too_long.clone()), "", expect![[r#"
        400 Bad Request
        content-type: application/json

        {"error":{"message":"The prompt has 99 tokens, the context holds 64.","type":"invalid_request_error","param":"messages","code":"context_length_exceeded"}}
    "#]]).await;
    chat(&Fake::refusing(too_long), r#","stream":true"#, expect![[r#"
        400 Bad Request
        content-type: application/json

        {"error":{"message":"The prompt has 99 tokens, the context holds 64.","type":"invalid_request_error","param":"messages","code":"context_length_exceeded"}}
    "#]]).await;
}

/// Each kind of failure: its status, with when to come back, and its type on the wire.
const KINDS: [(ErrorKind, &str, &str); 7] = [
    (ErrorKind::Invalid, "400 Bad Request\ncontent-type: application/json", "invalid_request_error"),
    (ErrorKind::NotFound, "404 Not Found\ncontent-type: application/json", "invalid_request_error"),
    (ErrorKind::Unsupported, "400 Bad Request\ncontent-type: application/json", "invalid_request_error"),
    (
        ErrorKind::Overloaded,
        "429 Too Many Requests\ncontent-type: application/json\nretry-after: 1",
        "rate_limit_error",
    ),
    (ErrorKind::DeadlineExceeded, "504 Gateway Timeout\ncontent-type: application/json", "timeout_error"),
    (
        ErrorKind::ShuttingDown,
        "503 Service Unavailable\ncontent-type: application/json\nretry-after: 5\nconnection: close",
        "server_error",
    ),
    (ErrorKind::Internal, "500 Internal Server Error\ncontent-type: application/json", "server_error"),
];

#[tokio::test]
async fn every_kind_of_failure_has_its_status() {
    let body = r#"{"model":"talker","messages":[{"role":"user","content":"Hi"}],"stream":true}"#;
    for (kind, head, word) in KINDS {
        let response = send(&Fake::refusing(Error::new(kind, "No.")).router(), post(PATH, body)).await;
        let error = format!(r#"{{"error":{{"message":"No.","type":"{word}","param":null,"code":null}}}}"#);
        assert_eq!(shown(response).await, format!("{head}\n\n{error}\n"));
    }
}

#[tokio::test]
async fn first_event_fails() {
    let fake = Fake::new(|_| Ok(vec![Step::Fail(Error::new(ErrorKind::DeadlineExceeded, "Too late."))]));
    chat(
        &fake,
        r#","stream":true"#,
        expect![[r#"
        504 Gateway Timeout
        content-type: application/json

        {"error":{"message":"Too late.","type":"timeout_error","param":null,"code":null}}
    "#]],
    )
    .await;
}

#[tokio::test]
async fn fails_in_the_middle() {
    let script = |_: &_| Ok(vec![Step::Send(says(0, "He")), Step::Fail(Error::internal("It broke."))]);
    chat(&Fake::new(script), r#","stream":true"#, expect![[r#"
        200 OK
        content-type: text/event-stream

        data: {"id":"chatcmpl-t1","object":"chat.completion.chunk","created":0,"model":"talker","system_fingerprint":"tessera-0.1.0","choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}],"usage":null}

        data: {"id":"chatcmpl-t1","object":"chat.completion.chunk","created":0,"model":"talker","system_fingerprint":"tessera-0.1.0","choices":[{"index":0,"delta":{"content":"He"},"logprobs":null,"finish_reason":null}],"usage":null}

        data: {"error":{"message":"It broke.","type":"server_error","param":null,"code":null}}


    "#]]).await;
    chat(
        &Fake::new(script),
        "",
        expect![[r#"
        500 Internal Server Error
        content-type: application/json

        {"error":{"message":"It broke.","type":"server_error","param":null,"code":null}}
    "#]],
    )
    .await;
}

#[tokio::test]
async fn ends_without_done() {
    chat(&Fake::saying(vec![started(), says(0, "He")]), "", expect![[r#"
        500 Internal Server Error
        content-type: application/json

        {"error":{"message":"The service ended its answer early; try again.","type":"server_error","param":null,"code":null}}
    "#]]).await;
}

#[tokio::test]
async fn no_template() {
    let body = r#"{"model":"hf:owner/raw","messages":[{"role":"user","content":"Hi"}]}"#;
    check(&two_words(), post(PATH, body), expect![[r#"
        400 Bad Request
        content-type: application/json

        {"error":{"message":"The model `hf:owner/raw` has no chat template. Send its prompt as text to /v1/completions.","type":"invalid_request_error","param":"model","code":"no_chat_template"}}
    "#]]).await;
}

#[tokio::test]
async fn wrong_models() {
    for (model, expected) in [
        (
            "gpt-9",
            expect![[r#"
        404 Not Found
        content-type: application/json

        {"error":{"message":"The model `gpt-9` does not exist here. Available for completions: `talker`, `hf:owner/raw`.","type":"invalid_request_error","param":"model","code":"model_not_found"}}
    "#]],
        ),
        (
            "vectors",
            expect![[r#"
        400 Bad Request
        content-type: application/json

        {"error":{"message":"The model `vectors` offers no completions; it answers /v1/embeddings. Models that do: `talker`, `hf:owner/raw`.","type":"invalid_request_error","param":"model","code":null}}
    "#]],
        ),
        (
            "",
            expect![[r#"
        400 Bad Request
        content-type: application/json

        {"error":{"message":"`model` is required: name one that GET /v1/models lists.","type":"invalid_request_error","param":"model","code":null}}
    "#]],
        ),
    ] {
        let body = format!(r#"{{"model":"{model}","messages":[{{"role":"user","content":"Hi"}}]}}"#);
        check(&two_words(), post(PATH, &body), expected).await;
    }
}

#[tokio::test(start_paused = true)]
async fn silence_is_filled() {
    let wait = std::time::Duration::from_secs(25);
    let fake = Fake::new(move |_| {
        let events = [says(0, "late"), ends(0), done()].map(Step::Send);
        Ok([Step::Send(started()), Step::Wait(wait)].into_iter().chain(events).collect())
    });
    chat(&fake, r#","stream":true"#, expect![[r#"
        200 OK
        content-type: text/event-stream

        : keep-alive

        : keep-alive

        data: {"id":"chatcmpl-t1","object":"chat.completion.chunk","created":0,"model":"talker","system_fingerprint":"tessera-0.1.0","choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}],"usage":null}

        data: {"id":"chatcmpl-t1","object":"chat.completion.chunk","created":0,"model":"talker","system_fingerprint":"tessera-0.1.0","choices":[{"index":0,"delta":{"content":"late"},"logprobs":null,"finish_reason":null}],"usage":null}

        data: {"id":"chatcmpl-t1","object":"chat.completion.chunk","created":0,"model":"talker","system_fingerprint":"tessera-0.1.0","choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}],"usage":null}

        data: [DONE]


    "#]]).await;
}
