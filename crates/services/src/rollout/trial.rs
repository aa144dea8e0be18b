//! What is known of the versions beside each other: who got which, how often each failed, how long its callers waited, how often it was
//! blocked, what it cost, how it was rated; and what may be concluded from that at any time.
//!
//! Counted is since the weights were last set. Callers who hang up before anything came count nowhere; neither do
//! errors that are the request's own fault.

use std::{
    collections::HashSet,
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use protocol::{Error, ErrorKind};
use serde::{Deserialize, Serialize};

use super::sequence::{self, LEAST};
use crate::first::elsewhere;

/// Errors of at most this share, over all looks.
pub const ERROR: f64 = 0.05;
/// Callers that are told apart; later ones are not counted.
const CALLERS: usize = 1 << 16;
/// How many callers' worth of trust the weights have before the first caller.
const TRUST: f64 = 100.0;

/// What was counted of a version.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Figures {
    /// Different callers who got it.
    pub callers: u64,
    /// Requests that ended, or failed.
    pub requests: u64,
    /// Of these, how many the version failed at.
    pub failed: u64,
    /// Seconds until the first piece of an answer.
    pub wait: Moments,
    /// Requests that were answered or blocked.
    pub judged: u64,
    /// Of these, how many were blocked.
    pub blocked: u64,
    /// What each of these cost, in nano-units of currency.
    pub cost: Moments,
    /// Ratings of answers, 0 to 1.
    pub quality: Moments,
}

/// What versions are compared by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Metric {
    /// The share of requests that failed.
    Failures,
    /// Seconds until the first piece of an answer.
    Wait,
    /// The share of answers that were blocked.
    Blocks,
    /// What a request costs, in nano-units of currency.
    Cost,
    /// How much worse answers are rated: the other version's mean rating less this one's.
    Quality,
}

impl Metric {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Failures, Self::Wait, Self::Blocks, Self::Cost, Self::Quality];

    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Failures => "failures",
            Self::Wait => "wait",
            Self::Blocks => "blocks",
            Self::Cost => "cost",
            Self::Quality => "quality",
        }
    }
}

/// How much worse than another one a version may be and still be fine.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tolerated {
    /// Failures, as a share of requests.
    pub failures: f64,
    /// Time to the first piece.
    pub wait: Duration,
    /// Blocked answers, as a share of them.
    pub blocks: f64,
    /// Cost of a request, as a share of the other version's.
    pub cost: f64,
    /// The mean rating.
    pub quality: f64,
}

impl Tolerated {
    /// By a metric: of the cost a share of the other version's, else in the metric's own unit.
    pub fn of(&self, metric: Metric) -> f64 {
        match metric {
            Metric::Failures => self.failures,
            Metric::Wait => self.wait.as_secs_f64(),
            Metric::Blocks => self.blocks,
            Metric::Cost => self.cost,
            Metric::Quality => self.quality,
        }
    }
}

/// Number, mean and variance of samples.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Moments {
    /// How many.
    pub n: u64,
    /// Their mean.
    pub mean: f64,
    /// The sum of their squared distances to it (Welford 1962).
    squares: f64,
}

/// How much larger a mean is than another one, and what may be concluded.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Difference {
    /// The difference of the means.
    pub value: f64,
    /// Where it lies with 95 % confidence at every look.
    pub interval: (f64, f64),
    /// How likely a difference this large is where there is none.
    pub p: f64,
    /// What may be concluded where less is better.
    pub standing: Standing,
    /// Samples of both together, in the parts they have, after which a difference as large as is tolerated shows with a power of 80 %; `None`
    /// where nothing is tolerated.
    pub needed: Option<u64>,
}

impl Difference {
    /// What an experiment may say at this look. Like the interval it is wrong in at most one of 20, over all looks together.
    pub fn verdict(&self) -> Verdict {
        match self.standing {
            _ if self.interval.1 < 0.0 => Verdict::Better,
            Standing::Fine => Verdict::NoWorse,
            Standing::Worse => Verdict::Worse,
            Standing::Open => Verdict::Running,
        }
    }
}

