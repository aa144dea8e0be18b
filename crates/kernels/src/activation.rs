//! Element-wise non-linearities, fused with the preparation of the next product.

use crate::math::{erf, sigmoid};
use crate::parallel::rows;
use crate::simd::{Kernel, Map, Simd, dispatch, zip_map};
use crate::{Activations, Device, Form};

/// The function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Activation {
    /// `x * sigmoid(x)`.
    Silu,
    /// GELU, tanh approximation.
    GeluTanh,
    /// GELU with the error function.
    Gelu,
}

/// `f(gate) * up` (SwiGLU, GeGLU: Shazeer 2020), straight into `out` in each of `forms`. Rows are `cols` wide.
#[expect(clippy::too_many_arguments, reason = "two inputs, one output and its forms")]
pub fn gated(
    dev: &Device,
    f: Activation,
    gate: &[f32],
    up: &[f32],
    cols: usize,
    out: &mut Activations,
    forms: &[Form],
) {
    assert_eq!(gate.len(), up.len());
    out.fill(dev, gate.len() / cols.max(1), cols, forms, &|row, columns, y| {
        let range = row * cols + columns.start..row * cols + columns.end;
        dispatch(dev.isa(), Gated { f, gate: &gate[range.clone()], up: &up[range], y });
    });
}

/// `x = f(x)`.
pub fn activate(dev: &Device, f: Activation, x: &mut [f32]) {
    // Rows of one number: how they are grouped does not matter to their results.
    rows(dev, x, 1, |_, x| dispatch(dev.isa(), Activate { f, x }));
}

/// `y = f(gate) * up`.
pub(crate) struct Gated<'a> {
    pub(crate) f: Activation,
    pub(crate) gate: &'a [f32],
    pub(crate) up: &'a [f32],
    pub(crate) y: &'a mut [f32],
}

impl Kernel for Gated<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { f, gate, up, y } = self;
        match f {
            Activation::Silu => zip_map(s, y, gate, up, &Times(Silu)),
            Activation::GeluTanh => zip_map(s, y, gate, up, &Times(GeluTanh)),
            Activation::Gelu => zip_map(s, y, gate, up, &Times(Gelu)),
        }
    }
}

/// `x = f(x)`.
struct Activate<'a> {
    f: Activation,
    x: &'a mut [f32],
}

impl Kernel for Activate<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        match self.f {
            Activation::Silu => map(s, self.x, &Silu),
            Activation::GeluTanh => map(s, self.x, &GeluTanh),
            Activation::Gelu => map(s, self.x, &Gelu),
        }
    }
}

#[inline(always)]
fn map<S: Simd>(s: S, x: &mut [f32], f: &impl Map) {
    let (whole, rest) = x.as_chunks_mut();
    for lanes in whole {
        let x = s.load(lanes);
        s.store(f.at(s, x, x, x), lanes);
    }
    let x = s.load_part(rest);
    s.store_part(f.at(s, x, x, x), rest);
}

/// `f(a) * b`.
struct Times<F>(F);

impl<F: Map> Map for Times<F> {
    #[inline(always)]
    fn at<S: Simd>(&self, s: S, _: S::F, a: S::F, b: S::F) -> S::F {
        s.mul(self.0.at(s, a, a, a), b)
    }
}

/// `x sigmoid(x)`.
pub(crate) struct Silu;

impl Map for Silu {
    #[inline(always)]
    fn at<S: Simd>(&self, s: S, x: S::F, _: S::F, _: S::F) -> S::F {
        s.mul(x, sigmoid(s, x))
    }
}

/// `x/2 (1 + tanh u)` is `x sigmoid(2u)`, which loses nothing where `tanh` comes close to -1.
pub(crate) struct GeluTanh;

impl Map for GeluTanh {
    #[inline(always)]
    fn at<S: Simd>(&self, s: S, x: S::F, _: S::F, _: S::F) -> S::F {
        const DOUBLE: f32 = 1.595_769; // 2 sqrt(2 / pi)
        let cubic = s.fma(s.mul(x, x), s.splat(DOUBLE * 0.044_715), s.splat(DOUBLE));
        s.mul(x, sigmoid(s, s.mul(x, cubic)))
    }
}

/// `x/2 (1 + erf(x / sqrt 2))`.
pub(crate) struct Gelu;

impl Map for Gelu {
    #[inline(always)]
    fn at<S: Simd>(&self, s: S, x: S::F, _: S::F, _: S::F) -> S::F {
        let half = s.mul(x, s.splat(0.5));
        s.fma(half, erf(s, s.mul(x, s.splat(std::f32::consts::FRAC_1_SQRT_2))), half)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;

    /// The definitions in f64; `erf` by its integral.
    fn exact(f: Activation, x: f64) -> f64 {
        match f {
            Activation::Silu => x / (1.0 + (-x).exp()),
            Activation::GeluTanh => {
                let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
                0.5 * x * (1.0 + u.tanh())
            }
            Activation::Gelu => {
                let (n, end) = (2000, x / 2f64.sqrt());
                let step = end / n as f64;
                let integral: f64 = (0..n).map(|i| (-((i as f64 + 0.5) * step).powi(2)).exp() * step).sum();
                0.5 * x * (1.0 + 2.0 / std::f64::consts::PI.sqrt() * integral)
            }
        }
    }

    #[test]
    fn activations_match_their_definitions_everywhere() {
        let x: Vec<f32> = (0..20_003).map(|i| (i as f32 - 10_000.0) / 800.0).collect();
        for f in [Activation::Silu, Activation::GeluTanh, Activation::Gelu] {
            let mut all = Vec::new();
            for isa in Isa::available() {
                for threads in [1, 2] {
                    let mut y = x.clone();
                    activate(&Device::with_isa(threads, isa), f, &mut y);
                    all.push(y);
                }
            }
            assert!(all.iter().all(|y| *y == all[0]), "{f:?}: all the same bits");
            for (&x, &y) in x.iter().zip(&all[0]).step_by(7) {
                let want = exact(f, f64::from(x));
                assert!((f64::from(y) - want).abs() < 2e-7 * (1.0 + want.abs()), "{f:?}({x}) = {y}, not {want}");
            }
        }
    }
}
