//! Whom a request goes to.

use std::{sync::Arc, sync::atomic::Ordering, time::Duration};

use futures_util::StreamExt;
use protocol::{ErrorKind, Event, Generate, GenerateRequest, Load, Reason, Stop};
use services::{Balanced, Limits};
use tokio::time::sleep;

use crate::fake::{Fake, Script, Step, answer, breaks, error, events, request, says, slow, way};

const LIMITS: Limits = Limits { first_byte: Some(Duration::from_secs(5)), rest: Duration::from_secs(1) };

fn balanced(fakes: &[&Fake]) -> Balanced {
    let named = fakes.iter().enumerate().map(|(at, fake)| (format!("w{at}"), fake.arc()));
    Balanced::new(named.collect(), LIMITS)
}

fn hangs() -> Fake {
    Fake::new([Ok(says("x")[..2].iter().cloned().chain([Step::Hang]).collect())])
}

fn longest(max_tokens: usize) -> GenerateRequest {
    GenerateRequest { stop: Stop { max_tokens: Some(max_tokens), ..Stop::default() }, ..request() }
}

#[tokio::test(start_paused = true)]
async fn the_less_busy_one_answers() {
    let queue = |fake: &Fake, running, waiting| *fake.load.lock() = Some(Load { running, waiting });
    let (a, b) = (Fake::new([]), Fake::new([]));
    let both = balanced(&[&a, &b]);
    queue(&a, 4, 3);
    queue(&b, 1, 0);
    for _ in 0..20 {
        answer(&both, request()).await.unwrap();
    }
    assert_eq!((a.times(), b.times()), (0, 20));
    queue(&b, 9, 0);
    answer(&both, request()).await.unwrap();
    assert_eq!((a.times(), b.times()), (1, 20));
    assert_eq!(both.load(), Some(Load { running: 13, waiting: 3 }));
}

/// Without a word from the services, their own requests count, by what they may write.
#[tokio::test(start_paused = true)]
async fn requests_in_flight_count_by_their_cost() {
    let (a, b) = (hangs(), hangs());
    let both = balanced(&[&a, &b]);
    let mut held = Vec::new();
    held.push(both.generate(longest(900)).await.unwrap());
    let (idle, busy) = if a.times() == 0 { (&a, &b) } else { (&b, &a) };
    for n in 1..=3 {
        held.push(both.generate(longest(200)).await.unwrap());
        assert_eq!((idle.times(), busy.times()), (n, 1));
    }
    assert_eq!(a.live.load(Ordering::SeqCst) + b.live.load(Ordering::SeqCst), 4);
    // What ends, does not count any more.
    drop(held.remove(0));
    held.push(both.generate(longest(200)).await.unwrap());
    assert_eq!((idle.times(), busy.times()), (3, 2));
    drop(held);
    assert_eq!(a.live.load(Ordering::SeqCst) + b.live.load(Ordering::SeqCst), 0);
}

/// Requests spread over many that look alike.
#[tokio::test(start_paused = true)]
async fn nobody_is_left_out() {
    let fakes: Vec<Fake> = (0..5).map(|_| hangs()).collect();
    let all = balanced(&fakes.iter().collect::<Vec<_>>());
    let mut held = Vec::new();
    for _ in 0..100 {
        held.push(all.generate(request()).await.unwrap());
    }
    let times: Vec<usize> = fakes.iter().map(Fake::times).collect();
    assert!(times.iter().all(|times| (10..=30).contains(times)), "{times:?}");
}

/// The first one meets the script; whether the other one was asked, and what the caller hears.
async fn check(script: Script, expected: Result<&str, ErrorKind>, others: usize) {
    let (bad, good) = (Fake::new([script.clone()]), Fake::new([Ok(says("other"))]));
    // The good one looks busier, so that the bad one is asked first.
    *good.load.lock() = Some(Load { running: 9, waiting: 9 });
    let both = balanced(&[&bad, &good]);
    let heard = answer(&both, request()).await.map_err(|error| error.kind);
    assert_eq!(heard.as_deref(), expected.as_ref().map(|text| *text), "{script:?}");
    assert_eq!((bad.times(), good.times()), (1, others), "{script:?}");
}

