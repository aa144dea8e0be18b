//! Adapters beside matrices, while serving: `y += B (A x)` (LoRA, Hu et al. 2021), every row with an adapter of its own or none, so that rows of
//! many adapters share one pass over the base (as in Punica, Chen et al. 2023).
//!
//! Numbers are bytes with a scale for every rank on either side: what a step has to read of the adapters of its rows is most of what they cost, and
//! at eight bits the rounding is far below what they change. What belongs to one input lies together in the order in which it is read, on huge pages.
//!
//! # Arithmetic
//! Products are of bytes, summed exactly in 32 bits, as those of quantised weights are ([`mod@crate::linear`]): of `A` with the activations, which
//! are bytes in blocks of 32, and of `B` with the waist `A x`, which is rounded to sixteen bits with one scale for each product. Instructions multiply
//! bytes with a sign by bytes without one, so 128 is added to each byte of `A` and `B`, and what that adds is subtracted where a sum begins.
//!
//! ```text
//! for every 64 columns, in lanes of four:  acc_r = fma(f32(sum(a_r q)), sx, acc_r)      then the lanes are folded in halves
//! waist:  w_r = acc_r s_r,   i_r = round(w_r 32512 / max|w|) = 256 high_r + low_r
//! y = fma(f32(256 sum(b high) + sum(b low)), max|w| / 32512, y)
//! ```
//!
//! A row is computed alone and in one order, so its bits depend on nothing beside it, and are the same on every instruction set.
//!
//! # One round
//! A round of the thread pool costs what a small product costs, so adapters have none of their own ([`crate::linear_beside`]). The first tasks of a
//! product's round make the waists `A x` ([`Waists::make`]), the others multiply, wait until all waists are there ([`Waists::wait`]), and add `B` of the outputs that are
//! theirs anyway. Tasks are claimed in order, so whoever waits, waits for a task that runs.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::buffer::Buffer;
use crate::linear::{Sink, scale};
use crate::parallel::Shared;
use crate::simd::{Kernel, LANES, Simd, dispatch};
use crate::{Activations, Device, Isa};

/// The most columns of a waist.
pub const MOST_RANKS: usize = 256;
/// Ranks that are summed at the same time, so that the chains of additions do not wait for each other; their bytes lie side by side.
const TOGETHER: usize = 8;
/// Bytes that one lane sums.
const BYTES: usize = 4;
/// What is added to bytes of `A` and `B`, which then have no sign.
const BIAS: u8 = 128;
/// Steps that the largest number of a waist is worth: the high and the low byte are between -128 and 127.
const STEPS: f32 = 127.0 * 256.0;
/// Tasks for each thread: enough that one which loses its core holds up little.
const TASKS_PER_THREAD: usize = 4;
/// Looks at what others do before a thread that waits lets the system run them.
const SPINS: usize = 1 << 12;

/// 1.5 times 2 to the power of 23.
const WHOLE: f32 = 12_582_912.0;

type Line = [u8; BYTES * LANES];

/// The adapter of one matrix: `scale B A`.
#[derive(Debug, Clone, Copy)]
pub struct Factors<'a> {
    /// Columns of the waist.
    pub rank: usize,
    /// `[rank][inputs]`.
    pub a: &'a [f32],
    /// `[outputs][rank]`.
    pub b: &'a [f32],
    /// What the product is multiplied by.
    pub scale: f32,
}

/// The adapters of matrices that share an input, in their order.
#[derive(Debug)]
pub struct LowRank {
    inputs: usize,
    parts: Vec<Part>,
    /// What a rank's bytes are worth: of its row of `A` times its column of `B`. Filled up to whole groups of [`TOGETHER`].
    scales: Vec<f32>,
    /// `A` of all parts, `[ranks / 8][inputs / 64][8][64]`, then `B` part by part, `[outputs / 16][rank / 4][16][4]`; filled up with zeros.
    lines: Buffer,
}

#[derive(Debug)]
struct Part {
    outputs: usize,
    /// Its columns of the waist.
    ranks: Range<usize>,
    /// The first line of its `B`.
    at: usize,
    /// Where in a row's waist it lies, rounded.
    words: Range<usize>,
}

impl Part {
    /// Lines for sixteen outputs.
    fn height(&self) -> usize {
        self.ranks.len().div_ceil(BYTES)
    }
}

