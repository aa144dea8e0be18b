//! The handle that everybody else holds, and a request on its way.

use std::{
    collections::BTreeSet,
    future::Future,
    path::Path,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
};

use arc_swap::ArcSwap;
use futures_core::future::BoxFuture;
use parking_lot::Mutex;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
};

use crate::{
    Accepted, Charge, Clock, Error, Keys, Outcome, Result, Settings, Settled, Usage, Verifier,
    anchor::Anchor,
    counters::Held,
    entry::{AcceptedBody, Body, Input, Output, SettledBody},
    keeper::Keeper,
    keyring::Keyring,
    keys::Cache,
    store::Store,
    tree::Edge,
    vault::Plain,
    writer::{Command, Statement, Write, Writer},
};

/// Entries that may wait to be written; beyond, requests are told to come back.
const WAITING: usize = 8192;
/// The most that one request may hold, or be worth: sums of these stay far from where integers end.
const MOST: i64 = 1_000_000_000_000_000;

/// An amount that may be held or charged.
pub(crate) fn sensible(amount: i64) -> bool {
    (0..=MOST).contains(&amount)
}

/// The append-only truth: who asked what, what came of it, what it cost. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Ledger {
    pub(crate) shared: Arc<Shared>,
    pub(crate) queue: mpsc::UnboundedSender<Command>,
    tasks: Arc<Tasks>,
}

/// What the handle, the writer and the keeper have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) store: Store,
    pub(crate) keyring: Keyring,
    pub(crate) anchor: Anchor,
    pub(crate) settings: Settings,
    /// This process, in the accepted-entries it wrote.
    pub(crate) gateway: String,
    /// Entries in the queue.
    pub(crate) waiting: AtomicUsize,
    /// The log as this process last wrote it.
    pub(crate) edge: ArcSwap<Edge>,
    /// Entries under a checkpoint.
    pub(crate) signed: AtomicU64,
    /// Something was written since the last sync.
    pub(crate) dirty: AtomicBool,
    /// Accepted-entries of this process that are not settled.
    pub(crate) open: Mutex<BTreeSet<u64>>,
    /// This process stands in the table of gateways.
    registered: AtomicBool,
    /// Why nothing more can be written.
    failed: OnceLock<String>,
    pub(crate) keys: Cache,
}

#[derive(Debug)]
struct Tasks {
    stop: watch::Sender<bool>,
    handles: Mutex<Vec<JoinHandle<()>>>,
}

