//! How sure a token must be to leave early, found on samples that nothing was learned from.
//!
//! An exit is good at a threshold if, of the tokens that leave there, at most [`WRONG`] would have got another likeliest successor behind all layers.
//! That is a hypothesis about every threshold of a short list, and a threshold is used if a binomial test refuses that more of them are wrong; as many are
//! tried, over all exits, each is tried at its part of [`RISK`] (learn then test, Angelopoulos et al. 2021, arXiv 2110.01052, with Bonferroni's
//! correction). The lowest that passes is taken; if none does, the exit is none. A later exit is tried on the tokens that did not leave before, and shares
//! its part among all the ways that these may have been chosen.
//!
//! What that takes for granted: tokens that are like those of the samples and do not hang together, and earlier tokens that went all the way. The last is not so
//! where a student writes: who left has left keys and values in the deeper layers that they would not have made, and later tokens look at these. So the
//! thresholds that were found are tried on whole answers ([`Written`]), and raised until these keep the same bound.

use kernels::Device;
use model::Exit;
use serde::Serialize;

use crate::{Network, Sample};

/// The share of tokens that leave which may be others than behind all layers.
const WRONG: f64 = 0.01;
/// The probability that it is more, at any exit.
const RISK: f64 = 0.05;
/// Thresholds that are tried.
const THRESHOLDS: [f32; 10] = [0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999];

/// What was found of an exit.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Calibrated {
    /// Layers in front of it.
    pub after: usize,
    /// How sure a token must be to leave; none where no threshold keeps the bound, so that nobody leaves.
    pub threshold: Option<f32>,
    /// Tokens that came as far.
    pub tokens: usize,
    /// Of these, tokens that leave at the lowest threshold that keeps the bound token by token.
    pub left: usize,
    /// Of these, tokens whose likeliest successor is another behind all layers.
    pub wrong: usize,
}

/// Answers that were written with exits and without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Written {
    /// How many.
    pub answers: usize,
    /// Their tokens up to the first that is another with exits, this one too.
    pub tokens: usize,
    /// Answers that have such a token.
    pub changed: usize,
}

impl Written {
    /// Takes in an answer, as it is without exits and with them.
    pub fn add(&mut self, without: &[u32], with: &[u32]) {
        let same = without.iter().zip(with).take_while(|(a, b)| a == b).count();
        let changed = without != with;
        self.answers += 1;
        self.changed += usize::from(changed);
        self.tokens += same + usize::from(changed);
    }

    /// Whether they show that exits change no more tokens than an exit may get wrong. With so many exits every combination of thresholds counts as tried.
    pub fn keeps(&self, exits: usize) -> bool {
        at_most(self.changed, self.tokens) <= RISK / ((THRESHOLDS.len() + 1) as f64).powi(exits as i32)
    }
}

impl Calibrated {
    /// The exit, if anybody leaves there.
    pub fn exit(&self) -> Option<Exit> {
        self.threshold.map(|threshold| Exit { after: self.after, threshold })
    }

    /// Takes the next threshold; behind the last nobody leaves.
    pub fn raise(&mut self) {
        self.threshold = self.threshold.and_then(|low| THRESHOLDS.into_iter().find(|threshold| *threshold > low));
    }
}

impl Network {
    /// How sure tokens must be to leave behind these numbers of layers, ascending and below all. Micro-batches have at most so many rows.
    pub fn calibrate(&mut self, dev: &Device, samples: &[Sample], after: &[usize], rows: usize) -> Vec<Calibrated> {
        let depths: Vec<usize> = after.iter().copied().chain([self.spec().layers.len()]).collect();
        let mut found = self.likeliest(dev, samples, &depths, rows);
        let whole = found.pop().unwrap_or_default();
        let mut here = vec![true; whole.len()];
        // A threshold, or none, at each exit before: so many kinds of tokens may have come as far.
        let ways = |exit: usize| ((THRESHOLDS.len() + 1) as f64).powi(exit as i32);
        let tries = |exit: usize| (THRESHOLDS.len() * after.len()) as f64 * ways(exit);
        let calibrate = |exit: usize| {
            let (after, found) = (after[exit], &found[exit]);
            let judged = found.iter().zip(&whole).map(|((token, sure), (last, _))| (*sure, token == last));
            let came: Vec<_> = judged.zip(&here).filter(|(_, here)| **here).map(|(judged, _)| judged).collect();
            let threshold = threshold(&came, tries(exit));
            let leaves = |sure: f32| threshold.is_some_and(|threshold| sure >= threshold);
            here.iter_mut().zip(found).for_each(|(here, (_, sure))| *here &= !leaves(*sure));
            let left = came.iter().filter(|(sure, _)| leaves(*sure));
            let (tokens, wrong) = (came.len(), left.clone().filter(|(_, right)| !right).count());
            Calibrated { after, threshold, tokens, left: left.count(), wrong }
        };
        (0..after.len()).map(calibrate).collect()
    }
}

