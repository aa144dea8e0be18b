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
    /// A file that is not what its name says.
    #[error("{}: {message}", path.display())]
    Table {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// Rules that cannot be put to use.
    #[error(transparent)]
    Guard(#[from] guard::Error),
    /// A language that is not known.
    #[error("no language {0:?} is known: name it by its code of ISO 639-3, such as eng or cmn")]
    Language(String),
    /// Nothing is left, or one side of the split is empty.
    #[error("{0}")]
    Nothing(String),
    /// A set that is not there.
    #[error("there is no data set {0}")]
    Absent(String),
}
