//! Records: what is written is what is read, by whom it may be.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use ledger::{
    Answered, Charge, Content, Error, Filter, Item, Kind, Ledger, Outcome, Page, Record, Route, Scope, Settled,
};
use protocol::{Step, Usage};
use serde_json::json;

use crate::bench::{Bench, request};

/// An answer like any other.
pub(crate) fn answer() -> Settled {
    Settled {
        outcome: Outcome::Served,
        error: None,
        output: json!("384,400 km"),
        steps: vec![Step {
            step: 1,
            action: "look up".into(),
            result: json!(384_400),
            rule: None,
            inputs: json!({"body": "moon"}),
            duration_us: 12,
            node: None,
        }],
        verdicts: vec![json!({"category": "pii", "action": "none"})],
        route: Route { chosen: "engine".into(), why: "the only one".into(), hops: vec![] },
        answered: Answered { model: "smollm2".into(), adapter: String::new(), digest: "sha256:1".into() },
        usage: Usage { prompt_tokens: 10, cached_tokens: 4, completion_tokens: 7, processor_micros: Some(250_000) },
        latency: [("queue".into(), 5), ("first_token".into(), 90)].into(),
        charges: vec![Charge::new(Item::InputTokens, 6, 1_500_000), Charge::new(Item::OutputTokens, 7, 500_000)],
    }
}

