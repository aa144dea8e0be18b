//! A name for every request: the caller's `x-request-id` if it has one, else one of ours; always returned.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
};

use axum::{
    extract::Request,
    http::{HeaderName, HeaderValue},
    middleware::Next,
    response::Response,
};

/// The header, on the way in and out.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest name taken over from a caller; logs stay readable.
const MAX_LEN: usize = 128;

/// A request's name, among its extensions.
#[derive(Debug, Clone)]
pub(crate) struct RequestId(pub(crate) String);

/// Names the request and its response.
pub(crate) async fn name(mut request: Request, next: Next) -> Response {
    let id = request.headers().get(&REQUEST_ID).and_then(given).unwrap_or_else(fresh);
    let header = HeaderValue::from_str(&id);
    request.extensions_mut().insert(RequestId(id));
    let mut response = next.run(request).await;
    if let Ok(header) = header {
        response.headers_mut().insert(REQUEST_ID, header);
    }
    response
}

/// A caller's name, if it is fit for logs.
fn given(value: &HeaderValue) -> Option<String> {
    let text = value.to_str().ok()?;
    let fits = !text.is_empty() && text.len() <= MAX_LEN && text.bytes().all(|b| b.is_ascii_graphic());
    fits.then(|| text.to_owned())
}

/// Unique in this process by the counter, and across processes by the two random keys.
fn fresh() -> String {
    static KEYS: LazyLock<(RandomState, RandomState)> = LazyLock::new(Default::default);
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("req_{:016x}{:016x}", KEYS.0.hash_one(count), KEYS.1.hash_one(count))
}
