//! Nothing acknowledged is lost, nothing is corrupted: whatever write or sync goes wrong, and whenever the process dies.
//!
//! A child process (this binary again, [`child`]) records requests and writes down each acknowledgement it gets. A library preloaded into it
//! (`shim.c`) makes the Nth write or sync of the database files fail, tear or kill the process, or takes away what was not synced, as a loss
//! of power does. Then the parent opens the ledger without the library and looks: everything acknowledged is there, all of it verifies.

#![expect(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::Write as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use ledger::{Accepted, Account, Budget, Charge, Hold, Item, Kind, Ledger, Outcome, Scope, Settings, Settled, Window};
use serde_json::json;

/// Set for the child: the directory it works in.
const CHILD: &str = "LEDGER_FAULT_CHILD";
/// Requests the child records, unless it is killed first.
const REQUESTS: &str = "LEDGER_FAULT_REQUESTS";
/// Tells runs of the child apart.
const RUN: &str = "LEDGER_FAULT_RUN";
/// What one request costs.
const COST: i64 = 7;

/// How a call goes wrong. The last word is the letter of `shim.c`.
const KINDS: [&str; 7] = ["kill", "torn", "eio", "enospc", "eio!", "enospc!", "power"];

#[test]
fn a_fault_at_some_points_loses_nothing_acknowledged() {
    every_point(23);
}

#[test]
#[ignore = "slow: thousands of points"]
fn slow_a_fault_at_every_point_loses_nothing_acknowledged() {
    every_point(1);
}

/// A fault of every kind at every `stride`th call.
fn every_point(stride: u64) {
    let shim = Shim::build();
    let calls = shim.count();
    let first = |kind: &str| 1 + (kind.len() as u64 * 5) % stride;
    let points = KINDS.iter().flat_map(|&kind| {
        // A fault that stays costs the child its patience, so there are fewer of these.
        let stride = if kind.ends_with('!') { stride * 4 } else { stride };
        (first(kind)..=calls).step_by(usize::try_from(stride).unwrap()).map(move |at| (kind, at))
    });
    let points: Vec<_> = points.collect();
    println!("{} points among {calls} calls", points.len());
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while let Some((kind, at)) = points.get(usize::try_from(next.fetch_add(1, Ordering::Relaxed)).unwrap())
                {
                    shim.fault(kind, *at);
                }
            });
        }
    });
}

#[test]
#[ignore = "slow: fifty kills under load"]
fn slow_fifty_kills_under_load_lose_nothing_acknowledged() {
    let (place, mut all) = (Place::new(), String::new());
    for run in 0..50_u64 {
        let mut child = place.child(u64::MAX, run, &[]);
        // A different moment every time, without a clock in it.
        std::thread::sleep(Duration::from_millis(120 + run * 37 % 400));
        child.kill().unwrap();
        child.wait().unwrap();
        let told = place.told();
        println!("run {run}: {} accepted, {} settled", told.accepted.len(), told.settled.len());
        place.check(&format!("kill {run}"), 0);
        all += &place.take_told();
    }
    // And what earlier runs were told is still so.
    assert!(all.lines().count() > 1000, "the children hardly recorded anything");
    fs::write(place.0.join("acknowledged"), all).unwrap();
    place.check("all kills", 0);
}

/// The preloaded library.
struct Shim {
    place: Place,
    library: PathBuf,
}

impl Shim {
    fn build() -> Self {
        let place = Place::new();
        let library = place.0.join("shim.so");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/faults/shim.c");
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"]).arg(&library).args([source, "-ldl"]);
        assert!(cc.status().expect("a C compiler is needed: cc").success());
        Self { place, library }
    }

