//! From items whose truth is known to the bar that a student's answers must pass.
//!
//! Conformal risk control (Angelopoulos et al. 2022, arXiv 2208.02814). The loss of an item at a threshold is 1 if the student's answer would
//! be taken, is wrong, and the teacher's would have been right; it falls as the threshold rises. With `n` items the smallest threshold
//! at which `n / (n + 1)` of their mean loss plus `1 / (n + 1)` is no more than the stated risk keeps the expected loss of the next
//! request within it, whatever the scores are worth, as long as that request is like the items. A worthless score costs takings, never truth.
//!
//! Which measure the score is, is chosen on items of its own, which the threshold never sees. Sending long requests to the teacher only
//! takes acceptances away, so that bound may be read off the same items.

use protocol::ModelCard;
use serde::{Deserialize, Serialize};

/// One in so many items chooses the measure.
const CHOOSERS: usize = 5;
/// What rounding may make of a whole number of losses.
const ROUNDING: f64 = 1e-9;

/// How the log-probabilities of an answer's tokens become its score, 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// The probability of its least likely token.
    #[default]
    Minimum,
    /// The geometric mean of its tokens' probabilities: that of the answer, normalised by its length.
    Mean,
    /// The probability of the answer as a whole.
    Sequence,
}

/// What is known of an answer's tokens.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Tokens {
    n: usize,
    sum: f64,
    least: f64,
}

impl Tokens {
    pub(super) fn add(&mut self, logprob: f64) {
        self.n += 1;
        self.sum += logprob;
        self.least = self.least.min(logprob);
    }
}

impl Measure {
    /// All of them, in the order in which [`Item::scores`] has them.
    pub const ALL: [Self; 3] = [Self::Minimum, Self::Mean, Self::Sequence];

    /// The score of an answer; 0 where no token has one.
    pub(super) fn score(self, tokens: &Tokens) -> f64 {
        let logprob = match self {
            _ if tokens.n == 0 => f64::NEG_INFINITY,
            Self::Minimum => tokens.least,
            Self::Mean => tokens.sum / tokens.n as f64,
            Self::Sequence => tokens.sum,
        };
        logprob.exp().clamp(0.0, 1.0)
    }

    /// The most that an answer which begins so can come to, if it ends within `longest` tokens.
    pub(super) fn at_best(self, tokens: &Tokens, longest: usize) -> f64 {
        match self {
            Self::Mean => (tokens.sum / longest.max(tokens.n).max(1) as f64).exp(),
            Self::Minimum => tokens.least.exp(),
            Self::Sequence => tokens.sum.exp(),
        }
    }
}

/// What a student's answer must pass to be taken.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Bar {
    /// What the score is.
    pub measure: Measure,
    /// Answers are taken whose score is higher.
    pub threshold: f64,
    /// Requests with more characters ([`super::length`]) go to the teacher at once.
    pub longest: Option<usize>,
    /// The student whom this holds for; anybody where that is `None`.
    pub student: Option<Weights>,
}

/// What identifies a model exactly.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Weights {
    /// Its name, for people.
    pub model: String,
    /// What identifies its weights; empty where nobody knows.
    pub digest: String,
    /// What identifies the adapter beside them; empty without one.
    pub adapter: String,
}

impl Weights {
    /// Those of a card.
    pub fn of(card: ModelCard) -> Self {
        Self { model: card.id, digest: card.digest, adapter: card.adapter }
    }

    /// They are not known to be others. Names do not count: they are everybody's own.
    pub(super) fn may_be(&self, digest: &str, adapter: &str) -> bool {
        self.digest.is_empty() || digest.is_empty() || (&*self.digest, &*self.adapter) == (digest, adapter)
    }
}

/// A request whose truth is known.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Item {
    /// Its characters ([`super::length`]).
    pub length: usize,
    /// How sure the student was, by each of [`Measure::ALL`]; 0 where its answer cannot be taken.
    pub scores: [f64; 3],
    /// Its answer is right.
    pub student: bool,
    /// The teacher's answer is right.
    pub teacher: bool,
}

