//! A name for every request, always ours: `x-request-id` of the response, the id in its body and that of its record. What the
//! caller calls it (`x-client-request-id`, or `x-request-id` as proxies set it) is recorded beside and returned, but names nothing:
//! two callers may choose the same word.

use std::{
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::UNIX_EPOCH,
};

use axum::{
    extract::Request,
    http::{HeaderName, HeaderValue},
    middleware::Next,
    response::Response,
};

use crate::clock;

/// Our name, on the way out.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The caller's, in and out.
pub(crate) const CLIENT_REQUEST_ID: HeaderName = HeaderName::from_static("x-client-request-id");

/// The longest name taken over from a caller; logs stay readable.
const MAX_LEN: usize = 128;

/// A request's name, among its extensions.
#[derive(Debug, Clone)]
pub(crate) struct RequestId(pub(crate) String);

/// What the caller calls its request, among its extensions.
#[derive(Debug, Clone)]
pub(crate) struct ClientId(pub(crate) String);

/// Names the request and its response.
pub(crate) async fn name(mut request: Request, next: Next) -> Response {
    let id = fresh();
    let headers = request.headers();
    let given = [&CLIENT_REQUEST_ID, &REQUEST_ID].into_iter().find_map(|name| headers.get(name).and_then(given));
    let ours = HeaderValue::from_str(&id);
    let theirs = given.as_deref().map(HeaderValue::from_str);
    request.extensions_mut().insert(RequestId(id));
    if let Some(given) = given {
        request.extensions_mut().insert(ClientId(given));
    }
    let mut response = next.run(request).await;
    for (name, value) in [(REQUEST_ID, Some(ours)), (CLIENT_REQUEST_ID, theirs)] {
        if let Some(Ok(value)) = value {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

/// A caller's name, if it is fit for logs.
fn given(value: &HeaderValue) -> Option<String> {
    let text = value.to_str().ok()?;
    let fits = !text.is_empty() && text.len() <= MAX_LEN && text.bytes().all(|b| b.is_ascii_graphic());
    fits.then(|| text.to_owned())
}

/// Unique in this process by the counter, and across processes by a random number. It begins with the time, so that what is kept about
/// requests of the same moment lies together in every index: random names would touch, and write, a page each.
pub(crate) fn fresh() -> String {
    static PROCESS: LazyLock<u64> = LazyLock::new(rand::random);
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let since = clock::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("req_{:011x}{:05x}{:016x}", since.as_millis(), count & 0xf_ffff, *PROCESS)
}
