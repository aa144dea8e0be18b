//! Attention of whole sequences with its gradient, in the manner of FlashAttention 2 (Dao 2023): no score matrix is kept, only the logarithm of
//! every row's sum, from which the backward pass computes the weights again.
//!
//! # Arithmetic
//! Blocks of [`BLOCK`] queries meet blocks of as many keys, in ascending order, in f32. With `s = scale q·k` (softcapped where the spec says so),
//! `p = exp(s - lse)` and `delta = dout·out` of a row:
//!
//! ```text
//! dv += pᵀ dout        dp = dout vᵀ        ds = p (dp - delta)
//! dq += ds k scale     dk += dsᵀ q scale
//! ```
//!
//! # Layout
//! All products are one loop, `out[r][c] (+)= a[step][r] b[step][c]`: operands are transposed once a block, so that what it reads lies in
//! order. Scores stand key by key, a lane for each query: softmax needs no sums over lanes. Where a block lies across the diagonal, or the
//! window's end, tiles and steps that nothing is seen in are left out: half of its work.
//!
//! # Sequences that begin alike
//! share those rows ([`Branch`]): a prompt that stands before a hundred texts is there once, and what they all ask of it is added up. A row's result
//! has the same bits as if its sequence stood alone, as blocks of keys are counted from the sequence's beginning.
//!
//! # Work
//! Forward, a task is a block of queries of one head; backward, sequences that share rows and a key head, so that no two tasks add to the same
//! gradient; it keeps its keys and values, turned, and their gradients, and blocks of queries pass by. More cores than those times key heads would
//! want tasks by blocks, which compute the scores twice. What is read next is asked for meanwhile, as rows of a head lie apart.

mod product;

use std::ops::Range;

use super::AttentionSpec;
use crate::Device;
use crate::math::{exp, tanh};
use crate::parallel::Shared;
use crate::simd::{Kernel, LANES, Simd, ask, dispatch, transpose};
use product::Product;

/// Queries and keys of a block.
const BLOCK: usize = 64;
/// The widest head.
const WIDEST: usize = 256;

/// `[key][query]` or `[query][key]`.
type Scores = [[f32; BLOCK]; BLOCK];

static SCORES: Scores = [[0.0; BLOCK]; BLOCK];

/// Room for the numbers of a block's rows: `[number][row]` where they are turned, `[row][number]` where they are sums.
fn block_of(spec: &AttentionSpec) -> Vec<f32> {
    vec![0.0; BLOCK * spec.head_dim]
}

/// The rows of a sequence: those that it shares with another, which begins with them, and its own behind these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Branch {
    /// The first rows of another sequence, which shares none itself and stands before this one; mostly empty.
    pub shared: Range<usize>,
    /// Rows of this sequence alone.
    pub own: Range<usize>,
}

impl Branch {
    /// Sequences of these lengths behind each other, each on its own.
    pub fn behind_each_other(lens: &[usize]) -> Vec<Self> {
        let ends = lens.iter().scan(0, |end, len| {
            *end += len;
            Some(*end)
        });
        ends.zip(lens).map(|(end, len)| Self { shared: 0..0, own: end - len..end }).collect()
    }

    /// The positions of its own rows.
    pub fn positions(&self) -> Range<usize> {
        self.shared.len()..self.len()
    }

    /// Rows that it sees.
    #[expect(clippy::len_without_is_empty, reason = "a sequence has rows")]
    pub fn len(&self) -> usize {
        self.shared.len() + self.own.len()
    }

    /// The row of a position.
    #[inline(always)]
    fn row(&self, position: usize) -> usize {
        match position.checked_sub(self.shared.len()) {
            Some(own) => self.own.start + own,
            None => self.shared.start + position,
        }
    }

    /// Where the rows begin that others may share with it.
    fn root(&self) -> usize {
        if self.shared.is_empty() { self.own.start } else { self.shared.start }
    }
}

/// What attention reads: `[rows][heads][head_dim]` with the rows of all sequences behind each other; keys and values have `kv_heads`.
#[derive(Debug, Clone, Copy)]
pub struct Attended<'a> {
    /// Rotated queries.
    pub q: &'a [f32],
    /// Rotated keys.
    pub k: &'a [f32],
    /// Values.
    pub v: &'a [f32],
}

