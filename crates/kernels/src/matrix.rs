//! Weights packed for the CPU.
//!
//! Quantised weights are packed as [`layout`] describes. Dense ones interleave the same 16 rows: `[column][16]`, or for bf16,
//! whose products come in pairs, `[pair of columns][16][2]`. The last row block is filled up with rows of zeros.
//!
//! Packing takes row-major blocks apart and puts them together again a row block at a time, on all threads, into a buffer of
//! our own; where the bytes come from is the caller's business, so a file can be read in pieces and need not be mapped.

mod layout;

pub(crate) use layout::{LANES, Layout, QUADS, SPAN, Tile};

use std::sync::Mutex;

use crate::block::{Format, MAX_BLOCK, Parts};
use crate::buffer::Buffer;
use crate::parallel::Shared;
use crate::{BlockType, Device, Error, Form};

/// How much of the source one task reads at a time, at least.
const READ: usize = 256 << 10;

/// A weight matrix of `rows` outputs and `cols` inputs, packed in one of a few layouts.
#[derive(Debug)]
pub struct Matrix {
    kind: BlockType,
    rows: usize,
    cols: usize,
    /// Bytes of a row block.
    stride: usize,
    data: Buffer,
}

impl Matrix {
    /// Repacks row-major blocks, in parallel, into an own buffer. Lossless: [`Matrix::row`] gives back the same numbers.
    ///
    /// # Errors
    /// When `cols` is not a whole number of blocks or `bytes` has another length than the shape needs.
    pub fn pack(dev: &Device, kind: BlockType, rows: usize, cols: usize, bytes: &[u8]) -> Result<Self, Error> {
        let needed = check(kind, rows, cols)?;
        if bytes.len() != needed {
            return Err(Error::Length { rows, cols, kind, needed, got: bytes.len() });
        }
        let mut matrix = Self::empty(kind, rows, cols);
        let (row_bytes, count, stride) = (needed / rows.max(1), matrix.row_blocks(), matrix.stride);
        let blocks = Shared::new(matrix.data.bytes_mut());
        dev.run(count, &|b| {
            let range = b * LANES * row_bytes..(rows.min((b + 1) * LANES)) * row_bytes;
            pack_block(kind, cols, &bytes[range], blocks.part(b * stride, stride));
        });
        Ok(matrix)
    }

    /// The same from a source that is read in pieces, on all threads: `read(offset, bytes)` fills `bytes` with what the source
    /// has from `offset` on. The whole source is never in memory.
    ///
    /// # Errors
    /// When `cols` is not a whole number of blocks, or the first error of `read`.
    pub fn pack_from<E: From<Error> + Send>(
        dev: &Device,
        kind: BlockType,
        rows: usize,
        cols: usize,
        read: &(impl Fn(usize, &mut [u8]) -> Result<(), E> + Sync + ?Sized),
    ) -> Result<Self, E> {
        let row_bytes = check(kind, rows, cols)? / rows.max(1);
        let mut matrix = Self::empty(kind, rows, cols);
        let (count, stride) = (matrix.row_blocks(), matrix.stride);
        let blocks = Shared::new(matrix.data.bytes_mut());
        let per_task = READ.div_ceil((LANES * row_bytes).max(1));
        let failed = Mutex::new(None);
        dev.run(count.div_ceil(per_task), &|task| {
            let (first, last) = (task * per_task, count.min((task + 1) * per_task));
            let (start, end) = (first * LANES * row_bytes, rows.min(last * LANES) * row_bytes);
            let mut bytes = vec![0; end - start];
            if let Err(error) = read(start, &mut bytes) {
                failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get_or_insert(error);
                return;
            }
            for (b, rows) in (first..last).zip(bytes.chunks(LANES * row_bytes)) {
                pack_block(kind, cols, rows, blocks.part(b * stride, stride));
            }
        });
        match failed.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
            Some(error) => Err(error),
            None => Ok(matrix),
        }
    }

    fn empty(kind: BlockType, rows: usize, cols: usize) -> Self {
        let stride = match kind.format() {
            Format::Codes(layout, _) => cols / SPAN * layout.record_bytes(),
            Format::Dense(_) if kind == BlockType::BF16 => cols.div_ceil(2) * 4 * LANES,
            Format::Dense(_) => cols * kind.block_bytes() * LANES,
        };
        Self { kind, rows, cols, stride, data: Buffer::zeroed(rows.div_ceil(LANES) * stride) }
    }

    /// Outputs.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Inputs.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Bytes of the packed buffer: what one pass over the weights reads.
    pub fn bytes(&self) -> usize {
        self.data.bytes().len()
    }

    /// What was packed.
    pub fn kind(&self) -> BlockType {
        self.kind
    }

    /// The form of activations this matrix multiplies.
    pub fn form(&self) -> Form {
        match self.kind.format() {
            Format::Codes(..) => Form::Int8,
            Format::Dense(_) if self.kind == BlockType::BF16 => Form::Bf16,
            Format::Dense(_) => Form::F32,
        }
    }

    /// Dequantises one row (an embedding lookup): `out.len() == cols`.
    pub fn row(&self, row: usize, out: &mut [f32]) {
        assert!(row < self.rows && out.len() == self.cols, "row {row} of {} x {}", self.rows, self.cols);
        let (block, lane) = (self.row_block(row / LANES), row % LANES);
        match self.kind.format() {
            Format::Codes(layout, _) => {
                for (record, out) in block.chunks_exact(layout.record_bytes()).zip(out.chunks_exact_mut(SPAN)) {
                    out.iter_mut().enumerate().for_each(|(column, out)| *out = layout.at(record, lane, column));
                }
            }
            Format::Dense(number) => {
                let width = self.kind.block_bytes();
                for (column, out) in out.iter_mut().enumerate() {
                    *out = number(&block[width * dense_index(self.kind, column, lane)..]);
                }
            }
        }
    }

    /// Groups of 16 rows, the last one filled up.
    pub(crate) fn row_blocks(&self) -> usize {
        self.rows.div_ceil(LANES)
    }

    /// The bytes of a row block.
    pub(crate) fn row_block(&self, block: usize) -> &[u8] {
        &self.data.bytes()[block * self.stride..][..self.stride]
    }

    /// How quantised weights lie; `None` for dense ones.
    pub(crate) fn layout(&self) -> Option<Layout> {
        match self.kind.format() {
            Format::Codes(layout, _) => Some(layout),
            Format::Dense(_) => None,
        }
    }
}

