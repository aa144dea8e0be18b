//! Attention in tiles: scores and weighted sums by AMX (`TDPBF16PS`), everything between them in vectors.
//!
//! # Arithmetic
//! As in [`super`], but for the order of sums. Each number is cut into two bf16, `x = high + low`: an f16 of the cache exactly, a
//! query or a weight to 17 bits. A product of two is `high high' + low high' + high low'`; what is left out is below 2^-17 of it.
//!
//! A tile instruction multiplies 16 rows by 32 numbers, in pairs: it sums the products of the first numbers of all pairs (a chain
//! of fma), those of the second, adds both sums, and adds that to the result. Numbers below the smallest normal one count as zero
//! (Intel SDM, `TDPBF16PS`). Pairs here lie 16 apart: dimensions `d` and `d + 16`, tokens `t` and `t + 16`, so that two vectors
//! become a vector of pairs by a shift and an addition. Each chunk of 32 gives the three products in the order above, chunks are
//! in ascending order, and a page starts at zero: `acc = fma(acc, 2^(m - m'), page)`.
//!
//! What a row gives depends on no other row, so its bits are the same in any batch. They are not those of the vector kernels.
//!
//! # Work
//! A page is cut once for all rows of a tile. For a block of 16 rows the two products are one routine, [`multiply`]: 16 rows by
//! chunks of 32, times four vectors.

#![expect(unsafe_code, reason = "tile instructions exist as assembly only")]

use std::arch::asm;
use std::cell::RefCell;
use std::ops::Range;

use super::block::{Block, Page, PageRow, soften};
use super::tile::{Pages, SCRATCH, Scratch, Sink, Stored, Tile, finish};
use crate::simd::{Kernel, LANES, Simd, dispatch};
use crate::tiles::Registers;
use crate::{Isa, PAGE_TOKENS};

/// Rows of a block.
const ROWS: usize = 16;
/// Numbers that a tile has of a row.
const CHUNK: usize = 2 * LANES;
/// Vectors that are multiplied side by side: those of a page's tokens.
const VECTORS: usize = PAGE_TOKENS / LANES;
/// Chunks of a page's tokens.
const HALVES: usize = PAGE_TOKENS / CHUNK;

/// Pairs of bf16: what a tile has of one row.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Line([u32; LANES]);

/// Sixteen rows of products.
#[derive(Debug)]
#[repr(C, align(64))]
struct Products([PageRow; ROWS]);

impl Default for Products {
    fn default() -> Self {
        Self([[0.0; PAGE_TOKENS]; ROWS])
    }
}

/// High and low parts of a matrix, in lines.
type Parts = [Vec<Line>; 2];

/// What a thread works with; grown once. Where rows or columns are missing, whatever was there before is multiplied, and the
/// result never looked at; dimensions that are missing count as zeros of the queries.
#[derive(Debug, Default)]
struct Buffers {
    /// `[block][chunk of dimensions][16 rows]`.
    queries: Parts,
    /// The keys of a page, `[pair of dimensions][4]`, then its values, `[pair of tokens][vectors of columns, in fours]`: one after
    /// the other they stay in the first-level cache.
    page: Parts,
    /// `[block][chunk of tokens][16 rows]`.
    weights: Parts,
    /// Of each block, the factors on its rows' earlier sums; none if it sees nothing of the page.
    rescale: Vec<Option<[f32; ROWS]>>,
    products: Products,
}

thread_local! {
    static BUFFERS: RefCell<Buffers> = RefCell::default();
}

/// Attention over the cache.
pub(super) fn stored(tile: Tile<'_>, pages: Stored<'_>, sink: Sink<'_>) {
    SCRATCH.with_borrow_mut(|scratch| {
        BUFFERS.with_borrow_mut(|buffers| dispatch(Isa::Amx, Go { tile, pages, sink, scratch, buffers }));
    });
}

struct Go<'a> {
    tile: Tile<'a>,
    pages: Stored<'a>,
    sink: Sink<'a>,
    scratch: &'a mut Scratch,
    buffers: &'a mut Buffers,
}