/// What the forward pass left: its result, and per row and head the logarithm of the sum of its exponentials.
#[derive(Debug, Clone, Copy)]
pub struct Attention<'a> {
    /// `[rows][heads][head_dim]`.
    pub out: &'a [f32],
    /// `[rows][heads]`.
    pub log_sums: &'a [f32],
}

/// The result's gradient, and where those it leads to go; they overwrite what stands there.
#[derive(Debug)]
pub struct AttentionGradient<'a> {
    /// Of the result.
    pub out: &'a [f32],
    /// Of the queries.
    pub q: &'a mut [f32],
    /// Of the keys.
    pub k: &'a mut [f32],
    /// Of the values.
    pub v: &'a mut [f32],
}

/// Causal attention of sequences: every row sees those before it in its own sequence, and itself (with a window, the last so many).
pub fn attention_forward(
    dev: &Device,
    spec: &AttentionSpec,
    branches: &[Branch],
    x: Attended<'_>,
    out: &mut [f32],
    log_sums: &mut [f32],
) {
    check(spec, branches, x, out.len(), log_sums.len());
    let blocks = |branch: &Branch| branch.positions().step_by(BLOCK);
    let tasks: Vec<_> = branches.iter().flat_map(|branch| blocks(branch).map(move |first| (branch, first))).collect();
    let (out, log_sums) = (Shared::new(out), Shared::new(log_sums));
    dev.run(tasks.len() * spec.heads, &|task| {
        let (branch, first) = tasks[task / spec.heads];
        let sequence = Sequence { spec, x, branch };
        dispatch(dev.isa(), Forward { sequence, head: task % spec.heads, first, out: &out, log_sums: &log_sums });
    });
}

/// The gradient of [`attention_forward`], from its result and the gradient of that.
#[expect(clippy::needless_pass_by_value, reason = "it lends what is written to")]
pub fn attention_backward(
    dev: &Device,
    spec: &AttentionSpec,
    branches: &[Branch],
    x: Attended<'_>,
    done: Attention<'_>,
    gradient: AttentionGradient<'_>,
) {
    check(spec, branches, x, done.out.len(), done.log_sums.len());
    let dout = gradient.out;
    assert!(dout.len() == x.q.len() && gradient.q.len() == x.q.len(), "gradients of the queries' shape");
    assert!(gradient.k.len() == x.k.len() && gradient.v.len() == x.k.len(), "gradients of the keys' shape");
    let (dq, dk, dv) = (Shared::new(gradient.q), Shared::new(gradient.k), Shared::new(gradient.v));
    let families = families(branches);
    dev.run(families.len() * spec.kv_heads, &|task| {
        for branch in &families[task / spec.kv_heads] {
            let sequence = Sequence { spec, x, branch };
            dispatch(
                dev.isa(),
                Backward { sequence, kv_head: task % spec.kv_heads, done, dout, dq: &dq, dk: &dk, dv: &dv },
            );
        }
    });
}

/// Sequences with those that share their rows, which come behind them.
fn families(branches: &[Branch]) -> Vec<Vec<&Branch>> {
    let mut sorted: Vec<&Branch> = branches.iter().collect();
    sorted.sort_by_key(|branch| (branch.root(), !branch.shared.is_empty()));
    sorted.chunk_by(|a, b| a.root() == b.root()).map(<[_]>::to_vec).collect()
}

fn check(spec: &AttentionSpec, branches: &[Branch], x: Attended<'_>, out: usize, log_sums: usize) {
    let (rows, dim) = (branches.iter().map(|branch| branch.own.len()).sum::<usize>(), spec.head_dim);
    assert!(dim <= WIDEST, "heads of {dim} numbers, {WIDEST} at most");
    assert!(x.q.len() == rows * spec.heads * dim && out == x.q.len(), "queries and result of {rows} rows");
    assert!(x.k.len() == rows * spec.kv_heads * dim && x.v.len() == x.k.len(), "keys and values of {rows} rows");
    assert_eq!(log_sums, rows * spec.heads, "a sum for every row and head");
    let mut roots = std::collections::BTreeMap::new();
    let mut next = 0;
    for Branch { shared, own } in branches {
        assert_eq!(own.start, next, "rows behind each other");
        next = own.end;
        if shared.is_empty() {
            roots.insert(own.start, own.end);
        } else {
            assert!(
                roots.get(&shared.start).is_some_and(|end| shared.end <= *end),
                "{shared:?} are no sequence's first rows"
            );
        }
    }
}

