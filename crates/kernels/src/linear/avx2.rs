//! AVX2: dot products of bytes by way of 16-bit sums, 8 rows of weights to a vector.
//!
//! `VPMADDUBSW` adds products of unsigned codes and signed bytes in pairs, and would saturate at 2^15. Codes of 4, 5 and 6 bits
//! leave room for 8, 4 and 2 such vectors (15 * 127 * 2 * 8 < 2^15) before the sums are widened. Codes of 8 bits are made
//! signed first, and their signs moved to the activations: 128 * 127 * 2 just fits.
//!
//! A row block is unpacked once into [`Tile`]s and multiplied from there, for one row of activations as for many.

#![expect(unsafe_code, reason = "vector instructions and pointers into packed weights")]

use std::arch::x86_64::*;
use std::ops::Range;

use super::activations::{Activations, Parts, Round, Strip, TILE, scale};
use super::panel::Panel;
use super::sink::Sink;
use crate::matrix::{LANES, Layout, QUADS, SPAN, Tile};
use crate::{BlockType, Matrix};

/// Most rows of activations at a time.
const STRIP: usize = 4;

/// Rounds some columns of a row to bytes.
pub(super) fn store_blocks(parts: &Parts<'_>, row: usize, start: usize, x: &[f32]) {
    #[target_feature(enable = "avx2,fma")]
    unsafe fn with_avx2(parts: &Parts<'_>, row: usize, start: usize, x: &[f32]) {
        parts.store_blocks::<Vectors>(row, start, x);
    }
    // SAFETY: devices only have instruction sets that were detected, and AVX2 is the least that comes here.
    unsafe { with_avx2(parts, row, start, x) }
}

struct Vectors;

impl Round for Vectors {
    #[inline(always)]
    fn round(x: &[f32; SPAN], bytes: &mut [i8; SPAN]) -> (f32, [i16; 2]) {
        // SAFETY: only `with_avx2` rounds this way.
        unsafe { round(x, bytes) }
    }
}

#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn round(x: &[f32; SPAN], bytes: &mut [i8; SPAN]) -> (f32, [i16; 2]) {
    // SAFETY: loads and stores are of 32 numbers and bytes.
    unsafe {
        let x = x.as_ptr().cast::<__m256i>();
        let x = [x.read_unaligned(), x.add(1).read_unaligned(), x.add(2).read_unaligned(), x.add(3).read_unaligned()];
        let (scale, inverse) = scale(f32::from_bits(largest(x)), 127.0);
        let mut words = [_mm256_setzero_si256(); 4];
        if inverse > 0.0 {
            for (words, x) in words.iter_mut().zip(x) {
                *words = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_castsi256_ps(x), _mm256_set1_ps(inverse)));
            }
        }
        let low = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(words[0], words[1]));
        let high = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(words[2], words[3]));
        let all = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi16(low, high));
        _mm256_storeu_si256(bytes.as_mut_ptr().cast(), all);
        (scale, sums(low, high))
    }
}

/// The largest magnitude's bits.
#[inline]
#[target_feature(enable = "avx2")]
fn largest(x: [__m256i; 4]) -> u32 {
    let magnitude = _mm256_set1_epi32(0x7fff_ffff);
    let mut max = _mm256_and_si256(x[0], magnitude);
    for x in &x[1..] {
        max = _mm256_max_epu32(max, _mm256_and_si256(*x, magnitude));
    }
    let max = _mm_max_epu32(_mm256_castsi256_si128(max), _mm256_extracti128_si256::<1>(max));
    let max = _mm_max_epu32(max, _mm_shuffle_epi32::<0b01_00_11_10>(max));
    let max = _mm_max_epu32(max, _mm_shuffle_epi32::<0b10_11_00_01>(max));
    _mm_cvtsi128_si32(max).cast_unsigned()
}

/// The sums of 16 words each.
#[inline]
#[target_feature(enable = "avx2")]
fn sums(low: __m256i, high: __m256i) -> [i16; 2] {
    let ones = _mm256_set1_epi16(1);
    let pairs = _mm256_hadd_epi32(_mm256_madd_epi16(low, ones), _mm256_madd_epi16(high, ones));
    let pairs = _mm_add_epi32(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256::<1>(pairs));
    let both = _mm_cvtsi128_si64(_mm_hadd_epi32(pairs, pairs));
    [both as i16, (both >> 32) as i16]
}

