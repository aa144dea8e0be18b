//! Money: budgets admit exactly what they hold, and every sum is the fold of what was charged.

use ledger::{Account, Budget, Error, Hold, Window};

use crate::{
    bench::{Bench, request},
    records::answer,
};

fn hold(account: Account, limit: i64, money: i64) -> Hold {
    let budget = Budget { money: Some(limit), tokens: None, window: Window::Month };
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
    let balance = ledger.usage().balance(&account, Window::Month).await.unwrap();
    assert_eq!((balance.spent, balance.held), (0, M * 1000));
    for pending in admitted {
        pending.settle(answer()).await.unwrap();
    }
    for account in [account, Account::tenant("acme")] {
        let balance = ledger.usage().balance(&account, Window::Month).await.unwrap();
        assert_eq!((balance.spent, balance.held, balance.spent_tokens), (M * 13, 0, M * 13), "{account}");
    }
    ledger.close().await;
}
