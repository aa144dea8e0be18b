//! Gradients of what stands between the products, and the loss.
//!
//! Each is the derivative of the inference operation of the same name, row by row in a fixed order. What sums over rows (the gradient of a norm's
//! weight, of an embedding) is shared out by columns, so that the order of every sum is that of the rows.

mod distil;
mod dropout;

pub use distil::{Distil, Divergence, TEACHER_TOKENS, Teaching, distil};
pub use dropout::{Dropout, dropout};

use crate::Device;
use crate::activation::{Activation, Gated, Gelu, GeluTanh, Silu};
use crate::math::{erf, exp, ln, sigmoid, tanh};
use crate::norm::{Scaled, inverse_rms};
use crate::parallel::{Shared, rows, zip};
use crate::simd::{Kernel, LANES, Map, Simd, dispatch, sum_map, zip_map};

/// Columns that a task sums over all rows.
const COLUMNS: usize = 64;

/// `y = x / rms(x) * weight` like [`crate::rms_norm`], with `1 / rms` of every row for the gradient.
pub fn rms_norm_forward(dev: &Device, x: &[f32], weight: &[f32], eps: f32, y: &mut [f32], inverse: &mut [f32]) {
    let cols = weight.len();
    assert!(x.len() == y.len() && inverse.len() * cols == x.len(), "one scale for each row of {cols}");
    let inverse = Shared::new(inverse);
    rows(dev, y, cols, |first, y| {
        let inverse = inverse.part(first, y.len() / cols);
        dispatch(dev.isa(), Norm { x: &x[first * cols..][..y.len()], weight, eps, y, inverse });
    });
}

/// The gradient of [`rms_norm_forward`]: `dx += ..` and, where the weight learns, `dweight += ..`.
#[expect(clippy::too_many_arguments, reason = "inputs, what was kept, two results")]
pub fn rms_norm_backward(
    dev: &Device,
    x: &[f32],
    weight: &[f32],
    inverse: &[f32],
    dy: &[f32],
    dx: &mut [f32],
    dweight: Option<&mut [f32]>,
) {
    let cols = weight.len();
    assert!(x.len() == dy.len() && x.len() == dx.len() && inverse.len() * cols == x.len(), "rows of {cols}");
    rows(dev, dx, cols, |first, dx| {
        let part = first * cols..first * cols + dx.len();
        dispatch(dev.isa(), NormBack { x: &x[part.clone()], weight, inverse: &inverse[first..], dy: &dy[part], dx });
    });
    if let Some(dweight) = dweight {
        by_columns(dev, dweight, |first, out| dispatch(dev.isa(), SumRows { x, dy, inverse, cols, first, out }));
    }
}

/// `y = f(gate) * up`, both of them kept for the gradient.
pub fn gated_forward(dev: &Device, f: Activation, gate: &[f32], up: &[f32], y: &mut [f32]) {
    assert!(gate.len() == y.len() && up.len() == y.len(), "three of the same length");
    rows(dev, y, 1, |first, y| {
        let part = first..first + y.len();
        dispatch(dev.isa(), Gated { f, gate: &gate[part.clone()], up: &up[part], y });
    });
}

/// The gradient of [`gated_forward`], in place: `gate` and `up` become their own gradients.
pub fn gated_backward(dev: &Device, f: Activation, gate: &mut [f32], up: &mut [f32], dy: &[f32]) {
    assert!(gate.len() == dy.len() && up.len() == dy.len(), "three of the same length");
    let up = Shared::new(up);
    rows(dev, gate, 1, |first, gate| {
        let up = up.part(first, gate.len());
        dispatch(dev.isa(), GatedBack { f, gate, up, dy: &dy[first..] });
    });
}

/// The gradient of `y = f(x)`, in place: `x` becomes its own gradient.
pub fn activate_backward(dev: &Device, f: Activation, x: &mut [f32], dy: &[f32]) {
    match f {
        Activation::Silu => zip(dev, x, dy, &TimesSlope(SiluSlope)),
        Activation::GeluTanh => zip(dev, x, dy, &TimesSlope(GeluTanhSlope)),
        Activation::Gelu => zip(dev, x, dy, &TimesSlope(GeluSlope)),
    }
}

