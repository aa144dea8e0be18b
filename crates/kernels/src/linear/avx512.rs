//! AVX-512: dot products of bytes (`VPDPBUSD`), 16 rows of weights to a vector.
//!
//! # From integers to floats in one instruction
//! An integer sum starts not at zero but at the bits of the float 1.5 * 2^23. Up to 2^22 in magnitude, a sum of `i` then leaves
//! the bits of the float `1.5 * 2^23 + i`, and `fma(that, sw, -1.5 * 2^23 * sw)` is `i * sw` rounded once: the product is exact
//! because scales have 19 bits at most. The result equals `f32(i) * sw` to the bit and saves a conversion. The correction for
//! the zero point is one `VPDPWSSD` of the pair of half sums with the pair `(-z, -z)`.
//!
//! Loops go over columns first and rows of activations second, so that instructions which follow each other are independent:
//! the processor looks ahead by about a hundred, and a sum of one row alone is a chain of eight.
//! Arrays of vectors are filled by loops, not by `map` or `from_fn`: closures are not inlined across target features.
//!
//! # Few rows, many rows
//! With up to [`FUSED`] rows of activations the weights go from memory through registers to the sum, a record at a time.
//! With more, a row block is unpacked once into [`Tile`]s in the first-level cache, and every tile of activations is
//! multiplied from there, by this file or by [`super::amx`].

#![expect(unsafe_code, reason = "vector instructions and pointers into packed weights")]

use std::arch::x86_64::*;
use std::ops::Range;

use super::activations::{Activations, Strip, TILE};
use super::amx;
use super::panel::Panel;
use super::sink::Sink;
use crate::matrix::{LANES, Layout, QUADS, SPAN, Tile};
use crate::{BlockType, Isa, Matrix};

/// Most rows of activations that are multiplied straight from packed weights.
pub(super) const FUSED: usize = 4;
/// What unpacked row blocks may take of the second-level cache.
const UNPACKED: usize = 128 << 10;
/// The same where tiles multiply, which are slow to start again after something else.
const TILED_UNPACKED: usize = 512 << 10;
/// How far ahead packed weights are asked for: further than the processor does by itself, which also stops at page ends.
const AHEAD: usize = 2048;
/// The float whose bits integer sums start at.
const MAGIC: f32 = 12_582_912.0;

/// What the codes of a record are scaled with.
struct Scales {
    groups: [__m512; 2],
    offsets: __m512,
}

/// Where records come from. All methods want AVX-512 with F16C, and a record that exists.
trait Source: Copy {
    const GROUP: usize;
    const OFFSET: bool;
    /// Asks for memory that will soon be needed.
    unsafe fn ahead(self, b: usize);
    unsafe fn scales(self, b: usize) -> Scales;
    /// The codes of a quad.
    unsafe fn quad(self, b: usize, j: usize) -> __m512i;
}

/// Packed weights.
#[derive(Clone, Copy)]
struct Packed<const BITS: usize, const GROUP: usize, const WIDE: bool, const OFFSET: bool>(*const u8);

impl<const BITS: usize, const GROUP: usize, const WIDE: bool, const OFFSET: bool> Packed<BITS, GROUP, WIDE, OFFSET> {
    const LAYOUT: Layout = Layout { bits: BITS, group: GROUP, wide: WIDE, offset: OFFSET, zero: 0 };

    #[inline(always)]
    unsafe fn record(self, b: usize) -> *const u8 {
        self.0.wrapping_add(b * Self::LAYOUT.record_bytes())
    }

    #[inline(always)]
    unsafe fn row_of_scales(record: *const u8, row: usize) -> __m512 {
        // SAFETY: the caller's record has this row of scales.
        unsafe {
            if WIDE {
                _mm512_loadu_ps(record.add(64 * row).cast())
            } else {
                _mm512_cvtph_ps(_mm256_loadu_si256(record.add(32 * row).cast()))
            }
        }
    }
}

