//! Numbers left out at random (Srivastava et al. 2014). What is left out is a function of seed, row and column: nothing is remembered for the way
//! back, which leaves out the same.

use crate::Device;
use crate::parallel::rows;
use crate::sample::Noise;
use crate::simd::{Kernel, LANES, Simd, dispatch};

/// What is left out of a matrix.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Dropout {
    /// The share of its numbers; the others grow so that sums stay.
    pub share: f32,
    /// Of the draw.
    pub seed: u64,
    /// The number of the first row: rows that are handled apart are drawn as if they were together.
    pub first: u64,
}

/// Leaves numbers out of rows of `cols`; the gradient is the same call on the gradient.
pub fn dropout(dev: &Device, drop: &Dropout, cols: usize, x: &mut [f32]) {
    rows(dev, x, cols, |first, x| {
        for (i, row) in x.chunks_exact_mut(cols).enumerate() {
            let noise = Noise::new(drop.seed, drop.first + (first + i) as u64);
            dispatch(dev.isa(), Drop { share: drop.share, noise, row });
        }
    });
}

struct Drop<'a> {
    share: f32,
    noise: Noise,
    row: &'a mut [f32],
}

impl Kernel for Drop<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (share, grown) = (s.splat(self.share), s.splat(1.0 / (1.0 - self.share)));
        for (at, x) in self.row.chunks_mut(LANES).enumerate() {
            let drawn = self.noise.uniform(s, s.add_int(s.iota(), s.splat_int((at * LANES) as u32)));
            let kept = s.select(s.ge(drawn, share), s.mul(s.load_part(x), grown), s.splat(0.0));
            s.store_part(kept, x);
        }
    }
}
