//! Products for training: `C (+)= A B` of matrices of f32, multiplied in f32, bf16 or f16, summed in f32.
//!
//! Forward, input gradient and weight gradient of a linear layer are one operation over different vectors: rows or columns of the
//! same matrices. So both operands are [`Vectors`] along the dimension that is summed over, packed into [`Panels`] (Goto & van de
//! Geijn 2008): some vectors side by side, step by step, so that the inner loop reads both in order. What is multiplied more than once is
//! packed once.
//!
//! # Arithmetic
//! A step is one number, or for bf16 a pair of neighbours, rounded to nearest even. Every output is one chain of multiply-adds from the first
//! step to the last, whatever the tasks and threads; a pair is summed as the instruction set does it ([`Simd::dot_bf16`]).
//!
//! # Work
//! The inner loop holds a tile of [`LEFT`] by [`RIGHT`] sums in registers. [`STEPS`] steps of one right panel stay in the first-level cache
//! while the left panels of the task, in the second-level cache, pass by. What lies further away, rows that are packed and sums that are added to, is
//! asked for before its turn.

use std::ops::Range;

use crate::aligned::LINE;
use crate::parallel::Shared;
use crate::simd::{Kernel, LANES, Simd, ask, dispatch, transpose};
use crate::{Aligned, Device};

/// Vectors of a left panel: rows of the result.
const LEFT: usize = 8;
/// Vectors of a right panel: columns of the result.
const RIGHT: usize = 32;
/// Steps for which sums stay in registers, and which a task packs.
const STEPS: usize = 256;
/// Left panels of a task: with [`STEPS`] steps they take half of a second-level cache of 1 MiB.
const LEFT_PANELS: usize = 64;
/// Right panels of a task.
const RIGHT_PANELS: usize = 8;
/// Tasks a thread should have at least, so that one which loses its core holds up little.
const TASKS_PER_THREAD: usize = 4;
/// Vectors that a task packs. Of columns they share the cache lines and pages of every row.
const PACKED: usize = 256;
/// Steps of a vector that are read before they are turned.
const READ: usize = 128;
/// Rows are asked for so many steps before they are packed.
const AHEAD: usize = 8;

/// In what numbers are multiplied. Sums are always f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Precision {
    /// f32, as they are.
    F32,
    /// Rounded to bf16: twice the speed where the machine has instructions for it.
    #[default]
    Bf16,
    /// Rounded to f16, as checkpoints have it that were made in f16: three bits more than bf16, and a far smaller range. What lies beyond becomes
    /// infinite, and gradients must be scaled so that they do not vanish. Multiplied at the speed of f32.
    F16,
}

impl Precision {
    /// Numbers of a step.
    fn numbers(self) -> usize {
        match self {
            Self::F32 | Self::F16 => 1,
            Self::Bf16 => 2,
        }
    }
}

/// Vectors along the dimension that a product sums over.
#[derive(Debug, Clone, Copy)]
pub struct Vectors<'a> {
    data: &'a [f32],
    count: usize,
    len: usize,
    /// They are columns of a row-major matrix.
    columns: bool,
}

impl<'a> Vectors<'a> {
    /// The rows of a row-major matrix, each `len` long.
    pub fn rows(data: &'a [f32], len: usize) -> Self {
        assert!(len > 0 && data.len().is_multiple_of(len), "{} numbers are not rows of {len}", data.len());
        Self { data, count: data.len() / len, len, columns: false }
    }

    /// The `count` columns of a row-major matrix.
    pub fn columns(data: &'a [f32], count: usize) -> Self {
        assert!(count > 0 && data.len().is_multiple_of(count), "{} numbers are not rows of {count}", data.len());
        Self { data, count, len: data.len() / count, columns: true }
    }
}

/// Vectors packed for products, `W` side by side. The buffer is kept for the next ones.
#[derive(Debug, Default)]
pub struct Panels<const W: usize> {
    /// `[panel][step][W]`, with a line behind every panel; of bf16 a number holds the bits of a pair.
    words: Aligned,
    precision: Precision,
    count: usize,
    len: usize,
}

/// The operand whose vectors are rows of the result.
pub type LeftPanels = Panels<LEFT>;
/// The operand whose vectors are columns of the result.
pub type RightPanels = Panels<RIGHT>;

