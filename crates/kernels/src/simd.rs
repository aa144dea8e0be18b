//! Sixteen lanes of f32, on every instruction set: what the kernels outside the matrix products are written in.
//!
//! A kernel is written once, generic over [`Simd`], and compiled for each instruction set. The lane structure is part of the
//! arithmetic: sixteen lanes are two registers on AVX2, one on AVX-512 and an array in plain Rust, every multiply-add is
//! fused, and a sum over lanes always folds halves (8, 4, 2, 1). So all instruction sets give the same bits by construction,
//! and the plain one is an oracle to the bit.
//!
//! An implementation is a token: a value of it exists only where its instructions may run, because [`dispatch`] alone makes
//! them, behind the check that [`crate::Device`] made. That is why their methods are safe to call.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod scalar;

use crate::Isa;
use crate::aligned::LINE;

use scalar::Scalar;

/// Lanes of a vector.
pub(crate) const LANES: usize = 16;

/// Operations on sixteen lanes. Comparisons with NaN are false; `min` and `max` give `b` where `a` does not win.
pub(crate) trait Simd: Copy + Send + Sync + 'static {
    /// Sixteen f32.
    type F: Copy;
    /// Sixteen u32.
    type I: Copy;
    /// Sixteen booleans.
    type M: Copy;
    /// How many vectors fit into the registers: blocking goes by it.
    const REGISTERS: usize;

    fn splat(self, x: f32) -> Self::F;
    fn load(self, x: &[f32; LANES]) -> Self::F;
    fn store(self, x: Self::F, to: &mut [f32; LANES]);
    fn load_f16(self, x: &[u16; LANES]) -> Self::F;
    /// Four bytes to a lane.
    fn load_bytes(self, x: &[u8; 4 * LANES]) -> Self::I;
    /// Four bytes to a lane, of each block eight lanes.
    fn load_blocks(self, x: [&[i8; 2 * LANES]; 2]) -> Self::I;
    /// Asks for the cache lines of `x`. A hint: it changes nothing but time.
    fn prefetch<T, const N: usize>(self, x: &[T; N]);
    /// Rounds to nearest even.
    fn store_f16(self, x: Self::F, to: &mut [u16; LANES]);

    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    fn sqrt(self, x: Self::F) -> Self::F;
    /// `a * b + c`, rounded once.
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    fn min(self, a: Self::F, b: Self::F) -> Self::F;
    fn max(self, a: Self::F, b: Self::F) -> Self::F;

    fn lt(self, a: Self::F, b: Self::F) -> Self::M;
    fn ge(self, a: Self::F, b: Self::F) -> Self::M;
    /// `m ? a : b`.
    fn select(self, m: Self::M, a: Self::F, b: Self::F) -> Self::F;
    /// Bit `i` is lane `i`.
    fn mask_bits(self, m: Self::M) -> u16;
    /// Lane `i` is bit `i`.
    fn mask(self, bits: u16) -> Self::M;

    fn bits(self, x: Self::F) -> Self::I;
    fn store_int(self, x: Self::I, to: &mut [u32; LANES]);
    fn as_float(self, x: Self::I) -> Self::F;
    fn splat_int(self, x: u32) -> Self::I;
    /// `0, 1, .. 15`.
    fn iota(self) -> Self::I;
    fn add_int(self, a: Self::I, b: Self::I) -> Self::I;
    fn sub_int(self, a: Self::I, b: Self::I) -> Self::I;
    fn mul_int(self, a: Self::I, b: Self::I) -> Self::I;
    fn and(self, a: Self::I, b: Self::I) -> Self::I;
    fn xor(self, a: Self::I, b: Self::I) -> Self::I;
    fn shl<const N: i32>(self, a: Self::I) -> Self::I;
    /// Shifts zeros in.
    fn shr<const N: i32>(self, a: Self::I) -> Self::I;
    /// Of lanes read as i32.
    fn to_float(self, a: Self::I) -> Self::F;

    /// `c` and the four products of the bytes of lanes: those of `a` have no sign, those of `b` have one. Exact, but for the 32 bits of the sum.
    fn dot_bytes(self, a: Self::I, b: Self::I, c: Self::I) -> Self::I;

    /// `c + a.1 b.1 + a.0 b.0` for lanes read as pairs of bf16, the low half first. Where instructions work on bf16, they
    /// round sums their own way and take subnormal numbers for zero: the operations whose bits depend on the instruction set.
    #[inline(always)]
    fn dot_bf16(self, a: Self::I, b: Self::I, c: Self::F) -> Self::F {
        let high = |x| self.as_float(self.and(x, self.splat_int(0xffff_0000)));
        let low = |x| self.as_float(self.shl::<16>(x));
        self.fma(low(a), low(b), self.fma(high(a), high(b), c))
    }

    /// The nearest f16, ties to even; infinite beyond their range.
    #[inline(always)]
    fn round_f16(self, x: Self::F) -> Self::F {
        let mut halves = [0; LANES];
        self.store_f16(x, &mut halves);
        self.load_f16(&halves)
    }

    /// Pairs of bf16, rounded to nearest even: `low` in the low halves. A NaN stays one.
    #[inline(always)]
    fn pair_bf16(self, low: Self::F, high: Self::F) -> Self::I {
        let round = |x: Self::F| {
            let odd = self.and(self.shr::<16>(self.bits(x)), self.splat_int(1));
            let rounded = self.add_int(self.bits(x), self.add_int(odd, self.splat_int(0x7fff)));
            // Rounding could carry a NaN's mantissa over into a number: it is made the usual one instead.
            let number = self.ge(self.abs(x), self.splat(0.0));
            self.bits(self.select(number, self.as_float(rounded), self.splat(f32::NAN)))
        };
        let high = self.and(round(high), self.splat_int(0xffff_0000));
        self.xor(self.shr::<16>(round(low)), high)
    }

    /// Thirty-two numbers as bf16, in their order: neighbours are a pair.
    #[inline(always)]
    fn line_bf16(self, x: &[[f32; LANES]; 2]) -> Self::I {
        let (mut low, mut high) = ([0.0; LANES], [0.0; LANES]);
        for (i, pair) in x.as_flattened().chunks_exact(2).enumerate() {
            (low[i], high[i]) = (pair[0], pair[1]);
        }
        self.pair_bf16(self.load(&low), self.load(&high))
    }

    /// `1, 0, 3, 2, ..`: neighbours change places.
    fn swap_pairs(self, x: Self::F) -> Self::F;
    /// Folds halves: 8, 4, 2, 1.
    fn sum(self, x: Self::F) -> f32;
    /// The largest lane.
    fn largest(self, x: Self::F) -> f32;

    /// Lanes of `a` and `b` in turns: those of the lower halves, those of the upper ones.
    fn interleave(self, a: Self::F, b: Self::F) -> [Self::F; 2];

    /// The first `x.len()` lanes from `x`, the others zero.
    #[inline(always)]
    fn load_part(self, x: &[f32]) -> Self::F {
        if let Ok(x) = x.try_into() {
            return self.load(x);
        }
        let mut lanes = [0.0; LANES];
        lanes[..x.len()].copy_from_slice(x);
        self.load(&lanes)
    }

    /// The first `to.len()` lanes to `to`.
    #[inline(always)]
    fn store_part(self, x: Self::F, to: &mut [f32]) {
        if let Ok(to) = to.try_into() {
            return self.store(x, to);
        }
        let mut lanes = [0.0; LANES];
        self.store(x, &mut lanes);
        to.copy_from_slice(&lanes[..to.len()]);
    }

    /// `x` in all bits but the sign.
    #[inline(always)]
    fn abs(self, x: Self::F) -> Self::F {
        self.as_float(self.and(self.bits(x), self.splat_int(0x7fff_ffff)))
    }
}

