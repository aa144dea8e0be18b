//! The one place that writes to the log.
//!
//! Requests wait in a queue; the writer takes all that wait, up to [`BATCH`], and writes them in one transaction: entries get their places,
//! contents are sealed, holds are checked against budgets and taken, charges and counters are written. Either all of it is there or nothing,
//! and nobody is answered before the commit. Behind more than one, whatever else is ready runs first and comes along: the more there is to
//! do the larger the batches, and the less each request costs.
//!
//! As long as nobody else changes an SQLite database, all that a transaction would have to read is [known](crate::known), and it runs where it
//! stands; else, and on PostgreSQL, the writer waits for what it reads and for the commit.
//!
//! When a transaction fails its outcome may be unknown (a connection that broke during the commit). The writer then opens a new connection,
//! asks which of the entries are there, and writes the rest once more. If that fails too, requests that were to begin are refused; those
//! that ended are kept and tried again until they are written, because their answer is out already.

use std::{
    collections::{HashMap, HashSet, VecDeque, hash_map::Entry},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use crate::{
    Charge, Checkpoint, Error, Outcome, Result, Settled,
    counters::{Counters, Held},
    entry::{Body, Columns, Phase, leaf},
    known::Known,
    ledger::{Shared, settlement},
    rows::{CHUNK, Rows, Subjects},
    store::{Link, Value, built, placeholders},
    tree::{self, Edge},
    vault::{Plain, SubjectKey},
};

/// The most entries in one transaction: more would only add to the latency of the first.
const BATCH: usize = 256;
/// A settled request's caller is told after this long that its record could not be written yet.
const PATIENCE: Duration = Duration::from_secs(10);
/// The wait between tries while the store is down.
const AGAIN: Duration = Duration::from_millis(100);
/// Subjects whose keys are kept at hand.
const SUBJECTS: usize = 10_000;

/// What can be asked of the writer.
#[derive(Debug)]
pub(crate) enum Command {
    Write(Box<Write>),
    /// Statements in a transaction of their own; the answer is how many rows they changed.
    Run {
        statements: Vec<Statement>,
        reply: oneshot::Sender<Result<u64>>,
    },
    /// Answers when everything before it is done.
    Stop(oneshot::Sender<()>),
}

/// SQL and its arguments.
pub(crate) type Statement = (&'static str, Vec<Value>);

/// An entry and what is written with it.
#[derive(Debug)]
pub(crate) struct Write {
    pub(crate) columns: Columns,
    pub(crate) body: Vec<u8>,
    /// Whom it concerns, and what was said.
    pub(crate) content: Option<(String, Plain)>,
    /// Taken by an accepted-entry, given back by a settled one.
    pub(crate) holds: Vec<Held>,
    pub(crate) charges: Vec<Charge>,
    /// Run in the same transaction.
    pub(crate) also: Vec<Statement>,
    /// For a settled-entry: where the accepted one stands.
    pub(crate) closes: Option<u64>,
    /// `None` once answered, or if nobody waits.
    pub(crate) reply: Option<oneshot::Sender<Result<u64>>>,
}

impl Write {
    /// Whether somebody heard it.
    fn answer(&mut self, answer: Result<u64>) -> bool {
        self.reply.take().is_some_and(|reply| reply.send(answer).is_ok())
    }

    /// It must be written sooner or later: the work is done.
    pub(crate) fn must(&self) -> bool {
        self.columns.phase == Phase::Settled
    }
}

/// A subject of a tenant.
pub(crate) type Person = (String, String);

pub(crate) struct Writer {
    shared: Arc<Shared>,
    queue: mpsc::UnboundedReceiver<Command>,
    link: Option<Link>,
    edge: Arc<Edge>,
    last: Option<tlog_tiles::Hash>,
    subjects: Subjects,
    /// Of the database as the last transaction left it.
    known: Option<Known>,
    /// Settled requests that could not be written yet, and since when.
    backlog: VecDeque<(Write, Instant)>,
}

impl Writer {
    pub(crate) fn new(shared: Arc<Shared>, queue: mpsc::UnboundedReceiver<Command>, edge: Arc<Edge>) -> Self {
        Self {
            shared,
            queue,
            link: None,
            edge,
            last: None,
            subjects: HashMap::new(),
            known: None,
            backlog: VecDeque::new(),
        }
    }

    /// Works until it is told to stop or nobody is left who could ask.
    pub(crate) async fn work(mut self) {
        loop {
            let first = if self.backlog.is_empty() {
                self.queue.recv().await
            } else {
                match tokio::time::timeout(AGAIN, self.queue.recv()).await {
                    Ok(command) => command,
                    Err(_) => {
                        self.write(Vec::new()).await;
                        continue;
                    }
                }
            };
            let Some(first) = first else { return };
            if let Some(stopped) = self.round(first).await {
                let _ = stopped.send(());
                return;
            }
        }
    }

    /// One batch, and the command behind it that is no entry.
    async fn round(&mut self, first: Command) -> Option<oneshot::Sender<()>> {
        let mut batch = Vec::new();
        let mut other = self.gather(Some(first), &mut batch);
        if other.is_none() && batch.len() > 1 {
            // Who else is about to write comes along: the more there is to do the larger the batches.
            tokio::task::yield_now().await;
            other = self.gather(None, &mut batch);
        }
        self.shared.waiting.fetch_sub(batch.len(), std::sync::atomic::Ordering::Relaxed);
        self.write(batch).await;
        match other? {
            Command::Run { statements, reply } => {
                let done = self.run(statements).await;
                let _ = reply.send(done);
                None
            }
            Command::Stop(reply) => {
                self.write(Vec::new()).await;
                Some(reply)
            }
            Command::Write(_) => None,
        }
    }

    /// Takes entries that wait into a batch, as far as the first command that is none.
    fn gather(&mut self, first: Option<Command>, batch: &mut Vec<Write>) -> Option<Command> {
        let mut next = first;
        while batch.len() < BATCH {
            match next.take().or_else(|| self.queue.try_recv().ok())? {
                Command::Write(write) => batch.push(*write),
                other => return Some(other),
            }
        }
        None
    }

    async fn run(&mut self, statements: Vec<Statement>) -> Result<u64> {
        let done = async {
            let link = connected(&mut self.link, &self.shared).await?;
            if statements.len() > 1 {
                // How many rows these change, nobody asks.
                let texts: Vec<_> = statements.into_iter().map(|(sql, args)| (sql.to_owned(), args)).collect();
                if !link.at_once(&texts) {
                    link.begin().await?;
                    link.commit_with(texts).await?;
                }
                return Ok(0);
            }
            link.begin().await?;
            let mut rows = 0;
            for (sql, args) in statements {
                rows += link.run(sql, args).await?;
            }
            link.commit().await?;
            Ok(rows)
        };
        let done = done.await;
        if done.is_err() {
            self.disconnect().await;
        }
        done
    }

    /// Writes what waits from before, then a batch, and answers.
    async fn write(&mut self, batch: Vec<Write>) {
        let mut waiting = std::mem::take(&mut self.backlog).into_iter();
        while let Some((write, since)) = waiting.next() {
            // One by one: what the store will never take must not hold up the others.
            self.attempt(vec![write], since).await;
            if connected(&mut self.link, &self.shared).await.is_err() {
                self.backlog.extend(waiting);
                break;
            }
        }
        self.attempt(batch, Instant::now()).await;
    }

    /// Writes a batch; once more, if that fails.
    async fn attempt(&mut self, mut batch: Vec<Write>, since: Instant) {
        if batch.is_empty() {
            return;
        }
        let mut outcome = self.commit(&mut batch).await;
        if outcome.is_err() {
            self.disconnect().await;
            outcome = match self.sift(&mut batch).await {
                Ok(()) => self.commit(&mut batch).await,
                Err(error) => Err(error),
            };
        }
        match outcome {
            Ok(places) => self.written(batch, &places),
            Err(error) => {
                tracing::error!(%error, entries = batch.len(), "the ledger could not be written");
                self.disconnect().await;
                self.keep(batch, since, &error);
            }
        }
    }

    fn written(&mut self, batch: Vec<Write>, places: &[u64]) {
        self.shared.note_written(&batch, places, &self.edge);
        if batch.iter().any(|write| write.columns.phase == Phase::Event) {
            // A person may have been erased: the key at hand is worth nothing any more.
            self.subjects.clear();
        }
        for (mut write, place) in batch.into_iter().zip(places) {
            let heard = write.answer(Ok(*place));
            if !heard && write.columns.phase == Phase::Accepted {
                self.abort(&write, *place);
            }
        }
    }

    /// Whoever asked for it hung up while it was written: nobody works on it, so nobody else will settle it.
    fn abort(&mut self, write: &Write, place: u64) {
        let Ok(Body::Accepted(body)) = Body::decode(&write.body) else { return };
        let aborted = Settled { outcome: Outcome::Aborted, ..Settled::default() };
        let at = self.shared.settings.clock.now();
        if let Ok((settled, _)) = settlement(&body, aborted, at, "", write.holds.clone(), place) {
            self.backlog.push_back((settled, Instant::now()));
        }
    }

    /// Refuses what has not begun and keeps what is done.
    fn keep(&mut self, batch: Vec<Write>, since: Instant, error: &Error) {
        let given_up = since.elapsed() > PATIENCE || self.shared.health().is_err();
        for mut write in batch {
            if !write.must() || given_up {
                write.answer(Err(error.clone()));
            }
            if write.must() {
                self.backlog.push_back((write, since));
            }
        }
    }

    async fn disconnect(&mut self) {
        self.subjects.clear();
        self.known = None;
        if let Some(mut link) = self.link.take() {
            link.rollback().await;
        }
    }

    /// After a failure: answers what is in the log already, or can never be, and leaves the rest.
    async fn sift(&mut self, batch: &mut Vec<Write>) -> Result<()> {
        let link = connected(&mut self.link, &self.shared).await?;
        let mut there = HashMap::new();
        for chunk in batch.chunks(CHUNK) {
            let ids = placeholders(1, chunk.len());
            let sql = format!("SELECT request_id, phase, idx, leaf FROM entries WHERE request_id IN {ids}");
            let args = chunk.iter().map(|write| write.columns.request_id.as_str().into()).collect();
            for row in link.rows(built(sql), args).await? {
                there.insert((row.text(0)?, row.int(1)?), (row.count(2)?, tree::hash(&row, 3)?));
            }
        }
        let (mut seen, mut rest, mut done, mut places) = (HashSet::new(), vec![], vec![], vec![]);
        for mut write in batch.drain(..) {
            let key = (write.columns.request_id.clone(), write.columns.phase as i64);
            match there.get(&key) {
                Some((place, hash)) if *hash == leaf(&write.body) => {
                    places.push(*place);
                    done.push(write);
                }
                None if seen.insert(key) => rest.push(write),
                _ => {
                    let id = write.columns.request_id.clone();
                    self.shared.forget(&write);
                    write.answer(Err(Error::Duplicate(id)));
                }
            }
        }
        *batch = rest;
        self.written(done, &places);
        Ok(())
    }

    /// The transaction. Writes whose holds are refused are answered and leave the batch; the others' places are returned.
    async fn commit(&mut self, batch: &mut Vec<Write>) -> Result<Vec<u64>> {
        // An erasure stands behind all whose contents go with it.
        batch.sort_by_key(|write| write.columns.phase == Phase::Event);
        let mut before = self.known.take();
        if let Some(known) = before
            .take_if(|known| known.covers(batch) && people(batch).all(|person| self.subjects.contains_key(&person)))
            && let Some(places) = self.commit_unread(known, batch).await?
        {
            return Ok(places);
        }
        self.commit_read(before, batch).await
    }

    /// Writes a batch with what is known; `None` if that does not do, and nothing happened.
    async fn commit_unread(&mut self, mut known: Known, batch: &[Write]) -> Result<Option<Vec<u64>>> {
        let link = connected(&mut self.link, &self.shared).await?;
        let Some(guard) = known.guard(link) else { return Ok(None) };
        if !batch.iter().all(|write| known.counters.admit(write).is_ok()) {
            // Whether somebody else gave something back, only the database knows.
            return Ok(None);
        }
        let mut rows = Rows::of(batch, Edge::clone(&self.edge), &self.subjects)?;
        let mut statements = vec![guard];
        statements.extend(rows.statements(batch, &mut known.counters));
        Ok(link.at_once(&statements).then(|| self.laid(rows, known)))
    }

    /// Reads what others wrote and what the accounts have left, then writes a batch.
    async fn commit_read(&mut self, before: Option<Known>, batch: &mut Vec<Write>) -> Result<Vec<u64>> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let link = connected(&mut self.link, &self.shared).await?;
        link.begin().await?;
        let (mut edge, mut last) = (Edge::clone(&self.edge), self.last);
        catch_up(link, &mut edge, &mut last).await?;
        let mut known = Known::refreshed(link, before, batch).await?;
        admit(link, batch, &mut known.counters).await?;
        if batch.is_empty() {
            link.rollback().await;
            return Ok(Vec::new());
        }
        know(link, &self.shared, &mut self.subjects, batch).await?;
        let mut rows = Rows::of(batch, edge, &self.subjects)?;
        link.commit_with(rows.statements(batch, &mut known.counters)).await?;
        Ok(self.laid(rows, known))
    }

    fn laid(&mut self, rows: Rows, known: Known) -> Vec<u64> {
        (self.edge, self.last, self.known) = (Arc::new(rows.edge), rows.last, Some(known));
        rows.places
    }
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("size", &self.edge.size()).finish_non_exhaustive()
    }
}

