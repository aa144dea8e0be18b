//! Rows that say nearly the same (MinHash, Broder 1997, in bands: Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, chapter 3).
//!
//! A text is the set of its runs of six characters, case and punctuation aside; two texts are as similar as the share of runs that they have in
//! common (Jaccard). MinHash only proposes pairs: each is then compared exactly, so nothing is dropped that is not as similar as it must be.
//! What can go wrong is a pair that is not proposed: at similarity s that happens with probability (1 - s^4)^40, which is below 1e-9 at
//! 0.8, 2e-5 at 0.7 and 8 % at 0.5.
//!
//! Runs that more than a twentieth of the rows have in common are the words of a template ("Answer with one letter") and do not count, unless
//! nothing else is there: a thousand questions in one form are a thousand questions.

use std::collections::{HashMap, HashSet};

/// Characters of a run.
const RUN: usize = 6;
/// Rows of a band: all of them must agree for a pair to be proposed.
const BAND: usize = 4;
/// Bands, of which one must agree.
const BANDS: usize = 40;
/// A run is a template's where more than one in so many rows has it,
const TEMPLATE: usize = 20;
/// and more than so many.
const TEMPLATE_ROWS: usize = 20;
/// From this similarity on rows belong to one cluster: what one of them says helps with the other.
const RELATED: f64 = 0.5;

/// The runs of a text, hashed and sorted.
type Runs = Vec<u32>;

/// What came of the comparison, a place for every text.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Neighbours {
    /// The earlier text that this one nearly repeats.
    pub(crate) repeats: Vec<Option<usize>>,
    /// The first text of its cluster. A text that repeats another is in none.
    pub(crate) cluster: Vec<usize>,
}

/// Compares all texts; the earlier of two that are as similar as `near` stays. `done` is told how many were looked at.
pub(crate) fn neighbours(texts: &[String], near: f64, done: impl Fn(usize)) -> Neighbours {
    let runs = distinctive(texts);
    let mut bands: Vec<HashMap<u64, Vec<usize>>> = vec![HashMap::new(); BANDS];
    let mut repeats = vec![None; texts.len()];
    let mut cluster: Vec<usize> = (0..texts.len()).collect();
    for (at, own) in runs.iter().enumerate() {
        let keys = keys(own);
        let proposed: HashSet<usize> =
            bands.iter().zip(&keys).flat_map(|(band, key)| band.get(key).into_iter().flatten().copied()).collect();
        let mut similar: Vec<(usize, f64)> = proposed.into_iter().map(|i| (i, similarity(own, &runs[i]))).collect();
        similar.sort_by_key(|(other, _)| *other);
        repeats[at] = similar.iter().find(|(_, s)| *s >= near).map(|(other, _)| *other);
        if repeats[at].is_none() {
            similar.iter().filter(|(_, s)| *s >= RELATED).for_each(|(other, _)| join(&mut cluster, at, *other));
            bands.iter_mut().zip(keys).for_each(|(band, key)| band.entry(key).or_default().push(at));
        }
        done(at + 1);
    }
    let cluster = (0..texts.len()).map(|at| first(&cluster, at)).collect();
    Neighbours { repeats, cluster }
}

/// The runs of every text without those of templates.
fn distinctive(texts: &[String]) -> Vec<Runs> {
    let all: Vec<Runs> = texts.iter().map(|text| runs(text)).collect();
    let mut rows: HashMap<u32, usize> = HashMap::new();
    all.iter().flatten().for_each(|run| *rows.entry(*run).or_default() += 1);
    let most = TEMPLATE_ROWS.max(texts.len() / TEMPLATE);
    let own = |runs: Runs| {
        let own: Runs = runs.iter().copied().filter(|run| rows[run] <= most).collect();
        if own.is_empty() { runs } else { own }
    };
    all.into_iter().map(own).collect()
}

fn runs(text: &str) -> Runs {
    let letters = text.chars().flat_map(char::to_lowercase).map(|c| if c.is_alphanumeric() { c } else { ' ' });
    let mut plain: Vec<char> = letters.collect();
    plain.dedup_by(|a, b| *a == ' ' && *b == ' ');
    let mut runs: Runs = match plain.len() {
        0 => Vec::new(),
        len if len < RUN => vec![hash(&plain)],
        _ => plain.windows(RUN).map(hash).collect(),
    };
    runs.sort_unstable();
    runs.dedup();
    runs
}

