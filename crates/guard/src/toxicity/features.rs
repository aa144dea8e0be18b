//! What the classifier sees of a word: its letters in threes to fives with its edges marked, itself, and the word before it.

use super::Weights;

/// How many features a table has room for.
pub(super) const BUCKETS: usize = 1 << 16;
const SIZES: std::ops::RangeInclusive<usize> = 3..=5;
/// Letters of a word beyond these say nothing new.
const WORD: usize = 24;

/// Remembers the word before.
#[derive(Debug, Clone, Default)]
pub(super) struct Features {
    before: u32,
}

/// What a stretch of text adds up to: a sum for each head, and how many features it had.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Sum {
    pub(super) heads: [i32; 2],
    pub(super) n: u32,
}

impl Sum {
    pub(super) fn plus(self, other: Self) -> Self {
        let heads = [self.heads[0] + other.heads[0], self.heads[1] + other.heads[1]];
        Self { heads, n: self.n + other.n }
    }
}

impl Features {
    /// What the next word adds.
    pub(super) fn word(&mut self, word: &[u8], weights: &Weights) -> Sum {
        let mut sum = Sum::default();
        self.each(word, |bucket| {
            let [toxic, hate] = weights.table[bucket];
            sum.heads[0] += i32::from(toxic);
            sum.heads[1] += i32::from(hate);
            sum.n += 1;
        });
        sum
    }

    /// Calls `feature` with the bucket of every feature of the next word. Words that are not Latin have none.
    pub(super) fn each(&mut self, word: &[u8], mut feature: impl FnMut(usize)) {
        let mut marked = [b' '; WORD + 2];
        let mut n = 1;
        for byte in word.iter().filter(|b| **b != b' ').take(WORD) {
            if !byte.is_ascii() {
                self.before = 0;
                return;
            }
            marked[n] = *byte;
            n += 1;
        }
        let marked = &marked[..=n];
        for start in 0..marked.len() {
            let mut hash = BEGIN;
            for (length, byte) in marked[start..].iter().enumerate().take(*SIZES.end()) {
                hash = mix(hash, *byte);
                if length + 1 >= *SIZES.start() {
                    feature(bucket(hash));
                }
            }
        }
        let whole = marked.iter().fold(BEGIN ^ 0x5bd1_e995, |hash, byte| mix(hash, *byte));
        feature(bucket(whole));
        feature(bucket(whole.wrapping_mul(0x9e37_79b1) ^ self.before));
        self.before = whole;
    }
}

/// FNV-1a.
const BEGIN: u32 = 0x811c_9dc5;

fn mix(hash: u32, byte: u8) -> u32 {
    (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
}

/// The upper bits are better mixed than the lower ones.
fn bucket(hash: u32) -> usize {
    (hash.wrapping_mul(0x9e37_79b1) >> 16) as usize % BUCKETS
}