impl LowRank {
    /// Takes factors, rounded to bytes.
    ///
    /// # Panics
    /// When a rank is 0 or above [`MOST_RANKS`], factors are not whole rows of it, or inputs differ.
    pub fn new(factors: &[Factors<'_>]) -> Self {
        let inputs = factors.first().map_or(0, |first| first.a.len() / first.rank.max(1));
        let rounded: Vec<[Vec<Bytes>; 2]> = factors.iter().map(|part| part.rounded(inputs)).collect();
        let ranks: usize = factors.iter().map(|part| part.rank).sum();
        let rows = rounded.iter().flat_map(|[rows, _]| rows);
        let columns = rounded.iter().flat_map(|[_, columns]| columns);
        let mut scales: Vec<f32> = rows.clone().zip(columns).map(|(row, column)| row.scale * column.scale).collect();
        scales.resize(ranks.next_multiple_of(TOGETHER), 0.0);
        let mut lines = side_by_side(&rows.collect::<Vec<_>>(), inputs.div_ceil(BYTES * LANES));
        let (mut parts, mut first, mut words) = (Vec::new(), 0, scales.len());
        for (part, [_, columns]) in factors.iter().zip(&rounded) {
            let part = Part {
                outputs: part.b.len() / part.rank,
                ranks: first..first + part.rank,
                at: lines.len(),
                words: words..words + 2 + 2 * part.rank.div_ceil(BYTES),
            };
            let groups = |block| columns.chunks(BYTES).map(move |group| across(group, block));
            lines.extend((0..part.outputs.div_ceil(LANES)).flat_map(groups));
            (first, words) = (part.ranks.end, part.words.end);
            parts.push(part);
        }
        Self { inputs, parts, scales, lines: packed(&lines) }
    }

    /// Columns of its input.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Columns of what each part adds to.
    pub fn outputs(&self) -> impl Iterator<Item = usize> {
        self.parts.iter().map(|part| part.outputs)
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        self.lines.bytes().len()
    }

    /// What a row's waist takes: see [`Waists`].
    fn words(&self) -> usize {
        self.parts.last().map_or(0, |part| part.words.end)
    }

    fn lines(&self) -> &[Line] {
        self.lines.bytes().as_chunks().0
    }

    /// `A`, a group of ranks after the other.
    fn down(&self) -> impl Iterator<Item = &[[Line; TOGETHER]]> {
        let vectors = self.inputs.div_ceil(BYTES * LANES);
        let a = &self.lines()[..self.scales.len() * vectors];
        a.as_chunks::<TOGETHER>().0.chunks_exact(vectors.max(1))
    }

    /// Some blocks of 16 outputs of a part's `B`.
    fn up(&self, part: &Part, blocks: &Range<usize>) -> &[Line] {
        let height = part.height();
        &self.lines()[part.at + blocks.start * height..][..blocks.len() * height]
    }
}

impl Factors<'_> {
    /// Rows of `A` and columns of `B`.
    fn rounded(&self, inputs: usize) -> [Vec<Bytes>; 2] {
        let Self { rank, a, b, scale } = *self;
        assert!((1..=MOST_RANKS).contains(&rank), "a rank of {rank}, not 1 to {MOST_RANKS}");
        assert!(a.len() == rank * inputs && b.len().is_multiple_of(rank), "not rows of rank {rank}");
        let rows = a.chunks_exact(inputs.max(1)).map(|row| Bytes::of(row.iter().copied()));
        let column = |r: usize| Bytes::of(b.iter().skip(r).step_by(rank).map(|x| x * scale));
        [rows.collect(), (0..rank).map(column).collect()]
    }
}

/// Rows of so many lines, a group's lines beside each other.
fn side_by_side(rows: &[&Bytes], vectors: usize) -> Vec<Line> {
    let group = |group: &[&Bytes]| {
        let byte = |at: usize, r: usize| group.get(r).map_or(BIAS, |row| row.at(at));
        let line = |at: usize, r: usize| std::array::from_fn(|i| byte(at * BYTES * LANES + i, r));
        (0..vectors).flat_map(|at| std::array::from_fn::<_, TOGETHER, _>(|r| line(at, r))).collect::<Vec<_>>()
    };
    rows.chunks(TOGETHER).flat_map(group).collect()
}

/// Sixteen numbers of up to four columns; those of one place are a lane.
fn across(columns: &[Bytes], block: usize) -> Line {
    std::array::from_fn(|i| columns.get(i % BYTES).map_or(BIAS, |column| column.at(block * LANES + i / BYTES)))
}

