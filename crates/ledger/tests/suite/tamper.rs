//! What is done to the store behind the ledger's back is found, and the first bad entry named.

use ledger::{Accepted, Error, Ledger, Proof, Scope, Settled, Verification, Verifier};

use crate::{
    bench::{Bench, request},
    records::{answer, signed},
};

/// `requests` requests, two entries each, all of them signed.
pub(crate) async fn filled(bench: &Bench, requests: usize) -> Ledger {
    let ledger = bench.open().await;
    let mut pending = tokio::task::JoinSet::new();
    for n in 0..requests {
        let writing = ledger.clone();
        pending.spawn(async move {
            let subject = format!("person {}", n % 3);
            let accepted = Accepted { subject, ..request(format!("r{n:04}")) };
            writing.accept(accepted).await.unwrap().settle(answer()).await.unwrap();
        });
        if n % 50 == 0 {
            while pending.join_next().await.is_some() {}
            signed(&ledger).await;
        }
    }
    while pending.join_next().await.is_some() {}
    signed(&ledger).await;
    ledger
}

async fn verified(bench: &Bench) -> Verification {
    let ledger = bench.open().await;
    let found = ledger.verify(None).await.unwrap();
    ledger.close().await;
    found
}

pub(crate) async fn a_log_that_nobody_touched_verifies(bench: Bench) {
    let ledger = filled(&bench, 300).await;
    let open = ledger.accept(request("open")).await.unwrap();
    let found = ledger.verify(ledger.checkpoint().await.unwrap().as_ref()).await.unwrap();
    assert_eq!(found.problems, []);
    assert_eq!((found.entries, found.contents, found.usage, found.erased), (601, 601, 600, 0));
    assert!(found.checkpoints > 1 && found.signed >= 600);
    open.settle(Settled::default()).await.unwrap();
    ledger.close().await;
    assert_eq!(verified(&bench).await.problems, []);
}

/// Two entries with all that belongs to them, in each other's place.
fn swap(a: u64, b: u64) -> Vec<String> {
    let moves = [(a, 1_000_000), (b, a), (1_000_000, b)];
    let tables = ["entries", "contents"].iter();
    let swap = |table| moves.map(|(from, to)| format!("UPDATE {table} SET idx = {to} WHERE idx = {from}"));
    tables.flat_map(swap).collect()
}

/// What is done, and the first entry that must be named for it.
pub(crate) async fn whatever_is_touched_is_named(bench: Bench) {
    let ledger = filled(&bench, 300).await;
    let check = async |what: &str, harm: &[String], first: u64, part: &str| {
        let copy = Copy::of(&ledger).await;
        for sql in harm {
            assert!(copy.bench.sql(sql).await > 0, "{what}: {sql}");
        }
        let found = copy.verify().await;
        let problem = found.problems.first().unwrap_or_else(|| panic!("{what}: not found"));
        assert_eq!(problem.entry, Some(first), "{what}: {problem:?}");
        assert!(problem.what.contains(part), "{what}: {problem:?}");
    };
    let one = async |what: &str, sql: &str, first: u64, part: &str| check(what, &[sql.to_owned()], first, part).await;
    one("a body changed", "UPDATE entries SET body = x'00' WHERE idx = 77", 77, "altered").await;
    one("two bodies changed", "UPDATE entries SET body = x'00' WHERE idx IN (9, 400)", 9, "altered").await;
    one("the last body changed", "UPDATE entries SET body = x'00' WHERE idx = 599", 599, "altered").await;
    one("a leaf changed", "UPDATE entries SET leaf = zeroblob(32) WHERE idx = 12", 12, "leaf").await;
    one("an entry dropped", "DELETE FROM entries WHERE idx = 301", 301, "missing").await;
    one("the end cut off", "DELETE FROM entries WHERE idx >= 580", 580, "missing").await;
    one("a tile changed", "UPDATE tiles SET data = zeroblob(8192) WHERE n = 1", 256, "tile").await;
    one("a tenant changed", "UPDATE entries SET tenant = 'other' WHERE idx = 5", 5, "columns").await;
    one("a content changed", "UPDATE contents SET sealed = zeroblob(50) WHERE idx = 8", 8, "content").await;
    one("a content moved away", "DELETE FROM contents WHERE idx = 14", 14, "content is missing").await;
    let moved = "UPDATE contents SET sealed = (SELECT o.sealed FROM contents o WHERE o.idx = 26) WHERE idx = 20";
    one("a content put in another's place", moved, 20, "content").await;
    let place = ledger.record(&Scope::All, "r0031").await.unwrap().unwrap().log.settled.unwrap();
    one("a bill changed", "UPDATE usage SET amount = 0 WHERE request_id = 'r0031'", place, "usage").await;
    one("a bill dropped", "DELETE FROM usage WHERE request_id = 'r0031'", place, "usage").await;
    check("two entries swapped, leaves too", &swap(40, 200), 40, "tile").await;
    check("two entries of the edge swapped, leaves too", &swap(520, 530), 520, "signed").await;
    ledger.close().await;
}

/// A copy of a ledger to do harm to: always in SQLite, as backups are.
struct Copy {
    bench: Bench,
    ledger: Ledger,
}

impl Copy {
    async fn of(ledger: &Ledger) -> Self {
        let bench = Bench::sqlite();
        let file = bench.path().join("backup.db");
        ledger.backup(&file).await.unwrap();
        bench.share_keys(ledger);
        let (ledger, _) = Ledger::restore(bench.settings(), &file).await.unwrap();
        Self { bench, ledger }
    }

