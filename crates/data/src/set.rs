//! Sets as folders: `NAME/DIGEST/` with `train.jsonl`, `held.jsonl`, `dropped.jsonl` and `manifest.json`, and `NAME/latest`, which tells the newest.
//!
//! The digest is of what a set holds and what it was made of: its rows, the sums and licences of its sources, the options. Names of files, times
//! and places are not in it, so that the same input has the same digest on any machine. A set is written under another name first and
//! is never changed once it stands; what was learned from it carries its digest.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs, io,
    path::{Path, PathBuf},
    str::FromStr,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::{
    Error, Form, Options, Refined, Row, parse_value,
    row::{Dropped, sha256},
};

/// Digits of a digest that name a folder.
const DIGITS: usize = 12;
/// Of the layout of a set; part of the digest.
const FORMAT: u32 = 1;

/// A set by its name and, where one of its versions is meant, the beginning of that one's digest: `NAME` or `NAME@DIGEST`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Reference {
    /// Its name.
    pub name: String,
    /// The digest or its beginning; empty for the newest.
    pub digest: String,
}

impl FromStr for Reference {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, digest) = text.split_once('@').unwrap_or((text, ""));
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let named = !name.is_empty() && name.len() <= 100 && !name.starts_with('.') && name.chars().all(plain);
        let fits = digest.len() <= 64 && digest.chars().all(|c| c.is_ascii_hexdigit());
        if !named || !fits || (text.contains('@') && digest.is_empty()) {
            return Err(format!("{text} names no data set: NAME or NAME@DIGEST, such as credit or credit@3f9a"));
        }
        Ok(Self { name: name.to_owned(), digest: digest.to_lowercase() })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.digest.get(..DIGITS).unwrap_or(&self.digest) {
            "" => f.write_str(&self.name),
            digest => write!(f, "{}@{digest}", self.name),
        }
    }
}

/// Where rows of a set come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Its name on the machine where the set was made.
    pub name: String,
    /// `jsonl`, `csv`, `tsv`, `parquet`, `documents`, `ledger` or `set`.
    pub kind: String,
    /// Of its bytes; of a ledger, of the rows taken from it; of a set, its digest.
    pub sha256: String,
    /// Rows in it that are documents.
    pub rows: usize,
    /// As whoever made the set says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub licence: Option<String>,
    /// The set that it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<Reference>,
    /// The digest of the model that wrote the questions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
}

/// What a set says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Its name.
    pub name: String,
    /// What identifies it: SHA-256 in hexadecimal.
    pub digest: String,
    /// When it was made: RFC 3339, UTC.
    pub created: String,
    /// The program that made it, with its version.
    pub made_by: String,
    /// Rows that are learned.
    pub train: usize,
    /// Rows that are measured by.
    pub held: usize,
    /// Rows that are neither, by the pass that dropped them.
    pub dropped: BTreeMap<String, usize>,
    /// Rows by language (ISO 639-3).
    pub languages: BTreeMap<String, usize>,
    /// Masks by kind of personal data.
    pub masked: BTreeMap<String, usize>,
    /// Where it comes from.
    pub sources: Vec<Source>,
    /// What was done.
    pub options: Options,
    /// Sums of `train.jsonl` and `held.jsonl`.
    pub sha256: [String; 2],
}

impl Manifest {
    /// The set by name and digest.
    pub fn reference(&self) -> Reference {
        Reference { name: self.name.clone(), digest: self.digest.clone() }
    }

    fn digest(&self) -> String {
        let source = |source: &Source| json!([source.kind, source.sha256, source.licence, source.model]);
        let sources: BTreeSet<String> = self.sources.iter().map(|s| source(s).to_string()).collect();
        sha256(json!([FORMAT, self.sha256, sources, self.options]).to_string().as_bytes())
    }
}

/// Who makes a set, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// The program with its version.
    pub by: String,
    /// RFC 3339, UTC.
    pub at: String,
}

/// A set that stands.
#[derive(Debug, Clone)]
pub struct Set {
    /// Its folder.
    pub folder: PathBuf,
    /// What it says of itself.
    pub manifest: Manifest,
}

impl Set {
    /// What is learned.
    pub fn train(&self) -> PathBuf {
        self.folder.join("train.jsonl")
    }

    /// What is measured by.
    pub fn held(&self) -> PathBuf {
        self.folder.join("held.jsonl")
    }

    /// What is not part of it.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn dropped(&self) -> Result<Vec<Dropped>, Error> {
        lines(&self.folder.join("dropped.jsonl"))
    }
}

/// Where sets lie.
#[derive(Debug, Clone)]
pub struct Sets {
    root: PathBuf,
}

