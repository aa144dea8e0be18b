//! `POST /v1/messages` and `/v1/messages/count_tokens`: Anthropic's dialect, its headers and its form of failures included.
//!
//! Failures become responses in many places (layers, extractors, routes) and in OpenAI's form. One layer around all of them
//! rewrites those of this dialect's addresses, so none of these places needs to know whom it answers.

use axum::{
    Json,
    extract::Request,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
    routing::post,
};
use protocol::{
    Error,
    anthropic::{self, ErrorBody, TokenCount},
};

use crate::{
    api::Route,
    ask::Ask,
    id::RequestId,
    refusal::{Failed, Refusal},
};

/// Where this dialect is spoken.
const ROOT: &str = "/v1/messages";
/// The first version that streams in named events. Later ones are other dates, and messages kept their form.
const VERSION: &str = "2023-06-01";
const VERSION_HEADER: HeaderName = HeaderName::from_static("anthropic-version");
/// What this dialect calls `x-request-id`.
const REQUEST_ID: HeaderName = HeaderName::from_static("request-id");

pub(crate) fn routes() -> Vec<Route> {
    vec![
        Route::post::<anthropic::MessagesRequest>(ROOT, post(create))
            .about("messages", "Continue a conversation, in Anthropic's dialect")
            .gives::<anthropic::MessageBody>()
            .streams()
            .fails_as_messages(),
        Route::post::<anthropic::CountRequest>("/v1/messages/count_tokens", post(count))
            .about("messages", "Count the tokens of a conversation")
            .gives::<TokenCount>()
            .fails_as_messages(),
    ]
}

/// `POST /v1/messages`.
pub(crate) async fn create(headers: HeaderMap, ask: Ask) -> Result<Response, Refusal> {
    check_version(&headers)?;
    let call = anthropic::parse(&ask.body)?;
    let service = ask.chat(call.model())?;
    let envelope = ask.envelope("msg_", call.model());
    let pieces = |call: &_| anthropic::Stream::new(envelope.clone(), call);
    let whole = |call: &_| anthropic::Collector::new(envelope.clone(), call);
    ask.deliver(&service, call, pieces, whole).await
}

/// `POST /v1/messages/count_tokens`.
pub(crate) async fn count(headers: HeaderMap, ask: Ask) -> Result<Json<TokenCount>, Refusal> {
    check_version(&headers)?;
    let request = anthropic::parse_count(&ask.body)?;
    let service = ask.chat(&request.model)?;
    let input_tokens = service.count(request).await?;
    Ok(Json(TokenCount { input_tokens }))
}

/// Clients that leave the version out mean one of this form. Versions are dates, so their order is that of their text.
fn check_version(headers: &HeaderMap) -> Result<(), Error> {
    match headers.get(&VERSION_HEADER) {
        Some(version) if version.as_bytes() < VERSION.as_bytes() || version.len() != VERSION.len() => {
            let message =
                format!("The header anthropic-version {version:?} is not supported; send {VERSION} or later.");
            Err(Error::invalid("anthropic-version", message))
        }
        _ => Ok(()),
    }
}

/// Gives responses of this dialect's addresses its name for the request's id, and failures its form.
pub(crate) async fn speak(request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if path.strip_prefix(ROOT).is_none_or(|below| !below.is_empty() && !below.starts_with('/')) {
        return next.run(request).await;
    }
    let id = request.extensions().get::<RequestId>().map(|id| id.0.clone());
    let mut response = next.run(request).await;
    if let Some(Failed(error)) = response.extensions_mut().remove::<Failed>() {
        response = rewritten(response, &error, id.clone());
    }
    if let Some(id) = id.and_then(|id| HeaderValue::from_str(&id).ok()) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

/// The failure in this dialect's form, under the same status and headers.
fn rewritten(response: Response, error: &Error, request_id: Option<String>) -> Response {
    let (mut parts, _) = response.into_parts();
    let mut body = ErrorBody { request_id, ..ErrorBody::from(error) };
    // Failures of the exchange itself, which no service knows of, are told apart by their status only.
    match parts.status {
        StatusCode::PAYLOAD_TOO_LARGE => "request_too_large".clone_into(&mut body.error.kind),
        StatusCode::NOT_FOUND => "not_found_error".clone_into(&mut body.error.kind),
        _ => {}
    }
    parts.headers.remove(header::CONTENT_LENGTH);
    (parts, Json(body)).into_response()
}