/// Some row blocks times some rows of activations, on AVX2 with FMA and F16C.
pub(super) fn multiply(weight: &Matrix, blocks: Range<usize>, x: &Activations, rows: Range<usize>, sink: &Sink<'_>) {
    let Some(layout) = weight.layout() else {
        // SAFETY: devices only have instruction sets that were detected.
        return unsafe { dense(weight, blocks, x, rows, sink) };
    };
    Panel::with(weight.cols() / SPAN, |tiles| {
        for block in blocks {
            // SAFETY: devices only have instruction sets that were detected; a row block has a record per tile.
            unsafe {
                unpack(&layout, weight.row_block(block), tiles);
                codes(&layout, tiles, x, rows.clone(), block, sink);
            }
        }
    });
}

/// Unpacks a row block; codes of 8 bits become signed.
#[target_feature(enable = "avx2,f16c")]
unsafe fn unpack(layout: &Layout, block: &[u8], tiles: &mut [Tile]) {
    for (record, tile) in block.chunks_exact(layout.record_bytes()).zip(tiles) {
        let (heads, codes) = record.split_at(layout.codes_at());
        // SAFETY: a record has the parts that its layout says.
        unsafe {
            let rows = tile.scales[..layout.groups()].iter_mut().chain(layout.offset.then_some(&mut tile.offsets));
            for (row, head) in
                rows.zip(heads.chunks_exact(heads.len() / (layout.groups() + usize::from(layout.offset))))
            {
                unpack_scales(layout, head.as_ptr(), row);
            }
            if layout.bits == 8 {
                unpack_bytes(codes, tile);
            } else {
                unpack_nibbles(codes, tile);
                for (plane, words) in codes[32 * QUADS..].chunks_exact(8 * QUADS).enumerate() {
                    unpack_plane(words, 16 << plane, tile);
                }
            }
        }
    }
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
unsafe fn unpack_scales(layout: &Layout, head: *const u8, row: &mut [f32; LANES]) {
    for half in 0..2 {
        // SAFETY: the caller's row of scales has 16 numbers.
        unsafe {
            let scales = if layout.wide {
                _mm256_loadu_ps(head.add(32 * half).cast())
            } else {
                _mm256_cvtph_ps(_mm_loadu_si128(head.add(16 * half).cast()))
            };
            _mm256_storeu_ps(row.as_mut_ptr().add(8 * half), scales);
        }
    }
}

#[inline]
#[target_feature(enable = "avx2")]
unsafe fn unpack_bytes(codes: &[u8], tile: &mut Tile) {
    for (to, from) in tile.codes.as_flattened_mut().chunks_exact_mut(32).zip(codes.chunks_exact(32)) {
        // SAFETY: both are 32 bytes.
        unsafe {
            let signed = _mm256_xor_si256(_mm256_loadu_si256(from.as_ptr().cast()), _mm256_set1_epi8(-128));
            _mm256_storeu_si256(to.as_mut_ptr().cast(), signed);
        }
    }
}

#[inline]
#[target_feature(enable = "avx2")]
unsafe fn unpack_nibbles(codes: &[u8], tile: &mut Tile) {
    let (low, high) = tile.codes.as_flattened_mut().split_at_mut(32 * QUADS);
    let mask = _mm256_set1_epi8(15);
    for ((from, low), high) in codes.chunks_exact(32).zip(low.chunks_exact_mut(32)).zip(high.chunks_exact_mut(32)) {
        // SAFETY: all are 32 bytes.
        unsafe {
            let both = _mm256_loadu_si256(from.as_ptr().cast());
            _mm256_storeu_si256(low.as_mut_ptr().cast(), _mm256_and_si256(both, mask));
            _mm256_storeu_si256(high.as_mut_ptr().cast(), _mm256_and_si256(_mm256_srli_epi16::<4>(both), mask));
        }
    }
}

/// Adds `value` to the codes whose bit is set.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn unpack_plane(words: &[u8], value: i8, tile: &mut Tile) {
    let spread = _mm256_setr_epi8(
        0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3,
    );
    let bits = _mm256_set1_epi64x(0x8040_2010_0804_0201u64.cast_signed());
    for (codes, word) in tile.codes.as_flattened_mut().chunks_exact_mut(32).zip(words.chunks_exact(4)) {
        // SAFETY: 32 codes and the 4 bytes of their bits.
        unsafe {
            let word = _mm256_set1_epi32(i32::from_le_bytes([word[0], word[1], word[2], word[3]]));
            let set = _mm256_cmpeq_epi8(_mm256_and_si256(_mm256_shuffle_epi8(word, spread), bits), bits);
            let old = _mm256_loadu_si256(codes.as_ptr().cast());
            let new = _mm256_or_si256(old, _mm256_and_si256(set, _mm256_set1_epi8(value)));
            _mm256_storeu_si256(codes.as_mut_ptr().cast(), new);
        }
    }
}

