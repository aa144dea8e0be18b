//! Who gets which version, what a failing one costs, and that a shadow is neither heard nor waited for.

use std::time::Duration;

use futures_util::StreamExt;
use protocol::{Capabilities, ErrorKind, Event, Generate, GenerateRequest, Reason};
use services::{
    Target,
    rollout::{Bounds, Compared, ERROR, Metric, Rollout, Shadow, Standing, Tolerated},
};
use tokio::time::Instant;

use crate::fake::{Fake, Script, Step, breaks, done, ends, error, events, request, says, slow, started, text, way};

const BOUNDS: Bounds = Bounds { share: 1.0, at_once: 8, tokens_per_hour: 0, time: Duration::from_secs(60) };

const TOLERATED: Tolerated =
    Tolerated { failures: 0.01, wait: Duration::from_millis(200), blocks: 0.01, cost: 0.1, quality: 0.05 };

fn version(fake: &Fake, name: &str) -> Target {
    let mut fake = fake.clone();
    fake.cards[0].id = name.to_owned();
    fake.cards[0].owned_by = format!("house {name}");
    Target { service: fake.arc(), model: name.to_owned() }
}

fn of(unit: &str) -> GenerateRequest {
    GenerateRequest { unit: unit.to_owned(), ..request() }
}

fn said(all: &[Event]) -> String {
    all.iter().map(|event| if let Event::Text { text, .. } = event { text.as_str() } else { "" }).collect()
}

#[tokio::test]
async fn a_caller_keeps_its_version_until_the_weights_move_it() {
    let (old, new) = (Fake::new([Ok(says("old"))]), Fake::new([Ok(says("new"))]));
    let answers = async |weights: [u32; 2]| {
        let versions = vec![(version(&old, "m:old"), weights[0]), (version(&new, "m:new"), weights[1])];
        let rollout = Rollout::new("m", versions, None);
        let mut answers = Vec::new();
        for unit in 0..200 {
            let unit = format!("key {unit}");
            let (first, again) =
                (events(&rollout, of(&unit)).await.unwrap(), events(&rollout, of(&unit)).await.unwrap());
            assert_eq!(said(&first), said(&again), "{unit}");
            let told = said(&first);
            let expected = (Reason::Assigned, format!("m to m:{told} of house m:{told}"), vec![]);
            assert_eq!(way(&first), [expected], "{unit}");
            answers.push(told);
        }
        answers
    };
    let before = answers([90, 10]).await;
    let few = before.iter().filter(|told| *told == "new").count();
    assert!((5..40).contains(&few), "{few} of 200 at a tenth");
    let after = answers([50, 50]).await;
    assert!(before.iter().zip(&after).all(|(before, after)| before == "old" || after == "new"), "nobody flips back");
    assert!(answers([0, 1]).await.iter().all(|told| told == "new"));
    assert!(old.asked.lock().iter().all(|request| request.model == "m:old"));
    let nobody = Rollout::new("m", vec![(version(&old, "m:old"), 0)], None).generate(of("key 1")).await;
    assert_eq!(nobody.err().map(|error| error.kind), Some(ErrorKind::Internal));
}

#[test]
fn it_is_held_to_what_every_version_can_do() {
    let (mut old, mut new) = (Fake::new([]), Fake::new([]));
    old.cards[0].capabilities = Capabilities { tools: true, scoring: true, ..Capabilities::default() };
    new.cards[0].capabilities = Capabilities { tools: true, seed: true, ..Capabilities::default() };
    let rollout = Rollout::new("m", vec![(version(&old, "m:old"), 9), (version(&new, "m:new"), 1)], None);
    let card = rollout.models().remove(0);
    assert_eq!((&*card.id, &*card.owned_by), ("m", "house m:old"));
    assert_eq!(card.capabilities, Capabilities { tools: true, ..Capabilities::default() });
}

/// Whom nobody knows is somebody else every time.
#[tokio::test]
async fn without_a_caller_requests_are_spread() {
    let fake = Fake::new([Ok(says("ok"))]);
    let rollout = Rollout::new("m", vec![(version(&fake, "a"), 1), (version(&fake, "b"), 1)], None);
    for id in 0..100 {
        events(&rollout, GenerateRequest { id: id.to_string(), ..request() }).await.unwrap();
    }
    let first = fake.asked.lock().iter().filter(|request| request.model == "a").count();
    assert!((25..75).contains(&first), "{first} of 100");
}