/// The lowest threshold that keeps the bound when so many are tried in all. Tokens are how sure they are, and whether they are right.
fn threshold(tokens: &[(f32, bool)], tries: f64) -> Option<f32> {
    THRESHOLDS.into_iter().find(|threshold| {
        let left = tokens.iter().filter(|(sure, _)| sure >= threshold);
        let wrong = left.clone().filter(|(_, right)| !right).count();
        at_most(wrong, left.count()) <= RISK / tries
    })
}

/// How probable it is that at most `k` of `n` are wrong where [`WRONG`] of all are.
fn at_most(k: usize, n: usize) -> f64 {
    let odds = (WRONG / (1.0 - WRONG)).ln();
    let mut log = n as f64 * (1.0 - WRONG).ln();
    let mut sum = 0.0;
    for i in 0..=k {
        sum += log.exp();
        log += odds + ((n - i) as f64 / (i + 1) as f64).ln();
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_binomial_is_that_of_tables() {
        let check = |k, n, want: f64| assert!((at_most(k, n) - want).abs() < 1e-4, "{k} of {n}: {}", at_most(k, n));
        check(0, 100, 0.3660);
        check(1, 100, 0.7358);
        check(3, 100, 0.9816);
        check(2, 1000, 0.0027);
        check(5, 5, 1.0);
        check(0, 0, 1.0);
    }

    #[test]
    fn answers_are_compared_up_to_where_they_part() {
        let mut written = Written::default();
        written.add(&[1, 2, 3], &[1, 2, 3]);
        written.add(&[1, 2, 3], &[1, 5, 3, 4]);
        written.add(&[1, 2], &[1, 2, 3]);
        assert_eq!(written, Written { answers: 3, tokens: 3 + 2 + 3, changed: 2 });
        let keeps = |tokens, changed, exits| Written { answers: 9, tokens, changed }.keeps(exits);
        // 0.99^536 is just above 0.05 / 11, 0.99^775 just above 0.05 / 121.
        assert!(!keeps(536, 0, 1) && keeps(537, 0, 1) && !keeps(537, 1, 1));
        assert!(!keeps(775, 0, 2) && keeps(776, 0, 2));
        assert!(!keeps(0, 0, 1));
    }

    #[test]
    fn thresholds_rise_until_nobody_leaves() {
        let mut exit = Calibrated { after: 1, threshold: Some(0.995), tokens: 9, left: 9, wrong: 0 };
        exit.raise();
        assert_eq!(exit.threshold, Some(0.999));
        exit.raise();
        exit.raise();
        assert_eq!((exit.threshold, exit.exit()), (None, None));
    }

    #[test]
    fn a_threshold_needs_enough_tokens_and_few_wrong_ones() {
        let tokens = |n: usize, wrong: usize, sure: f32| (0..n).map(move |i| (sure, i >= wrong));
        let check = |tokens: Vec<(f32, bool)>, want| assert_eq!(threshold(&tokens, 10.0), want);
        check(Vec::new(), None);
        // 0.99^527 is just above 0.005.
        check(tokens(527, 0, 0.7).collect(), None);
        check(tokens(528, 0, 0.7).collect(), Some(0.5));
        check(tokens(528, 1, 0.7).collect(), None);
        check(tokens(2000, 8, 0.7).collect(), Some(0.5));
        check(tokens(2000, 20, 0.7).collect(), None);
        // The sure ones are right, the others are not.
        check(tokens(600, 0, 0.96).chain(tokens(100, 50, 0.85)).collect(), Some(0.9));
    }
}
