//! Where products go: the output, its bias and its residual.

use super::{Linear, Shared};
use crate::Activations;
use crate::matrix::LANES;

/// Takes finished sums, 16 rows of weights at a time.
#[derive(Debug)]
pub(super) struct Sink<'a> {
    out: Shared<'a, f32>,
    /// Numbers between two rows of `out`.
    stride: usize,
    /// The row of activations that is row 0 of `out`.
    row: usize,
    /// The weight row that is column 0 of `out`.
    first: usize,
    /// The weight row that is no longer part of `out`.
    end: usize,
    bias: Option<&'a [f32]>,
    accumulate: bool,
}

impl<'a> Sink<'a> {
    pub(super) fn new(product: &'a mut Linear<'_>, x: &Activations) -> Self {
        let (rows, cols) = (product.weight.rows(), product.weight.cols());
        assert_eq!(x.cols(), cols, "activations have {} columns, the weights {cols}", x.cols());
        assert_eq!(product.out.len(), x.rows() * rows, "out is not {} x {rows}", x.rows());
        assert!(product.bias.is_none_or(|bias| bias.len() == rows), "the bias does not have {rows} numbers");
        let (bias, accumulate) = (product.bias, product.accumulate);
        Self { out: Shared::new(product.out), stride: rows, row: 0, first: 0, end: rows, bias, accumulate }
    }

    /// A buffer for one row block: `[rows of activations from row][16]`.
    pub(super) fn scratch(out: &'a mut [f32], row: usize, block: usize) -> Self {
        let first = block * LANES;
        Self { out: Shared::new(out), stride: LANES, row, first, end: first + LANES, bias: None, accumulate: false }
    }

    /// The sums of activation row `row` with the 16 rows of weight row block `block`. Every pair is put once.
    #[inline(always)]
    pub(super) fn put(&self, row: usize, block: usize, acc: &[f32; LANES]) {
        let weight_row = block * LANES;
        let width = LANES.min(self.end - weight_row);
        let out = self.out.part((row - self.row) * self.stride + weight_row - self.first, width);
        let bias = self.bias.map(|bias| &bias[weight_row..weight_row + width]);
        // A constant length lets the common case become one vector operation.
        match <&mut [f32; LANES]>::try_from(&mut *out) {
            Ok(out) => finish(out, bias, self.accumulate, acc),
            Err(_) => finish(out, bias, self.accumulate, &acc[..width]),
        }
    }
}

#[inline(always)]
fn finish(out: &mut [f32], bias: Option<&[f32]>, accumulate: bool, acc: &[f32]) {
    match (bias, accumulate) {
        (None, false) => out.copy_from_slice(acc),
        (None, true) => out.iter_mut().zip(acc).for_each(|(out, acc)| *out += acc),
        (Some(bias), false) => out.iter_mut().zip(acc).zip(bias).for_each(|((out, acc), b)| *out = acc + b),
        (Some(bias), true) => out.iter_mut().zip(acc).zip(bias).for_each(|((out, acc), b)| *out += acc + b),
    }
}
