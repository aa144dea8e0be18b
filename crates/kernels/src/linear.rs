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
#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod panel;
mod scalar;
mod sink;

pub(crate) use activations::scale;
pub use activations::{Activations, Form};

use std::ops::Range;

use crate::low_rank::Waists;
use crate::matrix::{LANES, SPAN};
use crate::parallel::Shared;
use crate::{Beside, Device, Isa, Matrix};
use activations::TILE;
pub(crate) use sink::Sink;

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
    // Sinks live on the stack, so a long group takes several passes.
    for group in group.chunks_mut(GROUP) {
        let pass = Pass::new(dev, x, group);
        dev.run(pass.plan.tasks(), &|task| pass.multiply(task));
    }
}

/// [`linear`] with adapters beside the products, in the same pass. `x` must have been prepared in [`Form::Int8`] too.
///
/// # Panics
/// When an adapter's shape is not that of `x` and the products, or these are more than four.
pub fn linear_beside<'p>(dev: &Device, x: &'p Activations, group: &mut [Linear<'_>], beside: Beside<'p>) {
    let outputs: [usize; GROUP] = std::array::from_fn(|i| group.get(i).map_or(0, |product| product.weight.rows()));
    let waists = Waists::new(dev, x, beside, &outputs[..group.len()]);
    let (pass, first) = (Pass::new(dev, x, group), waists.tasks());
    dev.run(first + pass.plan.tasks(), &|task| match task.checked_sub(first) {
        None => waists.make(dev.isa(), task),
        Some(task) => {
            pass.multiply(task);
            waists.wait();
            let (_, rows) = pass.plan.task(task);
            pass.each(task, |product, _, blocks, sink| waists.add(dev.isa(), product, blocks, rows.clone(), sink));
        }
    });
}

