//! The gateway through its HTTP surface, over a fake service: no weights, no engine. Bodies and SSE bytes are compared
//! with snapshots (`UPDATE_EXPECT=1` rewrites them).
#![expect(clippy::unwrap_used, clippy::panic, reason = "shared functions of a test binary")]

mod canary;
mod chat;
mod completions;
mod console;
mod drain;
mod edges;
mod embeddings;
mod fake;
mod feedback;
mod govern;
mod identity;
mod images;
mod internal;
mod messages;
mod moderations;
mod openapi;
mod reasoning;
mod responses;
mod scripted;
mod sockets;

use std::time::Duration;

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{Request, Response, header},
};
use expect_test::Expect;
use tower::ServiceExt;

use crate::fake::Fake;

/// A JSON request that its caller calls `t1`.
fn post(path: &str, body: &str) -> Request<Body> {
    let request = Request::post(path).header(header::CONTENT_TYPE, "application/json").header("x-request-id", "t1");
    request.body(body.to_owned().into()).unwrap()
}

fn get(path: &str) -> Request<Body> {
    Request::get(path).header("x-request-id", "t1").body(Body::empty()).unwrap()
}

async fn send(app: &Router, request: Request<Body>) -> Response<Body> {
    let sent = app.clone().oneshot(request);
    tokio::time::timeout(Duration::from_secs(600), sent).await.expect("the gateway answers").unwrap()
}

async fn text(response: Response<Body>) -> String {
    String::from_utf8(to_bytes(response.into_body(), usize::MAX).await.unwrap().to_vec()).unwrap()
}

/// The name of the request that a response answers.
fn named(response: &Response<Body>) -> String {
    response.headers()["x-request-id"].to_str().unwrap().to_owned()
}

/// A response as a person reads it: status, the headers that matter, the body without the date and with `t1` for the name.
async fn shown(response: Response<Body>) -> String {
    let id = named(&response);
    let mut lines = response.status().to_string();
    for name in ["content-type", "retry-after", "allow", "connection"] {
        if let Some(value) = response.headers().get(name) {
            lines += &format!("\n{name}: {}", value.to_str().unwrap());
        }
    }
    format!("{lines}\n\n{}\n", unnamed(&undated(&text(response).await), &id))
}

/// The text with `t1` for the request's name.
fn unnamed(text: &str, id: &str) -> String {
    text.replace(id, "t1").replace(id.trim_start_matches("req_"), "t1")
}

/// The text with every date set to 0.
fn undated(text: &str) -> String {
    ["\"created\":", "\"created_at\":"].into_iter().fold(text.to_owned(), |text, name| {
        let mut parts = text.split(name);
        let first = parts.next().unwrap_or_default().to_owned();
        parts.fold(first, |out, part| out + name + "0" + part.trim_start_matches(|c: char| c.is_ascii_digit()))
    })
}

/// Sends a request to a gateway over `fake` and compares what comes back.
async fn check(fake: &Fake, request: Request<Body>, expected: Expect) {
    let response = send(&fake.router(), request).await;
    assert_eq!(response.headers()["x-client-request-id"], "t1");
    expected.assert_eq(&shown(response).await);
}
