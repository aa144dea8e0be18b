//! How often a conclusion is wrong, and how soon it comes, over many simulated trials with a look after every request.

use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::*;

const TRIALS: usize = 400;

/// So many more failures are tolerated, and nothing else.
fn failures(tolerated: f64) -> Tolerated {
    Tolerated { failures: tolerated, wait: Duration::ZERO, blocks: 0.0, cost: 0.0, quality: 0.0 }
}

/// A trial of two versions that fail so often: the requests of both until the second one's standing was concluded, and which it is.
fn until_known(random: &mut StdRng, rates: [f64; 2], tolerated: f64, most: usize) -> (usize, Standing) {
    let mut figures = [Figures::default(); 2];
    for n in 1..=most {
        let arm = usize::from(random.random_bool(0.5));
        figures[arm].requests += 1;
        figures[arm].failed += u64::from(random.random_bool(rates[arm]));
        let found = figures[1].beside(&figures[0], Metric::Failures, &failures(tolerated), ERROR);
        let found = found.map_or(Standing::Open, |found| found.standing);
        if found != Standing::Open {
            return (n, found);
        }
    }
    (most, Standing::Open)
}

/// The share of trials with that standing, and the median of the requests they took.
fn outcomes(rates: [f64; 2], tolerated: f64, most: usize, wanted: Standing) -> (f64, usize) {
    let mut random = StdRng::seed_from_u64(7);
    let ended: Vec<_> = (0..TRIALS).map(|_| until_known(&mut random, rates, tolerated, most)).collect();
    let mut took: Vec<usize> = ended.iter().filter(|(_, found)| *found == wanted).map(|(n, _)| *n).collect();
    took.sort_unstable();
    let share = took.len() as f64 / TRIALS as f64;
    println!("{rates:?}, {tolerated} tolerated: {share:.3} {}, median {:?}", wanted.word(), took.get(took.len() / 2));
    (share, took.get(took.len() / 2).copied().unwrap_or(most))
}

/// A version beside itself: called worse in at most 5 of 100 trials, however often somebody looks. Nothing is tolerated, so that no
/// trial ends early for being fine. A fixed interval at every look would be wrong in far more (the last line).
#[test]
fn a_version_is_seldom_called_worse_than_itself() {
    for rate in [0.01, 0.1, 0.5] {
        let (wrong, _) = outcomes([rate; 2], f64::NEG_INFINITY, 5000, Standing::Worse);
        assert!(wrong <= ERROR, "{wrong} at {rate}");
    }
    assert!(peeking(0.1) > 3.0 * ERROR, "the simulation would not show what peeking does");
}

/// How often an interval that is made for one look excludes no difference at some look.
fn peeking(rate: f64) -> f64 {
    let mut random = StdRng::seed_from_u64(7);
    let mut wrong = |_: &usize| {
        let mut figures = [Figures::default(); 2];
        (0..5000).any(|_| {
            let arm = usize::from(random.random_bool(0.5));
            figures[arm].requests += 1;
            figures[arm].failed += u64::from(random.random_bool(rate));
            let [a, b] = figures.map(|f| (f.requests as f64, f.failed as f64 / (f.requests as f64).max(1.0)));
            let error = (a.1 * (1.0 - a.1) / a.0 + b.1 * (1.0 - b.1) / b.0).sqrt();
            a.0.min(b.0) >= LEAST as f64 && b.1 - a.1 > 1.645 * error
        })
    };
    (0..TRIALS).filter(|trial| wrong(trial)).count() as f64 / TRIALS as f64
}

/// What is really worse, or really fine, is found, and how soon.
#[test]
fn what_is_so_is_found() {
    fn check(rates: [f64; 2], tolerated: f64, wanted: Standing, by: usize) {
        let (share, median) = outcomes(rates, tolerated, 20_000, wanted);
        assert!(share >= 0.95 && median <= by, "{rates:?}: {share}, {median}");
    }
    check([0.01, 0.50], 0.01, Standing::Worse, 250);
    check([0.01, 0.10], 0.01, Standing::Worse, 800);
    check([0.01, 0.05], 0.01, Standing::Worse, 1600);
    check([0.05, 0.05], 0.05, Standing::Fine, 1600);
}

/// As many samples as are said to be needed find the difference in four of five trials or more.
#[test]
fn the_power_is_what_was_estimated() {
    let needed = usize::try_from(sequence::needed(0.1, 0.05, ERROR)).unwrap();
    let (found, _) = outcomes([0.1, 0.15], f64::NEG_INFINITY, needed, Standing::Worse);
    assert!(found >= 0.8, "{found} with {needed}");
}

