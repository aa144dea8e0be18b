//! What can go wrong while measuring.

use std::path::PathBuf;

/// Why a measurement was not made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The service refused or failed.
    #[error("the service answered: {0}")]
    Service(#[from] protocol::Error),
    /// The service answered, but not what the protocol promises.
    #[error("the service sent {found} where {wanted} was promised")]
    Unexpected {
        /// What the protocol promises.
        wanted: String,
        /// What came.
        found: String,
    },
    /// There is too little text, or a setting makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A data set's line is not what its format says.
    #[error("{path}:{line}: {message}")]
    Data {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// What is wrong with it.
        message: String,
    },
    /// A process that was to be measured did not start, or ended early.
    #[error("{name}: {message}")]
    Entrant {
        /// Which one.
        name: String,
        /// What happened.
        message: String,
    },
}

impl Error {
    /// The service broke its promise.
    pub(crate) fn unexpected(wanted: impl Into<String>, found: impl Into<String>) -> Self {
        Self::Unexpected { wanted: wanted.into(), found: found.into() }
    }
}