/// A sequence among the rows.
#[derive(Clone, Copy)]
struct Sequence<'a> {
    spec: &'a AttentionSpec,
    x: Attended<'a>,
    branch: &'a Branch,
}

/// One head's numbers in rows of all heads.
#[derive(Clone, Copy)]
struct Head<'a> {
    data: &'a [f32],
    /// Numbers of a row.
    stride: usize,
    /// Where the head begins in it.
    offset: usize,
    dim: usize,
    branch: &'a Branch,
}

impl<'a> Head<'a> {
    #[inline(always)]
    fn row(&self, row: usize) -> &'a [f32] {
        &self.data[self.at(row)..][..self.dim]
    }

    #[inline(always)]
    fn at(&self, row: usize) -> usize {
        self.branch.row(row) * self.stride + self.offset
    }

    /// Asks for the rows of the block from `first` on, if there is one: they are far away.
    #[inline(always)]
    fn ask<S: Simd>(&self, s: S, first: usize) {
        for row in (first..self.branch.len()).take(BLOCK) {
            ask(s, self.row(row));
        }
    }

    /// Some rows from `first` on, turned; those that are missing are zero.
    #[inline(always)]
    fn turn<S: Simd>(&self, s: S, first: usize, rows: usize, to: &mut [f32]) {
        let (to, _) = to.as_chunks_mut::<BLOCK>();
        for row in (0..BLOCK).step_by(LANES) {
            for number in (0..self.dim).step_by(LANES) {
                let mut lines = [s.splat(0.0); LANES];
                for (line, row) in lines.iter_mut().zip(row..rows) {
                    *line = s.load_part(&self.row(first + row)[number..self.dim.min(number + LANES)]);
                }
                for (line, to) in transpose(s, lines).into_iter().zip(&mut to[number..self.dim]) {
                    s.store_part(line, &mut to[row..row + LANES]);
                }
            }
        }
    }
}