impl<const BITS: usize, const GROUP: usize, const WIDE: bool, const OFFSET: bool> Source
    for Packed<BITS, GROUP, WIDE, OFFSET>
{
    const GROUP: usize = GROUP;
    const OFFSET: bool = OFFSET;

    #[inline(always)]
    unsafe fn ahead(self, b: usize) {
        // SAFETY: asking never faults.
        unsafe { ask(self.record(b).wrapping_add(AHEAD), Self::LAYOUT.record_bytes()) };
    }

    #[inline(always)]
    unsafe fn scales(self, b: usize) -> Scales {
        // SAFETY: the caller knows that the record exists; rows of scales are those of the layout.
        unsafe {
            let record = self.record(b);
            let first = Self::row_of_scales(record, 0);
            let second = if GROUP == SPAN { first } else { Self::row_of_scales(record, 1) };
            let offsets = if OFFSET { Self::row_of_scales(record, SPAN / GROUP) } else { _mm512_setzero_ps() };
            Scales { groups: [first, second], offsets }
        }
    }

    #[inline(always)]
    unsafe fn quad(self, b: usize, j: usize) -> __m512i {
        // SAFETY: the offsets are those of the layout, within the record that the caller knows to exist.
        unsafe {
            let record = self.record(b);
            let codes = record.add(Self::LAYOUT.codes_at());
            if BITS == 8 {
                return _mm512_loadu_si512(codes.add(64 * j).cast());
            }
            let both = _mm512_loadu_si512(codes.add(64 * (j % (QUADS / 2))).cast());
            let nibbles = if j < QUADS / 2 { both } else { _mm512_srli_epi16::<4>(both) };
            let mut codes = _mm512_and_si512(nibbles, _mm512_set1_epi8(15));
            for plane in 0..BITS - 4 {
                let words = record.add(Self::LAYOUT.planes_at() + 8 * QUADS * plane).cast::<u64>();
                codes =
                    _mm512_mask_add_epi8(codes, words.add(j).read_unaligned(), codes, _mm512_set1_epi8(16 << plane));
            }
            codes
        }
    }
}

/// Weights that were unpacked before. While they are used, packed ones are asked for that will be next.
#[derive(Clone, Copy)]
struct Unpacked<const GROUP: usize, const OFFSET: bool> {
    tiles: *const Tile,
    next: *const u8,
    /// Bytes of `next` to ask for with each record.
    step: usize,
}

impl<const GROUP: usize, const OFFSET: bool> Source for Unpacked<GROUP, OFFSET> {
    const GROUP: usize = GROUP;
    const OFFSET: bool = OFFSET;

    #[inline(always)]
    unsafe fn ahead(self, b: usize) {
        // SAFETY: asking never faults.
        unsafe { ask(self.next.wrapping_add(b * self.step), self.step) };
    }

    #[inline(always)]
    unsafe fn scales(self, b: usize) -> Scales {
        // SAFETY: the caller knows that the tile exists.
        unsafe {
            let tile = &*self.tiles.add(b);
            let groups = [_mm512_load_ps(tile.scales[0].as_ptr()), _mm512_load_ps(tile.scales[1].as_ptr())];
            Scales { groups, offsets: _mm512_load_ps(tile.offsets.as_ptr()) }
        }
    }

    #[inline(always)]
    unsafe fn quad(self, b: usize, j: usize) -> __m512i {
        // SAFETY: the caller knows that the tile exists.
        unsafe { _mm512_load_si512((*self.tiles.add(b)).codes[j].as_ptr().cast()) }
    }
}

/// Asks for memory, which may well end before.
#[inline(always)]
pub(super) unsafe fn ask<T>(start: *const T, bytes: usize) {
    for at in (0..bytes).step_by(64) {
        // SAFETY: asking never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(start.wrapping_byte_add(at).cast()) };
    }
}