fn packed(lines: &[Line]) -> Buffer {
    let mut buffer = Buffer::zeroed(size_of_val(lines));
    buffer.bytes_mut().copy_from_slice(lines.as_flattened());
    buffer
}

/// Numbers as bytes: each is its byte times the scale.
struct Bytes {
    bytes: Vec<i8>,
    scale: f32,
}

impl Bytes {
    fn of(numbers: impl Iterator<Item = f32> + Clone) -> Self {
        let scale = numbers.clone().fold(0.0, |most: f32, x| most.max(x.abs())) / 127.0;
        // Numbers of this size are whole: the sum is rounded to nearest, ties to even, without a call for each of millions.
        let byte = |x: f32| if scale > 0.0 { ((x / scale + WHOLE) - WHOLE) as i8 } else { 0 };
        Self { bytes: numbers.map(byte).collect(), scale }
    }

    /// One of them, without a sign; zeros behind the last.
    fn at(&self, i: usize) -> u8 {
        self.bytes.get(i).map_or(BIAS, |byte| byte.cast_unsigned().wrapping_add(BIAS))
    }
}

/// What stands beside the products of one pass.
pub struct Beside<'a> {
    /// The adapter of a row, if it has one.
    pub of: &'a (dyn Fn(usize) -> Option<&'a LowRank> + Sync),
    /// Which of its parts belongs to the first product; those of the others follow.
    pub first: usize,
    /// Room for waists, kept from pass to pass.
    pub room: &'a mut Vec<u32>,
}

impl std::fmt::Debug for Beside<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Beside").field("first", &self.first).finish_non_exhaustive()
    }
}

/// The waists of all rows of a pass, while its tasks make and use them.
///
/// A row of `low` has the bits of every rank's number, then for each part: the bits of its scale, where its sums begin, and the high and then the
/// low bytes of its ranks, four to a word.
pub(crate) struct Waists<'a> {
    x: &'a Activations,
    of: &'a (dyn Fn(usize) -> Option<&'a LowRank> + Sync),
    first: usize,
    low: Shared<'a, u32>,
    /// Numbers between two rows of `low`.
    stride: usize,
    rows_per_task: usize,
    made: AtomicUsize,
}

impl<'a> Waists<'a> {
    /// Of products with these outputs.
    ///
    /// # Panics
    /// When an adapter has another shape.
    pub(crate) fn new(dev: &Device, x: &'a Activations, beside: Beside<'a>, outputs: &[usize]) -> Self {
        let Beside { of, first, room } = beside;
        let mut stride = 0;
        for adapter in (0..x.rows()).filter_map(of) {
            let fits = adapter.outputs().skip(first).zip(outputs).filter(|(own, other)| own == *other).count();
            assert!(adapter.inputs == x.cols() && fits == outputs.len(), "an adapter of another shape");
            stride = stride.max(adapter.words());
        }
        room.resize(x.rows() * stride, 0);
        let rows_per_task = x.rows().div_ceil(TASKS_PER_THREAD * dev.threads()).max(1);
        Self { x, of, first, low: Shared::new(room), stride, rows_per_task, made: AtomicUsize::new(0) }
    }

    /// Tasks that make them.
    pub(crate) fn tasks(&self) -> usize {
        self.x.rows().div_ceil(self.rows_per_task)
    }

    /// One of those tasks.
    pub(crate) fn make(&self, isa: Isa, task: usize) {
        // Counted even if it panics: others must not wait for ever.
        let _made = Counted(&self.made);
        let first = task * self.rows_per_task;
        dispatch(isa, Down { waists: self, rows: first..self.x.rows().min(first + self.rows_per_task) });
    }

    /// Returns once all are made.
    pub(crate) fn wait(&self) {
        let tasks = self.tasks();
        let mut spins = 0;
        while self.made.load(Ordering::Acquire) < tasks {
            spins += 1;
            if spins < SPINS { std::hint::spin_loop() } else { std::thread::yield_now() }
        }
    }

    /// Adds to some blocks of 16 outputs of some rows of a product what adapters give, behind [`Waists::wait`].
    pub(crate) fn add(&self, isa: Isa, product: usize, blocks: Range<usize>, rows: Range<usize>, sink: &Sink<'_>) {
        if !blocks.is_empty() {
            dispatch(isa, Up { waists: self, part: self.first + product, blocks, rows, sink });
        }
    }
}

/// Counts when it goes.
struct Counted<'a>(&'a AtomicUsize);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Release);
    }
}

/// Makes the waists of some rows.
struct Down<'p, 'a> {
    waists: &'p Waists<'a>,
    rows: Range<usize>,
}

