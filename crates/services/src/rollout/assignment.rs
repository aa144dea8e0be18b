//! Which version a caller gets: the same one for the same weights, in every process and every release.
//!
//! Weighted rendezvous hashing (Thaler and Ravishankar 1998; logarithms as in Schindelhauer and Schomaker 2005): every version draws a
//! waiting time for the caller, exponential with its weight as the rate, and the shortest wins. A version wins with the share of its
//! weight. One whose weight grows only gets shorter waits: callers move to it and none between the others, and as many move as its
//! share grows by. The draws hang on the names alone, so nothing is kept of anybody.

use sha2::{Digest, Sha256};

/// The place of the arm that `unit` gets under the rollout `name`, of arms with their weights; `None` if none has any.
pub(super) fn assigned<'a>(name: &str, unit: &str, arms: impl Iterator<Item = (&'a str, u64)>) -> Option<usize> {
    let waits = arms.enumerate().filter(|(_, (_, weight))| *weight > 0);
    let waits = waits.map(|(i, (arm, weight))| (i, -drawn(&[name, arm, unit]).ln() / weight as f64));
    waits.min_by(|a, b| a.1.total_cmp(&b.1)).map(|(i, _)| i)
}

/// A number above 0 and at most 1 that these words always give.
fn drawn(words: &[&str]) -> f64 {
    let mut hash = Sha256::new();
    for word in words {
        // With their lengths, so that no two lists of words are the same bytes.
        hash.update((word.len() as u64).to_le_bytes());
        hash.update(word);
    }
    let first = hash.finalize().iter().take(8).fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    ((first >> 11) + 1) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNITS: usize = 20_000;

    fn arms(weights: &[u64]) -> Vec<usize> {
        let named = || ["a", "b", "c"].into_iter().zip(weights.iter().copied());
        (0..UNITS).map(|unit| assigned("r", &unit.to_string(), named()).unwrap()).collect()
    }

    /// How often each arm was given is its weight's share, within four standard errors.
    #[test]
    fn shares_are_the_weights() {
        fn check(weights: &[u64]) {
            let given = arms(weights);
            for (arm, weight) in weights.iter().enumerate() {
                let p = *weight as f64 / weights.iter().sum::<u64>() as f64;
                let (n, found) = (UNITS as f64, given.iter().filter(|a| **a == arm).count() as f64);
                assert!((found - n * p).abs() <= 4.0 * (n * p * (1.0 - p)).sqrt(), "{weights:?}: {found} of arm {arm}");
            }
        }
        check(&[1, 1]);
        check(&[99, 1]);
        check(&[5, 3, 2]);
        check(&[0, 7, 0]);
    }

    /// From one set of weights to another: who moves goes to `grown`, and no more than its share grows by.
    #[test]
    fn a_growing_weight_moves_only_whom_it_must() {
        fn check(from: &[u64], to: &[u64], grown: usize) {
            let share = |weights: &[u64]| weights[grown] as f64 / weights.iter().sum::<u64>() as f64;
            let moved: Vec<_> = arms(from).into_iter().zip(arms(to)).filter(|(a, b)| a != b).collect();
            assert!(moved.iter().all(|(_, to)| *to == grown), "{from:?} {to:?}");
            let (n, p) = (UNITS as f64, share(to) - share(from));
            let off = (moved.len() as f64 - n * p).abs();
            assert!(off <= 4.0 * (n * p * (1.0 - p)).sqrt(), "{from:?} {to:?}: {}", moved.len());
        }
        check(&[99, 1], &[95, 5], 1);
        check(&[95, 5], &[50, 50], 1);
        check(&[50, 50], &[0, 100], 1);
        check(&[60, 30, 10], &[48, 24, 28], 2);
        check(&[1, 1, 0], &[1, 1, 1], 2);
    }

    #[test]
    fn nothing_is_given_where_nothing_weighs() {
        let of = |weights: [u64; 2]| assigned("r", "u", ["a", "b"].into_iter().zip(weights));
        assert_eq!((of([0, 0]), of([0, 1]), of([1, 0])), (None, Some(1), Some(0)));
    }

    /// Given once and for all: another release must not shuffle who gets what.
    #[test]
    fn what_was_given_stays() {
        let arms = || [("small", 70), ("large", 20), ("new", 10)].into_iter();
        let of = |unit: usize| assigned("support", &format!("key {unit}"), arms()).unwrap();
        let given: String = (0..40).map(|unit| of(unit).to_string()).collect();
        assert_eq!(given, "0010020011102010200001000120200001001100");
    }
}