async fn connected<'l>(link: &'l mut Option<Link>, shared: &Shared) -> Result<&'l mut Link> {
    shared.health()?;
    match link {
        Some(link) => Ok(link),
        None => Ok(link.insert(shared.store.link().await?)),
    }
}

/// Takes in what other gateways wrote. The entry we know as the last must still be there, and nothing missing behind it.
async fn catch_up(link: &mut Link, edge: &mut Edge, last: &mut Option<tlog_tiles::Hash>) -> Result<()> {
    let from = if last.is_some() { edge.size() - 1 } else { edge.size() };
    let rows = link.rows("SELECT idx, leaf FROM entries WHERE idx >= $1 ORDER BY idx", vec![from.into()]).await?;
    if last.is_some() && rows.is_empty() {
        return Err(Error::Altered(format!("entry {from} and those behind it are gone")));
    }
    for (row, place) in rows.iter().zip(from..) {
        let hash = tree::hash(row, 1)?;
        if row.count(0)? != place || (place < edge.size() && *last != Some(hash)) {
            return Err(Error::Altered(format!("entry {place} is not the one that was written")));
        }
        if place == edge.size() {
            // Whoever wrote the entries wrote the tiles they filled.
            edge.push(hash, &mut Vec::new());
            *last = Some(hash);
        }
    }
    Ok(())
}

