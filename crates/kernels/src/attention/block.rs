//! The register blocks of attention: up to [`ROWS`] queries against one page.

use crate::PAGE_TOKENS;
use crate::math::{exp2_negative, tanh};
use crate::simd::{LANES, Simd};

/// Queries of the largest block: with four vectors of tokens each, their sums take 24 of AVX-512's 32 registers.
pub(super) const ROWS: usize = 6;

/// Vectors of a page's tokens.
const VECTORS: usize = PAGE_TOKENS / LANES;

/// Scores, later weights, of one query in one page.
pub(super) type PageRow = [f32; PAGE_TOKENS];

/// A number as a page stores it.
pub(super) trait Element: Copy {
    /// Sixteen of them.
    fn load<S: Simd>(s: S, x: &[Self; LANES]) -> S::F;
}

impl Element for f32 {
    #[inline(always)]
    fn load<S: Simd>(s: S, x: &[f32; LANES]) -> S::F {
        s.load(x)
    }
}

/// f16.
impl Element for u16 {
    #[inline(always)]
    fn load<S: Simd>(s: S, x: &[u16; LANES]) -> S::F {
        s.load_f16(x)
    }
}

/// The running state of one query.
#[derive(Debug, Clone, Copy)]
pub(super) struct Running {
    /// The largest score so far.
    pub(super) max: f32,
    /// Sums of weights, by lane.
    pub(super) sums: [f32; LANES],
}

impl Running {
    pub(super) const EMPTY: Self = Self { max: f32::NEG_INFINITY, sums: [0.0; LANES] };
}

/// One page as seen by a block of queries.
#[derive(Debug, Clone, Copy)]
pub(super) struct Page<'a, E> {
    /// `[head_dim][64]`.
    pub(super) keys: &'a [E],
    /// `[64][value_row]`.
    pub(super) values: &'a [E],
    /// Numbers of a value row: whole vectors.
    pub(super) value_row: usize,
    /// Keys and values that will be read next, if they come from memory: they are fetched meanwhile.
    pub(super) next: [&'a [E]; 2],
}

/// What a block of queries keeps while it goes through pages.
#[derive(Debug)]
pub(super) struct Block<'a> {
    /// `[head_dim][rows]`, scaled.
    pub(super) q: &'a [f32],
    /// First and last (exclusive) token of the page that each row sees.
    pub(super) seen: &'a [(usize, usize)],
    pub(super) running: &'a mut [Running],
    /// `[rows][value_row]`.
    pub(super) acc: &'a mut [f32],
    /// Factors of the soft cap, in front of and behind `tanh`.
    pub(super) softcap: Option<(f32, f32)>,
}

/// Takes one page into account, for a block of exactly `R` queries.
#[inline(always)]
pub(super) fn attend<S: Simd, E: Element, const R: usize>(s: S, page: Page<'_, E>, block: &mut Block<'_>) {
    let mut weights = [[0.0; PAGE_TOKENS]; R];
    // Eight-lane machines have registers for one vector of tokens at a time only.
    if S::REGISTERS < 32 {
        scores::<S, E, R, 1>(s, block.q, page, &mut weights);
    } else {
        scores::<S, E, R, VECTORS>(s, block.q, page, &mut weights);
    }
    let rescale = soften(s, &mut weights, block);
    let from = block.seen.iter().filter(|seen| seen.0 < seen.1).map(|seen| seen.0).min().unwrap_or(0);
    let to = block.seen.iter().map(|seen| seen.1).max().unwrap_or(0).min(PAGE_TOKENS);
    let columns = page.value_row / LANES;
    let mut column = 0;
    if S::REGISTERS >= 32 {
        while column + 4 <= columns {
            accumulate::<S, E, R, 4>(s, &weights, from..to, page, column, &rescale, block.acc);
            column += 4;
        }
    }
    while column < columns {
        accumulate::<S, E, R, 1>(s, &weights, from..to, page, column, &rescale, block.acc);
        column += 1;
    }
}

/// `scores[r][t] = q[r] . k[t]`, `N` vectors of tokens at a time.
#[inline(always)]
fn scores<S: Simd, E: Element, const R: usize, const N: usize>(
    s: S,
    q: &[f32],
    page: Page<'_, E>,
    scores: &mut [PageRow; R],
) {
    for first in (0..VECTORS).step_by(N) {
        let mut sums = [[s.splat(0.0); N]; R];
        let mut next = page.next.map(|next| next.as_chunks::<PAGE_TOKENS>().0.iter());
        for (q, keys) in q.as_chunks::<R>().0.iter().zip(page.keys.as_chunks::<PAGE_TOKENS>().0) {
            if first == 0 {
                for next in &mut next {
                    if let Some(next) = next.next() {
                        s.prefetch(next);
                    }
                }
            }
            let keys = keys.as_chunks::<LANES>().0;
            let mut k = [s.splat(0.0); N];
            for (n, k) in k.iter_mut().enumerate() {
                *k = E::load(s, &keys[first + n]);
            }
            for (sums, q) in sums.iter_mut().zip(q) {
                let q = s.splat(*q);
                for (sum, k) in sums.iter_mut().zip(&k) {
                    *sum = s.fma(q, *k, *sum);
                }
            }
        }
        for (sums, scores) in sums.iter().zip(&mut *scores) {
            let scores = scores.as_chunks_mut::<LANES>().0;
            for (n, sum) in sums.iter().enumerate() {
                s.store(*sum, &mut scores[first + n]);
            }
        }
    }
}

