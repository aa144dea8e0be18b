//! Adapters beside matrices, while serving: `y += B (A x)` (LoRA, Hu et al. 2021), every row with an adapter of its own or none, so that rows of
//! many adapters share one pass over the base (as in Punica, Chen et al. 2023).
//!
//! Numbers are signed bytes with a scale for every rank on either side, sums f32: what a step has to read of the adapters of its rows is what they
//! cost, and at eight bits the rounding is far below what they change. A row is computed alone and in one order: `A x` in sixteen lanes along the columns, folded in halves; then every
//! output takes the ranks in ascending order. So its bits depend on nothing beside it, and are the same on every instruction set.

use crate::linear::Shared;
use crate::simd::{Kernel, LANES, Simd, dispatch};
use crate::{Activations, Device};

/// The most columns of a waist.
pub const MOST_RANKS: usize = 256;
/// Ranks that are summed at the same time, so that the chains of additions do not wait for each other.
const TOGETHER: usize = 4;
/// Tasks for each thread: enough that one which loses its core holds up little.
const TASKS_PER_THREAD: usize = 4;

/// An adapter of one matrix.
#[derive(Debug, Clone, PartialEq)]
pub struct LowRank {
    rank: usize,
    inputs: usize,
    outputs: usize,
    /// `[rank][inputs]`, every rank filled up with zeros to whole vectors.
    a: Vec<[i8; LANES]>,
    /// `[outputs / 16][rank][16]`.
    b: Vec<[i8; LANES]>,
    /// What a rank's bytes are worth: of its row of `a` times its column of `b`.
    scales: Vec<f32>,
}

impl LowRank {
    /// Takes `a`, `[rank][inputs]`, and `scale` times `b`, `[outputs][rank]`, rounded to bytes.
    ///
    /// # Panics
    /// When `rank` is 0 or above [`MOST_RANKS`], or `a` or `b` are not whole rows of it.
    pub fn new(rank: usize, a: &[f32], b: &[f32], scale: f32) -> Self {
        assert!((1..=MOST_RANKS).contains(&rank), "a rank of {rank}, not 1 to {MOST_RANKS}");
        assert!(a.len().is_multiple_of(rank) && b.len().is_multiple_of(rank), "not rows of rank {rank}");
        let (inputs, outputs) = (a.len() / rank, b.len() / rank);
        let rows: Vec<Bytes> = a.chunks_exact(inputs.max(1)).map(|row| Bytes::of(row.iter().copied())).collect();
        let column = |r: usize| Bytes::of(b.iter().skip(r).step_by(rank).map(|x| x * scale));
        let columns: Vec<Bytes> = (0..rank).map(column).collect();
        let scales = rows.iter().zip(&columns).map(|(row, column)| row.scale * column.scale).collect();
        let lines = |bytes: &Bytes| bytes.bytes.chunks(LANES).map(line).collect::<Vec<_>>();
        let a = rows.iter().flat_map(lines).collect();
        let columns: Vec<_> = columns.iter().map(lines).collect();
        let b = (0..outputs.div_ceil(LANES)).flat_map(|block| columns.iter().map(move |lines| lines[block])).collect();
        Self { rank, inputs, outputs, a, b, scales }
    }

    /// Columns of its input.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Columns of what it adds to.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        size_of_val(&self.a[..]) + size_of_val(&self.b[..])
    }
}

/// Numbers as bytes: each is its byte times the scale.
struct Bytes {
    bytes: Vec<i8>,
    scale: f32,
}

impl Bytes {
    fn of(numbers: impl Iterator<Item = f32> + Clone) -> Self {
        let scale = numbers.clone().fold(0.0, |most: f32, x| most.max(x.abs())) / 127.0;
        let byte = |x: f32| if scale > 0.0 { (x / scale).round_ties_even() as i8 } else { 0 };
        Self { bytes: numbers.map(byte).collect(), scale }
    }
}

fn line(bytes: &[i8]) -> [i8; LANES] {
    std::array::from_fn(|i| bytes.get(i).copied().unwrap_or_default())
}

/// Outputs that one pass takes.
const GROUP: usize = 4;

/// Adds to each of `outs`, `[rows][outputs]`, what the adapters of its rows give: `of(row)[i]` is the row's for `outs[i]`. `x` must have been prepared
/// in [`crate::Form::F32`] too.
///
/// # Panics
/// When an adapter's shape is not that of `x` and its output, or there is not one for each output.
pub fn low_rank<'a>(
    dev: &Device,
    x: &Activations,
    of: &(dyn Fn(usize) -> Option<&'a [LowRank]> + Sync),
    outs: &mut [&mut [f32]],
) {
    let (rows, count) = (x.rows().max(1), outs.len());
    assert!(count <= GROUP, "{count} outputs at a time");
    // On the stack: nothing is allocated from step to step.
    let mut outs = outs.iter_mut();
    let outs: [_; GROUP] = std::array::from_fn(|_| outs.next().map(|out| (out.len() / rows, Shared::new(out))));
    let per_task = rows.div_ceil(TASKS_PER_THREAD * dev.threads());
    dev.run(rows.div_ceil(per_task), &|task| {
        for row in task * per_task..x.rows().min((task + 1) * per_task) {
            let Some(parts) = of(row) else { continue };
            assert_eq!(parts.len(), count, "a part for each output");
            for (part, (cols, out)) in parts.iter().zip(outs.iter().flatten()) {
                assert!(part.inputs == x.cols() && part.outputs == *cols, "an adapter of another shape");
                dispatch(dev.isa(), Row { part, x: x.f32_row(row), out: out.part(row * cols, *cols) });
            }
        }
    });
}

