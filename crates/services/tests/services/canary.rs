//! Canaries over services that really fail and really wait, in virtual time: who gets them while their share grows, what becomes of those
//! that are fine and of those that are not, and how two processes judge together.

use std::{sync::Arc, time::Duration};

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream};
use ledger::{Course, Move};
use parking_lot::Mutex;
use protocol::{ErrorKind, Event, EventStream, Generate, GenerateRequest, ModelCard};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use services::{
    Target,
    rollout::{Action, Plan, Report, Rollout, Tolerated},
};
use tokio::time::Instant;

use crate::fake::{done, ends, error, events, request, text};

/// Requests a second.
const RATE: u32 = 20;

/// A version: how often it fails, and how long it takes to begin at most.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Nature {
    failures: f64,
    wait: Duration,
    /// The mean of its ratings; one of four requests is rated.
    rating: f64,
}

const GOOD: Nature = Nature { failures: 0.01, wait: Duration::from_millis(400), rating: 0.8 };

#[derive(Debug)]
struct Service {
    nature: Nature,
    random: Arc<Mutex<StdRng>>,
}

impl Generate for Service {
    fn models(&self) -> Vec<ModelCard> {
        vec![ModelCard::new("m")]
    }

    fn generate(&self, _: GenerateRequest) -> BoxFuture<'_, Result<EventStream, protocol::Error>> {
        let (fails, wait) = {
            let mut random = self.random.lock();
            (random.random_bool(self.nature.failures), self.nature.wait.mul_f64(random.random()))
        };
        async move {
            tokio::time::sleep(wait).await;
            let all =
                if fails { vec![Err(error(ErrorKind::Upstream))] } else { vec![Ok(text("a")), Ok(ends()), Ok(done())] };
            Ok(stream::iter(all).boxed())
        }
        .boxed()
    }
}

fn plan() -> Plan {
    Plan {
        steps: vec![5, 25, 50, 100],
        hold: Duration::from_secs(60),
        hold_requests: 200,
        patience: Some(Duration::from_secs(4 * 3600)),
        tolerated: Tolerated {
            failures: 0.03,
            wait: Duration::from_millis(100),
            blocks: 0.03,
            cost: 0.1,
            quality: 0.15,
        },
    }
}

fn rollout(base: Nature, canary: Nature, seed: u64) -> Rollout {
    let random = Arc::new(Mutex::new(StdRng::seed_from_u64(seed)));
    let target = |nature, model: &str| Target {
        service: Arc::new(Service { nature, random: random.clone() }),
        model: model.to_owned(),
    };
    Rollout::new("m", vec![(target(base, "m:old"), 1)], None).with_canary(target(canary, "m:new"), plan())
}

fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap()
}

/// One caller asks once, and one of four rates the answer.
async fn ask(rollout: &Arc<Rollout>, unit: String, natures: [Nature; 2], luck: (f64, bool)) -> Option<String> {
    let all = events(&**rollout, GenerateRequest { unit, ..request() }).await;
    let model = match all.ok()?.into_iter().next()? {
        Event::Routed(hop) => hop.model,
        _ => return None,
    };
    rollout.report(&model, Report::Settled { blocked: false, cost: 0 });
    if luck.1 {
        let nature = natures[usize::from(model == "m:new")];
        rollout.report(&model, Report::Rated(f64::from(u8::from(luck.0 < nature.rating))));
    }
    Some(model)
}

/// What became of a rollout, after how long and how many requests.
#[derive(Debug)]
struct End {
    state: Move,
    took: Duration,
    requests: u64,
    /// Of these, those that the new version had.
    exposed: u64,
}

/// Callers come at a rate, and somebody looks every second, until it is over.
async fn run(base: Nature, canary: Nature, seed: u64) -> End {
    let rollout = Arc::new(rollout(base, canary, seed));
    let mut random = StdRng::seed_from_u64(seed + 1_000_000);
    let (began, mut requests, mut exposed) = (Instant::now(), 0, 0);
    loop {
        if let Some(next) = rollout.judge(micros(began.elapsed())) {
            let over = next.course != Course::Running;
            exposed += rollout.versions()[1].figures.requests;
            rollout.follow(next.clone());
            if over {
                return End { state: next, took: began.elapsed(), requests, exposed };
            }
        }
        let mut asked = Vec::new();
        for _ in 0..RATE {
            requests += 1;
            let luck = (random.random(), random.random_bool(0.25));
            asked.push(ask(&rollout, format!("{seed} {requests}"), [base, canary], luck));
        }
        futures_util::future::join_all(asked).await;
        tokio::time::sleep_until(began + Duration::from_secs(requests / u64::from(RATE))).await;
    }
}

/// How many of these rollouts ended so, told with the medians of minutes and of requests that the new version had.
#[expect(clippy::print_stdout, reason = "the figures are what it is for")]
async fn many(canary: Nature, trials: u64, course: Course) -> u64 {
    let (mut ended, mut took, mut exposed) = (0, Vec::new(), Vec::new());
    let mut others = Vec::new();
    for seed in 0..trials {
        let End { state, took: time, exposed: had, .. } = run(GOOD, canary, seed).await;
        if state.course == course {
            ended += 1;
            took.push(time.as_secs());
            exposed.push(had);
        } else {
            others.push(state.why);
        }
    }
    let spread = |values: &mut Vec<u64>| {
        values.sort_unstable();
        let at = |share: usize| values.get(values.len() * share / 100).copied().unwrap_or_default();
        format!("{} ({} to {})", at(50), at(5), at(95))
    };
    let (took, exposed) = (spread(&mut took), spread(&mut exposed));
    println!(
        "{canary:?}: {ended} of {trials} {}, after {took} s and {exposed} requests; others: {others:?}",
        course.name()
    );
    ended
}

