//! Feedback and conversions join their request, are charged once, and go with the person; moves of a rollout are made once.

use std::time::Duration;

use ledger::{
    Account, Budget, Content, Conversion, Course, Error, Feedback, Filter, Hold, Ledger, Move, Page, Period, Receipt,
    Record, Scope, Settled, Take, Unbilled, ValuePrice, Window,
};

use crate::{
    bench::{Bench, request},
    records::{answer, signed},
};

const UNIT: i64 = 1_000_000_000;
const DAY: Duration = Duration::from_secs(86_400);

fn order(key: &str, value: i64) -> Feedback {
    let conversion = Conversion { name: "order".into(), value, currency: "EUR".into() };
    Feedback { given_by: "k2".into(), key: key.into(), conversion: Some(conversion), ..Feedback::default() }
}

/// Two in a hundred, of orders within 30 days, one unit at most.
fn price() -> ValuePrice {
    ValuePrice { take: Take::Share(20_000), window: 30 * DAY, cap: Some(UNIT), currency: "EUR".into() }
}

async fn served(ledger: &Ledger, id: &str) -> Record {
    ledger.accept(request(id)).await.unwrap().settle(answer()).await.unwrap();
    read(ledger, id).await
}

async fn read(ledger: &Ledger, id: &str) -> Record {
    ledger.record(&Scope::All, id).await.unwrap().unwrap()
}

async fn sound(ledger: &Ledger) -> ledger::Verification {
    signed(ledger).await;
    let found = ledger.verify(None).await.unwrap();
    assert_eq!(found.problems, []);
    found
}

pub(crate) async fn feedback_reads_with_its_request(bench: Bench) {
    let ledger = bench.open().await;
    let record = served(&ledger, "r1").await;
    served(&ledger, "r2").await;
    let words = Feedback {
        given_by: "k1".into(),
        rating: Some(0.25),
        correction: Some("384,400 kilometres".into()),
        comment: Some("units".into()),
        ..Feedback::default()
    };
    for _ in 0..2 {
        let receipt = ledger.give(&record, words.clone(), None).await.unwrap();
        assert!(!receipt.repeated, "without a key every one is another");
    }
    let filter = Filter { with_feedback: true, ..Filter::default() };
    let (acme, other) = (Scope::Tenant("acme".into()), Scope::Tenant("other".into()));
    let found = ledger.records(&acme, &filter, Page::default(), |record| record).await.unwrap().records;
    assert_eq!(found.iter().map(|record| &*record.request_id).collect::<Vec<_>>(), ["r1"]);
    assert!(ledger.records(&other, &filter, Page::default(), |record| record).await.unwrap().records.is_empty());
    let [first, second] = &found[0].feedback[..] else { panic!("{found:?}") };
    assert_eq!((first.rating, first.correction.as_deref()), (Some(0.25), Some("384,400 kilometres")));
    assert_eq!((first.comment.as_deref(), &*first.given_by, first.content), (Some("units"), "k1", Content::Intact));
    assert!(first.index < second.index && first.id != second.id);
    assert_eq!(sound(&ledger).await.contents, 6);
    assert_eq!(ledger.prove(&acme, "r1", true).await.unwrap().len(), 4);
    // The person goes, and the words with them; what was counted stays.
    ledger.erase("acme", "ann@example.com").await.unwrap();
    let gone = read(&ledger, "r1").await;
    assert_eq!((gone.feedback[0].content, &gone.feedback[0].correction), (Content::Erased, &None));
    assert_eq!(gone.feedback[0].rating, Some(0.25));
    assert!(matches!(ledger.give(&record, words, None).await, Err(Error::NotFound(_))), "nobody could erase these");
    let rating = Feedback { rating: Some(1.0), ..Feedback::default() };
    ledger.give(&record, rating, None).await.unwrap();
    assert_eq!(sound(&ledger).await.erased, 6);
    ledger.close().await;
}

pub(crate) async fn feedback_that_says_nothing_is_refused(bench: Bench) {
    let ledger = bench.open().await;
    let record = served(&ledger, "r1").await;
    for (wrong, word) in [
        (Feedback::default(), "something"),
        (Feedback { rating: Some(1.5), ..Feedback::default() }, "between 0 and 1"),
        (order("", UNIT), "key"),
        (order("k", -1), "value"),
        (order("k", i64::MAX), "value"),
        (order(&"k".repeat(129), 1), "128"),
    ] {
        let error = ledger.give(&record, wrong.clone(), Some(&price())).await.unwrap_err();
        assert!(matches!(&error, Error::Malformed(why) if why.contains(word)), "{wrong:?}: {error}");
    }
    assert_eq!(ledger.size().await.unwrap(), 2);
    ledger.close().await;
}

