//! `POST /v1/images/generations` over a service that draws its request.

use std::sync::Arc;

use axum::Router;
use expect_test::{Expect, expect};
use gateway::Services;
use guard::{Guard, Policy};
use serde_json::{Value, json};

use crate::{
    fake::{Fake, Painter},
    get, named, post, send, shown, text,
};

fn router() -> Router {
    let fake = Fake::parrot();
    gateway::router(fake.gateway_of(Services { draw: vec![Arc::new(Painter)], ..fake.services() }))
}

async fn images(extra: &str, expected: Expect) {
    let body = format!(r#"{{"model":"painter",{extra}}}"#);
    expected.assert_eq(&shown(send(&router(), post("/v1/images/generations", &body)).await).await);
}

/// What is generated says so for machines, where the policy wants it.
#[tokio::test]
async fn labels_for_machines() {
    let mut policy = Policy::default();
    policy.labels.metadata = true;
    let fake = Fake::parrot();
    let guard = Guard::new(&policy).unwrap();
    let app = gateway::router(fake.gateway_of(Services { draw: vec![Arc::new(Painter)], guard, ..fake.services() }));
    let talk = r#"{"model":"talker","messages":[{"role":"user","content":"Hi"}]}"#;
    let response = send(&app, post("/v1/chat/completions", talk)).await;
    let label: Value = serde_json::from_slice(response.headers()["x-aigc"].as_bytes()).unwrap();
    assert_eq!((&label["Label"], &label["ProduceID"]), (&json!("1"), &json!(named(&response))));
    // A fake's images are no PNG files and stay as they are.
    let drawn = send(&app, post("/v1/images/generations", r#"{"model":"painter","prompt":"a cat"}"#)).await;
    assert_eq!(drawn.status(), 200);
    let plain = send(&router(), post("/v1/chat/completions", talk)).await;
    assert!(!plain.headers().contains_key("x-aigc"));
}

#[tokio::test]
async fn drawn() {
    images(r#""prompt":"a cat","n":2,"size":"64x32","seed":7,"user":"ann""#, expect![[r#"
        200 OK
        content-type: application/json

        {"created":0,"data":[{"b64_json":"YSBjYXQgMCBTb21lKCg2NCwgMzIpKSBTb21lKDcpIGFubg=="},{"b64_json":"YSBjYXQgMSBTb21lKCg2NCwgMzIpKSBTb21lKDcpIGFubg=="}],"output_format":"png"}
    "#]]).await;
    assert!(text(send(&router(), get("/v1/models/painter")).await).await.contains(r#""capabilities":["images"]"#));
}

#[tokio::test]
async fn refused() {
    images(r#""prompt":"x","response_format":"url""#, expect![[r#"
        400 Bad Request
        content-type: application/json

        {"error":{"message":"`response_format` url is not supported: images are not kept here; send b64_json.","type":"invalid_request_error","param":"response_format","code":"unsupported_parameter"}}
    "#]]).await;
    images(r#""prompt":"x","size":"64x""#, expect![[r#"
        400 Bad Request
        content-type: application/json

        {"error":{"message":"`size` is \"64x\", but must be auto or WIDTHxHEIGHT in pixels, each from 1 to 8192.","type":"invalid_request_error","param":"size","code":null}}
    "#]]).await;
    images(r#""prompt":" ""#, expect![[r#"
        400 Bad Request
        content-type: application/json

        {"error":{"message":"`prompt` is required: say what to draw.","type":"invalid_request_error","param":"prompt","code":null}}
    "#]]).await;
    images(
        r#""prompt":"short""#,
        expect![[r#"
        500 Internal Server Error
        content-type: application/json

        {"error":{"message":"The service drew 0 images of 1.","type":"server_error","param":null,"code":null}}
    "#]],
    )
    .await;
    let body = r#"{"model":"talker","prompt":"x"}"#;
    let response = send(&router(), post("/v1/images/generations", body)).await;
    expect![[r#"
        400 Bad Request
        content-type: application/json

        {"error":{"message":"The model `talker` offers no images; it answers other requests. Models that do: `painter`.","type":"invalid_request_error","param":"model","code":null}}
    "#]].assert_eq(&shown(response).await);
}
