//! How quantised weights lie in memory.
//!
//! A matrix is cut into *row blocks* of 16 rows, one lane of a 512-bit vector each. A row block is a sequence of *records*,
//! one for every 32 columns, so that a row block is read front to back as one stream:
//!
//! ```text
//! record = scales  [32 / group][16]  f16 or f32
//!          offsets [16]              the same type, if the layout has offsets
//!          codes   4 vectors of nibbles: vector j holds quad j in the low nibbles, quad j + 4 in the high ones
//!                  or, for 8 bits, 8 vectors of bytes: vector j holds quad j
//!          planes  per bit above the fourth: 8 words of 64 bits, word j for quad j
//! ```
//!
//! *Quad* `j` is columns `4j..4j + 4` of the 32. A vector has 64 bytes: byte `4 * row + i` belongs to column `4j + i` of that row,
//! the order in which VNNI's dot products and AMX's tiles want them. Bit `4 * row + i` of a plane's word belongs to the same
//! byte, so the word is the mask under which AVX-512 adds 16 or 32.

use half::f16;
use half::slice::HalfFloatSliceExt;

/// Rows that are interleaved.
pub(crate) const LANES: usize = 16;
/// Columns of a record.
pub(crate) const SPAN: usize = 32;
/// Quads of a record.
pub(crate) const QUADS: usize = SPAN / 4;

/// How the codes, scales and offsets of a matrix are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Bits of a code: 4, 5, 6 or 8.
    pub(crate) bits: usize,
    /// Columns that share a scale: 16 or 32.
    pub(crate) group: usize,
    /// Scales and offsets are f32, not f16.
    pub(crate) wide: bool,
    /// Every group has an offset, and the zero point is 0.
    pub(crate) offset: bool,
    /// What code stands for 0.
    pub(crate) zero: u8,
}

/// A record unpacked: what kernels that reuse weights work from.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Tile {
    /// Vector `j` holds quad `j`.
    pub(crate) codes: [[u8; 4 * LANES]; QUADS],
    /// One row per group (the second is unused with groups of 32).
    pub(crate) scales: [[f32; LANES]; 2],
    /// Zero for layouts without offsets.
    pub(crate) offsets: [f32; LANES],
}

impl Tile {
    pub(crate) const ZERO: Self =
        Self { codes: [[0; 4 * LANES]; QUADS], scales: [[0.0; LANES]; 2], offsets: [0.0; LANES] };
}

impl Layout {
    /// f16 scales and a zero point.
    pub(crate) const fn zero(bits: usize, group: usize, zero: u8) -> Self {
        Self { bits, group, wide: false, offset: false, zero }
    }

    /// f16 scales and offsets, for groups of 32.
    pub(crate) const fn offset(bits: usize) -> Self {
        Self { bits, group: SPAN, wide: false, offset: true, zero: 0 }
    }

    /// The same in f32.
    pub(crate) const fn wide(self) -> Self {
        Self { wide: true, ..self }
    }

    /// The number that a code stands for.
    pub(crate) fn number(&self, code: u8, scale: f32, offset: f32) -> f32 {
        if self.offset { scale * f32::from(code) + offset } else { scale * (f32::from(code) - f32::from(self.zero)) }
    }

    /// Groups of a record.
    pub(crate) const fn groups(&self) -> usize {
        SPAN / self.group
    }

    /// Bytes of 16 scales or offsets.
    const fn scale_bytes(&self) -> usize {
        if self.wide { 4 * LANES } else { 2 * LANES }
    }

    /// Where the codes of a record begin.
    pub(crate) const fn codes_at(&self) -> usize {
        self.scale_bytes() * (self.groups() + self.offset as usize)
    }

    /// Where the bit planes of a record begin.
    pub(crate) const fn planes_at(&self) -> usize {
        self.codes_at() + if self.bits == 8 { 64 * QUADS } else { 32 * QUADS }
    }

    /// Bytes of a record.
    pub(crate) const fn record_bytes(&self) -> usize {
        self.planes_at() + if self.bits == 8 { 0 } else { 8 * QUADS * (self.bits - 4) }
    }

    /// Writes a tile as a record.
    pub(crate) fn write(&self, tile: &Tile, record: &mut [u8]) {
        let (scales, codes) = record.split_at_mut(self.codes_at());
        let rows = tile.scales[..self.groups()].iter().chain(self.offset.then_some(&tile.offsets));
        for (bytes, row) in scales.chunks_exact_mut(self.scale_bytes()).zip(rows) {
            self.write_scales(row, bytes);
        }
        if self.bits == 8 {
            codes.copy_from_slice(tile.codes.as_flattened());
            return;
        }
        let (nibbles, planes) = codes.split_at_mut(32 * QUADS);
        let (low, high) = tile.codes.as_flattened().split_at(32 * QUADS);
        for ((byte, low), high) in nibbles.iter_mut().zip(low).zip(high) {
            *byte = low & 15 | high << 4;
        }
        for (bit, plane) in planes.chunks_exact_mut(8 * QUADS).enumerate() {
            for (word, codes) in plane.chunks_exact_mut(8).zip(&tile.codes) {
                write_plane(codes, 4 + bit, word);
            }
        }
    }