/// `y += x`.
pub fn add(dev: &Device, y: &mut [f32], x: &[f32]) {
    zip(dev, y, x, &Plus);
}

/// `y = x`.
pub fn copy(dev: &Device, y: &mut [f32], x: &[f32]) {
    assert_eq!(y.len(), x.len());
    rows(dev, y, 1, |first, y| y.copy_from_slice(&x[first..][..y.len()]));
}

/// `y = 0`.
pub fn zero(dev: &Device, y: &mut [f32]) {
    rows(dev, y, 1, |_, y| y.fill(0.0));
}

/// Rows of an embedding: `y[i] = table[tokens[i]] * scale`.
pub fn embed(dev: &Device, table: &[f32], tokens: &[u32], scale: f32, y: &mut [f32]) {
    let cols = y.len() / tokens.len().max(1);
    rows(dev, y, cols.max(1), |first, y| {
        for (y, token) in y.chunks_exact_mut(cols.max(1)).zip(&tokens[first..]) {
            let row = &table[*token as usize * cols..][..cols];
            y.iter_mut().zip(row).for_each(|(y, x)| *y = x * scale);
        }
    });
}

/// The gradient of [`embed`]: `dtable[tokens[i]] += dy[i] * scale`, in the order of the tokens.
pub fn embed_backward(dev: &Device, dtable: &mut [f32], tokens: &[u32], scale: f32, dy: &[f32]) {
    let cols = dy.len() / tokens.len().max(1);
    let table = Shared::new(dtable);
    dev.run(cols.div_ceil(COLUMNS), &|task| {
        let columns = task * COLUMNS..cols.min((task + 1) * COLUMNS);
        for (token, dy) in tokens.iter().zip(dy.chunks_exact(cols)) {
            let row = table.part(*token as usize * cols + columns.start, columns.len());
            row.iter_mut().zip(&dy[columns.clone()]).for_each(|(row, dy)| *row += dy * scale);
        }
    });
}

/// Cross-entropy of rows of logits against tokens. `losses[i]` is `ln(sum(exp)) - logit[target]`, and the logits of every row become the gradient of
/// `weights[i] * losses[i]`. With `softcap`, logits are `cap * tanh(x / cap)` of what the product gave, and the gradient is that of `x`.
pub fn cross_entropy(
    dev: &Device,
    logits: &mut [f32],
    targets: &[u32],
    weights: &[f32],
    softcap: Option<f32>,
    losses: &mut [f32],
) {
    assert!(targets.len() == losses.len() && weights.len() == losses.len(), "a target and a weight for each row");
    let cols = logits.len() / targets.len().max(1);
    assert!(targets.iter().all(|target| (*target as usize) < cols.max(1)), "targets below {cols}");
    let losses = Shared::new(losses);
    rows(dev, logits, cols.max(1), |first, logits| {
        for (i, row) in logits.chunks_exact_mut(cols).enumerate() {
            let (target, weight) = (targets[first + i] as usize, weights[first + i]);
            losses.part(first + i, 1)[0] = dispatch(dev.isa(), CrossEntropy { row, target, weight, softcap });
        }
    });
}

fn by_columns(dev: &Device, out: &mut [f32], task: impl Fn(usize, &mut [f32]) + Sync) {
    let cols = out.len();
    let out = Shared::new(out);
    dev.run(cols.div_ceil(COLUMNS), &|i| {
        let first = i * COLUMNS;
        task(first, out.part(first, COLUMNS.min(cols - first)));
    });
}

struct Norm<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    eps: f32,
    y: &'a mut [f32],
    inverse: &'a mut [f32],
}

impl Kernel for Norm<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let cols = self.weight.len();
        for ((y, x), inverse) in self.y.chunks_exact_mut(cols).zip(self.x.chunks_exact(cols)).zip(self.inverse) {
            *inverse = inverse_rms(s, x, self.eps);
            zip_map(s, y, x, self.weight, &Scaled(*inverse));
        }
    }
}

