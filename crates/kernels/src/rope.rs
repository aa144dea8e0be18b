//! Rotary positions (Su et al. 2021) with every scaling variant in use.

use std::sync::OnceLock;

use crate::Device;
use crate::parallel::rows;
use crate::simd::{Kernel, LANES, Simd, dispatch};

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
    /// NTK-aware base change for contexts beyond the trained length. `transformers` changes the base while a sequence grows; here
    /// it follows from the table's context alone, so that a token's keys do not depend on when they were computed.
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

/// Positions whose cosines and sines are made together.
const BLOCK: usize = 64;

/// Cosines and sines for every position up to a limit, made in blocks when a position is first used.
///
/// Angles are computed in f64 and only the results rounded: a block's first angle directly, the others by the addition theorem
/// from the angles of the first block.
#[derive(Debug)]
pub struct RopeTable {
    style: RopeStyle,
    /// Pairs that rotate.
    pairs: usize,
    /// Angle per position of each pair.
    frequencies: Vec<f64>,
    /// Factor on cosines and sines.
    factor: f64,
    /// `(cos, sin)` of the angles at positions `0..BLOCK`, pair by pair.
    first: Vec<(f64, f64)>,
    /// Per position `pairs` cosines and `pairs` sines, or for interleaved pairs all of it twice, as the lanes meet it.
    blocks: Vec<OnceLock<Box<[f32]>>>,
}

impl RopeTable {
    /// Tables for positions `0..context`.
    pub fn new(spec: &RopeSpec, context: usize) -> Self {
        assert!(spec.dim > 0 && spec.dim.is_multiple_of(2), "{} numbers cannot rotate in pairs", spec.dim);
        let (frequencies, factor) = spec.frequencies(context);
        let angles = (0..BLOCK).flat_map(|p| frequencies.iter().map(move |f| p as f64 * f));
        let first = angles.map(|angle| (angle.cos(), angle.sin())).collect();
        let blocks = (0..context.div_ceil(BLOCK)).map(|_| OnceLock::new()).collect();
        Self { style: spec.style, pairs: spec.dim / 2, frequencies, factor, first, blocks }
    }

    /// Cosines and sines of a position, as the style's kernel reads them.
    fn at(&self, position: usize) -> (&[f32], &[f32]) {
        let n = self.row_len();
        let block = self.blocks[position / BLOCK].get_or_init(|| self.block(position / BLOCK));
        block[2 * n * (position % BLOCK)..][..2 * n].split_at(n)
    }

    /// Cosines of one position.
    fn row_len(&self) -> usize {
        match self.style {
            RopeStyle::Half => self.pairs,
            RopeStyle::Interleaved => 2 * self.pairs,
        }
    }

    fn block(&self, block: usize) -> Box<[f32]> {
        let start: Vec<(f64, f64)> = self.frequencies.iter().map(|f| (f * (block * BLOCK) as f64).sin_cos()).collect();
        let mut out = Vec::with_capacity(BLOCK * 2 * self.row_len());
        for offsets in self.first.chunks(self.pairs) {
            let both = || start.iter().zip(offsets);
            let cos = both().map(|((sin, cos), (c, s))| ((cos * c - sin * s) * self.factor) as f32);
            let sin = both().map(|((sin, cos), (c, s))| ((sin * c + cos * s) * self.factor) as f32);
            match self.style {
                RopeStyle::Half => out.extend(cos.chain(sin)),
                RopeStyle::Interleaved => out.extend(cos.flat_map(|c| [c, c]).chain(sin.flat_map(|s| [-s, s]))),
            }
        }
        out.into()
    }
}

impl RopeSpec {
    /// Angle per position of every pair, and the factor on cosines and sines: `transformers`' `modeling_rope_utils`, in f64.
    fn frequencies(&self, context: usize) -> (Vec<f64>, f64) {
        let plain = |base: f64| (0..self.dim / 2).map(move |i| base.powf(-((2 * i) as f64) / self.dim as f64));
        let base = f64::from(self.base);
        match &self.scaling {
            RopeScaling::None => (plain(base).collect(), 1.0),
            RopeScaling::Linear { factor } => (plain(base).map(|f| f / f64::from(*factor)).collect(), 1.0),
            RopeScaling::DynamicNtk { factor, original_context } => {
                let (factor, original) = (f64::from(*factor), *original_context as f64);
                let stretch = factor * (context as f64).max(original) / original - (factor - 1.0);
                let dim = self.dim as f64;
                (plain(base * stretch.powf(dim / (dim - 2.0))).collect(), 1.0)
            }
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => {
                let [factor, low, high] = [*factor, *low_freq_factor, *high_freq_factor].map(f64::from);
                (plain(base).map(|f| llama3(f, factor, low, high, *original_context as f64)).collect(), 1.0)
            }
            RopeScaling::Yarn { factor, original_context, beta_fast, beta_slow, attention_factor } => {
                let [factor, fast, slow] = [*factor, *beta_fast, *beta_slow].map(f64::from);
                let default = if factor <= 1.0 { 1.0 } else { 0.1 * factor.ln() + 1.0 };
                let ramp = self.yarn_ramp(fast, slow, *original_context as f64);
                let frequencies =
                    plain(base).enumerate().map(|(i, f)| f / factor * ramp(i) + f * (1.0 - ramp(i))).collect();
                (frequencies, attention_factor.map_or(default, f64::from))
            }
            RopeScaling::Factors { factors, attention_factor } => {
                assert_eq!(factors.len(), self.dim / 2, "one divisor per pair");
                (plain(base).zip(factors).map(|(f, d)| f / f64::from(*d)).collect(), f64::from(*attention_factor))
            }
        }
    }