impl<const W: usize> Panels<W> {
    /// Packs vectors, over all threads.
    pub fn pack(&mut self, dev: &Device, precision: Precision, vectors: Vectors<'_>) -> &Self {
        (self.precision, self.count, self.len) = (precision, vectors.count, vectors.len);
        let (size, steps, count) = (self.size(), self.steps(), self.panels() * W);
        self.words.resize(self.panels() * size);
        let (parts, words) = (steps.div_ceil(STEPS), Shared::new(&mut self.words));
        dev.run(count.div_ceil(PACKED) * parts, &|task| {
            let (first, step) = (task / parts * PACKED, task % parts * STEPS);
            let (some, steps) = (first..count.min(first + PACKED), step..steps.min(step + STEPS));
            dispatch(dev.isa(), Pack::<W> { vectors, precision, some, steps, words: &words, size });
        });
        self
    }

    /// Bytes that they take.
    pub fn bytes(&self) -> usize {
        self.words.bytes()
    }

    /// Steps of every vector.
    fn steps(&self) -> usize {
        self.len.div_ceil(self.precision.numbers())
    }

    /// Numbers of a panel. Steps of neighbouring panels, which are written together, must not fall into the same few lines of the cache.
    fn size(&self) -> usize {
        self.steps() * W + LINE
    }

    fn panels(&self) -> usize {
        self.count.div_ceil(W)
    }

    /// Some steps of a panel.
    #[inline(always)]
    fn block(&self, panel: usize, steps: &Range<usize>) -> &[f32] {
        &self.words[panel * self.size() + steps.start * W..][..steps.len() * W]
    }
}

/// `out (+)= left · right`: `out` is row-major, a row for every left vector, a column for every right one.
pub fn gemm(dev: &Device, left: &LeftPanels, right: &RightPanels, out: &mut [f32], accumulate: bool) {
    assert_eq!(left.len, right.len, "vectors of {} and of {}", left.len, right.len);
    assert_eq!(left.precision, right.precision, "both operands are packed alike");
    assert_eq!(out.len(), left.count * right.count, "{} by {} sums", left.count, right.count);
    let plan = Plan::new(dev, left.panels(), right.panels());
    let out = Shared::new(out);
    dev.run(plan.tasks(), &|task| {
        let (left_panels, right_panels) = plan.task(task);
        let block = Block { left, right, left_panels, right_panels, out: &out, accumulate };
        match left.precision {
            Precision::F32 | Precision::F16 => dispatch(dev.isa(), (Single, block)),
            Precision::Bf16 => dispatch(dev.isa(), (Pairs, block)),
        }
    });
}

/// How the result is cut into tasks.
#[derive(Debug)]
struct Plan {
    left: usize,
    right: usize,
    left_each: usize,
    right_each: usize,
}

impl Plan {
    fn new(dev: &Device, left: usize, right: usize) -> Self {
        let mut plan = Self { left, right, left_each: LEFT_PANELS, right_each: RIGHT_PANELS };
        while plan.tasks() < TASKS_PER_THREAD * dev.threads() && plan.left_each * plan.right_each > 4 {
            // A left panel is a quarter of a right one.
            let cut = if plan.left_each >= 4 * plan.right_each { &mut plan.left_each } else { &mut plan.right_each };
            *cut = cut.div_ceil(2);
        }
        plan
    }

    fn tasks(&self) -> usize {
        self.left.div_ceil(self.left_each) * self.right.div_ceil(self.right_each)
    }

    /// Tasks that follow each other share their left panels.
    fn task(&self, task: usize) -> (Range<usize>, Range<usize>) {
        let across = self.right.div_ceil(self.right_each);
        let (left, right) = (task / across * self.left_each, task % across * self.right_each);
        (left..self.left.min(left + self.left_each), right..self.right.min(right + self.right_each))
    }
}

/// Some steps of sixteen vectors.
type Lines = [[[f32; LANES]; READ / LANES]; LANES];

/// Packs some steps of some panels.
struct Pack<'a, const W: usize> {
    vectors: Vectors<'a>,
    precision: Precision,
    /// Which vectors, with those that only fill a panel.
    some: Range<usize>,
    steps: Range<usize>,
    /// Of all panels.
    words: &'a Shared<'a, f32>,
    /// Numbers of a panel.
    size: usize,
}

impl<const W: usize> Kernel for Pack<'_, W> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        if self.vectors.columns { self.columns(s) } else { self.rows(s) }
    }
}