/// What is known of a version beside another one by a single metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Not enough yet.
    Running,
    /// It is better.
    Better,
    /// It is not worse by what is tolerated; whether it is better is not known.
    NoWorse,
    /// It is worse.
    Worse,
}

impl Verdict {
    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Better => "better",
            Self::NoWorse => "no_worse",
            Self::Worse => "worse",
        }
    }
}

/// What may be concluded of a version beside another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Nothing yet.
    Open,
    /// It is not worse by what is tolerated or more.
    Fine,
    /// It is worse, and perhaps by more than is tolerated.
    Worse,
}

impl Standing {
    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Fine => "fine",
            Self::Worse => "worse",
        }
    }
}

impl Moments {
    fn add(&mut self, sample: f64) {
        self.n += 1;
        let off = sample - self.mean;
        self.mean += off / self.n as f64;
        self.squares += off * (sample - self.mean);
    }

    fn variance(&self) -> f64 {
        self.squares / self.n.saturating_sub(1).max(1) as f64
    }

    /// As if both had been counted as one (Chan, Golub and LeVeque 1979).
    fn and(self, other: Self) -> Self {
        let n = self.n + other.n;
        let (a, b, all) = (self.n as f64, other.n as f64, n.max(1) as f64);
        let off = other.mean - self.mean;
        Self { n, mean: self.mean + off * b / all, squares: self.squares + other.squares + off * off * a * b / all }
    }
}

/// Number, mean and variance, as differences are made of.
type Sample = (u64, f64, f64);

/// Of so many, some were such.
fn share(n: u64, such: u64) -> Sample {
    // With one of either kind added: what never happened yet is not known never to happen.
    let likely = (such as f64 + 1.0) / (n as f64 + 2.0);
    (n, such as f64 / n.max(1) as f64, likely * (1.0 - likely))
}

impl Figures {
    /// How much more (of quality: less) this version has than `other`; `None` while too little is known, or there is nothing to compare.
    /// It is called worse wrongly with a chance of at most `error` over all looks, and fine wrongly with one of at most [`ERROR`].
    pub fn beside(&self, other: &Self, metric: Metric, tolerated: &Tolerated, error: f64) -> Option<Difference> {
        let unit = if metric == Metric::Cost { other.cost.mean } else { 1.0 };
        let tolerable = tolerated.of(metric) * unit;
        let free = metric == Metric::Cost && self.cost.mean == 0.0 && other.cost.mean == 0.0;
        let (a, b) = if metric == Metric::Quality { (other, self) } else { (self, other) };
        if free { None } else { difference(a.sample(metric), b.sample(metric), tolerable, error) }
    }

    /// There is enough of it for others to be compared with.
    pub(super) fn has(&self, metric: Metric) -> bool {
        let (n, mean, _) = self.sample(metric);
        n >= LEAST && (metric != Metric::Cost || mean > 0.0)
    }

    /// How many samples there are of a metric, and their mean; for failures and blocks that is a share.
    pub fn mean(&self, metric: Metric) -> (u64, f64) {
        let (n, mean, _) = self.sample(metric);
        (n, mean)
    }

    fn sample(&self, metric: Metric) -> Sample {
        let of = |moments: &Moments| (moments.n, moments.mean, moments.variance());
        match metric {
            Metric::Failures => share(self.requests, self.failed),
            Metric::Wait => of(&self.wait),
            Metric::Blocks => share(self.judged, self.blocked),
            Metric::Cost => of(&self.cost),
            Metric::Quality => {
                // With the best and the worst added, for the same reason as in `share`.
                let mut likely = self.quality;
                [0.0, 1.0].into_iter().for_each(|rating| likely.add(rating));
                (self.quality.n, self.quality.mean, likely.variance())
            }
        }
    }

    /// As if both had been counted as one; a caller of both counts twice.
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            callers: self.callers + other.callers,
            requests: self.requests + other.requests,
            failed: self.failed + other.failed,
            wait: self.wait.and(other.wait),
            judged: self.judged + other.judged,
            blocked: self.blocked + other.blocked,
            cost: self.cost.and(other.cost),
            quality: self.quality.and(other.quality),
        }
    }
}