impl Sets {
    /// Those of this folder, which need not be there yet.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Where the versions of a set lie.
    pub fn folder(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// A set that stands.
    ///
    /// # Errors
    /// If there is none, or several whose digests begin so, or it cannot be read.
    pub fn open(&self, reference: &Reference) -> Result<Set, Error> {
        let folder = self.folder(&reference.name);
        let newest = || fs::read_to_string(folder.join("latest")).map(|digest| digest.trim().to_owned());
        let wanted = match reference.digest.as_str() {
            "" => newest().map_err(|_| Error::Absent(reference.to_string()))?,
            digest => digest.to_owned(),
        };
        let found = self.versions(&reference.name)?;
        let mut found = found.into_iter().filter(|set| set.manifest.digest.starts_with(&wanted));
        match (found.next(), found.next()) {
            (Some(set), None) => Ok(set),
            (Some(_), Some(_)) => Err(Error::Absent(format!("{reference} alone: several begin so"))),
            _ => Err(Error::Absent(reference.to_string())),
        }
    }

    /// All sets, by name and, of the same name, from the oldest to the newest.
    ///
    /// # Errors
    /// If one cannot be read.
    pub fn all(&self) -> Result<Vec<Set>, Error> {
        let sets = folders(&self.root)?.into_iter().map(|name| self.versions(&name));
        Ok(sets.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
    }

    /// The versions of a set, from the oldest to the newest.
    ///
    /// # Errors
    /// If one cannot be read.
    pub fn versions(&self, name: &str) -> Result<Vec<Set>, Error> {
        let folder = self.folder(name);
        let sets = folders(&folder)?.into_iter().map(|digits| {
            let folder = folder.join(digits);
            Ok(Set { manifest: object(&folder.join("manifest.json"))?, folder })
        });
        let mut sets: Vec<Set> = sets.collect::<Result<_, Error>>()?;
        sets.sort_by(|a, b| a.manifest.created.cmp(&b.manifest.created));
        Ok(sets)
    }

    /// Writes a set and makes it the newest of its name. One that stands already stays as it is.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(
        &self,
        name: &str,
        refined: &Refined,
        (sources, options): (Vec<Source>, &Options),
        made: Made,
    ) -> Result<Set, Error> {
        let sides = [&refined.train, &refined.held].map(|rows| text(rows.iter().map(Row::to_json)));
        let manifest = manifest(name, refined, sources, options, (made, sides.each_ref()));
        let folder = self.folder(name).join(&manifest.digest[..DIGITS]);
        let dropped = text(refined.dropped.iter().map(|dropped| json!(dropped)));
        let told = serde_json::to_string_pretty(&manifest).unwrap_or_default() + "\n";
        if !folder.exists() {
            let draft = self.folder(name).join(format!(".{}", &manifest.digest[..DIGITS]));
            let files = [("train.jsonl", &sides[0]), ("held.jsonl", &sides[1]), ("dropped.jsonl", &dropped)];
            fs::create_dir_all(&draft).map_err(at(&draft))?;
            for (file, text) in files.into_iter().chain([("manifest.json", &told)]) {
                write(&draft.join(file), text)?;
            }
            fs::rename(&draft, &folder).map_err(at(&folder))?;
        }
        let latest = self.folder(name).join("latest");
        let draft = self.folder(name).join(".latest");
        write(&draft, &format!("{}\n", &manifest.digest[..DIGITS]))?;
        fs::rename(&draft, &latest).map_err(at(&latest))?;
        Ok(Set { manifest: object(&folder.join("manifest.json"))?, folder })
    }
}

fn manifest(
    name: &str,
    refined: &Refined,
    sources: Vec<Source>,
    options: &Options,
    (made, sides): (Made, [&String; 2]),
) -> Manifest {
    let mut dropped: BTreeMap<String, usize> = BTreeMap::new();
    refined.dropped.iter().for_each(|row| *dropped.entry(row.pass.name().to_owned()).or_default() += 1);
    let mut manifest = Manifest {
        name: name.to_owned(),
        digest: String::new(),
        created: made.at,
        made_by: made.by,
        train: refined.train.len(),
        held: refined.held.len(),
        dropped,
        languages: refined.languages.clone(),
        masked: refined.masked.clone(),
        sources,
        options: options.clone(),
        sha256: sides.map(|text| sha256(text.as_bytes())),
    };
    manifest.digest = manifest.digest();
    manifest
}

fn text(lines: impl Iterator<Item = Value>) -> String {
    lines.map(|line| format!("{line}\n")).collect()
}

fn at(path: &Path) -> impl Fn(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { path: path.clone(), source }
}

/// Written to the disk, not only to the system: the rename behind it must not be older than the content.
fn write(path: &Path, text: &str) -> Result<(), Error> {
    let mut file = fs::File::create(path).map_err(at(path))?;
    io::Write::write_all(&mut file, text.as_bytes()).and_then(|()| file.sync_all()).map_err(at(path))
}

fn object<T: DeserializeOwned>(path: &Path) -> Result<T, Error> {
    let text = fs::read_to_string(path).map_err(at(path))?;
    let told = |error: serde_json::Error| Error::Table { path: path.to_owned(), message: error.to_string() };
    serde_json::from_str(&text).map_err(told)
}

fn lines<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>, Error> {
    let text = fs::read_to_string(path).map_err(at(path))?;
    let line = |(at, line)| {
        let told =
            |error: serde_json::Error| Error::Line { path: path.to_owned(), line: at + 1, message: error.to_string() };
        serde_json::from_str(line).map_err(told)
    };
    text.lines().enumerate().map(line).collect()
}

/// Folders inside a folder, but for drafts.
fn folders(path: &Path) -> Result<Vec<String>, Error> {
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(at(path))?,
    };
    let folder = |entry: io::Result<fs::DirEntry>| {
        let entry = entry.ok().filter(|entry| entry.path().is_dir())?;
        entry.file_name().into_string().ok().filter(|name| !name.starts_with('.'))
    };
    let mut names: Vec<String> = entries.filter_map(folder).collect();
    names.sort();
    Ok(names)
}