    fn environment<'a>(&'a self, kind: &'a str, at: &'a str) -> Vec<(&'a str, &'a str)> {
        vec![
            ("LD_PRELOAD", self.library.to_str().unwrap()),
            ("FAULT_FILES", "/data/ledger.db"),
            ("FAULT_KIND", kind),
            ("FAULT_AT", at),
        ]
    }

    /// How many calls a run makes that nothing goes wrong in.
    fn count(&self) -> u64 {
        let place = Place::new();
        let count = self.place.0.join("count");
        let mut environment = self.environment("none", "0");
        environment.push(("FAULT_COUNT", count.to_str().unwrap()));
        assert!(place.child(24, 0, &environment).wait().unwrap().success());
        assert_eq!(place.told().settled.len(), 24, "without a fault everything is recorded");
        place.check("no fault", 0);
        let calls = fs::read_to_string(count).unwrap().parse().unwrap();
        assert!(calls > 50, "the library saw {calls} calls: it was not loaded");
        calls
    }

    /// One fault, in a ledger of its own.
    fn fault(&self, kind: &str, at: u64) {
        let place = Place::new();
        let status = place.child(24, 0, &self.environment(kind, &at.to_string())).wait().unwrap();
        let told = place.told();
        let dies = matches!(kind, "kill" | "torn" | "power");
        assert!(dies || status.success(), "{kind} at {at}: {status}");
        let signed = if kind == "power" && !status.success() {
            place.lose_power();
            told.signed
        } else {
            0
        };
        place.check(&format!("{kind} at {at}"), signed);
    }
}

/// A directory with a ledger in it.
struct Place(PathBuf);

/// What a child wrote down.
#[derive(Default)]
struct Told {
    accepted: Vec<String>,
    settled: Vec<String>,
    /// The largest checkpoint it saw.
    signed: u64,
}

impl Place {
    fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = format!("ledger-faults-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(path.join("data")).unwrap();
        Self(path)
    }

    fn settings(&self) -> Settings {
        let url = format!("sqlite:{}", self.0.join("data/ledger.db").display());
        Settings { flush: Duration::from_millis(3), ..Settings::new(url, self.0.join("keys/ledger.key")) }
    }

    fn child(&self, requests: u64, run: u64, environment: &[(&str, &str)]) -> Child {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["child", "--exact", "--ignored", "--nocapture"]);
        command.env(CHILD, &self.0).env(REQUESTS, requests.to_string()).env(RUN, run.to_string());
        command.envs(environment.iter().copied()).env("RUST_BACKTRACE", "0");
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    fn told(&self) -> Told {
        let mut told = Told::default();
        for line in fs::read_to_string(self.0.join("acknowledged")).unwrap_or_default().lines() {
            match line.split_once(' ') {
                Some(("accepted", id)) => told.accepted.push(id.to_owned()),
                Some(("settled", id)) => told.settled.push(id.to_owned()),
                Some(("signed", size)) => told.signed = told.signed.max(size.parse().unwrap()),
                _ => panic!("{line}"),
            }
        }
        told
    }

    /// What was written down so far, taken away.
    fn take_told(&self) -> String {
        let file = self.0.join("acknowledged");
        let text = fs::read_to_string(&file).unwrap_or_default();
        let _ = fs::remove_file(file);
        text
    }

    /// Every file is what it was at its last sync; one that was never synced is gone.
    fn lose_power(&self) {
        for name in ["ledger.db", "ledger.db-wal"] {
            let (file, synced) = (self.0.join("data").join(name), self.0.join("data").join(format!("{name}.synced")));
            if synced.exists() {
                fs::rename(synced, file).unwrap();
            } else {
                let _ = fs::remove_file(file);
            }
        }
        let _ = fs::remove_file(self.0.join("data/ledger.db-shm"));
        // An acknowledged record had reached the system, not the disk: what is promised now is what was signed.
        let _ = fs::remove_file(self.0.join("acknowledged"));
    }

