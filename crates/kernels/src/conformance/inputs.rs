//! Inputs of the table's cases: numbers by a hash, so that a row has the same content wherever it is made.

use half::{bf16, f16};

use crate::{BlockType, Form};

/// The number at `index`, between -1 and 1.
fn number(index: usize, seed: u32) -> f32 {
    let mut x = (index as u32).wrapping_add(seed.wrapping_mul(0x9e37_79b9));
    for factor in [0x7feb_352d, 0x846c_a68b] {
        x = (x ^ (x >> 16)).wrapping_mul(factor);
    }
    (x >> 8) as f32 / 8_388_608.0 - 1.0
}

/// Some rows of a table of random numbers.
pub(super) fn rows(rows: &[usize], cols: usize, seed: u32) -> Vec<f32> {
    rows.iter().flat_map(|row| (0..cols).map(move |i| number(row * cols + i, seed))).collect()
}

/// `n` numbers up to `size`.
pub(super) fn numbers(n: usize, size: f32, seed: u32) -> Vec<f32> {
    (0..n).map(|i| number(i, seed) * size).collect()
}

/// Blocks that hold `n` numbers, all finite.
pub(super) fn weights(kind: BlockType, n: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..kind.bytes_of(n).unwrap_or(0)).map(|i| (number(i, 5).to_bits() >> 9) as u8).collect();
    for (i, block) in bytes.chunks_exact_mut(kind.block_bytes()).enumerate() {
        let x = number(i, 6);
        let mut put = |at: usize, x: f32| block[at..at + 2].copy_from_slice(&f16::from_f32(x).to_le_bytes());
        match kind {
            BlockType::F32 => block.copy_from_slice(&x.to_le_bytes()),
            BlockType::BF16 => block.copy_from_slice(&bf16::from_f32(x).to_le_bytes()),
            BlockType::F16 | BlockType::Q4_0 | BlockType::Q5_0 | BlockType::Q8_0 => put(0, x),
            BlockType::Q6_K => put(208, x),
            BlockType::Q4_1 | BlockType::Q5_1 | BlockType::Q4_K | BlockType::Q5_K => {
                put(0, x);
                put(2, 0.5 * x);
            }
        }
    }
    bytes
}

/// The form of activations that weights of this type multiply.
pub(super) fn form(kind: BlockType) -> Form {
    match kind {
        BlockType::F32 | BlockType::F16 => Form::F32,
        BlockType::BF16 => Form::Bf16,
        _ => Form::Int8,
    }
}