impl Kernel for Go<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { tile, pages, sink, scratch, buffers } = self;
        scratch.start(&tile, ROWS);
        buffers.start(s, &tile);
        let rows = |register: usize| if register < 6 { tile.rows().min(ROWS) } else { LANES };
        // SAFETY: devices have `Isa::Amx` only where it was detected; nothing below configures registers.
        let _registers = unsafe { Registers::new(std::array::from_fn(|register| (rows(register), 64))) };
        for split in tile.splits.0..tile.splits.1 {
            scratch.empty();
            let indices = tile.pages(split);
            for index in indices.clone() {
                let [keys, values] = pages.halves(index);
                let next = if index + 1 < indices.end { pages.ahead(index + 1) } else { [&[] as &[_]; 2] };
                let page = Page { keys, values, value_row: tile.spec.head_dim.next_multiple_of(LANES), next };
                scratch.look(index);
                // Tokens that no row sees are not cut: their scores are masked, and their weights zero.
                let tokens = (tile.range().end - index * PAGE_TOKENS).min(PAGE_TOKENS);
                buffers.attend(s, &tile, &page, tokens, scratch);
            }
            scratch.join(s, &tile);
        }
        match sink {
            Sink::Out(out) => finish(s, &tile, &scratch.total, &out),
            Sink::Part(part) => part.copy_from_slice(&scratch.total),
        }
    }
}

/// Two vectors as pairs: their high and their low parts, rounded, so that errors have either sign and do not add up in large sums.
#[inline(always)]
fn halve<S: Simd>(s: S, x: [S::F; 2]) -> [S::I; 2] {
    let nearest = |x: S::F| s.and(s.add_int(s.bits(x), s.splat_int(0x8000)), s.splat_int(0xffff_0000));
    let high = [nearest(x[0]), nearest(x[1])];
    let low = [s.sub(x[0], s.as_float(high[0])), s.sub(x[1], s.as_float(high[1]))];
    [pairs(s, high), pairs(s, [nearest(low[0]), nearest(low[1])])]
}

/// Upper halves of words, joined.
#[inline(always)]
fn pairs<S: Simd>(s: S, [first, second]: [S::I; 2]) -> S::I {
    s.add_int(s.shr::<16>(first), second)
}

impl Buffers {
    /// Takes the scaled queries of a tile, and makes room for the rest.
    #[inline(always)]
    fn start<S: Simd>(&mut self, s: S, tile: &Tile<'_>) {
        let (n, chunks) = (tile.spec.head_dim, tile.spec.head_dim.div_ceil(CHUNK));
        let blocks = tile.rows().div_ceil(ROWS);
        grow(&mut self.queries, blocks * chunks * ROWS);
        grow(&mut self.page, chunks * LANES * VECTORS);
        grow(&mut self.page, PAGE_TOKENS / 2 * n.div_ceil(LANES).next_multiple_of(VECTORS));
        grow(&mut self.weights, blocks * HALVES * ROWS);
        self.rescale.resize(blocks, None);
        let heads = (0..tile.len).flat_map(|i| tile.q[tile.heads(i)].chunks_exact(n));
        let scale = s.splat(tile.scale());
        for (row, head) in heads.enumerate() {
            for (chunk, x) in head.chunks(CHUNK).enumerate() {
                let (near, far) = x.split_at(x.len().min(LANES));
                let parts = halve(s, [s.mul(s.load_part(near), scale), s.mul(s.load_part(far), scale)]);
                let at = (row / ROWS * chunks + chunk) * ROWS + row % ROWS;
                put(s, parts, &mut self.queries, at);
            }
        }
    }

