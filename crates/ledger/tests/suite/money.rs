//! Money: budgets admit exactly what they hold, and every sum is the fold of what was charged.

use std::{collections::HashMap, time::Duration};

use ledger::{Accepted, Account, Budget, Charge, Error, Hold, Item, Ledger, Pending, Settled, Window};
use proptest::prelude::*;

use crate::{
    bench::{Bench, request},
    records::{answer, signed},
};

fn hold(account: Account, limit: i64, money: i64) -> Hold {
    let budget = Budget { money: Some(limit), tokens: None, window: Window::Total };
    Hold { account, budget, money, tokens: 0 }
}

pub(crate) async fn a_budget_for_m_admits_exactly_m_of_n(bench: Bench) {
    const M: i64 = 23;
    const N: usize = 100;
    let ledger = bench.open().await;
    let account = Account::key("acme", "k1");
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..N {
        let (ledger, account) = (ledger.clone(), account.clone());
        tasks.spawn(async move {
            let holds = vec![hold(account, M * 1000, 1000), hold(Account::tenant("acme"), i64::MAX, 1000)];
            ledger.accept(ledger::Accepted { holds, ..request(format!("r{n}")) }).await
        });
    }
    let (mut admitted, mut refused) = (vec![], 0);
    for result in tasks.join_all().await {
        match result {
            Ok(pending) => admitted.push(pending),
            Err(Error::OverBudget { .. }) => refused += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!((admitted.len(), refused), (usize::try_from(M).unwrap(), N - 23));
    let balance = ledger.usage().balance(&account, Window::Total).await.unwrap();
    assert_eq!((balance.spent, balance.held), (0, M * 1000));
    for pending in admitted {
        pending.settle(answer()).await.unwrap();
    }
    for account in [account, Account::tenant("acme")] {
        let balance = ledger.usage().balance(&account, Window::Total).await.unwrap();
        assert_eq!((balance.spent, balance.held, balance.spent_tokens), (M * 13, 0, M * 13), "{account}");
    }
    ledger.close().await;
}

pub(crate) async fn a_window_that_begins_within_a_batch_counts_all_of_it(bench: Bench) {
    let ledger = bench.open().await;
    let mut open = vec![];
    for n in 0..64 {
        open.push(ledger.accept(request(format!("r{n}"))).await.unwrap());
    }
    bench.pass(Duration::from_secs(86_400));
    // The first is written at once, the others wait for it and are written together.
    let mut settling: Vec<_> = open.drain(..32).map(|pending| pending.settle(answer())).collect();
    let budget = Budget { money: Some(i64::MAX), tokens: None, window: Window::Day };
    let holds = vec![Hold { account: Account::key("acme", "k1"), budget, money: 1000, tokens: 0 }];
    let fresh = ledger.accept(Accepted { holds, ..request("fresh") });
    let fresh = async { fresh.await.unwrap().settle(answer()).await.unwrap() };
    let rest = async {
        settling.extend(open.drain(..).map(|pending| pending.settle(answer())));
        for done in settling {
            done.await.unwrap();
        }
    };
    tokio::join!(fresh, rest);
    signed(&ledger).await;
    assert_eq!(ledger.verify(None).await.unwrap().problems, []);
    ledger.close().await;
}

/// What may be done to a ledger.
#[derive(Debug, Clone)]
enum Step {
    /// A request of a tenant and key, holding this much money.
    Accept { tenant: u8, key: u8, money: i64 },
    /// One of the open requests ends with this use.
    Settle { which: usize, input: u64, output: u64, price: i64 },
    /// One of them is dropped.
    Drop { which: usize },
    /// The ledger is closed and opened again.
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..2_u8, 0..2_u8, 0..400_i64).prop_map(|(tenant, key, money)| Step::Accept { tenant, key, money }),
        4 => (any::<usize>(), 0..5_000_u64, 0..5_000_u64, 0..40_000_i64)
            .prop_map(|(which, input, output, price)| Step::Settle { which, input, output, price }),
        1 => any::<usize>().prop_map(|which| Step::Drop { which }),
        1 => Just(Step::Reopen),
    ];
    proptest::collection::vec(step, 1..30)
}

