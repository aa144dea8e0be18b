//! Losses against a teacher: how far a student's next-token distribution is from what the teacher said of a row, mixed with the cross-entropy of the
//! token that followed.
//!
//! A teacher says the log-probabilities of some tokens; all others are one bucket that holds the rest of its mass. Over these buckets, with the teacher's
//! `p`, the student's `q` and a skew `a` (DistiLLM, Ko et al. 2024):
//!
//! ```text
//! forward:  KL(p | a p + (1-a) q)        reverse:  KL(q | (1-a) p + a q)
//! ```
//!
//! # Arithmetic
//! With `h` of a bucket being `q` times the loss's slope by `q`, and `H` the sum of all `h`, the slope by the logit of a token is `h - q H`, where a token
//! of the rest gets its share of its bucket's `h`. Buckets are few and computed in f64; the pass over the vocabulary is that of the cross-entropy.

use super::{ExpFrom, cap, capped_slope};
use crate::Device;
use crate::math::exp;
use crate::parallel::{Shared, rows};
use crate::simd::{Kernel, LANES, Simd, dispatch, sum_map};

/// Tokens that a teacher may name in a row.
pub const TEACHER_TOKENS: usize = 256;
/// A teacher's rest is no less: its log-probabilities are no more exact than this.
const REST: f64 = 1e-7;
/// A weight of the rest's tokens is no larger: what it multiplies may be next to nothing.
const LARGEST: f64 = 1e37;

/// Which way round a student is compared with its teacher.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Divergence {
    /// Where the teacher goes, the student shall go: on texts of the teacher's.
    #[default]
    Forward,
    /// Where the teacher does not go, the student shall not: on texts of the student's.
    Reverse,
}

/// How a teacher's word and the token that followed are mixed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Distil {
    /// The divergence's share of the loss; the cross-entropy has the rest.
    pub share: f32,
    /// How much of the one distribution is mixed into the other, from 0 to below 1: what keeps gradients small where they are far apart.
    pub skew: f32,
    /// Which way round.
    pub divergence: Divergence,
}

impl Default for Distil {
    fn default() -> Self {
        Self { share: 0.5, skew: 0.1, divergence: Divergence::Forward }
    }
}

/// What a teacher said of rows. Tokens of a row are different ones; a row without tokens has no teacher, and its loss is the cross-entropy.
#[derive(Debug, Clone, Copy)]
pub struct Teaching<'a> {
    /// Where each row's tokens end.
    pub ends: &'a [usize],
    /// Tokens of all rows.
    pub ids: &'a [u32],
    /// The logarithm of the probability of each.
    pub logprobs: &'a [f32],
}

impl<'a> Teaching<'a> {
    fn row(&self, row: usize) -> (&'a [u32], &'a [f32]) {
        let start = if row == 0 { 0 } else { self.ends[row - 1] };
        (&self.ids[start..self.ends[row]], &self.logprobs[start..self.ends[row]])
    }
}

/// Like [`super::cross_entropy`], against a teacher as well, by a rule for each row.
#[expect(clippy::too_many_arguments, reason = "those of the cross-entropy, and a teacher")]
pub fn distil(
    dev: &Device,
    logits: &mut [f32],
    (targets, teaching): (&[u32], Teaching<'_>),
    weights: &[f32],
    rules: &[Distil],
    softcap: Option<f32>,
    losses: &mut [f32],
) {
    assert!(targets.len() == losses.len() && weights.len() == losses.len(), "a target and a weight for each row");
    assert!(
        teaching.ends.len() == losses.len() && rules.len() == losses.len(),
        "a teacher's word and a rule for each row"
    );
    let cols = logits.len() / targets.len().max(1);
    assert!(targets.iter().chain(teaching.ids).all(|id| (*id as usize) < cols.max(1)), "tokens below {cols}");
    let losses = Shared::new(losses);
    rows(dev, logits, cols.max(1), |first, logits| {
        for (i, row) in logits.chunks_exact_mut(cols).enumerate() {
            let (target, weight) = (targets[first + i] as usize, weights[first + i]);
            let (ids, logprobs) = teaching.row(first + i);
            let rule = rules[first + i];
            let share = if ids.is_empty() { 0.0 } else { rule.share };
            let rule = &Distil { share, ..rule };
            let taught = Taught { row, target, weight, ids, logprobs, rule, softcap };
            losses.part(first + i, 1)[0] = dispatch(dev.isa(), taught);
        }
    });
}

impl Distil {
    /// A bucket's part of the divergence, and `q` times its slope by `q`.
    fn bucket(&self, (p, ln_p): (f64, f64), (q, ln_q): (f64, f64)) -> (f64, f64) {
        let skew = f64::from(self.skew);
        match self.divergence {
            Divergence::Forward if skew == 0.0 => (p * (ln_p - ln_q), -p),
            Divergence::Forward => {
                let mixed = skew * p + (1.0 - skew) * q;
                (p * (ln_p - mixed.ln()), -(1.0 - skew) * p * q / mixed)
            }
            Divergence::Reverse if q == 0.0 => (0.0, 0.0),
            Divergence::Reverse => {
                let mixed = (1.0 - skew) * p + skew * q;
                let (ln_mixed, own) = if skew == 0.0 { (ln_p, 0.0) } else { (mixed.ln(), skew * q / mixed) };
                (q * (ln_q - ln_mixed), q * (ln_q - ln_mixed + 1.0 - own))
            }
        }
    }
}

/// One row.
struct Taught<'a> {
    row: &'a mut [f32],
    target: usize,
    weight: f32,
    ids: &'a [u32],
    logprobs: &'a [f32],
    rule: &'a Distil,
    softcap: Option<f32>,
}

