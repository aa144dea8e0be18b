//! Activations in the forms that matrices multiply.
//!
//! Bytes are kept in *tiles* of 16 rows, block by block: `[tile][block][row of the tile][32]`, so that a tile of one block is
//! what AMX loads as one register, and rows of a block are a fixed distance apart. The last tile has as many rows as are
//! left, so a single row is contiguous. Scales and sums of blocks lie in the same order. bf16 and f32 are row-major.

use std::cell::RefCell;
use std::ops::Range;

use half::bf16;

use super::scalar::Block;
use crate::matrix::SPAN;
use crate::parallel::Shared;
use crate::{Device, Isa};

/// Rows of a tile.
pub(super) const TILE: usize = 16;
/// Columns that are prepared at a time, so that a single wide row keeps several threads busy.
const CHUNK: usize = 2048;
/// Numbers that are worth a task, about a microsecond's.
const NUMBERS_PER_TASK: usize = 4096;

/// The form in which activations meet a matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Form {
    /// Signed bytes in blocks of 32 with an f32 scale, for quantised weights.
    Int8,
    /// bf16, for bf16 weights.
    Bf16,
    /// f32, for f32 and f16 weights.
    F32,
}

/// Rows of activations, prepared for multiplication. Buffers are kept between uses: no allocation once they have grown.
#[derive(Debug, Default)]
pub struct Activations {
    rows: usize,
    cols: usize,
    has: [bool; 3],
    q: Vec<Bytes>,
    scales: Vec<f32>,
    /// The sums of the first and last 16 bytes of a block, in the low and high half.
    sums: Vec<i32>,
    /// `scale * f32(sum of the block)`.
    scaled_sums: Vec<f32>,
    /// Pairs, the first in the low half.
    bf16: Vec<u32>,
    f32: Vec<f32>,
}

/// Pointers to some rows of a tile, for kernels: block `b` of row `t` of them is number `b * height + t` of each.
///
/// Kernels that always take 16 rows may read that many from any block on: buffers are longer by that.
#[derive(Debug)]
pub(super) struct Strip {
    pub(super) q: *const i8,
    pub(super) scales: *const f32,
    pub(super) sums: *const i32,
    pub(super) scaled_sums: *const f32,
    pub(super) height: usize,
    /// The first row, counted in the activations.
    pub(super) row: usize,
    pub(super) rows: usize,
}

/// A block, aligned so that none crosses a cache line.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(32))]
struct Bytes([i8; SPAN]);

thread_local! {
    /// Where a chunk of a row is computed before it is rounded.
    static CHUNK_BUFFER: RefCell<[f32; CHUNK]> = const { RefCell::new([0.0; CHUNK]) };
}

impl Activations {
    /// Empty buffers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes `x` (row-major, `cols` wide) and prepares it in each of `forms`.
    pub fn set(&mut self, dev: &Device, x: &[f32], cols: usize, forms: &[Form]) {
        let rows = x.len() / cols.max(1);
        assert_eq!(x.len(), rows * cols, "{} numbers are not rows of {cols}", x.len());
        self.resize(rows, cols, forms);
        let parts = self.parts(dev.isa());
        share_rows(dev, rows, cols, &|row, range| parts.store(row, range.start, &x[row * cols..][range]));
    }

    /// Prepares rows that `row(r, columns, out)` computes, a chunk of columns at a time (chunks start at multiples of 64).
    pub fn fill(
        &mut self,
        dev: &Device,
        rows: usize,
        cols: usize,
        forms: &[Form],
        row: &(impl Fn(usize, Range<usize>, &mut [f32]) + Sync + ?Sized),
    ) {
        self.resize(rows, cols, forms);
        let parts = self.parts(dev.isa());
        share_rows(dev, rows, cols, &|r, range| {
            CHUNK_BUFFER.with_borrow_mut(|buffer| {
                let chunk = &mut buffer[..range.len()];
                row(r, range.clone(), chunk);
                parts.store(r, range.start, chunk);
            });
        });
    }

    /// Rows held.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns held.
    pub fn cols(&self) -> usize {
        self.cols
    }

    fn resize(&mut self, rows: usize, cols: usize, forms: &[Form]) {
        (self.rows, self.cols) = (rows, cols);
        self.has = [Form::Int8, Form::Bf16, Form::F32].map(|form| forms.contains(&form));
        let blocks = if self.has[0] { rows * cols.div_ceil(SPAN) + TILE } else { 0 };
        self.q.resize(blocks, Bytes([0; SPAN]));
        self.scales.resize(blocks, 0.0);
        self.sums.resize(blocks, 0);
        self.scaled_sums.resize(blocks, 0.0);
        self.bf16.resize(if self.has[1] { rows * cols.div_ceil(2) } else { 0 }, 0);
        self.f32.resize(if self.has[2] { rows * cols } else { 0 }, 0.0);
    }

