//! The block types that checkpoints store, as GGUF defines them (`ggml-common.h` of the GGUF specification).
//!
//! Every quantised type is taken apart into the same three things, which is all that the rest of the crate knows of it:
//! unsigned codes, a scale per group, and either a whole zero point or an offset per group. Then a number is
//! `scale * (code - zero)` or `scale * code + offset`. Scales of the K types are products of an f16 and a 6- or 8-bit
//! integer: 19 bits at most, so f32 holds them exactly, and unpacking loses nothing.

use half::{bf16, f16};

use crate::matrix::Layout;

/// How a checkpoint stores numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(non_camel_case_types, reason = "the names the field uses")]
#[expect(missing_docs, reason = "the names say it all")]
#[non_exhaustive]
pub enum BlockType {
    F32,
    F16,
    BF16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q4_K,
    Q5_K,
    Q6_K,
}

/// Most numbers that a block has.
pub(crate) const MAX_BLOCK: usize = 256;

/// A block taken apart.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) codes: [u8; MAX_BLOCK],
    /// One per group.
    pub(crate) scales: [f32; MAX_BLOCK / 16],
    /// One per group, for types that have offsets.
    pub(crate) offsets: [f32; MAX_BLOCK / 32],
}

impl Parts {
    pub(crate) fn new() -> Self {
        Self { codes: [0; MAX_BLOCK], scales: [0.0; MAX_BLOCK / 16], offsets: [0.0; MAX_BLOCK / 32] }
    }
}

/// What the crate knows of a type: a new one is a new row.
struct Row {
    gguf: u32,
    len: usize,
    bytes: usize,
    format: Format,
}

/// What the bytes of a block mean.
#[derive(Clone, Copy)]
pub(crate) enum Format {
    /// Plain numbers.
    Dense(fn(&[u8]) -> f32),
    /// Codes: how to pack them, and how to take a block apart.
    Codes(Layout, fn(&[u8], &mut Parts)),
}

impl BlockType {
    fn table(self) -> Row {
        use Format::{Codes, Dense};
        let row = |gguf, len, bytes, format| Row { gguf, len, bytes, format };
        match self {
            Self::F32 => row(0, 1, 4, Dense(f32_number)),
            Self::F16 => row(1, 1, 2, Dense(f16_number)),
            Self::BF16 => row(30, 1, 2, Dense(bf16_number)),
            Self::Q4_0 => row(2, 32, 18, Codes(Layout::zero(4, 32, 8), q4_0)),
            Self::Q4_1 => row(3, 32, 20, Codes(Layout::offset(4), q4_1)),
            Self::Q5_0 => row(6, 32, 22, Codes(Layout::zero(5, 32, 16), q5_0)),
            Self::Q5_1 => row(7, 32, 24, Codes(Layout::offset(5), q5_1)),
            Self::Q8_0 => row(8, 32, 34, Codes(Layout::zero(8, 32, 128), q8_0)),
            Self::Q4_K => row(12, 256, 144, Codes(Layout::offset(4).wide(), q4_k)),
            Self::Q5_K => row(13, 256, 176, Codes(Layout::offset(5).wide(), q5_k)),
            Self::Q6_K => row(14, 256, 210, Codes(Layout::zero(6, 16, 32).wide(), q6_k)),
        }
    }

    /// Every type.
    pub const ALL: [Self; 11] = [
        Self::F32,
        Self::F16,
        Self::BF16,
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q8_0,
        Self::Q4_K,
        Self::Q5_K,
        Self::Q6_K,
    ];

    /// Numbers in a block.
    pub fn block_len(self) -> usize {
        self.table().len
    }

    /// Bytes of a block.
    pub fn block_bytes(self) -> usize {
        self.table().bytes
    }

    /// GGUF's number for it (`ggml_type`), if this crate reads that type.
    pub fn from_gguf(id: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.table().gguf == id)
    }

    /// Bytes of `n` numbers, `None` if they are not whole blocks or the size overflows.
    pub fn bytes_of(self, n: usize) -> Option<usize> {
        let blocks = n / self.block_len();
        if n.is_multiple_of(self.block_len()) { blocks.checked_mul(self.block_bytes()) } else { None }
    }

    /// Unpacks whole blocks to f32, exactly (the scalar reference). `bytes.len()` is `out.len()` numbers' worth.
    pub fn dequantise(self, bytes: &[u8], out: &mut [f32]) {
        assert_eq!(Some(bytes.len()), self.bytes_of(out.len()), "bytes and numbers of {self:?} differ");
        let Row { len, bytes: block_bytes, format, .. } = self.table();
        let blocks = bytes.chunks_exact(block_bytes).zip(out.chunks_exact_mut(len));
        match format {
            Format::Dense(number) => blocks.for_each(|(block, out)| out[0] = number(block)),
            Format::Codes(layout, take_apart) => {
                let mut parts = Parts::new();
                for (block, out) in blocks {
                    take_apart(block, &mut parts);
                    numbers(&layout, &parts, out);
                }
            }
        }
    }

    pub(crate) fn format(self) -> Format {
        self.table().format
    }
}

