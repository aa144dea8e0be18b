//! Two gateways on one PostgreSQL: keys, budgets and the log are shared, and either may be killed under load. What a client got whole has its
//! settled record, what it did not is closed, and the sums are those of the records.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use ledger::{Account, Outcome, Window};
use parking_lot::Mutex;
use reqwest::Client;
use tokio::{task::JoinSet, time::sleep};

use crate::{
    bench::{House, Process, ask, client, id, records, run},
    postgres::Server,
};

const CLIENTS: usize = 12;

#[test]
fn either_of_two_gateways_may_be_killed() {
    killed(2);
}

#[test]
#[ignore = "slow: fifty kills under load"]
fn slow_fifty_kills_of_gateways_under_load() {
    killed(50);
}

/// Kills one gateway and the other in turns, this many times, each at another moment of its work.
fn killed(rounds: usize) {
    let Some(server) = Server::start() else { return };
    run(async {
        let house = House::new(Some(server.database("shared")), "").await;
        let key = house.key(&["--tenant", "acme"]);
        let mut gateways = [house.start(), house.start()];
        let bases = Arc::new(Mutex::new(gateways.each_ref().map(|gateway| gateway.base.clone())));
        let over = Arc::new(AtomicBool::new(false));
        let clients = load(&bases, &key, &over);
        for round in 0..rounds {
            sleep(moment(round)).await;
            gateways[round % 2].kill();
            sleep(moment(round + 1)).await;
            gateways[round % 2] = house.start();
            bases.lock()[round % 2].clone_from(&gateways[round % 2].base);
        }
        sleep(moment(rounds)).await;
        over.store(true, Ordering::Release);
        let whole: Vec<String> = clients.join_all().await.into_iter().flatten().collect();
        for gateway in gateways {
            gateway.stop();
        }
        settled(&house, &whole).await;
    });
}

/// Between one blow and the next: another moment every time, without a clock in it.
fn moment(round: usize) -> Duration {
    Duration::from_millis(400 + (round as u64 * 137) % 400)
}

/// Clients that ask one gateway after the other, until it is over; the names of the answers that they got whole.
fn load(bases: &Arc<Mutex<[String; 2]>>, key: &str, over: &Arc<AtomicBool>) -> JoinSet<Vec<String>> {
    let client = client();
    let mut clients = JoinSet::new();
    for n in 0..CLIENTS {
        let (client, key, bases, over) = (client.clone(), key.to_owned(), bases.clone(), over.clone());
        clients.spawn(async move {
            let mut whole = Vec::new();
            for k in n.. {
                if over.load(Ordering::Acquire) {
                    break;
                }
                let base = bases.lock()[k % 2].clone();
                match answer(&client, &base, &key, k % 3 == 0).await {
                    Some(id) => whole.push(id),
                    // Its gateway is dead, or died under the request.
                    None => sleep(Duration::from_millis(10)).await,
                }
            }
            whole
        });
    }
    clients
}

/// The name of an answer that came whole.
async fn answer(client: &Client, base: &str, key: &str, stream: bool) -> Option<String> {
    let response = ask(client, base, key, ("stub", stream)).await.ok()?;
    let (status, id) = (response.status(), id(&response));
    let body = response.text().await.ok()?;
    assert_eq!(status, 200, "{body}");
    (!stream || body.contains("[DONE]")).then_some(id)
}

async fn settled(house: &House, whole: &[String]) {
    let ledger = house.open().await;
    let records = records(&ledger).await;
    let by_id: HashMap<&str, _> = records.iter().map(|record| (&*record.request_id, record)).collect();
    for id in whole {
        let outcome = by_id.get(&**id).and_then(|record| record.outcome);
        assert_eq!(outcome, Some(Outcome::Served), "{id} was answered");
    }
    let count = |wanted| records.iter().filter(|record| record.outcome == Some(wanted)).count();
    let (served, lost) = (count(Outcome::Served), count(Outcome::Lost));
    println!("{} answered whole; {} records, {served} served, {lost} open under a blow", whole.len(), records.len());
    assert!(whole.len() > 4 * CLIENTS, "{} answers are no load", whole.len());
    let cost: i64 = records.iter().map(|record| record.cost).sum();
    let balance = ledger.usage().balance(&Account::tenant("acme"), Window::Total).await.unwrap();
    assert_eq!((balance.spent, balance.held), (cost, 0));
    assert!(cost > 0);
    let found = ledger.verify(None).await.unwrap();
    assert_eq!(found.problems, []);
    ledger.close().await;
}

#[test]
fn two_gateways_share_keys_and_budgets() {
    let Some(server) = Server::start() else { return };
    run(async {
        let house = House::new(Some(server.database("shared")), "").await;
        house.key(&["--tenant", "acme"]);
        let (one, two) = (house.start(), house.start());
        // Made while both run: each reads the keys again every two seconds.
        let key = house.key(&["--tenant", "acme", "--token-budget", "300"]);
        let client = client();
        for gateway in [&one, &two] {
            known(&client, gateway, &key).await;
        }
        let mut served = [0, 0];
        for turn in 0.. {
            let gateway = [&one, &two][turn % 2];
            match ask(&client, &gateway.base, &key, ("stub", false)).await.unwrap().status().as_u16() {
                200 => served[turn % 2] += 1,
                429 => break,
                status => panic!("{status}"),
            }
            assert!(turn < 100, "the budget does not stop anybody");
        }
        // An answer takes twenty tokens, and each gateway gave about half of them.
        assert!(served.iter().sum::<i64>() * 20 <= 300 && served[0].abs_diff(served[1]) <= 1, "{served:?}");
        for gateway in [&one, &two] {
            let refused = ask(&client, &gateway.base, &key, ("stub", false)).await.unwrap();
            assert_eq!(refused.status(), 429);
            assert!(refused.text().await.unwrap().contains("insufficient_quota"));
        }
        one.stop();
        two.stop();
        let ledger = house.open().await;
        assert_eq!(ledger.verify(None).await.unwrap().problems, []);
        ledger.close().await;
    });
}

/// Waits until a gateway knows a key.
async fn known(client: &Client, gateway: &Process, key: &str) {
    for _ in 0..100 {
        let models = client.get(format!("{}/v1/models", gateway.base)).bearer_auth(key).send().await.unwrap();
        if models.status() == 200 {
            return;
        }
        sleep(Duration::from_millis(50)).await;
    }
    panic!("the key stays unknown");
}