/// `dx += inverse (weight dy) - x inverse³ mean(weight dy x)`.
struct NormBack<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    inverse: &'a [f32],
    dy: &'a [f32],
    dx: &'a mut [f32],
}

impl Kernel for NormBack<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let cols = self.weight.len();
        let each = self.dx.chunks_exact_mut(cols).zip(self.x.chunks_exact(cols)).zip(self.dy.chunks_exact(cols));
        for (((dx, x), dy), inverse) in each.zip(self.inverse) {
            let mut sums = s.splat(0.0);
            let lanes = || x.chunks(LANES).zip(dy.chunks(LANES)).zip(self.weight.chunks(LANES));
            for ((x, dy), weight) in lanes() {
                sums = s.fma(s.mul(s.load_part(dy), s.load_part(weight)), s.load_part(x), sums);
            }
            let back = s.sum(sums) * inverse * inverse * inverse / cols as f32;
            for (((x, dy), weight), dx) in lanes().zip(dx.chunks_mut(LANES)) {
                let on = s.fma(s.mul(s.load_part(dy), s.load_part(weight)), s.splat(*inverse), s.load_part(dx));
                s.store_part(s.fma(s.load_part(x), s.splat(-back), on), dx);
            }
        }
    }
}

/// `out[c] += sum over rows of dy x inverse`.
struct SumRows<'a> {
    x: &'a [f32],
    dy: &'a [f32],
    inverse: &'a [f32],
    cols: usize,
    first: usize,
    out: &'a mut [f32],
}

impl Kernel for SumRows<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (at, out) in self.out.chunks_mut(LANES).enumerate() {
            let first = self.first + at * LANES;
            let mut sum = s.load_part(out);
            for (row, inverse) in self.inverse.iter().enumerate() {
                let place = row * self.cols + first..row * self.cols + first + out.len();
                let scaled = s.mul(s.load_part(&self.x[place.clone()]), s.splat(*inverse));
                sum = s.fma(s.load_part(&self.dy[place]), scaled, sum);
            }
            s.store_part(sum, out);
        }
    }
}

struct GatedBack<'a> {
    f: Activation,
    gate: &'a mut [f32],
    up: &'a mut [f32],
    dy: &'a [f32],
}

impl Kernel for GatedBack<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        match self.f {
            Activation::Silu => gated_back(s, self, &Silu, &SiluSlope),
            Activation::GeluTanh => gated_back(s, self, &GeluTanh, &GeluTanhSlope),
            Activation::Gelu => gated_back(s, self, &Gelu, &GeluSlope),
        }
    }
}

#[inline(always)]
fn gated_back<S: Simd>(s: S, GatedBack { gate, up, dy, .. }: GatedBack<'_>, value: &impl Map, slope: &impl Map) {
    for ((gate, up), dy) in gate.chunks_mut(LANES).zip(up.chunks_mut(LANES)).zip(dy.chunks(LANES)) {
        let (x, y, dy) = (s.load_part(gate), s.load_part(up), s.load_part(dy));
        s.store_part(s.mul(s.mul(dy, y), slope.at(s, x, x, x)), gate);
        s.store_part(s.mul(dy, value.at(s, x, x, x)), up);
    }
}

struct Plus;

impl Map for Plus {
    #[inline(always)]
    fn at<S: Simd>(&self, s: S, y: S::F, a: S::F, _: S::F) -> S::F {
        s.add(y, a)
    }
}

/// `a * slope(y)`.
struct TimesSlope<F>(F);

impl<F: Map> Map for TimesSlope<F> {
    #[inline(always)]
    fn at<S: Simd>(&self, s: S, y: S::F, a: S::F, _: S::F) -> S::F {
        s.mul(a, self.0.at(s, y, y, y))
    }
}

/// `σ (1 + x (1 - σ))`.
struct SiluSlope;

impl Map for SiluSlope {
    #[inline(always)]
    fn at<S: Simd>(&self, s: S, x: S::F, _: S::F, _: S::F) -> S::F {
        let sigma = sigmoid(s, x);
        s.mul(sigma, s.fma(x, s.sub(s.splat(1.0), sigma), s.splat(1.0)))
    }
}