/// What each conversion is charged, or why nothing; bill, balances and log agree in the end.
pub(crate) async fn a_conversion_is_charged_once_and_in_time(bench: Bench) {
    let ledger = bench.open().await;
    let record = served(&ledger, "r1").await;
    let broken = Settled { outcome: ledger::Outcome::Failed, ..Settled::default() };
    ledger.accept(request("broken")).await.unwrap().settle(broken).await.unwrap();
    let check = async |what: &str, receipt: Receipt, expected: Result<i64, Option<Unbilled>>| {
        let Receipt { given, repeated } = receipt;
        let found = match &given.charges[..] {
            [charge] if !repeated => Ok(charge.amount),
            _ => Err(given.unbilled),
        };
        assert_eq!(found, expected, "{what}");
    };
    let give = async |record: &Record, feedback, price: Option<&ValuePrice>| {
        ledger.give(record, feedback, price).await.unwrap()
    };
    let price = price();
    check("an order", give(&record, order("a", 12 * UNIT), Some(&price)).await, Ok(240_000_000)).await;
    check("again", give(&record, order("a", 99 * UNIT), Some(&price)).await, Err(None)).await;
    check("another one, capped", give(&record, order("b", 900 * UNIT), Some(&price)).await, Ok(UNIT)).await;
    check("no price", give(&record, order("c", UNIT), None).await, Err(Some(Unbilled::NoPrice))).await;
    let broken = read(&ledger, "broken").await;
    check("failed", give(&broken, order("a", UNIT), Some(&price)).await, Err(Some(Unbilled::NotServed))).await;
    let dollars = ValuePrice { currency: "USD".into(), ..price.clone() };
    let other = Err(Some(Unbilled::OtherCurrency));
    check("another currency", give(&record, order("d", UNIT), Some(&dollars)).await, other).await;
    bench.pass(29 * DAY);
    let fixed = ValuePrice { take: Take::Amount(50), ..price.clone() };
    check("an amount", give(&record, order("e", 0), Some(&fixed)).await, Ok(50)).await;
    bench.pass(DAY);
    check("too late", give(&record, order("f", UNIT), Some(&price)).await, Err(Some(Unbilled::OutsideWindow))).await;
    check("late, again", give(&record, order("a", 12 * UNIT), Some(&price)).await, Err(None)).await;

    let value = 240_000_000 + UNIT + 50;
    let bill = ledger.usage().bill("acme", Period { starts: 0, ends: i64::MAX }).await.unwrap();
    let of =
        |item: ledger::Item| bill.iter().find(|line| line.item == item).map(|l| (&*l.key_id, l.quantity, l.amount));
    assert_eq!(of(ledger::Item::Value), Some(("k1", 912 * UNIT.unsigned_abs(), 240_000_000 + UNIT)));
    assert_eq!(of(ledger::Item::Conversions), Some(("k1", 1, 50)));
    for account in [Account::key("acme", "k1"), Account::tenant("acme")] {
        let balance = ledger.usage().balance(&account, Window::Total).await.unwrap();
        assert_eq!(balance.spent, 13 + value, "{account}");
    }
    let told = read(&ledger, "r1").await;
    let charged: i64 = told.feedback.iter().flat_map(|given| &given.charges).map(|charge| charge.amount).sum();
    assert_eq!((told.cost, charged, told.feedback.len()), (13, value, 6));
    assert_eq!(sound(&ledger).await.usage, 2 + 3);
    ledger.close().await;
}

/// A budget counts what conversions cost although it does not refuse them; a hundred senders of one order are one.
pub(crate) async fn conversions_count_against_budgets_and_once_among_many(bench: Bench) {
    let ledger = bench.open().await;
    let account = Account::key("acme", "k1");
    let budget = Budget { money: Some(UNIT), tokens: None, window: Window::Total };
    let hold = |money| vec![Hold { account: account.clone(), budget, money, tokens: 0 }];
    let accepted = ledger::Accepted { holds: hold(20), ..request("r1") };
    ledger.accept(accepted).await.unwrap().settle(answer()).await.unwrap();
    let record = read(&ledger, "r1").await;
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..100 {
        let (ledger, record) = (ledger.clone(), record.clone());
        tasks.spawn(async move { ledger.give(&record, order("a", (n + 1) * UNIT), Some(&price())).await.unwrap() });
    }
    let receipts = tasks.join_all().await;
    assert_eq!(receipts.iter().filter(|receipt| !receipt.repeated).count(), 1);
    let first = &receipts[0].given;
    assert!(receipts.iter().all(|receipt| receipt.given == *first), "all are told the same");
    ledger.give(&record, order("b", 500 * UNIT), Some(&price())).await.unwrap();
    let refused = ledger.accept(ledger::Accepted { holds: hold(1), ..request("r2") }).await.unwrap_err();
    assert!(matches!(refused, Error::OverBudget { .. }), "{refused}");
    let spent = ledger.usage().balance(&account, Window::Total).await.unwrap().spent;
    assert_eq!(spent, 13 + first.charges[0].amount + UNIT);
    sound(&ledger).await;
    ledger.close().await;
}