const LIMIT: i64 = 1000;

/// What the ledger must say, computed in the plainest way.
#[derive(Default)]
struct Model {
    spent: HashMap<Account, i64>,
    held: HashMap<Account, i64>,
}

impl Model {
    fn admits(&self, account: &Account, money: i64) -> bool {
        let used = self.spent.get(account).unwrap_or(&0) + self.held.get(account).unwrap_or(&0);
        used < LIMIT && used + money <= LIMIT
    }

    fn add(map: &mut HashMap<Account, i64>, tenant: &str, key: &str, money: i64) {
        *map.entry(Account::key(tenant, key)).or_default() += money;
        *map.entry(Account::tenant(tenant)).or_default() += money;
    }
}

/// A request on its way, with what it holds.
type Open = (Pending, String, String, i64);

async fn walk(bench: &Bench, steps: Vec<Step>, run: usize) -> (Ledger, Model, Vec<Open>) {
    let (mut ledger, mut model, mut open) = (bench.open().await, Model::default(), Vec::<Open>::new());
    for (n, step) in steps.into_iter().enumerate() {
        match step {
            Step::Accept { tenant, key, money } => {
                let (tenant, key) = (format!("t{run}-{tenant}"), format!("k{key}"));
                let holds =
                    [Account::key(&tenant, &key), Account::tenant(&tenant)].map(|a| hold(a, LIMIT, money)).to_vec();
                let admits = holds.iter().all(|hold| model.admits(&hold.account, money));
                let id = format!("{run}-{n}");
                let accepted = Accepted { tenant: tenant.clone(), key_id: key.clone(), holds, ..request(id) };
                match ledger.accept(accepted).await {
                    Ok(pending) => {
                        assert!(admits, "admitted over budget");
                        Model::add(&mut model.held, &tenant, &key, money);
                        open.push((pending, tenant, key, money));
                    }
                    Err(Error::OverBudget { .. }) => assert!(!admits, "refused within budget"),
                    Err(other) => panic!("{other}"),
                }
            }
            Step::Settle { which, input, output, price } if !open.is_empty() => {
                let (pending, tenant, key, money) = open.swap_remove(which % open.len());
                let charges =
                    vec![Charge::new(Item::InputTokens, input, price), Charge::new(Item::OutputTokens, output, price)];
                Model::add(&mut model.held, &tenant, &key, -money);
                Model::add(&mut model.spent, &tenant, &key, charges.iter().map(|charge| charge.amount).sum());
                pending.settle(Settled { charges, ..answer() }).await.unwrap();
            }
            Step::Drop { which } if !open.is_empty() => {
                let (_, tenant, key, money) = open.swap_remove(which % open.len());
                Model::add(&mut model.held, &tenant, &key, -money);
            }
            Step::Reopen if open.is_empty() => {
                ledger.close().await;
                ledger = bench.open().await;
            }
            _ => {}
        }
    }
    (ledger, model, open)
}

pub(crate) async fn every_balance_is_the_fold_of_what_was_charged(bench: Bench) {
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 24,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let handle = tokio::runtime::Handle::current();
    let runs = std::cell::Cell::new(0);
    let result = runner.run(&steps(), |steps| {
        runs.set(runs.get() + 1);
        let run = runs.get();
        tokio::task::block_in_place(|| {
            handle.block_on(async {
                let (ledger, model, open) = walk(&bench, steps, run).await;
                for (account, spent) in &model.spent {
                    let balance = ledger.usage().balance(account, Window::Total).await.unwrap();
                    assert_eq!(balance.spent, *spent, "{account}");
                }
                drop(open);
                ledger.close().await;
                let ledger = bench.open().await;
                for account in model.held.keys() {
                    let balance = ledger.usage().balance(account, Window::Total).await.unwrap();
                    assert_eq!(balance.held, 0, "{account}");
                }
                assert_eq!(ledger.verify(None).await.unwrap().problems, []);
                ledger.close().await;
            });
        });
        Ok(())
    });
    result.unwrap();
}
