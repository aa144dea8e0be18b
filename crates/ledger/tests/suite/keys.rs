//! API keys, and what two gateways on one store share.

use std::time::Duration;

use ledger::{Account, Budget, Error, Grant, Hold, Limits, Outcome, Role, Scope, Settled, Window};

use crate::{
    bench::{Bench, request},
    records::{answer, signed},
};

/// What a key like any other may do.
pub(crate) fn grant(tenant: &str) -> Grant {
    Grant {
        name: "laptop".into(),
        tenant: tenant.into(),
        role: Role::User,
        models: vec!["smollm2".into()],
        limits: Limits { requests: Some(60), tokens: None },
        budgets: vec![Budget { money: Some(1_000_000_000), tokens: None, window: Window::Month }],
        expires_at: None,
    }
}

pub(crate) async fn a_secret_is_shown_once_and_found(bench: Bench) {
    let ledger = bench.open().await;
    let keys = ledger.keys();
    assert!(!keys.exist());
    let (key, secret) = keys.create(grant("acme")).await.unwrap();
    let (_, other) = keys.create(grant("other")).await.unwrap();
    assert!(keys.exist() && secret.starts_with("tsk-") && secret.contains(&key.id));
    assert_eq!(keys.find(&secret).unwrap().grant, grant("acme"));
    for wrong in ["", "tsk-", "tsk-nobody-123", &secret[..secret.len() - 1], &format!("{secret}0"), &key.id] {
        assert!(keys.find(wrong).is_none(), "{wrong}");
    }
    let swapped = format!("tsk-{}-{}", key.id, other.rsplit('-').next().unwrap());
    assert!(keys.find(&swapped).is_none());
    let listed = keys.list(Some("acme")).await.unwrap();
    assert_eq!((listed.len(), keys.list(None).await.unwrap().len()), (1, 2));
    assert!(listed[0].used_at.is_some());
    let expiring = Grant { expires_at: Some(bench.settings().clock.now() + 1_000_000), ..grant("acme") };
    let (_, expiring) = keys.create(expiring).await.unwrap();
    assert!(keys.find(&expiring).is_some());
    bench.pass(Duration::from_secs(2));
    assert!(keys.find(&expiring).is_none());
    assert!(matches!(keys.create(grant("")).await, Err(Error::Malformed(_))));
    ledger.close().await;
    // What was used is known afterwards.
    let ledger = bench.open().await;
    assert_eq!(ledger.keys().find(&secret).unwrap().grant, grant("acme"));
    ledger.close().await;
}

pub(crate) async fn a_revocation_is_seen_by_another_gateway(bench: Bench) {
    let (one, two) = (bench.open().await, bench.open().await);
    let (key, secret) = one.keys().create(grant("acme")).await.unwrap();
    let seen = async |there: bool| {
        for _ in 0..100 {
            if two.keys().find(&secret).is_some() == there {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("not seen");
    };
    seen(true).await;
    one.keys().revoke(&key.id).await.unwrap();
    assert!(one.keys().find(&secret).is_none(), "here at once");
    seen(false).await;
    assert!(matches!(one.keys().revoke(&key.id).await, Err(Error::NotFound(_))));
    assert!(one.keys().list(None).await.unwrap()[0].revoked_at.is_some());
    one.close().await;
    two.close().await;
}

pub(crate) async fn two_gateways_share_log_and_budgets(bench: Bench) {
    const ADMITTED: usize = 17;
    let gateways = [bench.open().await, bench.open().await];
    let account = Account::key("acme", "k1");
    let budget = Budget { money: None, tokens: Some(100 * 17), window: Window::Day };
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..60 {
        let (gateway, account) = (gateways[n % 2].clone(), account.clone());
        tasks.spawn(async move {
            let holds = vec![Hold { account, budget, money: 0, tokens: 100 }];
            gateway.accept(ledger::Accepted { holds, ..request(format!("r{n}")) }).await
        });
    }
    let done = tasks.join_all().await;
    assert!(done.iter().all(|result| matches!(result, Ok(_) | Err(Error::OverBudget { .. }))));
    let admitted: Vec<_> = done.into_iter().filter_map(Result::ok).collect();
    assert_eq!(admitted.len(), ADMITTED);
    let ids: Vec<_> = admitted.iter().map(|pending| pending.request_id().to_owned()).collect();
    for pending in admitted {
        pending.settle(answer()).await.unwrap();
    }
    for gateway in &gateways {
        signed(gateway).await;
        assert_eq!(gateway.size().await.unwrap(), 2 * ADMITTED as u64);
        for id in &ids {
            assert_eq!(gateway.record(&Scope::All, id).await.unwrap().unwrap().outcome, Some(Outcome::Served));
        }
    }
    assert_eq!(gateways[0].verify(None).await.unwrap().problems, []);
    for gateway in gateways {
        gateway.close().await;
    }
}

pub(crate) async fn gateways_in_turns_know_what_the_other_did(bench: Bench) {
    const ADMITTED: usize = 10;
    let gateways = [bench.open().await, bench.open().await];
    let account = Account::key("acme", "k1");
    let budget = Budget { money: None, tokens: Some(100 * 10), window: Window::Day };
    let accept = |n: usize| {
        let holds = vec![Hold { account: account.clone(), budget, money: 0, tokens: 100 }];
        // Twice each: the second time it knows what it left there.
        gateways[n / 2 % 2].accept(ledger::Accepted { holds, ..request(format!("r{n}")) })
    };
    let mut admitted = vec![];
    for n in 0..ADMITTED {
        admitted.push(accept(n).await.unwrap());
    }
    for n in ADMITTED..ADMITTED + 4 {
        assert!(matches!(accept(n).await, Err(Error::OverBudget { .. })), "{n}");
    }
    // What one gives back the other may take.
    admitted.pop().unwrap().settle(Settled::default()).await.unwrap();
    let last = accept(ADMITTED + 6).await.unwrap();
    for pending in admitted.into_iter().chain([last]) {
        pending.settle(answer()).await.unwrap();
    }
    for gateway in &gateways {
        signed(gateway).await;
    }
    assert_eq!(gateways[0].verify(None).await.unwrap().problems, []);
    for gateway in gateways {
        gateway.close().await;
    }
}
