//! Muon (Jordan et al. 2024): momentum whose singular values are made about equal before it is a step, so that directions that are seldom asked for
//! learn as fast as the others. For matrices of hidden layers.
//!
//! # Arithmetic
//! Five steps of a quintic Newton-Schulz iteration, `X = aX + (bG + cG²)X` with `G = XXᵀ`, whose coefficients raise small singular values fastest and
//! leave them between 0.7 and 1.2. A tall matrix takes `G = XᵀX` from the right instead, so that `G` is the smaller one.
//!
//! The step is as long as AdamW's usually is (root mean square of 0.2 a number, Liu et al. 2025), so that one learning rate serves both.

use super::{blend, square_sum};
use crate::Device;
use crate::gemm::{LeftPanels, Precision, RightPanels, Vectors, gemm};
use crate::parallel::zip;
use crate::simd::{Map, Simd};

/// Steps of the iteration.
const STEPS: usize = 5;
/// Its coefficients.
const COEFFICIENTS: [f32; 3] = [3.4445, -4.7750, 2.0315];
/// A matrix is not divided by less than this.
const SHORTEST: f64 = 1e-7;
/// The root mean square of AdamW's steps.
const USUAL: f32 = 0.2;

/// Muon at one step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Muon {
    /// Learning rate.
    pub rate: f32,
    /// Decay of the mean of gradients, which is looked ahead from (Nesterov).
    pub momentum: f32,
    /// Weight decay, times the rate.
    pub decay: f32,
    /// Gradients are multiplied by this first.
    pub scale: f32,
    /// In what the iteration multiplies.
    pub precision: Precision,
}

/// Room for a step, kept from matrix to matrix.
#[derive(Debug, Default)]
pub struct MuonRoom {
    left: LeftPanels,
    right: RightPanels,
    /// The gradient, then what the step goes by.
    x: Vec<f32>,
    next: Vec<f32>,
    gram: Vec<f32>,
    square: Vec<f32>,
}

impl Muon {
    /// One step of a matrix of `rows` by `cols`; `m` is the mean of its gradients.
    #[expect(clippy::too_many_arguments, reason = "what learns, what is remembered, what it learns from")]
    pub fn step(
        &self,
        dev: &Device,
        room: &mut MuonRoom,
        [rows, cols]: [usize; 2],
        w: &mut [f32],
        m: &mut [f32],
        gradient: &[f32],
    ) {
        assert!(w.len() == rows * cols && m.len() == w.len() && gradient.len() == w.len(), "three of {rows} by {cols}");
        let back = 1.0 - self.momentum;
        room.x.resize(w.len(), 0.0);
        zip(dev, &mut room.x, gradient, &Times(self.scale));
        blend(dev, m, &room.x, back);
        // Ahead of the mean by what the same gradient would move it again.
        zip(dev, &mut room.x, m, &Mix(back, self.momentum));
        room.even_out(dev, self.precision, [rows, cols]);
        let step = self.rate * USUAL * (rows.max(cols) as f32).sqrt();
        zip(dev, w, &room.x, &Mix(1.0 - self.rate * self.decay, -step));
    }
}

impl MuonRoom {
    /// Makes the singular values of `x` about equal.
    fn even_out(&mut self, dev: &Device, precision: Precision, [rows, cols]: [usize; 2]) {
        let length = square_sum(dev, &self.x).sqrt().max(SHORTEST);
        self.next.resize(rows * cols, 0.0);
        zip(dev, &mut self.next, &self.x, &Times((1.0 / length) as f32));
        std::mem::swap(&mut self.x, &mut self.next);
        let short = rows.min(cols);
        self.gram.resize(short * short, 0.0);
        self.square.resize(short * short, 0.0);
        (0..STEPS).for_each(|_| self.iterate(dev, precision, [rows, cols]));
    }

    fn iterate(&mut self, dev: &Device, precision: Precision, [rows, cols]: [usize; 2]) {
        let Self { left, right, x, next, gram, square } = self;
        let ([a, b, c], short, tall) = (COEFFICIENTS, rows.min(cols), rows > cols);
        let (x_rows, x_columns) = (Vectors::rows(x, cols), Vectors::columns(x, cols));
        let vectors = if tall { x_columns } else { x_rows };
        gemm(dev, left.pack(dev, precision, vectors), right.pack(dev, precision, vectors), gram, false);
        let vectors = Vectors::rows(gram, short);
        gemm(dev, left.pack(dev, precision, vectors), right.pack(dev, precision, vectors), square, false);
        zip(dev, gram, square, &Mix(b, c));
        zip(dev, next, x, &Times(a));
        // The inner matrix is its own transpose.
        let inner = Vectors::rows(gram, short);
        left.pack(dev, precision, if tall { x_rows } else { inner });
        right.pack(dev, precision, if tall { inner } else { x_columns });
        gemm(dev, left, right, next, true);
        std::mem::swap(x, next);
    }
}

