//! Sixteen lanes in one AVX-512 register.
#![expect(unsafe_code, reason = "instructions that not every machine has; the token proves that this one does")]

use std::arch::x86_64::*;
use std::mem::transmute;

use super::{Kernel, LANES, Simd};

/// Proof that the machine has AVX-512 F, BW, DQ, VL, VNNI and BF16: made by [`run`] only.
#[derive(Debug, Clone, Copy)]
pub(super) struct Avx512(());

/// Runs `kernel` with AVX-512.
pub(super) fn run<K: Kernel>(kernel: K) -> K::Out {
    /// What is inlined here is compiled for these features.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c")]
    fn inner<K: Kernel>(kernel: K) -> K::Out {
        kernel.run(Avx512(()))
    }
    // SAFETY: a device has `Isa::Avx512` only where the machine has these features.
    unsafe { inner(kernel) }
}

impl Simd for Avx512 {
    type F = __m512;
    type I = __m512i;
    type M = __mmask16;
    const REGISTERS: usize = 32;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        // SAFETY: the token proves the feature.
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> Self::F {
        // SAFETY: the token proves the feature; the reference proves sixteen numbers.
        unsafe { _mm512_loadu_ps(x.as_ptr()) }
    }
    #[inline(always)]
    fn store(self, x: Self::F, to: &mut [f32; LANES]) {
        // SAFETY: the token proves the feature; the reference proves sixteen numbers.
        unsafe {
            _mm512_storeu_ps(to.as_mut_ptr(), x);
        }
    }
    #[inline(always)]
    fn load_f16(self, x: &[u16; LANES]) -> Self::F {
        // SAFETY: the token proves the feature; the reference proves sixteen numbers.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(x.as_ptr().cast())) }
    }
    #[inline(always)]
    fn load_bytes(self, x: &[u8; 4 * LANES]) -> Self::I {
        // SAFETY: the token proves the feature; the reference proves 64 bytes.
        unsafe { _mm512_loadu_si512(x.as_ptr().cast()) }
    }
    #[inline(always)]
    fn load_blocks(self, [a, b]: [&[i8; 2 * LANES]; 2]) -> Self::I {
        // SAFETY: the token proves the feature; the references prove 32 bytes each.
        unsafe {
            let (a, b) = (_mm256_loadu_si256(a.as_ptr().cast()), _mm256_loadu_si256(b.as_ptr().cast()));
            _mm512_inserti64x4::<1>(_mm512_castsi256_si512(a), b)
        }
    }
    #[inline(always)]
    fn dot_bytes(self, a: Self::I, b: Self::I, c: Self::I) -> Self::I {
        // SAFETY: the token proves the feature.
        unsafe { _mm512_dpbusd_epi32(c, a, b) }
    }
    #[inline(always)]
    fn prefetch<T, const N: usize>(self, x: &[T; N]) {
        super::prefetch_lines(x);
    }
    #[inline(always)]
    fn store_f16(self, x: Self::F, to: &mut [u16; LANES]) {
        // SAFETY: the token proves the feature; the reference proves sixteen numbers.
        unsafe {
            _mm256_storeu_si256(to.as_mut_ptr().cast(), _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(x));
        }
    }
    #[inline(always)]
    fn store_int(self, x: Self::I, to: &mut [u32; LANES]) {
        // SAFETY: the token proves the feature; the reference proves sixteen numbers.
        unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), x) }
    }
    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: the token proves the feature.
        unsafe { _mm512_add_ps(a, b) }
    }
    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: the token proves the feature.
        unsafe { _mm512_sub_ps(a, b) }
    }
    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: the token proves the feature.
        unsafe { _mm512_mul_ps(a, b) }
    }
    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: the token proves the feature.
        unsafe { _mm512_div_ps(a, b) }
    }
    #[inline(always)]
    fn sqrt(self, x: Self::F) -> Self::F {
        // SAFETY: the token proves the feature.
        unsafe { _mm512_sqrt_ps(x) }
    }
    #[inline(always)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        // SAFETY: the token proves the feature.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    fn min(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: the token proves the feature.
        unsafe { _mm512_min_ps(a, b) }
    }
    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: the token proves the feature.
        unsafe { _mm512_max_ps(a, b) }
    }
    #[inline(always)]
    fn lt(self, a: Self::F, b: Self::F) -> Self::M {
        // SAFETY: the token proves the feature.
        unsafe { _mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b) }
    }
    #[inline(always)]
    fn ge(self, a: Self::F, b: Self::F) -> Self::M {
        // SAFETY: the token proves the feature.
        unsafe { _mm512_cmp_ps_mask::<_CMP_GE_OQ>(a, b) }
    }
    #[inline(always)]
    fn select(self, m: Self::M, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: the token proves the feature.
        unsafe { _mm512_mask_blend_ps(m, b, a) }
    }
    #[inline(always)]
    fn mask_bits(self, m: Self::M) -> u16 {
        m
    }
    #[inline(always)]
    fn mask(self, bits: u16) -> Self::M {
        bits
    }
    #[inline(always)]
    fn bits(self, x: Self::F) -> Self::I {
        // SAFETY: the token proves the feature.
        unsafe { _mm512_castps_si512(x) }
    }
    #[inline(always)]
    fn as_float(self, x: Self::I) -> Self::F {
        // SAFETY: the token proves the feature.
        unsafe { _mm512_castsi512_ps(x) }
    }
    #[inline(always)]
    fn splat_int(self, x: u32) -> Self::I {
        // SAFETY: the token proves the feature.
        unsafe { _mm512_set1_epi32(x.cast_signed()) }
    }
    #[inline(always)]
    fn iota(self) -> Self::I {
        // SAFETY: the token proves the feature.
        unsafe { _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15) }
    }
    #[inline(always)]
    fn add_int(self, a: Self::I, b: Self::I) -> Self::I {
        // SAFETY: the token proves the feature.
        unsafe { _mm512_add_epi32(a, b) }
    }
    #[inline(always)]
    fn sub_int(self, a: Self::I, b: Self::I) -> Self::I {
        // SAFETY: the token proves the feature.
        unsafe { _mm512_sub_epi32(a, b) }
    }
    #[inline(always)]
    fn mul_int(self, a: Self::I, b: Self::I) -> Self::I {
        // SAFETY: the token proves the feature.
        unsafe { _mm512_mullo_epi32(a, b) }
    }
    #[inline(always)]
    fn and(self, a: Self::I, b: Self::I) -> Self::I {
        // SAFETY: the token proves the feature.
        unsafe { _mm512_and_si512(a, b) }
    }
    #[inline(always)]
    fn xor(self, a: Self::I, b: Self::I) -> Self::I {
        // SAFETY: the token proves the feature.
        unsafe { _mm512_xor_si512(a, b) }
    }
    #[inline(always)]
    fn shl<const N: i32>(self, a: Self::I) -> Self::I {
        // SAFETY: the token proves the feature.
        unsafe { _mm512_sll_epi32(a, _mm_cvtsi32_si128(N)) }
    }
    #[inline(always)]
    fn shr<const N: i32>(self, a: Self::I) -> Self::I {
        // SAFETY: the token proves the feature.
        unsafe { _mm512_srl_epi32(a, _mm_cvtsi32_si128(N)) }
    }
    #[inline(always)]
    fn to_float(self, a: Self::I) -> Self::F {
        // SAFETY: the token proves the feature.
        unsafe { _mm512_cvtepi32_ps(a) }
    }
    #[inline(always)]
    fn dot_bf16(self, a: Self::I, b: Self::I, c: Self::F) -> Self::F {
        // SAFETY: the token proves the feature; the types differ in name only.
        unsafe { _mm512_dpbf16_ps(c, transmute::<__m512i, __m512bh>(a), transmute::<__m512i, __m512bh>(b)) }
    }
    #[inline(always)]
    fn pair_bf16(self, low: Self::F, high: Self::F) -> Self::I {
        // SAFETY: the token proves the feature; the types differ in name only.
        unsafe {
            // Not by `map`: what a closure calls is not inlined, and every instruction becomes a call.
            let low = _mm512_cvtepu16_epi32(transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(low)));
            let high = _mm512_cvtepu16_epi32(transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(high)));
            _mm512_or_si512(low, _mm512_slli_epi32::<16>(high))
        }
    }
    #[inline(always)]
    fn line_bf16(self, x: &[[f32; LANES]; 2]) -> Self::I {
        // SAFETY: the token proves the feature; the types differ in name only.
        unsafe { transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(self.load(&x[1]), self.load(&x[0]))) }
    }
    #[inline(always)]
    fn swap_pairs(self, x: Self::F) -> Self::F {
        // SAFETY: the token proves the feature.
        unsafe { _mm512_permute_ps::<0b10_11_00_01>(x) }
    }
    #[inline(always)]
    fn interleave(self, a: Self::F, b: Self::F) -> [Self::F; 2] {
        // SAFETY: the token proves the feature.
        unsafe {
            let low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
            let high = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
            [_mm512_permutex2var_ps(a, low, b), _mm512_permutex2var_ps(a, high, b)]
        }
    }
    #[inline(always)]
    fn sum(self, x: Self::F) -> f32 {
        // SAFETY: the token proves the feature.
        unsafe {
            let x = _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps::<1>(x));
            let x = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
            let x = _mm_add_ps(x, _mm_movehl_ps(x, x));
            _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)))
        }
    }
    #[inline(always)]
    fn largest(self, x: Self::F) -> f32 {
        // SAFETY: the token proves the feature.
        unsafe {
            let x = _mm256_max_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps::<1>(x));
            let x = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
            let x = _mm_max_ps(x, _mm_movehl_ps(x, x));
            _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)))
        }
    }
    #[inline(always)]
    fn load_part(self, x: &[f32]) -> Self::F {
        // SAFETY: the token proves the feature; the mask keeps the load inside the slice.
        unsafe { _mm512_maskz_loadu_ps(first(x.len()), x.as_ptr()) }
    }
    #[inline(always)]
    fn store_part(self, x: Self::F, to: &mut [f32]) {
        // SAFETY: the token proves the feature; the mask keeps the store inside the slice.
        unsafe { _mm512_mask_storeu_ps(to.as_mut_ptr(), first(to.len()), x) }
    }
}

/// The lowest `n` lanes; all for more than sixteen.
#[inline(always)]
fn first(n: usize) -> __mmask16 {
    if n >= LANES { !0 } else { (1 << n) - 1 }
}