/// The bytes of a matrix, if its rows are whole blocks.
fn check(kind: BlockType, rows: usize, cols: usize) -> Result<usize, Error> {
    let columns = Error::Columns { cols, block: kind.block_len(), kind };
    let row = kind.bytes_of(cols).ok_or(columns)?;
    row.checked_mul(rows).ok_or(Error::Length { rows, cols, kind, needed: usize::MAX, got: 0 })
}

/// Where the number of a row and column lies in a dense row block.
fn dense_index(kind: BlockType, column: usize, lane: usize) -> usize {
    if kind == BlockType::BF16 { (column / 2 * LANES + lane) * 2 + column % 2 } else { column * LANES + lane }
}

/// Packs up to 16 rows.
fn pack_block(kind: BlockType, cols: usize, rows: &[u8], out: &mut [u8]) {
    let Some(row_bytes) = kind.bytes_of(cols).filter(|bytes| *bytes > 0) else { return };
    match kind.format() {
        Format::Codes(layout, take_apart) => pack_codes(kind, &layout, take_apart, rows, row_bytes, out),
        Format::Dense(_) => {
            let width = kind.block_bytes();
            for (lane, row) in rows.chunks_exact(row_bytes).enumerate() {
                for (column, number) in row.chunks_exact(width).enumerate() {
                    out[width * dense_index(kind, column, lane)..][..width].copy_from_slice(number);
                }
            }
        }
    }
}

fn pack_codes(
    kind: BlockType,
    layout: &Layout,
    take_apart: fn(&[u8], &mut Parts),
    rows: &[u8],
    row_bytes: usize,
    out: &mut [u8],
) {
    let (len, bytes) = (kind.block_len(), kind.block_bytes());
    let records = len / SPAN;
    let mut parts = Parts::new();
    // Rows that are missing stand for zeros: scale and offset are 0.
    let mut tiles = [Tile::ZERO; MAX_BLOCK / SPAN];
    for (block, out) in out.chunks_exact_mut(records * layout.record_bytes()).enumerate() {
        for (lane, row) in rows.chunks_exact(row_bytes).enumerate() {
            take_apart(&row[block * bytes..][..bytes], &mut parts);
            for (r, tile) in tiles[..records].iter_mut().enumerate() {
                fill_lane(layout, &parts, r, lane, tile);
            }
        }
        for (tile, record) in tiles.iter().zip(out.chunks_exact_mut(layout.record_bytes())) {
            layout.write(tile, record);
        }
    }
}

/// Puts 32 columns of a row into its lane of a tile.
fn fill_lane(layout: &Layout, parts: &Parts, record: usize, lane: usize, tile: &mut Tile) {
    let quads = parts.codes[record * SPAN..][..SPAN].as_chunks::<4>().0;
    for (vector, quad) in tile.codes.iter_mut().zip(quads) {
        vector.as_chunks_mut::<4>().0[lane] = *quad;
    }
    for (scales, scale) in tile.scales.iter_mut().zip(&parts.scales[record * layout.groups()..][..layout.groups()]) {
        scales[lane] = *scale;
    }
    if layout.offset {
        tile.offsets[lane] = parts.offsets[record];
    }
}

#[cfg(test)]
mod tests;