impl Ledger {
    /// Opens the ledger, creating database and key file where they are missing. Needs a tokio runtime, and keeps two tasks on it until
    /// [`Ledger::close`] or until the last handle and [`Pending`] is gone.
    ///
    /// # Errors
    /// If the store cannot be opened, the key file is not the one that signed this log, or the log is not what it was when it was last
    /// signed.
    pub fn open(settings: Settings) -> BoxFuture<'static, Result<Self>> {
        // An `async fn` is compiled where it is polled; a boxed one here, as hard as this crate is optimised, and its two tasks with it.
        Box::pin(Self::opened(settings))
    }

    async fn opened(settings: Settings) -> Result<Self> {
        let store = Store::open(&settings.url).await?;
        if let Store::Sqlite(readers) = &store {
            apart(readers.path(), &settings.keys)?;
        }
        let keyring = Keyring::open(&settings.keys)?;
        let edge = Arc::new(Edge::load(&store).await?);
        let shared = Arc::new(Shared {
            anchor: Anchor::new(&settings.keys, &settings.url),
            gateway: crate::note::hex(&rand::random::<[u8; 8]>()),
            waiting: AtomicUsize::new(0),
            edge: ArcSwap::new(edge.clone()),
            signed: AtomicU64::new(0),
            dirty: AtomicBool::new(false),
            open: Mutex::default(),
            registered: AtomicBool::new(false),
            failed: OnceLock::new(),
            keys: Cache::default(),
            store,
            keyring,
            settings,
        });
        let (queue, commands) = mpsc::unbounded_channel();
        let (stop, stopped) = watch::channel(false);
        let writer = Writer::new(shared.clone(), commands, edge);
        let keeper = Keeper::new(shared.clone(), queue.downgrade(), stopped);
        keeper.check_last().await?;
        shared.keys.refresh(&shared.store).await?;
        let handles = vec![spawn(writer.work()), spawn(keeper.work())];
        Ok(Self { shared, queue, tasks: Arc::new(Tasks { stop, handles: Mutex::new(handles) }) })
    }

    /// Records that a request begins, takes its holds, and returns once both reached the operating system (PostgreSQL: the disk).
    ///
    /// # Errors
    /// [`Error::OverBudget`] if a budget does not allow it, [`Error::Duplicate`] if the id was used before, [`Error::Overloaded`] if
    /// the store is far behind; any other error means that the request cannot be recorded and should not be worked on.
    pub async fn accept(&self, mut accepted: Accepted) -> Result<Pending> {
        self.shared.health()?;
        if self.shared.waiting.load(Ordering::Relaxed) >= WAITING {
            return Err(Error::Overloaded);
        }
        if !accepted.holds.iter().all(|hold| sensible(hold.money) && sensible(hold.tokens)) {
            return Err(Error::Malformed(format!("a hold is between 0 and {MOST}")));
        }
        let at = self.shared.settings.clock.now();
        let plain = Plain::new(&Input { input: std::mem::take(&mut accepted.input) })?;
        let body = AcceptedBody::new(&accepted, at, &self.shared.gateway, plain.hash())?;
        let holds: Vec<Held> =
            accepted.holds.into_iter().map(|hold| (hold.budget.window.around(at), hold)).map(|(p, h)| (h, p)).collect();
        let entry = Body::Accepted(body.clone());
        let (reply, place) = oneshot::channel();
        self.send(Write {
            columns: entry.columns(),
            body: entry.encode()?,
            content: Some((accepted.subject.clone(), plain)),
            holds: holds.clone(),
            charges: vec![],
            also: self.register(at),
            closes: None,
            reply: Some(reply),
        })?;
        // From here on the entry may come to be although nobody waits for it: then it is settled as aborted.
        let mut pending = Pending {
            ledger: self.clone(),
            body,
            subject: accepted.subject,
            holds,
            place: None,
            arriving: Some(place),
        };
        pending.arrive().await?;
        Ok(pending)
    }

    /// API keys.
    pub fn keys(&self) -> Keys {
        Keys::new(self.clone())
    }

    /// Bills and balances.
    pub fn usage(&self) -> Usage {
        Usage::new(self.clone())
    }

    /// The public key that checkpoints are signed with, for auditors.
    pub fn verifier(&self) -> &Verifier {
        self.shared.keyring.signer.verifier()
    }

    /// The file with its secrets.
    pub fn key_file(&self) -> &Path {
        &self.shared.settings.keys
    }

    /// That records can be written; an error says why not.
    pub fn health(&self) -> Result<()> {
        self.shared.health()
    }

    /// Writes what waits, syncs, signs a last checkpoint and stops. Nothing can be written through any handle afterwards.
    pub async fn close(&self) {
        // What waits is written before the last checkpoint is signed; the second time also what that found to be aborted.
        for _ in 0..2 {
            let _ = self.run(vec![]).await;
        }
        let _ = self.tasks.stop.send(true);
        let handles: Vec<_> = self.tasks.handles.lock().drain(..).rev().collect();
        let mut handles = handles.into_iter();
        if let Some(keeper) = handles.next() {
            let _ = keeper.await;
        }
        let (stopped, wait) = oneshot::channel();
        if self.queue.send(Command::Stop(stopped)).is_ok() {
            let _ = wait.await;
        }
        for writer in handles {
            let _ = writer.await;
        }
        self.shared.store.close().await;
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.shared.settings.clock
    }

    pub(crate) fn send(&self, write: Write) -> Result<()> {
        self.shared.waiting.fetch_add(1, Ordering::Relaxed);
        self.queue.send(Command::Write(Box::new(write))).map_err(|_| Error::Closed("it was closed".into()))
    }

    /// Writes an entry that neither begins nor ends a request, with its content, charges and statements; where it stands then.
    pub(crate) async fn write(
        &self,
        body: &Body,
        content: Option<(String, Plain)>,
        charges: Vec<Charge>,
        also: Vec<Statement>,
    ) -> Result<u64> {
        let (reply, done) = oneshot::channel();
        self.send(Write {
            columns: body.columns(),
            body: body.encode()?,
            content,
            holds: vec![],
            charges,
            also,
            closes: None,
            reply: Some(reply),
        })?;
        done.await.map_err(|_| Error::Closed("it was closed".into()))?
    }

    /// Runs statements in one transaction of the writer's.
    pub(crate) async fn run(&self, statements: Vec<Statement>) -> Result<u64> {
        run(&self.queue, statements).await
    }

    /// What the first accepted-entry of a process brings along, so that another gateway can close it if this one dies.
    fn register(&self, at: i64) -> Vec<Statement> {
        if self.shared.registered.load(Ordering::Acquire) { vec![] } else { vec![self.shared.seen(at)] }
    }
}

