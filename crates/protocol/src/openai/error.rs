//! The error object every failure is sent as.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Error, ErrorKind};

/// `{"error": {..}}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ErrorBody {
    /// What went wrong.
    pub error: ErrorDetail,
}

/// What went wrong. All four fields are always present, as OpenAI's clients expect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ErrorDetail {
    /// A sentence for a person.
    pub message: String,
    /// The class of failure.
    #[serde(rename = "type")]
    pub kind: String,
    /// The request field at fault.
    pub param: Option<String>,
    /// A stable word for programs.
    pub code: Option<String>,
}

impl From<&Error> for ErrorBody {
    fn from(error: &Error) -> Self {
        let kind = match error.kind {
            ErrorKind::Invalid | ErrorKind::NotFound | ErrorKind::Unsupported | ErrorKind::Blocked => {
                "invalid_request_error"
            }
            ErrorKind::Unauthenticated => "authentication_error",
            ErrorKind::Forbidden => "permission_error",
            ErrorKind::OverBudget => "insufficient_quota",
            ErrorKind::Overloaded => "rate_limit_error",
            ErrorKind::DeadlineExceeded => "timeout_error",
            ErrorKind::ShuttingDown | ErrorKind::Upstream | ErrorKind::Internal => "server_error",
        };
        Self {
            error: ErrorDetail {
                message: error.message.clone(),
                kind: kind.to_owned(),
                param: error.param.clone(),
                code: error.code.as_deref().map(str::to_owned),
            },
        }
    }
}