/// Holds are taken and given back, charges added, in the order of the batch. Whose budget is used up is told so.
async fn admit(link: &mut Link, batch: &mut Vec<Write>, counters: &mut Counters) -> Result<()> {
    // All of them first: what a counter begins with is written already, what the batch adds is not.
    for write in batch.iter() {
        counters.start(link, &write.holds).await?;
    }
    let mut admitted = Vec::with_capacity(batch.len());
    for mut write in batch.drain(..) {
        match counters.admit(&write) {
            Ok(()) => admitted.push(write),
            Err(refusal) => drop(write.answer(Err(refusal))),
        }
    }
    *batch = admitted;
    Ok(())
}

/// Whose contents are in a batch.
fn people(batch: &[Write]) -> impl Iterator<Item = Person> {
    batch.iter().filter_map(|write| Some((write.columns.tenant.clone(), write.content.as_ref()?.0.clone())))
}

/// Makes sure that the keys of all persons in the batch are at hand.
async fn know(link: &mut Link, shared: &Shared, known: &mut Subjects, batch: &[Write]) -> Result<()> {
    if known.len() > SUBJECTS {
        known.clear();
    }
    for write in batch {
        let Some((subject, _)) = &write.content else { continue };
        let person = (write.columns.tenant.clone(), subject.clone());
        if let Entry::Vacant(free) = known.entry(person) {
            let key = subject_key(link, shared, free.key(), write.columns.at).await?;
            free.insert(key);
        }
    }
    Ok(())
}

