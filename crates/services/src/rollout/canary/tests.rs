//! One state and what was counted gives the next state, and no other.

use super::*;
use crate::rollout::Moments;

const SECOND: i64 = 1_000_000;

fn plan() -> Plan {
    Plan {
        steps: vec![1, 10, 50, 100],
        hold: Duration::from_secs(60),
        hold_requests: 500,
        patience: Some(Duration::from_secs(3600)),
        tolerated: Tolerated {
            failures: 0.01,
            wait: Duration::from_millis(200),
            blocks: 0.01,
            cost: 0.1,
            quality: 0.05,
        },
    }
}

fn at(share: u32, course: Course) -> Move {
    Move { share, course, number: 7, ..plan().begin("support", "new", 0) }
}

/// Of so many requests, so many failed.
fn counted(requests: u64, failed: u64) -> Figures {
    Figures { requests, failed, ..Figures::default() }
}

/// Samples that are half `low` and half `high`.
fn moments(n: u64, low: f64, high: f64) -> Moments {
    let json = serde_json::json!({
        "n": n, "mean": f64::midpoint(low, high), "squares": n as f64 * (high - low).powi(2) / 4.0
    });
    serde_json::from_value(json).unwrap()
}

/// Where it goes from there after so many seconds; `None`: it stays.
fn judged(state: &Move, canary: Figures, base: Figures, seconds: i64) -> Option<(u32, Course, String)> {
    let evidence = Evidence { canary: &canary, base: &base, mismatch: 1.0 };
    let next = plan().judge(state, &evidence, seconds * SECOND)?;
    assert_eq!((next.number, next.at, &*next.by), (8, seconds * SECOND, ""));
    Some((next.share, next.course, next.why))
}

#[test]
fn a_state_and_its_figures_give_the_next_state() {
    use Course::{Paused, Promoted, RolledBack, Running};
    let (good, base, bad) = (counted(5000, 5), counted(5000, 5), counted(5000, 1000));
    let check = |state: (u32, Course), canary: Figures, seconds, expected: Option<(u32, Course)>, why: &str| {
        let found = judged(&at(state.0, state.1), canary, base, seconds);
        let went = found.as_ref().map(|(share, course, _)| (*share, *course));
        assert_eq!(went, expected, "{state:?} {canary:?} after {seconds} s");
        assert!(found.is_none_or(|(_, _, told)| told.starts_with(why)), "{why}");
    };
    check((1, Running), good, 60, Some((10, Running)), "fine: failures");
    check((10, Running), good, 60, Some((50, Running)), "fine");
    check((50, Running), good, 60, Some((100, Promoted)), "fine");
    // Neither time nor requests alone are enough.
    check((1, Running), good, 59, None, "");
    check((1, Running), counted(499, 0), 60, None, "");
    // A step that is not in the plan any more: the next one above it.
    check((20, Running), good, 60, Some((50, Running)), "fine");
    // Worse is worse at once, paused or not.
    check((1, Running), bad, 1, Some((0, RolledBack)), "worse: failures");
    check((50, Paused), bad, 1, Some((0, RolledBack)), "worse: failures");
    check((50, Paused), good, 4000, None, "");
    // Nobody knows.
    check((1, Running), counted(500, 5), 3599, None, "");
    check((1, Running), counted(500, 5), 3600, Some((1, Paused)), "inconclusive: failures");
    check(
        (1, Running),
        counted(50, 0),
        3600,
        Some((1, Paused)),
        "inconclusive: failures: 50 requests beside 5000 are too few",
    );
    // It is over.
    check((100, Promoted), bad, 4000, None, "");
    check((0, RolledBack), good, 4000, None, "");
}

/// What is not counted in failures decides as well; what there is nothing of decides nothing.
#[test]
fn every_guardrail_counts() {
    const N: u64 = 50_000;
    let of = |change: &dyn Fn(&mut Figures)| {
        let mut figures = counted(N, N / 1000);
        change(&mut figures);
        figures
    };
    let check = |change: &dyn Fn(&mut Figures, bool), worse: &str| {
        let (canary, base) = (of(&|figures| change(figures, true)), of(&|figures| change(figures, false)));
        let (share, course, why) = judged(&at(10, Course::Running), canary, base, 60).unwrap();
        assert_eq!((share, course), (0, Course::RolledBack), "{worse}");
        assert!(why.starts_with(&format!("worse: {worse}")), "{why}");
        // Neither is worse: both as bad as the other.
        let both = of(&|figures| change(figures, true));
        let (share, course, why) = judged(&at(10, Course::Running), both, both, 60).unwrap();
        assert_eq!((share, course), (50, Course::Running), "{why}");
    };
    check(&|f, bad| f.wait = moments(N, 0.1, if bad { 1.5 } else { 0.2 }), "wait");
    check(&|f, bad| (f.judged, f.blocked) = (N, if bad { N / 10 } else { 0 }), "blocks");
    check(&|f, bad| f.cost = moments(N, 100.0, if bad { 400.0 } else { 200.0 }), "cost");
    check(&|f, bad| f.quality = moments(N, if bad { 0.2 } else { 0.9 }, 1.0), "quality");
    // Where answers are rated those of the new version are waited for; where few are, they decide nothing.
    let rated = |ratings: u64| of(&|figures| figures.quality = moments(ratings, 1.0, 1.0));
    let next = |canary, base| judged(&at(10, Course::Running), rated(canary), rated(base), 60);
    assert_eq!(next(99, 100), None);
    assert_eq!(next(0, 99).map(|(share, ..)| share), Some(50));
}

#[test]
fn callers_that_are_spread_wrongly_prove_nothing() {
    let (bad, base) = (counted(5000, 2500), counted(5000, 5));
    let evidence = Evidence { canary: &bad, base: &base, mismatch: 0.0009 };
    let next = plan().judge(&at(10, Course::Running), &evidence, 0).unwrap();
    assert_eq!((next.share, next.course), (10, Course::Paused));
    assert_eq!(plan().judge(&at(10, Course::Paused), &evidence, 0), None);
}

#[test]
fn people_may_do_what_makes_sense() {
    use Action::{Pause, Promote, Resume, RollBack};
    use Course::{Paused, Promoted, RolledBack, Running};
    let check = |state: (u32, Course), action, expected: Option<(u32, Course)>| {
        let found = plan().act(&at(state.0, state.1), action, "key-1", 5);
        assert_eq!(found.as_ref().ok().map(|next| (next.share, next.course)), expected, "{state:?} {action:?}");
        assert!(found.is_ok_and(|next| next.by == "key-1" && next.number == 8) || expected.is_none());
    };
    check((10, Running), Pause, Some((10, Paused)));
    check((10, Running), Resume, None);
    check((10, Running), Promote, Some((100, Promoted)));
    check((10, Running), RollBack, Some((0, RolledBack)));
    check((10, Paused), Pause, None);
    check((10, Paused), Resume, Some((10, Running)));
    check((10, Paused), Promote, Some((100, Promoted)));
    check((10, Paused), RollBack, Some((0, RolledBack)));
    check((0, RolledBack), Resume, Some((1, Running)));
    check((0, RolledBack), Promote, Some((100, Promoted)));
    check((0, RolledBack), RollBack, None);
    check((0, RolledBack), Pause, None);
    check((100, Promoted), RollBack, Some((0, RolledBack)));
    check((100, Promoted), Promote, None);
    check((100, Promoted), Resume, None);
    check((100, Promoted), Pause, None);
}
