//! Passes over a row of logits: the parts of choosing a token that touch the whole vocabulary.
//!
//! Rows are cut into chunks whose size depends on the row's length only; a chunk's result depends on nothing else, and results
//! are joined in ascending order. So a draw is the same whatever the number of threads.

use std::f32::consts::LN_2;

use crate::Device;
use crate::math::{exp, ln};
use crate::parallel::Shared;
use crate::simd::{Kernel, LANES, Map, Simd, dispatch, sum_map};

/// Numbers of a chunk at least: what a task is worth.
const CHUNK: usize = 16_384;
/// Chunks at most.
const CHUNKS: usize = 64;

/// Index of the largest; the lowest index wins ties. NaN never wins.
pub fn argmax(dev: &Device, x: &[f32]) -> usize {
    let best = best_of_chunks(dev, x.len(), |first, last| dispatch(dev.isa(), Argmax(&x[first..last])));
    best.map_or(0, |best| best.index)
}

/// `ln(sum(exp(x)))`, in a fixed order.
pub fn log_sum_exp(dev: &Device, x: &[f32]) -> f32 {
    let max = x.get(argmax(dev, x)).copied().unwrap_or(f32::NEG_INFINITY);
    if !max.is_finite() {
        return max;
    }
    let sums = chunks(dev, x.len(), 0.0, |first, last| dispatch(dev.isa(), SumExp(&x[first..last], max)));
    max + (sums.iter().map(|&sum| f64::from(sum)).sum::<f64>().ln() as f32)
}

/// The `k` largest as (index, value), best first, lower index first among equals; replaces the content of `out`.
pub fn top_k(dev: &Device, x: &[f32], k: usize, out: &mut Vec<(u32, f32)>) {
    out.clear();
    if k > 0 {
        // Candidates gather behind a rising bar and are cut back to `k` now and then.
        out.reserve(2 * k + CANDIDATES + LANES);
        dispatch(dev.isa(), TopK { x, k, out });
        cut(out, k);
        out.sort_unstable_by(better);
    }
}

/// `argmax(x[i] * inverse_temperature + g(seed, position, i))` over all `i` with `x[i] >= floor`, where `g` is Gumbel noise, a pure
/// function of its arguments: a draw from `softmax(x * inverse_temperature)` (Gumbel 1954; Maddison et al. 2014). If no `x[i]`
/// reaches the floor, [`argmax`].
pub fn gumbel_argmax(dev: &Device, x: &[f32], inverse_temperature: f32, floor: f32, seed: u64, position: u64) -> usize {
    let noise = Noise::new(seed, position);
    let best = best_of_chunks(dev, x.len(), |first, last| {
        dispatch(dev.isa(), Draw { x: &x[first..last], first, inverse_temperature, floor, noise })
    });
    best.map_or_else(|| argmax(dev, x), |best| best.index)
}

/// The noise itself.
pub fn gumbel(seed: u64, position: u64, index: u32) -> f32 {
    /// One lane's worth.
    struct One(Noise, u32);
    impl Kernel for One {
        type Out = f32;
        #[inline(always)]
        fn run<S: Simd>(self, s: S) -> f32 {
            let mut lanes = [0.0; LANES];
            s.store(gumbel_of(s, self.0.uniform(s, s.splat_int(self.1))), &mut lanes);
            lanes[0]
        }
    }
    dispatch(crate::Isa::Scalar, One(Noise::new(seed, position), index))
}

/// The largest so far and where it stood.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Best {
    index: usize,
    value: f32,
}

/// Calls `part(first, last)` for every chunk of `0..len` and gives the results in order, `empty` where there is no chunk.
fn chunks<T: Copy + Send>(dev: &Device, len: usize, empty: T, part: impl Fn(usize, usize) -> T + Sync) -> [T; CHUNKS] {
    let size = CHUNK.max(len.div_ceil(CHUNKS));
    let mut results = [empty; CHUNKS];
    let n = len.div_ceil(size);
    let one = |i: usize| part(i * size, ((i + 1) * size).min(len));
    if n <= 1 || dev.threads() == 1 {
        results[..n].iter_mut().enumerate().for_each(|(i, result)| *result = one(i));
        return results;
    }
    let places = Shared::new(&mut results);
    dev.run(n, &|i| places.part(i, 1)[0] = one(i));
    results
}

/// The best over all chunks; `part` gives indices counted from its first.
fn best_of_chunks(dev: &Device, len: usize, part: impl Fn(usize, usize) -> Option<Best> + Sync) -> Option<Best> {
    let found =
        chunks(dev, len, None, |first, last| part(first, last).map(|best| Best { index: best.index + first, ..best }));
    found.into_iter().flatten().reduce(|a, b| if b.value > a.value { b } else { a })
}

