//! Where a set comes from, up to its sources, and what was made from it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;
use data::{Manifest, Reference, Set, Source};
use model::Adapter;
use serde::Serialize;
use serde_json::Value;

use super::{origin, sets};
use crate::{adapters, compose, screen};

/// A set with its sources, those that are sets with theirs.
#[derive(Debug, Serialize)]
struct Ancestry {
    set: String,
    digest: String,
    sources: Vec<Ancestor>,
}

/// A source; of a set, what that was made of, if it still stands.
#[derive(Debug, Serialize)]
struct Ancestor {
    #[serde(flatten)]
    source: Source,
    #[serde(skip_serializing_if = "Option::is_none")]
    ancestry: Option<Ancestry>,
}

/// What was made from a set.
#[derive(Debug, Serialize)]
struct Lineage {
    #[serde(flatten)]
    ancestry: Ancestry,
    sets: Vec<String>,
    adapters: Vec<PathBuf>,
    /// All of whose weights learned.
    models: Vec<PathBuf>,
    students: Vec<PathBuf>,
}

/// Shows it.
pub(super) fn run(reference: &Reference, folder: Option<PathBuf>, json: bool) -> anyhow::Result<()> {
    let set = sets::home()?.open(reference)?;
    let digest = &set.manifest.digest;
    let all: Vec<Manifest> = sets::home()?.all()?.into_iter().map(|set| set.manifest).collect();
    let made =
        |other: &&Manifest| other.sources.iter().any(|source| source.parent.is_some() && source.sha256 == *digest);
    let home = compose::home("XDG_DATA_HOME", ".local/share")?;
    let lineage = Lineage {
        sets: all.iter().filter(made).map(|set| set.reference().to_string()).collect(),
        adapters: learned(&folder.map_or_else(adapters::usual_place, Ok)?, digest, adapter),
        models: learned(&home.join("trained"), digest, card),
        students: learned(&home.join("students"), digest, card),
        ancestry: ancestry(&set)?,
    };
    screen::show(json, &lineage, story(&lineage))
}

fn ancestry(set: &Set) -> anyhow::Result<Ancestry> {
    let ancestor = |source: &Source| {
        // A set may be removed; its digest stays known.
        let parent = source.parent.as_ref().and_then(|parent| sets::home().ok()?.open(parent).ok());
        anyhow::Ok(Ancestor { source: source.clone(), ancestry: parent.as_ref().map(ancestry).transpose()? })
    };
    let sources = set.manifest.sources.iter().map(ancestor).collect::<anyhow::Result<Vec<Ancestor>>>();
    Ok(Ancestry {
        set: set.manifest.reference().to_string(),
        digest: set.manifest.digest.clone(),
        sources: sources.with_context(|| format!("cannot follow {}", set.manifest.name))?,
    })
}

/// Things in a folder that say they were learned from this set.
fn learned(folder: &Path, digest: &str, set_of: fn(&Path) -> Option<String>) -> Vec<PathBuf> {
    let paths = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let ours = |path: &PathBuf| set_of(path).is_some_and(|set| set.ends_with(&format!("@{digest}")));
    let mut found: Vec<PathBuf> = paths.filter(ours).collect();
    found.sort();
    found
}

fn adapter(path: &Path) -> Option<String> {
    Adapter::open(path).ok()?.about().get(sets::KEY).cloned()
}

fn card(path: &Path) -> Option<String> {
    let card: Value = serde_json::from_str(&fs::read_to_string(path.join("card.json")).ok()?).ok()?;
    card[sets::KEY].as_str().map(str::to_owned)
}

fn story(lineage: &Lineage) -> String {
    let mut lines = tree(&lineage.ancestry, 0);
    let paths = |paths: &[PathBuf]| paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>();
    let made = [
        ("set", lineage.sets.clone()),
        ("adapter", paths(&lineage.adapters)),
        ("model", paths(&lineage.models)),
        ("student", paths(&lineage.students)),
    ];
    for (what, names) in made {
        lines.extend(names.iter().map(|name| format!("  → {what} {name}")));
    }
    lines.join("\n")
}

fn tree(ancestry: &Ancestry, depth: usize) -> Vec<String> {
    let indent = "  ".repeat(depth);
    let mut lines = vec![format!("{indent}{}", ancestry.set)];
    for Ancestor { source, ancestry } in &ancestry.sources {
        lines.push(format!("{indent}  ← {}", origin(source)));
        lines.extend(ancestry.iter().flat_map(|ancestry| tree(ancestry, depth + 2)));
    }
    lines
}