impl<'a> Sequence<'a> {
    fn head(&self, data: &'a [f32], heads: usize, head: usize) -> Head<'a> {
        let dim = self.spec.head_dim;
        Head { data, stride: heads * dim, offset: head * dim, dim, branch: self.branch }
    }

    fn query(&self, data: &'a [f32], head: usize) -> Head<'a> {
        self.head(data, self.spec.heads, head)
    }

    fn key(&self, data: &'a [f32], kv_head: usize) -> Head<'a> {
        self.head(data, self.spec.kv_heads, kv_head)
    }

    /// The first block of keys that the queries from `first` on see.
    fn first_key(&self, first: usize) -> usize {
        let seen = self.spec.window.map_or(0, |window| (first + 1).saturating_sub(window));
        seen / BLOCK * BLOCK
    }

    fn block(&self, first: usize) -> usize {
        BLOCK.min(self.branch.len() - first)
    }

    /// The keys that some of these queries see, and maybe some that none sees.
    #[inline(always)]
    fn seen(&self, queries: &Range<usize>) -> Range<usize> {
        self.spec.window.map_or(0, |window| (queries.start + 1).saturating_sub(window))..queries.end
    }

    /// The queries that see some of these keys, and maybe some that see none.
    #[inline(always)]
    fn seeing(&self, keys: &Range<usize>) -> Range<usize> {
        keys.start..self.spec.window.map_or(usize::MAX, |window| window.saturating_add(keys.end - 1))
    }

    /// Whether a query sees a key.
    #[inline(always)]
    fn sees(&self, query: usize, key: usize) -> bool {
        key <= query && self.spec.window.is_none_or(|window| query - key < window)
    }

    /// Products of a block of keys' and a block of queries' vectors, both turned; zero where nothing is seen of a tile.
    #[inline(always)]
    fn products<S: Simd>(
        &self,
        s: S,
        (k, q): (&[f32], &[f32]),
        (first_key, first_query): (usize, usize),
        to: &mut Scores,
    ) {
        let dim = self.spec.head_dim;
        let steps = |keys: Range<usize>, queries: Range<usize>| {
            let (seen, keys) = (self.seen(&moved(&queries, first_query)), moved(&keys, first_key));
            if seen.start < keys.end && keys.start < seen.end { 0..dim } else { 0..0 }
        };
        let product = Product { a: k, b: |t| t * BLOCK, of: q, rows: BLOCK, columns: BLOCK, onto: false };
        product.write(s, steps, to.as_flattened_mut());
    }

    /// Scores of a block of queries and a block of keys, those that are not seen at minus infinity.
    #[inline(always)]
    fn scores<S: Simd>(
        &self,
        s: S,
        (k, q): (&[f32], &[f32]),
        (first_key, first_query): (usize, usize),
        scores: &mut Scores,
    ) {
        self.products(s, (k, q), (first_key, first_query), scores);
        let inside = first_key + BLOCK <= first_query + 1 && self.sees(first_query + BLOCK - 1, first_key);
        for (key, row) in scores.iter_mut().enumerate() {
            for (lanes, first) in row.as_chunks_mut::<LANES>().0.iter_mut().zip((first_query..).step_by(LANES)) {
                let x = s.mul(s.load(lanes), s.splat(self.spec.scale));
                let x = match self.spec.softcap {
                    Some(cap) => s.mul(s.splat(cap), tanh(s, s.mul(x, s.splat(1.0 / cap)))),
                    None => x,
                };
                let seen = if inside { !0 } else { self.seeing_lanes(first_key + key, first) };
                s.store(s.select(s.mask(seen), x, s.splat(f32::NEG_INFINITY)), lanes);
            }
        }
    }

    /// Which of sixteen queries from `first` on see a key: a bit for each.
    #[inline(always)]
    fn seeing_lanes(&self, key: usize, first: usize) -> u16 {
        let below = |query: usize| (1_u32 << query.saturating_sub(first).min(LANES)) - 1;
        let end = self.spec.window.map_or(usize::MAX, |window| key.saturating_add(window));
        (below(end) & !below(key)) as u16
    }
}

/// A block of queries of one head.
struct Forward<'a> {
    sequence: Sequence<'a>,
    head: usize,
    first: usize,
    out: &'a Shared<'a, f32>,
    log_sums: &'a Shared<'a, f32>,
}

impl Kernel for Forward<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { sequence, head, first, .. } = self;
        let (spec, count) = (sequence.spec, sequence.block(first));
        let kv_head = head / spec.group();
        let (k, v) = (sequence.key(sequence.x.k, kv_head), sequence.key(sequence.x.v, kv_head));
        let (mut q, mut turned, mut scores) = (block_of(spec), block_of(spec), SCORES);
        sequence.query(sequence.x.q, head).turn(s, first, count, &mut q);
        let mut softmax = Softmax { largest: [f32::NEG_INFINITY; BLOCK], sum: [0.0; BLOCK] };
        let (width, dim) = (spec.heads * spec.head_dim, spec.head_dim);
        let mut out = block_of(spec);
        for first_key in (sequence.first_key(first)..first + count).step_by(BLOCK) {
            let keys = sequence.block(first_key);
            v.ask(s, first_key);
            k.turn(s, first_key, keys, &mut turned);
            if first_key + BLOCK < first + count {
                k.ask(s, first_key + BLOCK);
            }
            sequence.scores(s, (&turned, &q), (first_key, first), &mut scores);
            let shrink = softmax.take(s, &mut scores);
            out.chunks_exact_mut(dim).zip(shrink).for_each(|(row, shrink)| row.iter_mut().for_each(|x| *x *= shrink));
            let seen = |rows: Range<usize>| sequence.seen(&moved(&rows, first));
            gather(s, &scores, v, (first_key..first_key + keys, seen), count, &mut out);
        }
        for (row, x) in out.chunks_exact(dim).enumerate().take(count) {
            let place = sequence.branch.row(first + row);
            let to = self.out.part(place * width + head * dim, dim);
            to.iter_mut().zip(x).for_each(|(to, x)| *to = x / softmax.sum[row]);
            self.log_sums.part(place * spec.heads + head, 1)[0] = softmax.largest[row] + softmax.sum[row].ln();
        }
    }
}

