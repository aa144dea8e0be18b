//! Element-wise non-linearities, fused with the preparation of the next product.

use std::cell::RefCell;

use crate::math::{erf, sigmoid};
use crate::parallel::rows;
use crate::simd::{Kernel, Simd, dispatch, zip_map};
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

thread_local! {
    /// Rows on their way into `Activations`; grown once.
    static ROWS: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
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
    ROWS.with_borrow_mut(|buffer| {
        buffer.resize(gate.len(), 0.0);
        rows(dev, buffer, cols, |first, y| {
            let range = first * cols..first * cols + y.len();
            dispatch(dev.isa(), Gated { f, gate: &gate[range.clone()], up: &up[range], y });
        });
        out.set(dev, buffer, cols, forms);
    });
}

/// `x = f(x)`.
pub fn activate(dev: &Device, f: Activation, x: &mut [f32]) {
    // Rows of one number: how they are grouped does not matter to their results.
    rows(dev, x, 1, |_, x| dispatch(dev.isa(), Activate { f, x }));
}

/// `y = f(gate) * up`.
struct Gated<'a> {
    f: Activation,
    gate: &'a [f32],
    up: &'a [f32],
    y: &'a mut [f32],
}

impl Kernel for Gated<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { f, gate, up, y } = self;
        match f {
            Activation::Silu => zip_map(s, y, gate, up, |_, g, u| s.mul(silu(s, g), u)),
            Activation::GeluTanh => zip_map(s, y, gate, up, |_, g, u| s.mul(gelu_tanh(s, g), u)),
            Activation::Gelu => zip_map(s, y, gate, up, |_, g, u| s.mul(gelu(s, g), u)),
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
        let Self { f, x } = self;
        let (whole, rest) = x.as_chunks_mut();
        for lanes in whole {
            s.store(apply(s, f, s.load(lanes)), lanes);
        }
        let y = apply(s, f, s.load_part(rest));
        s.store_part(y, rest);
    }
}

#[inline(always)]
fn apply<S: Simd>(s: S, f: Activation, x: S::F) -> S::F {
    match f {
        Activation::Silu => silu(s, x),
        Activation::GeluTanh => gelu_tanh(s, x),
        Activation::Gelu => gelu(s, x),
    }
}

#[inline(always)]
fn silu<S: Simd>(s: S, x: S::F) -> S::F {
    s.mul(x, sigmoid(s, x))
}

/// `x/2 (1 + tanh u)` is `x sigmoid(2u)`, which loses nothing where `tanh` comes close to -1.
#[inline(always)]
fn gelu_tanh<S: Simd>(s: S, x: S::F) -> S::F {
    const DOUBLE: f32 = 1.595_769_1; // 2 sqrt(2 / pi)
    let cubic = s.fma(s.mul(x, x), s.splat(DOUBLE * 0.044_715), s.splat(DOUBLE));
    s.mul(x, sigmoid(s, s.mul(x, cubic)))
}

#[inline(always)]
fn gelu<S: Simd>(s: S, x: S::F) -> S::F {
    let half = s.mul(x, s.splat(0.5));
    s.fma(half, erf(s, s.mul(x, s.splat(std::f32::consts::FRAC_1_SQRT_2))), half)
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