/// A bar and what it was made from: the calibration file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// The student whom it holds for.
    pub student: Weights,
    /// The teacher it was compared with.
    pub teacher: Weights,
    /// What the score is.
    pub measure: Measure,
    /// Answers are taken whose score is higher.
    pub threshold: f64,
    /// Requests with more characters go to the teacher at once.
    pub longest: usize,
    /// At most this share of requests is expected to get a student's wrong answer where the teacher's would have been right.
    pub risk: f64,
    /// Items that the threshold was made from.
    pub items: usize,
    /// Other items, that the measure was chosen on.
    pub chosen_on: usize,
    /// The SHA-256 of the file that the items are from.
    pub data: String,
}

impl Calibration {
    /// The bar that it sets.
    pub fn bar(self) -> Bar {
        let Self { student, measure, threshold, longest, .. } = self;
        Bar { measure, threshold, longest: Some(longest), student: Some(student) }
    }
}

/// Why no threshold can be had.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Unusable {
    /// The risk is none: it must be more than 0 and less than 1.
    Risk(f64),
    /// So many items cannot show a risk this small, even if the student is never taken.
    Few {
        /// The items there are.
        items: usize,
        /// The items there must be.
        least: usize,
    },
}

impl std::fmt::Display for Unusable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Risk(risk) => write!(f, "a risk of {risk} is none: it must lie between 0 and 1"),
            Self::Few { items, least } => write!(f, "{items} items are too few: the risk takes {least} at least"),
        }
    }
}

impl std::error::Error for Unusable {}

/// Measure, threshold, and longest request for this risk, in [`Bar`]; and how many of the items chose the measure. Items must be in an
/// order that says nothing about them.
///
/// # Errors
/// A risk that is none, or too few items for it.
pub fn calibrate(items: &[Item], risk: f64) -> Result<(Bar, usize), Unusable> {
    let (choosers, others) = items.split_at(items.len() / CHOOSERS);
    let (place, measure) = chosen(choosers);
    let losses: Vec<_> = others.iter().map(|item| (item.scores[place], loss(*item))).collect();
    let threshold = threshold(&losses, risk)?;
    let accepted = items.iter().filter(|item| item.scores[place] > threshold);
    let longest = accepted.map(|item| item.length).max().unwrap_or(0);
    Ok((Bar { measure, threshold, longest: Some(longest), student: None }, choosers.len()))
}

/// The fewest items that [`calibrate`] takes for this risk.
pub fn fewest(risk: f64) -> usize {
    let others = least(risk);
    // Of every five one chooses, so every four others are joined by one, but not the last.
    others.saturating_add(others.saturating_sub(1) / (CHOOSERS - 1))
}

/// The fewest items that show this risk where the student is never taken.
fn least(risk: f64) -> usize {
    (1.0 / risk - 1.0 - ROUNDING).ceil() as usize
}

/// What taking the student's answer would lose.
fn loss(item: Item) -> f64 {
    f64::from(u8::from(item.teacher && !item.student))
}

/// The smallest threshold that keeps the risk; items are scores and what is lost (0 to 1) if they are above it.
///
/// # Errors
/// As those of [`calibrate`].
fn threshold(items: &[(f64, f64)], risk: f64) -> Result<f64, Unusable> {
    if !(risk > 0.0 && risk < 1.0) {
        return Err(Unusable::Risk(risk));
    }
    // (n R + 1) / (n + 1) <= risk, for the sum of losses.
    let allowed = risk * (items.len() as f64 + 1.0) - 1.0 + ROUNDING;
    if allowed < 0.0 {
        return Err(Unusable::Few { items: items.len(), least: least(risk) });
    }
    let mut sorted = items.to_vec();
    sorted.sort_by(|a, b| b.0.total_cmp(&a.0));
    // From the top: the highest score at which taking everything down to it and itself would lose too much.
    let mut lost = 0.0;
    for &(score, loss) in &sorted {
        lost += loss;
        if lost > allowed {
            return Ok(score);
        }
    }
    Ok(0.0)
}

/// The measure that tells right answers from wrong ones best: by the share of pairs that it orders rightly.
fn chosen(items: &[Item]) -> (usize, Measure) {
    let ordered = |place: usize| {
        let of =
            |right: bool| items.iter().filter(move |item| item.student == right).map(move |item| item.scores[place]);
        let pairs = of(true).flat_map(|right| of(false).map(move |wrong| right.total_cmp(&wrong) as i64));
        pairs.sum::<i64>()
    };
    let best = (0..Measure::ALL.len()).rev().max_by_key(|place| ordered(*place)).unwrap_or(0);
    (best, Measure::ALL[best])
}

#[cfg(test)]
mod tests;
