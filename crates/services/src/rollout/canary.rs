//! A new version is let in step by step: more callers while it is fine, none once it is worse, no further while nobody knows.
//!
//! This is a function from a state (the newest [`Move`]), what was counted since, and the time, to the next state, if there is one; whoever
//! calls it keeps the state. At every step the versions are compared anew, so that a change of the hour between two steps is no difference
//! between versions.
//!
//! A version that is no worse than the other is taken back with a chance of at most [`ERROR`] over the whole rollout: that is divided among
//! steps and metrics. To go on, every metric must be fine at once, which needs no division. The version that most callers have beside it is
//! what it is compared with. Where callers are not spread as the weights say, something is wrong with the counting: then nothing is
//! concluded, and a person is waited for.
//!
//! Invariant: it never goes back to a smaller share but to none.

use std::time::Duration;

use ledger::{Course, Move};

use super::trial::{Difference, ERROR, Figures, Metric, Standing, Tolerated};

/// Below this no comparison is believed.
const MISMATCH: f64 = 0.001;

/// How a version is let in.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Per cent of the callers, growing, the last 100.
    pub steps: Vec<u32>,
    /// The least time at a step.
    pub hold: Duration,
    /// The least requests of the new version at a step.
    pub hold_requests: u64,
    /// The most time at a step, after which it waits for a person; `None` is no limit.
    pub patience: Option<Duration>,
    /// How much worse the new version may be.
    pub tolerated: Tolerated,
}

/// What a person may want of a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Stay at this step.
    Pause,
    /// Go on from this step; after a rollback, from the first one.
    Resume,
    /// All callers get the new version at once.
    Promote,
    /// Nobody does.
    RollBack,
}

/// What was counted since the last move.
#[derive(Debug, Clone, Copy)]
pub struct Evidence<'a> {
    /// The new version.
    pub canary: &'a Figures,
    /// The one it is compared with.
    pub base: &'a Figures,
    /// How likely the callers are spread as they are.
    pub mismatch: f64,
}

impl Plan {
    /// The first state.
    pub fn begin(&self, rollout: &str, canary: &str, now: i64) -> Move {
        Move {
            rollout: rollout.to_owned(),
            canary: canary.to_owned(),
            number: 0,
            at: now,
            share: self.first(),
            course: Course::Running,
            why: "a new version".to_owned(),
            by: String::new(),
        }
    }

    fn first(&self) -> u32 {
        self.steps.first().copied().unwrap_or(100)
    }

    /// The state that follows from this one by what was counted since; `None`: it stays.
    pub fn judge(&self, state: &Move, evidence: &Evidence<'_>, now: i64) -> Option<Move> {
        if matches!(state.course, Course::Promoted | Course::RolledBack) {
            return None;
        }
        let to = |share, course, why| Some(next(state, (share, course), why, "", now));
        let running = state.course == Course::Running;
        if evidence.mismatch < MISMATCH {
            let why = "callers are not spread as the weights say: no comparison is believed".to_owned();
            return if running { to(state.share, Course::Paused, why) } else { None };
        }
        let found = self.found(evidence);
        if let Some((metric, worse)) =
            found.iter().find_map(|(m, d)| Some((m, d.filter(|d| d.standing == Standing::Worse)?)))
        {
            return to(0, Course::RolledBack, format!("worse: {}", told(*metric, &worse, evidence)));
        }
        let waited = Duration::from_micros(u64::try_from(now.saturating_sub(state.at)).unwrap_or(0));
        let held = waited >= self.hold && evidence.canary.requests >= self.hold_requests;
        if running && held && is_fine(&found, evidence.base) {
            let why = found.iter().filter_map(|(metric, d)| Some(told(*metric, d.as_ref()?, evidence)));
            let why = format!("fine: {}", why.collect::<Vec<_>>().join("; "));
            let share = self.steps.iter().copied().find(|step| *step > state.share).unwrap_or(100);
            return to(share, if share >= 100 { Course::Promoted } else { Course::Running }, why);
        }
        if running && self.patience.is_some_and(|patience| waited >= patience) {
            return to(state.share, Course::Paused, format!("inconclusive: {}", self.lacking(&found, evidence)));
        }
        None
    }

    /// The state that a person wants.
    ///
    /// # Errors
    /// Why it cannot be had from this one.
    pub fn act(&self, state: &Move, action: Action, by: &str, now: i64) -> Result<Move, String> {
        let (share, course) = match (action, state.course) {
            (Action::Pause, Course::Running) => (state.share, Course::Paused),
            (Action::Resume, Course::Paused) => (state.share, Course::Running),
            (Action::Resume, Course::RolledBack) => (self.first(), Course::Running),
            (Action::Promote, Course::Running | Course::Paused | Course::RolledBack) => (100, Course::Promoted),
            (Action::RollBack, Course::Running | Course::Paused | Course::Promoted) => (0, Course::RolledBack),
            (_, course) => return Err(format!("The rollout is {} already.", course.name().replace('_', " "))),
        };
        Ok(next(state, (share, course), "a person wanted it".to_owned(), by, now))
    }

    /// Every comparison, at the error that is left to it.
    fn found(&self, evidence: &Evidence<'_>) -> [(Metric, Option<Difference>); Metric::ALL.len()] {
        let steps = self.steps.iter().filter(|step| **step < 100).count().max(1);
        let error = ERROR / (steps * Metric::ALL.len()) as f64;
        Metric::ALL.map(|metric| (metric, evidence.canary.beside(evidence.base, metric, &self.tolerated, error)))
    }

    /// Why it could not go on.
    fn lacking(&self, found: &[(Metric, Option<Difference>)], evidence: &Evidence<'_>) -> String {
        let open = |(metric, d): &(Metric, Option<Difference>)| match d {
            Some(d) if d.standing == Standing::Open => Some(told(*metric, d, evidence)),
            None if *metric == Metric::Failures || evidence.base.has(*metric) => {
                let Evidence { canary, base, .. } = evidence;
                Some(format!("{}: {} requests beside {} are too few", metric.word(), canary.requests, base.requests))
            }
            _ => None,
        };
        let open: Vec<_> = found.iter().filter_map(open).collect();
        if open.is_empty() {
            return format!("{} of {} requests", evidence.canary.requests, self.hold_requests);
        }
        open.join("; ")
    }
}

/// Failures must be known to be fine; of the rest, what the other version has enough of.
fn is_fine(found: &[(Metric, Option<Difference>)], base: &Figures) -> bool {
    let fine = |(metric, d): &(Metric, Option<Difference>)| match d {
        Some(d) => d.standing == Standing::Fine,
        None => *metric != Metric::Failures && !base.has(*metric),
    };
    found.iter().all(fine)
}

fn next(state: &Move, (share, course): (u32, Course), why: String, by: &str, now: i64) -> Move {
    let Move { rollout, canary, number, .. } = state.clone();
    Move { rollout, canary, number: number + 1, at: now, share, course, why, by: by.to_owned() }
}

/// A difference, for people.
fn told(metric: Metric, difference: &Difference, evidence: &Evidence<'_>) -> String {
    let Difference { value, interval: (low, high), .. } = difference;
    let Evidence { canary, base, .. } = evidence;
    let (word, less) = (metric.word(), if metric == Metric::Quality { "less" } else { "more" });
    format!("{word} {value:.4} {less} ({low:.4} to {high:.4}), {} requests beside {}", canary.requests, base.requests)
}

#[cfg(test)]
mod tests;
