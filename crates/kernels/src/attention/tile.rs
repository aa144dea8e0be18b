//! One tile: some consecutive queries of one sequence, the heads that share a key head, and some of their pages.

use std::cell::RefCell;
use std::ops::Range;

use super::block::{Block, Element, Page, ROWS, Running, attend};
use super::cache::KvCache;
use super::{AttentionSpec, PAGE_TOKENS, SPLIT};
use crate::Isa;
use crate::math::exp2_negative;
use crate::parallel::Shared;
use crate::simd::{Kernel, LANES, Simd, dispatch};

/// Rows up to which pages are read as they are stored; more rows share one unpacked copy.
const FEW: usize = 2 * ROWS;

/// Which positions a query sees.
#[derive(Debug, Clone, Copy)]
pub(super) enum Sight {
    /// Itself and what came before.
    Causal,
    /// Everything in a sequence of this length.
    Both(usize),
}

impl Sight {
    /// First and last (exclusive) position seen from `position`.
    pub(super) fn range(self, spec: &AttentionSpec, position: usize) -> (usize, usize) {
        let window = spec.window.unwrap_or(usize::MAX).max(1);
        let from = (position + 1).saturating_sub(window);
        match self {
            Self::Causal => (from, position + 1),
            Self::Both(len) => (from, position.saturating_add(window).min(len)),
        }
    }
}

/// The work of one task.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tile<'a> {
    pub(super) spec: &'a AttentionSpec,
    pub(super) sight: Sight,
    /// All queries of the batch.
    pub(super) q: &'a [f32],
    /// First row in the batch.
    pub(super) row: usize,
    /// Queries.
    pub(super) len: usize,
    /// Position of the first query.
    pub(super) position: usize,
    /// Key head.
    pub(super) head: usize,
    /// Splits of the sequence to do.
    pub(super) splits: (usize, usize),
}

impl Tile<'_> {
    /// Rows: queries times heads.
    pub(super) fn rows(&self) -> usize {
        self.len * self.spec.group()
    }

    /// Where the heads of query `i` start in the batch, and how many numbers they are.
    pub(super) fn heads(&self, i: usize) -> Range<usize> {
        let AttentionSpec { heads, head_dim, .. } = *self.spec;
        let len = self.spec.group() * head_dim;
        let start = (self.row + i) * heads * head_dim + self.head * len;
        start..start + len
    }

    /// Positions that any query of the tile sees.
    pub(super) fn range(&self) -> Range<usize> {
        let (first, last) = (self.position, self.position + self.len - 1);
        self.sight.range(self.spec, first).0..self.sight.range(self.spec, last).1
    }

    /// Pages of a split that hold any of it.
    pub(super) fn pages(&self, split: usize) -> Range<usize> {
        let range = self.range();
        (range.start / PAGE_TOKENS).max(split * SPLIT)..range.end.div_ceil(PAGE_TOKENS).min((split + 1) * SPLIT)
    }

    /// Factor on the queries. Without a cap, the step from natural exponents to powers of two is part of it.
    pub(super) fn scale(&self) -> f32 {
        if self.spec.softcap.is_some() { self.spec.scale } else { self.spec.scale * std::f32::consts::LOG2_E }
    }

    /// Factors of the soft cap, in front of and behind `tanh`.
    pub(super) fn softcap(&self) -> Option<(f32, f32)> {
        self.spec.softcap.map(|cap| (1.0 / cap, cap * std::f32::consts::LOG2_E))
    }

    /// All splits that hold any of it.
    pub(super) fn all_splits(&self) -> (usize, usize) {
        let (range, split) = (self.range(), SPLIT * PAGE_TOKENS);
        (range.start / split, range.end.div_ceil(split))
    }
}

/// Where the result of a tile goes.
#[derive(Debug)]
pub(super) enum Sink<'a> {
    /// Finished rows, into the batch.
    Out(Shared<'a, f32>),
    /// The state of one split: [`part_len`] numbers a row.
    Part(&'a mut [f32]),
}

/// Numbers of a row's state: the weighted sum, the maximum and the sum of weights.
pub(super) fn part_len(spec: &AttentionSpec) -> usize {
    spec.head_dim.next_multiple_of(LANES) + 2
}

/// Where the pages of a tile come from.
pub(super) trait Pages: Copy {
    /// As what they are read.
    type E: Element;
    /// Keys and values of a page, possibly unpacked to `buffer`.
    fn page<'a, S: Simd>(&'a self, s: S, index: usize, buffer: &'a mut [Vec<f32>; 2]) -> [&'a [Self::E]; 2];

    /// The memory behind a page, if it pays to fetch it ahead.
    #[inline(always)]
    fn ahead(&self, _: usize) -> [&[Self::E]; 2] {
        [&[], &[]]
    }
}