/// `k a`.
struct Times(f32);

impl Map for Times {
    #[inline(always)]
    fn at<S: Simd>(&self, s: S, _: S::F, a: S::F, _: S::F) -> S::F {
        s.mul(a, s.splat(self.0))
    }
}

/// `p y + q a`.
struct Mix(f32, f32);

impl Map for Mix {
    #[inline(always)]
    fn at<S: Simd>(&self, s: S, y: S::F, a: S::F, _: S::F) -> S::F {
        s.fma(a, s.splat(self.1), s.mul(y, s.splat(self.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use crate::testing::Random;

    /// `a b` of matrices in f64, the first `m` by `k`.
    fn product(a: &[f64], b: &[f64], (m, k): (usize, usize)) -> Vec<f64> {
        let n = b.len() / k;
        (0..m * n).map(|at| (0..k).map(|t| a[at / n * k + t] * b[t * n + at % n]).sum()).collect()
    }

    fn transposed(x: &[f64], cols: usize) -> Vec<f64> {
        let rows = x.len() / cols;
        (0..x.len()).map(|at| x[at % rows * cols + at / rows]).collect()
    }

    /// The rule in f64, always from the left.
    fn exact(rule: &Muon, [rows, cols]: [usize; 2], w: &[f32], m: &[f32], g: &[f32]) -> [Vec<f64>; 2] {
        let [rate, momentum, decay, scale] = [rule.rate, rule.momentum, rule.decay, rule.scale].map(f64::from);
        let [a, b, c] = COEFFICIENTS.map(f64::from);
        let g: Vec<f64> = g.iter().map(|g| scale * f64::from(*g)).collect();
        let m: Vec<f64> = m.iter().zip(&g).map(|(m, g)| momentum * f64::from(*m) + (1.0 - momentum) * g).collect();
        let mut x: Vec<f64> = m.iter().zip(&g).map(|(m, g)| momentum * m + (1.0 - momentum) * g).collect();
        let length = x.iter().map(|x| x * x).sum::<f64>().sqrt();
        x.iter_mut().for_each(|x| *x /= length);
        for _ in 0..STEPS {
            let gram = product(&x, &transposed(&x, cols), (rows, cols));
            let square = product(&gram, &gram, (rows, rows));
            let inner: Vec<f64> = gram.iter().zip(square).map(|(g, s)| b * g + c * s).collect();
            let more = product(&inner, &x, (rows, rows));
            x.iter_mut().zip(more).for_each(|(x, more)| *x = a * *x + more);
        }
        let step = rate * 0.2 * (rows.max(cols) as f64).sqrt();
        [w.iter().zip(x).map(|(w, x)| f64::from(*w) * (1.0 - rate * decay) - step * x).collect(), m]
    }

    #[track_caller]
    fn check(shape: [usize; 2]) {
        let mut random = Random::new(5);
        let [w, m, g] = [(); 3].map(|()| random.numbers(shape[0] * shape[1]));
        let rule = |precision| Muon { rate: 1e-2, momentum: 0.95, decay: 0.1, scale: 0.5, precision };
        for (precision, near) in [(Precision::F32, 1e-5), (Precision::Bf16, 2e-3)] {
            let rule = rule(precision);
            let mut all = Vec::new();
            for (isa, threads) in Isa::available().into_iter().flat_map(|isa| [(isa, 1), (isa, 2)]) {
                let (mut w, mut m, dev) = (w.clone(), m.clone(), Device::with_isa(threads, isa));
                rule.step(&dev, &mut MuonRoom::default(), shape, &mut w, &mut m, &g);
                all.push([w, m]);
            }
            assert!(all.chunks(2).all(|two| two[0] == two[1]), "{shape:?}: the same bits on any number of threads");
            assert!(
                precision == Precision::Bf16 || all.iter().all(|one| *one == all[0]),
                "{shape:?}: everywhere in f32"
            );
            let want = exact(&rule, shape, &w, &m, &g);
            for (got, want) in all.iter().flat_map(|got| got.iter().flatten().zip(want.iter().flatten())) {
                assert!((f64::from(*got) - want).abs() < near, "{shape:?} {precision:?}: {got}, not {want}");
            }
        }
    }

    #[test]
    fn a_step_is_the_rule() {
        [[40, 70], [70, 40], [33, 33], [1, 50], [50, 1], [4, 300]].into_iter().for_each(check);
    }

    #[test]
    fn no_gradient_is_no_step() {
        let rule = Muon { rate: 1e-2, momentum: 0.95, decay: 0.0, scale: 1.0, precision: Precision::F32 };
        let (mut w, mut m) = ([1.0; 6], [0.0; 6]);
        rule.step(&Device::new(1), &mut MuonRoom::default(), [2, 3], &mut w, &mut m, &[0.0; 6]);
        assert_eq!((w, m), ([1.0; 6], [0.0; 6]));
    }
}
