//! A request's body as bytes: JSON by its content type, within the limit, with a refusal that reaches the client.

use std::time::Duration;

use axum::{
    body::{Body, HttpBody},
    extract::Request,
    http::{HeaderMap, StatusCode, header},
};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use protocol::{Error, ErrorKind};
use tokio::time::timeout;

use crate::{intake::Share, refusal::Refusal};

/// Clients write their whole body before they read: a server that hangs up in the middle is a broken pipe to them, not a
/// 413 or a 503. So a body that is not wanted is read to its end and thrown away, up to this many times the limit.
const PATIENCE: usize = 8;

/// How long a body may stand still before it is given up.
const STALL: Duration = Duration::from_secs(30);

/// What a body says, as an object with known fields.
pub(crate) fn object<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    // By way of an object: an array would do for serde.
    let object = serde_json::from_slice(bytes).map(serde_json::Value::Object);
    object
        .and_then(serde_json::from_value)
        .map_err(|error| Error::new(ErrorKind::Invalid, format!("The body: {error}.")))
}

/// Reads the body.
pub(crate) async fn read(request: Request, limit: usize) -> Result<Bytes, Refusal> {
    json_only(request.headers())?;
    whole(request.into_body(), limit, |_| true).await
}

/// The same request with its body at hand, so that whatever takes it up waits for no client. While it comes, it takes of what may be read.
pub(crate) async fn gathered(request: Request, limit: usize, mut share: Share) -> Result<Request, Refusal> {
    let (parts, body) = request.into_parts();
    let body = whole(body, limit, |bytes| share.grow(bytes)).await?;
    Ok(Request::from_parts(parts, body.into()))
}

async fn whole(body: Body, limit: usize, room: impl FnMut(usize) -> bool) -> Result<Bytes, Refusal> {
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > limit.saturating_mul(PATIENCE) {
        return Err(too_long(limit));
    }
    collect(body, limit, room).await
}

async fn collect(body: Body, limit: usize, mut room: impl FnMut(usize) -> bool) -> Result<Bytes, Refusal> {
    let mut chunks = body.into_data_stream();
    let (mut bytes, mut seen, mut fits) = (BytesMut::new(), 0, true);
    while let Some(chunk) = timeout(STALL, chunks.next()).await.map_err(|_| stalled())? {
        let chunk = chunk.map_err(|e| broken(&e))?;
        seen += chunk.len();
        fits = fits && seen <= limit && room(chunk.len());
        if fits {
            bytes.extend_from_slice(&chunk);
        } else {
            bytes = BytesMut::new();
        }
        if seen > limit.saturating_mul(PATIENCE) {
            break;
        }
    }
    match (seen > limit, fits) {
        (true, _) => Err(too_long(limit)),
        (false, false) => Err(full()),
        (false, true) => Ok(bytes.freeze()),
    }
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

fn full() -> Refusal {
    Refusal::full("The server reads as many requests as it has room for; try again soon.".to_owned())
}

fn broken(error: &axum::Error) -> Refusal {
    let message = format!("The request body ended early: {error}.");
    Refusal::new(StatusCode::BAD_REQUEST, "incomplete_body", message)
}

fn stalled() -> Refusal {
    let message = format!("Nothing of the request body came for {} seconds; send the request again.", STALL.as_secs());
    Refusal::new(StatusCode::REQUEST_TIMEOUT, "request_timeout", message)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use axum::response::IntoResponse;
    use futures_util::stream;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_body_may_be_slow_but_not_stand_still() {
        let check = async |pause: u64, expected: Option<StatusCode>| {
            let chunks = stream::iter(["a", "b", "c"]).then(move |chunk| async move {
                tokio::time::sleep(Duration::from_secs(pause)).await;
                Ok::<_, Infallible>(chunk)
            });
            let refused = whole(Body::from_stream(chunks), 9, |_| true).await.err();
            assert_eq!(refused.map(|refused| refused.into_response().status()), expected, "{pause} s");
        };
        check(0, None).await;
        check(29, None).await;
        check(31, Some(StatusCode::REQUEST_TIMEOUT)).await;
    }
}