/// Sends statements to the writer and waits for them.
pub(crate) async fn run(queue: &mpsc::UnboundedSender<Command>, statements: Vec<Statement>) -> Result<u64> {
    let closed = || Error::Closed("it was closed".into());
    let (reply, done) = oneshot::channel();
    queue.send(Command::Run { statements, reply }).map_err(|_| closed())?;
    done.await.map_err(|_| closed())?
}

#[expect(clippy::disallowed_methods, reason = "the two tasks of a ledger; `close` waits for them")]
fn spawn(task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    tokio::spawn(task)
}

/// Keys and data apart: who takes a copy of the data directory must not have the keys in it.
fn apart(database: &Path, keys: &Path) -> Result<()> {
    let directory = |path: &Path| {
        let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::path::absolute(parent).map(|p| p.canonicalize().unwrap_or(p)).map_err(|error| Error::file(path, &error))
    };
    if directory(keys)?.starts_with(directory(database)?) {
        return Err(Error::Settings(format!(
            "the key file {} lies in the directory of the database {}: put it elsewhere",
            keys.display(),
            database.display()
        )));
    }
    Ok(())
}

impl Shared {
    pub(crate) fn health(&self) -> Result<()> {
        self.failed.get().map_or(Ok(()), |why| Err(Error::Closed(why.clone())))
    }

    /// Nothing is written from here on.
    pub(crate) fn fail(&self, why: String) {
        tracing::error!(%why, "the ledger stops writing");
        let _ = self.failed.set(why);
    }

    pub(crate) fn note_written(&self, batch: &[Write], places: &[u64], edge: &Arc<Edge>) {
        let mut open = self.open.lock();
        for (write, place) in batch.iter().zip(places) {
            match (write.columns.phase, write.closes) {
                (crate::entry::Phase::Accepted, _) => {
                    open.insert(*place);
                    self.registered.store(true, Ordering::Release);
                }
                (_, Some(closed)) => {
                    open.remove(&closed);
                }
                _ => {}
            }
        }
        self.edge.store(edge.clone());
        self.dirty.store(true, Ordering::Release);
    }

    /// Somebody else closed the request.
    pub(crate) fn forget(&self, write: &Write) {
        if let Some(closed) = write.closes {
            self.open.lock().remove(&closed);
        }
    }

    pub(crate) fn is_registered(&self) -> bool {
        self.registered.load(Ordering::Acquire)
    }

    /// The statement that says that this gateway lives, and from which entry on its open requests are.
    pub(crate) fn seen(&self, at: i64) -> Statement {
        let low = self.open.lock().first().copied().unwrap_or_else(|| self.edge.load().size());
        let sql = "INSERT INTO gateways (id, seen_at, low) VALUES ($1, $2, $3)
                   ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at, low = excluded.low";
        (sql, vec![self.gateway.as_str().into(), at.into(), low.into()])
    }
}