/// The rows of a job times an unpacked row block.
///
/// # Safety
/// AVX2 with FMA is there; tiles are as many as blocks of activations.
unsafe fn codes(layout: &Layout, tiles: &[Tile], x: &Activations, rows: Range<usize>, block: usize, sink: &Sink<'_>) {
    let mut row = rows.start;
    while row < rows.end {
        let tile_end = rows.end.min((row / TILE + 1) * TILE);
        let m = if tile_end - row >= STRIP { STRIP } else { 1 };
        let strip = x.strip(row..row + m);
        // SAFETY: by the caller's promise; the constants are those of the layout.
        unsafe {
            match (layout.group, layout.offset, layout.bits) {
                (32, true, 4) => by_rows::<32, true, 8>(tiles, &strip, layout.zero, block, sink),
                (32, true, 5) => by_rows::<32, true, 4>(tiles, &strip, layout.zero, block, sink),
                (32, false, 4) => by_rows::<32, false, 8>(tiles, &strip, layout.zero, block, sink),
                (32, false, 5) => by_rows::<32, false, 4>(tiles, &strip, layout.zero, block, sink),
                (16, false, 6) => by_rows::<16, false, 2>(tiles, &strip, layout.zero, block, sink),
                (32, false, 8) => by_rows::<32, false, 1>(tiles, &strip, 0, block, sink),
                _ => unreachable!("{layout:?} has no kernel: add a row"),
            }
        }
        row += m;
    }
}

#[inline(always)]
unsafe fn by_rows<const GROUP: usize, const OFFSET: bool, const SUMS: usize>(
    tiles: &[Tile],
    strip: &Strip,
    zero: u8,
    block: usize,
    sink: &Sink<'_>,
) {
    // SAFETY: by the caller's promise.
    unsafe {
        if strip.rows == STRIP {
            dot::<GROUP, OFFSET, SUMS, STRIP>(tiles, strip, zero, block, sink);
        } else {
            dot::<GROUP, OFFSET, SUMS, 1>(tiles, strip, zero, block, sink);
        }
    }
}

/// `M` rows of activations times a row block. `SUMS` products fit in 16 bits; if it is 1, codes are signed.
///
/// # Safety
/// As for [`codes`].
#[target_feature(enable = "avx2,fma")]
unsafe fn dot<const GROUP: usize, const OFFSET: bool, const SUMS: usize, const M: usize>(
    tiles: &[Tile],
    strip: &Strip,
    zero: u8,
    block: usize,
    sink: &Sink<'_>,
) {
    let mut acc = [[_mm256_setzero_ps(); 2]; M];
    let minus_zero = -i32::from(zero);
    let (low, high) = (_mm256_set1_epi32(minus_zero & 0xffff), _mm256_set1_epi32(minus_zero << 16));
    let pairs = if GROUP == SPAN { [_mm256_or_si256(low, high); 2] } else { [low, high] };
    for (b, tile) in tiles.iter().enumerate() {
        for (t, acc) in acc.iter_mut().enumerate() {
            let at = b * strip.height + t;
            // SAFETY: the strip has a block for every tile.
            unsafe {
                let sums = _mm256_set1_epi32(*strip.sums.add(at));
                let sx = _mm256_set1_ps(*strip.scales.add(at));
                for (half, acc) in acc.iter_mut().enumerate() {
                    for (group, pair) in pairs.iter().enumerate().take(SPAN / GROUP) {
                        let start = _mm256_madd_epi16(*pair, sums);
                        let i = integers::<GROUP, SUMS>(tile, strip.q.add(at * SPAN), group, half, start);
                        let sw = _mm256_loadu_ps(tile.scales[group].as_ptr().add(8 * half));
                        *acc = _mm256_fmadd_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(i), sw), sx, *acc);
                    }
                    if OFFSET {
                        let ow = _mm256_loadu_ps(tile.offsets.as_ptr().add(8 * half));
                        *acc = _mm256_fmadd_ps(ow, _mm256_set1_ps(*strip.scaled_sums.add(at)), *acc);
                    }
                }
            }
        }
    }
    sink.put(strip.row, block, &acc.map(lanes));
}

