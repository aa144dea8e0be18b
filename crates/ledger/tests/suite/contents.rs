//! Contents go, the log stays.

use std::time::Duration;

use ledger::{Accepted, Content, Error, Scope};

use crate::{
    bench::{Bench, request},
    records::{answer, signed},
    tamper::filled,
};

async fn content(ledger: &ledger::Ledger, id: &str) -> Content {
    let record = ledger.record(&Scope::All, id).await.unwrap().unwrap();
    assert_eq!(record.input_text.is_some(), record.content == Content::Intact, "{id}");
    assert_eq!(record.output_decision.is_some(), record.content == Content::Intact, "{id}");
    assert_eq!(record.cost, 13, "what was counted stays");
    record.content
}

pub(crate) async fn an_erased_person_is_gone_and_the_log_verifies(bench: Bench) {
    let ledger = filled(&bench, 9).await;
    assert_eq!(ledger.erase("acme", "person 1").await.unwrap(), 6);
    for n in 0..9 {
        let expected = if n % 3 == 1 { Content::Erased } else { Content::Intact };
        assert_eq!(content(&ledger, &format!("r000{n}")).await, expected, "{n}");
    }
    assert!(matches!(ledger.erase("acme", "person 1").await, Err(Error::NotFound(_))));
    assert!(matches!(ledger.erase("other", "person 2").await, Err(Error::NotFound(_))));
    // The same person comes back, under a new key.
    let accepted = Accepted { subject: "person 1".into(), ..request("again") };
    ledger.accept(accepted).await.unwrap().settle(answer()).await.unwrap();
    assert_eq!(content(&ledger, "again").await, Content::Intact);
    signed(&ledger).await;
    let found = ledger.verify(None).await.unwrap();
    assert_eq!((found.problems, found.erased, found.contents), (vec![], 6, 14));
    ledger.close().await;
}

pub(crate) async fn an_erasure_is_seen_by_other_gateways(bench: Bench) {
    let (one, two) = (bench.open().await, bench.open().await);
    for (ledger, id) in [(&one, "a"), (&two, "b")] {
        ledger.accept(request(id)).await.unwrap().settle(answer()).await.unwrap();
    }
    one.erase("acme", "ann@example.com").await.unwrap();
    // The other one still has the destroyed key at hand; it must not seal with it.
    two.accept(request("c")).await.unwrap().settle(answer()).await.unwrap();
    assert_eq!(content(&one, "b").await, Content::Erased);
    assert_eq!(content(&one, "c").await, Content::Intact);
    signed(&one).await;
    assert_eq!(one.verify(None).await.unwrap().problems, []);
    one.close().await;
    two.close().await;
}

pub(crate) async fn old_contents_expire_and_the_log_stays(bench: Bench) {
    let ledger = filled(&bench, 700).await;
    bench.pass(Duration::from_secs(40 * 86_400));
    ledger.accept(request("new")).await.unwrap().settle(answer()).await.unwrap();
    assert_eq!(ledger.expire(Duration::from_secs(30 * 86_400)).await.unwrap(), 1400);
    assert_eq!(ledger.expire(Duration::from_secs(30 * 86_400)).await.unwrap(), 0);
    assert_eq!(content(&ledger, "r0001").await, Content::Erased);
    assert_eq!(content(&ledger, "new").await, Content::Intact);
    signed(&ledger).await;
    let found = ledger.verify(None).await.unwrap();
    assert_eq!((found.problems, found.entries), (vec![], 1403));
    ledger.close().await;
}

/// Content of the newest request is moved away behind the log's back. Nothing that was taken away before, from others or of another age explains that.
pub(crate) async fn content_that_is_missing_without_its_reason_is_named(bench: Bench) {
    let ledger = bench.open().await;
    let day = Duration::from_secs(86_400);
    let ask = async |id: &str, tenant: &str| {
        let accepted = Accepted { tenant: tenant.into(), ..request(id) };
        ledger.accept(accepted).await.unwrap().settle(answer()).await.unwrap();
    };
    let named = async || {
        signed(&ledger).await;
        let problems = ledger.verify(None).await.unwrap().problems;
        problems.into_iter().map(|problem| (problem.request_id.unwrap(), problem.what)).collect::<Vec<_>>()
    };
    ask("before", "acme").await;
    ledger.erase("acme", "ann@example.com").await.unwrap();
    ask("old", "acme").await;
    bench.pass(40 * day);
    ask("moved", "acme").await;
    ask("other", "other").await;
    ledger.erase("other", "ann@example.com").await.unwrap();
    assert_eq!(ledger.expire(30 * day).await.unwrap(), 2);
    assert_eq!(named().await, []);
    bench
        .sql("DELETE FROM contents WHERE idx IN (SELECT idx FROM entries WHERE request_id = 'moved' AND phase = 1)")
        .await;
    let what = "its content is missing, and no entry says that it was erased";
    assert_eq!(named().await, [("moved".to_owned(), what.to_owned())]);
    ledger.close().await;
}
