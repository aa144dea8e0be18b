//! A request's body as bytes: JSON by its content type, within the limit, with a refusal that reaches the client.

use axum::{
    body::{Body, HttpBody},
    extract::Request,
    http::{HeaderMap, StatusCode, header},
};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;

use crate::refusal::Refusal;

/// Clients write their whole body before they read: a server that hangs up in the middle is a broken pipe to them, not a
/// 413. So a body that is too long is read to its end and thrown away, up to this many times the limit.
const PATIENCE: usize = 8;

/// Reads the body.
pub(crate) async fn read(request: Request, limit: usize) -> Result<Bytes, Refusal> {
    json_only(request.headers())?;
    let body = request.into_body();
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > limit.saturating_mul(PATIENCE) {
        return Err(too_long(limit));
    }
    collect(body, limit).await
}

async fn collect(body: Body, limit: usize) -> Result<Bytes, Refusal> {
    let mut chunks = body.into_data_stream();
    let (mut bytes, mut seen) = (BytesMut::new(), 0);
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|e| broken(&e))?;
        seen += chunk.len();
        if seen <= limit {
            bytes.extend_from_slice(&chunk);
        } else if seen > limit.saturating_mul(PATIENCE) {
            break;
        }
    }
    if seen > limit { Err(too_long(limit)) } else { Ok(bytes.freeze()) }
}

fn json_only(headers: &HeaderMap) -> Result<(), Refusal> {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json")) {
        return Ok(());
    }
    let found = if essence.is_empty() { "missing".to_owned() } else { format!("`{essence}`") };
    let message = format!("The Content-Type is {found}; send the header `Content-Type: application/json`.");
    Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message))
}

fn too_long(limit: usize) -> Refusal {
    let message =
        format!("The request body is longer than {limit} bytes, the limit of this server; send less at once.");
    Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "request_too_large", message)
}

fn broken(error: &axum::Error) -> Refusal {
    let message = format!("The request body ended early: {error}.");
    Refusal::new(StatusCode::BAD_REQUEST, "incomplete_body", message)
}