/// `M` rows of activations times a row block of `records` records.
///
/// # Safety
/// The source has `records` records, the strip as many blocks and `M` rows; AVX-512 with VNNI is there.
#[inline(always)]
unsafe fn dot<S: Source, const M: usize>(source: S, records: usize, strip: &Strip, zero: u8) -> [__m512; M] {
    // SAFETY: by the caller's promise.
    unsafe {
        let magic = _mm512_castps_si512(_mm512_set1_ps(MAGIC));
        let minus_zero = -i32::from(zero);
        // The pair of half sums times these is what the zero point adds to each group.
        let (low, high) = (_mm512_set1_epi32(minus_zero & 0xffff), _mm512_set1_epi32(minus_zero << 16));
        let pairs = if S::GROUP == SPAN { [_mm512_or_si512(low, high); 2] } else { [low, high] };
        let mut acc = [_mm512_setzero_ps(); M];
        for b in 0..records {
            source.ahead(b);
            let w = source.scales(b);
            let shift = _mm512_set1_ps(-MAGIC);
            let shifts = [_mm512_mul_ps(w.groups[0], shift), _mm512_mul_ps(w.groups[1], shift)];
            let at = b * strip.height;
            let x = strip.q.add(at * SPAN).cast::<i32>();
            for group in 0..SPAN / S::GROUP {
                let mut i = [magic; M];
                if !S::OFFSET {
                    for (t, i) in i.iter_mut().enumerate() {
                        *i = _mm512_dpwssd_epi32(*i, pairs[group], _mm512_set1_epi32(*strip.sums.add(at + t)));
                    }
                }
                for j in group * S::GROUP / 4..(group + 1) * S::GROUP / 4 {
                    let codes = source.quad(b, j);
                    for (t, i) in i.iter_mut().enumerate() {
                        *i = _mm512_dpbusd_epi32(*i, codes, _mm512_set1_epi32(*x.add(t * QUADS + j)));
                    }
                }
                for (t, acc) in acc.iter_mut().enumerate() {
                    let scaled = _mm512_fmadd_ps(_mm512_castsi512_ps(i[t]), w.groups[group], shifts[group]);
                    *acc = _mm512_fmadd_ps(scaled, _mm512_set1_ps(*strip.scales.add(at + t)), *acc);
                }
            }
            if S::OFFSET {
                for (t, acc) in acc.iter_mut().enumerate() {
                    *acc = _mm512_fmadd_ps(w.offsets, _mm512_set1_ps(*strip.scaled_sums.add(at + t)), *acc);
                }
            }
        }
        acc
    }
}

/// Some row blocks times some rows of activations. `isa` is at least [`Isa::Avx512`].
pub(super) fn multiply(
    isa: Isa,
    weight: &Matrix,
    blocks: Range<usize>,
    x: &Activations,
    rows: Range<usize>,
    sink: &Sink<'_>,
) {
    // SAFETY: devices only have instruction sets that were detected.
    unsafe {
        match weight.layout() {
            Some(layout) => {
                let amx = isa == Isa::Amx;
                codes(&Job { weight, layout, blocks, x, rows, sink, amx });
            }
            None => dense(weight, blocks, x, rows, sink),
        }
    }
}

/// # Safety
/// AVX-512 as [`Isa::Avx512`] has it is there, and AMX if `amx` is set.
unsafe fn codes(job: &Job<'_>) {
    let layout = job.layout;
    // SAFETY: by the caller's promise; the constants are those of the layout.
    unsafe {
        match (layout.bits, layout.group, layout.wide, layout.offset) {
            (4, 32, false, false) => job.run::<4, 32, false, false>(),
            (4, 32, false, true) => job.run::<4, 32, false, true>(),
            (4, 32, true, true) => job.run::<4, 32, true, true>(),
            (5, 32, false, false) => job.run::<5, 32, false, false>(),
            (5, 32, false, true) => job.run::<5, 32, false, true>(),
            (5, 32, true, true) => job.run::<5, 32, true, true>(),
            (6, 16, true, false) => job.run::<6, 16, true, false>(),
            (8, 32, false, false) => job.run::<8, 32, false, false>(),
            _ => unreachable!("{layout:?} has no kernel: add a row"),
        }
    }
}

struct Job<'a> {
    weight: &'a Matrix,
    layout: Layout,
    blocks: Range<usize>,
    x: &'a Activations,
    rows: Range<usize>,
    sink: &'a Sink<'a>,
    amx: bool,
}

