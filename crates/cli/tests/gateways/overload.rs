//! Far more requests than a gateway works on at the same time: what is too much is refused at once and told when to come back,
//! nobody hangs, memory stays bounded, and what was taken is recorded and settled.

use std::{collections::HashMap, time::Duration};

use ledger::Outcome;
use tokio::{task::JoinSet, time::timeout};

use crate::bench::{House, PATIENCE, ask, client, id, records, run};

const IN_FLIGHT: usize = 16;
const CLIENTS: usize = 300;
const EACH: usize = 4;

#[test]
fn an_overloaded_gateway_refuses_and_loses_nothing() {
    run(async {
        let house = House::new(None, &format!("[limits]\nin_flight = {IN_FLIGHT}\n")).await;
        let key = house.key(&["--tenant", "acme"]);
        let gateway = house.start();
        let ends = storm(&gateway.base, &key).await;
        let memory = gateway.most_memory();
        gateway.stop();
        let (served, refused): (Vec<_>, Vec<_>) = ends.into_iter().partition(|(status, _)| *status == 200);
        println!("{} served, {} refused, {memory:?} MB at most", served.len(), refused.len());
        assert!(served.len() >= IN_FLIGHT && refused.len() > CLIENTS, "{} and {}", served.len(), refused.len());
        assert!(memory.is_none_or(|mb| mb < 200.0), "{memory:?}");
        recorded(&house, &served, refused.len()).await;
    });
}

/// Statuses and names of everything that was asked.
async fn storm(base: &str, key: &str) -> Vec<(u16, String)> {
    let client = client();
    let mut clients = JoinSet::new();
    for n in 0..CLIENTS {
        let (client, base, key) = (client.clone(), base.to_owned(), key.to_owned());
        clients.spawn(async move {
            let mut ends = Vec::new();
            for k in 0..EACH {
                let response = ask(&client, &base, &key, ("slow", (n + k) % 2 == 0)).await.unwrap();
                let (status, name) = (response.status().as_u16(), id(&response));
                let told = response.headers().contains_key("retry-after");
                let body = timeout(PATIENCE, response.text()).await.expect("nobody hangs").unwrap();
                match status {
                    200 => assert!(body.contains("[DONE]") || body.contains("\"finish_reason\":\"stop\""), "{body}"),
                    429 => assert!(told && body.contains("server_busy"), "{body}"),
                    _ => panic!("{status}: {body}"),
                }
                ends.push((status, name));
            }
            ends
        });
    }
    clients.join_all().await.into_iter().flatten().collect()
}

/// Every answer has its record, and every refusal is in a record, few as those are.
async fn recorded(house: &House, served: &[(u16, String)], refused: usize) {
    let ledger = house.open().await;
    let records = records(&ledger).await;
    let outcomes: HashMap<&str, Outcome> =
        records.iter().filter_map(|record| Some((&*record.request_id, record.outcome?))).collect();
    for (_, id) in served {
        assert_eq!(outcomes.get(&**id), Some(&Outcome::Served), "{id}");
    }
    let away: Vec<_> = records.iter().filter(|record| record.outcome == Some(Outcome::Refused)).collect();
    let told: u64 = away.iter().filter_map(|record| record.parameters["refused"].as_u64()).sum();
    assert_eq!(usize::try_from(told).unwrap(), refused, "{away:?}");
    assert!(away.len() <= 4, "the log was flooded: {}", away.len());
    assert_eq!(records.len(), served.len() + away.len());
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(ledger.verify(None).await.unwrap().problems, []);
    ledger.close().await;
}
