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

use super::block::{Block, PageRow, soften};
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

/// Pairs of bf16: what a tile has of one row.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Line([u32; LANES]);

const ZERO: Line = Line([0; LANES]);

/// Sixteen rows of products.
#[repr(C, align(64))]
struct Products([PageRow; ROWS]);

/// High and low parts of a matrix, in lines.
type Parts = [Vec<Line>; 2];

/// What a thread works with; grown once.
#[derive(Debug, Default)]
struct Buffers {
    /// `[block][chunk of dimensions][16 rows]`.
    queries: Parts,
    /// `[pair of dimensions][4]`.
    keys: Parts,
    /// `[pair of tokens][vectors of columns, in fours]`.
    values: Parts,
    /// `[chunk of tokens][16 rows]`.
    weights: Parts,
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
                scratch.look(index);
                buffers.cut(s, pages.halves(index), tile.spec.head_dim);
                if index + 1 < indices.end {
                    ask(s, pages.ahead(index + 1));
                }
                for first in (0..tile.rows()).step_by(ROWS) {
                    buffers.attend(s, &tile, first, scratch);
                }
            }
            scratch.join(s, &tile);
        }
        match sink {
            Sink::Out(out) => finish(s, &tile, &scratch.total, &out),
            Sink::Part(part) => part.copy_from_slice(&scratch.total),
        }
    }
}

/// Asks for the memory of a page.
#[inline(always)]
fn ask<S: Simd>(s: S, page: [&[u16]; 2]) {
    page.iter().flat_map(|halves| halves.as_chunks::<CHUNK>().0).for_each(|line| s.prefetch(line));
}

/// Two vectors as pairs: their high and their low parts, rounded, so that errors have either sign and do not add up in large sums.
#[inline(always)]
fn cut<S: Simd>(s: S, x: [S::F; 2]) -> [S::I; 2] {
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
        let sizes = [
            tile.rows().div_ceil(ROWS) * chunks * ROWS,
            chunks * LANES * VECTORS,
            PAGE_TOKENS / 2 * n.div_ceil(LANES).next_multiple_of(VECTORS),
            PAGE_TOKENS / CHUNK * ROWS,
        ];
        for (parts, size) in
            [&mut self.queries, &mut self.keys, &mut self.values, &mut self.weights].into_iter().zip(sizes)
        {
            for part in parts {
                part.clear();
                part.resize(size, ZERO);
            }
        }
        let heads = (0..tile.len).flat_map(|i| tile.q[tile.heads(i)].chunks_exact(n));
        let scale = s.splat(tile.scale());
        for (row, head) in heads.enumerate() {
            for (chunk, x) in head.chunks(CHUNK).enumerate() {
                let (near, far) = x.split_at(x.len().min(LANES));
                let parts = cut(s, [s.mul(s.load_part(near), scale), s.mul(s.load_part(far), scale)]);
                let at = (row / ROWS * chunks + chunk) * ROWS + row % ROWS;
                put(s, parts, &mut self.queries, at);
            }
        }
    }

    /// Takes a page: keys `[n][64]`, values `[64][n, in whole vectors]`.
    #[inline(always)]
    fn cut<S: Simd>(&mut self, s: S, [keys, values]: [&[u16]; 2], n: usize) {
        cut_pairs(s, keys.as_chunks().0, VECTORS, &mut self.keys, VECTORS);
        let columns = n.div_ceil(LANES);
        cut_pairs(s, values.as_chunks().0, columns, &mut self.values, columns.next_multiple_of(VECTORS));
    }

    /// Takes the page into account, for the block of rows that starts with `first`.
    #[inline(always)]
    fn attend<S: Simd>(&mut self, s: S, tile: &Tile<'_>, first: usize, scratch: &mut Scratch) {
        let (rows, chunks) = (first..tile.rows().min(first + ROWS), tile.spec.head_dim.div_ceil(CHUNK));
        let columns = tile.spec.head_dim.div_ceil(LANES);
        let (seen, running, acc) = scratch.block(rows.clone(), columns * LANES);
        if seen.iter().all(|seen| seen.0 >= seen.1) {
            return;
        }
        let mut products = Products([[0.0; PAGE_TOKENS]; ROWS]);
        let queries = [0, 1].map(|part| &self.queries[part][first * chunks..][..chunks * ROWS]);
        multiply(queries, [0, 1].map(|part| &self.keys[part][..]), VECTORS, &mut products);
        let weights = &mut products.0[..rows.len()];
        let rescale = soften(s, weights, &mut Block { q: &[], seen, running, acc: &mut [], softcap: tile.softcap() });
        for (row, weights) in weights.iter().enumerate() {
            for (chunk, x) in weights.as_chunks::<CHUNK>().0.iter().enumerate() {
                let (near, far) = x.as_chunks::<LANES>().0.split_at(1);
                put(s, cut(s, [s.load(&near[0]), s.load(&far[0])]), &mut self.weights, chunk * ROWS + row);
            }
        }
        let stride = columns.next_multiple_of(VECTORS);
        for column in (0..columns).step_by(VECTORS) {
            let weights = [0, 1].map(|part| &self.weights[part][..]);
            multiply(weights, [0, 1].map(|part| &self.values[part][column..]), stride, &mut products);
            for ((acc, page), factor) in acc.chunks_exact_mut(columns * LANES).zip(&products.0).zip(rescale) {
                let acc = acc[column * LANES..].as_chunks_mut().0;
                for (acc, page) in acc.iter_mut().zip(page.as_chunks().0) {
                    s.store(s.fma(s.load(acc), s.splat(factor), s.load(page)), acc);
                }
            }
        }
    }
}

#[inline(always)]
fn put<S: Simd>(s: S, parts: [S::I; 2], to: &mut Parts, at: usize) {
    for (part, to) in parts.into_iter().zip(to) {
        s.store_int(part, &mut to[at].0);
    }
}

/// Cuts a matrix of f16 with `width` vectors in a row into pairs of rows, `stride` lines each. Missing rows count as zeros.
#[inline(always)]
fn cut_pairs<S: Simd>(s: S, rows: &[[u16; LANES]], width: usize, to: &mut Parts, stride: usize) {
    for (chunk, rows) in rows.chunks(CHUNK * width).enumerate() {
        let (near, far) = rows.split_at(rows.len().min(LANES * width));
        for (i, x) in near.iter().enumerate() {
            let second = far.get(i).map_or(s.splat(0.0), |x| s.load_f16(x));
            put(s, cut(s, [s.load_f16(x), second]), to, (chunk * LANES + i / width) * stride + i % width);
        }
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
