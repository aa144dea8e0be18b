//! exp, tanh, erf and ln as polynomials over sixteen lanes: the same bits on every instruction set.
//!
//! The coefficients interpolate the functions in Chebyshev nodes. Errors against f64, in units in the last place, are bounded by
//! the tests below: `exp` 2, `exp2` 2, `sigmoid`-based ones 4, `tanh` 4, `ln` 2, `erf` 3. Results of `exp` and `exp2` under the
//! smallest normal number are zero, because arithmetic on subnormal numbers costs a hundred cycles an operation.

use std::f32::consts::{FRAC_2_SQRT_PI, LN_2, LOG2_E};

use crate::simd::Simd;

/// ln 2 in two parts; the first has so few bits that its product with an exponent is exact.
const LN2_HIGH: f32 = 0.693_359_4;
const LN2_LOW: f32 = -2.121_944_4e-4;
/// Adding it rounds to an integer and leaves that integer in the low bits.
const ROUND: f32 = 12_582_912.0;

/// `c[0] + x (c[1] + x (..))`.
#[inline(always)]
fn horner<S: Simd, const N: usize>(s: S, x: S::F, c: [f32; N]) -> S::F {
    let mut y = s.splat(c[N - 1]);
    for c in c.iter().rev().skip(1) {
        y = s.fma(y, x, s.splat(*c));
    }
    y
}

/// `2^n` for a `t` that is an integer `n` plus [`ROUND`].
#[inline(always)]
fn power_of_two<S: Simd>(s: S, t: S::F) -> S::F {
    s.as_float(s.add_int(s.shl::<23>(s.bits(t)), s.splat_int(127 << 23)))
}

/// `x` as `n ln 2 + r`: `2^n` and `e^r - 1`.
#[inline(always)]
fn split_exp<S: Simd>(s: S, x: S::F) -> (S::F, S::F) {
    let t = s.fma(x, s.splat(LOG2_E), s.splat(ROUND));
    let n = s.sub(t, s.splat(ROUND));
    let r = s.fma(n, s.splat(-LN2_HIGH), x);
    let r = s.fma(n, s.splat(-LN2_LOW), r);
    let p = horner(s, r, [0.5, 0.166_665_78, 0.041_666_556, 0.008_363_173, 0.001_392_617_6]);
    (power_of_two(s, t), s.fma(s.mul(r, r), p, r))
}

/// `e^x`; zero where that is subnormal, and no more than `e^88`.
#[inline(always)]
pub(crate) fn exp<S: Simd>(s: S, x: S::F) -> S::F {
    // Bounds first, so that 2^n is a normal number. NaN passes: `min` and `max` give their second operand then.
    let bounded = s.max(s.splat(-87.336_54), s.min(s.splat(88.0), x));
    let (scale, e) = split_exp(s, bounded);
    let y = s.fma(scale, e, scale);
    s.select(s.lt(x, s.splat(-87.336_54)), s.splat(0.0), y)
}

/// `2^x` for `x <= 0`; zero where that is subnormal.
#[inline(always)]
pub(crate) fn exp2_negative<S: Simd>(s: S, x: S::F) -> S::F {
    let bounded = s.max(s.splat(-126.0), x);
    let t = s.add(bounded, s.splat(ROUND));
    let r = s.sub(bounded, s.sub(t, s.splat(ROUND)));
    let p = horner(s, r, [LN_2, 0.240_226_5, 0.055_503_57, 0.009_618_083, 0.001_339_086_3, 0.000_154_531_63]);
    let scale = power_of_two(s, t);
    let y = s.fma(scale, s.mul(r, p), scale);
    s.select(s.lt(x, s.splat(-126.0)), s.splat(0.0), y)
}

/// `1 / (1 + e^-x)`.
#[inline(always)]
pub(crate) fn sigmoid<S: Simd>(s: S, x: S::F) -> S::F {
    let e = exp(s, s.sub(s.splat(0.0), x));
    s.div(s.splat(1.0), s.add(s.splat(1.0), e))
}

/// `tanh x`, precise near zero too: `m / (m + 2)` with `m = e^2x - 1`.
#[inline(always)]
pub(crate) fn tanh<S: Simd>(s: S, x: S::F) -> S::F {
    let double = s.add(x, x);
    // Beyond 20 the result is 1 to the last bit.
    let bounded = s.max(s.splat(-20.0), s.min(s.splat(20.0), double));
    let (scale, e) = split_exp(s, bounded);
    let m = s.fma(scale, e, s.sub(scale, s.splat(1.0)));
    s.div(m, s.add(m, s.splat(2.0)))
}

/// `ln x` for positive normal `x`.
#[inline(always)]
pub(crate) fn ln<S: Simd>(s: S, x: S::F) -> S::F {
    // The exponent that leaves a mantissa in [sqrt(1/2), sqrt(2)).
    const SQRT_HALF: u32 = 0x3f35_04f3;
    let shifted = s.sub_int(s.bits(x), s.splat_int(SQRT_HALF));
    let n = s.sub(s.to_float(s.shr::<23>(s.add_int(shifted, s.splat_int(127 << 23)))), s.splat(127.0));
    let mantissa = s.add_int(s.and(shifted, s.splat_int(0x007f_ffff)), s.splat_int(SQRT_HALF));
    let f = s.sub(s.as_float(mantissa), s.splat(1.0));
    let c = [
        0.333_333_3,
        -0.250_003_07,
        0.200_010_45,
        -0.166_412_82,
        0.142_144_96,
        -0.129_981_83,
        0.126_223_19,
        -0.079_027_44,
    ];
    let square = s.mul(f, f);
    let tail = s.mul(s.mul(f, square), horner(s, f, c));
    let tail = s.fma(square, s.splat(-0.5), tail);
    let low = s.fma(n, s.splat(LN2_LOW), tail);
    s.fma(n, s.splat(LN2_HIGH), s.add(f, low))
}

/// The error function.
#[inline(always)]
pub(crate) fn erf<S: Simd>(s: S, x: S::F) -> S::F {
    let a = s.min(s.splat(4.0), s.abs(x));
    let z = s.mul(a, a);
    let near =
        [FRAC_2_SQRT_PI, -0.376_126_26, 0.112_835_94, -0.026_854_211, 0.005_189_087_2, -0.000_801_686_43, 7.875_875e-5];
    let near = s.mul(a, horner(s, z, near));
    let far = [
        -0.000_320_138_06,
        1.130_233_4,
        0.631_826_04,
        0.110_080_086,
        -0.026_421_135,
        0.004_759_596,
        -0.000_596_805_65,
        4.605_804e-5,
        -1.637_151_4e-6,
    ];
    let far = exp(s, s.sub(s.splat(0.0), horner(s, a, far)));
    let y = s.select(s.lt(a, s.splat(1.0)), near, s.sub(s.splat(1.0), far));
    let sign = s.and(s.bits(x), s.splat_int(1 << 31));
    s.as_float(s.xor(s.bits(y), sign))
}

#[cfg(test)]
mod tests;
