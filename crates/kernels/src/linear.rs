//! `y = x Wᵀ (+ b)`: one arithmetic for one row (decode) and many (prefill).
//!
//! # Quantised weights
//! Activations are bytes in blocks of 32: `sx = max|x| / 127`, `q = round_to_even(x * (127 / max|x|))`. A block whose largest
//! value is below 2^-100 counts as zero, and one with an infinity or NaN makes every product NaN. With a weight's unsigned
//! codes `c`, its zero point `z` and, per group of 16 or 32 columns, its scale `sw` and offset `ow`:
//!
//! ```text
//! for every group, in ascending order:
//!     i   = sum(c * q) - z * sum(q)               exact, in 32 bits
//!     acc = fma(f32(i) * sw, sx, acc)
//!     acc = fma(ow, sx * f32(sum(q)), acc)        if the layout has offsets
//! y = acc (+ b) (+ what y was)
//! ```
//!
//! The order of the integer sum is free; the f32 chain is the same on every instruction set, so all of them agree to the bit.
//!
//! # Dense weights
//! f32 and f16: `acc = fma(w, x, acc)` in column order, again the same bits everywhere. bf16: the activations are rounded to bf16;
//! AVX-512 multiplies pairs (`VDPBF16PS`), others use fma on the rounded values, so here the bits depend on the instruction set
//! (never on batch or threads).
//!
//! # Work
//! A task is some row blocks (of any matrix of the group) times some rows of activations. Decode makes it long stretches of
//! weights, so that memory is read in order; prefill cuts activations too, so that they stay in the second-level cache.

mod activations;
mod scalar;
mod shared;
mod sink;

pub use activations::{Activations, Form};
pub(crate) use shared::Shared;

use crate::matrix::LANES;
use crate::{Device, Matrix};
use sink::Sink;

/// One product of a group that shares its input.
#[derive(Debug)]
pub struct Linear<'a> {
    /// The weights.
    pub weight: &'a Matrix,
    /// Added to every row, `weight.rows()` long.
    pub bias: Option<&'a [f32]>,
    /// Row-major `[x.rows()][weight.rows()]`.
    pub out: &'a mut [f32],
    /// Add to `out` (a residual) instead of overwriting it.
    pub accumulate: bool,
}

/// Multiplies the same activations by each matrix of the group, in one parallel pass.
pub fn linear(dev: &Device, x: &Activations, group: &mut [Linear<'_>]) {
    for product in group {
        let weight = product.weight;
        let sink = Sink::new(product, x);
        dev.run(weight.row_blocks(), &|block| scalar::row_block(weight, block, x, 0..x.rows(), &sink));
    }
}

/// The products with some rows of a matrix only: `out` is `[x.rows()][rows.len()]`. Same bits as [`linear`] gives there.
pub fn linear_rows(dev: &Device, x: &Activations, weight: &Matrix, rows: &[u32], out: &mut [f32]) {
    assert_eq!(out.len(), x.rows() * rows.len(), "{} rows of activations, {} of weights", x.rows(), rows.len());
    let out = Shared::new(out);
    dev.run(rows.len(), &|i| {
        let row = rows[i] as usize;
        assert!(row < weight.rows(), "row {row} of {}", weight.rows());
        let mut lanes = vec![0.0; x.rows() * LANES];
        let sink = Sink::scratch(&mut lanes, row / LANES);
        scalar::row_block(weight, row / LANES, x, 0..x.rows(), &sink);
        for (r, lanes) in lanes.chunks_exact(LANES).enumerate() {
            out.part(r * rows.len() + i, 1)[0] = lanes[row % LANES];
        }
    });
}

#[cfg(test)]
mod tests;