/// Turns scores into weights; gives the factor on each row's earlier sums. At most [`LANES`] rows.
#[inline(always)]
pub(super) fn soften<S: Simd>(s: S, rows: &mut [PageRow], block: &mut Block<'_>) -> [f32; LANES] {
    // Lane r: how far row r's maximum rises. Zero where a row sees nothing: its sums stay exactly as they are.
    let mut rise = [0.0; LANES];
    for (r, row) in rows.iter_mut().enumerate() {
        let seen = block.seen[r];
        if seen.0 < seen.1 {
            let max = block.running[r].max;
            let new = prepare(s, row, seen, block.softcap, max);
            rise[r] = max - new;
            block.running[r].max = new;
        }
    }
    let mut rescale = [0.0; LANES];
    s.store(exp2_negative(s, s.load(&rise)), &mut rescale);
    for (r, row) in rows.iter_mut().enumerate() {
        let seen = block.seen[r];
        let running = &mut block.running[r];
        if seen.0 < seen.1 {
            let sum = weigh(s, row, running.max);
            s.store(s.fma(s.load(&running.sums), s.splat(rescale[r]), sum), &mut running.sums);
        } else {
            *row = [0.0; PAGE_TOKENS];
        }
    }
    rescale
}

/// Caps and masks the scores of a row; gives the new maximum.
#[inline(always)]
fn prepare<S: Simd>(s: S, row: &mut PageRow, seen: (usize, usize), softcap: Option<(f32, f32)>, max: f32) -> f32 {
    let rows = row.as_chunks_mut::<LANES>().0;
    let mut largest = s.splat(max);
    let whole = seen == (0, PAGE_TOKENS);
    for (first, lanes) in (0..).step_by(LANES).zip(rows) {
        let mut x = s.load(lanes);
        if let Some((inside, outside)) = softcap {
            x = s.mul(tanh(s, s.mul(x, s.splat(inside))), s.splat(outside));
        }
        if !whole {
            x = s.select(s.mask(between(seen, first)), x, s.splat(f32::NEG_INFINITY));
        }
        if !whole || softcap.is_some() {
            s.store(x, lanes);
        }
        largest = s.max(x, largest);
    }
    s.largest(largest)
}

/// Bits of the sixteen tokens from `first` that lie in `seen`.
#[inline(always)]
fn between(seen: (usize, usize), first: usize) -> u16 {
    let below = |end: usize| (1_u32 << end.saturating_sub(first).min(LANES)) - 1;
    (below(seen.1) & !below(seen.0)) as u16
}

/// Weights of a row in place of its scores; gives their sums by lane.
#[inline(always)]
fn weigh<S: Simd>(s: S, row: &mut PageRow, max: f32) -> S::F {
    let max = s.splat(max);
    let lanes = row.as_chunks_mut::<LANES>().0;
    let mut weights = [max; VECTORS];
    for (weight, lanes) in weights.iter_mut().zip(lanes) {
        *weight = exp2_negative(s, s.sub(s.load(lanes), max));
        s.store(*weight, lanes);
    }
    s.add(s.add(weights[0], weights[2]), s.add(weights[1], weights[3]))
}

/// `acc = acc * rescale + weights . values` in `N` vectors of columns.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "the parts of a product")]
fn accumulate<S: Simd, E: Element, const R: usize, const N: usize>(
    s: S,
    weights: &[PageRow; R],
    tokens: std::ops::Range<usize>,
    page: Page<'_, E>,
    column: usize,
    rescale: &[f32; LANES],
    acc: &mut [f32],
) {
    let row = page.value_row;
    let first = column * LANES;
    let mut sums = [[s.splat(0.0); N]; R];
    for (r, sums) in sums.iter_mut().enumerate() {
        let acc = acc[r * row + first..][..N * LANES].as_chunks::<LANES>().0;
        for (sum, acc) in sums.iter_mut().zip(acc) {
            *sum = s.mul(s.load(acc), s.splat(rescale[r]));
        }
    }
    for t in tokens {
        let values = page.values[t * row + first..][..N * LANES].as_chunks::<LANES>().0;
        let mut v = [s.splat(0.0); N];
        for (v, values) in v.iter_mut().zip(values) {
            *v = E::load(s, values);
        }
        for (sums, weights) in sums.iter_mut().zip(weights) {
            let w = s.splat(weights[t]);
            for (sum, v) in sums.iter_mut().zip(&v) {
                *sum = s.fma(w, *v, *sum);
            }
        }
    }
    for (r, sums) in sums.iter().enumerate() {
        let acc = acc[r * row + first..][..N * LANES].as_chunks_mut::<LANES>().0;
        for (sum, acc) in sums.iter().zip(acc) {
            s.store(*sum, acc);
        }
    }
}