impl<const W: usize> Pack<'_, W> {
    /// Neighbours lie side by side already: step by step, all panels.
    #[inline(always)]
    fn columns<S: Simd>(self, s: S) {
        let Vectors { data, count, len, .. } = self.vectors;
        let (numbers, part) = (self.precision.numbers(), self.some.start..count.min(self.some.end));
        let row = |i: usize| if i < len { &data[i * count..][part.clone()] } else { &[] };
        for step in self.steps.clone() {
            for far in (step + AHEAD) * numbers..(step + AHEAD + 1) * numbers {
                ask(s, row(far));
            }
            let (low, high) = (row(step * numbers), row(step * numbers + 1));
            for (at, vector) in self.some.clone().enumerate().step_by(LANES) {
                let load = |row: &[f32]| s.load_part(within(row, at, LANES));
                let line = match self.precision {
                    Precision::F32 => load(low),
                    Precision::F16 => s.round_f16(load(low)),
                    Precision::Bf16 => s.as_float(s.pair_bf16(load(low), load(high))),
                };
                self.put(s, vector, step, line);
            }
        }
    }

    /// Sixteen vectors at a time: each read in its order, then sixteen steps of all turned in registers.
    #[inline(always)]
    fn rows<S: Simd>(self, s: S) {
        let mut lines: Lines = [[[0.0; LANES]; READ / LANES]; LANES];
        for vector in self.some.clone().step_by(LANES) {
            for first in self.steps.clone().step_by(READ) {
                self.read(s, vector, first, &mut lines);
                for (at, step) in (first..self.steps.end).step_by(LANES).take(READ / LANES).enumerate() {
                    let mut block = [s.splat(0.0); LANES];
                    for (line, vector) in block.iter_mut().zip(&lines) {
                        *line = s.load(&vector[at]);
                    }
                    for (step, line) in (step..self.steps.end).zip(transpose(s, block)) {
                        self.put(s, vector, step, line);
                    }
                }
            }
        }
    }

    /// Reads steps of sixteen vectors, and asks for what is read next.
    #[inline(always)]
    fn read<S: Simd>(&self, s: S, vector: usize, first: usize, lines: &mut Lines) {
        let further = first + READ < self.steps.end;
        let next = if further { (vector, first + READ) } else { (vector + LANES, self.steps.start) };
        for (i, lines) in lines.iter_mut().enumerate() {
            if next.0 < self.some.end {
                ask(s, self.part(next.0 + i, next.1, READ));
            }
            for (at, line) in lines.iter_mut().enumerate().take((self.steps.end - first).div_ceil(LANES)) {
                s.store(steps_of(s, self.precision, self.part(vector + i, first + at * LANES, LANES)), line);
            }
        }
    }

    /// The numbers of some steps of a vector, as far as it has them.
    #[inline(always)]
    fn part(&self, vector: usize, first: usize, steps: usize) -> &[f32] {
        let Vectors { data, count, len, .. } = self.vectors;
        let whole = if vector < count { &data[vector * len..][..len] } else { &[] };
        let numbers = self.precision.numbers();
        within(whole, first * numbers, steps * numbers)
    }

    /// One step of sixteen vectors, which are half of a panel or two.
    #[inline(always)]
    fn put<S: Simd>(&self, s: S, vector: usize, step: usize, line: S::F) {
        let at = |vector: usize| vector / W * self.size + step * W + vector % W;
        if W >= LANES {
            return s.store_part(line, self.words.part(at(vector), LANES));
        }
        let mut lanes = [0.0; LANES];
        s.store(line, &mut lanes);
        // The last panel may have no second one beside it.
        for (vector, lanes) in (vector..self.some.end).step_by(W).zip(lanes.chunks_exact(W)) {
            self.words.part(at(vector), W).copy_from_slice(lanes);
        }
    }
}

/// At most `len` numbers of a row from `start` on.
#[inline(always)]
fn within(row: &[f32], start: usize, len: usize) -> &[f32] {
    let start = start.min(row.len());
    &row[start..row.len().min(start + len)]
}

/// Sixteen steps of a vector; what it does not have is zero.
#[inline(always)]
fn steps_of<S: Simd>(s: S, precision: Precision, part: &[f32]) -> S::F {
    match precision {
        Precision::F32 => return s.load_part(part),
        Precision::F16 => return s.round_f16(s.load_part(part)),
        Precision::Bf16 => {}
    }
    if let Ok(part) = part.as_chunks::<LANES>().0.try_into() {
        return s.as_float(s.line_bf16(part));
    }
    let mut line = [[0.0; LANES]; 2];
    line.as_flattened_mut()[..part.len()].copy_from_slice(part);
    s.as_float(s.line_bf16(&line))
}

/// One step of sixteen sums.
trait Step: Copy {
    fn step<S: Simd>(self, s: S, a: S::F, b: S::F, sum: S::F) -> S::F;
}

