//! The decisions on offer: those inside this binary, and those of a directory, where a change applies at once.
//!
//! A decision is a graph, `NAME.json`, with files beside it: `NAME.facts.json` (the schema of its facts), `NAME.cases.json` (its
//! tests) and `NAME.md` (its page). A graph alone works too, with facts that the caller gives. The directory is looked at
//! whenever somebody asks, by names, sizes and times; only what differs is read. What is broken does not count: the last good
//! version goes on deciding and the card says what is wrong.

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use protocol::DecisionCard;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{
    cases::Case,
    facts::schema::Facts,
    graph::{Graph, Graphs, Link},
};

/// The decisions inside this binary.
const SHIPPED: [Shipped; 3] = [
    Shipped {
        name: "credit-approval",
        graph: include_str!("../decisions/credit-approval.json"),
        facts: include_str!("../decisions/credit-approval.facts.json"),
        cases: include_str!("../decisions/credit-approval.cases.json"),
    },
    Shipped {
        name: "insurance-triage",
        graph: include_str!("../decisions/insurance-triage.json"),
        facts: include_str!("../decisions/insurance-triage.facts.json"),
        cases: include_str!("../decisions/insurance-triage.cases.json"),
    },
    Shipped {
        name: "refund-policy",
        graph: include_str!("../decisions/refund-policy.json"),
        facts: include_str!("../decisions/refund-policy.facts.json"),
        cases: include_str!("../decisions/refund-policy.cases.json"),
    },
];

struct Shipped {
    name: &'static str,
    graph: &'static str,
    facts: &'static str,
    cases: &'static str,
}

/// The files of one decision.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Source {
    graph: String,
    facts: Option<String>,
    cases: Option<String>,
}

/// A decision that can be made.
#[derive(Debug)]
pub(crate) struct Decision {
    pub(crate) graph: Arc<Graph>,
    pub(crate) facts: Option<Facts>,
    pub(crate) cases: Vec<Case>,
    source: Source,
}

/// A name on offer.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// The last version that was good.
    pub(crate) decision: Option<Arc<Decision>>,
    /// The content hash of that version, with those of the decisions inside it.
    pub(crate) version: String,
    /// What is wrong with the files as they are now.
    pub(crate) problem: Option<String>,
}

/// All decisions as they were at one moment.
#[derive(Debug, Default)]
pub(crate) struct Set {
    pub(crate) entries: BTreeMap<String, Entry>,
    /// Every graph, for sub-decisions.
    pub(crate) graphs: Graphs,
}

/// A file as a look at the directory shows it.
type Stamp = (PathBuf, u64, Option<SystemTime>);

/// The decisions on offer.
#[derive(Debug)]
pub struct Library {
    directory: Option<PathBuf>,
    set: ArcSwap<Set>,
    seen: Mutex<Vec<Stamp>>,
}

impl Library {
    /// The decisions inside this binary alone.
    pub fn shipped() -> Self {
        Self::new(None)
    }

    /// The decisions inside this binary and those of a directory, which win where names are the same. A directory that is not
    /// there yet is looked for again and again.
    pub fn with_directory(directory: impl Into<PathBuf>) -> Self {
        Self::new(Some(directory.into()))
    }

    fn new(directory: Option<PathBuf>) -> Self {
        let set = ArcSwap::from_pointee(Set::build(shipped(), &Set::default()));
        Self { directory, set, seen: Mutex::default() }
    }

    /// The decisions as they are now.
    pub(crate) fn current(&self) -> Arc<Set> {
        if let Some(directory) = &self.directory {
            let mut seen = self.seen.lock();
            let stamps = stamps(directory);
            if stamps != *seen {
                self.reload(directory);
                *seen = stamps;
            }
        }
        self.set.load_full()
    }

    fn reload(&self, directory: &Path) {
        let mut sources = shipped();
        sources.extend(read(directory));
        let set = Set::build(sources, &self.set.load());
        for (name, problem) in set.entries.iter().filter_map(|(name, entry)| Some((name, entry.problem.as_ref()?))) {
            tracing::warn!(decision = %name, %problem, "a decision is broken; its last good version, if any, goes on");
        }
        self.set.store(Arc::new(set));
    }
}

fn shipped() -> BTreeMap<String, Result<Source, String>> {
    let source = |shipped: &Shipped| Source {
        graph: shipped.graph.to_owned(),
        facts: Some(shipped.facts.to_owned()),
        cases: Some(shipped.cases.to_owned()),
    };
    SHIPPED.iter().map(|shipped| (shipped.name.to_owned(), Ok(source(shipped)))).collect()
}

/// What a look at the directory shows; nothing of one that cannot be read.
fn stamps(directory: &Path) -> Vec<Stamp> {
    let files = fs::read_dir(directory).into_iter().flatten().flatten().filter(|file| is_json(&file.path()));
    let mut stamps: Vec<Stamp> = files
        .filter_map(|file| {
            let data = file.metadata().ok()?;
            Some((file.path(), data.len(), data.modified().ok()))
        })
        .collect();
    stamps.sort();
    stamps
}

fn is_json(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending == "json")
}