/// What is fine is promoted through every step, what is worse is taken back, and it says by what.
#[tokio::test(start_paused = true)]
async fn a_good_version_gets_all_callers_and_a_bad_one_none() {
    let check = async |canary: Nature, course: Course, why: &str| {
        let end = run(GOOD, canary, 1).await;
        assert_eq!(end.state.course, course, "{canary:?}: {end:?}");
        assert!(end.state.why.contains(why), "{canary:?}: {end:?}");
        assert!(course == Course::Promoted || end.exposed < end.requests / 10, "{canary:?}: {end:?}");
    };
    check(GOOD, Course::Promoted, "fine").await;
    check(Nature { failures: 0.5, ..GOOD }, Course::RolledBack, "worse: failures").await;
    check(Nature { wait: Duration::from_secs(2), ..GOOD }, Course::RolledBack, "worse: wait").await;
    check(Nature { rating: 0.1, ..GOOD }, Course::RolledBack, "worse: quality").await;
}

/// The rows of docs/results/learning.md: a version beside itself, bad ones, and good ones.
#[tokio::test(start_paused = true)]
#[ignore = "minutes; the figures of docs/results/learning.md"]
async fn many_canaries() {
    let promoted = many(GOOD, 400, Course::Promoted).await;
    assert!(promoted >= 380, "{promoted} of 400");
    for canary in [
        Nature { failures: 1.0, ..GOOD },
        Nature { failures: 0.5, ..GOOD },
        Nature { failures: 0.1, ..GOOD },
        Nature { failures: 0.05, ..GOOD },
        Nature { wait: Duration::from_secs(1), ..GOOD },
        Nature { rating: 0.4, ..GOOD },
    ] {
        let taken_back = many(canary, 100, Course::RolledBack).await;
        assert!(taken_back >= 95, "{canary:?}: {taken_back} of 100");
    }
}

/// Whoever has the new version keeps it while its share grows, and nobody has it before it begins or once it is taken back.
#[tokio::test(start_paused = true)]
async fn callers_keep_the_new_version_while_its_share_grows() {
    let rollout = Arc::new(rollout(Nature { failures: 0.0, ..GOOD }, Nature { failures: 0.0, ..GOOD }, 1));
    let who = async || {
        let mut found = Vec::new();
        for unit in 0..400 {
            let model = ask(&rollout, unit.to_string(), [GOOD; 2], (0.0, false)).await.unwrap();
            found.push(model == "m:new");
        }
        found
    };
    let count = |found: &[bool]| found.iter().filter(|new| **new).count();
    let mut before = who().await;
    assert_eq!(count(&before), 0);
    let first = rollout.judge(0).unwrap();
    for (number, share) in [5, 25, 50, 100].into_iter().enumerate() {
        rollout.follow(Move { share, number: number as u64, ..first.clone() });
        let now = who().await;
        let expected = 400 * share as usize / 100;
        assert!(count(&now).abs_diff(expected) <= 40, "{} of {expected} at {share} %", count(&now));
        assert!(before.iter().zip(&now).all(|(before, now)| *now || !before), "nobody flips back at {share} %");
        assert_eq!(rollout.versions()[1].figures.requests, count(&now) as u64, "counted anew at every step");
        before = now;
    }
    assert_eq!(count(&before), 400);
    rollout.follow(Move { share: 0, number: 9, course: Course::RolledBack, ..first });
    assert_eq!(count(&who().await), 0);
}

/// What one process counted counts in another, once; another composition of the same rollout goes on where the one before stood.
#[tokio::test(start_paused = true)]
async fn figures_are_shared_and_states_handed_on() {
    let [one, two] = [1, 2].map(|seed| Arc::new(rollout(GOOD, Nature { failures: 1.0, ..GOOD }, seed)));
    let first = Move { share: 50, ..one.judge(0).unwrap() };
    for rollout in [&one, &two] {
        rollout.follow(first.clone());
        for unit in 0..180 {
            let _ = ask(rollout, unit.to_string(), [GOOD; 2], (0.0, false)).await;
        }
        assert_eq!(rollout.judge(1), None, "alone, neither has seen enough");
    }
    let told = two.counted().unwrap();
    assert_eq!((&told.since, two.counted().unwrap().figures), (&first, None), "told once");
    let (old, figures) = (one.versions(), [told.figures.unwrap()]);
    for _ in 0..2 {
        one.add(&first, &figures);
    }
    let (sum, theirs) = (one.versions(), two.versions());
    for i in 0..2 {
        assert_eq!(sum[i].figures.requests, old[i].figures.requests + theirs[i].figures.requests);
    }
    let next = one.judge(1).unwrap();
    assert_eq!(next.course, Course::RolledBack, "{}", next.why);
    one.add(&next, &figures);
    let again = rollout(GOOD, GOOD, 3);
    again.succeed(&one);
    assert_eq!((again.state(), again.versions()), (one.state(), one.versions()));
    again.follow(next.clone());
    assert_eq!(again.versions()[1].figures.requests, 0, "another move, counted anew");
    let (_, plan) = again.canary().unwrap();
    let resumed = plan.act(&next, Action::Resume, "key", 9).unwrap();
    assert_eq!((resumed.share, resumed.course), (5, Course::Running));
}
