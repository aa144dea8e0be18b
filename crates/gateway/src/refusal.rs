//! Errors as HTTP: the one place that knows which failure has which status.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use protocol::{Error, ErrorKind, openai::ErrorBody};

/// An error with the status it is sent under.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: StatusCode,
    error: Error,
}

impl Refusal {
    /// A failure of the exchange itself, which no service knows of.
    pub(crate) fn new(status: StatusCode, code: &'static str, message: String) -> Self {
        Self { status, error: Error::new(ErrorKind::Invalid, message).with_code(code) }
    }

    /// There is no room for this now, whoever asks.
    pub(crate) fn full(message: String) -> Self {
        let error = Error::new(ErrorKind::Overloaded, message).with_code("server_busy");
        Self { status: StatusCode::SERVICE_UNAVAILABLE, error }
    }
}

/// The error that a response tells of, among its extensions: for layers that say it in another dialect or write it down.
#[derive(Debug, Clone)]
pub(crate) struct Failed(pub(crate) Error);

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self { status: status(error.kind), error }
    }
}

fn status(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::Invalid | ErrorKind::Unsupported => StatusCode::BAD_REQUEST,
        ErrorKind::Unauthenticated => StatusCode::UNAUTHORIZED,
        ErrorKind::Forbidden => StatusCode::FORBIDDEN,
        ErrorKind::NotFound => StatusCode::NOT_FOUND,
        // OpenAI's status for `insufficient_quota`, told apart by the code and by the missing Retry-After.
        ErrorKind::Overloaded | ErrorKind::OverBudget => StatusCode::TOO_MANY_REQUESTS,
        ErrorKind::Blocked => StatusCode::BAD_REQUEST,
        ErrorKind::Upstream => StatusCode::BAD_GATEWAY,
        ErrorKind::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        ErrorKind::ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
        // Kinds of the future are faults of ours until they have a line here.
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// Seconds after which another try makes sense: what the service says, rounded up, or a guess by the kind.
fn retry_after(error: &Error) -> Option<HeaderValue> {
    let seconds = match (error.retry_after, error.kind) {
        (Some(wait), _) => wait.as_millis().div_ceil(1000).max(1),
        (None, ErrorKind::Overloaded) => 1,
        (None, ErrorKind::ShuttingDown) => 5,
        (None, _) => return None,
    };
    HeaderValue::from_str(&seconds.to_string()).ok()
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        if self.status.is_server_error() {
            tracing::warn!(error = %self.error, "request failed");
        }
        let retry_after = retry_after(&self.error);
        let mut response = (self.status, Json(ErrorBody::from(&self.error))).into_response();
        response.extensions_mut().insert(Failed(self.error.clone()));
        if let Some(seconds) = retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
        if self.error.kind == ErrorKind::ShuttingDown {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if self.error.kind == ErrorKind::Unauthenticated {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
