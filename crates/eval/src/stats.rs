//! Values with intervals.
//!
//! Proportions get Wilson's interval, which stays inside 0..1 and holds for small n. Means and ratios get a percentile bootstrap
//! over independent units (windows, questions), never over single tokens: tokens of one window are not independent, and an
//! interval over them would be too narrow. The bootstrap's seed is fixed, so the same data give the same interval.

use serde::{Deserialize, Serialize};

/// The 97.5 % quantile of the normal distribution.
const Z: f64 = 1.959_963_984_540_054;
/// Enough that the ends of a 95 % interval move by less than a tenth of its width.
const RESAMPLES: usize = 2000;

/// A value, where it lies with 95 % confidence, and how many observations it stands on.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The value.
    pub value: f64,
    /// Lower end of the 95 % interval.
    pub low: f64,
    /// Upper end of the 95 % interval.
    pub high: f64,
    /// Independent observations.
    pub n: usize,
}

impl Estimate {
    /// The estimate of a monotone rising function of this value.
    #[must_use]
    pub fn map(self, rising: impl Fn(f64) -> f64) -> Self {
        Self { value: rising(self.value), low: rising(self.low), high: rising(self.high), n: self.n }
    }
}

/// The share `hits / n` with Wilson's score interval.
#[must_use]
pub fn wilson(hits: usize, n: usize) -> Estimate {
    if n == 0 {
        return Estimate { value: f64::NAN, low: 0.0, high: 1.0, n };
    }
    let (total, z2) = (n as f64, Z * Z);
    let share = hits as f64 / total;
    let centre = (share + z2 / (2.0 * total)) / (1.0 + z2 / total);
    let half = Z / (1.0 + z2 / total) * (share * (1.0 - share) / total + z2 / (4.0 * total * total)).sqrt();
    Estimate { value: share, low: (centre - half).max(0.0), high: (centre + half).min(1.0), n }
}

/// The ratio of sums `Σ a / Σ b` over units `(a, b)` with a percentile bootstrap over the units. A mean is a ratio with `b = 1`.
#[must_use]
pub fn bootstrap(units: &[(f64, f64)]) -> Estimate {
    let ratio = |sums: (f64, f64)| sums.0 / sums.1;
    let value = ratio(units.iter().fold((0.0, 0.0), |s, u| (s.0 + u.0, s.1 + u.1)));
    if units.len() < 2 {
        return Estimate { value, low: f64::NEG_INFINITY, high: f64::INFINITY, n: units.len() };
    }
    let mut random = Random::new(0x5eed);
    let mut resampled: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            ratio((0..units.len()).fold((0.0, 0.0), |s, _| {
                let unit = units[random.below(units.len() as u64) as usize];
                (s.0 + unit.0, s.1 + unit.1)
            }))
        })
        .collect();
    resampled.sort_by(f64::total_cmp);
    let at = |share: f64| resampled[((RESAMPLES - 1) as f64 * share).round() as usize];
    Estimate { value, low: at(0.025), high: at(0.975), n: units.len() }
}

/// The middle and the ends of repeated measurements of one thing.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// The middle one.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
    /// The one that 95 % do not exceed.
    pub p95: f64,
    /// How many.
    pub n: usize,
}

impl Spread {
    /// Of these values; all `NaN` if there are none.
    #[must_use]
    pub fn of(values: &[f64]) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let place = (sorted.len().saturating_sub(1)) as f64 * share;
            let (below, above) = (sorted.get(place.floor() as usize), sorted.get(place.ceil() as usize));
            below.zip(above).map_or(f64::NAN, |(b, a)| b + (a - b) * place.fract())
        };
        Self { median: at(0.5), min: at(0.0), max: at(1.0), p95: at(0.95), n: sorted.len() }
    }
}

/// SplitMix64: small, fast and the same everywhere; its quality is plenty for resampling and made-up prompts.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in `0..bound`, by the high half of a wide product (bias below 2^-32 for the bounds used here).
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Published values: Brown, Cai, DasGupta (2001) and R's `prop.test(.., correct = FALSE)`.
    #[test]
    fn wilson_equals_published_intervals() {
        for (hits, n, low, high) in [
            (0, 10, 0.0, 0.277_53),
            (1, 10, 0.017_876, 0.404_15),
            (15, 148, 0.062_386, 0.160_50),
            (81, 263, 0.255_29, 0.366_17),
            (10, 10, 0.722_47, 1.0),
        ] {
            let e = wilson(hits, n);
            assert!((e.low - low).abs() < 5e-5 && (e.high - high).abs() < 5e-5, "{hits}/{n}: {e:?}");
            assert!((e.value - hits as f64 / n as f64).abs() < 1e-12);
        }
    }

    #[test]
    fn bootstrap_is_close_to_the_normal_interval_and_repeatable() {
        let mut random = Random::new(1);
        let units: Vec<(f64, f64)> = (0..400).map(|_| (random.below(1000) as f64 / 1000.0, 1.0)).collect();
        let e = bootstrap(&units);
        let half = Z * (1.0 / 12.0f64).sqrt() / 20.0;
        assert!(((e.high - e.low) / 2.0 - half).abs() < half * 0.15, "{e:?} against {half}");
        assert_eq!(e, bootstrap(&units));
        assert_eq!(e.n, 400);
    }

    #[test]
    fn one_unit_has_no_interval() {
        let e = bootstrap(&[(3.0, 2.0)]);
        assert_eq!((e.value, e.low, e.high), (1.5, f64::NEG_INFINITY, f64::INFINITY));
    }

    #[test]
    fn spread_of_five() {
        let s = Spread::of(&[5.0, 1.0, 3.0, 2.0, 4.0]);
        assert_eq!((s.median, s.min, s.max, s.n), (3.0, 1.0, 5.0, 5));
        assert!((s.p95 - 4.8).abs() < 1e-12);
        assert!(Spread::of(&[]).median.is_nan());
    }
}