/// A row's softmax, with the named tokens apart.
struct Softmax {
    largest: f32,
    /// Of all exponentials, and of those of the rest.
    sum: f64,
    rest: f64,
}

/// The buckets of a row.
struct Buckets {
    loss: f64,
    /// Of the named tokens.
    h: [f64; TEACHER_TOKENS],
    /// Of the rest, for each unit of the student's probability.
    rest: f64,
    /// Of all.
    total: f64,
}

impl Kernel for Taught<'_> {
    type Out = f32;
    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) -> f32 {
        cap(s, self.row, self.softcap);
        let mut named = [0.0; TEACHER_TOKENS];
        named.iter_mut().zip(self.ids).for_each(|(named, id)| *named = self.row[*id as usize]);
        let named = &named[..self.ids.len()];
        let target = self.row[self.target];
        let softmax = self.softmax(s, named);
        let buckets = self.buckets(&softmax, named);
        let (share, weight) = (f64::from(self.rule.share), f64::from(self.weight));
        let known = f64::from(softmax.largest) + softmax.sum.ln() - f64::from(target);
        // What every token's probability is multiplied by.
        let common = weight * ((1.0 - share) - share * buckets.total);
        let of_rest = (common + weight * share * buckets.rest) / softmax.sum;
        self.spread(s, softmax.largest, of_rest.clamp(-LARGEST, LARGEST) as f32);
        let slope = |y: f32| self.softcap.map_or(1.0, |cap| 1.0 - f64::from(y / cap).powi(2));
        for ((id, y), h) in self.ids.iter().zip(named).zip(buckets.h) {
            let q = softmax.probability(*y);
            self.row[*id as usize] = ((common * q + weight * share * h) * slope(*y)) as f32;
        }
        self.row[self.target] -= (weight * (1.0 - share) * slope(target)) as f32;
        ((1.0 - share) * known + share * buckets.loss) as f32
    }
}

impl Softmax {
    fn probability(&self, y: f32) -> f64 {
        f64::from(y - self.largest).exp() / self.sum
    }
}

impl Taught<'_> {
    /// The rest is summed without the named tokens: what they leave of 1 would be rounding.
    #[inline(always)]
    fn softmax<S: Simd>(&mut self, s: S, named: &[f32]) -> Softmax {
        let largest = self.row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        self.ids.iter().for_each(|id| self.row[*id as usize] = f32::NEG_INFINITY);
        let rest = f64::from(sum_map(s, self.row, &ExpFrom(largest)));
        self.ids.iter().zip(named).for_each(|(id, y)| self.row[*id as usize] = *y);
        let sum = rest + named.iter().map(|y| f64::from(y - largest).exp()).sum::<f64>();
        Softmax { largest, sum, rest }
    }

    fn buckets(&self, softmax: &Softmax, named: &[f32]) -> Buckets {
        let mut buckets = Buckets { loss: 0.0, h: [0.0; TEACHER_TOKENS], rest: 0.0, total: 0.0 };
        if self.rule.share == 0.0 {
            return buckets;
        }
        let mut left = 1.0;
        for ((y, ln_p), h) in named.iter().zip(self.logprobs).zip(&mut buckets.h) {
            let (ln_p, ln_q) = (f64::from(*ln_p), f64::from(y - softmax.largest) - softmax.sum.ln());
            let (loss, slope) = self.rule.bucket((ln_p.exp(), ln_p), (ln_q.exp(), ln_q));
            (*h, left) = (slope, left - ln_p.exp());
            buckets.loss += loss;
            buckets.total += slope;
        }
        if named.len() < self.row.len() {
            let (p, q) = (left.max(REST), softmax.rest.max(f64::from(f32::MIN_POSITIVE)) / softmax.sum);
            let (loss, slope) = self.rule.bucket((p, p.ln()), (q, q.ln()));
            buckets.loss += loss;
            buckets.total += slope;
            buckets.rest = slope / q;
        }
        buckets
    }

    /// Every logit becomes its exponential, so many times, times the slope of the cap.
    #[inline(always)]
    fn spread<S: Simd>(&mut self, s: S, largest: f32, times: f32) {
        for x in self.row.chunks_mut(LANES) {
            let y = s.load_part(x);
            let q = s.mul(exp(s, s.sub(y, s.splat(largest))), s.splat(times));
            s.store_part(s.mul(q, capped_slope(s, y, self.softcap)), x);
        }
    }
}
