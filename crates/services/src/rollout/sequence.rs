//! Confidence sequences: intervals that hold at every look at once, so whoever looks after each request and acts on what shows is
//! wrong as seldom as one who looks a single time.
//!
//! The asymptotic sequences of Waudby-Smith et al. (arXiv 2103.06476) in the form in which GrowthBook gives them: for a mean of `n`
//! samples of variance `v`, errors of at most `a` over all looks. For the difference of two means `n` is the samples of both and `v`
//! is `n` times the squared standard error. They are asymptotic, so nothing is said below [`LEAST`] samples; samples are taken to be
//! independent, which many requests of one caller are not quite.

/// Samples of each side below which no interval is given.
pub const LEAST: u64 = 100;
/// The samples at which the intervals are narrowest. Any number is valid as long as it is chosen before the first look.
const NARROWEST: f64 = 5000.0;
/// The 80 % quantile of the normal distribution.
const POWER: f64 = 0.841_621_233_572_914;

/// The tuning that makes a sequence of error `a` narrowest at [`NARROWEST`] samples.
fn tuned(a: f64) -> f64 {
    let log = -2.0 * a.ln();
    ((log + (log + 1.0).ln()) / NARROWEST).sqrt()
}

/// Half the width of the interval around a mean.
pub fn two_sided(n: f64, v: f64, a: f64) -> f64 {
    width(n, v, tuned(a), |root| (root / a).ln())
}

/// How far below (or above) its estimate a mean may lie, where only that side matters.
pub fn one_sided(n: f64, v: f64, a: f64) -> f64 {
    width(n, v, tuned(2.0 * a), |root| (root / (2.0 * a)).ln_1p())
}

fn width(n: f64, v: f64, r: f64, log: impl Fn(f64) -> f64) -> f64 {
    let grown = n * r * r + 1.0;
    (v * 2.0 * grown / (n * r).powi(2) * log(grown.sqrt())).sqrt()
}

/// How likely an estimate this far from `null` is where `null` is true, valid at every look; `a` is what the sequence is tuned for.
pub fn p_value(estimate: f64, null: f64, n: f64, v: f64, a: f64) -> f64 {
    let r2 = tuned(a).powi(2);
    let grown = n * r2 + 1.0;
    let t = ((estimate - null) * n).powi(2) / v;
    (grown.sqrt() * (-r2 * t / (2.0 * grown)).exp()).min(1.0)
}

/// Samples of both sides together, in equal parts, after which a difference this large between proportions shows with a power of
/// 80 %: where `base` is the smaller one, and errors are at most `a`.
pub fn needed(base: f64, difference: f64, a: f64) -> u64 {
    let of = |share: f64| share * (1.0 - share);
    samples(2.0 * (of(base) + of(base + difference)), difference, a)
}

/// The same between any means: `v` is the number of samples times the squared standard error of their difference, which only the variances and
/// the parts of both sides decide.
pub fn samples(v: f64, difference: f64, a: f64) -> u64 {
    let shows = |n: f64| two_sided(n, v, a) + POWER * (v / n).sqrt() <= difference;
    let (mut few, mut many) = (1.0, 2.0);
    while !shows(many) && many < 1e15 {
        (few, many) = (many, 2.0 * many);
    }
    while many - few > 1.0 {
        let middle = f64::midpoint(few, many).floor();
        if shows(middle) { many = middle } else { few = middle }
    }
    many as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn close(found: f64, expected: f64, what: &str) {
        assert!((found - expected).abs() <= 1e-5, "{what}: {found}, not {expected}");
    }

    /// The same as [`two_sided`] in the form that Waudby-Smith et al. print, which TensorZero follows.
    fn as_printed(n: f64, v: f64, r: f64, a: f64) -> f64 {
        let grown = n * v * r * r + 1.0;
        (grown / (n * r).powi(2) * (grown / (a * a)).ln()).sqrt()
    }

    /// Published half-widths for errors of 5 %: as TensorZero, GrowthBook, and GrowthBook one-sided tune them.
    #[test]
    fn half_widths_are_the_published_ones() {
        fn check(n: f64, v: f64, tensorzero: f64, growthbook: f64, one: f64) {
            let log = -2.0 * 0.05_f64.ln();
            let r = ((log + log.ln() + 1.0) / 100.0).sqrt();
            close(as_printed(n, v, r, 0.05), tensorzero, "TensorZero");
            // Theirs is ours with the variance in the tuning.
            let same = width(n, v, r * v.sqrt(), |root| (root / 0.05).ln());
            close(same, tensorzero, "TensorZero, our way");
            close(two_sided(n, v, 0.05), growthbook, "GrowthBook");
            close(one_sided(n, v, 0.05), one, "one-sided");
        }
        check(100.0, 0.25, 0.16133, 0.33472, 0.33034);
        check(1000.0, 0.09, 0.02879, 0.03191, 0.02991);
        check(5000.0, 0.09, 0.01338, 0.01288, 0.01179);
        check(20_000.0, 0.09, 0.00708, 0.00663, 0.00608);
    }

    #[test]
    fn p_values_are_the_published_ones() {
        let check = |estimate, n, v, expected| close(p_value(estimate, 0.0, n, v, 0.05), expected, "p");
        check(0.01, 5000.0, 0.09, 0.25363);
        check(0.012_877_3, 5000.0, 0.09, 0.05);
        check(0.02, 5000.0, 0.09, 0.000_154_91);
        // 10 % and 12 % of 2,500 each: a fixed interval (0.01734) already excludes 0, the sequence does not.
        check(0.02, 5000.0, 0.3912, 0.30878);
        close(two_sided(5000.0, 0.3912, 0.05), 0.02685, "two arms");
    }

    proptest! {
        #[test]
        fn both_printed_forms_are_one(n in 1.0f64..1e6, v in 1e-4f64..10.0, r in 1e-3f64..1.0, a in 1e-3f64..0.5) {
            let (one, other) = (as_printed(n, v, r / v.sqrt(), a), width(n, v, r, |root| (root / a).ln()));
            prop_assert!((one - other).abs() <= 1e-9 * one, "{one} {other}");
        }

        /// What is inside the interval is just what the p-value does not exclude.
        #[test]
        fn an_interval_and_its_p_value_agree(n in 100.0f64..1e5, v in 1e-3f64..1.0, share in 0.5f64..1.5) {
            prop_assume!((share - 1.0).abs() > 1e-6);
            let estimate = share * two_sided(n, v, 0.05);
            prop_assert_eq!(p_value(estimate, 0.0, n, v, 0.05) < 0.05, share > 1.0);
        }
    }

    #[test]
    fn what_is_needed_is_the_first_number_that_does() {
        fn check(base: f64, difference: f64) {
            let n = needed(base, difference, 0.05);
            let v = 2.0 * (base * (1.0 - base) + (base + difference) * (1.0 - base - difference));
            let slack = |n: u64| difference - two_sided(n as f64, v, 0.05) - POWER * (v / n as f64).sqrt();
            assert!(slack(n) >= 0.0 && slack(n - 1) < 0.0, "{base} {difference}: {n}");
        }
        check(0.10, 0.02);
        check(0.01, 0.04);
        check(0.50, 0.001);
    }
}
