//! `y = x Wᵀ (+ b)`: one arithmetic for one row (decode) and many (prefill).

use crate::{Device, Matrix};

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
pub struct Activations {}

impl Activations {
    /// Empty buffers.
    pub fn new() -> Self { unimplemented!() }
    /// Takes `x` (row-major, `cols` wide) and prepares it in each of `forms`.
    pub fn set(&mut self, _dev: &Device, _x: &[f32], _cols: usize, _forms: &[Form]) { unimplemented!() }
    /// Rows held.
    pub fn rows(&self) -> usize { unimplemented!() }
    /// Columns held.
    pub fn cols(&self) -> usize { unimplemented!() }
}

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
pub fn linear(_dev: &Device, _x: &Activations, _group: &mut [Linear<'_>]) { unimplemented!() }

/// The products with some rows of a matrix only: `out` is `[x.rows()][rows.len()]`. Same bits as [`linear`] gives there.
pub fn linear_rows(_dev: &Device, _x: &Activations, _weight: &Matrix, _rows: &[u32], _out: &mut [f32]) { unimplemented!() }
