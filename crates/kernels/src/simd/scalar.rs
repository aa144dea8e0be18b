//! Sixteen lanes in plain Rust: slow, obvious, the oracle of the others.

use std::array::from_fn;

use half::f16;

use super::{LANES, Simd};

/// Needs no instruction set.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scalar;

type F = [f32; LANES];
type I = [u32; LANES];

#[inline(always)]
fn map(a: F, b: F, f: impl Fn(f32, f32) -> f32) -> F {
    from_fn(|i| f(a[i], b[i]))
}

#[inline(always)]
fn map_int(a: I, b: I, f: impl Fn(u32, u32) -> u32) -> I {
    from_fn(|i| f(a[i], b[i]))
}

#[inline(always)]
fn fold(mut x: F, f: impl Fn(f32, f32) -> f32) -> f32 {
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            x[i] = f(x[i], x[i + half]);
        }
    }
    x[0]
}

impl Simd for Scalar {
    type F = F;
    type I = I;
    type M = [bool; LANES];
    const REGISTERS: usize = 16;

    #[inline(always)]
    fn splat(self, x: f32) -> F {
        [x; LANES]
    }
    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> F {
        *x
    }
    #[inline(always)]
    fn store(self, x: F, to: &mut [f32; LANES]) {
        *to = x;
    }
    #[inline(always)]
    fn load_f16(self, x: &[u16; LANES]) -> F {
        x.map(|bits| f16::from_bits(bits).to_f32())
    }
    #[inline(always)]
    fn load_bytes(self, x: &[u8; 4 * LANES]) -> I {
        let (lanes, _) = x.as_chunks();
        from_fn(|i| u32::from_le_bytes(lanes[i]))
    }
    #[inline(always)]
    fn load_blocks(self, x: [&[i8; 2 * LANES]; 2]) -> I {
        let lane = |i: usize| from_fn(|k| x[i / (LANES / 2)][4 * (i % (LANES / 2)) + k].cast_unsigned());
        from_fn(|i| u32::from_le_bytes(lane(i)))
    }
    #[inline(always)]
    fn dot_bytes(self, a: I, b: I, c: I) -> I {
        let product = |(a, b): (u8, u8)| i32::from(a) * i32::from(b.cast_signed());
        let dot = |a: u32, b: u32| a.to_le_bytes().into_iter().zip(b.to_le_bytes()).map(product).sum::<i32>();
        from_fn(|i| c[i].wrapping_add_signed(dot(a[i], b[i])))
    }
    #[inline(always)]
    fn prefetch<T, const N: usize>(self, _: &[T; N]) {}
    #[inline(always)]
    fn store_f16(self, x: F, to: &mut [u16; LANES]) {
        *to = x.map(|x| f16::from_f32(x).to_bits());
    }
    #[inline(always)]
    fn store_int(self, x: I, to: &mut [u32; LANES]) {
        *to = x;
    }
    #[inline(always)]
    fn add(self, a: F, b: F) -> F {
        map(a, b, |a, b| a + b)
    }
    #[inline(always)]
    fn sub(self, a: F, b: F) -> F {
        map(a, b, |a, b| a - b)
    }
    #[inline(always)]
    fn mul(self, a: F, b: F) -> F {
        map(a, b, |a, b| a * b)
    }
    #[inline(always)]
    fn div(self, a: F, b: F) -> F {
        map(a, b, |a, b| a / b)
    }
    #[inline(always)]
    fn sqrt(self, x: F) -> F {
        x.map(f32::sqrt)
    }
    #[inline(always)]
    fn fma(self, a: F, b: F, c: F) -> F {
        from_fn(|i| a[i].mul_add(b[i], c[i]))
    }
    #[inline(always)]
    fn min(self, a: F, b: F) -> F {
        map(a, b, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    fn max(self, a: F, b: F) -> F {
        map(a, b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    fn lt(self, a: F, b: F) -> Self::M {
        from_fn(|i| a[i] < b[i])
    }
    #[inline(always)]
    fn ge(self, a: F, b: F) -> Self::M {
        from_fn(|i| a[i] >= b[i])
    }
    #[inline(always)]
    fn select(self, m: Self::M, a: F, b: F) -> F {
        from_fn(|i| if m[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn mask_bits(self, m: Self::M) -> u16 {
        m.iter().rev().fold(0, |bits, &lane| bits << 1 | u16::from(lane))
    }
    #[inline(always)]
    fn mask(self, bits: u16) -> Self::M {
        from_fn(|i| bits >> i & 1 == 1)
    }
    #[inline(always)]
    fn bits(self, x: F) -> I {
        x.map(f32::to_bits)
    }
    #[inline(always)]
    fn as_float(self, x: I) -> F {
        x.map(f32::from_bits)
    }
    #[inline(always)]
    fn splat_int(self, x: u32) -> I {
        [x; LANES]
    }
    #[inline(always)]
    fn iota(self) -> I {
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]
    }
    #[inline(always)]
    fn add_int(self, a: I, b: I) -> I {
        map_int(a, b, u32::wrapping_add)
    }
    #[inline(always)]
    fn sub_int(self, a: I, b: I) -> I {
        map_int(a, b, u32::wrapping_sub)
    }
    #[inline(always)]
    fn mul_int(self, a: I, b: I) -> I {
        map_int(a, b, u32::wrapping_mul)
    }
    #[inline(always)]
    fn and(self, a: I, b: I) -> I {
        map_int(a, b, |a, b| a & b)
    }
    #[inline(always)]
    fn xor(self, a: I, b: I) -> I {
        map_int(a, b, |a, b| a ^ b)
    }
    #[inline(always)]
    fn shl<const N: i32>(self, a: I) -> I {
        a.map(|a| a << N)
    }
    #[inline(always)]
    fn shr<const N: i32>(self, a: I) -> I {
        a.map(|a| a >> N)
    }
    #[inline(always)]
    fn to_float(self, a: I) -> F {
        a.map(|a| a.cast_signed() as f32)
    }
    #[inline(always)]
    fn swap_pairs(self, x: F) -> F {
        from_fn(|i| x[i ^ 1])
    }
    #[inline(always)]
    fn interleave(self, a: F, b: F) -> [F; 2] {
        [0, LANES / 2].map(|half| from_fn(|i| if i % 2 == 0 { a[half + i / 2] } else { b[half + i / 2] }))
    }
    #[inline(always)]
    fn sum(self, x: F) -> f32 {
        fold(x, |a, b| a + b)
    }
    #[inline(always)]
    fn largest(self, x: F) -> f32 {
        fold(x, |a, b| if a > b { a } else { b })
    }
}
