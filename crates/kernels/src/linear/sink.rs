//! Where products go: the output, its bias and its residual.

use std::ops::Range;

use super::Linear;
use crate::Activations;
use crate::matrix::LANES;
use crate::parallel::Shared;

/// Takes finished sums, 16 rows of weights at a time.
#[derive(Debug)]
pub(crate) struct Sink<'a> {
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

    /// What was put of one row of activations, of some row blocks of weights.
    pub(crate) fn row(&self, row: usize, blocks: &Range<usize>) -> &mut [f32] {
        let (first, end) = (blocks.start * LANES, self.end.min(blocks.end * LANES));
        self.out.part((row - self.row) * self.stride + first - self.first, end - first)
    }

    /// The sums of some rows of activations, from `row` on, with the 16 rows of weight row block `block`. Every pair is put once.
    #[inline(always)]
    pub(super) fn put(&self, row: usize, block: usize, sums: &[[f32; LANES]]) {
        let first = block * LANES;
        let bias = self.bias.map(|bias| &bias[first..]);
        let mut at = (row - self.row) * self.stride + first - self.first;
        if first + LANES <= self.end {
            // A constant length lets the common case become vector operations.
            let bias = bias.and_then(|bias| bias.first_chunk::<LANES>());
            for sums in sums {
                if let Some(out) = self.out.part(at, LANES).first_chunk_mut::<LANES>() {
                    finish(out, bias, self.accumulate, sums);
                }
                at += self.stride;
            }
        } else {
            let width = self.end - first;
            for sums in sums {
                let mut whole = *sums;
                let out = self.out.part(at, width);
                whole[..width].copy_from_slice(out);
                let mut padded = [0.0; LANES];
                if let Some(bias) = bias {
                    padded[..width].copy_from_slice(&bias[..width]);
                }
                finish(&mut whole, bias.map(|_| &padded), self.accumulate, sums);
                out.copy_from_slice(&whole[..width]);
                at += self.stride;
            }
        }
    }
}

#[inline(always)]
fn finish(out: &mut [f32; LANES], bias: Option<&[f32; LANES]>, accumulate: bool, sums: &[f32; LANES]) {
    match (bias, accumulate) {
        (None, false) => *out = *sums,
        (None, true) => out.iter_mut().zip(sums).for_each(|(out, sum)| *out += sum),
        (Some(bias), false) => out.iter_mut().zip(sums).zip(bias).for_each(|((out, sum), b)| *out = sum + b),
        (Some(bias), true) => out.iter_mut().zip(sums).zip(bias).for_each(|((out, sum), b)| *out += sum + b),
    }
}
