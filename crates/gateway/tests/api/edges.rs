//! Everything that is not a good request: routes, methods, bodies, headers, panics; and the pages beside the API.

use std::{convert::Infallible, time::Duration};

use axum::{
    body::Body,
    http::{Request, header},
};
use bytes::Bytes;
use expect_test::expect;
use futures_util::{StreamExt, stream};
use protocol::Error;
use tokio::task::JoinSet;

use crate::{check, fake::Fake, get, named, post, send, text};

const CHAT: &str = "/v1/chat/completions";

#[tokio::test]
async fn routes_and_methods() {
    let fake = Fake::parrot();
    check(&fake, get("/v1/nothing"), expect![[r#"
        404 Not Found
        content-type: application/json

        {"error":{"message":"There is no GET /v1/nothing here. GET /openapi.json describes the API.","type":"invalid_request_error","param":null,"code":"unknown_url"}}
    "#]]).await;
    check(&fake, post("/chat/completions", "{}"), expect![[r#"
        404 Not Found
        content-type: application/json

        {"error":{"message":"There is no POST /chat/completions here. The API is under /v1: set the base URL to end in /v1.","type":"invalid_request_error","param":null,"code":"unknown_url"}}
    "#]]).await;
    check(&fake, get(CHAT), expect![[r#"
        405 Method Not Allowed
        content-type: application/json
        allow: POST

        {"error":{"message":"/v1/chat/completions does not answer GET; the header Allow says what it answers.","type":"invalid_request_error","param":null,"code":"method_not_allowed"}}
    "#]]).await;
    check(&fake, post("/v1/models", "{}"), expect![[r#"
        405 Method Not Allowed
        content-type: application/json
        allow: GET,HEAD

        {"error":{"message":"/v1/models does not answer POST; the header Allow says what it answers.","type":"invalid_request_error","param":null,"code":"method_not_allowed"}}
    "#]]).await;
}

#[tokio::test]
async fn bodies() {
    let fake = Fake::parrot();
    check(&fake, post(CHAT, ""), expect![[r#"
        400 Bad Request
        content-type: application/json

        {"error":{"message":"The request body is not valid JSON: EOF while parsing a value at line 1 column 0.","type":"invalid_request_error","param":null,"code":"invalid_json"}}
    "#]]).await;
    check(&fake, post(CHAT, "{\"model\":\n  \"talker\",,}"), expect![[r#"
        400 Bad Request
        content-type: application/json

        {"error":{"message":"The request body is not valid JSON: key must be a string at line 2 column 12.","type":"invalid_request_error","param":null,"code":"invalid_json"}}
    "#]]).await;
    check(&fake, post(CHAT, "{} x"), expect![[r#"
        400 Bad Request
        content-type: application/json

        {"error":{"message":"The request body is not valid JSON: trailing characters at line 1 column 4.","type":"invalid_request_error","param":null,"code":"invalid_json"}}
    "#]]).await;
    check(&fake, post(CHAT, "[]"), expect![[r#"
        400 Bad Request
        content-type: application/json

        {"error":{"message":"The request body does not fit: invalid type: array, expected an object.","type":"invalid_request_error","param":null,"code":null}}
    "#]]).await;
    let form = Request::post(CHAT).header("x-request-id", "t1").body(Body::from("{}")).unwrap();
    check(&fake, form, expect![[r#"
        415 Unsupported Media Type
        content-type: application/json

        {"error":{"message":"The Content-Type is missing; send the header `Content-Type: application/json`.","type":"invalid_request_error","param":null,"code":"unsupported_media_type"}}
    "#]]).await;
    let form = Request::post(CHAT).header("x-request-id", "t1").header(header::CONTENT_TYPE, "text/plain");
    check(&fake, form.body(Body::from("{}")).unwrap(), expect![[r#"
        415 Unsupported Media Type
        content-type: application/json

        {"error":{"message":"The Content-Type is `text/plain`; send the header `Content-Type: application/json`.","type":"invalid_request_error","param":null,"code":"unsupported_media_type"}}
    "#]]).await;
}

#[tokio::test]
async fn a_body_over_the_limit() {
    let mut fake = Fake::parrot();
    fake.config.max_body_bytes = 100;
    check(&fake, post(CHAT, &" ".repeat(101)), expect![[r#"
        413 Payload Too Large
        content-type: application/json

        {"error":{"message":"The request body is longer than 100 bytes, the limit of this server; send less at once.","type":"invalid_request_error","param":null,"code":"request_too_large"}}
    "#]]).await;
    let fits = format!(r#"{{"model":"talker","messages":[{{"role":"user","content":"{}"}}]}}"#, "x".repeat(40));
    assert!(fits.len() <= 100);
    assert_eq!(send(&fake.router(), post(CHAT, &fits)).await.status(), 200);
}

/// Bodies that are being read have a bound together. Beyond it a request is turned away, and let in once those are done or gone.
#[tokio::test]
async fn no_more_is_read_than_there_is_room_for() {
    let app = Fake::parrot().router();
    let fine = r#"{"model":"talker","messages":[{"role":"user","content":"Hi"}]}"#;
    let until = async |status: u16| {
        for _ in 0..500 {
            let response = send(&app, post(CHAT, fine)).await;
            if response.status() == status {
                return response;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("no {status}");
    };
    assert_eq!(send(&app, post(CHAT, fine)).await.status(), 200);
    let most = Bytes::from(vec![b' '; 8 << 20]);
    let mut slow = JoinSet::new();
    for _ in 0..8 {
        let unended = stream::iter([Ok::<_, Infallible>(most.clone())]).chain(stream::pending());
        let request = Request::post(CHAT).header(header::CONTENT_TYPE, "application/json");
        let (app, request) = (app.clone(), request.body(Body::from_stream(unended)).unwrap());
        slow.spawn(async move { send(&app, request).await });
    }
    let refused = until(503).await;
    assert_eq!(refused.headers()["retry-after"], "1");
    assert!(text(refused).await.contains("server_busy"));
    slow.shutdown().await;
    until(200).await;
}

/// Whoever is not signed in sends no more than a form.
#[tokio::test]
async fn forms_are_small() {
    let form = |length: usize| {
        let request =
            Request::post("/console/prefer").header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        request.body(Body::from("x".repeat(length))).unwrap()
    };
    let app = Fake::parrot().router();
    assert_ne!(send(&app, form(100)).await.status(), 413);
    assert_eq!(send(&app, form(100_000)).await.status(), 413);
}

#[tokio::test]
async fn a_panic_is_a_500() {
    check(&Fake::new(|_| panic!("a bug")), post("/v1/completions", r#"{"model":"talker","prompt":"x"}"#), expect![[r#"
        500 Internal Server Error
        content-type: application/json

        {"error":{"message":"Something broke inside the server; its log says more.","type":"server_error","param":null,"code":null}}
    "#]])
        .await;
}

#[tokio::test]
async fn models() {
    let fake = Fake::parrot();
    check(&fake, get("/v1/models"), expect![[r#"
        200 OK
        content-type: application/json

        {"object":"list","data":[{"id":"talker","object":"model","created":0,"owned_by":"test","context_length":64,"capabilities":["chat","completions"],"features":{"schema":false,"grammar":false,"logprobs":false,"scoring":false,"seed":false,"tools":false,"images":false,"prefill":false,"replay":false}},{"id":"hf:owner/raw","object":"model","created":0,"owned_by":"test","context_length":64,"capabilities":["completions"],"features":{"schema":false,"grammar":false,"logprobs":false,"scoring":false,"seed":false,"tools":false,"images":false,"prefill":false,"replay":false}},{"id":"vectors","object":"model","created":0,"owned_by":"test","context_length":32,"capabilities":["embeddings"],"features":{"schema":false,"grammar":false,"logprobs":false,"scoring":false,"seed":false,"tools":false,"images":false,"prefill":false,"replay":false}}]}
    "#]]).await;
    check(&fake, get("/v1/models/hf:owner/raw"), expect![[r#"
        200 OK
        content-type: application/json

        {"id":"hf:owner/raw","object":"model","created":0,"owned_by":"test","context_length":64,"capabilities":["completions"],"features":{"schema":false,"grammar":false,"logprobs":false,"scoring":false,"seed":false,"tools":false,"images":false,"prefill":false,"replay":false}}
    "#]]).await;
    check(&fake, get("/v1/models/gpt-9"), expect![[r#"
        404 Not Found
        content-type: application/json

        {"error":{"message":"The model `gpt-9` does not exist here. Available: `talker`, `hf:owner/raw`, `vectors`.","type":"invalid_request_error","param":"model","code":"model_not_found"}}
    "#]]).await;
}

#[tokio::test]
async fn health() {
    let fake = Fake::parrot();
    for path in ["/healthz", "/healthz/ready"] {
        let expected = expect![[r#"
            200 OK
            content-type: application/json

            {"status":"ok","models":["talker","hf:owner/raw","vectors"],"troubles":[]}
        "#]];
        check(&fake, get(path), expected).await;
    }
    check(
        &fake,
        get("/healthz/live"),
        expect![[r#"
        200 OK
        content-type: application/json

        {"status":"ok"}
    "#]],
    )
    .await;
}

/// A model that broke for good: probes take the server out of service, and the other models go on.
#[tokio::test]
async fn a_broken_service_is_not_ready() {
    let mut fake = Fake::parrot();
    fake.broken = Some(Error::internal("the engine has stopped"));
    for path in ["/healthz", "/healthz/ready"] {
        let expected = expect![[r#"
            503 Service Unavailable
            content-type: application/json

            {"status":"the engine has stopped","models":["talker","hf:owner/raw","vectors"],"troubles":["the engine has stopped"]}
        "#]];
        check(&fake, get(path), expected).await;
    }
    assert_eq!(send(&fake.router(), get("/healthz/live")).await.status(), 200);
    assert_eq!(send(&fake.router(), post("/v1/embeddings", r#"{"model":"vectors","input":"x"}"#)).await.status(), 200);
}

/// Every request gets a name of ours; the caller's comes back beside it if it is fit for logs.
#[tokio::test]
async fn request_ids() {
    let app = Fake::parrot().router();
    let long = "x".repeat(129);
    let mut seen = Vec::new();
    let mut check = async |given: &[(&str, &str)], back: Option<&str>| {
        let request = given.iter().fold(Request::get("/healthz"), |request, (name, id)| request.header(*name, *id));
        let response = send(&app, request.body(Body::empty()).unwrap()).await;
        let id = named(&response);
        assert!(id.starts_with("req_") && id.len() == 36, "{id}");
        assert!(!seen.contains(&id));
        seen.push(id);
        assert_eq!(response.headers().get("x-client-request-id").map(|id| id.to_str().unwrap()), back);
    };
    check(&[], None).await;
    for unfit in ["has space", &*long, ""] {
        check(&[("x-request-id", unfit)], None).await;
    }
    check(&[("x-request-id", "one")], Some("one")).await;
    check(&[("x-request-id", "one")], Some("one")).await;
    check(&[("x-request-id", "the proxy's"), ("x-client-request-id", "two")], Some("two")).await;
}

async fn allowed_origin(fake: &Fake, origin: &str) -> Option<String> {
    let preflight = Request::options(CHAT)
        .header(header::ORIGIN, origin)
        .header(header::ACCESS_CONTROL_REQUEST_METHOD, "POST")
        .header(header::ACCESS_CONTROL_REQUEST_HEADERS, "authorization,content-type,x-stainless-lang");
    let response = send(&fake.router(), preflight.body(Body::empty()).unwrap()).await;
    let allowed = response.headers().get(header::ACCESS_CONTROL_ALLOW_ORIGIN)?.to_str().unwrap().to_owned();
    let headers = response.headers()[header::ACCESS_CONTROL_ALLOW_HEADERS].to_str().unwrap();
    assert!(headers.contains("authorization"), "{headers}");
    Some(allowed)
}

#[tokio::test]
async fn origins() {
    let mut fake = Fake::parrot();
    fake.config.origins = vec!["https://chat.example".to_owned()];
    for origin in ["http://localhost:3000", "http://127.0.0.1", "http://[::1]:8080", "https://chat.example"] {
        assert_eq!(allowed_origin(&fake, origin).await.as_deref(), Some(origin));
    }
    for origin in ["https://evil.example", "https://localhost.evil.example", "null"] {
        assert_eq!(allowed_origin(&fake, origin).await, None, "{origin}");
    }
}

#[tokio::test]
async fn metrics_have_bounded_labels() {
    let app = Fake::parrot().router();
    for path in ["/v1/models", "/v1/models/a", "/v1/models/b", "/wp-admin", "/.env"] {
        send(&app, get(path)).await;
    }
    let strange = Request::builder().method("BREW").uri("/pot").body(Body::empty()).unwrap();
    send(&app, strange).await;
    let page = text(send(&app, get("/metrics")).await).await;
    assert!(
        page.contains("tessera_http_requests_total{route=\"/v1/models/{*id}\",method=\"GET\",status=\"404\"}"),
        "{page}"
    );
    assert!(page.contains("route=\"other\",method=\"other\",status=\"404\""), "{page}");
    assert!(page.contains("tessera_http_request_duration_seconds_bucket{route=\"/v1/models\",le=\"0.05\"}"), "{page}");
    assert!(page.contains("\ntessera_http_requests_in_flight "), "{page}");
    assert!(!page.contains("wp-admin") && !page.contains("BREW"), "{page}");
}

#[tokio::test]
async fn home() {
    check(
        &Fake::parrot(),
        get("/"),
        expect![[r#"
            200 OK
            content-type: application/json

            {"name":"tessera","version":"0.1.0","api":"/v1","models":["talker","hf:owner/raw","vectors"]}
        "#]],
    )
    .await;
    let page = send(
        &Fake::parrot().router(),
        Request::get("/").header("accept", "text/html,*/*").body(Body::empty()).unwrap(),
    )
    .await;
    let policy = page.headers()["content-security-policy"].to_str().unwrap().to_owned();
    assert!(policy.contains("default-src 'none'; script-src 'self'; style-src 'self'"), "{policy}");
    let page = text(page).await;
    assert!(page.contains("<option value=\"talker\">") && !page.contains("hf:owner/raw"), "{page}");
}