/// A function per number of rows, so that every sum has a register. Numbers that are missing are rounded up.
macro_rules! by_rows {
    ($self:ident.strip::<$source:ty>($source_value:expr, $strip:expr, $block:expr); $($m:literal)*) => {
        match $strip.rows {
            $(..=$m => $self.strip::<$source, $m>($source_value, $strip, $block),)*
            rows => unreachable!("{rows} rows are more than a tile"),
        }
    };
}

impl Job<'_> {
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,fma,f16c")]
    unsafe fn run<const BITS: usize, const GROUP: usize, const WIDE: bool, const OFFSET: bool>(&self) {
        // SAFETY: by the promise of `codes`; a row block has as many records as the activations have blocks.
        unsafe {
            if self.rows.len() <= FUSED && !self.amx {
                let strip = self.x.strip(self.rows.clone());
                for block in self.blocks.clone() {
                    let source = Packed::<BITS, GROUP, WIDE, OFFSET>(self.weight.row_block(block).as_ptr());
                    by_rows!(self.strip::<Packed<BITS, GROUP, WIDE, OFFSET>>(source, &strip, block); 1 2 3 4)
                }
                return;
            }
            let side = self.side();
            Panel::with(side * self.records(), |tiles| self.unpacked::<BITS, GROUP, WIDE, OFFSET>(side, tiles));
        }
    }

    fn records(&self) -> usize {
        self.weight.cols() / SPAN
    }

    /// Row blocks that are unpacked together. With many rows of activations sums are then written side by side, not to as
    /// many pages as there are rows.
    fn side(&self) -> usize {
        let bytes = self.records() * size_of::<Tile>();
        match (self.rows.len(), self.amx) {
            (..=TILE, _) => 1,
            (_, false) => (UNPACKED / bytes.max(1)).max(1),
            (_, true) => (TILED_UNPACKED / bytes.max(1)).clamp(1, self.blocks.len()),
        }
    }

    /// Unpacks `side` row blocks at a time and multiplies them by every tile of activations.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,fma,f16c")]
    unsafe fn unpacked<const BITS: usize, const GROUP: usize, const WIDE: bool, const OFFSET: bool>(
        &self,
        side: usize,
        tiles: &mut [Tile],
    ) {
        // SAFETY: by the promise of `codes`; tiles are those of `side` row blocks.
        unsafe {
            let records = self.records().max(1);
            let mut session = self.amx.then(|| amx::Session::new(GROUP));
            for start in self.blocks.clone().step_by(side) {
                let blocks = start..self.blocks.end.min(start + side);
                for (block, tiles) in blocks.clone().zip(tiles.chunks_exact_mut(records)) {
                    let source = Packed::<BITS, GROUP, WIDE, OFFSET>(self.weight.row_block(block).as_ptr());
                    unpack(source, if self.amx { self.layout.zero } else { 0 }, tiles);
                }
                for rows in tile_ranges(&self.rows) {
                    let strip = self.x.strip(rows);
                    for (block, tiles) in blocks.clone().zip(tiles.chunks_exact(records)) {
                        match &mut session {
                            Some(session) => session.tile::<GROUP, OFFSET>(tiles, &strip, block, self.sink),
                            None => self.tile::<GROUP, OFFSET>(tiles, &strip, block),
                        }
                    }
                }
            }
        }
    }

    /// A tile of activations times an unpacked row block, in vectors.
    #[inline(always)]
    unsafe fn tile<const GROUP: usize, const OFFSET: bool>(&self, tiles: &[Tile], strip: &Strip, block: usize) {
        let next = self.weight.row_block(block).as_ptr_range().end;
        let step = if self.rows.len() <= TILE { self.layout.record_bytes() } else { 0 };
        let source = Unpacked::<GROUP, OFFSET> { tiles: tiles.as_ptr(), next, step };
        // SAFETY: by the promise of `codes`.
        unsafe { by_rows!(self.strip::<Unpacked<GROUP, OFFSET>>(source, strip, block); 4 6 8 12 16) }
    }

    /// Multiplies a strip and hands the sums over.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,fma,f16c")]
    unsafe fn strip<S: Source, const M: usize>(&self, source: S, strip: &Strip, block: usize) {
        // SAFETY: by the promise of `codes`; strips may be read beyond their rows.
        let acc = unsafe { dot::<S, M>(source, self.records(), strip, self.layout.zero) };
        let mut sums = [[0.0; LANES]; M];
        for (sums, acc) in sums.iter_mut().zip(acc) {
            *sums = lanes(acc);
        }
        self.sink.put(strip.row, block, &sums[..strip.rows]);
    }
}