/// Waits until everything written is under a checkpoint.
pub(crate) async fn signed(ledger: &Ledger) {
    for _ in 0..500 {
        let size = ledger.size().await.unwrap();
        if ledger.checkpoint().await.unwrap().is_some_and(|checkpoint| checkpoint.size == size) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("no checkpoint");
}

pub(crate) async fn a_request_is_two_entries_and_reads_as_one_story(bench: Bench) {
    let ledger = bench.open().await;
    let pending = ledger.accept(request("r1")).await.unwrap();
    let running = ledger.record(&Scope::All, "r1").await.unwrap().unwrap();
    assert_eq!((running.outcome, running.log.settled), (None, None));
    pending.settle(answer()).await.unwrap();
    signed(&ledger).await;
    let record = ledger.record(&Scope::All, "r1").await.unwrap().unwrap();
    assert_eq!(record.input_text.as_deref(), Some("user: How far is the moon?"));
    assert_eq!(record.output_decision, Some(json!("384,400 km")));
    assert_eq!(record.inference_steps, answer().steps);
    assert_eq!((record.outcome, record.content), (Some(Outcome::Served), Content::Intact));
    assert_eq!((record.cost, record.charges.len()), (9 + 4, 2));
    assert_eq!((record.kind, record.parameters), (Kind::Chat, json!({"temperature": 0.5})));
    assert_eq!((record.log.accepted, record.log.settled, record.log.checkpointed), (0, Some(1), true));
    let shape = serde_json::to_value(ledger.record(&Scope::All, "r1").await.unwrap()).unwrap();
    for field in ["request_id", "input_text", "inference_steps", "output_decision"] {
        assert!(!shape[field].is_null(), "{field}");
    }
    for field in ["step", "action", "result"] {
        assert!(!shape["inference_steps"][0][field].is_null(), "{field}");
    }
    ledger.close().await;
}

pub(crate) async fn a_dropped_request_is_settled_as_aborted(bench: Bench) {
    let ledger = bench.open().await;
    drop(ledger.accept(request("r1")).await.unwrap());
    // The future is dropped once the entry is on its way.
    let hung_up = tokio::time::timeout(Duration::ZERO, ledger.accept(request("r2"))).await;
    drop(hung_up);
    ledger.close().await;
    let ledger = bench.open().await;
    for id in ["r1", "r2"] {
        let record = ledger.record(&Scope::All, id).await.unwrap().unwrap();
        assert_eq!(record.outcome, Some(Outcome::Aborted), "{id}");
    }
    ledger.close().await;
}

pub(crate) async fn an_id_is_used_once(bench: Bench) {
    let ledger = bench.open().await;
    let (first, second, other) =
        tokio::join!(ledger.accept(request("r1")), ledger.accept(request("r1")), ledger.accept(request("r2")));
    let results = [&first, &second].map(|result| result.is_ok());
    assert_eq!(results.iter().filter(|ok| **ok).count(), 1);
    let refused = [first, second].into_iter().find_map(Result::err).unwrap();
    assert!(matches!(refused, Error::Duplicate(id) if id == "r1"));
    assert!(other.is_ok());
    assert!(matches!(ledger.accept(request("r2")).await, Err(Error::Duplicate(_))));
    ledger.close().await;
}

pub(crate) async fn tenants_see_their_own(bench: Bench) {
    let ledger = bench.open().await;
    for n in 0..7 {
        let tenant = if n % 2 == 0 { "acme" } else { "other" };
        let kind = if n < 4 { Kind::Chat } else { Kind::Decision };
        let accepted = ledger::Accepted { tenant: tenant.into(), kind, ..request(format!("r{n}")) };
        ledger.accept(accepted).await.unwrap().settle(answer()).await.unwrap();
    }
    let ids = async |scope: Scope, filter: Filter, page: Page| {
        let found = ledger.records(&scope, &filter, page, ledger::beginnings).await.unwrap();
        (found.records.into_iter().map(|record| record.request_id).collect::<Vec<_>>(), found.next)
    };
    let (acme, other) = (Scope::Tenant("acme".into()), Scope::Tenant("other".into()));
    assert_eq!(ids(acme.clone(), Filter::default(), Page::default()).await.0, ["r6", "r4", "r2", "r0"]);
    assert_eq!(ids(other.clone(), Filter::default(), Page::default()).await.0, ["r5", "r3", "r1"]);
    assert_eq!(ids(Scope::Tenant(String::new()), Filter::default(), Page::default()).await.0, [""; 0]);
    let chats = Filter { kind: Some(Kind::Chat), outcome: Some(Outcome::Served), ..Filter::default() };
    let (first, next) = ids(Scope::All, chats.clone(), Page { before: None, limit: 3 }).await;
    assert_eq!(first, ["r3", "r2", "r1"]);
    assert_eq!(ids(Scope::All, chats, Page { before: next, limit: 3 }).await, (vec!["r0".into()], None));
    assert!(ledger.record(&other, "r0").await.unwrap().is_none());
    assert!(ledger.record(&acme, "r0").await.unwrap().is_some());
    ledger.close().await;
}

pub(crate) async fn what_a_dead_gateway_left_open_is_closed_as_lost(bench: Bench) {
    let dead = bench.open().await;
    let open = dead.accept(request("r1")).await.unwrap();
    dead.accept(request("r2")).await.unwrap().settle(answer()).await.unwrap();
    // It dies without a word: no drop, no close.
    std::mem::forget(open);
    dead.close().await;
    bench.pass(Duration::from_secs(60));
    let alive = bench.open().await;
    let mut outcome = None;
    for _ in 0..200 {
        outcome = alive.record(&Scope::All, "r1").await.unwrap().unwrap().outcome;
        if outcome.is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(outcome, Some(Outcome::Lost));
    assert_eq!(alive.record(&Scope::All, "r2").await.unwrap().unwrap().outcome, Some(Outcome::Served));
    alive.close().await;
}

/// Long contents do not stand in memory all at once: what goes away while the first of a list are read is missing in the last.
pub(crate) async fn a_list_is_read_in_parts(bench: Bench) {
    let ledger = bench.open().await;
    for n in 0..20 {
        ledger.accept(request(format!("r{n}"))).await.unwrap().settle(answer()).await.unwrap();
    }
    let seen = AtomicUsize::new(0);
    let kept = |record: Record| {
        if seen.fetch_add(1, Ordering::Relaxed) == 0 {
            let gone = bench.sql("DELETE FROM contents");
            tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(gone));
        }
        ledger::beginnings(record)
    };
    let found = ledger.records(&Scope::All, &Filter::default(), Page { before: None, limit: 20 }, kept).await.unwrap();
    let ids: Vec<_> = found.records.iter().map(|record| record.request_id.clone()).collect();
    assert_eq!(ids, (0..20).rev().map(|n| format!("r{n}")).collect::<Vec<_>>());
    assert_eq!(found.records[0].content, Content::Intact);
    assert_eq!(found.records[19].content, Content::Erased);
    assert!(found.records.iter().all(|record| record.input.is_none() && record.inference_steps.is_empty()));
    ledger.close().await;
}
