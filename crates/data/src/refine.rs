//! From candidates to a set: every row passes what looks at one row, then what compares rows, and the rest is split.
//!
//! The order of the files does not matter: rows are sorted by what they say before they are compared, so the same row stays of two that are
//! alike, wherever they came from.

use std::collections::{BTreeMap, HashMap};

use guard::{Action, Direction, Guard, Policy, Report};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    Error, near, quality,
    read::Candidate,
    row::{Dropped, Pass, Row},
    split,
};

/// Letters below which the language of a text cannot be told.
const LETTERS: usize = 40;
/// The code of what cannot be told (ISO 639-3).
const UNDETERMINED: &str = "und";

/// What is done to candidates.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Options {
    /// Share of groups that is held out, 0 to 1.
    pub held_out: f64,
    /// Which groups these are.
    pub seed: u64,
    /// Two rows repeat each other from this similarity on (Jaccard over runs of six characters); `None` does not compare.
    pub near: Option<f64>,
    /// Languages wanted, by their codes of ISO 639-3; none means all.
    pub languages: Vec<String>,
    /// The longest row in characters.
    pub longest: usize,
    /// What becomes of personal data.
    pub personal: Personal,
    /// Whether rows are dropped that do not read like text.
    pub quality: bool,
    /// Whether rows are dropped that insult somebody.
    pub toxicity: bool,
}

/// What becomes of personal data and secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Personal {
    /// Its kind in brackets stands in its place.
    Mask,
    /// Rows that hold some are dropped.
    Drop,
    /// It is not looked for.
    Keep,
}

/// What came of the candidates.
#[derive(Debug, Default, PartialEq)]
pub struct Refined {
    /// What is learned, sorted by what it says.
    pub train: Vec<Row>,
    /// What is measured by, sorted alike.
    pub held: Vec<Row>,
    /// What is not part of it, by its place.
    pub dropped: Vec<Dropped>,
    /// Rows by language; `und` where it cannot be told.
    pub languages: BTreeMap<String, usize>,
    /// Masks by kind.
    pub masked: BTreeMap<String, usize>,
}

/// Where the work is: what is done, how much of it, and of how much.
pub type Progress<'a> = &'a dyn Fn(&str, usize, usize);

/// Passes, then the split.
///
/// # Errors
/// A language that is not known, and a split of which one side is empty although something is to be held out.
pub fn refine(candidates: Vec<Candidate>, options: &Options, progress: Progress<'_>) -> Result<Refined, Error> {
    let passes = Passes::new(options)?;
    let (mut refined, mut rows, n) = (Refined::default(), Vec::new(), candidates.len());
    for (at, candidate) in candidates.into_iter().enumerate() {
        match candidate.and_then(|row| passes.look(row, &mut refined)) {
            Ok(row) => rows.push(row),
            Err(dropped) => refined.dropped.push(dropped),
        }
        progress("reading rows", at + 1, n);
    }
    let rows = distinct(rows, &mut refined.dropped);
    let rows = clusters(rows, options.near, &mut refined.dropped, progress);
    for (row, _) in &rows {
        *refined.languages.entry(language(&whole(row)).to_owned()).or_default() += 1;
    }
    refined.dropped.sort();
    if rows.is_empty() {
        let first = refined.dropped.first().map(|Dropped { place, reason, .. }| {
            format!(": {} were dropped, the first at {}, {}: {reason}", refined.dropped.len(), place.source, place.at)
        });
        return Err(Error::Nothing(format!("no row is left{}", first.unwrap_or_default())));
    }
    (refined.train, refined.held) = halves(rows, options)?;
    Ok(refined)
}

/// What looks at one row.
struct Passes<'a> {
    options: &'a Options,
    guard: Guard,
}

impl<'a> Passes<'a> {
    fn new(options: &'a Options) -> Result<Self, Error> {
        let unknown = options.languages.iter().find(|code| whatlang::Lang::from_code(code.as_str()).is_none());
        unknown.map_or(Ok(()), |code| Err(Error::Language(code.clone())))?;
        let mut policy = Policy::default();
        policy.personal.output = if options.personal == Personal::Keep { Action::Allow } else { Action::Mask };
        policy.toxicity.output = if options.toxicity { Action::Monitor } else { Action::Allow };
        Ok(Self { options, guard: Guard::new(&policy)? })
    }

    fn look(&self, row: Row, refined: &mut Refined) -> Candidate {
        let length: usize = row.form.parts().iter().map(|(text, _)| text.chars().count()).sum();
        if length > self.options.longest {
            let longest = self.options.longest;
            return Err(row.dropped(Pass::Length, format!("it has {length} characters; {longest} may be")));
        }
        if learned(&row).trim().is_empty() {
            return Err(row.dropped(Pass::Length, "what is to be learned of it is empty"));
        }
        let language = language(&whole(&row));
        let wanted = &self.options.languages;
        if !wanted.is_empty() && language != UNDETERMINED && !wanted.iter().any(|code| code == language) {
            return Err(row.dropped(Pass::Language, format!("its language is {language}")));
        }
        let broken = self.options.quality.then(|| quality::broken(&learned(&row), language == "eng")).flatten();
        if let Some(rule) = broken {
            return Err(row.dropped(Pass::Quality, rule));
        }
        let reports: Vec<Report> = row.form.parts().iter().map(|(text, _)| self.check(text)).collect();
        self.judge(row, reports, refined)
    }