/// Pages of one head in the cache, as stored.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stored<'a> {
    pub(super) cache: &'a KvCache,
    pub(super) layer: usize,
    pub(super) head: usize,
    pub(super) pages: &'a [u32],
    /// They come from memory, not from a cache.
    pub(super) far: bool,
}

impl<'a> Stored<'a> {
    /// Keys and values of a page.
    pub(super) fn halves(&self, index: usize) -> [&'a [u16]; 2] {
        self.cache.head(self.layer, self.pages[index], self.head).into()
    }
}

impl Pages for Stored<'_> {
    type E = u16;
    #[inline(always)]
    fn page<'a, S: Simd>(&'a self, _: S, index: usize, _: &'a mut [Vec<f32>; 2]) -> [&'a [u16]; 2] {
        self.halves(index)
    }
    #[inline(always)]
    fn ahead(&self, index: usize) -> [&[u16]; 2] {
        if self.far { self.halves(index) } else { [&[], &[]] }
    }
}

/// The same, unpacked to f32.
#[derive(Debug, Clone, Copy)]
struct Unpacked<'a>(Stored<'a>);

impl Pages for Unpacked<'_> {
    type E = f32;
    #[inline(always)]
    fn page<'a, S: Simd>(&'a self, s: S, index: usize, buffer: &'a mut [Vec<f32>; 2]) -> [&'a [f32]; 2] {
        for (to, from) in buffer.iter_mut().zip(self.0.halves(index)) {
            to.resize(from.len(), 0.0);
            for (to, from) in to.as_chunks_mut().0.iter_mut().zip(from.as_chunks().0) {
                s.store(s.load_f16(from), to);
            }
        }
        let [keys, values] = buffer;
        [keys, values]
    }
}

/// Pages made up of the rows of an encoder's batch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rows<'a> {
    /// From the sequence's first row and the head's first number.
    pub(super) k: &'a [f32],
    pub(super) v: &'a [f32],
    /// Numbers from row to row.
    pub(super) cols: usize,
    pub(super) head_dim: usize,
    /// Rows of the sequence.
    pub(super) len: usize,
}

impl Pages for Rows<'_> {
    type E = f32;
    #[inline(always)]
    fn page<'a, S: Simd>(&'a self, s: S, index: usize, buffer: &'a mut [Vec<f32>; 2]) -> [&'a [f32]; 2] {
        let row = self.head_dim.next_multiple_of(LANES);
        let [keys, values] = buffer;
        keys.resize(self.head_dim * PAGE_TOKENS, 0.0);
        values.resize(PAGE_TOKENS * row, 0.0);
        for t in 0..PAGE_TOKENS.min(self.len - index * PAGE_TOKENS) {
            let start = (index * PAGE_TOKENS + t) * self.cols;
            let (k, v) = (&self.k[start..][..self.head_dim], &self.v[start..][..self.head_dim]);
            for (k, keys) in k.iter().zip(keys.as_chunks_mut::<PAGE_TOKENS>().0) {
                keys[t] = *k;
            }
            for (v, to) in v.chunks(LANES).zip(values[t * row..][..row].as_chunks_mut().0) {
                s.store(s.load_part(v), to);
            }
        }
        [keys, values]
    }
}

/// Attention over the cache.
pub(super) fn stored(isa: Isa, tile: Tile<'_>, pages: Stored<'_>, sink: Sink<'_>) {
    #[cfg(target_arch = "x86_64")]
    if isa == Isa::Amx {
        return super::amx::stored(tile, pages, sink);
    }
    let rows = tile.rows();
    if rows > FEW {
        return go::<_, ROWS>(isa, tile, Unpacked(pages), sink);
    }
    match rows.div_ceil(rows.div_ceil(ROWS)) {
        1 => go::<_, 1>(isa, tile, pages, sink),
        2 => go::<_, 2>(isa, tile, pages, sink),
        3 => go::<_, 3>(isa, tile, pages, sink),
        4 => go::<_, 4>(isa, tile, pages, sink),
        5 => go::<_, 5>(isa, tile, pages, sink),
        _ => go::<_, 6>(isa, tile, pages, sink),
    }
}

/// Attention over the rows of a batch.
pub(super) fn rows(isa: Isa, tile: Tile<'_>, pages: Rows<'_>, sink: Sink<'_>) {
    go::<_, ROWS>(isa, tile, pages, sink);
}