/// Each lane's largest value and the vector it came from.
struct LaneBest<S: Simd> {
    value: S::F,
    at: S::I,
    /// Lanes that hold anything.
    found: u16,
}

impl<S: Simd> LaneBest<S> {
    #[inline(always)]
    fn new(s: S) -> Self {
        Self { value: s.splat(f32::NEG_INFINITY), at: s.splat_int(u32::MAX), found: 0 }
    }

    /// Takes the lanes of vector number `at` that are allowed and larger than before.
    #[inline(always)]
    fn take(&mut self, s: S, value: S::F, at: u32, allowed: S::M) {
        let larger = s.mask_bits(s.lt(self.value, value));
        // Minus infinity is no larger than the start, but may be all there is.
        let first = !self.found & s.mask_bits(s.ge(value, self.value));
        let taken = (larger | first) & s.mask_bits(allowed);
        if taken != 0 {
            let mask = s.mask(taken);
            self.found |= taken;
            self.value = s.select(mask, value, self.value);
            let (new, old) = (s.as_float(s.splat_int(at)), s.as_float(self.at));
            self.at = s.bits(s.select(mask, new, old));
        }
    }

    #[inline(always)]
    fn finish(self, s: S) -> Option<Best> {
        let (mut values, mut at) = ([0.0; LANES], [0.0; LANES]);
        s.store(self.value, &mut values);
        s.store(s.as_float(self.at), &mut at);
        let lanes = (0..LANES).filter(|lane| self.found >> lane & 1 == 1);
        let all = lanes.map(|lane| Best { index: at[lane].to_bits() as usize * LANES + lane, value: values[lane] });
        all.reduce(|a, b| if b.value > a.value || (b.value == a.value && b.index < a.index) { b } else { a })
    }
}

/// The largest of a chunk.
struct Argmax<'a>(&'a [f32]);

impl Kernel for Argmax<'_> {
    type Out = Option<Best>;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Option<Best> {
        let mut best = LaneBest::new(s);
        for (at, x) in self.0.chunks(LANES).enumerate() {
            best.take(s, s.load_part(x), at as u32, s.mask(first_lanes(x.len())));
        }
        best.finish(s)
    }
}

#[inline(always)]
fn first_lanes(n: usize) -> u16 {
    ((1_u32 << n) - 1) as u16
}

/// The sum of `exp(x - max)` over a chunk.
struct SumExp<'a>(&'a [f32], f32);

impl Kernel for SumExp<'_> {
    type Out = f32;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        sum_map(s, self.0, &ExpFrom(self.1))
    }
}

/// `exp(x - max)`.
struct ExpFrom(f32);

impl Map for ExpFrom {
    #[inline(always)]
    fn at<S: Simd>(&self, s: S, x: S::F, _: S::F, _: S::F) -> S::F {
        exp(s, s.sub(x, s.splat(self.0)))
    }
}

/// The keys of a hash whose counter is the token's index, or a number's column.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Noise {
    before: u32,
    between: u32,
}

/// The largest uniform number used: the next one is 1, whose noise would be minus infinity.
const NEARLY_ONE: f32 = 1.0 - f32::EPSILON / 2.0;

impl Noise {
    pub(crate) fn new(seed: u64, position: u64) -> Self {
        /// A finaliser in the manner of SplitMix64 (Steele et al. 2014).
        fn mix(mut x: u64) -> u64 {
            x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            x ^ x >> 31
        }
        let key = mix(mix(seed.wrapping_add(0x9e37_79b9_7f4a_7c15)).wrapping_add(position));
        Self { before: key as u32, between: (key >> 32) as u32 }
    }

    /// Uniform numbers of sixteen indices, above 0 and below 1.
    #[inline(always)]
    pub(crate) fn uniform<S: Simd>(self, s: S, index: S::I) -> S::F {
        let hash = scramble(s, s.xor(index, s.splat_int(self.before)));
        let hash = scramble(s, s.xor(hash, s.splat_int(self.between)));
        let uniform = s.fma(s.to_float(s.shr::<1>(hash)), s.splat(0.5_f32.powi(31)), s.splat(0.5_f32.powi(32)));
        s.min(uniform, s.splat(NEARLY_ONE))
    }
}

