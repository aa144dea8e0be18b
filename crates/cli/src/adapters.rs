//! Adapters lie in a folder, one file each: `credit.safetensors` beside the model `smollm2` is what requests call `smollm2:credit`. To which model a
//! file belongs stands in it, by the digest of what it was learned over. While a server runs, the folder is looked at again and again: what
//! is new is added, what changed is a new generation, what is gone goes, and a file that cannot be used leaves the last good one in its place.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::Context;
use engine::Engine;

use crate::{compose, model};

/// How often the folder is looked at.
const EVERY: Duration = Duration::from_secs(2);

/// Where adapters lie unless another folder is named.
pub(crate) fn usual_place() -> anyhow::Result<PathBuf> {
    Ok(compose::home("XDG_DATA_HOME", ".local/share").context("name a folder with --adapters")?.join("adapters"))
}

/// A folder, and the engines that its adapters may belong to.
#[derive(Debug)]
pub(crate) struct Folder {
    place: PathBuf,
    engines: Vec<Arc<Engine>>,
    known: BTreeMap<PathBuf, Stamp>,
}

/// What tells one state of a file from another without reading it.
type Stamp = (SystemTime, u64);

impl Folder {
    /// Nothing is read yet.
    pub(crate) fn new(place: PathBuf, engines: Vec<Arc<Engine>>) -> Self {
        Self { place, engines, known: BTreeMap::new() }
    }

    /// Brings the engines up to date with the folder. Whatever cannot be used is told and left out.
    pub(crate) fn look(&mut self) {
        let found = files(&self.place).unwrap_or_default();
        for path in self.known.extract_if(.., |path, _| !found.contains_key(path)).map(|(path, _)| path) {
            self.engines.iter().for_each(|engine| engine.remove_adapter(&name(&path)));
            tracing::info!(path = %path.display(), "an adapter is gone");
        }
        for (path, stamp) in found {
            if self.known.insert(path.clone(), stamp) != Some(stamp)
                && let Err(error) = self.add(&path)
            {
                tracing::warn!(path = %path.display(), "not used as an adapter: {error:#}");
            }
        }
    }

    fn add(&self, path: &Path) -> anyhow::Result<()> {
        let digest = model::digest(path.to_owned())?;
        for engine in &self.engines {
            match engine.add_adapter(&name(path), path, digest.clone()) {
                Err(engine::Error::OtherBase { .. } | engine::Error::NoAdapters { .. }) => {}
                other => return Ok(other?),
            }
        }
        anyhow::bail!("it was learned over none of the models here")
    }

    /// Looks again and again. Never ends.
    pub(crate) async fn watch(mut self) {
        loop {
            tokio::time::sleep(EVERY).await;
            let looked = tokio::task::spawn_blocking(move || {
                self.look();
                self
            });
            match looked.await {
                Ok(folder) => self = folder,
                Err(error) => {
                    tracing::error!(%error, "adapters are not followed any more");
                    return std::future::pending().await;
                }
            }
        }
    }
}

fn name(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// The adapters of a folder. Other files are none of ours.
fn files(place: &Path) -> io::Result<BTreeMap<PathBuf, Stamp>> {
    let ours = |path: &Path| path.extension().is_some_and(|e| e == "safetensors") && is_name(&name(path));
    let stamp = |entry: &fs::DirEntry| {
        let meta = fs::metadata(entry.path()).ok().filter(fs::Metadata::is_file)?;
        Some((meta.modified().ok()?, meta.len()))
    };
    let entries = fs::read_dir(place)?.flatten().filter(|entry| ours(&entry.path()));
    Ok(entries.filter_map(|entry| Some((entry.path(), stamp(&entry)?))).collect())
}

/// Names stand behind a colon in requests and settings.
pub(crate) fn is_name(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    !text.is_empty() && text.len() <= 100 && !text.starts_with('.') && text.chars().all(plain)
}