/// Steps of one number.
#[derive(Clone, Copy)]
struct Single;

impl Step for Single {
    #[inline(always)]
    fn step<S: Simd>(self, s: S, a: S::F, b: S::F, sum: S::F) -> S::F {
        s.fma(a, b, sum)
    }
}

/// Steps of a pair of bf16.
#[derive(Clone, Copy)]
struct Pairs;

impl Step for Pairs {
    #[inline(always)]
    fn step<S: Simd>(self, s: S, a: S::F, b: S::F, sum: S::F) -> S::F {
        s.dot_bf16(s.bits(a), s.bits(b), sum)
    }
}

/// What a task computes.
struct Block<'a> {
    left: &'a LeftPanels,
    right: &'a RightPanels,
    left_panels: Range<usize>,
    right_panels: Range<usize>,
    out: &'a Shared<'a, f32>,
    accumulate: bool,
}

impl<P: Step> Kernel for (P, Block<'_>) {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (step, block) = self;
        let steps = block.left.steps();
        for first in (0..steps).step_by(STEPS) {
            let part = first..steps.min(first + STEPS);
            let onto = block.accumulate || first > 0;
            for right in block.right_panels.clone() {
                let b = block.right.block(right, &part);
                for left in block.left_panels.clone() {
                    let a = block.left.block(left, &part);
                    if left + 1 < block.left_panels.end {
                        block.ask(s, (left + 1, right));
                    }
                    block.tile(s, step, (a, b), (left, right), onto);
                }
            }
        }
    }
}

impl Block<'_> {
    /// The sums of two panels over some steps, written or added to what stands there.
    #[inline(always)]
    fn tile<S: Simd>(
        &self,
        s: S,
        step: impl Step,
        operands: (&[f32], &[f32]),
        (left, right): (usize, usize),
        onto: bool,
    ) {
        let (row, column) = (left * LEFT, right * RIGHT);
        let (rows, columns) = (LEFT.min(self.left.count - row), RIGHT.min(self.right.count - column));
        let out = |i: usize| self.out.part((row + i) * self.right.count + column, columns);
        if (rows, columns) == (LEFT, RIGHT) {
            let whole = std::array::from_fn(|i| &mut out(i).as_chunks_mut().0[0]);
            return multiply(s, step, operands, whole, onto);
        }
        // Loads and stores of parts want so many registers that sums of whole tiles would not stay in theirs.
        let mut sums = [[0.0; RIGHT]; LEFT];
        if onto {
            sums.iter_mut().zip(0..rows).for_each(|(sums, i)| sums[..columns].copy_from_slice(out(i)));
        }
        multiply(s, step, operands, sums.each_mut(), onto);
        sums.iter().zip(0..rows).for_each(|(sums, i)| out(i).copy_from_slice(&sums[..columns]));
    }

    /// Asks for the sums of a tile of this task, as they are far away and its turn comes soon.
    #[inline(always)]
    fn ask<S: Simd>(&self, s: S, (left, right): (usize, usize)) {
        for row in (left * LEFT..self.left.count).take(LEFT) {
            for column in (right * RIGHT..self.right.count).step_by(LINE).take(RIGHT / LINE) {
                s.prefetch(std::array::from_ref(&self.out.part(row * self.right.count + column, 1)[0]));
            }
        }
    }
}

/// A whole tile.
#[inline(always)]
fn multiply<S: Simd>(s: S, step: impl Step, (a, b): (&[f32], &[f32]), to: [&mut [f32; RIGHT]; LEFT], onto: bool) {
    let mut sums = [[s.splat(0.0); RIGHT / LANES]; LEFT];
    if onto {
        for (sums, to) in sums.iter_mut().zip(&to) {
            for (sum, to) in sums.iter_mut().zip(to.as_chunks::<LANES>().0) {
                *sum = s.load(to);
            }
        }
    }
    for (a, b) in a.as_chunks::<LEFT>().0.iter().zip(b.as_chunks::<RIGHT>().0) {
        let (b, _) = b.as_chunks::<LANES>();
        let b = [s.load(&b[0]), s.load(&b[1])];
        for (sums, a) in sums.iter_mut().zip(a) {
            let a = s.splat(*a);
            for (sum, b) in sums.iter_mut().zip(b) {
                *sum = step.step(s, a, b, *sum);
            }
        }
    }
    for (sums, to) in sums.iter().zip(to) {
        for (sum, to) in sums.iter().zip(to.as_chunks_mut::<LANES>().0) {
            s.store(*sum, to);
        }
    }
}

#[cfg(test)]
mod tests;
