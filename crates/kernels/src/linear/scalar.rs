//! The reference: plain Rust, every operation of the arithmetic spelled out.

use std::ops::Range;

use half::{bf16, f16};

use super::activations::{Activations, Form};
use super::sink::Sink;
use crate::Matrix;
use crate::matrix::{LANES, Layout, SPAN, Tile};

/// One row block of weights times some rows of activations.
pub(super) fn row_block(weight: &Matrix, block: usize, x: &Activations, rows: Range<usize>, sink: &Sink<'_>) {
    match weight.layout() {
        Some(layout) => codes(weight, &layout, block, x, rows, sink),
        None => dense(weight, block, x, rows, sink),
    }
}

fn codes(weight: &Matrix, layout: &Layout, block: usize, x: &Activations, rows: Range<usize>, sink: &Sink<'_>) {
    let mut tile = Tile::ZERO;
    let mut acc = vec![[0.0; LANES]; rows.len()];
    for (b, record) in weight.row_block(block).chunks_exact(layout.record_bytes()).enumerate() {
        layout.read(record, &mut tile);
        for (row, acc) in rows.clone().zip(&mut acc) {
            add_record(layout, &tile, &x.block(row, b), acc);
        }
    }
    sink.put(rows.start, block, &acc);
}

/// A block of activations, as [`Activations`] holds it.
#[derive(Debug)]
pub(super) struct Block<'a> {
    pub(super) q: &'a [i8; SPAN],
    pub(super) scale: f32,
    /// The sums of `q` over the first and the last 16.
    pub(super) sums: [i16; 2],
    /// `scale * f32(sums[0] + sums[1])`.
    pub(super) scaled_sum: f32,
}

fn add_record(layout: &Layout, tile: &Tile, x: &Block<'_>, acc: &mut [f32; LANES]) {
    for (lane, acc) in acc.iter_mut().enumerate() {
        for group in 0..layout.groups() {
            let columns = group * layout.group..(group + 1) * layout.group;
            let sums = if layout.groups() == 1 { &x.sums[..] } else { &x.sums[group..=group] };
            let start = -i32::from(layout.zero) * sums.iter().map(|sum| i32::from(*sum)).sum::<i32>();
            let product = |k: usize| i32::from(tile.codes[k / 4][4 * lane + k % 4]) * i32::from(x.q[k]);
            let i = columns.fold(start, |i, k| i + product(k));
            *acc = (i as f32 * tile.scales[group][lane]).mul_add(x.scale, *acc);
        }
        if layout.offset {
            *acc = tile.offsets[lane].mul_add(x.scaled_sum, *acc);
        }
    }
}

fn dense(weight: &Matrix, block: usize, x: &Activations, rows: Range<usize>, sink: &Sink<'_>) {
    let data = weight.row_block(block);
    let f32_at = |i: usize| f32::from_le_bytes([data[4 * i], data[4 * i + 1], data[4 * i + 2], data[4 * i + 3]]);
    let bits_at = |i: usize| u16::from_le_bytes([data[2 * i], data[2 * i + 1]]);
    for row in rows {
        let mut acc = [0.0f32; LANES];
        for column in 0..weight.cols() {
            for (lane, acc) in acc.iter_mut().enumerate() {
                let (w, x) = match (weight.form(), weight.kind().block_bytes()) {
                    (Form::Bf16, _) => {
                        let bits = bits_at((column / 2 * LANES + lane) * 2 + column % 2);
                        (
                            bf16::from_bits(bits).to_f32(),
                            bf16::from_bits((x.bf16_pairs(row)[column / 2] >> (column % 2 * 16)) as u16).to_f32(),
                        )
                    }
                    (_, 2) => (f16::from_bits(bits_at(column * LANES + lane)).to_f32(), x.f32_row(row)[column]),
                    _ => (f32_at(column * LANES + lane), x.f32_row(row)[column]),
                };
                *acc = w.mul_add(x, *acc);
            }
        }
        sink.put(row, block, &[acc]);
    }
}
