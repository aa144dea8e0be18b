//! Rotary positions (Su et al. 2021) with every scaling variant in use.

use crate::Device;

/// Which numbers of a head form a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RopeStyle {
    /// `(2i, 2i+1)`: the original, and Llama in GGUF files (whose rows are permuted for it).
    Interleaved,
    /// `(i, i + dim/2)`: GPT-NeoX, and everything from Hugging Face.
    Half,
}

/// How frequencies are stretched for long contexts. Names and formulas as in `transformers`' `rope_scaling`.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum RopeScaling {
    /// As trained.
    None,
    /// Positions divided by `factor`.
    Linear {
        /// Divisor.
        factor: f32,
    },
    /// NTK-aware base change once the sequence passes the trained length.
    DynamicNtk {
        /// Stretch.
        factor: f32,
        /// Trained length.
        original_context: usize,
    },
    /// Llama 3.1: low frequencies are divided, high ones kept, a ramp between.
    Llama3 {
        /// Divisor of low frequencies.
        factor: f32,
        /// Ramp start.
        low_freq_factor: f32,
        /// Ramp end.
        high_freq_factor: f32,
        /// Trained length.
        original_context: usize,
    },
    /// YaRN (Peng et al. 2023).
    Yarn {
        /// Stretch.
        factor: f32,
        /// Trained length.
        original_context: usize,
        /// Fast ramp bound, 32 by default.
        beta_fast: f32,
        /// Slow ramp bound, 1 by default.
        beta_slow: f32,
        /// Factor on cos and sin; `None` is `0.1 ln(factor) + 1`.
        attention_factor: Option<f32>,
    },
    /// Explicit divisors per frequency (LongRoPE, and GGUF's `rope_freqs.weight`).
    Factors {
        /// One divisor per pair.
        factors: Vec<f32>,
        /// Factor on cos and sin.
        attention_factor: f32,
    },
}

/// What a layer's rotation is made of.
#[derive(Debug, Clone, PartialEq)]
pub struct RopeSpec {
    /// Numbers of a head that rotate (the first ones).
    pub dim: usize,
    /// Base of the frequencies.
    pub base: f32,
    /// Pairing.
    pub style: RopeStyle,
    /// Stretching.
    pub scaling: RopeScaling,
}

/// Cosines and sines for every position up to a limit.
#[derive(Debug)]
pub struct RopeTable {}

impl RopeTable {
    /// Tables for positions `0..context`.
    pub fn new(_spec: &RopeSpec, _context: usize) -> Self { unimplemented!() }
}

/// Rotates `x`, `[positions.len()][heads][head_dim]`, in place.
pub fn rope(_dev: &Device, _table: &RopeTable, _x: &mut [f32], _head_dim: usize, _positions: &[u32]) { unimplemented!() }
/// Undoes [`rope`], to within rounding.
pub fn unrope(_dev: &Device, _table: &RopeTable, _x: &mut [f32], _head_dim: usize, _positions: &[u32]) { unimplemented!() }
