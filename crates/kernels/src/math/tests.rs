//! Errors of the polynomials against f64, over dense samples of their ranges.

use super::*;
use crate::Isa;
use crate::simd::{Kernel, LANES, dispatch};

#[derive(Clone, Copy)]
enum Function {
    Exp,
    Exp2,
    Sigmoid,
    Tanh,
    Ln,
    Erf,
}

struct Apply<'a>(Function, &'a mut [[f32; LANES]]);

impl Kernel for Apply<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for lanes in self.1 {
            let x = s.load(lanes);
            let y = match self.0 {
                Function::Exp => exp(s, x),
                Function::Exp2 => exp2_negative(s, x),
                Function::Sigmoid => sigmoid(s, x),
                Function::Tanh => tanh(s, x),
                Function::Ln => ln(s, x),
                Function::Erf => erf(s, x),
            };
            s.store(y, lanes);
        }
    }
}

fn apply(isa: Isa, function: Function, x: &[f32]) -> Vec<f32> {
    let mut lanes: Vec<[f32; LANES]> = x.chunks(LANES).map(|c| std::array::from_fn(|i| c[i % c.len()])).collect();
    dispatch(isa, Apply(function, &mut lanes));
    lanes.concat()[..x.len()].to_vec()
}

/// Distance in units in the last place of the true value.
fn ulps(got: f32, want: f64) -> f64 {
    let unit = f64::from((want as f32).abs().next_up()) - f64::from((want as f32).abs());
    (f64::from(got) - want).abs() / unit
}

#[track_caller]
fn check(function: Function, range: std::ops::Range<f32>, limit: f64, truth: impl Fn(f64) -> f64) {
    let n = 200_000;
    let x: Vec<f32> = (0..n).map(|i| range.start + (range.end - range.start) * (i as f32 / n as f32)).collect();
    let y = apply(Isa::detect(), function, &x);
    let worst = x
        .iter()
        .zip(&y)
        .map(|(&x, &y)| (ulps(y, truth(f64::from(x))), x))
        .fold((0.0, 0.0), |a, b| if b.0 > a.0 { b } else { a });
    assert!(worst.0 <= limit, "{} ulp at {}", worst.0, worst.1);
    for isa in Isa::available() {
        let x = &x[..n / 10];
        assert!(apply(isa, function, x).iter().zip(&y).all(|(a, b)| a.to_bits() == b.to_bits()), "{isa:?} differs");
    }
}

/// Kummer's series.
fn erf_f64(x: f64) -> f64 {
    let (mut term, mut sum) = (x, x);
    for n in 1..200 {
        term *= 2.0 * x * x / (2 * n + 1) as f64;
        sum += term;
    }
    2.0 / std::f64::consts::PI.sqrt() * (-x * x).exp() * sum
}

#[test]
fn exp_is_within_two_units() {
    check(Function::Exp, -87.3..88.0, 2.0, f64::exp);
    check(Function::Exp, -1.0..1.0, 2.0, f64::exp);
}

#[test]
fn exp2_is_within_two_units() {
    check(Function::Exp2, -125.9..0.0, 2.0, f64::exp2);
    check(Function::Exp2, -1.0..0.0, 2.0, f64::exp2);
}

#[test]
fn sigmoid_is_within_four_units() {
    check(Function::Sigmoid, -80.0..80.0, 4.0, |x| 1.0 / (1.0 + (-x).exp()));
}

#[test]
fn tanh_is_within_four_units() {
    check(Function::Tanh, -12.0..12.0, 4.0, f64::tanh);
    check(Function::Tanh, -1e-3..1e-3, 4.0, f64::tanh);
}

#[test]
fn ln_is_within_two_units() {
    check(Function::Ln, 1e-7..1.0, 2.0, f64::ln);
    check(Function::Ln, 0.9..1.1, 2.0, f64::ln);
    check(Function::Ln, 1.0..1e9, 2.0, f64::ln);
}

#[test]
fn erf_is_within_three_units() {
    check(Function::Erf, -5.0..5.0, 3.0, erf_f64);
    check(Function::Erf, -1e-3..1e-3, 3.0, erf_f64);
}

#[test]
fn ends_and_special_values() {
    let x = [f32::NEG_INFINITY, -1000.0, -87.4, 0.0, -0.0, f32::INFINITY, f32::NAN];
    let exp = apply(Isa::Scalar, Function::Exp, &x);
    assert_eq!(exp[..5], [0.0, 0.0, 0.0, 1.0, 1.0]);
    assert!(exp[5] > 1e38 && exp[6].is_nan());
    let exp2 = apply(Isa::Scalar, Function::Exp2, &[f32::NEG_INFINITY, -127.0, 0.0, f32::NAN]);
    assert_eq!(exp2[..3], [0.0, 0.0, 1.0]);
    assert!(exp2[3].is_nan());
    assert_eq!(apply(Isa::Scalar, Function::Tanh, &[f32::NEG_INFINITY, f32::INFINITY, 0.0]), [-1.0, 1.0, 0.0]);
    assert_eq!(apply(Isa::Scalar, Function::Erf, &[f32::NEG_INFINITY, f32::INFINITY, 0.0]), [-1.0, 1.0, 0.0]);
}
