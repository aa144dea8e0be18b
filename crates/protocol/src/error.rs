//! One error type for every service: what went wrong, whose fault it is, and which field to change.

use std::{borrow::Cow, fmt, time::Duration};

use serde::{Deserialize, Serialize};

/// Why a request was not served. The gateway maps [`ErrorKind`] to an HTTP status; nobody else knows statuses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{message}")]
#[non_exhaustive]
pub struct Error {
    /// Whose fault it is and what the caller may do about it.
    pub kind: ErrorKind,
    /// A sentence for a person, with the next step where there is one.
    pub message: String,
    /// The request field at fault (OpenAI's `param`), such as `messages[2].content`.
    pub param: Option<String>,
    /// A stable word for programs (OpenAI's `code`), such as `context_length_exceeded`.
    pub code: Option<Cow<'static, str>>,
    /// When another try makes sense, where that is known.
    pub retry_after: Option<Duration>,
}

/// The classes of failure that callers treat differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The request can never succeed as it stands.
    Invalid,
    /// Nobody said who asks, or the key is not known here.
    Unauthenticated,
    /// This caller may not do this.
    Forbidden,
    /// A budget is used up: more money or tokens are needed, waiting does not help.
    OverBudget,
    /// A policy forbids the content that came in or would have gone out.
    Blocked,
    /// The model or resource named does not exist here.
    NotFound,
    /// The service cannot do this (a capability is absent).
    Unsupported,
    /// Too much work is waiting: try again later.
    Overloaded,
    /// The deadline passed before the work was done.
    DeadlineExceeded,
    /// The service is stopping and takes no new work.
    ShuttingDown,
    /// A service behind this one failed or could not be reached; another may answer.
    Upstream,
    /// A fault of ours.
    Internal,
}

impl ErrorKind {
    /// The word for an error without a code.
    pub fn word(self) -> &'static str {
        match self {
            Self::Invalid | Self::Unsupported => "invalid_request",
            Self::NotFound => "not_found",
            Self::Unauthenticated => "unauthenticated",
            Self::Forbidden => "forbidden",
            Self::OverBudget => "insufficient_quota",
            Self::Blocked => "content_blocked",
            Self::Overloaded => "overloaded",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::ShuttingDown => "shutting_down",
            Self::Upstream => "upstream_failed",
            Self::Internal => "internal",
        }
    }
}

impl Error {
    /// An error of `kind` with a message and neither field nor code.
    pub fn new(kind: ErrorKind, message: impl fmt::Display) -> Self {
        Self { kind, message: message.to_string(), param: None, code: None, retry_after: None }
    }

    /// A request that can never succeed, with the field at fault.
    pub fn invalid(param: impl Into<String>, message: impl fmt::Display) -> Self {
        Self { param: Some(param.into()), ..Self::new(ErrorKind::Invalid, message) }
    }

    /// A fault of ours.
    pub fn internal(message: impl fmt::Display) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// What went wrong in one stable word: the code, or the word of the kind.
    pub fn word(&self) -> &str {
        self.code.as_deref().unwrap_or(self.kind.word())
    }

    /// The same error with the field at fault.
    #[must_use]
    pub fn with_param(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }

    /// The same error with a stable code for programs.
    #[must_use]
    pub fn with_code(mut self, code: impl Into<Cow<'static, str>>) -> Self {
        self.code = Some(code.into());
        self
    }

    /// The same error, saying when another try makes sense.
    #[must_use]
    pub fn with_retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }
}
