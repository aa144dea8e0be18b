//! Which answer the chains agree on.
//!
//! Every chain that came to an answer casts its weight for it; answers are the same if they are the same number. A weight is at
//! most 1, so a lead larger than the number of chains still being written cannot be made up: then the others need not be
//! finished. Stopping early changes how many votes are counted, never who wins.

use super::expression::Number;

/// A chain's vote.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Vote {
    /// Which chain.
    pub(crate) chain: usize,
    /// Its answer.
    pub(crate) answer: Number,
    /// At most 1.
    pub(crate) weight: f64,
}

/// The answer with the most weight, its share of all, and its lead over the next. Of equals the one whose first chain comes first.
pub(crate) fn leader(votes: &[Vote]) -> Option<(Number, f64, f64)> {
    let mut votes: Vec<&Vote> = votes.iter().collect();
    // Always added in one order, so that the sums do not depend on who was done first.
    votes.sort_by_key(|vote| vote.chain);
    let mut sums: Vec<(&Number, f64)> = Vec::new();
    for vote in votes {
        match sums.iter_mut().find(|(answer, _)| **answer == vote.answer) {
            Some((_, sum)) => *sum += vote.weight,
            None => sums.push((&vote.answer, vote.weight)),
        }
    }
    let total: f64 = sums.iter().map(|(_, sum)| sum).sum();
    // Stable, so equals stay in the order of their first chains.
    sums.sort_by(|a, b| b.1.total_cmp(&a.1));
    let (answer, sum) = sums.first()?;
    let next = sums.get(1).map_or(0.0, |(_, sum)| *sum);
    let share = if total > 0.0 { sum / total } else { 0.0 };
    Some(((*answer).clone(), share, sum - next))
}

/// No further votes of `open` chains can change the leader.
pub(crate) fn settled(votes: &[Vote], open: usize) -> bool {
    leader(votes).is_some_and(|(_, _, lead)| lead > open as f64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn votes(cast: &[(&str, f64)]) -> Vec<Vote> {
        let vote = |(chain, (answer, weight)): (usize, &(&str, f64))| Vote {
            chain,
            answer: Number::parse(answer).unwrap(),
            weight: *weight,
        };
        cast.iter().enumerate().map(vote).collect()
    }

    fn check(cast: &[(&str, f64)], want: Option<(&str, f64, f64)>) {
        let found = leader(&votes(cast));
        assert_eq!(
            found.map(|(a, s, l)| (a.to_string(), s, l)),
            want.map(|(a, s, l)| (a.to_owned(), s, l)),
            "{cast:?}"
        );
    }

    #[test]
    fn counted_by_hand() {
        check(&[], None);
        check(&[("1", 0.5)], Some(("1", 1.0, 0.5)));
        check(&[("1", 0.5), ("1/2", 0.25), ("0.5", 0.5)], Some(("0.5", 0.6, 0.25)));
        check(&[("2", 0.5), ("1", 0.5)], Some(("2", 0.5, 0.0)));
        check(&[("2", 0.0)], Some(("2", 0.0, 0.0)));
        assert!(settled(&votes(&[("1", 1.0), ("1.0", 0.5)]), 1));
        assert!(!settled(&votes(&[("1", 1.0)]), 1));
        assert!(!settled(&[], 0));
    }

    proptest! {
        /// Whoever leads when it is settled still leads when all have voted.
        #[test]
        fn stopping_early_changes_no_winner(cast in prop::collection::vec((0..3u8, 0.0..=1.0f64), 1..9), order in any::<u64>()) {
            let mut all: Vec<Vote> = cast.iter().enumerate()
                .map(|(chain, (answer, weight))| Vote { chain, answer: Number::parse(&answer.to_string()).unwrap(), weight: *weight }).collect();
            let winner = leader(&all).unwrap().0;
            let n = all.len();
            all.rotate_left((order % n as u64) as usize);
            for seen in 1..=n {
                if settled(&all[..seen], n - seen) {
                    prop_assert_eq!(&leader(&all[..seen]).unwrap().0, &winner);
                }
            }
        }
    }
}