/// The numbers of a block that was taken apart.
fn numbers(layout: &Layout, parts: &Parts, out: &mut [f32]) {
    for (g, (out, codes)) in out.chunks_exact_mut(layout.group).zip(parts.codes.chunks_exact(layout.group)).enumerate()
    {
        for (out, &code) in out.iter_mut().zip(codes) {
            *out = layout.number(code, parts.scales[g], if layout.offset { parts.offsets[g] } else { 0.0 });
        }
    }
}

fn f32_number(b: &[u8]) -> f32 {
    f32::from_le_bytes([b[0], b[1], b[2], b[3]])
}

fn f16_number(b: &[u8]) -> f32 {
    f16::from_le_bytes([b[0], b[1]]).to_f32()
}

fn bf16_number(b: &[u8]) -> f32 {
    bf16::from_le_bytes([b[0], b[1]]).to_f32()
}

/// 16 bytes hold the first 16 codes in their low nibbles and the last 16 in their high ones.
fn nibbles(packed: &[u8], codes: &mut [u8]) {
    let (low, high) = codes.split_at_mut(packed.len());
    for ((&byte, low), high) in packed.iter().zip(low).zip(high) {
        *low = byte & 15;
        *high = byte >> 4;
    }
}

/// Adds bit `i` of four bytes to code `i` as its fifth bit.
fn fifth_bits(packed: &[u8], codes: &mut [u8]) {
    for (codes, &byte) in codes.chunks_exact_mut(8).zip(packed) {
        for (i, code) in codes.iter_mut().enumerate() {
            *code |= (byte >> i & 1) << 4;
        }
    }
}

fn q4_0(b: &[u8], parts: &mut Parts) {
    parts.scales[0] = f16_number(b);
    nibbles(&b[2..18], &mut parts.codes[..32]);
}

fn q4_1(b: &[u8], parts: &mut Parts) {
    parts.scales[0] = f16_number(b);
    parts.offsets[0] = f16_number(&b[2..]);
    nibbles(&b[4..20], &mut parts.codes[..32]);
}

fn q5_0(b: &[u8], parts: &mut Parts) {
    parts.scales[0] = f16_number(b);
    nibbles(&b[6..22], &mut parts.codes[..32]);
    fifth_bits(&b[2..6], &mut parts.codes[..32]);
}

fn q5_1(b: &[u8], parts: &mut Parts) {
    parts.scales[0] = f16_number(b);
    parts.offsets[0] = f16_number(&b[2..]);
    nibbles(&b[8..24], &mut parts.codes[..32]);
    fifth_bits(&b[4..8], &mut parts.codes[..32]);
}

fn q8_0(b: &[u8], parts: &mut Parts) {
    parts.scales[0] = f16_number(b);
    for (code, &byte) in parts.codes.iter_mut().zip(&b[2..34]) {
        *code = byte ^ 0x80;
    }
}

/// The scales and offsets of the 4- and 5-bit K types: `d`, `dmin`, and eight pairs of 6-bit integers in 12 bytes.
fn k_scales(b: &[u8], parts: &mut Parts) {
    let (d, dmin, packed) = (f16_number(b), f16_number(&b[2..]), &b[4..16]);
    for j in 0..8 {
        let (scale, min) = if j < 4 {
            (packed[j] & 63, packed[j + 4] & 63)
        } else {
            let (low, high, tops) = (packed[j + 4] & 15, packed[j + 4] >> 4, (packed[j - 4] >> 6, packed[j] >> 6));
            (low | tops.0 << 4, high | tops.1 << 4)
        };
        parts.scales[j] = d * f32::from(scale);
        parts.offsets[j] = -(dmin * f32::from(min));
    }
}

fn q4_k(b: &[u8], parts: &mut Parts) {
    k_scales(b, parts);
    for (packed, codes) in b[16..144].chunks_exact(32).zip(parts.codes.chunks_exact_mut(64)) {
        nibbles(packed, codes);
    }
}

fn q5_k(b: &[u8], parts: &mut Parts) {
    k_scales(b, parts);
    for (packed, codes) in b[48..176].chunks_exact(32).zip(parts.codes.chunks_exact_mut(64)) {
        nibbles(packed, codes);
    }
    for (j, codes) in parts.codes.chunks_exact_mut(32).enumerate() {
        for (code, &bits) in codes.iter_mut().zip(&b[16..48]) {
            *code |= (bits >> j & 1) << 4;
        }
    }
}

fn q6_k(b: &[u8], parts: &mut Parts) {
    let d = f16_number(&b[208..]);
    for (scale, &byte) in parts.scales.iter_mut().zip(&b[192..208]) {
        *scale = d * f32::from(byte.cast_signed());
    }
    for (half, codes) in parts.codes.chunks_exact_mut(128).enumerate() {
        let (low, high) = (&b[64 * half..][..64], &b[128 + 32 * half..][..32]);
        for (quarter, codes) in codes.chunks_exact_mut(32).enumerate() {
            for (i, code) in codes.iter_mut().enumerate() {
                let nibble = low[32 * (quarter & 1) + i] >> (4 * (quarter / 2)) & 15;
                *code = nibble | (high[i] >> (2 * quarter) & 3) << 4;
            }
        }
    }
}

#[cfg(test)]
mod tests;
