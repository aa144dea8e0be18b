//! Questions with the answers that are wanted, from a file or from the held-out part of a data set.

use std::{
    collections::hash_map::DefaultHasher,
    hash::{Hash, Hasher},
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};
use protocol::GenerateRequest;

use crate::{answers, data::sets};

/// What is asked, and what should be answered.
pub(super) type Question = (GenerateRequest, String);

/// The file that is meant: itself, or what a data set holds out.
pub(super) fn file(data: &Path) -> anyhow::Result<PathBuf> {
    let Some(set) = sets::named(data)? else { return Ok(data.to_owned()) };
    ensure!(set.manifest.held > 0, "{} holds nothing out: build it with --held-out, or name a file", data.display());
    Ok(set.held())
}

/// Its questions, each once, in an order that says nothing about them and is always the same.
pub(super) fn read(file: &Path, max_tokens: usize) -> anyhow::Result<Vec<Question>> {
    let mut found = Vec::new();
    for document in data::read(file)? {
        let place = || format!("{}, line {}: it asks nothing, or with tools", file.display(), document.line);
        let (prompt, wanted) = answers::question(&document.form).with_context(place)?;
        let mut hasher = DefaultHasher::new();
        format!("{prompt:?}").hash(&mut hasher);
        let mut request = GenerateRequest::new(prompt, max_tokens);
        request.sampling.temperature = 0.0;
        found.push((hasher.finish(), (request, wanted)));
    }
    found.sort_by_key(|(key, _)| *key);
    found.dedup_by_key(|(key, _)| *key);
    Ok(found.into_iter().map(|(_, question)| question).collect())
}
