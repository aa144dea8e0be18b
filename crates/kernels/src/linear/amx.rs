//! AMX: a tile of 16 rows of activations times 16 rows of weights in one instruction (`TDPBSSD`).
//!
//! The eight vectors of an unpacked record are the rows of the weights' tile, with codes already less their zero point; a block
//! of 16 rows of activations is the other. The product of one group is stored to the first-level cache, and from there scaled
//! into 16 sums that stay in registers, in the order of every other kernel.
//!
//! Scaling takes most of the time, and while tile instructions are in flight one of the two units that multiply vectors stands
//! still (measured on Sapphire Rapids). So products are made in runs of [`RUN`] records, short enough for them to stay in the
//! first-level cache, and scaled a run at a time.
//!
//! Tiles always have 16 rows of activations. Where there are fewer, the rest is whatever lies behind them (buffers are that
//! much longer), and its sums are dropped.
//!
//! The instructions are assembly, a pair of groups at a time.

#![expect(unsafe_code, reason = "tile instructions exist as assembly only")]

use std::arch::asm;
use std::arch::x86_64::*;

use super::activations::{Strip, TILE};
use super::sink::Sink;
use crate::matrix::{LANES, SPAN, Tile};
use crate::tiles::Registers;

/// Records whose products are made before they are scaled.
const RUN: usize = 12;

/// Products of one group.
#[repr(C, align(64))]
struct Products([[i32; LANES]; TILE]);

/// Tile registers in use by this thread, and where products go.
pub(super) struct Session {
    _registers: Registers,
    products: [Products; 2 * RUN],
}

impl Session {
    /// Registers 0 and 3 hold products, 1 and 4 activations, 2 and 5 weights, of groups of `group` columns.
    ///
    /// # Safety
    /// AMX with int8 is there and permitted.
    pub(super) unsafe fn new(group: usize) -> Self {
        let set = [(TILE, 64), (TILE, group), (group / 4, 64)];
        // SAFETY: by the caller's promise; a session is the only user of the registers while it lives.
        let registers = unsafe { Registers::new([set[0], set[1], set[2], set[0], set[1], set[2], (0, 0), (0, 0)]) };
        Self { _registers: registers, products: [const { Products([[0; LANES]; TILE]) }; 2 * RUN] }
    }

    /// The sums of a tile of activations with row block `block`, handed over to `sink`.
    ///
    /// # Safety
    /// The session is for groups of `GROUP` and was opened on this thread; the strip is a whole tile with as many blocks as
    /// there are `tiles`; AVX-512 is there.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,fma")]
    pub(super) unsafe fn tile<const GROUP: usize, const OFFSET: bool>(
        &mut self,
        tiles: &[Tile],
        strip: &Strip,
        block: usize,
        sink: &Sink<'_>,
    ) {
        let mut acc = [_mm512_setzero_ps(); TILE];
        let groups = SPAN / GROUP;
        for (run, tiles) in tiles.chunks(RUN).enumerate() {
            let first = run * RUN * strip.height;
            // SAFETY: by the caller's promise, and there is room for the products of a run.
            unsafe {
                multiply::<GROUP>(tiles, strip.q.add(first * SPAN), strip.height, &mut self.products);
                for ((b, tile), products) in tiles.iter().enumerate().zip(self.products.chunks_exact(groups)) {
                    scale::<GROUP, OFFSET>(tile, products, strip, first + b * strip.height, &mut acc);
                }
            }
        }
        // SAFETY: both are 16 times 16 floats.
        let sums: [[f32; LANES]; TILE] = unsafe { std::mem::transmute(acc) };
        sink.put(strip.row, block, &sums[..strip.rows]);
    }
}

/// The products of a run of records, group by group, two at a time.
#[inline(always)]
unsafe fn multiply<const GROUP: usize>(tiles: &[Tile], q: *const i8, height: usize, products: &mut [Products]) {
    let groups = SPAN / GROUP;
    let count = tiles.len() * groups;
    // SAFETY: the session's shapes make the loads read 16 rows of `GROUP` bytes, 32 apart, and `GROUP / 4` vectors of a tile, and
    // the stores fill one of `products` each.
    unsafe {
        let x = |i: usize| q.add(i / groups * height * SPAN + i % groups * GROUP);
        let w = |i: usize| tiles[i / groups].codes[i % groups * GROUP / 4].as_ptr();
        for i in (0..count - 1).step_by(2) {
            asm!(
                "tilezero tmm0",
                "tileloadd tmm1, [{x0} + {x_stride}]",
                "tileloadd tmm2, [{w0} + {stride}]",
                "tdpbssd tmm0, tmm1, tmm2",
                "tilezero tmm3",
                "tileloadd tmm4, [{x1} + {x_stride}]",
                "tileloadd tmm5, [{w1} + {stride}]",
                "tdpbssd tmm3, tmm4, tmm5",
                "tilestored [{out} + {stride}], tmm0",
                "tilestored [{out} + {stride} + 1024], tmm3",
                x0 = in(reg) x(i), w0 = in(reg) w(i), x1 = in(reg) x(i + 1), w1 = in(reg) w(i + 1),
                out = in(reg) &raw mut products[i], x_stride = in(reg) SPAN, stride = in(reg) 64usize,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _, out("tmm4") _, out("tmm5") _,
                options(nostack),
            );
        }
        if count % 2 == 1 {
            asm!(
                "tilezero tmm0",
                "tileloadd tmm1, [{x} + {x_stride}]",
                "tileloadd tmm2, [{w} + {stride}]",
                "tdpbssd tmm0, tmm1, tmm2",
                "tilestored [{out} + {stride}], tmm0",
                x = in(reg) x(count - 1), w = in(reg) w(count - 1), out = in(reg) &raw mut products[count - 1],
                x_stride = in(reg) SPAN, stride = in(reg) 64usize,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, options(nostack),
            );
        }
    }
}

/// Adds the scaled products of a record, whose activations' first scale is number `at`.
#[inline(always)]
unsafe fn scale<const GROUP: usize, const OFFSET: bool>(
    tile: &Tile,
    products: &[Products],
    strip: &Strip,
    at: usize,
    acc: &mut [__m512; TILE],
) {
    // SAFETY: scales and sums are readable for 16 rows from any block on.
    unsafe {
        let offsets = _mm512_load_ps(tile.offsets.as_ptr());
        let scales = [_mm512_load_ps(tile.scales[0].as_ptr()), _mm512_load_ps(tile.scales[1].as_ptr())];
        for (t, acc) in acc.iter_mut().enumerate() {
            let sx = _mm512_set1_ps(*strip.scales.add(at + t));
            for group in 0..SPAN / GROUP {
                let i = _mm512_load_si512(products[group].0[t].as_ptr().cast());
                *acc = _mm512_fmadd_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(i), scales[group]), sx, *acc);
            }
            if OFFSET {
                *acc = _mm512_fmadd_ps(offsets, _mm512_set1_ps(*strip.scaled_sums.add(at + t)), *acc);
            }
        }
    }
}