/// Softmax as it goes: the largest score of every query and the sum of exponentials below it.
struct Softmax {
    largest: [f32; BLOCK],
    sum: [f32; BLOCK],
}

impl Softmax {
    /// Makes weights of scores, relative to the largest so far; by what earlier sums shrink.
    #[inline(always)]
    fn take<S: Simd>(&mut self, s: S, scores: &mut Scores) -> [f32; BLOCK] {
        let mut shrink = [1.0; BLOCK];
        for lane in (0..BLOCK).step_by(LANES) {
            let part = lane..lane + LANES;
            let before = s.load_part(&self.largest[part.clone()]);
            let largest = scores.iter().fold(before, |m, row| s.max(m, s.load_part(&row[part.clone()])));
            // A query that has seen nothing yet: its weights are exp(-inf - 0) = 0.
            let base = s.max(largest, s.splat(f32::MIN));
            let factor = exp(s, s.sub(before, base));
            let mut sum = s.mul(s.load_part(&self.sum[part.clone()]), factor);
            for row in scores.iter_mut() {
                let weight = exp(s, s.sub(s.load_part(&row[part.clone()]), base));
                sum = s.add(sum, weight);
                s.store_part(weight, &mut row[part.clone()]);
            }
            s.store_part(largest, &mut self.largest[part.clone()]);
            s.store_part(sum, &mut self.sum[part.clone()]);
            s.store_part(factor, &mut shrink[part]);
        }
        shrink
    }
}

/// A sequence and a key head.
struct Backward<'a> {
    sequence: Sequence<'a>,
    kv_head: usize,
    done: Attention<'a>,
    dout: &'a [f32],
    dq: &'a Shared<'a, f32>,
    dk: &'a Shared<'a, f32>,
    dv: &'a Shared<'a, f32>,
}

/// A block of queries: operands, turned ([`block_of`]), their rows' logarithms and deltas, and what their gradient is so far.
struct Queries {
    q: Vec<f32>,
    dout: Vec<f32>,
    log_sums: [f32; BLOCK],
    deltas: [f32; BLOCK],
    dq: Vec<f32>,
}

/// A block of keys: operands, turned, and what their gradients are so far.
struct Keys {
    k: Vec<f32>,
    v: Vec<f32>,
    dk: Vec<f32>,
    dv: Vec<f32>,
}

/// Where a block of queries and a block of keys of a head begin.
#[derive(Clone, Copy)]
struct Pair {
    head: usize,
    first_key: usize,
    first: usize,
}

impl Kernel for Backward<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { sequence, kv_head, .. } = self;
        let (spec, own, len) = (sequence.spec, sequence.branch.positions(), sequence.branch.len());
        let block = || block_of(spec);
        self.ask(s, kv_head * spec.group(), own.start);
        // What no row of its own sees, of those that are shared, gets nothing from here.
        let start = sequence.first_key(own.start);
        let mut keys = self.keys(s, start..len);
        let mut queries =
            Queries { q: block(), dout: block(), log_sums: [0.0; BLOCK], deltas: [0.0; BLOCK], dq: block() };
        for head in kv_head * spec.group()..(kv_head + 1) * spec.group() {
            for first in own.clone().step_by(BLOCK) {
                self.load(s, head, first, &mut queries);
                self.ask(s, head, first + BLOCK);
                let rows = first..first + sequence.block(first);
                for first_key in (sequence.first_key(first)..rows.end).step_by(BLOCK) {
                    let keys = &mut keys[(first_key - start) / BLOCK];
                    self.meet(s, (keys, &mut queries), Pair { head, first_key, first });
                }
                let copy = |i: usize, row: &mut [f32]| row.copy_from_slice(&queries.dq[i * row.len()..][..row.len()]);
                self.write(self.dq, (spec.heads, head), rows, copy);
            }
        }
        for (first, keys) in (start..len).step_by(BLOCK).zip(&keys) {
            let rows = first..first + sequence.block(first);
            self.give(self.dk, rows.clone(), &keys.dk);
            self.give(self.dv, rows, &keys.dv);
        }
    }
}

