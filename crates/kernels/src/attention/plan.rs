//! Cuts a batch into tiles and shares them out.
//!
//! A tile does all splits of its sequence one after the other, unless there are too few tiles to keep the threads busy, as when
//! one long sequence is decoded: then each split is a task of its own. The bits do not depend on it.

use std::cell::RefCell;
use std::cmp::Reverse;

use super::tile::{self, Rows, Sight, Sink, Stored, Tile, part_len, rows, stored};
use super::{AttentionSpec, KvCache, PAGE_TOKENS, Span};
use crate::parallel::Shared;
use crate::{Device, Isa};

/// Rows (queries times heads) of a tile at most: enough to make unpacking a page cheap, few enough to stay in the cache.
const TILE_ROWS: usize = 72;
/// The same where AMX multiplies: unpacking is a larger part there.
const AMX_TILE_ROWS: usize = 192;
/// Tiles per thread below which splits become tasks.
const TILES_PER_THREAD: usize = 6;
/// Numbers times rows of pages below which a round of the pool costs more than it gains.
const WORTH_SHARING: usize = 16 * 64;

/// Bytes in use above which pages come from memory each time, so that it pays to fetch them ahead. Below it the processor's
/// own prefetching from its caches does better, and the instructions would only be in its way.
const FAR: usize = 24 << 20;

/// A sequence of the batch.
#[derive(Debug, Clone, Copy)]
struct Sequence {
    sight: Sight,
    /// First row in the batch.
    row: usize,
    len: usize,
    /// Position of that row.
    position: usize,
}

/// One task: a tile without its borrowed parts.
#[derive(Debug, Clone, Copy)]
struct Item {
    /// Number of the sequence.
    span: usize,
    /// The rows.
    rows: Sequence,
    head: usize,
    splits: (usize, usize),
    /// Where its states go, if the tile is cut.
    part: Option<usize>,
}

impl Item {
    fn tile<'a>(&self, spec: &'a AttentionSpec, q: &'a [f32]) -> Tile<'a> {
        let Sequence { sight, row, len, position } = self.rows;
        Tile { spec, sight, q, row, len, position, head: self.head, splits: self.splits }
    }
}

/// What the calling thread plans with; grown once.
#[derive(Debug, Default)]
struct Plan {
    items: Vec<Item>,
    /// Tiles that are cut: all their splits, and where their states start.
    joins: Vec<Item>,
    parts: Vec<f32>,
}

thread_local! {
    static PLAN: RefCell<Plan> = RefCell::default();
}

