//! Data sets by name, for whoever learns from them.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use data::{Reference, Set, Sets};

use crate::compose;

/// Under this name adapters and students say what set they learned from.
pub(crate) const KEY: &str = "data_set";

/// Where sets lie.
pub(crate) fn home() -> anyhow::Result<Sets> {
    Ok(Sets::new(compose::home("XDG_DATA_HOME", ".local/share")?.join("data")))
}

/// The set that is meant, if it is one: a file of that name comes first.
pub(crate) fn named(text: &Path) -> anyhow::Result<Option<Set>> {
    let reference = text.to_str().filter(|_| !text.exists()).and_then(|text| text.parse::<Reference>().ok());
    let Some(reference) = reference else { return Ok(None) };
    let set = home()?.open(&reference);
    set.map(Some).with_context(|| format!("{} is no file either", text.display()))
}

/// What is learned from, and what is measured by.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) data: PathBuf,
    /// `None` where some of `data` are to be held out.
    pub(crate) held_out: Option<PathBuf>,
    /// The set that this is, as `NAME@DIGEST` with the whole digest.
    pub(crate) set: Option<String>,
}

/// A file with, maybe, another one to measure by; or a set by name, which has both.
pub(crate) fn find(data: &Path, held_out: Option<&Path>) -> anyhow::Result<Found> {
    let Some(set) = named(data)? else {
        return Ok(Found { data: data.to_owned(), held_out: held_out.map(Path::to_owned), set: None });
    };
    ensure!(
        held_out.is_none() || set.manifest.held == 0,
        "{} has rows that are held out; --held-out names others",
        data.display()
    );
    let Reference { name, digest } = set.manifest.reference();
    let own = Some(set.held()).filter(|_| set.manifest.held > 0);
    Ok(Found {
        data: set.train(),
        held_out: own.or(held_out.map(Path::to_owned)),
        set: Some(format!("{name}@{digest}")),
    })
}