/// Rows cut where tiles of activations end.
fn tile_ranges(rows: &Range<usize>) -> impl Iterator<Item = Range<usize>> + use<> {
    let rows = rows.clone();
    rows.clone().step_by(TILE).map(move |start| start..rows.end.min(start + TILE))
}

/// Unpacks a row block, less the zero point if that is asked for (codes are then signed).
#[inline(always)]
unsafe fn unpack<S: Source>(source: S, zero: u8, tiles: &mut [Tile]) {
    for (b, tile) in tiles.iter_mut().enumerate() {
        // SAFETY: there is a record for every tile, and a tile has room for it.
        unsafe {
            source.ahead(b);
            let w = source.scales(b);
            let zero = _mm512_set1_epi8(zero.cast_signed());
            for (j, to) in tile.codes.iter_mut().enumerate() {
                _mm512_store_si512(to.as_mut_ptr().cast(), _mm512_sub_epi8(source.quad(b, j), zero));
            }
            _mm512_store_ps(tile.scales[0].as_mut_ptr(), w.groups[0]);
            _mm512_store_ps(tile.scales[1].as_mut_ptr(), w.groups[1]);
            _mm512_store_ps(tile.offsets.as_mut_ptr(), w.offsets);
        }
    }
}

#[inline(always)]
fn lanes(x: __m512) -> [f32; LANES] {
    // SAFETY: both are 16 floats.
    unsafe { std::mem::transmute(x) }
}

/// Some row blocks of dense weights times some rows of activations.
///
/// # Safety
/// AVX-512 as [`Isa::Avx512`] has it is there.
unsafe fn dense(weight: &Matrix, blocks: Range<usize>, x: &Activations, rows: Range<usize>, sink: &Sink<'_>) {
    // SAFETY: by the caller's promise; each kind of numbers is what the matrix holds.
    unsafe {
        match weight.kind() {
            BlockType::F32 => dense_of::<Single>(weight, blocks, x, rows, sink),
            BlockType::F16 => dense_of::<Half>(weight, blocks, x, rows, sink),
            BlockType::BF16 => dense_of::<Pair>(weight, blocks, x, rows, sink),
            kind => unreachable!("{kind:?} is not dense"),
        }
    }
}

/// Dense weights: one step multiplies one column, or a pair of them, of 16 rows.
trait Dense {
    /// Bytes of a step.
    const BYTES: usize;
    type Weights: Copy;
    type X: Copy;
    /// The activations of a row.
    fn row(x: &Activations, row: usize) -> &[Self::X];
    unsafe fn load(weights: *const u8) -> Self::Weights;
    unsafe fn add(acc: __m512, weights: Self::Weights, x: Self::X) -> __m512;
}

struct Single;
struct Half;
struct Pair;

impl Dense for Single {
    const BYTES: usize = 64;
    type Weights = __m512;
    type X = f32;
    fn row(x: &Activations, row: usize) -> &[f32] {
        x.f32_row(row)
    }
    #[inline(always)]
    unsafe fn load(weights: *const u8) -> __m512 {
        // SAFETY: 64 bytes are there.
        unsafe { _mm512_loadu_ps(weights.cast()) }
    }
    #[inline(always)]
    unsafe fn add(acc: __m512, weights: __m512, x: f32) -> __m512 {
        // SAFETY: AVX-512 is there.
        unsafe { _mm512_fmadd_ps(weights, _mm512_set1_ps(x), acc) }
    }
}

