//! What every case needs: an empty store, and how to open a ledger on it.

use std::{
    future::Future,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use ledger::{Accepted, Clock, Kind, Ledger, Settings};
use serde_json::json;
use sqlx::Connection as _;

use crate::postgres::Server;

/// An empty store.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) url: String,
    directory: Directory,
    /// Microseconds that every clock of the bench is ahead.
    ahead: Arc<AtomicI64>,
}

impl Bench {
    pub(crate) fn sqlite() -> Self {
        let directory = Directory::new();
        std::fs::create_dir(directory.path().join("data")).unwrap();
        let url = format!("sqlite:{}", directory.path().join("data/ledger.db").display());
        Self { url, directory, ahead: Arc::default() }
    }

    pub(crate) fn postgres(server: &Server, case: &str) -> Self {
        Self { url: server.database(case), directory: Directory::new(), ahead: Arc::default() }
    }

    /// A store that is there already.
    pub(crate) fn at(url: &str) -> Self {
        Self { url: url.into(), directory: Directory::new(), ahead: Arc::default() }
    }

    /// Takes over the key file of another ledger, as whoever restores its backup has to.
    pub(crate) fn share_keys(&self, other: &Ledger) {
        let to = self.settings().keys;
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(other.key_file(), to).unwrap();
    }

    pub(crate) fn settings(&self) -> Settings {
        let ahead = self.ahead.clone();
        let system = Clock::system();
        Settings {
            flush: Duration::from_millis(20),
            lost_after: Duration::from_millis(400),
            refresh: Duration::from_millis(50),
            clock: Clock::new(move || system.now() + ahead.load(Ordering::Relaxed)),
            ..Settings::new(&self.url, self.directory.path().join("keys/ledger.key"))
        }
    }

    pub(crate) async fn open(&self) -> Ledger {
        Ledger::open(self.settings()).await.unwrap()
    }

    /// Does something to the store behind the ledger's back; how many rows it changed.
    pub(crate) async fn sql(&self, sql: &str) -> u64 {
        if let Some(path) = self.url.strip_prefix("sqlite:") {
            let link = rusqlite::Connection::open(path).unwrap();
            link.pragma_update(None, "foreign_keys", true).unwrap();
            link.busy_timeout(Duration::from_secs(5)).unwrap();
            return link.execute(sql, []).unwrap() as u64;
        }
        let sql = sqlx::AssertSqlSafe(sql);
        let mut link = sqlx::PgConnection::connect(&self.url).await.unwrap();
        let done = sqlx::query(sql).execute(&mut link).await.unwrap().rows_affected();
        link.close().await.unwrap();
        done
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Time passes.
    pub(crate) fn pass(&self, time: Duration) {
        self.ahead.fetch_add(i64::try_from(time.as_micros()).unwrap(), Ordering::Relaxed);
    }
}

/// Runs a case on a runtime of its own.
pub(crate) fn run<F: Future<Output = ()>>(case: impl FnOnce() -> F) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(case());
}

/// A request like any other.
pub(crate) fn request(id: impl Into<String>) -> Accepted {
    Accepted {
        request_id: id.into(),
        tenant: "acme".into(),
        key_id: "k1".into(),
        kind: Kind::Chat,
        model: "smollm2".into(),
        config_hash: "c0ffee".into(),
        parameters: json!({"temperature": 0.5}),
        input: json!([{"role": "user", "content": "How far is the moon?"}]),
        subject: "ann@example.com".into(),
        holds: vec![],
    }
}

/// A temporary directory, removed at the end.
#[derive(Debug)]
pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = format!("ledger-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