    /// The index of a block.
    fn index(&self, row: usize, block: usize) -> usize {
        tile_index(self.rows, self.cols.div_ceil(SPAN), row, block)
    }

    /// One block of bytes with its scale and sums.
    pub(super) fn block(&self, row: usize, block: usize) -> Block<'_> {
        let i = self.index(row, block);
        let sums = [self.sums[i] as i16, (self.sums[i] >> 16) as i16];
        Block { q: &self.q[i].0, scale: self.scales[i], sums, scaled_sum: self.scaled_sums[i] }
    }

    /// A block of a row in bytes, and its scale; zeros behind the last.
    pub(crate) fn bytes(&self, row: usize, block: usize) -> (&[i8; SPAN], f32) {
        if block >= self.cols.div_ceil(SPAN) {
            return (&[0; SPAN], 0.0);
        }
        let Block { q, scale, .. } = self.block(row, block);
        (q, scale)
    }

    /// Rows of one tile, in bytes.
    pub(super) fn strip(&self, rows: Range<usize>) -> Strip {
        assert!(self.has[0] && !rows.is_empty() && rows.end <= self.rows, "no bytes of rows {rows:?}");
        let first = rows.start / TILE * TILE;
        assert!(rows.end <= first + TILE, "rows {rows:?} are of two tiles");
        let (at, height) = (self.index(rows.start, 0), TILE.min(self.rows - first));
        Strip {
            q: self.q[at..].as_ptr().cast(),
            scales: self.scales[at..].as_ptr(),
            sums: self.sums[at..].as_ptr(),
            scaled_sums: self.scaled_sums[at..].as_ptr(),
            height,
            row: rows.start,
            rows: rows.len(),
        }
    }

    /// A row in f32.
    pub(crate) fn f32_row(&self, row: usize) -> &[f32] {
        &self.f32[row * self.cols..][..self.cols]
    }

    /// A row in bf16, two numbers to a word, the first in its low half; a last odd one is followed by zero.
    pub(super) fn bf16_pairs(&self, row: usize) -> &[u32] {
        let width = self.cols.div_ceil(2);
        &self.bf16[row * width..][..width]
    }

    /// Appends a row as one of its forms has it.
    pub(crate) fn read(&self, form: Form, row: usize, out: &mut Vec<f32>) {
        match form {
            Form::F32 => out.extend(self.f32_row(row)),
            Form::Bf16 => {
                let halves = self.bf16_pairs(row).iter().flat_map(|pair| [pair << 16, pair & 0xffff_0000]);
                out.extend(halves.map(f32::from_bits).take(self.cols));
            }
            Form::Int8 => {
                let blocks = (0..self.cols.div_ceil(SPAN)).map(|b| self.block(row, b));
                let numbers = blocks.flat_map(|block| block.q.iter().map(move |q| f32::from(*q) * block.scale));
                out.extend(numbers.take(self.cols));
            }
        }
    }

    fn parts(&mut self, isa: Isa) -> Parts<'_> {
        Parts {
            isa,
            rows: self.rows,
            cols: self.cols,
            has: self.has,
            q: Shared::new(&mut self.q),
            scales: Shared::new(&mut self.scales),
            sums: Shared::new(&mut self.sums),
            scaled_sums: Shared::new(&mut self.scaled_sums),
            bf16: Shared::new(&mut self.bf16),
            f32: Shared::new(&mut self.f32),
        }
    }
}

/// Calls `work(row, columns)` for every row, a tile or some columns of it to a task: rows of a tile share cache lines, and threads
/// that wrote to the same lines would wait for each other.
fn share_rows(dev: &Device, rows: usize, cols: usize, work: &(dyn Fn(usize, Range<usize>) + Sync)) {
    let (tiles, wanted) = (rows.div_ceil(TILE), 2 * dev.threads());
    let narrow = (cols / wanted).max(NUMBERS_PER_TASK / rows.max(1)).next_multiple_of(2 * SPAN);
    let width = if tiles < wanted { narrow.min(CHUNK) } else { CHUNK };
    let chunks = cols.div_ceil(width);
    dev.run(tiles * chunks, &|task| {
        let (first, start) = (task / chunks * TILE, task % chunks * width);
        for row in first..rows.min(first + TILE) {
            work(row, start..cols.min(start + width));
        }
    });
}