impl Dense for Half {
    const BYTES: usize = 32;
    type Weights = __m512;
    type X = f32;
    fn row(x: &Activations, row: usize) -> &[f32] {
        x.f32_row(row)
    }
    #[inline(always)]
    unsafe fn load(weights: *const u8) -> __m512 {
        // SAFETY: 32 bytes are there.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(weights.cast())) }
    }
    #[inline(always)]
    unsafe fn add(acc: __m512, weights: __m512, x: f32) -> __m512 {
        // SAFETY: AVX-512 is there.
        unsafe { _mm512_fmadd_ps(weights, _mm512_set1_ps(x), acc) }
    }
}

impl Dense for Pair {
    const BYTES: usize = 64;
    type Weights = __m512i;
    type X = u32;
    fn row(x: &Activations, row: usize) -> &[u32] {
        x.bf16_pairs(row)
    }
    #[inline(always)]
    unsafe fn load(weights: *const u8) -> __m512i {
        // SAFETY: 64 bytes are there.
        unsafe { _mm512_loadu_si512(weights.cast()) }
    }
    #[inline(always)]
    unsafe fn add(acc: __m512, weights: __m512i, x: u32) -> __m512 {
        // SAFETY: AVX-512 with BF16 is there, and both types are 64 bytes.
        unsafe {
            let x = _mm512_set1_epi32(x.cast_signed());
            _mm512_dpbf16_ps(
                acc,
                std::mem::transmute::<__m512i, __m512bh>(weights),
                std::mem::transmute::<__m512i, __m512bh>(x),
            )
        }
    }
}

/// Row blocks that are multiplied side by side: as many chains of sums hide the latency of an addition.
const SIDE: usize = 4;

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,fma,f16c")]
unsafe fn dense_of<D: Dense>(
    weight: &Matrix,
    blocks: Range<usize>,
    x: &Activations,
    rows: Range<usize>,
    sink: &Sink<'_>,
) {
    for start in blocks.clone().step_by(SIDE) {
        let side = start..blocks.end.min(start + SIDE);
        let mut row = rows.start;
        while row < rows.end {
            // SAFETY: by the caller's promise.
            row += unsafe {
                match (side.len(), rows.end - row) {
                    (SIDE, 4..) => dense_strip::<D, SIDE, 4>(weight, start, x, row, sink),
                    (SIDE, _) => dense_strip::<D, SIDE, 1>(weight, start, x, row, sink),
                    (_, 4..) => {
                        side.clone().map(|block| dense_strip::<D, 1, 4>(weight, block, x, row, sink)).max().unwrap_or(4)
                    }
                    _ => {
                        side.clone().map(|block| dense_strip::<D, 1, 1>(weight, block, x, row, sink)).max().unwrap_or(1)
                    }
                }
            };
        }
    }
}

/// `R` row blocks times `M` rows of activations; returns `M`.
#[inline(always)]
unsafe fn dense_strip<D: Dense, const R: usize, const M: usize>(
    weight: &Matrix,
    block: usize,
    x: &Activations,
    row: usize,
    sink: &Sink<'_>,
) -> usize {
    let steps = D::row(x, row).len();
    let mut xs = [D::row(x, row); M];
    for (t, xs) in xs.iter_mut().enumerate() {
        *xs = &D::row(x, row + t)[..steps];
    }
    let mut w = [weight.row_block(block).as_ptr(); R];
    for (r, w) in w.iter_mut().enumerate() {
        *w = weight.row_block(block + r).as_ptr();
    }
    // SAFETY: a row block has as many steps as a row of activations.
    unsafe {
        let mut acc = [[_mm512_setzero_ps(); M]; R];
        for step in 0..steps {
            for (acc, w) in acc.iter_mut().zip(w) {
                let w = D::load(w.add(step * D::BYTES));
                for (acc, x) in acc.iter_mut().zip(xs) {
                    *acc = D::add(*acc, w, *x.get_unchecked(step));
                }
            }
        }
        for (r, acc) in acc.into_iter().enumerate() {
            let mut sums = [[0.0; LANES]; M];
            for (sums, acc) in sums.iter_mut().zip(acc) {
                *sums = lanes(acc);
            }
            sink.put(row, block + r, &sums);
        }
    }
    M
}