impl Kernel for Down<'_, '_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { waists: Waists { x, of, low, stride, .. }, rows } = self;
        for row in rows {
            let Some(adapter) = of(row) else { continue };
            let (sums, rounded) = low.part(row * stride, adapter.words()).split_at_mut(adapter.scales.len());
            let groups = sums.as_chunks_mut::<TOGETHER>().0.iter_mut().zip(adapter.scales.as_chunks::<TOGETHER>().0);
            for ((sums, scales), a) in groups.zip(adapter.down()) {
                let products = products(s, x, row, a);
                *sums = std::array::from_fn(|r| (products[r] * scales[r]).to_bits());
            }
            for part in &adapter.parts {
                let words = part.words.start - sums.len()..part.words.end - sums.len();
                round(&sums[part.ranks.clone()], &mut rounded[words]);
            }
        }
    }
}

/// The products of a row with a group of rows of `A`: all at once where there are registers for it.
#[inline(always)]
fn products<S: Simd>(s: S, x: &Activations, row: usize, a: &[[Line; TOGETHER]]) -> [f32; TOGETHER] {
    let mut products = [0.0; TOGETHER];
    if S::REGISTERS > 2 * TOGETHER {
        dots::<S, TOGETHER>(s, x, row, a, 0, &mut products);
    } else {
        dots::<S, { TOGETHER / 2 }>(s, x, row, a, 0, &mut products);
        dots::<S, { TOGETHER / 2 }>(s, x, row, a, TOGETHER / 2, &mut products);
    }
    products
}

/// Of `N` of them, from the `first` on.
#[inline(always)]
fn dots<S: Simd, const N: usize>(
    s: S,
    x: &Activations,
    row: usize,
    a: &[[Line; TOGETHER]],
    first: usize,
    products: &mut [f32; TOGETHER],
) {
    let (zero, bias) = (s.splat_int(0), s.splat_int(u32::from_ne_bytes([BIAS; BYTES])));
    let mut sums = [s.splat(0.0); N];
    for (at, lines) in a.iter().enumerate() {
        let ((front, front_scale), (back, back_scale)) = (x.bytes(row, 2 * at), x.bytes(row, 2 * at + 1));
        let x = s.load_blocks([front, back]);
        let scale = s.select(s.mask(0xff), s.splat(front_scale), s.splat(back_scale));
        let begin = s.sub_int(zero, s.dot_bytes(bias, x, zero));
        for (sum, line) in sums.iter_mut().zip(&lines[first..first + N]) {
            *sum = s.fma(s.to_float(s.dot_bytes(s.load_bytes(line), x, begin)), scale, *sum);
        }
    }
    for (r, sum) in sums.into_iter().enumerate() {
        products[first + r] = s.sum(sum);
    }
}

/// Takes a part's numbers of a waist, as bits, and writes them as [`Up`] reads them.
#[inline(always)]
fn round(numbers: &[u32], to: &mut [u32]) {
    // As integers, magnitudes sort like floats, and infinities and NaN come last.
    let (scale, inverse) =
        scale(f32::from_bits(numbers.iter().map(|bits| bits & 0x7fff_ffff).max().unwrap_or(0)), STEPS);
    let [head, start, bytes @ ..] = to else { return };
    let (high, low) = bytes.split_at_mut(bytes.len() / 2);
    let mut sum = 0;
    for ((numbers, high), low) in numbers.chunks(BYTES).zip(high).zip(low) {
        let (mut highs, mut lows) = ([0; BYTES], [0; BYTES]);
        for (i, number) in numbers.iter().enumerate() {
            let steps = if inverse > 0.0 { ((f32::from_bits(*number) * inverse + WHOLE) - WHOLE) as i32 } else { 0 };
            lows[i] = steps as u8;
            highs[i] = ((steps - i32::from(steps as i8)) >> 8) as u8;
            sum += steps;
        }
        (*high, *low) = (u32::from_le_bytes(highs), u32::from_le_bytes(lows));
    }
    (*head, *start) = (scale.to_bits(), (-i32::from(BIAS) * sum).cast_unsigned());
}

/// Adds what some rows' adapters give to some outputs.
struct Up<'p, 'a> {
    waists: &'p Waists<'a>,
    part: usize,
    blocks: Range<usize>,
    rows: Range<usize>,
    sink: &'p Sink<'p>,
}