/// Gumbel noise from uniform numbers `v`: `-ln(-ln(1 - v))`. The noise is large where `v` is small, and f32 is dense there.
#[inline(always)]
fn gumbel_of<S: Simd>(s: S, v: S::F) -> S::F {
    // -ln(1 - v) with what rounding 1 - v lost.
    let u = s.sub(s.splat(1.0), v);
    let lost = s.div(s.sub(v, s.sub(s.splat(1.0), u)), u);
    let exponential = s.sub(lost, ln(s, u));
    s.sub(s.splat(0.0), ln(s, exponential))
}

/// No less than [`gumbel_of`], for a fraction of its work: the noise is below `-ln v`, and `v` is at least its power of two.
#[inline(always)]
fn gumbel_bound<S: Simd>(s: S, v: S::F) -> S::F {
    let exponent = s.to_float(s.shr::<23>(s.bits(v)));
    s.fma(exponent, s.splat(-LN_2), s.splat(127.0 * LN_2 + 0.01))
}

/// A bijection of 32 bits that leaves no pattern: two rounds of multiply and shift.
#[inline(always)]
fn scramble<S: Simd>(s: S, x: S::I) -> S::I {
    let x = s.mul_int(s.xor(x, s.shr::<16>(x)), s.splat_int(0x7feb_352d));
    let x = s.mul_int(s.xor(x, s.shr::<15>(x)), s.splat_int(0x846c_a68b));
    s.xor(x, s.shr::<16>(x))
}

/// No noise is larger: the smallest exponential number is 2^-32.
const LARGEST_NOISE: f32 = 22.2;

/// The winner of a chunk.
struct Draw<'a> {
    x: &'a [f32],
    /// Index of `x[0]` in the row.
    first: usize,
    inverse_temperature: f32,
    floor: f32,
    noise: Noise,
}

impl Kernel for Draw<'_> {
    type Out = Option<Best>;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Option<Best> {
        let (floor, scale) = (s.splat(self.floor), s.splat(self.inverse_temperature));
        let mut best = LaneBest::new(s);
        for (at, x) in self.x.chunks(LANES).enumerate() {
            let inside = first_lanes(x.len());
            let x = s.load_part(x);
            // Most vectors hold nothing that could win even with the largest noise: they cost a comparison.
            let hopeful = s.ge(s.fma(x, scale, s.splat(LARGEST_NOISE)), best.value);
            let allowed = s.mask_bits(s.ge(x, floor)) & s.mask_bits(hopeful) & inside;
            if allowed == 0 {
                continue;
            }
            // And most of the others drew too little, which shows before any logarithm.
            let v = self.noise.uniform(s, s.add_int(s.iota(), s.splat_int((self.first + at * LANES) as u32)));
            let allowed = allowed & s.mask_bits(s.ge(s.fma(x, scale, gumbel_bound(s, v)), best.value));
            if allowed != 0 {
                best.take(s, s.fma(x, scale, gumbel_of(s, v)), at as u32, s.mask(allowed));
            }
        }
        best.finish(s)
    }
}

/// Candidates gathered beyond `k` before they are cut back.
const CANDIDATES: usize = 512;

/// Gathers candidates for the `k` largest.
struct TopK<'a> {
    x: &'a [f32],
    k: usize,
    out: &'a mut Vec<(u32, f32)>,
}

impl Kernel for TopK<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { x, k, out } = self;
        // Nothing at the bar or under it can be among the best any more: `k` better or earlier ones are known.
        let mut bar = None;
        for (at, lanes) in x.chunks(LANES).enumerate() {
            let v = s.load_part(lanes);
            let above = bar.map_or(!0, |bar| s.mask_bits(s.lt(s.splat(bar), v)));
            let mut above = above & first_lanes(lanes.len());
            while above != 0 {
                let lane = above.trailing_zeros() as usize;
                above &= above - 1;
                if !lanes[lane].is_nan() {
                    out.push(((at * LANES + lane) as u32, lanes[lane]));
                }
            }
            if out.len() >= 2 * k + CANDIDATES {
                cut(out, k);
                bar = out.iter().map(|(_, value)| *value).reduce(f32::min);
            }
        }
    }
}

/// Keeps the best `k`.
fn cut(candidates: &mut Vec<(u32, f32)>, k: usize) {
    if candidates.len() > k {
        candidates.select_nth_unstable_by(k - 1, better);
        candidates.truncate(k);
    }
}

/// Larger first, then lower index. NaN is not among candidates.
fn better(a: &(u32, f32), b: &(u32, f32)) -> std::cmp::Ordering {
    b.1.partial_cmp(&a.1).unwrap_or(std::cmp::Ordering::Equal).then(a.0.cmp(&b.0))
}

#[cfg(test)]
mod tests;