/// How much larger `a` is than `b`.
fn difference(a: Sample, b: Sample, tolerated: f64, error: f64) -> Option<Difference> {
    if a.0.min(b.0) < LEAST {
        return None;
    }
    let n = (a.0 + b.0) as f64;
    let v = n * (a.2 / a.0 as f64 + b.2 / b.0 as f64);
    let (value, half) = (a.1 - b.1, sequence::two_sided(n, v, ERROR));
    let (worse, fine) = (sequence::one_sided(n, v, error), sequence::one_sided(n, v, ERROR));
    let standing = match (value - worse > 0.0, value + fine < tolerated) {
        (_, true) => Standing::Fine,
        (true, false) => Standing::Worse,
        (false, false) => Standing::Open,
    };
    let p = if v > 0.0 { sequence::p_value(value, 0.0, n, v, ERROR) } else { f64::from(u8::from(value == 0.0)) };
    let needed = (tolerated > 0.0).then(|| sequence::samples(v, tolerated, ERROR));
    Some(Difference { value, interval: (value - half, value + half), p, standing, needed })
}

/// What is counted while requests run.
#[derive(Debug)]
pub(super) struct Trial {
    shares: Vec<f64>,
    pub(super) figures: Vec<Figures>,
    seen: HashSet<u64>,
    hasher: RandomState,
    /// The logarithm of what a bet against the weights has won, and the most it had ever won.
    won: (f64, f64),
}

impl Trial {
    pub(super) fn new(weights: &[u64]) -> Self {
        let all = (weights.iter().sum::<u64>() as f64).max(1.0);
        Self {
            shares: weights.iter().map(|weight| *weight as f64 / all).collect(),
            figures: vec![Figures::default(); weights.len()],
            seen: HashSet::new(),
            hasher: RandomState::new(),
            won: (0.0, 0.0),
        }
    }

    /// This caller got that version.
    pub(super) fn exposed(&mut self, version: usize, unit: &str) {
        if self.seen.len() < CALLERS && self.seen.insert(self.hasher.hash_one(unit)) {
            // The next caller's version is bet on by what was seen so far, at the odds of the weights. Where those are true the stake
            // only ever grows by luck, and by 20 times or more in one of 20 trials at most (Ville 1939; Lindon and Malek 2020).
            let (share, callers) = (self.shares[version], self.figures.iter().map(|f| f.callers).sum::<u64>() as f64);
            let guessed = (TRUST * share + self.figures[version].callers as f64) / (TRUST + callers);
            self.won.0 += (guessed / share).ln();
            self.won.1 = self.won.1.max(self.won.0);
            self.figures[version].callers += 1;
        }
    }

    /// How likely such numbers of callers are under the weights, at every look: below [`ERROR`] something is wrong with who gets what
    /// or with what is counted, and no comparison should be believed.
    pub(super) fn mismatch(&self) -> f64 {
        (-self.won.1).exp()
    }

    /// The first piece of an answer came.
    pub(super) fn began(&mut self, version: usize, wait: Duration) {
        self.figures[version].wait.add(wait.as_secs_f64());
    }

    /// A request ended.
    pub(super) fn ended(&mut self, version: usize, error: Option<&Error>) {
        let own = |error: &Error| elsewhere(error) || error.kind == ErrorKind::Internal;
        match error {
            None => self.figures[version].requests += 1,
            Some(error) if own(error) => {
                self.figures[version].requests += 1;
                self.figures[version].failed += 1;
            }
            Some(_) => {}
        }
    }

    /// A request was answered, or blocked.
    pub(super) fn settled(&mut self, version: usize, blocked: bool, cost: i64) {
        let figures = &mut self.figures[version];
        figures.judged += 1;
        figures.blocked += u64::from(blocked);
        figures.cost.add(cost as f64);
    }

    /// An answer was rated.
    pub(super) fn rated(&mut self, version: usize, rating: f64) {
        self.figures[version].quality.add(rating);
    }
}

#[cfg(test)]
mod tests;
