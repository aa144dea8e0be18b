//! Steps of optimizers over flat parameters, and what they need to know of gradients.

mod muon;

pub use muon::{Muon, MuonRoom};

use crate::Device;
use crate::parallel::{Shared, rows, zip};
use crate::simd::{Kernel, LANES, Map, Simd, dispatch, sum_map};

/// Numbers that are summed in one go: sums of sums are taken in f64, in order.
const CHUNK: usize = 16 << 10;

/// AdamW (Loshchilov & Hutter 2019) at one step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamW {
    /// Learning rate.
    pub rate: f32,
    /// Decay of the mean of gradients.
    pub beta1: f32,
    /// Decay of the mean of their squares.
    pub beta2: f32,
    /// Added to the root of the squares.
    pub eps: f32,
    /// Weight decay, times the rate.
    pub decay: f32,
    /// The number of this step, from 1 on: means that began at zero are corrected by it.
    pub step: u32,
    /// Gradients are multiplied by this first (clipping, accumulation).
    pub scale: f32,
}

impl AdamW {
    /// `m = β₁m + (1-β₁)g`, `v = β₂v + (1-β₂)g²`, `w -= rate (m̂ / (√v̂ + eps) + decay w)`.
    pub fn step(&self, dev: &Device, w: &mut [f32], m: &mut [f32], v: &mut [f32], gradient: &[f32]) {
        assert!(m.len() == w.len() && v.len() == w.len() && gradient.len() == w.len(), "four of the same length");
        let (m, v) = (Shared::new(m), Shared::new(v));
        rows(dev, w, 1, |first, w| {
            let n = w.len();
            dispatch(
                dev.isa(),
                Step { rule: self, m: m.part(first, n), v: v.part(first, n), g: &gradient[first..][..n], w },
            );
        });
    }
}

/// `to += share (x - to)`: a running average.
pub fn blend(dev: &Device, to: &mut [f32], x: &[f32], share: f32) {
    zip(dev, to, x, &Towards(share));
}

/// `y + share (a - y)`.
struct Towards(f32);

impl Map for Towards {
    #[inline(always)]
    fn at<S: Simd>(&self, s: S, y: S::F, a: S::F, _: S::F) -> S::F {
        s.fma(s.splat(self.0), s.sub(a, y), y)
    }
}

/// The sum of squares, in a fixed order.
pub fn square_sum(dev: &Device, x: &[f32]) -> f64 {
    square_sums(dev, x, CHUNK).iter().sum()
}

/// Sums of squares of blocks of so many numbers, each in a fixed order: whoever adds them up may have them from several machines.
pub fn square_sums(dev: &Device, x: &[f32], block: usize) -> Vec<f64> {
    let mut sums = vec![0.0; x.len().div_ceil(block)];
    let each = CHUNK.div_ceil(block);
    let parts = Shared::new(&mut sums);
    dev.run(x.len().div_ceil(each * block), &|task| {
        let blocks = x[task * each * block..].chunks(block).take(each);
        let sums = parts.part(task * each, blocks.len());
        sums.iter_mut().zip(blocks).for_each(|(sum, x)| *sum = f64::from(dispatch(dev.isa(), Squares(x))));
    });
    sums
}

struct Squares<'a>(&'a [f32]);

impl Kernel for Squares<'_> {
    type Out = f32;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        sum_map(s, self.0, &crate::norm::SquareFrom(0.0))
    }
}

struct Step<'a> {
    rule: &'a AdamW,
    w: &'a mut [f32],
    m: &'a mut [f32],
    v: &'a mut [f32],
    g: &'a [f32],
}

