//! Laps of a learning loop on disk: which steps are done, and what each of them said. `tessera loop` writes them, the console shows them.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use ledger::Clock;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The file in a lap's folder.
const FILE: &str = "lap.json";

/// A step of a lap, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Traffic becomes a data set.
    Data,
    /// The data set becomes an adapter.
    Learn,
    /// What was learned becomes a model of its own, where the loop asks for one.
    Distil,
    /// How good it is, and how sure it must be.
    Evaluate,
    /// The settings offer it as the rollout's canary.
    Offer,
    /// The canary goes its way.
    Canary,
}

impl Step {
    /// All of them, in order.
    pub const ALL: [Self; 6] = [Self::Data, Self::Learn, Self::Distil, Self::Evaluate, Self::Offer, Self::Canary];

    /// What it does, for whoever watches.
    pub fn about(self) -> &'static str {
        match self {
            Self::Data => "data: what was asked and answered becomes a data set",
            Self::Learn => "learn: an adapter learns from it",
            Self::Distil => "distil: a smaller model is cut out of base and adapter, where the loop asks for one",
            Self::Evaluate => "evaluate: student and teacher answer what was held out",
            Self::Offer => "offer: the cascade becomes the rollout's canary",
            Self::Canary => "canary: callers get it step by step (Ctrl-C stops waiting; the server goes on)",
        }
    }
}

/// How a lap ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub enum Outcome {
    /// All callers have it.
    Promoted,
    /// The server took it back.
    RolledBack {
        /// What was worse.
        why: String,
    },
    /// It did not pass a gate, or a person gave it up.
    Stopped {
        /// Which.
        why: String,
    },
}

/// One time around.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Lap {
    /// Counted from 1.
    pub number: u32,
    /// Microseconds since 1970.
    pub began: i64,
    /// What each step said that is done.
    pub steps: BTreeMap<Step, Value>,
    /// How it ended; `None` while it runs.
    #[serde(default)]
    pub end: Option<Outcome>,
    /// What it was worth, in figures.
    #[serde(default)]
    pub report: Option<Value>,
}

impl Lap {
    /// The last one if it did not end, else a new one.
    ///
    /// # Errors
    /// As [`all`].
    pub fn open(folder: &Path) -> io::Result<Self> {
        let last = all(folder)?.pop();
        let number = last.as_ref().map_or(1, |lap| lap.number + 1);
        let new = || Self { number, began: micros(), steps: BTreeMap::new(), end: None, report: None };
        Ok(last.filter(|lap| lap.end.is_none()).unwrap_or_else(new))
    }

    /// The first step that is not done.
    pub fn next(&self) -> Option<Step> {
        Step::ALL.into_iter().find(|step| !self.steps.contains_key(step))
    }

    /// What a step said.
    pub fn said(&self, step: Step) -> &Value {
        self.steps.get(&step).unwrap_or(&Value::Null)
    }

    /// Keeps what a step said.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn keep(&mut self, folder: &Path, step: Step, said: Value) -> io::Result<()> {
        self.steps.insert(step, said);
        self.save(folder)
    }

    /// It is over.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn end(&mut self, folder: &Path, outcome: Outcome) -> io::Result<()> {
        self.end = Some(outcome);
        self.save(folder)
    }

    /// Where its files are.
    pub fn folder(&self, folder: &Path) -> PathBuf {
        folder.join(format!("{:04}", self.number))
    }

    /// Whole or not at all.
    fn save(&self, folder: &Path) -> io::Result<()> {
        let folder = self.folder(folder);
        let path = folder.join(FILE);
        let write = || {
            fs::create_dir_all(&folder)?;
            let beside = folder.join(format!("{FILE}.new"));
            fs::write(&beside, serde_json::to_vec_pretty(self)?)?;
            fs::rename(&beside, &path)
        };
        write().map_err(|error| told(&error, &format!("cannot write {}", path.display())))
    }
}

/// All laps of a loop, the oldest first; none where there is no such folder.
///
/// # Errors
/// Files that cannot be read, with what to do about it.
pub fn all(folder: &Path) -> io::Result<Vec<Lap>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(told(&error, &format!("cannot read {}", folder.display()))),
    };
    let mut laps = Vec::new();
    for entry in entries {
        let path = entry?.path().join(FILE);
        if path.exists() {
            let read = fs::read(&path).and_then(|text| Ok(serde_json::from_slice(&text)?));
            let what = || format!("{} cannot be read: remove its folder", path.display());
            laps.push(read.map_err(|error| told(&error, &what()))?);
        }
    }
    laps.sort_by_key(|lap: &Lap| lap.number);
    Ok(laps)
}

fn told(error: &io::Error, what: &str) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}

/// Microseconds since 1970.
pub fn micros() -> i64 {
    Clock::system().now()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_lap_goes_on_until_it_ends() {
        let folder = std::env::temp_dir().join(format!("tessera-laps-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        let mut first = Lap::open(&folder).unwrap();
        assert_eq!(first.number, 1);
        first.keep(&folder, Step::Data, json!({ "train": 9 })).unwrap();
        let mut again = Lap::open(&folder).unwrap();
        assert_eq!((again.number, &again.said(Step::Data)["train"]), (1, &json!(9)));
        assert_eq!(again.said(Step::Learn), &Value::Null);
        again.end(&folder, Outcome::Stopped { why: "enough".to_owned() }).unwrap();
        assert_eq!(Lap::open(&folder).unwrap().number, 2, "what has ended is over");
        assert_eq!(all(&folder).unwrap()[0].end, again.end);
        fs::write(again.folder(&folder).join(FILE), "{").unwrap();
        assert!(all(&folder).unwrap_err().to_string().contains("remove its folder"));
        fs::remove_dir_all(&folder).unwrap();
    }
}