/// The decisions of a directory: every `NAME.json` that is not the facts or the cases of another.
fn read(directory: &Path) -> BTreeMap<String, Result<Source, String>> {
    let files = fs::read_dir(directory).into_iter().flatten().flatten().map(|file| file.path());
    let name = |path: PathBuf| {
        let name = path.file_name()?.to_str()?.strip_suffix(".json")?.to_owned();
        (!name.is_empty() && !name.ends_with(".facts") && !name.ends_with(".cases")).then_some(name)
    };
    files.filter_map(name).map(|name| (name.clone(), source(directory, &name))).collect()
}

fn source(directory: &Path, name: &str) -> Result<Source, String> {
    let text = |ending: &str| {
        let path = directory.join(format!("{name}{ending}"));
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(format!("{}: {error}", path.display())),
        }
    };
    let graph = text(".json")?.ok_or_else(|| format!("{name}.json is gone"))?;
    Ok(Source { graph, facts: text(".facts.json")?, cases: text(".cases.json")? })
}

impl Set {
    /// Reads all sources; where one is broken, the version that `last` had stays.
    fn build(sources: BTreeMap<String, Result<Source, String>>, last: &Self) -> Self {
        let mut set = Self::default();
        for (name, source) in sources {
            let old = last.entries.get(&name).and_then(|entry| entry.decision.clone());
            let read = source.and_then(|source| match &old {
                Some(old) if old.source == source => Ok(old.clone()),
                _ => Decision::parse(source).map(Arc::new),
            });
            let (decision, problem) = match read {
                Ok(decision) => (Some(decision), None),
                Err(problem) => (old, Some(problem)),
            };
            set.entries.insert(name, Entry { decision, version: String::new(), problem });
        }
        set.link(last);
        set.name_versions();
        set
    }

    /// Checks what decisions say of each other. One that names what is not there falls back to its last version, or out; that
    /// may break others, so it is done until nothing changes.
    fn link(&mut self, last: &Self) {
        loop {
            let decided = self.entries.iter().filter_map(|(name, entry)| Some((name, entry.decision.as_ref()?)));
            self.graphs = decided.map(|(name, decision)| (name.clone(), decision.graph.clone())).collect();
            let link = Link(&self.graphs);
            let broken =
                self.graphs.iter().find_map(|(name, graph)| Some((name.clone(), link.check(name, graph).err()?)));
            let Some((name, broken)) = broken else { return };
            if let Some(entry) = self.entries.get_mut(&name) {
                let old = last.entries.get(&name).and_then(|entry| entry.decision.clone());
                let is_new = |old: &Arc<Decision>| entry.decision.as_ref().is_some_and(|now| !Arc::ptr_eq(old, now));
                entry.decision = old.filter(is_new);
                entry.problem.get_or_insert(broken.to_string());
            }
        }
    }

    fn name_versions(&mut self) {
        let hash = |decision: &Decision| {
            let mut sum = Sha256::new();
            sum.update(decision.source.graph.as_bytes());
            sum.update([0]);
            sum.update(decision.source.facts.as_deref().unwrap_or_default().as_bytes());
            for key in Link(&self.graphs).below(&decision.graph) {
                let inner = self.entries.get(&key).and_then(|entry| entry.decision.as_ref());
                sum.update([0]);
                sum.update(inner.map_or("", |inner| &inner.source.graph).as_bytes());
            }
            sum.finalize().iter().map(|byte| format!("{byte:02x}")).collect::<String>()
        };
        let versions: Vec<String> =
            self.entries.values().map(|entry| entry.decision.as_deref().map(hash).unwrap_or_default()).collect();
        for (entry, version) in self.entries.values_mut().zip(versions) {
            entry.version = version;
        }
    }

    /// What callers may know.
    pub(crate) fn cards(&self) -> Vec<DecisionCard> {
        self.entries.iter().map(|(id, entry)| card(id, entry)).collect()
    }
}

fn card(id: &str, entry: &Entry) -> DecisionCard {
    let facts = entry.decision.as_ref().and_then(|decision| decision.facts.as_ref());
    DecisionCard {
        id: id.to_owned(),
        title: facts
            .map(|facts| facts.title.clone())
            .filter(|title| !title.is_empty())
            .unwrap_or_else(|| id.to_owned()),
        version: entry.version.clone(),
        schema: facts.map_or_else(|| json!({"type": "object"}), |facts| facts.json.clone()),
        graph: entry.decision.as_ref().map_or(Value::Null, |decision| decision.graph.drawing()),
        problem: entry.problem.clone(),
    }
}

impl Decision {
    fn parse(source: Source) -> Result<Self, String> {
        let graph = Graph::parse(&source.graph).map_err(|error| error.to_string())?;
        let facts = source.facts.as_deref().map(Facts::parse).transpose().map_err(|error| format!("facts: {error}"))?;
        let cases = source.cases.as_deref().map_or_else(|| Ok(Vec::new()), Case::parse_all);
        let cases = cases.map_err(|error| format!("cases: {error}"))?;
        Ok(Self { graph: Arc::new(graph), facts, cases, source })
    }
}