fn go<P: Pages, const R: usize>(isa: Isa, tile: Tile<'_>, pages: P, sink: Sink<'_>) {
    SCRATCH.with_borrow_mut(|scratch| dispatch(isa, Go::<P, R> { tile, pages, sink, scratch }));
}

/// What a thread works with; grown once.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// Queries in blocks, `[head_dim][R]` each, scaled.
    q: Vec<f32>,
    /// What each row sees, absolute and in the page at hand.
    seen: Vec<(usize, usize)>,
    here: Vec<(usize, usize)>,
    /// State of the split.
    running: Vec<Running>,
    acc: Vec<f32>,
    /// State of the splits before, in rows of [`part_len`].
    pub(super) total: Vec<f32>,
    /// Unpacked keys and values.
    page: [Vec<f32>; 2],
}

thread_local! {
    pub(super) static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// A tile in blocks of `R` rows.
struct Go<'a, P, const R: usize> {
    tile: Tile<'a>,
    pages: P,
    sink: Sink<'a>,
    scratch: &'a mut Scratch,
}

impl<P: Pages, const R: usize> Kernel for Go<'_, P, R> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { tile, pages, sink, scratch } = self;
        scratch.start(&tile, R);
        scratch.lay_out::<R>(&tile);
        for split in tile.splits.0..tile.splits.1 {
            scratch.split::<S, P, R>(s, &tile, &pages, split);
            scratch.join(s, &tile);
        }
        match sink {
            Sink::Out(out) => finish(s, &tile, &scratch.total, &out),
            Sink::Part(part) => part.copy_from_slice(&scratch.total),
        }
    }
}

impl Scratch {
    /// Makes room for a tile in blocks of `block` rows, and empties its state.
    #[inline(always)]
    pub(super) fn start(&mut self, tile: &Tile<'_>, block: usize) {
        let (spec, rows) = (tile.spec, tile.rows());
        let padded = rows.next_multiple_of(block);
        self.seen.clear();
        for i in 0..tile.len {
            let seen = tile.sight.range(spec, tile.position + i);
            self.seen.extend(std::iter::repeat_n(seen, spec.group()));
        }
        self.seen.resize(padded, (0, 0));
        self.here.resize(padded, (0, 0));
        self.running.resize(padded, Running::EMPTY);
        self.acc.resize(padded * spec.head_dim.next_multiple_of(LANES), 0.0);
        self.total.clear();
        self.total.resize(rows * part_len(spec), 0.0);
        self.total.chunks_exact_mut(part_len(spec)).for_each(|row| row[part_len(spec) - 2] = f32::NEG_INFINITY);
    }

    /// Lays out the queries in blocks.
    #[inline(always)]
    fn lay_out<const R: usize>(&mut self, tile: &Tile<'_>) {
        let (n, scale) = (tile.spec.head_dim, tile.scale());
        self.q.clear();
        self.q.resize(tile.rows().next_multiple_of(R) * n, 0.0);
        let heads = (0..tile.len).flat_map(|i| tile.q[tile.heads(i)].chunks_exact(n));
        for (row, head) in heads.enumerate() {
            let block = &mut self.q[row / R * R * n..][..R * n];
            block.iter_mut().skip(row % R).step_by(R).zip(head).for_each(|(to, x)| *to = x * scale);
        }
    }

    /// Before a split.
    pub(super) fn empty(&mut self) {
        self.running.fill(Running::EMPTY);
        self.acc.fill(0.0);
    }

    /// What each row sees of a page.
    pub(super) fn look(&mut self, index: usize) {
        let start = index * PAGE_TOKENS;
        let inside = |position: usize| position.clamp(start, start + PAGE_TOKENS) - start;
        for (here, seen) in self.here.iter_mut().zip(&self.seen) {
            *here = (inside(seen.0), inside(seen.1));
        }
    }

    /// What some rows see of the page at hand, and their state.
    pub(super) fn block(&mut self, rows: Range<usize>) -> (&[(usize, usize)], &mut [Running]) {
        (&self.here[rows.clone()], &mut self.running[rows])
    }

    /// The sums of some rows, `row` numbers each.
    pub(super) fn sums(&mut self, rows: Range<usize>, row: usize) -> &mut [f32] {
        &mut self.acc[rows.start * row..rows.end * row]
    }

