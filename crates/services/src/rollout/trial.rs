//! What is known of the versions beside each other: who got which, how often each failed, how long its callers waited; and what may
//! be concluded from that at any time.
//!
//! Counted is since the rollout was made, in this process. Callers who hang up before anything came count nowhere; neither do
//! errors that are the request's own fault.

use std::{
    collections::HashSet,
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use protocol::{Error, ErrorKind};

use super::sequence::{self, LEAST};
use crate::first::elsewhere;

/// Errors of at most this share, over all looks.
pub const ERROR: f64 = 0.05;
/// Callers that are told apart; later ones are not counted.
const CALLERS: usize = 1 << 16;
/// How many callers' worth of trust the weights have before the first caller.
const TRUST: f64 = 100.0;

/// What was counted of a version.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Figures {
    /// Different callers who got it.
    pub callers: u64,
    /// Requests that ended, or failed.
    pub requests: u64,
    /// Of these, how many the version failed at.
    pub failed: u64,
    /// Seconds until the first piece of an answer.
    pub wait: Moments,
}

/// Number, mean and variance of samples.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
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
}

impl Figures {
    /// How much more often it fails than `other`; `None` while too little is known.
    pub fn failures_beside(&self, other: &Self, tolerated: f64) -> Option<Difference> {
        let rate = |figures: &Self| {
            let (n, failed) = (figures.requests as f64, figures.failed as f64);
            // With one of either kind added: a version that never failed yet is not known never to fail.
            let likely = (failed + 1.0) / (n + 2.0);
            (figures.requests, failed / n.max(1.0), likely * (1.0 - likely))
        };
        difference(rate(self), rate(other), tolerated)
    }

    /// How much longer its callers wait than those of `other`, in seconds; `None` while too little is known.
    pub fn wait_beside(&self, other: &Self, tolerated: Duration) -> Option<Difference> {
        let wait = |figures: &Self| (figures.wait.n, figures.wait.mean, figures.wait.variance());
        difference(wait(self), wait(other), tolerated.as_secs_f64())
    }
}

/// Number, mean and variance of two samples become their difference.
fn difference(a: (u64, f64, f64), b: (u64, f64, f64), tolerated: f64) -> Option<Difference> {
    if a.0.min(b.0) < LEAST {
        return None;
    }
    let n = (a.0 + b.0) as f64;
    let v = n * (a.2 / a.0 as f64 + b.2 / b.0 as f64);
    let (value, half, one) = (a.1 - b.1, sequence::two_sided(n, v, ERROR), sequence::one_sided(n, v, ERROR));
    let standing = match (value - one > 0.0, value + one < tolerated) {
        (_, true) => Standing::Fine,
        (true, false) => Standing::Worse,
        (false, false) => Standing::Open,
    };
    let p = if v > 0.0 { sequence::p_value(value, 0.0, n, v, ERROR) } else { f64::from(u8::from(value == 0.0)) };
    Some(Difference { value, interval: (value - half, value + half), p, standing })
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
    pub(super) fn new(weights: &[u32]) -> Self {
        let all = weights.iter().map(|weight| f64::from(*weight)).sum::<f64>().max(1.0);
        Self {
            shares: weights.iter().map(|weight| f64::from(*weight) / all).collect(),
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
}

#[cfg(test)]
mod tests;
