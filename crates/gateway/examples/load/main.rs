//! What the gateway costs: a stub upstream, a load generator, and `tessera serve --only gateway` between them, three processes
//! on one machine.
//!
//! ```sh
//! cargo xtask bench gateway                 # builds both programs and prints every table
//! cargo xtask bench gateway --requests 0    # without the long run
//! cargo xtask bench gateway --rounds 3 --seconds 5 --only saturation
//! cargo xtask bench gateway peers           # LiteLLM's proxy beside it
//! ```
//!
//! The gateway runs with everything on: a key, rates, budgets, prices, the guard, every request in the ledger. The *floor* is
//! the generator straight to the stub, in turns with the gateway, so that both meet the same machine. Of several rounds the
//! median is shown, and the lowest and the highest. A failed request fails the run.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for developers")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a failure ends it, loudly")]
#![expect(clippy::disallowed_methods, reason = "it measures real time, and ends with its tasks")]

mod client;
mod process;
mod stub;

use std::{fmt, path::PathBuf, time::Duration};

use client::{Ask, Load, Report};
use process::{Process, Running};

/// Connections at saturation.
const MANY: usize = 64;
/// Streams at the same time.
const STREAMS: usize = 512;

/// What to run.
#[derive(Debug)]
struct Options {
    rounds: usize,
    /// Of each leg of a round.
    seconds: u64,
    /// Of the long run; 0 leaves it out.
    requests: u64,
    /// The only part to run, of `latency`, `saturation`, `streams`, `memory` and `overload`.
    only: Option<String>,
    /// The gateway's program.
    tessera: PathBuf,
    /// A Python that has LiteLLM's proxy.
    litellm: Option<PathBuf>,
}

impl Options {
    fn read() -> Self {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        let find = |name: &str| {
            let at = arguments.iter().position(|argument| argument == name)?;
            Some(arguments.get(at + 1).unwrap_or_else(|| panic!("{name} needs a value")).clone())
        };
        let number = |name: &str, usual: u64| find(name).map_or(usual, |text| text.parse().unwrap());
        let beside = || std::env::current_exe().unwrap().parent().unwrap().join("../tessera");
        Self {
            rounds: usize::try_from(number("--rounds", 5)).unwrap().max(1),
            seconds: number("--seconds", 10).max(1),
            requests: number("--requests", 1_000_000),
            only: find("--only"),
            tessera: find("--tessera").map_or_else(beside, PathBuf::from),
            litellm: find("--litellm").map(PathBuf::from),
        }
    }

    fn wants(&self, part: &str) -> bool {
        self.only.as_deref().is_none_or(|only| only == part)
    }

    fn leg(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    if std::env::args().nth(1).as_deref() == Some("stub") {
        return runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            println!("{}", listener.local_addr().unwrap());
            stub::serve(listener).await;
        });
    }
    runtime.block_on(run(&Options::read()));
}

async fn run(options: &Options) {
    let cores = std::thread::available_parallelism().unwrap();
    let (rounds, seconds) = (options.rounds, options.seconds);
    println!(
        "{cores} cores, shared by stub, generator and gateway; {rounds} rounds of {seconds} s each: median (lowest .. highest)"
    );
    let stub = Running::stub();
    let gateway = Running::gateway(&options.tessera, stub.address, "");
    println!("gateway at rest: {:.1} MB", gateway.process().resident());
    measure(options, "gateway", &gateway, &stub).await;
    println!("gateway after that: {:.1} MB", gateway.process().resident());
    if options.requests > 0 && options.wants("memory") {
        long_run(&gateway, options.requests).await;
    }
    drop(gateway);
    if options.wants("overload") {
        overload(options, &stub).await;
    }
    if let Some(python) = &options.litellm {
        let peer = Running::litellm(python, stub.address);
        measure(options, "LiteLLM", &peer, &stub).await;
        println!("LiteLLM after that: {:.1} MB", peer.process().resident());
    }
}

async fn measure(options: &Options, name: &str, target: &Running, stub: &Running) {
    if options.wants("latency") {
        latency(options, name, target, stub).await;
    }
    if options.wants("saturation") {
        saturation(options, name, target, stub).await;
    }
    if options.wants("streams") {
        streams(name, target, stub).await;
    }
}

/// What several rounds gave.
#[derive(Debug, Default)]
struct Rounds(Vec<f64>);

impl fmt::Display for Rounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let (low, high) = (sorted[0], sorted[sorted.len() - 1]);
        let digits = if high >= 100.0 { 0 } else { 3 };
        write!(f, "{:.digits$} ({low:.digits$} .. {high:.digits$})", sorted[sorted.len() / 2])
    }
}

/// One request at a time: what one more hop adds.
async fn latency(options: &Options, name: &str, target: &Running, stub: &Running) {
    let floor = Load::new(stub.address, "", Ask::Whole, 1);
    let load = Load::new(target.address, &target.key, Ask::Whole, 1);
    load.run(Duration::from_secs(2)).await;
    let mut reports: Vec<(Report, Report)> = Vec::new();
    for _ in 0..options.rounds {
        reports.push((floor.run(options.leg()).await, load.run(options.leg()).await));
        reports.iter().for_each(|(floor, with)| [floor, with].into_iter().for_each(Report::must_be_clean));
    }
    println!("\none request at a time, ms");
    for (word, quantile) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)] {
        let of = |pick: &dyn Fn(f64, f64) -> f64| {
            let pairs = reports.iter().map(|(floor, with)| pick(floor.ms(quantile), with.ms(quantile)));
            Rounds(pairs.collect()).to_string()
        };
        println!("  {word:5}  floor {}   {name} {}   added {}", of(&|f, _| f), of(&|_, w| w), of(&|f, w| w - f));
    }
}