/// How a version fails: its word comes first, and no other version is asked.
#[tokio::test(start_paused = true)]
async fn failures_are_the_versions_own() {
    async fn check(script: Script) {
        let (bad, other) = (Fake::new([script.clone()]), Fake::new([Ok(says("fine"))]));
        let versions = vec![(version(&bad, "bad"), 1), (version(&other, "other"), 0)];
        let mut stream = Rollout::new("m", versions, None).generate(of("u")).await.unwrap();
        let first = stream.next().await.unwrap().unwrap();
        assert!(matches!(first, Event::Routed(hop) if hop.model == "bad"), "{script:?}");
        let last = stream.by_ref().collect::<Vec<_>>().await.pop().unwrap();
        assert_eq!(last.unwrap_err().kind, ErrorKind::Upstream, "{script:?}");
        assert_eq!(other.times(), 0, "{script:?}");
    }
    check(Err(error(ErrorKind::Upstream))).await;
    check(breaks(ErrorKind::Upstream)).await;
}

/// The answers of a live version and of a candidate beside it, to so many requests; what was compared once both are still.
async fn mirrored(live: Script, candidate: Script, bounds: Bounds, requests: usize) -> (Compared, usize) {
    let (live, shadow) = (Fake::new([live]), Fake::new([candidate]));
    let rollout =
        Rollout::new("m", vec![(version(&live, "live"), 1)], Some(Shadow::new(version(&shadow, "new"), bounds)));
    let began = Instant::now();
    for _ in 0..requests {
        if let Ok(all) = events(&rollout, of("u")).await {
            assert_eq!((said(&all), way(&all).len()), ("live".to_owned(), 1), "the candidate is not heard");
        }
    }
    assert_eq!(began.elapsed(), Duration::ZERO, "nobody waits for the candidate");
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert!(shadow.asked.lock().iter().all(|asked| asked.model == "new" && asked.tenant == "shadow"));
    (rollout.shadow().unwrap().1, shadow.times())
}

#[tokio::test(start_paused = true)]
async fn a_shadow_is_compared_and_never_delivered() {
    async fn check(candidate: Script, same: u64, differed: u64, failed: u64) {
        let (found, _) = mirrored(Ok(says("live")), candidate.clone(), BOUNDS, 3).await;
        assert_eq!(
            (found.same, found.differed, found.failed, found.left_out),
            (same, differed, failed, 0),
            "{candidate:?}"
        );
        assert_eq!(found.tokens, 2 * (same + differed), "{candidate:?}");
    }
    check(Ok(says("live")), 3, 0, 0).await;
    check(Ok(says("other")), 0, 3, 0).await;
    check(Err(error(ErrorKind::Overloaded)), 0, 0, 3).await;
    check(breaks(ErrorKind::Upstream), 0, 0, 3).await;
    check(Ok(vec![Step::Hang]), 0, 0, 3).await;
    check(Ok(vec![Step::Send(started()), Step::Send(text("live")), Step::Send(ends())]), 0, 0, 3).await;
}

#[tokio::test(start_paused = true)]
async fn a_shadow_keeps_its_bounds() {
    async fn check(live: Script, candidate: Script, bounds: Bounds, asked: usize, left_out: u64) {
        let (found, times) = mirrored(live, candidate, bounds, 10).await;
        assert_eq!((times, found.left_out), (asked, left_out), "{bounds:?}");
    }
    let live = || Ok(says("live"));
    check(live(), live(), Bounds { share: 0.0, ..BOUNDS }, 0, 0).await;
    // All of them leave before the first one ends: as many as there are places.
    check(live(), Ok(vec![Step::Hang]), Bounds { at_once: 3, ..BOUNDS }, 3, 7).await;
    // Three tokens were read and nine may be written: two requests' worth is held back, a third does not fit.
    check(live(), Ok(vec![Step::Hang]), Bounds { tokens_per_hour: 24, ..BOUNDS }, 2, 8).await;
    // An answer that broke, and one that nobody heard to its end, is compared with nothing.
    check(breaks(ErrorKind::Upstream), live(), BOUNDS, 0, 0).await;
}