/// A computation that can be compiled for each instruction set. `run` must be `#[inline(always)]`, and so must all that it calls
/// with a [`Simd`]: inlining is what carries the instruction set into it.
pub(crate) trait Kernel {
    /// The result.
    type Out;
    /// Computes it with `s`.
    fn run<S: Simd>(self, s: S) -> Self::Out;
}

/// Asks for the cache lines of `x`.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
#[expect(unsafe_code, reason = "a prefetch takes a pointer")]
fn prefetch_lines<T, const N: usize>(x: &[T; N]) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    for offset in (0..size_of::<[T; N]>()).step_by(64) {
        // SAFETY: the address lies inside the slice; a prefetch reads nothing that could be seen.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(x.as_ptr().cast::<i8>().add(offset)) };
    }
}

/// Runs `kernel` with the instructions of `isa`.
#[inline]
pub(crate) fn dispatch<K: Kernel>(isa: Isa, kernel: K) -> K::Out {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 | Isa::Amx => avx512::run(kernel),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => avx2::run(kernel),
        _ => kernel.run(Scalar),
    }
}

/// Asks for all cache lines of a row.
#[inline(always)]
pub(crate) fn ask<S: Simd>(s: S, row: &[f32]) {
    for line in row.chunks(LINE) {
        s.prefetch(std::array::from_ref(&line[0]));
    }
}