impl Kernel for Up<'_, '_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { waists: Waists { of, low, stride, .. }, part, blocks, rows, sink } = self;
        for row in rows {
            let Some(adapter) = of(row) else { continue };
            let part = &adapter.parts[part];
            let low = low.read(row * stride + part.words.start, part.words.len());
            let mut b = adapter.up(part, &blocks).chunks_exact(part.height());
            let (whole, rest) = sink.row(row, &blocks).as_chunks_mut::<LANES>();
            for (out, b) in whole.iter_mut().zip(&mut b) {
                s.store(rise(s, b, low, s.load(out)), out);
            }
            if let Some(b) = b.next() {
                s.store_part(rise(s, b, low, s.load_part(rest)), rest);
            }
        }
    }
}

/// Sixteen outputs with what all ranks add to them. Sums may leave 32 bits on the way and come back: the whole is at most 127 times [`STEPS`] times
/// [`MOST_RANKS`].
#[inline(always)]
fn rise<S: Simd>(s: S, b: &[Line], low: &[u32], sum: S::F) -> S::F {
    let (head, bytes) = low.split_at(2);
    let (highs, lows) = bytes.split_at(b.len());
    let (mut high, mut low) = (s.splat_int(0), s.splat_int(head[1]));
    for ((b, highs), lows) in b.iter().zip(highs).zip(lows) {
        let b = s.load_bytes(b);
        high = s.dot_bytes(b, s.splat_int(*highs), high);
        low = s.dot_bytes(b, s.splat_int(*lows), low);
    }
    s.fma(s.to_float(s.add_int(low, s.shl::<8>(high))), s.splat(f32::from_bits(head[0])), sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;
    use crate::{BlockType, Form, Linear, Matrix, linear, linear_beside};

    /// What adapters of `ranks` add to products of one input, one for each row but every third.
    struct Case {
        inputs: usize,
        outputs: Vec<usize>,
        x: Vec<f32>,
        weights: Vec<Matrix>,
        /// `A` and `B` by adapter and product.
        factors: Vec<Vec<[Vec<f32>; 2]>>,
        ranks: Vec<usize>,
    }

    impl Case {
        fn new(ranks: &[usize], inputs: usize, outputs: &[usize], rows: usize) -> Self {
            let mut random = Random::new(rows as u64);
            let dev = Device::new(1);
            let weight = |n: &usize, random: &mut Random| {
                let bytes: Vec<u8> = random.numbers(n * inputs).iter().flat_map(|x| x.to_le_bytes()).collect();
                Matrix::pack(&dev, BlockType::F32, *n, inputs, &bytes).unwrap()
            };
            let weights = outputs.iter().map(|n| weight(n, &mut random)).collect();
            let mut adapter = || {
                let part = |(n, rank): (&usize, &usize)| [random.numbers(rank * inputs), random.numbers(n * rank)];
                outputs.iter().zip(ranks).map(part).collect()
            };
            let factors = vec![adapter(), adapter()];
            let x = random.numbers(rows * inputs);
            Self { inputs, outputs: outputs.to_vec(), x, weights, factors, ranks: ranks.to_vec() }
        }

        fn adapters(&self) -> Vec<LowRank> {
            let factors = |([a, b], rank): (&[Vec<f32>; 2], &usize)| {
                let (a, b) = (a.to_vec(), b.to_vec());
                (a, b, *rank)
            };
            let adapter = |parts: &Vec<[Vec<f32>; 2]>| {
                let owned: Vec<_> = parts.iter().zip(&self.ranks).map(factors).collect();
                let parts: Vec<_> =
                    owned.iter().map(|(a, b, rank)| Factors { rank: *rank, a, b, scale: 0.5 }).collect();
                LowRank::new(&parts)
            };
            self.factors.iter().map(adapter).collect()
        }

        /// The products from the `first` on, of these rows, with or without adapters.
        fn run(&self, dev: &Device, rows: Range<usize>, first: usize, beside: bool) -> Vec<Vec<f32>> {
            let adapters = self.adapters();
            let mut input = Activations::new();
            input.set(
                dev,
                &self.x[rows.start * self.inputs..rows.end * self.inputs],
                self.inputs,
                &[Form::Int8, Form::F32],
            );
            let mut outs: Vec<Vec<f32>> = self.outputs[first..].iter().map(|n| vec![1.0; rows.len() * n]).collect();
            let products = self.weights[first..].iter().zip(&mut outs);
            let mut group: Vec<_> =
                products.map(|(weight, out)| Linear { weight, bias: None, out, accumulate: true }).collect();
            if beside {
                let of = |row: usize| adapter_of(rows.start + row).map(|number| &adapters[number]);
                linear_beside(dev, &input, &mut group, Beside { of: &of, first, room: &mut Vec::new() });
            } else {
                linear(dev, &input, &mut group);
            }
            outs
        }
    }

    /// Every third row has none.
    fn adapter_of(row: usize) -> Option<usize> {
        (!row.is_multiple_of(3)).then_some(row % 2)
    }

    /// Numbers as so many steps to either side keep them.
    fn steps(numbers: &[f64], most: f64) -> Vec<f64> {
        let scale = numbers.iter().fold(0.0, |most: f64, x| most.max(x.abs())) / most;
        numbers.iter().map(|x| (x / scale).round_ties_even() * scale).collect()
    }

    #[track_caller]
    fn check(ranks: &[usize], inputs: usize, outputs: &[usize], rows: usize) {
        let case = Case::new(ranks, inputs, outputs, rows);
        let dev = Device::new(2);
        let (plain, got) = (case.run(&dev, 0..rows, 0, false), case.run(&dev, 0..rows, 0, true));
        for (product, outputs) in outputs.iter().enumerate() {
            for (i, (got, plain)) in got[product].iter().zip(&plain[product]).enumerate() {
                let (row, out) = (i / outputs, i % outputs);
                let want = f64::from(*plain) + adapter_of(row).map_or(0.0, |a| case.added(a, product, row, out));
                assert!(
                    (f64::from(*got) - want).abs() < 1e-4 * (1.0 + want.abs()),
                    "{product}, {row}, {out}: {got}, not {want}"
                );
            }
        }
        let devices = Isa::available().into_iter().flat_map(|isa| [1, 2, 5].map(|n| Device::with_isa(n, isa)));
        for dev in devices {
            assert_eq!(case.run(&dev, 0..rows, 0, true), got, "{dev:?}: the same bits");
            let alone: Vec<_> = (0..rows).map(|row| case.run(&dev, row..row + 1, 0, true)).collect();
            for product in 0..outputs.len() {
                let alone: Vec<f32> = alone.iter().flat_map(|outs| outs[product].clone()).collect();
                assert_eq!(alone, got[product], "{dev:?}: the same bits alone");
            }
        }
        let some = case.run(&dev, 0..rows, outputs.len() - 1, true);
        assert_eq!(some[0], got[outputs.len() - 1], "the last product without the others");
    }

    impl Case {
        /// A row of activations as products of bytes see it.
        fn as_bytes(&self, row: usize) -> Vec<f32> {
            let (mut input, mut out) = (Activations::new(), Vec::new());
            input.set(&Device::new(1), &self.x[row * self.inputs..][..self.inputs], self.inputs, &[Form::Int8]);
            input.read(Form::Int8, 0, &mut out);
            out
        }

        /// What an adapter adds to an output.
        fn added(&self, adapter: usize, product: usize, row: usize, out: usize) -> f64 {
            let ([a, b], rank) = (&self.factors[adapter][product], self.ranks[product]);
            let x = self.as_bytes(row);
            let all = |numbers: &[f32]| numbers.iter().map(|x| f64::from(*x)).collect::<Vec<_>>();
            let columns = (0..rank).map(|r| b.iter().skip(r).step_by(rank).map(|b| f64::from(b * 0.5)).collect());
            let columns: Vec<Vec<f64>> = columns.map(|column: Vec<f64>| steps(&column, 127.0)).collect();
            // How far a column goes counts with the waist.
            let most: Vec<f64> = columns.iter().map(|column| column.iter().fold(0.0, |m, b| b.abs().max(m))).collect();
            let number = |r: usize| {
                let a = steps(&all(&a[r * self.inputs..][..self.inputs]), 127.0);
                a.iter().zip(&x).map(|(a, x)| a * f64::from(*x)).sum::<f64>() * most[r]
            };
            let waist = steps(&(0..rank).map(number).collect::<Vec<_>>(), 32_512.0);
            (0..rank).map(|r| waist[r] * columns[r][out] / most[r]).sum()
        }
    }

    #[test]
    fn rows_get_what_their_adapters_say() {
        check(&[8], 576, &[192], 7);
        check(&[8, 8, 8], 64, &[48, 16, 16], 9);
        check(&[1], 16, &[16], 1);
        check(&[5, 2], 50, &[33, 70], 40);
        check(&[16], 7, &[3], 2);
        check(&[12, 4], 40, &[100, 100], 70);
    }
}