/// What was held back and not used is there for others; a new hour has its own.
#[tokio::test(start_paused = true)]
async fn a_shadows_tokens_are_settled() {
    let shadow = Fake::new([Ok(says("live"))]);
    let bounds = Bounds { tokens_per_hour: 17, ..BOUNDS };
    let live =
        version(&Fake::new([Ok(vec![Step::Send(text("live")), Step::Send(ends()), Step::Send(done())])]), "live");
    let rollout = Rollout::new("m", vec![(live, 1)], Some(Shadow::new(version(&shadow, "new"), bounds)));
    // Each holds 12 back and takes 5: the first two fit, the third would be 10 + 12.
    for expected in [1, 2, 2] {
        events(&rollout, of("u")).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(shadow.times(), expected);
    }
    tokio::time::sleep(Duration::from_secs(3600)).await;
    events(&rollout, of("u")).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(shadow.times(), 3);
}

/// A shadow that is dropped drops what it asked.
#[tokio::test(start_paused = true)]
async fn a_dropped_rollout_cancels_its_shadow() {
    let shadow = Fake::new([Ok(vec![Step::Hang])]);
    let live = version(&Fake::new([Ok(says("live"))]), "live");
    let rollout = Rollout::new("m", vec![(live, 1)], Some(Shadow::new(version(&shadow, "new"), BOUNDS)));
    events(&rollout, of("u")).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(shadow.live.load(std::sync::atomic::Ordering::SeqCst), 1);
    drop(rollout);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(shadow.live.load(std::sync::atomic::Ordering::SeqCst), 0);
}

/// Two versions behind one name, callers that come every 100 ms and ask once, and the virtual time until the bad one is known for it.
async fn until_worse(good: &Fake, bad: &Fake, weights: [u32; 2], most: usize) -> Option<Duration> {
    let versions = vec![(version(good, "good"), weights[0]), (version(bad, "bad"), weights[1])];
    let rollout = Rollout::new("m", versions, None);
    let began = Instant::now();
    for unit in 0..most {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let _ = events(&rollout, of(&unit.to_string())).await;
        let now = rollout.versions();
        let found = now[1].figures.beside(&now[0].figures, Metric::Failures, &TOLERATED, ERROR);
        if found.is_some_and(|found| found.standing == Standing::Worse) {
            return Some(began.elapsed());
        }
    }
    assert!(rollout.mismatch() >= ERROR, "callers are spread by the weights");
    None
}

/// A service that fails each `n`-th request.
fn failing(n: usize) -> Fake {
    let scripts = (1..=10_000).map(|i| if i % n == 0 { breaks(ErrorKind::Upstream) } else { Ok(says("fine")) });
    Fake::new(scripts)
}

#[tokio::test(start_paused = true)]
async fn a_bad_version_is_known_in_time_and_a_good_one_never_is() {
    async fn check(good: usize, bad: usize, weights: [u32; 2], seconds: Option<u64>) {
        let found = until_worse(&failing(good), &failing(bad), weights, 10_000).await;
        println!("1 of {good} beside 1 of {bad} fails, {weights:?}: {found:?}");
        let within = found.map(|time| time <= Duration::from_secs(seconds.unwrap_or_default()));
        assert_eq!(within, seconds.map(|_| true), "{found:?} of {seconds:?}");
    }
    check(100, 1, [50, 50], Some(30)).await;
    check(100, 2, [50, 50], Some(30)).await;
    check(100, 2, [90, 10], Some(150)).await;
    check(100, 10, [90, 10], Some(200)).await;
    check(100, 100, [50, 50], None).await;
}

/// What is counted of a version: callers once, ends and failures, the time to the first piece.
#[tokio::test(start_paused = true)]
async fn versions_are_counted() {
    let fake = Fake::new([slow(2), slow(4), breaks(ErrorKind::Upstream), Err(error(ErrorKind::Invalid))]);
    let rollout = Rollout::new("m", vec![(version(&fake, "a"), 1)], None);
    for unit in ["u", "u", "v", "w"] {
        let _ = events(&rollout, of(unit)).await;
    }
    let figures = rollout.versions()[0].figures;
    assert_eq!((figures.callers, figures.requests, figures.failed), (3, 3, 1));
    assert_eq!((figures.wait.n, figures.wait.mean), (2, 3.0));
}