    /// Goes through the pages of one split.
    #[inline(always)]
    fn split<S: Simd, P: Pages, const R: usize>(&mut self, s: S, tile: &Tile<'_>, pages: &P, split: usize) {
        let (n, value_row) = (tile.spec.head_dim, tile.spec.head_dim.next_multiple_of(LANES));
        self.empty();
        let indices = tile.pages(split);
        let softcap = tile.softcap();
        for index in indices.clone() {
            self.look(index);
            let [keys, values] = pages.page(s, index, &mut self.page);
            let next = if index + 1 < indices.end { pages.ahead(index + 1) } else { [&[] as &[_]; 2] };
            let page = Page { keys, values, value_row, next };
            let q = self.q.chunks_exact(R * n);
            let acc = self.acc.chunks_exact_mut(R * value_row);
            let state = self.running.chunks_exact_mut(R).zip(acc);
            for ((seen, q), (running, acc)) in self.here.chunks_exact(R).zip(q).zip(state) {
                if seen.iter().any(|seen| seen.0 < seen.1) {
                    attend::<S, P::E, R>(s, page, &mut Block { q, seen, running, acc, softcap });
                }
            }
        }
    }

    /// Joins the split's state to that of the splits before.
    #[inline(always)]
    pub(super) fn join<S: Simd>(&mut self, s: S, tile: &Tile<'_>) {
        let len = part_len(tile.spec);
        let parts = self.running.iter().zip(self.acc.chunks_exact(len - 2));
        for (total, (running, acc)) in self.total.chunks_exact_mut(len).zip(parts) {
            join_row(s, total, acc, running.max, s.sum(s.load(&running.sums)));
        }
    }
}

/// Joins one split's state of a row to that of the splits before.
#[inline(always)]
fn join_row<S: Simd>(s: S, total: &mut [f32], acc: &[f32], max: f32, sum: f32) {
    // A row that saw nothing of this split. With NaN among the scores the sum is NaN, and stays.
    if sum == 0.0 {
        return;
    }
    let (total, ends) = total.split_at_mut(acc.len());
    let (old_max, old_sum) = (ends[0], ends[1]);
    let new = if max > old_max { max } else { old_max };
    let (on_old, on_new) = (power(s, old_max - new), power(s, max - new));
    let mut sums = [0.0; LANES];
    s.store(s.fma(s.splat(old_sum), on_old, s.mul(s.splat(sum), on_new)), &mut sums);
    (ends[0], ends[1]) = (new, sums[0]);
    for (total, acc) in total.as_chunks_mut().0.iter_mut().zip(acc.as_chunks().0) {
        s.store(s.fma(s.load(total), on_old, s.mul(s.load(acc), on_new)), total);
    }
}

/// `2^x` in all lanes.
#[inline(always)]
fn power<S: Simd>(s: S, x: f32) -> S::F {
    exp2_negative(s, s.splat(x))
}

/// Divides by the sums of weights and writes the rows into the batch.
#[inline(always)]
pub(super) fn finish<S: Simd>(s: S, tile: &Tile<'_>, total: &[f32], out: &Shared<'_, f32>) {
    let (n, len) = (tile.spec.head_dim, part_len(tile.spec));
    let mut rows = total.chunks_exact(len);
    for i in 0..tile.len {
        // Tiles differ in rows or heads.
        let heads = tile.heads(i);
        let heads = out.part(heads.start, heads.len());
        for (head, row) in heads.chunks_exact_mut(n).zip(&mut rows) {
            let inverse = s.splat(1.0 / row[len - 1]);
            for (to, x) in head.chunks_mut(LANES).zip(row.as_chunks().0) {
                s.store_part(s.mul(s.load(x), inverse), to);
            }
        }
    }
}

/// Joins the states of all splits of a tile, in ascending order, and writes the rows into the batch.
pub(super) fn join(isa: Isa, tile: Tile<'_>, parts: &[f32], out: Shared<'_, f32>) {
    SCRATCH.with_borrow_mut(|scratch| dispatch(isa, Join { tile, parts, out, scratch }));
}

struct Join<'a> {
    tile: Tile<'a>,
    /// A state per split.
    parts: &'a [f32],
    out: Shared<'a, f32>,
    scratch: &'a mut Scratch,
}

impl Kernel for Join<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { tile, parts, out, scratch } = self;
        let len = part_len(tile.spec);
        scratch.start(&tile, 1);
        for part in parts.chunks_exact(tile.rows() * len) {
            for (total, part) in scratch.total.chunks_exact_mut(len).zip(part.chunks_exact(len)) {
                join_row(s, total, &part[..len - 2], part[len - 2], part[len - 1]);
            }
        }
        finish(s, &tile, &scratch.total, &out);
    }
}