struct Row<'a> {
    part: &'a LowRank,
    x: &'a [f32],
    out: &'a mut [f32],
}

impl Kernel for Row<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { part, x, out } = self;
        let mut low = [0.0; MOST_RANKS];
        let low = &mut low[..part.rank];
        let vectors = x.len().div_ceil(LANES);
        let (fours, rest) = low.as_chunks_mut::<TOGETHER>();
        let (a_fours, a_rest) = part.a.split_at(fours.len() * TOGETHER * vectors);
        for (low, a) in fours.iter_mut().zip(a_fours.chunks_exact(TOGETHER * vectors)) {
            *low = dots(s, x, a);
        }
        for (low, a) in rest.iter_mut().zip(a_rest.chunks_exact(vectors)) {
            [*low] = dots(s, x, a);
        }
        low.iter_mut().zip(&part.scales).for_each(|(low, scale)| *low *= scale);
        for (out, b) in out.chunks_mut(LANES).zip(part.b.chunks_exact(part.rank)) {
            let mut sum = s.load_part(out);
            for (b, low) in b.iter().zip(&*low) {
                sum = s.fma(s.load_i8(b), s.splat(*low), sum);
            }
            s.store_part(sum, out);
        }
    }
}

/// The products of `x` with `N` rows.
#[inline(always)]
fn dots<S: Simd, const N: usize>(s: S, x: &[f32], rows: &[[i8; LANES]]) -> [f32; N] {
    let vectors = rows.len() / N;
    let mut sums = [s.splat(0.0); N];
    for (at, x) in x.chunks(LANES).enumerate() {
        let x = s.load_part(x);
        for (r, sum) in sums.iter_mut().enumerate() {
            *sum = s.fma(s.load_i8(&rows[r * vectors + at]), x, *sum);
        }
    }
    let mut dots = [0.0; N];
    for (dot, sum) in dots.iter_mut().zip(sums) {
        *dot = s.sum(sum);
    }
    dots
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;
    use crate::{Form, Isa};

    /// `low_rank` over rows of which every third has no adapter, on all instruction sets and numbers of threads.
    fn outcome(x: &[f32], parts: &[LowRank], rows: usize) -> Vec<f32> {
        let adapters: Vec<_> = (0..rows).map(|row| (row % 3 != 0).then(|| &parts[row % 2..][..1])).collect();
        let run = |dev: &Device| {
            let mut input = Activations::new();
            input.set(dev, x, parts[0].inputs(), &[Form::F32]);
            let mut out = vec![1.0; rows * parts[0].outputs()];
            low_rank(dev, &input, &|row| adapters[row], &mut [&mut out]);
            out
        };
        let all = Isa::available().into_iter().flat_map(|isa| [1, 2].map(|n| run(&Device::with_isa(n, isa))));
        all.reduce(|a, b| {
            assert_eq!(a, b, "the same bits");
            a
        })
        .unwrap()
    }

    /// Numbers as eight bits keep them.
    fn eight(numbers: impl Iterator<Item = f32> + Clone) -> Vec<f64> {
        let scale = f64::from(numbers.clone().map(f32::abs).fold(0.0, f32::max)) / 127.0;
        numbers.map(|x| (f64::from(x) / scale).round_ties_even() * scale).collect()
    }

    #[test]
    fn rows_get_what_their_adapters_say() {
        let check = |rank: usize, inputs: usize, outputs: usize, rows: usize| {
            let mut random = Random::new(rank as u64);
            let x = random.numbers(rows * inputs);
            let pairs: Vec<_> =
                (0..2).map(|_| (random.numbers(rank * inputs), random.numbers(outputs * rank))).collect();
            let parts: Vec<_> = pairs.iter().map(|(a, b)| LowRank::new(rank, a, b, 0.5)).collect();
            let got = outcome(&x, &parts, rows);
            for (i, got) in got.iter().enumerate() {
                let (row, out) = (i / outputs, i % outputs);
                let (a, b) = &pairs[row % 2];
                let low = |r: usize| {
                    let a = eight(a[r * inputs..][..inputs].iter().copied());
                    let b = eight(b.iter().skip(r).step_by(rank).map(|x| x * 0.5));
                    a.iter().zip(&x[row * inputs..]).map(|(a, x)| a * f64::from(*x)).sum::<f64>() * b[out]
                };
                let want = 1.0 + if row.is_multiple_of(3) { 0.0 } else { (0..rank).map(low).sum() };
                assert!((f64::from(*got) - want).abs() < 1e-4 * (1.0 + want.abs()), "{row}, {out}: {got}, not {want}");
            }
        };
        check(8, 576, 192, 7);
        check(1, 16, 16, 1);
        check(5, 50, 33, 40);
        check(16, 7, 3, 2);
    }
}