    /// What the guard says decides, and its masks are put in place.
    fn judge(&self, mut row: Row, reports: Vec<Report>, refined: &mut Refined) -> Candidate {
        let verdicts = || reports.iter().flat_map(|report| &report.verdicts);
        if let Some(worst) = verdicts().filter(|v| v.rule == "toxicity").map(|v| v.score).reduce(f32::max) {
            return Err(row.dropped(Pass::Toxicity, format!("the guard scores it {worst:.2}")));
        }
        let kinds: Vec<&str> = verdicts().filter_map(|verdict| verdict.rule.strip_prefix("personal.")).collect();
        if self.options.personal == Personal::Drop && !kinds.is_empty() {
            return Err(row.dropped(Pass::Personal, format!("it holds {}", kinds.join(", "))));
        }
        kinds.iter().for_each(|kind| *refined.masked.entry((*kind).to_owned()).or_default() += 1);
        let mut masked = reports.into_iter().map(|report| report.text);
        row.form.rewrite(|_| masked.next().flatten());
        Ok(row)
    }

    /// JSON is judged as what it means, and stays JSON.
    fn check(&self, text: &str) -> Report {
        let json = text.trim_start().starts_with(['{', '[']) && serde_json::from_str::<Value>(text).is_ok();
        if json { self.guard.check_json(text, Direction::Out) } else { self.guard.check(text, Direction::Out) }
    }
}

/// Everything that a row says.
fn whole(row: &Row) -> String {
    row.form.parts().iter().map(|(text, _)| *text).collect::<Vec<_>>().join("\n")
}

/// What is learned of it.
fn learned(row: &Row) -> String {
    let parts = row.form.parts();
    parts.iter().filter(|(_, learned)| *learned).map(|(text, _)| *text).collect::<Vec<_>>().join("\n")
}

/// The code of a text's language.
fn language(text: &str) -> &'static str {
    if text.chars().filter(|c| c.is_alphabetic()).take(LETTERS).count() < LETTERS {
        return UNDETERMINED;
    }
    whatlang::detect(text).filter(whatlang::Info::is_reliable).map_or(UNDETERMINED, |info| info.lang().code())
}

/// One of all that say the same, sorted by what they say.
fn distinct(rows: Vec<Row>, dropped: &mut Vec<Dropped>) -> Vec<(Row, String)> {
    let summed = |row: Row| {
        let digest = row.digest();
        (row, digest)
    };
    let mut rows: Vec<(Row, String)> = rows.into_iter().map(summed).collect();
    let key = |(row, digest): &(Row, String)| (digest.clone(), row.group.clone(), row.place.clone());
    rows.sort_by_cached_key(key);
    let mut kept: Vec<(Row, String)> = Vec::with_capacity(rows.len());
    for (row, digest) in rows {
        match kept.last().filter(|(_, last)| *last == digest) {
            Some((first, _)) => {
                let reason = format!("the same as {}, {}", first.place.source, first.place.at);
                dropped.push(row.dropped(Pass::Duplicate, reason));
            }
            None => kept.push((row, digest)),
        }
    }
    kept
}

/// Rows that nearly repeat no other, each with what it is split by.
fn clusters(
    rows: Vec<(Row, String)>,
    near: Option<f64>,
    dropped: &mut Vec<Dropped>,
    progress: Progress<'_>,
) -> Vec<(Row, String)> {
    let texts: Vec<String> = rows.iter().map(|(row, _)| whole(row)).collect();
    // No two texts are more alike than 1.
    let found = near::neighbours(&texts, near.unwrap_or(2.0), |done| progress("comparing rows", done, texts.len()));
    let places: Vec<_> = rows.iter().map(|(row, _)| row.place.clone()).collect();
    let keys: Vec<String> = rows.iter().map(|(_, digest)| digest.clone()).collect();
    let mut kept = Vec::with_capacity(rows.len());
    for (at, (row, _)) in rows.into_iter().enumerate() {
        if let Some(other) = found.repeats[at] {
            let reason = format!("nearly the same as {}, {}", places[other].source, places[other].at);
            dropped.push(row.dropped(Pass::NearDuplicate, reason));
            continue;
        }
        let key = row.group.clone().unwrap_or_else(|| keys[found.cluster[at]].clone());
        kept.push((row, key));
    }
    kept
}

/// What is learned, and what is held out.
fn halves(rows: Vec<(Row, String)>, options: &Options) -> Result<(Vec<Row>, Vec<Row>), Error> {
    let groups: HashMap<String, f64> =
        rows.iter().map(|(_, group)| (group.clone(), split::place(group, options.seed))).collect();
    // A set of few groups may have none below the share: then it is the lowest of them.
    let lowest = groups.values().copied().fold(f64::INFINITY, f64::min);
    let held = |group: &str| {
        let place = groups[group];
        options.held_out > 0.0 && (place < options.held_out || place <= lowest)
    };
    let (held, train): (Vec<_>, Vec<_>) = rows.into_iter().partition(|(_, group)| held(group));
    if train.is_empty() {
        let why = "all rows belong together, so that nothing is left to learn once some are held out: hold out nothing, or \
                   name the field that tells groups apart";
        return Err(Error::Nothing(why.to_owned()));
    }
    let rows = |side: Vec<(Row, String)>| side.into_iter().map(|(row, _)| row).collect();
    Ok((rows(train), rows(held)))
}

#[cfg(test)]
mod tests;