impl Backward<'_> {
    /// Changes one head's numbers in some rows of a gradient: no other task has these.
    #[inline(always)]
    fn write(
        &self,
        to: &Shared<'_, f32>,
        (heads, head): (usize, usize),
        rows: Range<usize>,
        change: impl Fn(usize, &mut [f32]),
    ) {
        let dim = self.sequence.spec.head_dim;
        for (i, row) in rows.enumerate() {
            change(i, to.part((self.sequence.branch.row(row) * heads + head) * dim, dim));
        }
    }

    /// Gradients of a block of keys: those of shared rows join what others gave.
    #[inline(always)]
    fn give(&self, to: &Shared<'_, f32>, rows: Range<usize>, sums: &[f32]) {
        let place = (self.sequence.spec.kv_heads, self.kv_head);
        let (first, shared) = (rows.start, self.sequence.branch.shared.len());
        self.write(to, place, rows, |i, row| {
            let sums = &sums[i * row.len()..][..row.len()];
            if first + i < shared {
                row.iter_mut().zip(sums).for_each(|(row, sum)| *row += sum);
            } else {
                row.copy_from_slice(sums);
            }
        });
    }

    /// Blocks of keys, without gradients so far.
    #[inline(always)]
    fn keys<S: Simd>(&self, s: S, rows: Range<usize>) -> Vec<Keys> {
        let sequence = &self.sequence;
        let (k, v) = (sequence.key(sequence.x.k, self.kv_head), sequence.key(sequence.x.v, self.kv_head));
        let block = || block_of(sequence.spec);
        let mut keys = Vec::with_capacity(rows.len().div_ceil(BLOCK));
        for first in rows.step_by(BLOCK) {
            let mut block = Keys { k: block(), v: block(), dk: block(), dv: block() };
            v.ask(s, first);
            k.turn(s, first, sequence.block(first), &mut block.k);
            k.ask(s, first + BLOCK);
            v.turn(s, first, sequence.block(first), &mut block.v);
            keys.push(block);
        }
        keys
    }

    #[inline(always)]
    fn load<S: Simd>(&self, s: S, head: usize, first: usize, queries: &mut Queries) {
        let sequence = &self.sequence;
        let count = sequence.block(first);
        let (dout, out) = (sequence.query(self.dout, head), sequence.query(self.done.out, head));
        sequence.query(sequence.x.q, head).turn(s, first, count, &mut queries.q);
        dout.turn(s, first, count, &mut queries.dout);
        // A row that is not there has weights of zero.
        queries.log_sums.fill(f32::INFINITY);
        queries.deltas.fill(0.0);
        queries.dq.fill(0.0);
        for row in 0..count {
            queries.log_sums[row] = self.done.log_sums[sequence.branch.row(first + row) * sequence.spec.heads + head];
            queries.deltas[row] = dot(s, dout.row(first + row), out.row(first + row));
        }
    }

    /// Asks for what [`Backward::load`] reads of the block of queries from `first` on.
    #[inline(always)]
    fn ask<S: Simd>(&self, s: S, head: usize, first: usize) {
        for data in [self.sequence.x.q, self.dout, self.done.out] {
            self.sequence.query(data, head).ask(s, first);
        }
    }

    /// What a block of queries and a block of keys give each other.
    #[inline(always)]
    fn meet<S: Simd>(&self, s: S, (keys, queries): (&mut Keys, &mut Queries), pair: Pair) {
        let (sequence, Pair { head, first_key, first }) = (&self.sequence, pair);
        let (key_rows, rows) = (sequence.block(first_key), sequence.block(first));
        let (mut p, mut ds) = (SCORES, SCORES);
        sequence.scores(s, (&keys.k, &queries.q), (first_key, first), &mut p);
        sequence.products(s, (&keys.v, &queries.dout), (first_key, first), &mut ds);
        weigh(s, sequence.spec, queries, &mut p, &mut ds);
        let (k, q, dout) = (
            sequence.key(sequence.x.k, self.kv_head),
            sequence.query(sequence.x.q, head),
            sequence.query(self.dout, head),
        );
        let seen = |rows: Range<usize>| sequence.seen(&moved(&rows, first));
        gather(s, &ds, k, (first_key..first_key + key_rows, seen), rows, &mut queries.dq);
        let mut columns = SCORES;
        let seeing = |rows: Range<usize>| sequence.seeing(&moved(&rows, first_key));
        across(s, &p, &mut columns);
        gather(s, &columns, dout, (first..first + rows, seeing), key_rows, &mut keys.dv);
        across(s, &ds, &mut columns);
        gather(s, &columns, q, (first..first + rows, seeing), key_rows, &mut keys.dk);
    }
}

