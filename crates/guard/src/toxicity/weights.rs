//! The classifier's numbers: a byte per head and bucket, a scale and a bias per head.
//!
//! The file is two scales, two biases (`f32`, little-endian), then the bytes, bucket by bucket.

use std::sync::OnceLock;

use super::{
    Score,
    features::{BUCKETS, Sum},
};

/// The shipped numbers; `data/toxicity.md` says where they come from.
static SHIPPED: &[u8; HEAD + 2 * BUCKETS] = include_bytes!("../../data/toxicity.bin");
/// Bytes before the table.
const HEAD: usize = 16;

/// A classifier.
#[derive(Debug)]
pub(crate) struct Weights {
    scale: [f32; 2],
    bias: [f32; 2],
    pub(super) table: Vec<[i8; 2]>,
}

impl Weights {
    /// The classifier that this crate carries.
    pub(crate) fn shipped() -> &'static Self {
        static WEIGHTS: OnceLock<Weights> = OnceLock::new();
        WEIGHTS.get_or_init(|| {
            let (head, table) = SHIPPED.split_at(HEAD);
            let mut floats = head.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
            let mut pair = || [floats.next().unwrap_or_default(), floats.next().unwrap_or_default()];
            let (scale, bias) = (pair(), pair());
            let signed = |pair: &[u8; 2]| pair.map(|byte| byte as i8);
            Self { scale, bias, table: table.as_chunks::<2>().0.iter().map(signed).collect() }
        })
    }

    /// Probabilities for a stretch of text; without Latin words there is nothing to judge.
    pub(super) fn score(&self, sum: Sum) -> Score {
        if sum.n == 0 {
            return Score::default();
        }
        let root = (sum.n as f32).sqrt();
        let head = |i: usize| sigmoid(f64::from(self.scale[i] * sum.heads[i] as f32 / root + self.bias[i])) as f32;
        Score { toxic: head(0), hate: head(1) }
    }
}

/// The file of these weights: bytes of the largest magnitude that fit.
pub(super) fn file(weights: &[[f64; 2]], bias: [f64; 2]) -> Vec<u8> {
    let largest = |i: usize| weights.iter().map(|w| w[i].abs()).fold(f64::MIN_POSITIVE, f64::max);
    let scale = [largest(0) / 127.0, largest(1) / 127.0];
    let mut file = Vec::with_capacity(HEAD + 2 * BUCKETS);
    for number in [scale[0], scale[1], bias[0], bias[1]] {
        file.extend((number as f32).to_le_bytes());
    }
    for pair in weights {
        for i in 0..2 {
            file.push(((pair[i] / scale[i]).round() as i8).cast_unsigned());
        }
    }
    file
}

/// 1 / (1 + e^-z) without the platform's `exp`: training must give the same bytes everywhere.
pub(super) fn sigmoid(z: f64) -> f64 {
    let z = z.clamp(-30.0, 30.0);
    // e^-z as (e^(-z / 64))^64, with a Taylor polynomial for the small exponent.
    let x = -z / 64.0;
    let small = 1.0 + x * (1.0 + x / 2.0 * (1.0 + x / 3.0 * (1.0 + x / 4.0 * (1.0 + x / 5.0 * (1.0 + x / 6.0)))));
    let power = (0..6).fold(small, |e, _| e * e);
    1.0 / (1.0 + power)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sigmoid_is_one() {
        for z in [-40.0, -8.0, -1.0, 0.0, 0.3, 2.0, 9.0, 40.0f64] {
            let want = 1.0 / (1.0 + (-z.clamp(-30.0, 30.0)).exp());
            assert!((sigmoid(z) - want).abs() < 1e-5, "{z}: {} {want}", sigmoid(z));
        }
    }
}