/// Where a block of a row lies: tiles of 16 rows, the last one with those that are left.
fn tile_index(rows: usize, blocks: usize, row: usize, block: usize) -> usize {
    let first = row / TILE * TILE;
    first * blocks + block * TILE.min(rows - first) + row - first
}

/// The buffers while tasks write them.
pub(super) struct Parts<'a> {
    isa: Isa,
    rows: usize,
    cols: usize,
    has: [bool; 3],
    q: Shared<'a, Bytes>,
    scales: Shared<'a, f32>,
    sums: Shared<'a, i32>,
    scaled_sums: Shared<'a, f32>,
    bf16: Shared<'a, u32>,
    f32: Shared<'a, f32>,
}

impl Parts<'_> {
    fn store(&self, row: usize, start: usize, x: &[f32]) {
        let [int8, bf16, f32] = self.has;
        if int8 {
            self.store_bytes(row, start, x);
        }
        if bf16 {
            let out = self.bf16.part(row * self.cols.div_ceil(2) + start / 2, x.len().div_ceil(2));
            for (out, pair) in out.iter_mut().zip(x.chunks(2)) {
                let bits = |i: usize| pair.get(i).map_or(0, |x| u32::from(bf16::from_f32(*x).to_bits()));
                *out = bits(0) | bits(1) << 16;
            }
        }
        if f32 {
            self.f32.part(row * self.cols + start, x.len()).copy_from_slice(x);
        }
    }

    fn store_bytes(&self, row: usize, start: usize, x: &[f32]) {
        match self.isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 | Isa::Avx512 | Isa::Amx => super::avx2::store_blocks(self, row, start, x),
            _ => self.store_blocks::<Plain>(row, start, x),
        }
    }

    /// Inlined into functions that have the instructions of `R`.
    #[inline(always)]
    pub(super) fn store_blocks<R: Round>(&self, row: usize, start: usize, x: &[f32]) {
        let blocks = self.cols.div_ceil(SPAN);
        let height = TILE.min(self.rows - row / TILE * TILE);
        let mut at = tile_index(self.rows, blocks, row, start / SPAN);
        let (whole, rest) = x.as_chunks::<SPAN>();
        for x in whole {
            self.store_block(at, R::round(x, &mut self.q.part(at, 1)[0].0));
            at += height;
        }
        if !rest.is_empty() {
            self.store_block(at, round_any(rest, &mut self.q.part(at, 1)[0].0));
        }
    }

    #[inline(always)]
    fn store_block(&self, at: usize, (scale, sums): (f32, [i16; 2])) {
        self.scales.part(at, 1)[0] = scale;
        self.sums.part(at, 1)[0] = i32::from(sums[0]) & 0xffff | i32::from(sums[1]) << 16;
        self.scaled_sums.part(at, 1)[0] = scale * f32::from(sums[0] + sums[1]);
    }
}

/// A way to round a block to bytes; all ways give the same.
pub(super) trait Round {
    /// Returns the scale and the sums of both halves.
    fn round(x: &[f32; SPAN], bytes: &mut [i8; SPAN]) -> (f32, [i16; 2]);
}

struct Plain;

impl Round for Plain {
    fn round(x: &[f32; SPAN], bytes: &mut [i8; SPAN]) -> (f32, [i16; 2]) {
        round_any(x, bytes)
    }
}

/// Below this numbers count as zero: the inverse of its scale could overflow.
const TINY: f32 = 1.0 / (1u128 << 100) as f32;

/// Rounds up to 32 numbers to bytes, the rest being zero: what every instruction set must give.
fn round_any(x: &[f32], bytes: &mut [i8; SPAN]) -> (f32, [i16; 2]) {
    *bytes = [0; SPAN];
    // As integers, magnitudes sort like floats, and infinities and NaN come last.
    let (scale, inverse) = scale(f32::from_bits(x.iter().map(|x| x.to_bits() & 0x7fff_ffff).max().unwrap_or(0)), 127.0);
    if inverse > 0.0 {
        bytes.iter_mut().zip(x).for_each(|(byte, x)| *byte = (x * inverse).round_ties_even() as i8);
    }
    let sum = |bytes: &[i8]| bytes.iter().map(|byte| i16::from(*byte)).sum();
    (scale, [sum(&bytes[..SPAN / 2]), sum(&bytes[SPAN / 2..])])
}

/// The scale of numbers with this largest magnitude, which is to be so many steps, and what to multiply by before rounding: 0 if all are to be 0.
#[inline(always)]
pub(crate) fn scale(max: f32, steps: f32) -> (f32, f32) {
    match max {
        _ if !max.is_finite() => (f32::NAN, 0.0),
        _ if max < TINY => (0.0, 0.0),
        _ => (max / steps, steps / max),
    }
}