/// Scores become weights, and the gradients of weights become those of scores before the scale.
#[inline(always)]
fn weigh<S: Simd>(s: S, spec: &AttentionSpec, queries: &Queries, p: &mut Scores, ds: &mut Scores) {
    for (p, ds) in p.iter_mut().zip(ds) {
        for lane in (0..BLOCK).step_by(LANES) {
            let part = lane..lane + LANES;
            let score = s.load_part(&p[part.clone()]);
            let weight = exp(s, s.sub(score, s.load_part(&queries.log_sums[part.clone()])));
            let change = s.sub(s.load_part(&ds[part.clone()]), s.load_part(&queries.deltas[part.clone()]));
            let mut slope = s.mul(s.mul(weight, change), s.splat(spec.scale));
            if let Some(cap) = spec.softcap {
                // The score is cap tanh(x), whose slope is 1 - (score / cap)². Those that are not seen have no weight, but are infinite.
                let bounded = s.max(s.splat(-cap), score);
                let ratio = s.mul(bounded, s.splat(1.0 / cap));
                slope = s.mul(slope, s.sub(s.splat(1.0), s.mul(ratio, ratio)));
            }
            s.store_part(weight, &mut p[part.clone()]);
            s.store_part(slope, &mut ds[part]);
        }
    }
}

/// `sums[r] += weights[t][r] x[t]` over some positions of a head: those that have a weight for some of these rows.
#[inline(always)]
fn gather<S: Simd>(
    s: S,
    weights: &Scores,
    x: Head<'_>,
    (from, some): (Range<usize>, impl Fn(Range<usize>) -> Range<usize>),
    rows: usize,
    sums: &mut [f32],
) {
    let at = |t: usize| x.at(from.start + t);
    let steps = |rows: Range<usize>, _| {
        let some = some(rows);
        let at = |position: usize| position.clamp(from.start, from.end) - from.start;
        at(some.start)..at(some.end)
    };
    let product = Product { a: weights.as_flattened(), b: at, of: x.data, rows, columns: x.dim, onto: true };
    product.write(s, steps, sums);
}

/// A block's rows as positions.
#[inline(always)]
fn moved(rows: &Range<usize>, first: usize) -> Range<usize> {
    first + rows.start..first + rows.end
}

#[inline(always)]
fn dot<S: Simd>(s: S, a: &[f32], b: &[f32]) -> f32 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut sum = s.splat(0.0);
    for (a, b) in a.iter().zip(b) {
        sum = s.fma(s.load(a), s.load(b), sum);
    }
    sum = s.fma(s.load_part(a_rest), s.load_part(b_rest), sum);
    s.sum(sum)
}

/// Rows become columns.
#[inline(always)]
fn across<S: Simd>(s: S, x: &Scores, y: &mut Scores) {
    for row in (0..BLOCK).step_by(LANES) {
        for column in (0..BLOCK).step_by(LANES) {
            let mut lines = [s.splat(0.0); LANES];
            for (line, x) in lines.iter_mut().zip(&x[row..row + LANES]) {
                *line = s.load_part(&x[column..column + LANES]);
            }
            for (line, y) in transpose(s, lines).into_iter().zip(&mut y[column..column + LANES]) {
                s.store_part(line, &mut y[row..row + LANES]);
            }
        }
    }
}

#[cfg(test)]
mod tests;
