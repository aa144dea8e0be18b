//! The error object every failure of this API is sent as, whole or in a stream.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Error, ErrorKind};

/// `{"type": "error", "error": {..}}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "MessagesError")]
pub struct ErrorBody {
    /// Always `error`.
    #[serde(rename = "type")]
    pub kind: String,
    /// What went wrong.
    pub error: ErrorDetail,
    /// The request's id, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "MessagesErrorDetail")]
#[serde(default)]
pub struct ErrorDetail {
    /// The class of failure.
    #[serde(rename = "type")]
    pub kind: String,
    /// A sentence for a person.
    pub message: String,
}

/// The words for the classes. The first pair of a kind is what it is called; the first pair of a word is what it means.
const WORDS: [(ErrorKind, &str); 16] = [
    (ErrorKind::Invalid, "invalid_request_error"),
    (ErrorKind::Unsupported, "invalid_request_error"),
    (ErrorKind::Blocked, "invalid_request_error"),
    (ErrorKind::Invalid, "request_too_large"),
    (ErrorKind::Unauthenticated, "authentication_error"),
    (ErrorKind::Forbidden, "permission_error"),
    (ErrorKind::NotFound, "not_found_error"),
    (ErrorKind::OverBudget, "billing_error"),
    (ErrorKind::Overloaded, "rate_limit_error"),
    (ErrorKind::Overloaded, "overloaded_error"),
    (ErrorKind::ShuttingDown, "overloaded_error"),
    (ErrorKind::DeadlineExceeded, "timeout_error"),
    (ErrorKind::Upstream, "api_error"),
    (ErrorKind::Internal, "api_error"),
    (ErrorKind::Upstream, "internal_server_error"),
    (ErrorKind::Upstream, "bad_gateway"),
];

impl From<&Error> for ErrorBody {
    fn from(error: &Error) -> Self {
        let word = WORDS.iter().find(|(kind, _)| *kind == error.kind).map_or("api_error", |(_, word)| word);
        let error = ErrorDetail { kind: word.to_owned(), message: error.message.clone() };
        Self { kind: "error".to_owned(), error, request_id: None }
    }
}

impl From<ErrorDetail> for Error {
    /// An error that came in a stream; words of the future are failures of the other side.
    fn from(detail: ErrorDetail) -> Self {
        let kind = WORDS.iter().find(|(_, word)| *word == detail.kind).map_or(ErrorKind::Upstream, |(kind, _)| *kind);
        Self::new(kind, detail.message)
    }
}