/// Callers by the weights are a mismatch in at most 5 of 100 trials; others are found.
#[test]
fn a_mismatch_is_a_mismatch() {
    fn found(weights: [u64; 2], share: f64) -> f64 {
        let mut random = StdRng::seed_from_u64(7);
        let mut one = |_: &usize| {
            let mut trial = Trial::new(&weights);
            (0..5000).for_each(|unit: i32| trial.exposed(usize::from(random.random_bool(share)), &unit.to_string()));
            trial.mismatch() < ERROR
        };
        let mismatches = (0..TRIALS).filter(|trial| one(trial)).count() as f64 / TRIALS as f64;
        println!("callers by {weights:?}, really {share} to the second: a mismatch in {mismatches:.3}");
        mismatches
    }
    // What at most `ERROR` of all trials do, this many of these may: two standard errors more.
    let luck = 2.0 * (ERROR * (1.0 - ERROR) / TRIALS as f64).sqrt();
    assert!(found([50, 50], 0.5) <= ERROR + luck);
    assert!(found([90, 10], 0.1) <= ERROR + luck);
    assert!(found([50, 50], 0.55) >= 0.95);
    assert!(found([90, 10], 0.13) >= 0.95);
}

#[test]
fn a_caller_counts_once() {
    let mut trial = Trial::new(&[1, 1]);
    for unit in ["a", "b", "a", "a"] {
        trial.exposed(0, unit);
    }
    assert_eq!(trial.figures[0].callers, 2);
}

#[test]
fn moments_are_mean_and_variance() {
    let mut moments = Moments::default();
    [2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0].into_iter().for_each(|sample| moments.add(sample));
    assert!((moments.mean - 5.0).abs() < 1e-12 && (moments.variance() - 32.0 / 7.0).abs() < 1e-12);
}

/// Counted apart and put together is counted as one.
#[test]
fn moments_add_up() {
    let samples = [2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0];
    let of = |samples: &[f64]| {
        let mut moments = Moments::default();
        samples.iter().for_each(|sample| moments.add(*sample));
        moments
    };
    let whole = of(&samples);
    for cut in 0..=samples.len() {
        let found = of(&samples[..cut]).and(of(&samples[cut..]));
        assert_eq!(found.n, whole.n, "{cut}");
        assert!((found.mean - whole.mean).abs() < 1e-12 && (found.squares - whole.squares).abs() < 1e-9, "{cut}");
    }
}

/// Each metric is compared by its own figures, less being better but for quality; without prices there is no cost.
#[test]
fn every_metric_has_its_figures() {
    fn check(metric: Metric, of: impl Fn(&mut Trial, usize, bool), expected: Option<Standing>) {
        let mut trial = Trial::new(&[1, 1]);
        for i in 0..2000 {
            of(&mut trial, 0, i % 10 == 0);
            of(&mut trial, 1, i % 2 == 0);
        }
        let found = trial.figures[1].beside(&trial.figures[0], metric, &failures(0.01), ERROR);
        assert_eq!(found.map(|found| found.standing), expected, "{metric:?}");
    }
    let worse = Some(Standing::Worse);
    let error = Error::new(ErrorKind::Upstream, "");
    check(Metric::Failures, |trial, version, bad| trial.ended(version, bad.then_some(&error)), worse);
    check(Metric::Wait, |trial, version, bad| trial.began(version, Duration::from_secs(u64::from(bad))), worse);
    check(Metric::Blocks, |trial, version, bad| trial.settled(version, bad, 0), worse);
    check(Metric::Cost, |trial, version, bad| trial.settled(version, false, i64::from(bad)), worse);
    check(Metric::Quality, |trial, version, bad| trial.rated(version, 1.0 - f64::from(u8::from(bad))), worse);
    check(Metric::Quality, |trial, version, bad| trial.rated(version, f64::from(u8::from(bad))), Some(Standing::Fine));
    check(Metric::Cost, |trial, version, _| trial.settled(version, false, 0), None);
    check(Metric::Quality, |_, _, _| (), None);
}

/// Whose fault an error is decides whether it counts.
#[test]
fn failures_are_the_services() {
    let check = |kind, requests, failed| {
        let mut trial = Trial::new(&[1]);
        trial.ended(0, Some(&Error::new(kind, "")));
        assert_eq!((trial.figures[0].requests, trial.figures[0].failed), (requests, failed), "{kind:?}");
    };
    check(ErrorKind::Upstream, 1, 1);
    check(ErrorKind::DeadlineExceeded, 1, 1);
    check(ErrorKind::Internal, 1, 1);
    check(ErrorKind::Invalid, 0, 0);
    check(ErrorKind::Unsupported, 0, 0);
    check(ErrorKind::Blocked, 0, 0);
}