    /// Everything acknowledged is there, everything verifies, and money adds up. At least `signed` entries are there.
    fn check(&self, what: &str, signed: u64) {
        let told = self.told();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let ledger = Ledger::open(self.settings()).await.unwrap_or_else(|error| panic!("{what}: {error}"));
            let found = ledger.verify(None).await.unwrap();
            assert_eq!(found.problems, [], "{what}");
            assert!(found.entries >= signed, "{what}: {signed} entries were signed, {} are there", found.entries);
            for id in &told.accepted {
                assert!(
                    ledger.record(&Scope::All, id).await.unwrap().is_some(),
                    "{what}: {id} was accepted and is lost"
                );
            }
            for id in &told.settled {
                let record = ledger.record(&Scope::All, id).await.unwrap().unwrap();
                assert_eq!(record.outcome, Some(Outcome::Served), "{what}: {id} was settled");
                assert_eq!(record.output_decision, Some(json!("384,400 km")), "{what}: {id}");
            }
            let balance = ledger.usage().balance(&Account::key("acme", "k1"), Window::Total).await.unwrap();
            let settled = i64::try_from(told.settled.len()).unwrap();
            assert!(balance.spent >= settled * COST && balance.spent % COST == 0, "{what}: {balance:?}");
            ledger.close().await;
        });
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}

#[test]
#[ignore = "the process that the other tests start; nothing by itself"]
fn child() {
    let Some(directory) = std::env::var_os(CHILD).map(PathBuf::from) else { return };
    let number = |name: &str| std::env::var(name).unwrap().parse::<u64>().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(record(&directory, number(REQUESTS), number(RUN)));
    // Tasks that wait for a store that fails for good are left behind.
    runtime.shutdown_background();
}

/// Records requests until told to stop, and writes down what was acknowledged. What fails is not written down; that is all.
async fn record(directory: &Path, requests: u64, run: u64) {
    let place = Place(directory.to_owned());
    let settings = place.settings();
    std::mem::forget(place);
    let Ok(ledger) = Ledger::open(settings).await else { return };
    let told = OpenOptions::new().create(true).append(true).open(directory.join("acknowledged")).unwrap();
    let (told, next) = (Arc::new(told), Arc::new(AtomicU64::new(0)));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..if requests == u64::MAX { 64 } else { 4 } {
        let (ledger, told, next) = (ledger.clone(), told.clone(), next.clone());
        tasks.spawn(async move {
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= requests {
                    return;
                }
                one(&ledger, &told, format!("r{run}-{n}")).await;
            }
        });
    }
    tasks.join_all().await;
    let _ = tokio::time::timeout(Duration::from_millis(500), ledger.close()).await;
}

async fn one(ledger: &Ledger, mut told: &File, id: String) {
    let Ok(pending) = ledger.accept(request(&id)).await else { return };
    // One write per line, so that a line is there whole or not at all.
    told.write_all(format!("accepted {id}\n").as_bytes()).unwrap();
    let settled = tokio::time::timeout(Duration::from_millis(300), pending.settle(answer())).await;
    if matches!(settled, Ok(Ok(()))) {
        told.write_all(format!("settled {id}\n").as_bytes()).unwrap();
    }
    if let Ok(Some(checkpoint)) = ledger.checkpoint().await {
        told.write_all(format!("signed {}\n", checkpoint.size).as_bytes()).unwrap();
    }
}

fn request(id: &str) -> Accepted {
    let budget = Budget { money: Some(i64::MAX), tokens: None, window: Window::Total };
    Accepted {
        request_id: id.into(),
        tenant: "acme".into(),
        key_id: "k1".into(),
        kind: Kind::Chat,
        model: "smollm2".into(),
        config_hash: "c0ffee".into(),
        parameters: json!({"temperature": 0.5}),
        input: json!("How far is the moon?"),
        subject: "ann@example.com".into(),
        holds: vec![Hold { account: Account::key("acme", "k1"), budget, money: 10, tokens: 0 }],
    }
}

fn answer() -> Settled {
    Settled {
        output: json!("384,400 km"),
        charges: vec![Charge::new(Item::OutputTokens, 7, COST * 1_000_000 / 7)],
        latency: BTreeMap::from([("queue".into(), 5)]),
        ..Settled::default()
    }
}