    fn write_scales(&self, row: &[f32; LANES], bytes: &mut [u8]) {
        if self.wide {
            bytes.chunks_exact_mut(4).zip(row).for_each(|(b, x)| b.copy_from_slice(&x.to_le_bytes()));
        } else {
            let mut halves = [f16::ZERO; LANES];
            halves.convert_from_f32_slice(row);
            bytes.chunks_exact_mut(2).zip(halves).for_each(|(b, x)| b.copy_from_slice(&x.to_le_bytes()));
        }
    }

    /// Reads a record back: the reference of every unpacking kernel.
    pub(crate) fn read(&self, record: &[u8], tile: &mut Tile) {
        let (scales, codes) = record.split_at(self.codes_at());
        let mut rows = scales.chunks_exact(self.scale_bytes());
        for row in tile.scales[..self.groups()].iter_mut().chain(self.offset.then_some(&mut tile.offsets)) {
            if let Some(bytes) = rows.next() {
                self.read_scales(bytes, row);
            }
        }
        if self.bits == 8 {
            tile.codes.as_flattened_mut().copy_from_slice(codes);
            return;
        }
        let (nibbles, planes) = codes.split_at(32 * QUADS);
        let (low, high) = tile.codes.as_flattened_mut().split_at_mut(32 * QUADS);
        for ((byte, low), high) in nibbles.iter().zip(low).zip(high) {
            (*low, *high) = (byte & 15, byte >> 4);
        }
        for (bit, plane) in planes.chunks_exact(8 * QUADS).enumerate() {
            for (i, code) in tile.codes.as_flattened_mut().iter_mut().enumerate() {
                *code |= (plane[i / 8] >> (i % 8) & 1) << (4 + bit);
            }
        }
    }

    fn read_scales(&self, bytes: &[u8], row: &mut [f32; LANES]) {
        if self.wide {
            bytes.chunks_exact(4).zip(row).for_each(|(b, x)| *x = f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        } else {
            bytes.chunks_exact(2).zip(row).for_each(|(b, x)| *x = f16::from_le_bytes([b[0], b[1]]).to_f32());
        }
    }

    /// The number of one row and column of a record.
    pub(crate) fn at(&self, record: &[u8], lane: usize, column: usize) -> f32 {
        let scale = self.scale_at(record, column / self.group, lane);
        let offset = if self.offset { self.scale_at(record, self.groups(), lane) } else { 0.0 };
        self.number(self.code_at(record, lane, column), scale, offset)
    }

    fn scale_at(&self, record: &[u8], row: usize, lane: usize) -> f32 {
        let at = |width: usize| &record[row * self.scale_bytes() + width * lane..][..width];
        match (self.wide, at(if self.wide { 4 } else { 2 })) {
            (true, b) => f32::from_le_bytes([b[0], b[1], b[2], b[3]]),
            (false, b) => f16::from_le_bytes([b[0], b[1]]).to_f32(),
        }
    }

    fn code_at(&self, record: &[u8], lane: usize, column: usize) -> u8 {
        let (quad, byte) = (column / 4, 4 * lane + column % 4);
        let codes = &record[self.codes_at()..];
        if self.bits == 8 {
            return codes[64 * quad + byte];
        }
        let nibble = codes[64 * (quad % 4) + byte] >> (4 * (quad / 4)) & 15;
        let planes = record[self.planes_at()..].chunks_exact(8 * QUADS);
        let bits = planes.enumerate().map(|(i, plane)| (plane[8 * quad + byte / 8] >> (byte % 8) & 1) << (4 + i));
        bits.fold(nibble, |code, bit| code | bit)
    }
}

/// Gathers one bit of 64 codes.
fn write_plane(codes: &[u8; 4 * LANES], bit: usize, word: &mut [u8]) {
    // The product moves bit 8i of its factor to bit 56 + i; no two of them meet below.
    const GATHER: u64 = 0x0102_0408_1020_4080;
    for (byte, codes) in word.iter_mut().zip(codes.as_chunks().0) {
        let bits = u64::from_le_bytes(*codes) >> bit & 0x0101_0101_0101_0101;
        *byte = (bits.wrapping_mul(GATHER) >> 56) as u8;
    }
}
