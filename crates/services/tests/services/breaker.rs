//! Scripts of outcomes and pauses, and whether requests get through.

use std::{sync::atomic::Ordering, time::Duration};

use futures_util::StreamExt;
use protocol::{Circuit, ErrorKind, Generate};
use services::{Breaker, Trip};
use tokio::time::{sleep, timeout};

use crate::fake::{Fake, Script, Step, answer, breaks, error, request, says};

const TRIP: Trip = Trip { window: 6, failures: 3, share: 0.5, pause: Duration::from_secs(10) };

/// Runs the outcomes through a breaker; the letters say what each request met: `.` an answer, `x` a failure of the service, `o`
/// the open breaker. A digit in the plan waits for so many seconds.
async fn check(plan: &str, expected: &str) {
    let scripts = plan.chars().filter(|c| !c.is_ascii_digit()).map(|c| -> Script {
        match c {
            'x' => Err(error(ErrorKind::Upstream)),
            'b' => breaks(ErrorKind::Internal),
            'i' => Err(error(ErrorKind::Invalid)),
            'q' => Err(error(ErrorKind::Overloaded)),
            _ => Ok(says("ok")),
        }
    });
    // A script is used up only by a request that gets through.
    let fake = Fake::new(scripts.collect::<Vec<_>>());
    let breaker = Breaker::new(fake.arc(), TRIP);
    let mut met = String::new();
    for c in plan.chars() {
        if let Some(digit) = c.to_digit(10) {
            sleep(Duration::from_secs(digit.into())).await;
            continue;
        }
        met.push(match answer(&breaker, request()).await {
            Ok(_) => '.',
            Err(error) if error.code.as_deref() == Some("breaker_open") => 'o',
            Err(error) if matches!(error.kind, ErrorKind::Invalid | ErrorKind::Overloaded) => 'r',
            Err(_) => 'x',
        });
    }
    assert_eq!(met, expected, "{plan}");
}

#[tokio::test(start_paused = true)]
async fn scripts() {
    check("......", "......").await;
    check("xxx...", "xxxooo").await;
    check("bbb...", "xxxooo").await;
    // Never three of the last six.
    check("x..x..x..x.", "x..x..x..x.").await;
    // Three, and they are half of them.
    check("....x.x.x.x", "....x.x.xoo").await;
    // The caller's mistakes and an honest "busy" break nothing.
    check("iiiiqqqq.", "rrrrrrrr.").await;
    // After the pause one probe decides.
    check("xxx.55..", "xxxo..").await;
    check("xxx55x..55..", "xxxxoo..").await;
}

/// While the probe is under way nothing else gets through; dropped, it decides nothing.
#[tokio::test(start_paused = true)]
async fn one_probe_at_a_time() {
    let failing = || Err(error(ErrorKind::Upstream));
    let fake = Fake::new([failing(), failing(), failing(), Ok(vec![Step::Hang]), Ok(says("ok"))]);
    let breaker = Breaker::new(fake.arc(), TRIP);
    for _ in 0..3 {
        answer(&breaker, request()).await.unwrap_err();
    }
    assert!(breaker.ready().is_err());
    sleep(TRIP.pause).await;
    assert!(breaker.ready().is_ok());
    let mut probe = breaker.generate(request()).await.unwrap();
    assert!(timeout(Duration::from_millis(1), probe.next()).await.is_err());
    let refused = answer(&breaker, request()).await.unwrap_err();
    assert_eq!((refused.kind, refused.code.as_deref()), (ErrorKind::Upstream, Some("breaker_open")));
    assert!(refused.retry_after.is_some());
    drop(probe);
    assert_eq!(answer(&breaker, request()).await.unwrap(), "ok");
    assert!(breaker.ready().is_ok());
    assert_eq!(fake.live.load(Ordering::SeqCst), 0);
}

/// Closed, open for its pause, half open until a probe has told.
#[tokio::test(start_paused = true)]
async fn it_says_how_it_stands() {
    let fake = Fake::new([breaks(ErrorKind::Upstream), Ok(says("ok"))]);
    let breaker = Breaker::new(fake.arc(), Trip { failures: 1, ..TRIP });
    assert_eq!(breaker.circuit(), Some(Circuit::Closed));
    answer(&breaker, request()).await.unwrap_err();
    assert_eq!(breaker.circuit(), Some(Circuit::Open(TRIP.pause)));
    sleep(TRIP.pause).await;
    assert_eq!(breaker.circuit(), Some(Circuit::HalfOpen { probing: false }));
    let mut probe = breaker.generate(request()).await.unwrap();
    assert_eq!(breaker.circuit(), Some(Circuit::HalfOpen { probing: true }));
    while probe.next().await.is_some() {}
    assert_eq!(breaker.circuit(), Some(Circuit::Closed));
}
