//! Anthropic's dialect: `POST /v1/messages`, whole and as events, the counting of tokens, and failures in its form.

use std::sync::Arc;

use axum::{body::Body, http::Request};
use expect_test::{Expect, expect};
use futures_util::future::BoxFuture;
use gateway::{Gateway, Services};
use protocol::{Error, ErrorKind, Event, EventStream, FinishReason, Generate, GenerateRequest, ModelCard};

use crate::{
    chat::two_calls,
    check,
    fake::{Fake, Step, done, ends, says, started},
    get, post, send, shown,
};

const PATH: &str = "/v1/messages";
const COUNT: &str = "/v1/messages/count_tokens";

async fn message(fake: &Fake, extra: &str, expected: Expect) {
    let turns = r#"[{"role":"user","content":"Hi you"}]"#;
    let body = format!(r#"{{"model":"talker","max_tokens":9,"messages":{turns}{extra}}}"#);
    check(fake, post(PATH, &body), expected).await;
}

fn two_words() -> Fake {
    Fake::saying(vec![started(), says(0, "Hello"), says(0, ""), says(0, " you"), ends(0), done()])
}

#[tokio::test]
async fn whole() {
    message(&two_words(), "", expect![[r#"
        200 OK
        content-type: application/json

        {"id":"msg_t1","type":"message","role":"assistant","model":"talker","content":[{"type":"text","text":"Hello you"}],"stop_reason":"end_turn","stop_sequence":null,"usage":{"input_tokens":2,"cache_creation_input_tokens":0,"cache_read_input_tokens":1,"output_tokens":2}}
    "#]]).await;
    message(&two_calls(), "", expect![[r#"
        200 OK
        content-type: application/json

        {"id":"msg_t1","type":"message","role":"assistant","model":"talker","content":[{"type":"tool_use","id":"call_1","name":"add","input":{"a":1}},{"type":"tool_use","id":"call_2","name":"sub","input":{}}],"stop_reason":"tool_use","stop_sequence":null,"usage":{"input_tokens":2,"cache_creation_input_tokens":0,"cache_read_input_tokens":1,"output_tokens":2}}
    "#]]).await;
}

#[tokio::test]
async fn streamed() {
    message(&two_words(), r#","stream":true"#, expect![[r#"
        200 OK
        content-type: text/event-stream

        event: message_start
        data: {"type":"message_start","message":{"id":"msg_t1","type":"message","role":"assistant","model":"talker","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":2,"cache_creation_input_tokens":0,"cache_read_input_tokens":1,"output_tokens":0}}}

        event: content_block_start
        data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}

        event: content_block_delta
        data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hello"}}

        event: content_block_delta
        data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":" you"}}

        event: content_block_stop
        data: {"type":"content_block_stop","index":0}

        event: message_delta
        data: {"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"input_tokens":2,"cache_creation_input_tokens":0,"cache_read_input_tokens":1,"output_tokens":2}}

        event: message_stop
        data: {"type":"message_stop"}


    "#]]).await;
    message(&two_calls(), r#","stream":true"#, expect![[r#"
        200 OK
        content-type: text/event-stream

        event: message_start
        data: {"type":"message_start","message":{"id":"msg_t1","type":"message","role":"assistant","model":"talker","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":2,"cache_creation_input_tokens":0,"cache_read_input_tokens":1,"output_tokens":0}}}

        event: content_block_start
        data: {"type":"content_block_start","index":0,"content_block":{"type":"tool_use","id":"call_1","name":"add","input":{}}}

        event: content_block_delta
        data: {"type":"content_block_delta","index":0,"delta":{"type":"input_json_delta","partial_json":"{\"a\":"}}

        event: content_block_delta
        data: {"type":"content_block_delta","index":0,"delta":{"type":"input_json_delta","partial_json":"1}"}}

        event: content_block_stop
        data: {"type":"content_block_stop","index":0}

        event: content_block_start
        data: {"type":"content_block_start","index":1,"content_block":{"type":"tool_use","id":"call_2","name":"sub","input":{}}}

        event: content_block_delta
        data: {"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":"{}"}}

        event: content_block_stop
        data: {"type":"content_block_stop","index":1}

        event: message_delta
        data: {"type":"message_delta","delta":{"stop_reason":"tool_use","stop_sequence":null},"usage":{"input_tokens":2,"cache_creation_input_tokens":0,"cache_read_input_tokens":1,"output_tokens":2}}

        event: message_stop
        data: {"type":"message_stop"}


    "#]]).await;
}

#[tokio::test]
async fn a_stop_sequence_is_named() {
    let finished = Event::Finished { choice: 0, reason: FinishReason::StopString(1) };
    let fake = Fake::saying(vec![started(), says(0, "a"), finished, done()]);
    message(&fake, r#","stop_sequences":["x","END"]"#, expect![[r#"
        200 OK
        content-type: application/json

        {"id":"msg_t1","type":"message","role":"assistant","model":"talker","content":[{"type":"text","text":"a"}],"stop_reason":"stop_sequence","stop_sequence":"END","usage":{"input_tokens":2,"cache_creation_input_tokens":0,"cache_read_input_tokens":1,"output_tokens":2}}
    "#]]).await;
}

#[tokio::test]
async fn counts() {
    let turns = r#""messages":[{"role":"user","content":"one two three"}]"#;
    let body = format!(r#"{{"model":"talker",{turns}}}"#);
    check(
        &Fake::parrot(),
        post(COUNT, &body),
        expect![[r#"
        200 OK
        content-type: application/json

        {"input_tokens":3}
    "#]],
    )
    .await;
    check(&Fake::parrot(), post(COUNT, &format!(r#"{{"model":"talker","max_tokens":1,{turns}}}"#)), expect![[r#"
        400 Bad Request
        content-type: application/json

        {"type":"error","error":{"type":"invalid_request_error","message":"Unknown field `max_tokens`: a request to count tokens has no such field; remove it."},"request_id":"t1"}
    "#]]).await;
    let gateway = gateway::router(Gateway::new(Services {
        generate: vec![Arc::new(Uncounted(Fake::parrot()))],
        ..Services::default()
    }));
    let response = send(&gateway, post(COUNT, &body)).await;
    expect![[r#"
        400 Bad Request
        content-type: application/json

        {"type":"error","error":{"type":"invalid_request_error","message":"The service behind the model `talker` does not count tokens."},"request_id":"t1"}
    "#]].assert_eq(&shown(response).await);
}

/// A service that leaves counting to the trait.
#[derive(Debug)]
struct Uncounted(Fake);

impl Generate for Uncounted {
    fn models(&self) -> Vec<ModelCard> {
        self.0.models()
    }

    fn generate(&self, request: GenerateRequest) -> BoxFuture<'_, Result<EventStream, Error>> {
        self.0.generate(request)
    }
}

#[tokio::test]
async fn failures_have_its_form() {
    message(&Fake::parrot(), r#","mcp_servers":[]"#, expect![[r#"
        400 Bad Request
        content-type: application/json

        {"type":"error","error":{"type":"invalid_request_error","message":"`mcp_servers` is not supported: servers of tools are not called from here; give their tools as tools."},"request_id":"t1"}
    "#]]).await;
    message(
        &Fake::refusing(Error::new(ErrorKind::Overloaded, "No.")),
        r#","stream":true"#,
        expect![[r#"
        429 Too Many Requests
        content-type: application/json
        retry-after: 1

        {"type":"error","error":{"type":"rate_limit_error","message":"No."},"request_id":"t1"}
    "#]],
    )
    .await;
    let no = Error::new(ErrorKind::Internal, "No.");
    let fake = Fake::new(move |_| Ok(vec![Step::Send(started()), Step::Fail(no.clone())]));
    message(&fake, r#","stream":true"#, expect![[r#"
        200 OK
        content-type: text/event-stream

        event: message_start
        data: {"type":"message_start","message":{"id":"msg_t1","type":"message","role":"assistant","model":"talker","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":2,"cache_creation_input_tokens":0,"cache_read_input_tokens":1,"output_tokens":0}}}

        event: error
        data: {"type":"error","error":{"type":"api_error","message":"No."}}


    "#]]).await;
    check(&Fake::parrot(), get(PATH), expect![[r#"
        405 Method Not Allowed
        content-type: application/json
        allow: POST

        {"type":"error","error":{"type":"invalid_request_error","message":"/v1/messages does not answer GET; the header Allow says what it answers."},"request_id":"t1"}
    "#]]).await;
    check(&Fake::parrot(), post("/v1/messages/batches", "{}"), expect![[r#"
        404 Not Found
        content-type: application/json

        {"type":"error","error":{"type":"not_found_error","message":"There is no POST /v1/messages/batches here. GET /openapi.json describes the API."},"request_id":"t1"}
    "#]]).await;
    check(&Fake::parrot(), post("/v1/messagesx", "{}"), expect![[r#"
        404 Not Found
        content-type: application/json

        {"error":{"message":"There is no POST /v1/messagesx here. GET /openapi.json describes the API.","type":"invalid_request_error","param":null,"code":"unknown_url"}}
    "#]]).await;
    let mut small = Fake::parrot();
    small.config.max_body_bytes = 10;
    message(&small, "", expect![[r#"
        413 Payload Too Large
        content-type: application/json

        {"type":"error","error":{"type":"request_too_large","message":"The request body is longer than 10 bytes, the limit of this server; send less at once."},"request_id":"t1"}
    "#]]).await;
}

#[tokio::test]
async fn versions() {
    let ask = |version: &str| {
        let body = r#"{"model":"talker","max_tokens":9,"messages":[{"role":"user","content":"Hi"}]}"#;
        let request = Request::post(PATH).header("content-type", "application/json").header("x-request-id", "t1");
        request.header("anthropic-version", version).body(Body::from(body)).unwrap()
    };
    for version in ["2023-06-01", "2026-10-21"] {
        let response = send(&Fake::parrot().router(), ask(version)).await;
        assert_eq!(
            (response.status().as_u16(), &response.headers()["request-id"]),
            (200, &response.headers()["x-request-id"])
        );
    }
    check(&Fake::parrot(), ask("2023-01-01"), expect![[r#"
        400 Bad Request
        content-type: application/json

        {"type":"error","error":{"type":"invalid_request_error","message":"The header anthropic-version \"2023-01-01\" is not supported; send 2023-06-01 or later."},"request_id":"t1"}
    "#]]).await;
}
