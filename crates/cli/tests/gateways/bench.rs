//! What both tests need: a directory, a stub upstream, gateways, clients.

use std::{
    fs,
    io::{BufRead, BufReader, Lines},
    path::{Path, PathBuf},
    process::{Child, ChildStderr, Command, Stdio},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use ledger::{Filter, Ledger, Page, Record, Scope};
use reqwest::{Client, Response};
use serde_json::{Value, json};

/// Nobody waits longer for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A temporary directory, removed at the end.
#[derive(Debug)]
pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = format!("tessera-gateways-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Runs a test on a runtime of its own.
pub(crate) fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(test);
}

/// The house: one stub, one ledger, settings that gateways start from.
#[derive(Debug)]
pub(crate) struct House {
    directory: Directory,
    ledger: ledger::Settings,
    settings: PathBuf,
    _stub: tokio::task::JoinSet<()>,
}

impl House {
    /// With a ledger at `url`, or in a file of its own; `more` goes into the settings.
    pub(crate) async fn new(url: Option<String>, more: &str) -> Self {
        let directory = Directory::new();
        let at = |name: &str| directory.path().join(name);
        let url = url.unwrap_or_else(|| format!("sqlite:{}", at("data/ledger.db").display()));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let upstream = listener.local_addr().unwrap();
        let mut stub = tokio::task::JoinSet::new();
        stub.spawn(crate::stub::serve(listener));
        let (keys, settings) = (at("keys/ledger.key"), at("tessera.toml"));
        let text = format!(
            "[server]\nlisten = \"127.0.0.1:0\"\n[ledger]\nurl = \"{url}\"\nkey_file = \"{}\"\n\
             [[upstreams]]\nname = \"stub\"\nurl = \"http://{upstream}/v1\"\n\
             models = {{ stub = \"stub\", slow = \"slow\", paced = \"paced\" }}\n\
             [prices.stub]\ninput = \"0.15\"\noutput = \"0.60\"\n{more}",
            keys.display()
        );
        fs::write(&settings, text).unwrap();
        Self { directory, ledger: ledger::Settings::new(url, keys), settings, _stub: stub }
    }

    fn tessera(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tessera"));
        command.args(arguments).env("TESSERA_CONFIG", &self.settings).env_remove("RUST_LOG");
        command.current_dir(self.directory.path());
        command
    }

    /// The secret of a new key.
    pub(crate) fn key(&self, more: &[&str]) -> String {
        let made = self.tessera(&[&["keys", "create"], more].concat()).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        String::from_utf8(made.stdout).unwrap().trim().to_owned()
    }

    pub(crate) fn start(&self) -> Process {
        let mut child = self.tessera(&["serve", "--only", "gateway"]).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut said = String::new();
        let address = lines.by_ref().map_while(Result::ok).find_map(|line| {
            said = format!("{said}{line}\n");
            Some(line.split_once("http://")?.1.split('/').next()?.to_owned())
        });
        let base = format!("http://{}", address.unwrap_or_else(|| panic!("it did not start: {said}")));
        Process { child, base, lines: Some(lines) }
    }

    /// The ledger, when no gateway writes to it any more: what the dead left open is closed at once.
    pub(crate) async fn open(&self) -> Ledger {
        let settings = ledger::Settings { lost_after: Duration::from_millis(200), ..self.ledger.clone() };
        let ledger = Ledger::open(settings).await.unwrap();
        for _ in 0..300 {
            if records(&ledger).await.iter().all(|record| record.outcome.is_some()) {
                return ledger;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("a record stays open");
    }
}

/// All records.
pub(crate) async fn records(ledger: &Ledger) -> Vec<Record> {
    let (mut all, mut before) = (Vec::new(), None);
    loop {
        let page = Page { before, limit: 1000 };
        let mut found = ledger.records(&Scope::All, &Filter::default(), page, std::convert::identity).await.unwrap();
        all.append(&mut found.records);
        before = found.next;
        if before.is_none() {
            return all;
        }
    }
}

/// A gateway.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    /// Its address, as a URL begins.
    pub(crate) base: String,
    lines: Option<Lines<BufReader<ChildStderr>>>,
}

impl Process {
    /// As a loss of power does it.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// As an operator does it; what it said at the end.
    pub(crate) fn stop(mut self) -> String {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        let said = self.lines.take().into_iter().flatten().map_while(Result::ok).collect::<Vec<_>>().join("\n");
        assert!(self.child.wait().unwrap().success(), "{said}");
        said
    }

    /// The most memory it ever had, in megabytes, where the system tells.
    pub(crate) fn most_memory(&self) -> Option<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        line.trim().trim_end_matches(" kB").parse::<f64>().ok().map(|kb| kb * 1024.0 / 1e6)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A client that gives up before the test does.
pub(crate) fn client() -> Client {
    // An error means that the other test was first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder().timeout(PATIENCE).build().unwrap()
}

/// Asks for a short answer; with `stream` for one in pieces.
pub(crate) async fn ask(
    client: &Client,
    base: &str,
    key: &str,
    (model, stream): (&str, bool),
) -> reqwest::Result<Response> {
    let messages = json!([{ "role": "user", "content": "What comes to those who wait?" }]);
    let body: Value = json!({ "model": model, "stream": stream, "max_tokens": 16, "messages": messages });
    client
        .post(format!("{base}/v1/chat/completions"))
        .bearer_auth(key)
        .header("content-type", "application/json")
        .body(body.to_string())
        .send()
        .await
}

/// The gateway's name of a request.
pub(crate) fn id(response: &Response) -> String {
    response.headers()["x-request-id"].to_str().unwrap().to_owned()
}
