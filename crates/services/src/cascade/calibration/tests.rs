//! The bound holds, whatever the scores are worth; and it is no tighter than it must be.

use proptest::prelude::*;
use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::*;

/// A request of a student that is right more often the surer it is, by `worth`: 0 is a score that says nothing.
fn drawn(random: &mut StdRng, worth: f64, right: f64, teacher: f64) -> Item {
    let sure: f64 = random.random();
    let student = random.random_bool((right + worth * (sure - 0.5)).clamp(0.0, 1.0));
    // In steps, so that scores tie.
    let score = (sure * 50.0).round() / 50.0;
    Item {
        length: 1 + (sure * 10.0) as usize,
        scores: [score, 0.5, 1.0 - score],
        student,
        teacher: random.random_bool(teacher),
    }
}

/// The loss of the next request and whether the student's answer is taken, in the mean over so many calibrations.
fn realised(draws: usize, items: usize, risk: f64, (worth, right, teacher): (f64, f64, f64)) -> (f64, f64) {
    let mut random = StdRng::seed_from_u64(7);
    let (mut lost, mut taken) = (0.0, 0.0);
    for _ in 0..draws {
        let items: Vec<_> = (0..items).map(|_| drawn(&mut random, worth, right, teacher)).collect();
        let (bar, _) = calibrate(&items, risk).unwrap();
        let place = Measure::ALL.iter().position(|measure| *measure == bar.measure).unwrap();
        let next = drawn(&mut random, worth, right, teacher);
        if next.scores[place] > bar.threshold && Some(next.length) <= bar.longest {
            taken += 1.0;
            lost += loss(next);
        }
    }
    (lost / draws as f64, taken / draws as f64)
}

/// The bound holds within three standard errors of so many draws, and at least `least` of the requests are the student's.
#[test]
fn the_next_request_keeps_the_stated_risk() {
    fn check(items: usize, risk: f64, kind: (f64, f64, f64), least: f64) {
        const DRAWS: usize = 4000;
        let (lost, taken) = realised(DRAWS, items, risk, kind);
        let noise = 3.0 * (risk * (1.0 - risk) / DRAWS as f64).sqrt();
        println!("{items} items, {kind:?}: {lost:.4} of {risk} lost, {taken:.3} taken");
        assert!(lost <= risk + noise, "{items} items, {kind:?}: {lost} of {risk}");
        assert!(taken >= least, "{items} items, {kind:?}: {taken} taken");
    }
    check(150, 0.05, (1.0, 0.5, 1.0), 0.25);
    check(150, 0.05, (0.0, 0.5, 1.0), 0.06);
    check(150, 0.05, (1.0, 0.9, 0.9), 0.65);
    check(60, 0.1, (1.0, 0.5, 0.8), 0.2);
    check(30, 0.2, (0.5, 0.3, 0.9), 0.05);
    // Where the teacher knows nothing there is nothing to lose.
    check(60, 0.05, (1.0, 0.2, 0.0), 0.85);
}

proptest! {
    /// The threshold is the smallest that satisfies the definition, by looking at every one that makes a difference.
    #[test]
    fn the_threshold_is_the_definitions(
        items in prop::collection::vec((0_u8..8, 0_u8..=2), 1..40),
        risk in 0.02_f64..0.9,
    ) {
        let items: Vec<_> = items.iter().map(|(score, loss)| (f64::from(*score) / 8.0, f64::from(*loss) / 2.0)).collect();
        let n = items.len() as f64;
        let bound = |at: f64| {
            let mean = items.iter().filter(|(score, _)| *score > at).map(|(_, loss)| loss).sum::<f64>() / n;
            n / (n + 1.0) * mean + 1.0 / (n + 1.0)
        };
        let mut places: Vec<f64> = items.iter().map(|(score, _)| *score).chain([0.0, 1.0]).collect();
        places.sort_by(f64::total_cmp);
        let smallest = places.into_iter().find(|at| bound(*at) <= risk + 1e-9);
        prop_assert_eq!(threshold(&items, risk).ok(), smallest);
    }

    /// Nothing that can follow makes an answer's score higher than was said to be possible.
    #[test]
    fn who_is_given_up_could_not_have_passed(logprobs in prop::collection::vec(-5.0_f64..0.0, 1..20), at in 0_usize..20) {
        let said = |logprobs: &[f64]| {
            let mut tokens = Tokens::default();
            logprobs.iter().for_each(|logprob| tokens.add(*logprob));
            tokens
        };
        let (begun, whole) = (said(&logprobs[..at.min(logprobs.len())]), said(&logprobs));
        for measure in Measure::ALL {
            prop_assert!(measure.score(&whole) <= measure.at_best(&begun, logprobs.len()) + 1e-12, "{:?}", measure);
        }
    }
}

#[test]
fn what_cannot_be_shown_is_refused() {
    let check = |items: usize, risk: f64, expected: Unusable| {
        assert_eq!(threshold(&vec![(1.0, 0.0); items], risk), Err(expected), "{expected}");
    };
    check(18, 0.05, Unusable::Few { items: 18, least: 19 });
    check(0, 0.5, Unusable::Few { items: 0, least: 1 });
    check(98, 0.01, Unusable::Few { items: 98, least: 99 });
    check(50, 0.0, Unusable::Risk(0.0));
    check(50, 1.0, Unusable::Risk(1.0));
    assert_eq!(threshold(&[(0.5, 0.0); 19], 0.05), Ok(0.0));
    assert_eq!(threshold(&[(0.5, 1.0); 19], 0.05), Ok(0.5));
}

#[test]
fn fewest_is_what_a_calibration_takes() {
    for risk in [0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.9] {
        let item = Item { length: 1, scores: [0.5; 3], student: true, teacher: true };
        let enough = |items: usize| calibrate(&vec![item; items], risk).is_ok();
        let fewest = fewest(risk);
        assert!(enough(fewest) && !enough(fewest - 1), "{risk}: {fewest}");
    }
}

/// The measure that orders right and wrong best is taken; requests longer than any that is taken are the teacher's.
#[test]
fn measure_and_length_are_read_off_the_items() {
    let item = |n: usize| Item {
        length: n,
        scores: [0.5, if n < 60 { 0.9 } else { 0.1 }, 0.5],
        student: n < 60,
        teacher: true,
    };
    // In an order that says nothing.
    let items: Vec<_> = (0..100).map(|n| item(n * 37 % 100)).collect();
    let (bar, chosen_on) = calibrate(&items, 0.05).unwrap();
    assert_eq!(bar, Bar { measure: Measure::Mean, threshold: 0.1, longest: Some(59), student: None });
    assert_eq!(chosen_on, 20);
}

#[test]
fn scores_are_probabilities() {
    let check = |logprobs: &[f64], expected: [f64; 3]| {
        let mut tokens = Tokens::default();
        logprobs.iter().for_each(|logprob| tokens.add(*logprob));
        for (measure, expected) in Measure::ALL.into_iter().zip(expected) {
            assert!((measure.score(&tokens) - expected).abs() < 1e-12, "{measure:?} of {logprobs:?}");
        }
    };
    let half = 0.5_f64.ln();
    check(&[half, 0.0, half, 0.0], [0.5, 0.5_f64.sqrt(), 0.25]);
    check(&[f64::NEG_INFINITY], [0.0; 3]);
    check(&[], [0.0; 3]);
}