impl Kernel for Step<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let AdamW { rate, beta1, beta2, eps, decay, step, scale } = *self.rule;
        let correction = |beta: f32| 1.0 / (1.0 - f64::from(beta).powi(step.cast_signed())) as f32;
        let (mean, square) = (correction(beta1), correction(beta2));
        let lanes = self
            .w
            .chunks_mut(LANES)
            .zip(self.m.chunks_mut(LANES))
            .zip(self.v.chunks_mut(LANES))
            .zip(self.g.chunks(LANES));
        for (((w, m), v), g) in lanes {
            let g = s.mul(s.load_part(g), s.splat(scale));
            let new_m = s.fma(s.load_part(m), s.splat(beta1), s.mul(g, s.splat(1.0 - beta1)));
            let new_v = s.fma(s.load_part(v), s.splat(beta2), s.mul(s.mul(g, g), s.splat(1.0 - beta2)));
            let root = s.sqrt(s.mul(new_v, s.splat(square)));
            let change = s.div(s.mul(new_m, s.splat(mean)), s.add(root, s.splat(eps)));
            let old = s.load_part(w);
            s.store_part(s.fma(s.fma(old, s.splat(decay), change), s.splat(-rate), old), w);
            s.store_part(new_m, m);
            s.store_part(new_v, v);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use crate::testing::Random;

    /// The rule in f64.
    fn exact(rule: &AdamW, w: f32, m: f32, v: f32, g: f32) -> [f64; 3] {
        let [rate, b1, b2, eps, decay, scale] =
            [rule.rate, rule.beta1, rule.beta2, rule.eps, rule.decay, rule.scale].map(f64::from);
        let g = f64::from(g) * scale;
        let (m, v) = (b1 * f64::from(m) + (1.0 - b1) * g, b2 * f64::from(v) + (1.0 - b2) * g * g);
        let steps = rule.step.cast_signed();
        let change = m / (1.0 - b1.powi(steps)) / ((v / (1.0 - b2.powi(steps))).sqrt() + eps);
        [f64::from(w) - rate * (change + decay * f64::from(w)), m, v]
    }

    #[test]
    fn a_step_is_the_rule() {
        let rule = AdamW { rate: 1e-2, beta1: 0.9, beta2: 0.95, eps: 1e-8, decay: 0.1, step: 3, scale: 0.5 };
        let mut random = Random::new(1);
        let n = 20_003;
        let [w, m, g] = [(); 3].map(|()| random.numbers(n));
        let v: Vec<f32> = random.numbers(n).iter().map(|x| x * x).collect();
        let mut all = Vec::new();
        for (isa, threads) in Isa::available().into_iter().flat_map(|isa| [(isa, 1), (isa, 2)]) {
            let (mut w, mut m, mut v) = (w.clone(), m.clone(), v.clone());
            rule.step(&Device::with_isa(threads, isa), &mut w, &mut m, &mut v, &g);
            all.push([w, m, v]);
        }
        assert!(all.iter().all(|one| *one == all[0]), "the same bits everywhere");
        for i in 0..n {
            for (got, want) in all[0].iter().map(|x| f64::from(x[i])).zip(exact(&rule, w[i], m[i], v[i], g[i])) {
                assert!((got - want).abs() < 1e-6, "{i}: {got}, not {want}");
            }
        }
    }

    #[test]
    fn an_average_goes_a_share_of_the_way() {
        let mut random = Random::new(3);
        let [to, x] = [(); 2].map(|()| random.numbers(10_001));
        let all = Isa::available().into_iter().flat_map(|isa| [(isa, 1), (isa, 2)]).map(|(isa, threads)| {
            let mut to = to.clone();
            blend(&Device::with_isa(threads, isa), &mut to, &x, 0.25);
            to
        });
        for got in all {
            let want = to.iter().zip(&x).map(|(to, x)| 0.25f32.mul_add(x - to, *to));
            assert!(got.iter().copied().eq(want), "the same bits everywhere");
        }
    }

    #[test]
    fn squares_are_summed_in_one_order() {
        let x = Random::new(2).numbers(100_001);
        let want: f64 = x.iter().map(|x| f64::from(*x).powi(2)).sum();
        let sums: Vec<f64> = [1, 2].map(|threads| square_sum(&Device::new(threads), &x)).into();
        assert!(sums[0] == sums[1] && (sums[0] - want).abs() < 1e-6 * want, "{sums:?}, not {want}");
    }
}
