//! Random inputs for this crate's tests.

use crate::BlockType;

/// A small generator of numbers, the same everywhere (SplitMix64).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Between -1 and 1.
    pub(crate) fn number(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    pub(crate) fn numbers(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.number()).collect()
    }
}

/// Random blocks that hold `n` numbers, all of them finite.
pub(crate) fn random_bytes(kind: BlockType, n: usize, seed: u64) -> Vec<u8> {
    let mut random = Random::new(seed);
    let mut bytes: Vec<u8> = (0..kind.bytes_of(n).unwrap()).map(|_| random.bits() as u8).collect();
    for block in bytes.chunks_exact_mut(kind.block_bytes()) {
        let number = random.number();
        let mut half = |at: usize, x: f32| block[at..at + 2].copy_from_slice(&half::f16::from_f32(x).to_le_bytes());
        match kind {
            BlockType::F32 => block.copy_from_slice(&number.to_le_bytes()),
            BlockType::F16 => half(0, number),
            BlockType::BF16 => block.copy_from_slice(&half::bf16::from_f32(number).to_le_bytes()),
            BlockType::Q4_0 | BlockType::Q5_0 | BlockType::Q8_0 => half(0, number),
            BlockType::Q6_K => half(208, number),
            _ => {
                half(0, number);
                half(2, random.number());
            }
        }
    }
    bytes
}
