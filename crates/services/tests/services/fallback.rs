//! Who answers, by what happens to the first ones.

use std::{sync::atomic::Ordering, time::Duration};

use protocol::{ErrorKind, Generate, Reason};
use services::{Fallback, Target};

use crate::fake::{Fake, Script, answer, breaks, error, events, request, says, slow, way};

fn target(fake: &Fake, name: &str) -> (Fake, Target) {
    let mut fake = fake.clone();
    fake.cards[0].id = name.to_owned();
    fake.cards[0].owned_by = format!("house {name}");
    (fake.clone(), Target { service: fake.arc(), model: name.to_owned() })
}

/// Three targets with these scripts; the third always answers.
async fn check(first: Script, second: Script, expected: Result<&str, ErrorKind>, times: [usize; 3]) {
    let named = [("a", first.clone()), ("b", second.clone()), ("c", Ok(says("third")))];
    let targets = named.map(|(name, script)| target(&Fake::new([script]), name));
    let (fakes, targets): (Vec<Fake>, Vec<Target>) = targets.into_iter().unzip();
    let route = Fallback::new("m", targets, Some(Duration::from_secs(5)));
    let heard = answer(&route, request()).await.map_err(|error| error.kind);
    assert_eq!(heard.as_deref(), expected.as_ref().map(|text| *text), "{first:?} {second:?}");
    assert_eq!(fakes.iter().map(Fake::times).collect::<Vec<_>>(), times, "{first:?} {second:?}");
    assert!(fakes.iter().all(|fake| fake.live.load(Ordering::SeqCst) == 0), "every stream was dropped");
}

#[tokio::test(start_paused = true)]
async fn scripts() {
    let ok = |words: &str| Ok(says(words));
    let refuses = |kind| Err(error(kind));
    check(ok("first"), ok("second"), Ok("first"), [1, 0, 0]).await;
    check(refuses(ErrorKind::Upstream), ok("second"), Ok("second"), [1, 1, 0]).await;
    check(refuses(ErrorKind::Overloaded), refuses(ErrorKind::ShuttingDown), Ok("third"), [1, 1, 1]).await;
    check(breaks(ErrorKind::Upstream), ok("second"), Ok("second"), [1, 1, 0]).await;
    check(slow(6), ok("second"), Ok("second"), [1, 1, 0]).await;
    check(slow(4), ok("second"), Ok("slow"), [1, 0, 0]).await;
    check(Ok(vec![]), ok("second"), Ok("second"), [1, 1, 0]).await;
    for kind in [ErrorKind::Invalid, ErrorKind::Blocked, ErrorKind::Unsupported, ErrorKind::OverBudget] {
        check(refuses(kind), ok("second"), Err(kind), [1, 0, 0]).await;
    }
}

/// After the first piece a failure is the caller's to see: nothing is sent twice.
#[tokio::test(start_paused = true)]
async fn nothing_is_sent_twice() {
    let mut steps = says("first");
    steps.truncate(2);
    steps.push(crate::fake::Step::Fail(error(ErrorKind::Upstream)));
    check(Ok(steps), Ok(says("second")), Err(ErrorKind::Upstream), [1, 0, 0]).await;
}

/// A prompt that is too long goes to a longer context only, and its error is what the caller hears in the end.
#[tokio::test(start_paused = true)]
async fn long_prompts_go_to_longer_contexts() {
    let long = || Err(error(ErrorKind::Invalid).with_code("context_length_exceeded"));
    let check = async |contexts: [usize; 3], last: Script, times: [usize; 3], expected: Result<&str, ErrorKind>| {
        let scripts = [long(), Ok(says("second")), last];
        let targets = [0, 1, 2].map(|i| {
            let mut fake = Fake::new([scripts[i].clone()]);
            fake.cards[0].context_length = contexts[i];
            target(&fake, "m")
        });
        let (fakes, targets): (Vec<Fake>, Vec<Target>) = targets.into_iter().unzip();
        let heard = answer(&Fallback::new("m", targets, None), request()).await.map_err(|error| error.kind);
        assert_eq!(heard.as_deref(), expected.as_ref().map(|text| *text), "{contexts:?}");
        assert_eq!(fakes.iter().map(Fake::times).collect::<Vec<_>>(), times, "{contexts:?}");
    };
    check([4096, 8192, 8192], long(), [1, 1, 0], Ok("second")).await;
    check([4096, 4096, 8192], Ok(says("third")), [1, 0, 1], Ok("third")).await;
    check([4096, 2048, 4096], long(), [1, 0, 0], Err(ErrorKind::Invalid)).await;
    check([4096, 2048, 8192], Err(error(ErrorKind::Upstream)), [1, 0, 1], Err(ErrorKind::Invalid)).await;
    // Where nobody knows the lengths, the next one is worth a try.
    check([0, 0, 0], long(), [1, 1, 0], Ok("second")).await;
}

/// The head of an answer says who gives it, and who failed before.
#[tokio::test(start_paused = true)]
async fn the_way_is_told() {
    let check = async |scripts: &[Script], reason, to: &str, failed: &[&str]| {
        let targets = scripts.iter().zip(["a", "b", "c"]);
        let targets = targets.map(|(script, name)| target(&Fake::new([script.clone()]), name).1).collect();
        let heard = events(&Fallback::new("fast", targets, None), request()).await.unwrap();
        assert_eq!(way(&heard[..1]), [(reason, to.to_owned(), failed.iter().map(ToString::to_string).collect())]);
    };
    let (ok, down, busy) =
        (Ok(says("ok")), Err(error(ErrorKind::Upstream)), Err(error(ErrorKind::Overloaded).with_code("queue_full")));
    check(std::slice::from_ref(&ok), Reason::Alias, "fast to a of house a", &[]).await;
    check(&[ok.clone(), ok.clone()], Reason::First, "fast to a of house a", &[]).await;
    check(&[down.clone(), ok.clone()], Reason::Fallback, "fast to b of house b", &["a upstream_failed"]).await;
    check(&[down, busy, ok], Reason::Fallback, "fast to c of house c", &["a upstream_failed", "b queue_full"]).await;
}

#[test]
fn a_route_is_a_model_of_its_own() {
    let (fake, first) = target(&Fake::new([]), "a");
    let (other, second) = target(&Fake::new([]), "b");
    let route = Fallback::new("fast", vec![first, second], None);
    assert_eq!(route.models().iter().map(|card| card.id.as_str()).collect::<Vec<_>>(), ["fast"]);
    *fake.broken.lock() = Some(error(ErrorKind::Upstream));
    assert!(route.ready().is_ok());
    *other.broken.lock() = Some(error(ErrorKind::Upstream));
    assert!(route.ready().is_err());
}
