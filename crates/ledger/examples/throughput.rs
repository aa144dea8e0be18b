//! How many requests a second the ledger records: each is accepted, with a hold on a budget, and settled, with charges.
//!
//! `cargo run --release -p ledger --example throughput [URL]`; without a URL a temporary SQLite file. One line per concurrency: requests per
//! second, processor time per request, and how long an accept and a settle took.

#![expect(clippy::print_stdout, clippy::disallowed_methods, reason = "a measurement prints, and reads the real clock")]

use std::{
    path::Path,
    time::{Duration, Instant},
};

use ledger::{Accepted, Account, Budget, Charge, Hold, Item, Kind, Ledger, Settings, Settled, Window};
use protocol::Usage;
use serde_json::json;

/// Requests of every run.
const REQUESTS: usize = 40_000;

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = std::env::temp_dir().join(format!("ledger-throughput-{}", std::process::id()));
    std::fs::create_dir_all(directory.join("data"))?;
    let url = std::env::args().nth(1).unwrap_or(format!("sqlite:{}/data/ledger.db", directory.display()));
    let ledger = Ledger::open(Settings::new(url, directory.join("keys/ledger.key"))).await?;
    for concurrency in [1, 16, 64, 512] {
        run(&ledger, concurrency).await?;
    }
    let start = Instant::now();
    let found = ledger.verify(None).await?;
    println!(
        "verified {} entries in {:.2} s, {} problems",
        found.entries,
        start.elapsed().as_secs_f64(),
        found.problems.len()
    );
    ledger.close().await;
    std::fs::remove_dir_all(directory)?;
    Ok(())
}

async fn run(ledger: &Ledger, concurrency: usize) -> Result<(), Box<dyn std::error::Error>> {
    let share = REQUESTS.div_ceil(concurrency) / if concurrency == 1 { 10 } else { 1 };
    let (start, before) = (Instant::now(), processor_time());
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..concurrency {
        let ledger = ledger.clone();
        tasks.spawn(async move {
            let mut times = Vec::with_capacity(share);
            for n in 0..share {
                times.push(once(&ledger, format!("{concurrency}-{task}-{n}")).await?);
            }
            Ok::<_, ledger::Error>(times)
        });
    }
    let mut times = Vec::new();
    for done in tasks.join_all().await {
        times.extend(done?);
    }
    let (elapsed, used) = (start.elapsed(), processor_time() - before);
    let count = times.len();
    let mut accepts: Vec<_> = times.iter().map(|(accept, _)| *accept).collect();
    let mut settles: Vec<_> = times.iter().map(|(_, settle)| *settle).collect();
    println!(
        "concurrency {concurrency:>3}: {:>6.0} requests/s, {:>4.0} us of processor each; accept {}, settle {}",
        count as f64 / elapsed.as_secs_f64(),
        used.as_secs_f64() * 1e6 / count as f64,
        spread(&mut accepts),
        spread(&mut settles),
    );
    Ok(())
}

async fn once(ledger: &Ledger, id: String) -> ledger::Result<(Duration, Duration)> {
    let start = Instant::now();
    let pending = ledger.accept(accepted(id)).await?;
    let accept = start.elapsed();
    pending.settle(settled()).await?;
    Ok((accept, start.elapsed() - accept))
}

fn accepted(request_id: String) -> Accepted {
    let budget = Budget { money: Some(i64::MAX), tokens: None, window: Window::Month };
    Accepted {
        request_id,
        tenant: "acme".into(),
        key_id: "k1".into(),
        kind: Kind::Chat,
        model: "smollm2".into(),
        config_hash: "c0ffee".into(),
        parameters: json!({"temperature": 0.7, "top_p": 0.9, "max_tokens": 256, "seed": 7}),
        input: json!([{"role": "user", "content": "How far is the moon from the earth? ".repeat(10)}]),
        subject: "ann@example.com".into(),
        holds: vec![Hold { account: Account::key("acme", "k1"), budget, money: 1000, tokens: 300 }],
    }
}

fn settled() -> Settled {
    Settled {
        output: json!("On average 384,400 kilometres. ".repeat(10)),
        usage: Usage { prompt_tokens: 100, cached_tokens: 50, completion_tokens: 90, processor_micros: Some(120_000) },
        latency: ["auth", "limit", "queue", "route", "first_token", "flush"].map(|stage| (stage.into(), 17)).into(),
        charges: vec![
            Charge::new(Item::InputTokens, 50, 1_500_000),
            Charge::new(Item::CachedTokens, 50, 150_000),
            Charge::new(Item::OutputTokens, 90, 6_000_000),
        ],
        ..Settled::default()
    }
}

fn spread(times: &mut [Duration]) -> String {
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    format!("p50 {:.2} p99 {:.2} ms", at(0.5), at(0.99))
}

/// What all threads of this process used so far.
fn processor_time() -> Duration {
    let text = std::fs::read_to_string(Path::new("/proc/self/schedstat")).unwrap_or_default();
    let own: u64 = text.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or(0);
    let threads = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let times = threads.filter_map(|thread| {
        let text = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(times.sum::<u64>().max(own))
}