/// What one set has and another has not.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// Rows that only the second has, and whose question the first has not.
    pub added: usize,
    /// Rows that only the first has, and whose question the second has not.
    pub removed: usize,
    /// Questions that both have, with other answers.
    pub changed: usize,
    /// Rows that both have, on another side of the split.
    pub moved: usize,
    /// Some of each.
    pub examples: Vec<Change>,
}

/// A row that is not the same in both sets.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Change {
    /// `added`, `removed` or `changed`.
    pub what: String,
    /// The row of the first set.
    pub before: Option<Value>,
    /// The row of the second set.
    pub after: Option<Value>,
}

/// Rows by what is asked: what is said up to the last answer.
type Asked = BTreeMap<String, Vec<(Value, bool)>>;

impl Difference {
    /// Of two sets, with so many examples of each kind.
    ///
    /// # Errors
    /// If one cannot be read.
    pub fn of(before: &Set, after: &Set, examples: usize) -> Result<Self, Error> {
        let (before, after) = (asked(before)?, asked(after)?);
        let none = Vec::new();
        let mut found = Self { added: 0, removed: 0, changed: 0, moved: 0, examples: Vec::new() };
        for question in before.keys().chain(after.keys()).collect::<BTreeSet<_>>() {
            let (old, new) = (before.get(question).unwrap_or(&none), after.get(question).unwrap_or(&none));
            found.moved += old.iter().filter(|(row, held)| new.contains(&(row.clone(), !held))).count();
            let gone = only(old, new);
            let came = only(new, old);
            for place in 0..gone.len().max(came.len()) {
                found.count((gone.get(place).copied(), came.get(place).copied()), examples);
            }
        }
        Ok(found)
    }

    fn count(&mut self, (before, after): (Option<&Value>, Option<&Value>), examples: usize) {
        let (what, n) = match (before, after) {
            (Some(_), Some(_)) => ("changed", &mut self.changed),
            (None, _) => ("added", &mut self.added),
            (_, None) => ("removed", &mut self.removed),
        };
        *n += 1;
        if *n <= examples {
            self.examples.push(Change { what: what.to_owned(), before: before.cloned(), after: after.cloned() });
        }
    }
}

/// Rows that only the first have.
fn only<'a>(ours: &'a [(Value, bool)], theirs: &[(Value, bool)]) -> Vec<&'a Value> {
    ours.iter().map(|(row, _)| row).filter(|row| !theirs.iter().any(|(other, _)| other == *row)).collect()
}

fn asked(set: &Set) -> Result<Asked, Error> {
    let mut found = Asked::new();
    for (path, held) in [(set.train(), false), (set.held(), true)] {
        for row in lines::<Value>(&path)? {
            let form = parse_value(row).map_err(|message| Error::Table { path: path.clone(), message })?;
            found.entry(question(&form)).or_default().push((form.to_json(), held));
        }
    }
    Ok(found)
}

fn question(form: &Form) -> String {
    match form {
        Form::Chat { messages, tools } => {
            let last = messages.iter().rposition(|message| message["role"] == "assistant").unwrap_or(messages.len());
            json!([&messages[..last], tools]).to_string()
        }
        Form::Completion { prompt, .. } => prompt.clone(),
        Form::Text(text) => text.clone(),
    }
}

#[cfg(test)]
mod tests;