    async fn verify(self) -> Verification {
        let found = self.ledger.verify(None).await.unwrap();
        self.ledger.close().await;
        found
    }
}

pub(crate) async fn a_cut_off_end_shows_against_a_checkpoint_from_outside(bench: Bench) {
    let ledger = filled(&bench, 60).await;
    let outside = ledger.checkpoint().await.unwrap().unwrap();
    let public = ledger.verifier().to_string();
    ledger.close().await;
    // Whoever has the store can cut off the end and all that speaks of it.
    for sql in [
        "DELETE FROM contents WHERE idx >= 102",
        "DELETE FROM usage WHERE request_id IN (SELECT request_id FROM entries WHERE idx >= 102)",
        "DELETE FROM entries WHERE idx >= 102",
        "DELETE FROM checkpoints WHERE size > 102",
        "DELETE FROM edges",
    ] {
        assert!(bench.sql(sql).await > 0, "{sql}");
    }
    let error = Ledger::open(bench.settings()).await.unwrap_err().to_string();
    assert!(error.contains("whose first 120 entries were signed") && error.contains(".checkpoint"), "{error}");
    // Whoever has the directory of the keys as well can take that away, too.
    forget(&bench);
    let ledger = bench.open().await;
    assert_eq!(ledger.verify(None).await.unwrap().problems, [], "from inside nothing shows");
    let checkpoint = Verifier::decode(&public).unwrap().open(&outside.note).unwrap();
    let found = ledger.verify(Some(&checkpoint)).await.unwrap();
    let first = found.problems.first().unwrap();
    assert_eq!(first.entry, Some(102));
    assert!(first.what.contains("entries 102 to 119 are missing"), "{first:?}");
    ledger.close().await;
}

/// Removes what is kept beside the keys.
fn forget(bench: &Bench) {
    for file in std::fs::read_dir(bench.path().join("keys")).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "checkpoint") {
            std::fs::remove_file(path).unwrap();
        }
    }
}

/// Without its checkpoints a log could be written anew, and be signed by the next start.
pub(crate) async fn a_log_that_was_written_anew_is_not_signed(bench: Bench) {
    filled(&bench, 20).await.close().await;
    for sql in [
        "UPDATE entries SET leaf = (SELECT leaf FROM entries WHERE idx = 1) WHERE idx = 0",
        "DELETE FROM checkpoints",
        "DELETE FROM edges",
    ] {
        assert!(bench.sql(sql).await > 0, "{sql}");
    }
    let error = Ledger::open(bench.settings()).await.unwrap_err();
    assert!(matches!(error, Error::Altered(_)), "{error}");
}

pub(crate) async fn a_log_that_was_altered_is_not_signed_on(bench: Bench) {
    let ledger = filled(&bench, 20).await;
    // Behind the back of a running gateway.
    bench.sql("DELETE FROM entries WHERE idx >= 30").await;
    for (id, subject) in [("more", "person 0"), ("someone new", "person 9")] {
        let error = ledger.accept(Accepted { subject: subject.into(), ..request(id) }).await.unwrap_err();
        assert!(matches!(error, Error::Altered(_)), "{id}: {error}");
    }
    ledger.close().await;
    let error = Ledger::open(bench.settings()).await.unwrap_err();
    assert!(matches!(error, Error::Altered(_)), "{error}");
}

pub(crate) async fn proofs_hold_offline_and_only_for_what_they_prove(bench: Bench) {
    let ledger = filled(&bench, 10).await;
    let early = ledger.checkpoint().await.unwrap().unwrap();
    for n in 0..200 {
        ledger.accept(request(format!("more{n}"))).await.unwrap().settle(answer()).await.unwrap();
    }
    signed(&ledger).await;
    let verifier = Verifier::decode(&ledger.verifier().to_string()).unwrap();
    let proofs = ledger.prove(&Scope::All, "r0007", true).await.unwrap();
    let hidden = ledger.prove(&Scope::All, "r0007", false).await.unwrap();
    assert!(matches!(ledger.prove(&Scope::Tenant("other".into()), "r0007", false).await, Err(Error::NotFound(_))));
    let consistency = ledger.continues(&early).await.unwrap();
    ledger.close().await;

    let text = serde_json::to_string(&proofs).unwrap();
    let proofs: Vec<Proof> = serde_json::from_str(&text).unwrap();
    assert_eq!(proofs.len(), 2);
    let shown = proofs[1].check(&verifier).unwrap();
    assert_eq!(shown.content.unwrap()["output"], "384,400 km");
    assert_eq!(shown.entry["request_id"], "r0007");
    assert_eq!(hidden[1].check(&verifier).unwrap().content, None);
    let wrong = |change: fn(&mut Proof)| {
        let mut proof = proofs[1].clone();
        change(&mut proof);
        assert!(proof.check(&verifier).is_err());
    };
    wrong(|proof| proof.index += 1);
    wrong(|proof| proof.index = u64::MAX);
    wrong(|proof| proof.entry = proof.entry.replace("served", "failed"));
    wrong(|proof| proof.content = Some("aGVsbG8=".into()));
    wrong(|proof| drop(proof.hashes.pop()));
    wrong(|proof| proof.hashes.reverse());
    wrong(|proof| proof.hashes[0] = "no hash".into());
    wrong(|proof| proof.checkpoint = proof.checkpoint.replace('4', "5"));
    assert_eq!(consistency.check(&verifier).unwrap(), (early.size, early.size + 400));
    let mut broken = consistency.clone();
    broken.hashes.swap(0, 1);
    assert!(broken.check(&verifier).is_err());
}
