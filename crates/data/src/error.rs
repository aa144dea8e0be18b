//! What can be wrong with data, always with its place.

use std::{io, path::PathBuf};

/// Why data cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What it says.
        source: io::Error,
    },
    /// A line that is no document.
    #[error("{}, line {line}: {message}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong, and what would be right.
        message: String,
    },
    /// A file without a document.
    #[error("{} holds no document: one JSON object a line is expected", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
}
