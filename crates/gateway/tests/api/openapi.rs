//! The OpenAPI document: committed as it is made, and neither it nor the router has what the other has not.

use axum::{body::Body, http::Request};
use expect_test::expect_file;
use serde_json::Value;

use crate::{fake::Fake, get, send, text};

fn document() -> Value {
    serde_json::from_str(gateway::openapi()).unwrap()
}

/// `UPDATE_EXPECT=1 cargo test -p gateway openapi` writes it anew.
#[test]
fn the_committed_document_is_current() {
    expect_file!["../../../../docs/openapi.json"].assert_eq(gateway::openapi());
}

#[tokio::test]
async fn it_is_served() {
    let response = send(&Fake::parrot().router(), get("/openapi.json")).await;
    assert_eq!(response.headers()["content-type"], "application/json");
    assert_eq!(text(response).await, gateway::openapi());
}

/// The router answers every method of every path, and tells of no other methods.
#[tokio::test]
async fn routes_are_those_of_the_document() {
    let app = Fake::parrot().router();
    let document = document();
    for (path, item) in document["paths"].as_object().unwrap() {
        let uri = path.replace("{id}", "talker");
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
            let request = Request::builder().method(method).uri(&uri).body(Body::empty()).unwrap();
            let response = send(&app, request).await;
            let documented = item.get(method.to_lowercase()).is_some();
            assert_eq!(response.status() != 405, documented, "{method} {path}: {}", response.status());
            // What is not there (a record, a path) is another 404 than a route that is not there.
            assert!(!text(response).await.contains("unknown_url") || !documented, "{method} {path}");
        }
    }
}

/// Every reference leads somewhere, and every operation says what it is.
#[test]
fn nothing_is_missing() {
    let document = document();
    let mut references = Vec::new();
    collect(&document, &mut references);
    assert!(references.len() > 20);
    for reference in references {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
    let operations =
        document["paths"].as_object().unwrap().values().flat_map(|item| item.as_object().unwrap().values());
    for operation in operations {
        assert_ne!(operation["summary"], "", "{operation}");
        assert_ne!(operation["tags"][0], "", "{operation}");
    }
}

fn collect(value: &Value, references: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            references.extend(map.get("$ref").and_then(Value::as_str).map(str::to_owned));
            map.values().for_each(|value| collect(value, references));
        }
        Value::Array(items) => items.iter().for_each(|value| collect(value, references)),
        _ => {}
    }
}