/// FNV-1a, mixed, of which the upper half is kept.
fn hash(run: &[char]) -> u32 {
    let fnv = |hash: u64, c: &char| (hash ^ u64::from(u32::from(*c))).wrapping_mul(0x0100_0000_01b3);
    (mixed(run.iter().fold(0xcbf2_9ce4_8422_2325, fnv)) >> 32) as u32
}

/// The finaliser of SplitMix64 (Steele, Lea and Flood 2014).
fn mixed(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// What a text is found by in every band: the smallest values of as many hash functions as a band has rows.
fn keys(runs: &[u32]) -> Vec<u64> {
    let smallest = |function: usize| {
        let seed = mixed(function as u64 + 1);
        runs.iter().map(|run| mixed(seed ^ u64::from(*run))).min().unwrap_or(seed)
    };
    let key = |band: usize| (0..BAND).fold(0, |key, row| mixed(key ^ smallest(band * BAND + row)));
    (0..BANDS).map(key).collect()
}

/// The share of runs that two texts have in common.
fn similarity(a: &[u32], b: &[u32]) -> f64 {
    let (mut i, mut j, mut common) = (0, 0, 0);
    while i < a.len() && j < b.len() {
        match a[i].cmp(&b[j]) {
            std::cmp::Ordering::Less => i += 1,
            std::cmp::Ordering::Greater => j += 1,
            std::cmp::Ordering::Equal => (i, j, common) = (i + 1, j + 1, common + 1),
        }
    }
    let all = a.len() + b.len() - common;
    if all == 0 { 1.0 } else { common as f64 / all as f64 }
}

fn first(cluster: &[usize], mut at: usize) -> usize {
    while cluster[at] != at {
        at = cluster[at];
    }
    at
}

fn join(cluster: &mut [usize], a: usize, b: usize) {
    let (a, b) = (first(cluster, a), first(cluster, b));
    cluster[a.max(b)] = a.min(b);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `n` words that no other text has, by a small generator.
    fn words(seed: u64, n: usize) -> Vec<String> {
        (0..n as u64).map(|at| format!("{:06x}", mixed(seed * 1000 + at) >> 40)).collect()
    }

    #[test]
    fn what_repeats_what() {
        let long = words(1, 60);
        let mut edited = long.clone();
        edited[30] = "other".to_owned();
        let most = [&long[..40], &words(2, 6)[..]].concat();
        let shouted: Vec<String> = long.iter().map(|word| word.to_uppercase() + ",").collect();
        let texts = [long, edited, most, shouted, words(3, 60), Vec::new()].map(|words| words.join(" "));
        let Neighbours { repeats, cluster } = neighbours(&texts, 0.8, |_| {});
        assert_eq!(repeats, [None, Some(0), None, Some(0), None, None]);
        assert_eq!(cluster, [0, 1, 0, 3, 4, 5], "what has most of it is related, and no repetition");
    }

    #[test]
    fn a_template_makes_no_neighbours() {
        let ask = words(1, 80).join(" ");
        let texts: Vec<String> = (0..100).map(|at| format!("{ask} {}", words(at + 10, 8).join(" "))).collect();
        let Neighbours { repeats, cluster } = neighbours(&texts, 0.8, |_| {});
        assert_eq!(repeats.iter().flatten().count(), 0);
        assert!(cluster.iter().enumerate().all(|(at, first)| at == *first));
        let same = vec![ask; 100];
        assert_eq!(neighbours(&same, 0.8, |_| {}).repeats.iter().flatten().count(), 99, "nothing else is there");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        /// One word in twenty is changed, so that at least 0.8 of the runs are left: each such copy is found, and nothing else is.
        #[test]
        fn planted_edits_are_found(seed in 0u64..1_000_000, at in 0usize..40, n in 20usize..60) {
            let originals: Vec<Vec<String>> = (0..n as u64).map(|i| words(seed + i, 40)).collect();
            let edited = originals.iter().map(|words| {
                let mut words = words.clone();
                words[at] = "changed".to_owned();
                words
            });
            let texts: Vec<String> = originals.iter().cloned().chain(edited).map(|words| words.join(" ")).collect();
            let found = neighbours(&texts, 0.8, |_| {});
            let expected: Vec<Option<usize>> = (0..2 * n).map(|i| i.checked_sub(n)).collect();
            prop_assert_eq!(found.repeats, expected);
        }
    }
}
