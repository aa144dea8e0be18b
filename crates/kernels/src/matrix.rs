//! Weights packed for the CPU.

use crate::{BlockType, Device, Error, Form};

/// A weight matrix of `rows` outputs and `cols` inputs, packed in one of a few layouts.
#[derive(Debug)]
pub struct Matrix {}

impl Matrix {
    /// Repacks row-major blocks, in parallel, into an own buffer. Lossless: [`Matrix::row`] gives back the same numbers.
    ///
    /// # Errors
    /// When `cols` is not a whole number of blocks or `bytes` has another length than the shape needs.
    pub fn pack(_dev: &Device, _kind: BlockType, _rows: usize, _cols: usize, _bytes: &[u8]) -> Result<Self, Error> { unimplemented!() }
    /// Outputs.
    pub fn rows(&self) -> usize { unimplemented!() }
    /// Inputs.
    pub fn cols(&self) -> usize { unimplemented!() }
    /// Bytes of the packed buffer: what one pass over the weights reads.
    pub fn bytes(&self) -> usize { unimplemented!() }
    /// What was packed.
    pub fn kind(&self) -> BlockType { unimplemented!() }
    /// The form of activations this matrix multiplies.
    pub fn form(&self) -> Form { unimplemented!() }
    /// Dequantises one row (an embedding lookup): `out.len() == cols`.
    pub fn row(&self, _row: usize, _out: &mut [f32]) { unimplemented!() }
}