/// Seconds of processor time of the generator, the stub and the gateway.
fn spent(target: &Running, stub: &Running) -> [f64; 3] {
    [Process::own(), stub.process(), target.process()].map(Process::cpu)
}

/// As many as go through.
async fn saturation(options: &Options, name: &str, target: &Running, stub: &Running) {
    let floor = Load::new(stub.address, "", Ask::Whole, MANY);
    let load = Load::new(target.address, &target.key, Ask::Whole, MANY);
    load.run(Duration::from_secs(2)).await;
    println!("\n{MANY} requests at a time");
    let (mut of_floor, mut of_target) = (Leg::default(), Leg::default());
    for _ in 0..options.rounds {
        of_floor.run(&floor, options, (target, stub)).await;
        of_target.run(&load, options, (target, stub)).await;
    }
    of_floor.print("floor", name);
    of_target.print(name, name);
}

/// What rounds at saturation gave.
#[derive(Debug, Default)]
struct Leg {
    rates: Rounds,
    p50: Rounds,
    p99: Rounds,
    /// Percent of a core: generator, stub, gateway.
    shares: [Rounds; 3],
    memory: f64,
}

impl Leg {
    async fn run(&mut self, load: &Load, options: &Options, (target, stub): (&Running, &Running)) {
        let before = spent(target, stub);
        let report = load.run(options.leg()).await;
        let after = spent(target, stub);
        report.must_be_clean();
        self.rates.0.push(report.rate());
        self.p50.0.push(report.ms(0.5));
        self.p99.0.push(report.ms(0.99));
        for (share, (before, after)) in self.shares.iter_mut().zip(before.into_iter().zip(after)) {
            share.0.push((after - before) / report.seconds * 100.0);
        }
        self.memory = target.process().resident();
    }

    fn print(&self, word: &str, name: &str) {
        let Self { rates, p50, p99, shares: [generator, stub, target], memory } = self;
        println!("  {word}: {rates} requests/s, p50 {p50} ms, p99 {p99} ms");
        println!("    % of a core: generator {generator}, stub {stub}, {name} {target}; {name} {memory:.1} MB");
    }
}

/// Many paced streams at the same time, every word counted.
async fn streams(name: &str, target: &Running, stub: &Running) {
    println!("\n{STREAMS} streams at the same time, a word every {} ms", stub::PACE.as_millis());
    for (word, address, key) in [("floor", stub.address, ""), (name, target.address, &*target.key)] {
        let load = Load::new(address, key, Ask::Paced, STREAMS);
        let before = spent(target, stub);
        let report = load.once().await;
        let after = spent(target, stub);
        let share = |i: usize| (after[i] - before[i]) / report.seconds * 100.0;
        println!(
            "  {word}: {} whole, {} with something lost, {} failed; {:.2} s; longest silence {:.0} ms; \
             % of a core: generator {:.0}, stub {:.0}, {name} {:.0}; {name} {:.1} MB",
            report.done - report.lossy,
            report.lossy,
            report.failed + report.refused,
            report.seconds,
            report.longest_silence.as_secs_f64() * 1e3,
            share(0),
            share(1),
            share(2),
            target.process().resident(),
        );
    }
}

/// Memory over a great many requests.
async fn long_run(target: &Running, requests: u64) {
    let load = Load::new(target.address, &target.key, Ask::Whole, MANY);
    let (mut done, mut seconds) = (0, 0.0);
    let mut sizes = vec![(0, target.process().resident())];
    while done < requests {
        let report = load.run(Duration::from_secs(10)).await;
        report.must_be_clean();
        done += report.done;
        seconds += report.seconds;
        sizes.push((done, target.process().resident()));
    }
    println!(
        "\n{done} requests in {seconds:.0} s ({:.0} a second); the gateway's memory on the way",
        done as f64 / seconds
    );
    let step = sizes.len().div_ceil(10);
    let shown: Vec<_> = sizes.iter().step_by(step).chain(sizes.last()).collect();
    shown.iter().for_each(|(n, mb)| println!("  after {n:>9}: {mb:.1} MB"));
}

/// More than the gateway takes at the same time: what is refused is refused at once, what is taken is answered in time.
async fn overload(options: &Options, stub: &Running) {
    const LIMIT: usize = 32;
    println!("\noverload: at most {LIMIT} requests in flight, an upstream that takes 50 ms");
    let gateway = Running::gateway(&options.tessera, stub.address, &format!("in_flight = {LIMIT}"));
    for times in [1, 4, 16] {
        let load = Load::new(gateway.address, &gateway.key, Ask::Slow, LIMIT * times);
        let report = load.run(options.leg()).await;
        println!(
            "  {:>3} clients: {} answered (p50 {:.0} ms, p99 {:.0} ms), {} refused with 429, {} failed; {:.1} MB",
            LIMIT * times,
            report.done,
            report.ms(0.5),
            report.ms(0.99),
            report.refused,
            report.failed,
            gateway.process().resident(),
        );
        assert_eq!(report.failed, 0, "an overloaded gateway refuses, it does not fail");
    }
}