    /// Takes the first `tokens` of a page into account.
    #[inline(always)]
    fn attend<S: Simd>(&mut self, s: S, tile: &Tile<'_>, page: &Page<'_, u16>, tokens: usize, scratch: &mut Scratch) {
        let (blocks, width) = (tile.rows().div_ceil(ROWS), page.value_row);
        self.cut(s, page.keys, PAGE_TOKENS, tokens.div_ceil(LANES), page.next[0]);
        for block in 0..blocks {
            self.weigh(s, tile, block, scratch);
        }
        let values = &page.values[..tokens.next_multiple_of(CHUNK) * width];
        self.cut(s, values, width, width / LANES, page.next[1]);
        for block in 0..blocks {
            self.accumulate(s, tile, block, scratch);
        }
    }

    /// Takes the keys or the values of a page, of rows of `width` numbers the first `vectors`, as pairs of rows. Missing rows
    /// count as zeros. Meanwhile asks for the memory of the `next` ones.
    #[inline(always)]
    fn cut<S: Simd>(&mut self, s: S, numbers: &[u16], width: usize, vectors: usize, next: &[u16]) {
        // Only dimensions can be missing, and rows of keys have this width.
        const NONE: [u16; PAGE_TOKENS] = [0; PAGE_TOKENS];
        let stride = width.div_ceil(LANES).next_multiple_of(VECTORS);
        let mut next = next.as_chunks::<CHUNK>().0.iter();
        let [high, low] = &mut self.page;
        let to = high.chunks_exact_mut(LANES * stride).zip(low.chunks_exact_mut(LANES * stride));
        for (rows, (high, low)) in numbers.chunks(CHUNK * width).zip(to) {
            let (near, far) = rows.split_at(rows.len().min(LANES * width));
            let to = high.chunks_exact_mut(stride).zip(low.chunks_exact_mut(stride));
            for (row, (near, (high, low))) in near.chunks_exact(width).zip(to).enumerate() {
                let far = far.get(row * width..(row + 1) * width).unwrap_or(&NONE);
                let lines = near.as_chunks().0.iter().zip(far.as_chunks().0).zip(high.iter_mut().zip(low));
                for ((near, far), (high, low)) in lines.take(vectors) {
                    let parts = halve(s, [s.load_f16(near), s.load_f16(far)]);
                    s.store_int(parts[0], &mut high.0);
                    s.store_int(parts[1], &mut low.0);
                    if let Some(line) = next.next() {
                        s.prefetch(line);
                    }
                }
            }
        }
    }

    /// Makes a block's weights.
    #[inline(always)]
    fn weigh<S: Simd>(&mut self, s: S, tile: &Tile<'_>, block: usize, scratch: &mut Scratch) {
        let (rows, chunks) = (rows(tile, block), tile.spec.head_dim.div_ceil(CHUNK));
        let (seen, running) = scratch.block(rows.clone());
        self.rescale[block] = None;
        if seen.iter().all(|seen| seen.0 >= seen.1) {
            return;
        }
        let queries = [0, 1].map(|part| &self.queries[part][block * ROWS * chunks..][..chunks * ROWS]);
        multiply(queries, [0, 1].map(|part| &self.page[part][..]), VECTORS, &mut self.products);
        let weights = &mut self.products.0[..rows.len()];
        let softcap = tile.softcap();
        self.rescale[block] = Some(soften(s, weights, &mut Block { q: &[], seen, running, acc: &mut [], softcap }));
        for (row, weights) in weights.iter().enumerate() {
            for (chunk, x) in weights.as_chunks::<CHUNK>().0.iter().enumerate() {
                let (near, far) = x.as_chunks::<LANES>().0.split_at(1);
                let at = (block * HALVES + chunk) * ROWS + row;
                put(s, halve(s, [s.load(&near[0]), s.load(&far[0])]), &mut self.weights, at);
            }
        }
    }