/// A group's products, while tasks share them.
struct Pass<'a> {
    x: &'a Activations,
    weights: [Option<&'a Matrix>; GROUP],
    sinks: [Option<Sink<'a>>; GROUP],
    plan: Plan,
}

impl<'a> Pass<'a> {
    fn new(dev: &Device, x: &'a Activations, group: &'a mut [Linear<'_>]) -> Self {
        assert!(group.len() <= GROUP, "{} products at a time", group.len());
        let weights: [Option<&Matrix>; GROUP] = std::array::from_fn(|i| group.get(i).map(|product| product.weight));
        let mut products = group.iter_mut();
        let sinks = std::array::from_fn(|_| products.next().map(|product| Sink::new(product, x)));
        let total = weights.iter().flatten().map(|weight| weight.row_blocks()).sum();
        Self { x, weights, sinks, plan: Plan::new(dev, x, total) }
    }

    /// Calls `work(product, weight, row blocks, sink)` for what a task has of each product.
    fn each(&self, task: usize, work: impl Fn(usize, &Matrix, Range<usize>, &Sink<'_>)) {
        let (blocks, _) = self.plan.task(task);
        let mut first = 0;
        for (product, (weight, sink)) in self.weights.iter().flatten().zip(self.sinks.iter().flatten()).enumerate() {
            let end = first + weight.row_blocks();
            work(product, weight, blocks.start.clamp(first, end) - first..blocks.end.clamp(first, end) - first, sink);
            first = end;
        }
    }

    fn multiply(&self, task: usize) {
        let (_, rows) = self.plan.task(task);
        self.each(task, |_, weight, blocks, sink| {
            multiply(self.plan.isa, weight, blocks, self.x, rows.clone(), sink);
        });
    }
}

/// The products with some rows of a matrix only: `out` is `[x.rows()][rows.len()]`. Same bits as [`linear`] gives there.
///
/// Rows of the same 16 cost as much as one of them, if they follow each other in `rows`.
pub fn linear_rows(dev: &Device, x: &Activations, weight: &Matrix, rows: &[u32], out: &mut [f32]) {
    assert_eq!(out.len(), x.rows() * rows.len(), "{} rows of activations, {} of weights", x.rows(), rows.len());
    assert!(rows.iter().all(|row| (*row as usize) < weight.rows()), "rows beyond {}", weight.rows());
    assert_eq!(x.cols(), weight.cols(), "activations have {} columns, the weights {}", x.cols(), weight.cols());
    let out = Shared::new(out);
    let isa = dev.isa().min(Isa::Avx512);
    let per_task = rows.len().div_ceil(TASKS_PER_THREAD * dev.threads()).max(LANES);
    dev.run(rows.len().div_ceil(per_task), &|task| {
        let mut at = task * per_task;
        let block_of = |row: &u32| *row as usize / LANES;
        for same in rows[at..rows.len().min(at + per_task)].chunk_by(|a, b| block_of(a) == block_of(b)) {
            for tile in (0..x.rows()).step_by(TILE) {
                let tile = tile..x.rows().min(tile + TILE);
                let mut sums = [0.0; TILE * LANES];
                let block = block_of(&same[0]);
                let sink = Sink::scratch(&mut sums, tile.start, block);
                multiply(isa, weight, block..block + 1, x, tile.clone(), &sink);
                for (row, sums) in tile.zip(sums.chunks_exact(LANES)) {
                    let out = out.part(row * rows.len() + at, same.len());
                    out.iter_mut().zip(same).for_each(|(out, i)| *out = sums[*i as usize % LANES]);
                }
            }
            at += same.len();
        }
    });
}

/// Some row blocks times some rows of activations, on this thread.
fn multiply(isa: Isa, weight: &Matrix, blocks: Range<usize>, x: &Activations, rows: Range<usize>, sink: &Sink<'_>) {
    if blocks.is_empty() || rows.is_empty() {
        return;
    }
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 | Isa::Amx => avx512::multiply(isa, weight, blocks, x, rows, sink),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => avx2::multiply(weight, blocks, x, rows, sink),
        _ => blocks.for_each(|block| scalar::row_block(weight, block, x, rows.clone(), sink)),
    }
}

/// Matrices of a group that one pass takes.
const GROUP: usize = 4;
/// Enough that a thread which loses its core holds up little, few enough that starting one costs nothing beside it.
const TASKS_PER_THREAD: usize = 4;
/// What the activations of a task may take of the second-level cache.
const CACHED: usize = 144 << 10;
/// The same where tiles multiply: starting them costs some microseconds a task, so tasks are large.
const TILED_TASKS_PER_THREAD: usize = 2;
const TILED_CACHED: usize = 512 << 10;
/// Tiles times records from which on a task is worth starting them for; found by timing whole prompts.
const TILED_WORK: usize = 12 << 10;

/// How the work is cut: `total` row blocks times the rows of activations.
#[derive(Debug)]
struct Plan {
    isa: Isa,
    total: usize,
    rows: usize,
    blocks_per_task: usize,
    rows_per_task: usize,
}

impl Plan {
    fn new(dev: &Device, x: &Activations, total: usize) -> Self {
        let tiled = Self::cut(dev, Isa::Amx, x, total, (TILED_TASKS_PER_THREAD, TILED_CACHED));
        let work = tiled.blocks_per_task * tiled.rows_per_task.min(x.rows()) / TILE * x.cols() / SPAN;
        if dev.isa() == Isa::Amx && x.rows() > TILE && work >= TILED_WORK {
            return tiled;
        }
        let many = if x.rows() > TILE { 2 } else { 1 };
        Self::cut(dev, dev.isa().min(Isa::Avx512), x, total, (many * TASKS_PER_THREAD, CACHED))
    }

    fn cut(dev: &Device, isa: Isa, x: &Activations, total: usize, (tasks_per_thread, cached): (usize, usize)) -> Self {
        let rows = x.rows();
        let mut rows_per_task = (cached / x.cols().max(1)).next_multiple_of(TILE).clamp(TILE, rows.max(TILE));
        let wanted = tasks_per_thread * dev.threads();
        // Too few row blocks for all threads: cut activations instead.
        while rows_per_task > 4 * TILE && total * rows.div_ceil(rows_per_task) < wanted {
            rows_per_task = (rows_per_task / 2).next_multiple_of(TILE);
        }
        let strips = rows.div_ceil(rows_per_task).max(1);
        let blocks_per_task = (total * strips).div_ceil(wanted.max(strips)).clamp(1, total.max(1));
        Self { isa, total, rows, blocks_per_task, rows_per_task }
    }

    fn tasks(&self) -> usize {
        self.total.div_ceil(self.blocks_per_task) * self.rows.div_ceil(self.rows_per_task)
    }

    /// Row blocks and rows of a task. Tasks that follow each other share their activations.
    fn task(&self, task: usize) -> (Range<usize>, Range<usize>) {
        let across = self.total.div_ceil(self.blocks_per_task);
        let (block, row) = (task % across * self.blocks_per_task, task / across * self.rows_per_task);
        (block..self.total.min(block + self.blocks_per_task), row..self.rows.min(row + self.rows_per_task))
    }
}

#[cfg(test)]
mod tests;