/// The integer sum of a group for 8 rows.
#[inline(always)]
unsafe fn integers<const GROUP: usize, const SUMS: usize>(
    tile: &Tile,
    q: *const i8,
    group: usize,
    half: usize,
    start: __m256i,
) -> __m256i {
    // SAFETY: quads of the group are within the tile and the block.
    unsafe {
        let (ones, mut sum) = (_mm256_set1_epi16(1), start);
        let mut quad = group * GROUP / 4;
        for _ in 0..GROUP / 4 / SUMS {
            let mut words = _mm256_setzero_si256();
            for _ in 0..SUMS {
                let w = _mm256_loadu_si256(tile.codes[quad].as_ptr().add(32 * half).cast());
                let x = _mm256_set1_epi32(q.cast::<i32>().add(quad).read_unaligned());
                let products = if SUMS == 1 {
                    _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w))
                } else {
                    _mm256_maddubs_epi16(w, x)
                };
                words = _mm256_add_epi16(words, products);
                quad += 1;
            }
            sum = _mm256_add_epi32(sum, _mm256_madd_epi16(words, ones));
        }
        sum
    }
}

/// Some row blocks of dense weights times some rows of activations.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn dense(weight: &Matrix, blocks: Range<usize>, x: &Activations, rows: Range<usize>, sink: &Sink<'_>) {
    for block in blocks {
        let mut row = rows.start;
        while row < rows.end {
            let many = rows.end - row >= STRIP;
            // SAFETY: by the caller's promise; each kind of numbers is what the matrix holds.
            row += unsafe {
                match (weight.kind(), many) {
                    (BlockType::F32, true) => dense_strip::<4, false, STRIP>(weight, block, x, row, sink),
                    (BlockType::F32, false) => dense_strip::<4, false, 1>(weight, block, x, row, sink),
                    (BlockType::F16, true) => dense_strip::<2, false, STRIP>(weight, block, x, row, sink),
                    (BlockType::F16, false) => dense_strip::<2, false, 1>(weight, block, x, row, sink),
                    (_, true) => dense_strip::<2, true, STRIP>(weight, block, x, row, sink),
                    (_, false) => dense_strip::<2, true, 1>(weight, block, x, row, sink),
                }
            };
        }
    }
}

/// A row block times `M` rows of activations; returns `M`.
#[inline(always)]
unsafe fn dense_strip<const BYTES: usize, const PAIRS: bool, const M: usize>(
    weight: &Matrix,
    block: usize,
    x: &Activations,
    row: usize,
    sink: &Sink<'_>,
) -> usize {
    let data = weight.row_block(block).as_ptr();
    let mut acc = [[zeros(); 2]; M];
    for column in 0..weight.cols() {
        for (half, offset) in [0, 8].into_iter().enumerate() {
            // SAFETY: a row block has 16 numbers for every column.
            unsafe {
                let w = match (BYTES, PAIRS) {
                    (4, _) => _mm256_loadu_ps(data.add(4 * (column * LANES + offset)).cast()),
                    (_, false) => _mm256_cvtph_ps(_mm_loadu_si128(data.add(2 * (column * LANES + offset)).cast())),
                    (_, true) => bf16_of_pairs(data.add(4 * (column / 2 * LANES + offset)), column % 2),
                };
                for (t, acc) in acc.iter_mut().enumerate() {
                    let x = if PAIRS { bf16_number(x.bf16_pairs(row + t), column) } else { x.f32_row(row + t)[column] };
                    acc[half] = _mm256_fmadd_ps(w, _mm256_set1_ps(x), acc[half]);
                }
            }
        }
    }
    sink.put(row, block, &acc.map(lanes));
    M
}

/// One number of each of 8 pairs.
#[inline(always)]
unsafe fn bf16_of_pairs(pairs: *const u8, which: usize) -> __m256 {
    // SAFETY: the caller has 8 pairs, and AVX2.
    unsafe {
        let pairs = _mm256_loadu_si256(pairs.cast());
        let high = _mm256_set1_epi32(0xffff_0000u32.cast_signed());
        _mm256_castsi256_ps(if which == 0 { _mm256_slli_epi32::<16>(pairs) } else { _mm256_and_si256(pairs, high) })
    }
}

#[inline(always)]
fn bf16_number(pairs: &[u32], column: usize) -> f32 {
    f32::from_bits(if column.is_multiple_of(2) { pairs[column / 2] << 16 } else { pairs[column / 2] & 0xffff_0000 })
}

#[inline(always)]
fn zeros() -> __m256 {
    // SAFETY: all zeros are 8 floats.
    unsafe { std::mem::zeroed() }
}

#[inline(always)]
fn lanes(x: [__m256; 2]) -> [f32; LANES] {
    // SAFETY: both are 16 floats.
    unsafe { std::mem::transmute(x) }
}