/// Rows become columns. Each round rotates the bits of every number's place, row and column behind each other, by one.
#[inline(always)]
pub(crate) fn transpose<S: Simd>(s: S, mut rows: [S::F; LANES]) -> [S::F; LANES] {
    for _ in 0..LANES.ilog2() {
        let before = rows;
        for i in 0..LANES / 2 {
            [rows[2 * i], rows[2 * i + 1]] = s.interleave(before[i], before[i + LANES / 2]);
        }
    }
    rows
}

/// A function of up to three numbers, for [`zip_map`] and [`sum_map`]. Not a closure, since closures cannot be told to be inlined.
pub(crate) trait Map {
    /// The result for sixteen of them.
    fn at<S: Simd>(&self, s: S, y: S::F, a: S::F, b: S::F) -> S::F;
}

/// `y = f(y, a, b)`, number by number.
#[inline(always)]
pub(crate) fn zip_map<S: Simd>(s: S, y: &mut [f32], a: &[f32], b: &[f32], f: &impl Map) {
    let (whole, rest) = y.as_chunks_mut::<LANES>();
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for ((y, a), b) in whole.iter_mut().zip(a).zip(b) {
        s.store(f.at(s, s.load(y), s.load(a), s.load(b)), y);
    }
    if !rest.is_empty() {
        let y = f.at(s, s.load_part(rest), s.load_part(a_rest), s.load_part(b_rest));
        s.store_part(y, rest);
    }
}

/// The sum of `f(x, x, x)`, zeros filled in at the end: four vectors of running sums, taken in turns.
#[inline(always)]
pub(crate) fn sum_map<S: Simd>(s: S, x: &[f32], f: &impl Map) -> f32 {
    let mut sums = [s.splat(0.0); 4];
    let (fours, rest) = x.as_chunks::<{ 4 * LANES }>();
    for four in fours {
        let (vectors, _) = four.as_chunks::<LANES>();
        for (sum, x) in sums.iter_mut().zip(vectors) {
            let x = s.load(x);
            *sum = s.add(*sum, f.at(s, x, x, x));
        }
    }
    for (sum, part) in sums.iter_mut().zip(rest.chunks(LANES)) {
        let x = s.load_part(part);
        // Lanes past the end must add nothing, and f(0) need not be zero.
        let inside = s.mask(((1_u32 << part.len()) - 1) as u16);
        *sum = s.add(*sum, s.select(inside, f.at(s, x, x, x), s.splat(0.0)));
    }
    s.sum(s.add(s.add(sums[0], sums[2]), s.add(sums[1], sums[3])))
}

#[cfg(test)]
mod tests;
