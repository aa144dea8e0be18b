//! `POST /v1/moderations`.

use axum::http::StatusCode;
use expect_test::expect;
use serde_json::{Value, json};

use crate::{check, fake::Fake, post, send, text};

async fn judged(input: Value) -> Value {
    let body = json!({"model": "omni-moderation-latest", "input": input}).to_string();
    let response = send(&Fake::parrot().router(), post("/v1/moderations", &body)).await;
    assert_eq!(response.status(), StatusCode::OK);
    serde_json::from_str(&text(response).await).unwrap()
}

#[tokio::test]
async fn every_form_of_input() {
    let flags =
        |body: &Value| body["results"].as_array().unwrap().iter().map(|r| r["flagged"] == true).collect::<Vec<_>>();
    let one = judged(json!("I want to kill myself")).await;
    assert!(one["id"].as_str().unwrap().starts_with("modr-"));
    assert_eq!(one["model"], "tessera-guard");
    assert_eq!(one["results"][0]["categories"]["self-harm/intent"], true);
    assert_eq!(one["results"][0]["categories"]["violence/graphic"], false);
    assert_eq!(one["results"][0]["category_scores"].as_object().unwrap().len(), 13);
    assert_eq!(one["results"][0]["category_applied_input_types"]["hate"], json!(["text"]));
    assert_eq!(flags(&judged(json!(["Good morning", "我想自杀"])).await), [false, true]);
    let parts = json!([{"type": "text", "text": "Good"}, {"type": "text", "text": "morning"}]);
    assert_eq!(flags(&judged(parts).await), [false]);
}

#[tokio::test]
async fn refusals() {
    let image = r#"{"input":[{"type":"image_url","image_url":{"url":"https://x.example/a.png"}}]}"#;
    check(&Fake::parrot(), post("/v1/moderations", image), expect![[r#"
        400 Bad Request
        content-type: application/json

        {"error":{"message":"`input[0].image_url` is not supported: this server judges text only; leave images out.","type":"invalid_request_error","param":"input[0].image_url","code":"unsupported_parameter"}}
    "#]]).await;
    check(&Fake::parrot(), post("/v1/moderations", "{}"), expect![[r#"
        400 Bad Request
        content-type: application/json

        {"error":{"message":"`input` is required: the text to judge.","type":"invalid_request_error","param":"input","code":null}}
    "#]]).await;
}