    /// Adds the values with a block's weights.
    #[inline(always)]
    fn accumulate<S: Simd>(&mut self, s: S, tile: &Tile<'_>, block: usize, scratch: &mut Scratch) {
        let Some(rescale) = self.rescale[block] else { return };
        let columns = tile.spec.head_dim.div_ceil(LANES);
        let acc = scratch.sums(rows(tile, block), columns * LANES);
        for column in (0..columns).step_by(VECTORS) {
            let weights = [0, 1].map(|part| &self.weights[part][block * HALVES * ROWS..][..HALVES * ROWS]);
            let values = [0, 1].map(|part| &self.page[part][column..]);
            multiply(weights, values, columns.next_multiple_of(VECTORS), &mut self.products);
            for ((acc, page), factor) in acc.chunks_exact_mut(columns * LANES).zip(&self.products.0).zip(rescale) {
                let acc = acc[column * LANES..].as_chunks_mut().0;
                for (acc, page) in acc.iter_mut().zip(page.as_chunks().0) {
                    s.store(s.fma(s.load(acc), s.splat(factor), s.load(page)), acc);
                }
            }
        }
    }
}

/// The rows of a block.
fn rows(tile: &Tile<'_>, block: usize) -> Range<usize> {
    block * ROWS..tile.rows().min((block + 1) * ROWS)
}

fn grow(parts: &mut Parts, lines: usize) {
    for part in parts.iter_mut().filter(|part| part.len() < lines) {
        part.resize(lines, Line([0; LANES]));
    }
}

#[inline(always)]
fn put<S: Simd>(s: S, parts: [S::I; 2], to: &mut Parts, at: usize) {
    for (part, to) in parts.into_iter().zip(to) {
        s.store_int(part, &mut to[at].0);
    }
}

/// `to = a b`, both in parts: `a` in chunks of 16 rows, `b` four lines wide in rows of `stride` lines. Registers are configured.
#[inline(always)]
fn multiply(a: [&[Line]; 2], b: [&[Line]; 2], stride: usize, to: &mut Products) {
    let chunks = a[0].len() / ROWS;
    let needed = (chunks * LANES - 1) * stride + VECTORS;
    assert!(chunks > 0 && a[1].len() == a[0].len() && b.iter().all(|b| b.len() >= needed), "parts of {chunks} chunks");
    // SAFETY: `Go::run` configured the registers: 0 to 5 with as many rows as a block has, at most 16, 6 and 7 with 16. By the
    // assertion all loads stay inside the slices.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "2:",
            "tileloadd tmm4, [{a_high} + {line}]",
            "tileloadd tmm6, [{b_high} + {stride}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{b_high} + {stride} + 64]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{a_low} + {line}]",
            "tdpbf16ps tmm0, tmm5, tmm6",
            "tileloadd tmm6, [{b_high} + {stride} + 128]",
            "tdpbf16ps tmm1, tmm5, tmm7",
            "tdpbf16ps tmm2, tmm4, tmm6",
            "tileloadd tmm7, [{b_high} + {stride} + 192]",
            "tdpbf16ps tmm3, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tileloadd tmm6, [{b_low} + {stride}]",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{b_low} + {stride} + 64]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm6, [{b_low} + {stride} + 128]",
            "tdpbf16ps tmm2, tmm4, tmm6",
            "tileloadd tmm7, [{b_low} + {stride} + 192]",
            "tdpbf16ps tmm3, tmm4, tmm7",
            "add {a_high}, 1024",
            "add {a_low}, 1024",
            "add {b_high}, {step}",
            "add {b_low}, {step}",
            "dec {chunks}",
            "jnz 2b",
            "tilestored [{to} + {page}], tmm0",
            "tilestored [{to} + {page} + 64], tmm1",
            "tilestored [{to} + {page} + 128], tmm2",
            "tilestored [{to} + {page} + 192], tmm3",
            a_high = inout(reg) a[0].as_ptr() => _, a_low = inout(reg) a[1].as_ptr() => _,
            b_high = inout(reg) b[0].as_ptr() => _, b_low = inout(reg) b[1].as_ptr() => _,
            chunks = inout(reg) chunks => _, to = in(reg) to, line = in(reg) 64usize, stride = in(reg) 64 * stride,
            step = in(reg) LANES * 64 * stride, page = in(reg) 4 * PAGE_TOKENS,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _, out("tmm4") _, out("tmm5") _, out("tmm6") _,
            out("tmm7") _, options(nostack),
        );
    }
}
