//! What can go wrong, and what to do about it.

use std::{io, path::PathBuf};

/// Why the ledger did not do what was asked.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The store did not do its part: nothing was acknowledged.
    #[error("the ledger's store: {0}")]
    Store(String),
    /// A file could not be read or written.
    #[error("{path}: {message}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        message: String,
    },
    /// A setting makes no sense.
    #[error("{0}")]
    Settings(String),
    /// A request under this id was accepted before.
    #[error("request id {0:?} was used before: ids are unique for ever")]
    Duplicate(String),
    /// A budget does not allow it.
    #[error("the budget of {account} for {period} is used up: {left} left, {wanted} wanted")]
    OverBudget {
        /// Whose.
        account: String,
        /// When it begins anew: `total` never does.
        period: String,
        /// What is left, with its unit.
        left: String,
        /// What was asked for.
        wanted: String,
    },
    /// More waits to be written than the store can take.
    #[error("the ledger is behind with its writing: try again in a moment")]
    Overloaded,
    /// The ledger was closed, or gave up after its disk failed.
    #[error("the ledger takes nothing more: {0}")]
    Closed(String),
    /// The log is not what it was when it was signed.
    #[error("the log was altered: {0}; `tessera audit verify` names the first bad entry")]
    Altered(String),
    /// Something given to read or check has the wrong form.
    #[error("{0}")]
    Malformed(String),
    /// There is no such thing here.
    #[error("{0}")]
    NotFound(String),
}

/// What the crate's functions return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn file(path: impl Into<PathBuf>, error: &io::Error) -> Self {
        Self::File { path: path.into(), message: error.to_string() }
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.to_string())
    }
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(error.to_string())
    }
}

impl From<Error> for protocol::Error {
    fn from(error: Error) -> Self {
        use protocol::ErrorKind;
        let kind = match &error {
            Error::OverBudget { .. } => ErrorKind::OverBudget,
            Error::Overloaded => ErrorKind::Overloaded,
            Error::Duplicate(_) | Error::Malformed(_) => ErrorKind::Invalid,
            Error::NotFound(_) => ErrorKind::NotFound,
            Error::Closed(_) => ErrorKind::ShuttingDown,
            _ => ErrorKind::Internal,
        };
        let code = match &error {
            Error::OverBudget { .. } => Some("insufficient_quota"),
            Error::Duplicate(_) => Some("duplicate_request_id"),
            Error::Store(_) => Some("audit_unavailable"),
            _ => None,
        };
        let error = Self::new(kind, error);
        match code {
            Some(code) => error.with_code(code),
            None => error,
        }
    }
}