/// With `u = 2 sqrt(2/π) (x + 0.044715 x³)`, the function is `x σ(u)` and its slope `σ + x σ (1 - σ) u'`.
struct GeluTanhSlope;

impl Map for GeluTanhSlope {
    #[inline(always)]
    fn at<S: Simd>(&self, s: S, x: S::F, _: S::F, _: S::F) -> S::F {
        const DOUBLE: f32 = 1.595_769; // 2 sqrt(2 / pi)
        let square = s.mul(x, x);
        let cubic = s.fma(square, s.splat(DOUBLE * 0.044_715), s.splat(DOUBLE));
        let sigma = sigmoid(s, s.mul(x, cubic));
        let inner = s.fma(square, s.splat(3.0 * DOUBLE * 0.044_715), s.splat(DOUBLE));
        s.mul(sigma, s.fma(s.mul(x, s.sub(s.splat(1.0), sigma)), inner, s.splat(1.0)))
    }
}

/// `Φ(x) + x φ(x)`.
struct GeluSlope;

impl Map for GeluSlope {
    #[inline(always)]
    fn at<S: Simd>(&self, s: S, x: S::F, _: S::F, _: S::F) -> S::F {
        const DENSITY: f32 = 0.398_942_3; // 1 / sqrt(2 pi)
        let below = s.fma(erf(s, s.mul(x, s.splat(std::f32::consts::FRAC_1_SQRT_2))), s.splat(0.5), s.splat(0.5));
        let density = s.mul(exp(s, s.mul(s.mul(x, x), s.splat(-0.5))), s.splat(DENSITY));
        s.fma(x, density, below)
    }
}

/// One row.
struct CrossEntropy<'a> {
    row: &'a mut [f32],
    target: usize,
    weight: f32,
    softcap: Option<f32>,
}

impl Kernel for CrossEntropy<'_> {
    type Out = f32;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        let Self { row, target, weight, softcap } = self;
        cap(s, row, softcap);
        let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum = sum_map(s, row, &ExpFrom(largest));
        let mut lanes = [0.0; LANES];
        s.store(ln(s, s.splat(sum)), &mut lanes);
        let loss = largest + lanes[0] - row[target];
        for (at, x) in row.chunks_mut(LANES).enumerate() {
            let y = s.load_part(x);
            let p = s.mul(exp(s, s.sub(y, s.splat(largest))), s.splat(weight / sum));
            let hit = target.wrapping_sub(at * LANES);
            let one = s.select(s.mask(if hit < LANES { 1 << hit } else { 0 }), s.splat(weight), s.splat(0.0));
            s.store_part(s.mul(s.sub(p, one), capped_slope(s, y, softcap)), x);
        }
        loss
    }
}

/// `cap tanh(x / cap)`, where there is one.
#[inline(always)]
fn cap<S: Simd>(s: S, row: &mut [f32], softcap: Option<f32>) {
    let Some(cap) = softcap else { return };
    for x in row.chunks_mut(LANES) {
        let y = s.mul(s.splat(cap), tanh(s, s.mul(s.load_part(x), s.splat(1.0 / cap))));
        s.store_part(y, x);
    }
}

/// The slope of [`cap`] where it gave `y`.
#[inline(always)]
fn capped_slope<S: Simd>(s: S, y: S::F, softcap: Option<f32>) -> S::F {
    softcap.map_or(s.splat(1.0), |cap| {
        let ratio = s.mul(y, s.splat(1.0 / cap));
        s.sub(s.splat(1.0), s.mul(ratio, ratio))
    })
}

/// `e^(x - from)`.
struct ExpFrom(f32);

impl Map for ExpFrom {
    #[inline(always)]
    fn at<S: Simd>(&self, s: S, x: S::F, _: S::F, _: S::F) -> S::F {
        exp(s, s.sub(x, s.splat(self.0)))
    }
}

#[cfg(test)]
mod tests;