fn first_move() -> Move {
    Move {
        rollout: "support".into(),
        canary: "new".into(),
        number: 0,
        at: 1,
        share: 5,
        course: Course::Running,
        why: "a new version".into(),
        by: String::new(),
    }
}

/// Of two gateways that move at the same time one comes second; both then read the same state, and after a restart.
pub(crate) async fn a_rollout_is_moved_once_and_for_all(bench: Bench) {
    let (one, two) = (bench.open().await, bench.open().await);
    assert_eq!(one.last_move("support", "new").await.unwrap(), None);
    let first = first_move();
    one.record_move(&first).await.unwrap();
    assert_eq!(two.last_move("support", "new").await.unwrap(), Some(first.clone()));
    assert_eq!(two.last_move("support", "old").await.unwrap(), None);
    one.keep_figures(&first, "one", "[1]").await.unwrap();
    one.keep_figures(&first, "one", "[2]").await.unwrap();
    two.keep_figures(&first, "two", "[3]").await.unwrap();
    assert_eq!(one.figures_of_others(&first, "one").await.unwrap(), ["[3]"]);
    assert_eq!(two.figures_of_others(&first, "none").await.unwrap(), ["[2]", "[3]"]);
    let up = Move { number: 1, share: 25, why: "fine".into(), ..first.clone() };
    let back = Move { number: 1, share: 0, course: Course::RolledBack, why: "worse".into(), ..first.clone() };
    let (a, b) = tokio::join!(one.record_move(&up), two.record_move(&back));
    let won = match (a, b) {
        (Ok(()), Err(Error::Duplicate(_))) => up,
        (Err(Error::Duplicate(_)), Ok(())) => back,
        other => panic!("{other:?}"),
    };
    assert!(
        one.figures_of_others(&first, "none").await.unwrap().is_empty(),
        "what was counted goes with the next move"
    );
    for ledger in [one, two] {
        assert_eq!(ledger.last_move("support", "new").await.unwrap().as_ref(), Some(&won));
        sound(&ledger).await;
        ledger.close().await;
    }
    let again = bench.open().await;
    assert_eq!(again.last_move("support", "new").await.unwrap(), Some(won));
    again.close().await;
}

/// A table that says something else than the log is found.
pub(crate) async fn tables_beside_the_log_are_compared_with_it(bench: Bench) {
    let ledger = bench.open().await;
    let record = served(&ledger, "r1").await;
    served(&ledger, "r2").await;
    ledger.give(&record, order("a", UNIT), Some(&price())).await.unwrap();
    ledger.record_move(&first_move()).await.unwrap();
    ledger.record_move(&Move { number: 1, share: 25, ..first_move() }).await.unwrap();
    sound(&ledger).await;
    let copy = Bench::sqlite();
    let file = copy.path().join("backup.db");
    ledger.backup(&file).await.unwrap();
    copy.share_keys(&ledger);
    let (restored, _) = Ledger::restore(copy.settings(), &file).await.unwrap();
    assert_eq!(read(&restored, "r1").await.feedback, read(&ledger, "r1").await.feedback);
    assert_eq!(restored.last_move("support", "new").await.unwrap().map(|moved| moved.share), Some(25));
    restored.close().await;
    for (harm, mend, what) in [
        ("UPDATE feedback SET request_id = 'r2'", "UPDATE feedback SET request_id = 'r1'", "table of feedback"),
        ("INSERT INTO feedback VALUES ('x', 'r1')", "DELETE FROM feedback WHERE id = 'x'", "has no entry"),
        (
            "UPDATE usage SET amount = 1 WHERE item = 'value'",
            "UPDATE usage SET amount = 20000000 WHERE item = 'value'",
            "usage rows are not what",
        ),
        (
            "UPDATE rollouts SET entry = (SELECT MIN(request_id) FROM entries WHERE request_id LIKE 'move-%-0')",
            "UPDATE rollouts SET entry = (SELECT MIN(request_id) FROM entries WHERE request_id LIKE 'move-%-1')",
            "newest moves",
        ),
    ] {
        assert!(bench.sql(harm).await > 0, "{harm}");
        let found = ledger.verify(None).await.unwrap().problems;
        assert!(found.iter().any(|problem| problem.what.contains(what)), "{harm}: {found:?}");
        bench.sql(mend).await;
        sound(&ledger).await;
    }
    ledger.close().await;
}