/// A request that was accepted and is being worked on. Dropping it settles it as aborted, in the background.
#[derive(Debug)]
#[must_use = "dropping it settles the request as aborted"]
pub struct Pending {
    ledger: Ledger,
    body: AcceptedBody,
    subject: String,
    holds: Vec<Held>,
    /// Where the accepted-entry stands; `None` before it was written, and once settled.
    place: Option<u64>,
    /// The writer's answer, while it is awaited.
    arriving: Option<oneshot::Receiver<Result<u64>>>,
}

impl Pending {
    /// The request.
    pub fn request_id(&self) -> &str {
        &self.body.request_id
    }

    /// Where its accepted-entry stands in the log.
    pub fn index(&self) -> u64 {
        self.place.unwrap_or_default()
    }

    /// Records how the request ended, gives its holds back and charges it, in one transaction. The record is on its way when this returns; the
    /// future resolves once it reached the operating system, and may be dropped.
    ///
    /// # Errors
    /// If it could not be written yet (the ledger goes on trying), or another gateway closed the request as lost in the meantime.
    pub fn settle(mut self, settled: Settled) -> Settling {
        self.close(settled)
    }

    async fn arrive(&mut self) -> Result<()> {
        let Some(arriving) = &mut self.arriving else { return Ok(()) };
        let answer = arriving.await.unwrap_or_else(|_| Err(Error::Closed("it was closed".into())));
        self.arriving = None;
        self.place = Some(answer?);
        Ok(())
    }

    fn close(&mut self, settled: Settled) -> Settling {
        let Some(place) = self.place.take() else { return Settling(Err(None)) };
        Settling(self.settlement(place, settled).map_err(Some))
    }

    fn settlement(&self, place: u64, settled: Settled) -> Result<oneshot::Receiver<Result<u64>>> {
        let at = self.ledger.clock().now();
        let (write, done) = settlement(&self.body, settled, at, &self.subject, self.holds.clone(), place)?;
        self.ledger.send(write)?;
        Ok(done)
    }
}

/// The entry that closes a request.
pub(crate) fn settlement(
    accepted: &AcceptedBody,
    settled: Settled,
    at: i64,
    subject: &str,
    holds: Vec<Held>,
    place: u64,
) -> Result<(Write, oneshot::Receiver<Result<u64>>)> {
    let delivered = !settled.output.is_null() || !settled.steps.is_empty();
    let mut body = SettledBody::new(accepted, &settled, at);
    let output = Output { output: settled.output, steps: settled.steps };
    let plain = delivered.then(|| Plain::new(&output)).transpose()?;
    body.content = plain.as_ref().map(Plain::hash).unwrap_or_default();
    let charges = body.charges.clone();
    let entry = Body::Settled(Box::new(body));
    let (reply, done) = oneshot::channel();
    let write = Write {
        columns: entry.columns(),
        body: entry.encode()?,
        content: plain.map(|plain| (subject.to_owned(), plain)),
        holds,
        charges,
        also: vec![],
        closes: Some(place),
        reply: Some(reply),
    };
    Ok((write, done))
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(mut arriving) = self.arriving.take() {
            // Dropped while the accepted-entry was on its way: it has a place by now, or the writer finds nobody to tell and settles it.
            arriving.close();
            self.place = arriving.try_recv().ok().and_then(Result::ok);
        }
        drop(self.close(Settled { outcome: Outcome::Aborted, ..Settled::default() }));
    }
}

/// A record on its way to the log: resolves once it reached the operating system.
#[derive(Debug)]
pub struct Settling(Result<oneshot::Receiver<Result<u64>>, Option<Error>>);

impl Future for Settling {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        let closed = || Error::Closed("it was closed".into());
        Poll::Ready(match &mut self.0 {
            Ok(done) => ready!(Pin::new(done).poll(context)).map_err(|_| closed()).flatten().map(drop),
            Err(error) => Err(error.take().unwrap_or_else(closed)),
        })
    }
}