/// Attention over the cache.
#[expect(clippy::too_many_arguments, reason = "the parts of one attention")]
pub(super) fn causal(
    dev: &Device,
    spec: &AttentionSpec,
    cache: &KvCache,
    layer: usize,
    spans: &[Span<'_>],
    q: &[f32],
    out: &mut [f32],
) {
    let shape = cache.shape(layer);
    assert_eq!((shape.kv_heads, shape.head_dim), (spec.kv_heads, spec.head_dim), "layer {layer} caches another shape");
    let sequence =
        |span: &Span<'_>| Sequence { sight: Sight::Causal, row: span.start, len: span.len, position: span.position };
    let pages: usize = spans.iter().map(|span| (span.position + span.len).div_ceil(PAGE_TOKENS)).sum();
    let far = pages * cache.page_bytes() > FAR;
    share(dev, spec, spans.iter().map(sequence), q, out, &|span, tile, sink| {
        let pages = Stored { cache, layer, head: tile.head, pages: spans[span].pages, far };
        stored(dev.isa(), tile, pages, sink);
    });
}

/// Attention over the batch itself.
#[expect(clippy::too_many_arguments, reason = "the parts of one attention")]
pub(super) fn encoder(
    dev: &Device,
    spec: &AttentionSpec,
    lens: &[usize],
    q: &[f32],
    k: &[f32],
    v: &[f32],
    out: &mut [f32],
) {
    let cols = spec.kv_heads * spec.head_dim;
    let starts = lens.iter().scan(0, |next, len| Some(std::mem::replace(next, *next + len)));
    let sequences = starts.zip(lens).map(|(row, &len)| Sequence { sight: Sight::Both(len), row, len, position: 0 });
    share(dev, spec, sequences, q, out, &|span, tile, sink| {
        // The tile's row less its position is the sequence's first row.
        let start = (tile.row - tile.position) * cols + tile.head * spec.head_dim;
        let pages = Rows { k: &k[start..], v: &v[start..], cols, head_dim: spec.head_dim, len: lens[span] };
        rows(dev.isa(), tile, pages, sink);
    });
}

/// Does one tile of the sequence with this number.
type Run<'a> = &'a (dyn Fn(usize, Tile<'_>, Sink<'_>) + Sync + 'a);

/// Plans, runs and joins.
fn share(
    dev: &Device,
    spec: &AttentionSpec,
    sequences: impl Iterator<Item = Sequence>,
    q: &[f32],
    out: &mut [f32],
    run: Run<'_>,
) {
    PLAN.with_borrow_mut(|plan| {
        let cost = plan.make(dev, spec, sequences);
        let (items, joins) = (&plan.items, &plan.joins);
        let (out, parts) = (Shared::new(out), Shared::new(&mut plan.parts));
        let len = |tile: &Tile<'_>| tile.rows() * part_len(spec);
        let one = |i: usize| {
            let tile = items[i].tile(spec, q);
            // `Plan::make` gave each item a place of its own.
            let sink = items[i].part.map_or(Sink::Out(out), |start| Sink::Part(parts.part(start, len(&tile))));
            run(items[i].span, tile, sink);
        };
        spread(dev, items.len(), cost, one);
        let join = |i: usize| {
            let (item, tile) = (&joins[i], joins[i].tile(spec, q));
            let start = item.part.unwrap_or(0);
            // The states of one tile, all of which are written by now.
            let parts = parts.read(start, (item.splits.1 - item.splits.0) * len(&tile));
            tile::join(dev.isa(), tile, parts, out);
        };
        spread(dev, joins.len(), plan_len(joins, spec) / PAGE_TOKENS, join);
    });
}

/// Numbers in the states to be joined.
fn plan_len(joins: &[Item], spec: &AttentionSpec) -> usize {
    joins.iter().map(|join| (join.splits.1 - join.splits.0) * join.rows.len * spec.group() * part_len(spec)).sum()
}

/// Runs all tasks, on several threads if that is worth it.
fn spread(dev: &Device, n: usize, cost: usize, task: impl Fn(usize) + Sync) {
    if n <= 1 || dev.threads() == 1 || cost < WORTH_SHARING {
        (0..n).for_each(task);
    } else {
        dev.run(n, &task);
    }
}

impl Plan {
    /// Lists tiles and joins; gives the cost of it all, in rows times pages times numbers of a head.
    fn make(&mut self, dev: &Device, spec: &AttentionSpec, sequences: impl Iterator<Item = Sequence>) -> usize {
        self.items.clear();
        self.joins.clear();
        for (span, sequence) in sequences.enumerate() {
            self.add(dev.isa(), spec, span, sequence);
        }
        let pages = |item: &Item| item.tile(spec, &[]).range().len() / PAGE_TOKENS + 1;
        let cost = |item: &Item| item.rows.len * spec.group() * pages(item);
        let total = self.items.iter().map(cost).sum::<usize>() * spec.head_dim;
        let mut numbers = 0;
        if dev.threads() > 1 && self.items.len() < TILES_PER_THREAD * dev.threads() {
            numbers = self.cut(spec);
        } else {
            // Long ones first: what is left at the end is short.
            self.items.sort_unstable_by_key(|item| Reverse(cost(item)));
        }
        self.parts.resize(numbers, 0.0);
        total
    }

    /// Lists the tiles of one sequence.
    fn add(&mut self, isa: Isa, spec: &AttentionSpec, span: usize, sequence: Sequence) {
        let rows = if isa == Isa::Amx { AMX_TILE_ROWS } else { TILE_ROWS };
        let step = (rows / spec.group()).max(1);
        for first in (0..sequence.len).step_by(step) {
            let (row, position) = (sequence.row + first, sequence.position + first);
            let rows = Sequence { row, position, len: step.min(sequence.len - first), ..sequence };
            for head in 0..spec.kv_heads {
                let mut item = Item { span, rows, head, splits: (0, 0), part: None };
                item.splits = item.tile(spec, &[]).all_splits();
                self.items.push(item);
            }
        }
    }

    /// Makes a task of every split; gives the length of all states.
    fn cut(&mut self, spec: &AttentionSpec) -> usize {
        let mut end = 0;
        for i in 0..self.items.len() {
            let tile = self.items[i];
            let (first, last) = tile.splits;
            if last - first <= 1 {
                continue;
            }
            let len = tile.rows.len * spec.group() * part_len(spec);
            self.joins.push(Item { part: Some(end), ..tile });
            for split in first..last {
                let item = Item { splits: (split, split + 1), part: Some(end), ..tile };
                if split == first {
                    self.items[i] = item
                } else {
                    self.items.push(item)
                }
                end += len;
            }
        }
        end
    }
}
