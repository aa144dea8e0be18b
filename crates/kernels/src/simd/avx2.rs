//! Sixteen lanes in two AVX2 registers.
#![expect(unsafe_code, reason = "instructions that not every machine has; the token proves that this one does")]

use std::arch::x86_64::*;

use super::{Kernel, LANES, Simd};

/// Proof that the machine has AVX2, FMA and F16C: made by [`run`] only.
#[derive(Debug, Clone, Copy)]
pub(super) struct Avx2(());

/// The low eight lanes and the high eight.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pair<T>(T, T);

/// Runs `kernel` with AVX2, FMA and F16C.
pub(super) fn run<K: Kernel>(kernel: K) -> K::Out {
    /// What is inlined here is compiled for these features.
    #[target_feature(enable = "avx2,fma,f16c")]
    fn inner<K: Kernel>(kernel: K) -> K::Out {
        kernel.run(Avx2(()))
    }
    // SAFETY: a device has `Isa::Avx2` only where the machine has these features.
    unsafe { inner(kernel) }
}

impl Simd for Avx2 {
    type F = Pair<__m256>;
    type I = Pair<__m256i>;
    type M = Pair<__m256>;
    const REGISTERS: usize = 8;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        // SAFETY: the token proves the feature.
        unsafe { Pair(_mm256_set1_ps(x), _mm256_set1_ps(x)) }
    }
    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> Self::F {
        // SAFETY: the token proves the feature; the reference proves sixteen numbers.
        unsafe { Pair(_mm256_loadu_ps(x.as_ptr()), _mm256_loadu_ps(x.as_ptr().add(8))) }
    }
    #[inline(always)]
    fn store(self, x: Self::F, to: &mut [f32; LANES]) {
        // SAFETY: the token proves the feature; the reference proves sixteen numbers.
        unsafe {
            _mm256_storeu_ps(to.as_mut_ptr(), x.0);
            _mm256_storeu_ps(to.as_mut_ptr().add(8), x.1);
        }
    }
    #[inline(always)]
    fn load_f16(self, x: &[u16; LANES]) -> Self::F {
        // SAFETY: the token proves the feature; the reference proves sixteen numbers.
        unsafe {
            let low = _mm_loadu_si128(x.as_ptr().cast());
            let high = _mm_loadu_si128(x.as_ptr().add(8).cast());
            Pair(_mm256_cvtph_ps(low), _mm256_cvtph_ps(high))
        }
    }
    #[inline(always)]
    fn load_bytes(self, x: &[u8; 4 * LANES]) -> Self::I {
        let (halves, _) = x.as_chunks::<{ 2 * LANES }>();
        // SAFETY: the token proves the feature; the references prove 32 bytes each.
        unsafe { Pair(_mm256_loadu_si256(halves[0].as_ptr().cast()), _mm256_loadu_si256(halves[1].as_ptr().cast())) }
    }
    #[inline(always)]
    fn load_blocks(self, [a, b]: [&[i8; 2 * LANES]; 2]) -> Self::I {
        // SAFETY: the token proves the feature; the references prove 32 bytes each.
        unsafe { Pair(_mm256_loadu_si256(a.as_ptr().cast()), _mm256_loadu_si256(b.as_ptr().cast())) }
    }
    #[inline(always)]
    fn dot_bytes(self, a: Self::I, b: Self::I, c: Self::I) -> Self::I {
        Pair(dot_bytes(self, a.0, b.0, c.0), dot_bytes(self, a.1, b.1, c.1))
    }
    #[inline(always)]
    fn prefetch<T, const N: usize>(self, x: &[T; N]) {
        super::prefetch_lines(x);
    }
    #[inline(always)]
    fn store_f16(self, x: Self::F, to: &mut [u16; LANES]) {
        // SAFETY: the token proves the feature; the reference proves sixteen numbers.
        unsafe {
            _mm_storeu_si128(to.as_mut_ptr().cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(x.0));
            _mm_storeu_si128(to.as_mut_ptr().add(8).cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(x.1));
        }
    }
    #[inline(always)]
    fn store_int(self, x: Self::I, to: &mut [u32; LANES]) {
        // SAFETY: the token proves the feature; the reference proves sixteen numbers.
        unsafe {
            _mm256_storeu_si256(to.as_mut_ptr().cast(), x.0);
            _mm256_storeu_si256(to.as_mut_ptr().add(8).cast(), x.1);
        }
    }
    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: the token proves the feature.
        unsafe { Pair(_mm256_add_ps(a.0, b.0), _mm256_add_ps(a.1, b.1)) }
    }
    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: the token proves the feature.
        unsafe { Pair(_mm256_sub_ps(a.0, b.0), _mm256_sub_ps(a.1, b.1)) }
    }
    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: the token proves the feature.
        unsafe { Pair(_mm256_mul_ps(a.0, b.0), _mm256_mul_ps(a.1, b.1)) }
    }
    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: the token proves the feature.
        unsafe { Pair(_mm256_div_ps(a.0, b.0), _mm256_div_ps(a.1, b.1)) }
    }
    #[inline(always)]
    fn sqrt(self, x: Self::F) -> Self::F {
        // SAFETY: the token proves the feature.
        unsafe { Pair(_mm256_sqrt_ps(x.0), _mm256_sqrt_ps(x.1)) }
    }
    #[inline(always)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        // SAFETY: the token proves the feature.
        unsafe { Pair(_mm256_fmadd_ps(a.0, b.0, c.0), _mm256_fmadd_ps(a.1, b.1, c.1)) }
    }
    #[inline(always)]
    fn min(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: the token proves the feature.
        unsafe { Pair(_mm256_min_ps(a.0, b.0), _mm256_min_ps(a.1, b.1)) }
    }
    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: the token proves the feature.
        unsafe { Pair(_mm256_max_ps(a.0, b.0), _mm256_max_ps(a.1, b.1)) }
    }
    #[inline(always)]
    fn lt(self, a: Self::F, b: Self::F) -> Self::M {
        // SAFETY: the token proves the feature.
        unsafe { Pair(_mm256_cmp_ps::<_CMP_LT_OQ>(a.0, b.0), _mm256_cmp_ps::<_CMP_LT_OQ>(a.1, b.1)) }
    }
    #[inline(always)]
    fn ge(self, a: Self::F, b: Self::F) -> Self::M {
        // SAFETY: the token proves the feature.
        unsafe { Pair(_mm256_cmp_ps::<_CMP_GE_OQ>(a.0, b.0), _mm256_cmp_ps::<_CMP_GE_OQ>(a.1, b.1)) }
    }
    #[inline(always)]
    fn select(self, m: Self::M, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: the token proves the feature.
        unsafe { Pair(_mm256_blendv_ps(b.0, a.0, m.0), _mm256_blendv_ps(b.1, a.1, m.1)) }
    }
    #[inline(always)]
    fn mask_bits(self, m: Self::M) -> u16 {
        // SAFETY: the token proves the feature.
        unsafe { (_mm256_movemask_ps(m.0) | _mm256_movemask_ps(m.1) << 8) as u16 }
    }
    #[inline(always)]
    fn mask(self, bits: u16) -> Self::M {
        // SAFETY: the token proves the feature.
        unsafe {
            let bits = _mm256_set1_epi32(i32::from(bits));
            let low = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
            let high = _mm256_slli_epi32::<8>(low);
            let in_low = _mm256_cmpeq_epi32(_mm256_and_si256(bits, low), low);
            let in_high = _mm256_cmpeq_epi32(_mm256_and_si256(bits, high), high);
            Pair(_mm256_castsi256_ps(in_low), _mm256_castsi256_ps(in_high))
        }
    }
    #[inline(always)]
    fn bits(self, x: Self::F) -> Self::I {
        // SAFETY: the token proves the feature.
        unsafe { Pair(_mm256_castps_si256(x.0), _mm256_castps_si256(x.1)) }
    }
    #[inline(always)]
    fn as_float(self, x: Self::I) -> Self::F {
        // SAFETY: the token proves the feature.
        unsafe { Pair(_mm256_castsi256_ps(x.0), _mm256_castsi256_ps(x.1)) }
    }
    #[inline(always)]
    fn splat_int(self, x: u32) -> Self::I {
        // SAFETY: the token proves the feature.
        unsafe { Pair(_mm256_set1_epi32(x.cast_signed()), _mm256_set1_epi32(x.cast_signed())) }
    }
    #[inline(always)]
    fn iota(self) -> Self::I {
        // SAFETY: the token proves the feature.
        unsafe { Pair(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), _mm256_setr_epi32(8, 9, 10, 11, 12, 13, 14, 15)) }
    }
    #[inline(always)]
    fn add_int(self, a: Self::I, b: Self::I) -> Self::I {
        // SAFETY: the token proves the feature.
        unsafe { Pair(_mm256_add_epi32(a.0, b.0), _mm256_add_epi32(a.1, b.1)) }
    }
    #[inline(always)]
    fn sub_int(self, a: Self::I, b: Self::I) -> Self::I {
        // SAFETY: the token proves the feature.
        unsafe { Pair(_mm256_sub_epi32(a.0, b.0), _mm256_sub_epi32(a.1, b.1)) }
    }
    #[inline(always)]
    fn mul_int(self, a: Self::I, b: Self::I) -> Self::I {
        // SAFETY: the token proves the feature.
        unsafe { Pair(_mm256_mullo_epi32(a.0, b.0), _mm256_mullo_epi32(a.1, b.1)) }
    }
    #[inline(always)]
    fn and(self, a: Self::I, b: Self::I) -> Self::I {
        // SAFETY: the token proves the feature.
        unsafe { Pair(_mm256_and_si256(a.0, b.0), _mm256_and_si256(a.1, b.1)) }
    }
    #[inline(always)]
    fn xor(self, a: Self::I, b: Self::I) -> Self::I {
        // SAFETY: the token proves the feature.
        unsafe { Pair(_mm256_xor_si256(a.0, b.0), _mm256_xor_si256(a.1, b.1)) }
    }
    #[inline(always)]
    fn shl<const N: i32>(self, a: Self::I) -> Self::I {
        // SAFETY: the token proves the feature.
        unsafe { Pair(_mm256_slli_epi32::<N>(a.0), _mm256_slli_epi32::<N>(a.1)) }
    }
    #[inline(always)]
    fn shr<const N: i32>(self, a: Self::I) -> Self::I {
        // SAFETY: the token proves the feature.
        unsafe { Pair(_mm256_srli_epi32::<N>(a.0), _mm256_srli_epi32::<N>(a.1)) }
    }
    #[inline(always)]
    fn to_float(self, a: Self::I) -> Self::F {
        // SAFETY: the token proves the feature.
        unsafe { Pair(_mm256_cvtepi32_ps(a.0), _mm256_cvtepi32_ps(a.1)) }
    }
    #[inline(always)]
    fn swap_pairs(self, x: Self::F) -> Self::F {
        // SAFETY: the token proves the feature.
        unsafe { Pair(_mm256_permute_ps::<0b10_11_00_01>(x.0), _mm256_permute_ps::<0b10_11_00_01>(x.1)) }
    }
    #[inline(always)]
    fn interleave(self, a: Self::F, b: Self::F) -> [Self::F; 2] {
        // SAFETY: the token proves the feature.
        unsafe {
            let low = (_mm256_unpacklo_ps(a.0, b.0), _mm256_unpackhi_ps(a.0, b.0));
            let high = (_mm256_unpacklo_ps(a.1, b.1), _mm256_unpackhi_ps(a.1, b.1));
            [
                Pair(_mm256_permute2f128_ps::<0x20>(low.0, low.1), _mm256_permute2f128_ps::<0x31>(low.0, low.1)),
                Pair(_mm256_permute2f128_ps::<0x20>(high.0, high.1), _mm256_permute2f128_ps::<0x31>(high.0, high.1)),
            ]
        }
    }
    #[inline(always)]
    fn sum(self, x: Self::F) -> f32 {
        // SAFETY: the token proves the feature.
        unsafe {
            let x = _mm256_add_ps(x.0, x.1);
            let x = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
            let x = _mm_add_ps(x, _mm_movehl_ps(x, x));
            _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)))
        }
    }
    #[inline(always)]
    fn largest(self, x: Self::F) -> f32 {
        // SAFETY: the token proves the feature.
        unsafe {
            let x = _mm256_max_ps(x.0, x.1);
            let x = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
            let x = _mm_max_ps(x, _mm_movehl_ps(x, x));
            _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)))
        }
    }
}

/// Products of every other byte at a time: two of them would not fit into the 16 bits that the instruction sums in.
#[inline(always)]
fn dot_bytes(_: Avx2, a: __m256i, b: __m256i, c: __m256i) -> __m256i {
    // SAFETY: the token proves the feature.
    unsafe {
        let even = _mm256_set1_epi16(0xff);
        let ones = _mm256_set1_epi16(1);
        let some = _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_and_si256(a, even), b), ones);
        let others = _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_andnot_si256(even, a), b), ones);
        _mm256_add_epi32(c, _mm256_add_epi32(some, others))
    }
}