    /// How far pair `i` is interpolated, from 0 (fast pairs) to 1.
    fn yarn_ramp(&self, fast: f64, slow: f64, original: f64) -> impl Fn(usize) -> f64 {
        let dim = self.dim as f64;
        let pair_that_turns = |turns: f64| {
            dim * (original / (turns * 2.0 * std::f64::consts::PI)).ln() / (2.0 * f64::from(self.base).ln())
        };
        let low = pair_that_turns(fast).floor().max(0.0);
        let high = pair_that_turns(slow).ceil().min(dim - 1.0);
        let high = if low == high { high + 0.001 } else { high };
        move |i| ((i as f64 - low) / (high - low)).clamp(0.0, 1.0)
    }
}

/// Wavelengths over `original / low` are divided by `factor`, those under `original / high` kept, a ramp between.
fn llama3(frequency: f64, factor: f64, low: f64, high: f64, original: f64) -> f64 {
    let turns = original * frequency / (2.0 * std::f64::consts::PI);
    let smooth = ((turns - low) / (high - low)).clamp(0.0, 1.0);
    (1.0 - smooth) * frequency / factor + smooth * frequency
}

/// Rotates `x`, `[positions.len()][heads][head_dim]`, in place.
pub fn rope(dev: &Device, table: &RopeTable, x: &mut [f32], head_dim: usize, positions: &[u32]) {
    rotate_rows(dev, table, x, head_dim, positions, Turn::On);
}

/// Undoes [`rope`], to within rounding.
pub fn unrope(dev: &Device, table: &RopeTable, x: &mut [f32], head_dim: usize, positions: &[u32]) {
    rotate_rows(dev, table, x, head_dim, positions, Turn::Back);
}

/// The gradient of [`rope`], in place: rotates back, and keeps the table's factor.
pub fn rope_backward(dev: &Device, table: &RopeTable, dx: &mut [f32], head_dim: usize, positions: &[u32]) {
    rotate_rows(dev, table, dx, head_dim, positions, Turn::Transposed);
}

/// Which way to rotate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    On,
    /// Undoes it.
    Back,
    /// By the transposed matrix: backwards, the factor once more.
    Transposed,
}

impl Turn {
    /// What cosines and sines are multiplied by; the table has the factor in them.
    fn signs(self, factor: f64) -> (f32, f32) {
        let inverse = (1.0 / (factor * factor)) as f32;
        match self {
            Self::On => (1.0, 1.0),
            Self::Back => (inverse, -inverse),
            Self::Transposed => (1.0, -1.0),
        }
    }
}

fn rotate_rows(dev: &Device, table: &RopeTable, x: &mut [f32], head_dim: usize, positions: &[u32], turn: Turn) {
    assert!(2 * table.pairs <= head_dim, "{} pairs do not fit into a head of {head_dim}", table.pairs);
    if positions.is_empty() {
        return;
    }
    let cols = x.len() / positions.len();
    rows(dev, x, cols, |first, x| {
        for (x, position) in x.chunks_exact_mut(cols).zip(&positions[first..]) {
            dispatch(dev.isa(), Rotate { table, x, head_dim, position: *position as usize, turn });
        }
    });
}

/// Rotates all heads of one row.
pub(crate) struct Rotate<'a> {
    pub(crate) table: &'a RopeTable,
    pub(crate) x: &'a mut [f32],
    pub(crate) head_dim: usize,
    pub(crate) position: usize,
    pub(crate) turn: Turn,
}

impl Kernel for Rotate<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let table = self.table;
        let (cos, sin) = table.at(self.position);
        let (on_cos, on_sin) = self.turn.signs(table.factor);
        let (on_cos, on_sin) = (s.splat(on_cos), s.splat(on_sin));
        for head in self.x.chunks_exact_mut(self.head_dim) {
            match table.style {
                RopeStyle::Half => {
                    let (a, b) = head[..2 * table.pairs].split_at_mut(table.pairs);
                    halves(s, a, b, cos, sin, on_cos, on_sin);
                }
                RopeStyle::Interleaved => neighbours(s, &mut head[..2 * table.pairs], cos, sin, on_cos, on_sin),
            }
        }
    }
}

#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "the parts of a rotation")]
fn halves<S: Simd>(s: S, a: &mut [f32], b: &mut [f32], cos: &[f32], sin: &[f32], on_cos: S::F, on_sin: S::F) {
    let lanes = cos.chunks(LANES).zip(sin.chunks(LANES));
    for ((a, b), (cos, sin)) in a.chunks_mut(LANES).zip(b.chunks_mut(LANES)).zip(lanes) {
        let (x, y) = (s.load_part(a), s.load_part(b));
        let (cos, sin) = (s.mul(s.load_part(cos), on_cos), s.mul(s.load_part(sin), on_sin));
        s.store_part(s.fma(x, cos, s.mul(y, s.sub(s.splat(0.0), sin))), a);
        s.store_part(s.fma(y, cos, s.mul(x, sin)), b);
    }
}

#[inline(always)]
fn neighbours<S: Simd>(s: S, x: &mut [f32], cos: &[f32], sin: &[f32], on_cos: S::F, on_sin: S::F) {
    for (x, (cos, sin)) in x.chunks_mut(LANES).zip(cos.chunks(LANES).zip(sin.chunks(LANES))) {
        let (cos, sin) = (s.mul(s.load_part(cos), on_cos), s.mul(s.load_part(sin), on_sin));
        let old = s.load_part(x);
        s.store_part(s.fma(old, cos, s.mul(s.swap_pairs(old), sin)), x);
    }
}

#[cfg(test)]
mod tests;