async fn subject_key(link: &mut Link, shared: &Shared, person: &Person, at: i64) -> Result<(String, SubjectKey)> {
    let (tenant, subject) = person;
    let wrap = &shared.keyring.wrap;
    let find = "SELECT id, wrapped FROM subjects WHERE tenant = $1 AND subject = $2";
    let found = link.rows(find, vec![tenant.as_str().into(), subject.as_str().into()]).await?;
    if let Some(row) = found.first() {
        let id = row.text(0)?;
        let key = SubjectKey::unwrap(wrap, &id, &row.blob(1)?);
        let altered = || Error::Altered(format!("the key {id} cannot be unwrapped: is the key file another one?"));
        return Ok((id.clone(), key.ok_or_else(altered)?));
    }
    let id = crate::note::hex(&rand::random::<[u8; 16]>());
    let (key, wrapped) = SubjectKey::create(wrap, &id)?;
    let insert = "INSERT INTO subjects (id, tenant, subject, wrapped, at) VALUES ($1, $2, $3, $4, $5)";
    let args = vec![id.as_str().into(), tenant.as_str().into(), subject.as_str().into(), wrapped.into(), at.into()];
    link.run(insert, args).await?;
    Ok((id, key))
}

/// The statement that keeps a checkpoint.
pub(crate) fn keep_checkpoint(checkpoint: &Checkpoint, at: i64) -> Statement {
    let sql = "INSERT INTO checkpoints (size, at, note) VALUES ($1, $2, $3) ON CONFLICT (size) DO NOTHING";
    (sql, vec![checkpoint.size.into(), at.into(), checkpoint.note.as_str().into()])
}