#[tokio::test(start_paused = true)]
async fn one_other_is_asked_before_the_first_byte() {
    check(Err(error(ErrorKind::Upstream)), Ok("other"), 1).await;
    check(Err(error(ErrorKind::Overloaded)), Ok("other"), 1).await;
    check(breaks(ErrorKind::ShuttingDown), Ok("other"), 1).await;
    check(slow(6), Ok("other"), 1).await;
    check(slow(4), Ok("slow"), 0).await;
    check(Err(error(ErrorKind::Invalid)), Err(ErrorKind::Invalid), 0).await;
    let mut late = says("x");
    late.insert(2, Step::Fail(error(ErrorKind::Upstream)));
    check(Ok(late), Err(ErrorKind::Upstream), 0).await;
}

/// The head of an answer says who gives it, who failed before, and who was compared.
#[tokio::test(start_paused = true)]
async fn the_way_is_told() {
    let check = async |first: Option<Script>, expected: (Reason, &str, &[&str]), compared: &[(&str, u64)]| {
        let (busy, idle) = (Fake::new([]), first.clone().map(|script| Fake::new([script])));
        *busy.load.lock() = Some(Load { running: 2, waiting: 0 });
        let members: Vec<&Fake> = [&busy].into_iter().chain(&idle).collect();
        let heard = events(&balanced(&members), request()).await.unwrap();
        let (reason, to, failed) = expected;
        assert_eq!(way(&heard[..1]), [(reason, to.to_owned(), failed.iter().map(ToString::to_string).collect())]);
        let Event::Routed(hop) = &heard[0] else { panic!("{heard:?}") };
        let mut among: Vec<_> = hop.among.iter().map(|one| (&*one.service, one.busy)).collect();
        among.sort_unstable();
        assert_eq!(among, compared, "{first:?}");
    };
    check(Some(Ok(says("ok"))), (Reason::Balanced, "m to m of w1", &[]), &[("w0", 512), ("w1", 0)]).await;
    let down = Err(error(ErrorKind::Upstream));
    check(Some(down), (Reason::Fallback, "m to m of w0", &["w1 upstream_failed"]), &[]).await;
    check(None, (Reason::Only, "m to m of w0", &[]), &[]).await;
}

#[tokio::test(start_paused = true)]
async fn who_failed_rests_and_who_is_not_ready_is_left_out() {
    let (bad, good) = (Fake::new([Err(error(ErrorKind::Upstream)), Ok(says("well again"))]), Fake::new([]));
    *good.load.lock() = Some(Load { running: 9, waiting: 9 });
    let both = balanced(&[&bad, &good]);
    for _ in 0..3 {
        assert_eq!(answer(&both, request()).await.unwrap(), "ok");
    }
    assert_eq!((bad.times(), good.times()), (1, 3));
    sleep(LIMITS.rest).await;
    assert_eq!(answer(&both, request()).await.unwrap(), "well again");
    *bad.broken.lock() = Some(error(ErrorKind::Internal));
    assert_eq!(answer(&both, request()).await.unwrap(), "ok");
    assert!(both.ready().is_ok());
    *good.broken.lock() = Some(error(ErrorKind::Internal));
    assert!(both.ready().is_err());
    assert_eq!(answer(&both, request()).await.unwrap_err().kind, ErrorKind::Internal);
    let unknown = GenerateRequest { model: "other".to_owned(), ..request() };
    assert_eq!(answer(&both, unknown).await.unwrap_err().kind, ErrorKind::Upstream);
    let none: Arc<dyn Generate> = Arc::new(Balanced::new(Vec::new(), LIMITS));
    assert!(none.generate(request()).await.is_err_and(|error| error.kind == ErrorKind::Upstream));
    // A stream keeps nobody awake who is gone.
    let mut stream = balanced(&[&hangs()]).generate(request()).await.unwrap();
    assert!(stream.next().await.is_some());
}
