//! Why a name did not become a file, and what the user does next.

use std::{io, path::Path, path::PathBuf};

/// Why a name did not become a file. Every message ends in the next step.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The name means nothing here.
    #[error("`{name}` is not a model name: {reason}")]
    Name {
        /// As the user wrote it.
        name: String,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// The name is well-formed and nothing stands behind it.
    #[error("{what} does not exist: {hint}")]
    NotFound {
        /// What was looked for.
        what: String,
        /// Where to look instead.
        hint: String,
    },
    /// The model hub wants to know who asks.
    #[error("{repo}: access refused (HTTP {status}): {hint}")]
    Access {
        /// `owner/name`.
        repo: String,
        /// 401 or 403.
        status: u16,
        /// How to get access.
        hint: String,
    },
    /// The network failed for good.
    #[error("{url}: {reason}; {kept} bytes are kept, run the same command again to continue")]
    Network {
        /// Without its query, which may hold a signature.
        url: String,
        /// The last failure.
        reason: String,
        /// Bytes of this file that are safe on disk.
        kept: u64,
    },
    /// The bytes are not the ones that were promised; they are deleted.
    #[error(
        "{file}: sha256 is {found}, expected {expected}; the file is deleted. Run the same command again; if it happens \
         twice, do not use this source"
    )]
    Checksum {
        /// Which file.
        file: String,
        /// The sum that was promised.
        expected: String,
        /// The sum of what came.
        found: String,
    },
    /// The source now gives other bytes than it did when this name was first used; they are deleted.
    #[error(
        "{name}: the source now has sha256 {found}, but {pinned} was pinned on first use; the new file is deleted. If the \
         change is expected, run `tessera models rm --forget {model}` and pull again, or name the old revision"
    )]
    Changed {
        /// The name and file.
        name: String,
        /// The model to forget.
        model: String,
        /// The sum seen first.
        pinned: String,
        /// The sum seen now.
        found: String,
    },
    /// The disk is full; what arrived is kept.
    #[error(
        "{path}: the disk is full; what arrived is kept. Free {needed} or set XDG_CACHE_HOME to a larger disk, then run the \
         same command again to continue"
    )]
    DiskFull {
        /// The file that could not grow.
        path: PathBuf,
        /// How much is missing, in words.
        needed: String,
    },
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// pip could not be run, or refused.
    #[error("pip: {reason}; {hint}")]
    Pip {
        /// What pip said.
        reason: String,
        /// What to do.
        hint: String,
    },
    /// An archive is broken or lacks a member.
    #[error("{file}: {reason}")]
    Archive {
        /// Which archive.
        file: String,
        /// What is wrong, with what there is instead.
        reason: String,
    },
}

impl Error {
    /// An i/o error on `path`; a full disk becomes [`Error::DiskFull`].
    pub(crate) fn io(path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::disk_full(path, None),
            _ => Self::Io { path: path.to_path_buf(), source },
        }
    }

    /// A full disk, with the number of bytes still to come where it is known.
    pub(crate) fn disk_full(path: &Path, missing: Option<u64>) -> Self {
        let needed = missing.map_or_else(|| "space".to_owned(), |n| format!("{} MB", n.div_ceil(1_000_000)));
        Self::DiskFull { path: path.to_path_buf(), needed }
    }
}
