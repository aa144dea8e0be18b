//! The products of attention and its gradient: one loop over tiles of sums that stay in registers.

use std::ops::Range;

use super::BLOCK;
use crate::simd::{LANES, Simd};

/// Rows of a tile of sums; it is two vectors wide.
const TILE: usize = 8;

/// `out[r][c] (+)= a[step][r] b[step][c]`, over the steps that a tile has.
pub(super) struct Product<'a, B> {
    /// `[step][BLOCK]`.
    pub(super) a: &'a [f32],
    /// Where a step's numbers begin in `of`.
    pub(super) b: B,
    pub(super) of: &'a [f32],
    pub(super) rows: usize,
    pub(super) columns: usize,
    /// Adds to what stands there.
    pub(super) onto: bool,
}

/// Two vectors of columns for each row of a tile.
type Tile<F> = [[F; 2]; TILE];

impl<B: Fn(usize) -> usize> Product<'_, B> {
    /// `out` has rows of so many columns; `steps` are those of some rows and columns of it.
    #[inline(always)]
    pub(super) fn write<S: Simd>(
        &self,
        s: S,
        steps: impl Fn(Range<usize>, Range<usize>) -> Range<usize>,
        out: &mut [f32],
    ) {
        let (a, _) = self.a.as_chunks::<BLOCK>();
        for r in (0..self.rows).step_by(TILE) {
            for c in (0..self.columns).step_by(2 * LANES) {
                let steps = steps(r..r + TILE, c..c + 2 * LANES);
                let part = c..self.columns.min(c + 2 * LANES);
                // Loads of parts want so many registers that sums of whole tiles would not stay in theirs.
                let sums = if part.len() == 2 * LANES {
                    self.whole(s, &a[..steps.end], (r, c), steps)
                } else {
                    self.part(s, &a[..steps.end], (r, part.clone()), steps)
                };
                self.put(s, (r, part), &sums, out);
            }
        }
    }

    #[inline(always)]
    fn whole<S: Simd>(&self, s: S, a: &[[f32; BLOCK]], (r, c): (usize, usize), steps: Range<usize>) -> Tile<S::F> {
        let mut sums = [[s.splat(0.0); 2]; TILE];
        for t in steps {
            let (b, _) = self.of[(self.b)(t) + c..].as_chunks::<LANES>();
            add_step(s, &a[t][r..r + TILE], [s.load(&b[0]), s.load(&b[1])], &mut sums);
        }
        sums
    }

    #[inline(always)]
    fn part<S: Simd>(
        &self,
        s: S,
        a: &[[f32; BLOCK]],
        (r, c): (usize, Range<usize>),
        steps: Range<usize>,
    ) -> Tile<S::F> {
        let (mut sums, middle) = ([[s.splat(0.0); 2]; TILE], LANES.min(c.len()));
        for t in steps {
            let (low, high) = self.of[(self.b)(t)..][c.clone()].split_at(middle);
            add_step(s, &a[t][r..r + TILE], [s.load_part(low), s.load_part(high)], &mut sums);
        }
        sums
    }

    #[inline(always)]
    fn put<S: Simd>(&self, s: S, (r, c): (usize, Range<usize>), sums: &Tile<S::F>, out: &mut [f32]) {
        for (row, sums) in out.chunks_exact_mut(self.columns).skip(r).zip(sums).take(self.rows - r) {
            for (to, sum) in row[c.clone()].chunks_mut(LANES).zip(sums) {
                let sum = if self.onto { s.add(s.load_part(to), *sum) } else { *sum };
                s.store_part(sum, to);
            }
        }
    }
}

#[inline(always)]
fn add_step<S: Simd>(s: S, a: &[f32], b: [S::F; 2], sums: &mut Tile<S::F>) {
    for (sums, a) in sums.iter_mut().zip(a) {
        let a = s.splat(*a);
        sums[0] = s.fma(a, b[0], sums[0]);
        sums[1] = s.fma(a, b[1], sums[1]);
    }
}
