//! What happens every few moments, beside the writer: syncing, signing, housekeeping, closing what the dead left open.
//!
//! Every flush interval in which something was written: the log file is synced, and only then is a checkpoint over what was written
//! before the sync signed and kept. So what lies *under a checkpoint* survives a loss of power; what is only *sequenced* (acknowledged) survives a
//! killed process, and a crash of the system as far as the system wrote it out. The sync is done here and not by the writer, so that no request
//! waits for a disk. If it fails the ledger stops writing: after a failed fsync nobody can say what is on the disk.
//!
//! SQLite's log file is copied into the database here, too. Under steady load it never drains, so beyond [`LARGE`] pages it is begun anew, with
//! the writer held up for that moment.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior, interval},
};

use crate::{
    Checkpoint, Error, Outcome, Result, Settled,
    clock::micros,
    counters::Held,
    entry::Body,
    ledger::{Shared, run, settlement},
    store::{Link, Store},
    tree,
    writer::{Command, keep_checkpoint},
};

/// The wait between copies of SQLite's log into the database.
const COPY: Duration = Duration::from_secs(1);
/// Pages in SQLite's log beyond which it is begun anew: 16 MiB.
const LARGE: i64 = 16 * 1024;
/// Of the checkpoints, one is kept for ever in every such span, in microseconds; the newest always.
const SPAN: i64 = 60_000_000;
/// Accepted-entries looked at in one go when a dead gateway is swept up behind.
const PAGE: i64 = 500;

#[derive(Debug)]
pub(crate) struct Keeper {
    shared: Arc<Shared>,
    /// Weak: the writer ends when nobody else can ask.
    queue: mpsc::WeakUnboundedSender<Command>,
    stopped: watch::Receiver<bool>,
    /// The newest checkpoint: its size, and if it may be replaced by the next one.
    newest: Option<(u64, i64)>,
    kept_at: i64,
    copier: Option<Link>,
    /// The newest checkpoint, until it is kept beside the keys.
    last: Option<Checkpoint>,
}

impl Keeper {
    pub(crate) fn new(
        shared: Arc<Shared>,
        queue: mpsc::WeakUnboundedSender<Command>,
        stopped: watch::Receiver<bool>,
    ) -> Self {
        Self { shared, queue, stopped, newest: None, kept_at: 0, copier: None, last: None }
    }

    /// The log still has the root that was last signed. Signing on from another one would make two histories.
    pub(crate) async fn check_last(&self) -> Result<()> {
        self.check_anchor().await?;
        let Shared { store, keyring, signed, .. } = &*self.shared;
        let rows = store.rows("SELECT note FROM checkpoints ORDER BY size DESC LIMIT 1", vec![]).await?;
        let Some(row) = rows.first() else { return Ok(()) };
        let last = keyring.signer.verifier().open(&row.text(0)?)?;
        // Read behind the checkpoint: another gateway may have written and signed since this one looked at the log.
        let size = tree::size(store).await?;
        if last.size > size {
            return Err(Error::Altered(format!("{} entries were signed and {size} are there", last.size)));
        }
        if tree::root(store, last.size).await? != last.root.0 {
            return Err(Error::Altered(format!("the first {} entries have another root than was signed", last.size)));
        }
        signed.store(last.size, Ordering::Release);
        Ok(())
    }

    /// The log still has what was written down beside the keys.
    async fn check_anchor(&self) -> Result<()> {
        let Shared { store, keyring, anchor, .. } = &*self.shared;
        let Some(kept) = anchor.read(keyring.signer.verifier())? else { return Ok(()) };
        if tree::size(store).await? >= kept.size && tree::root(store, kept.size).await? == kept.root.0 {
            return Ok(());
        }
        Err(Error::Altered(format!(
            "the log is not the one whose first {} entries were signed; if you put an older copy of the database in its place, remove {} and start again",
            kept.size,
            anchor.path().display()
        )))
    }

    /// Writes the newest checkpoint down beside the keys.
    fn anchor(&mut self) -> Result<()> {
        match self.last.take() {
            Some(checkpoint) => self.shared.anchor.write(&checkpoint),
            None => Ok(()),
        }
    }

    pub(crate) async fn work(mut self) {
        let every = |period: Duration| {
            let mut ticks = interval(period.max(Duration::from_millis(1)));
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        };
        let settings = &self.shared.settings;
        let mut flush = every(settings.flush);
        let mut refresh = every(settings.refresh);
        let mut beat = every(settings.lost_after / 4);
        // Not at once: who only looks something up does not tidy up behind others.
        beat.reset();
        let mut copied = Instant::now();
        loop {
            tokio::select! {
                _ = flush.tick() => {
                    let flushed = self.flush().await;
                    note(flushed, "the log could not be signed");
                    if copied.elapsed() >= COPY {
                        note(self.copy().await, "SQLite's log could not be copied");
                        note(self.anchor(), "the newest checkpoint could not be kept beside the keys");
                        copied = Instant::now();
                    }
                }
                _ = refresh.tick() => note(self.shared.keys.refresh(&self.shared.store).await, "API keys could not be read"),
                _ = beat.tick() => note(self.beat().await, "the sign of life could not be given"),
                _ = self.stopped.changed() => break,
            }
            if self.queue.upgrade().is_none() {
                break;
            }
        }
        note(self.flush().await, "the last checkpoint could not be signed");
        note(self.anchor(), "the last checkpoint could not be kept beside the keys");
        note(self.leave().await, "the gateway could not be signed off");
    }

    fn queue(&self) -> Result<mpsc::UnboundedSender<Command>> {
        self.queue.upgrade().ok_or_else(|| Error::Closed("nobody uses it any more".into()))
    }

    /// Syncs what was written, then signs it.
    async fn flush(&mut self) -> Result<()> {
        let shared = self.shared.clone();
        if !shared.dirty.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        let edge = shared.edge.load_full();
        if let Store::Sqlite(readers) = &shared.store {
            self.sync(readers.path()).await?;
        }
        if edge.size() <= shared.signed.load(Ordering::Acquire) {
            return Ok(());
        }
        let checkpoint = shared.keyring.signer.sign(edge.size(), edge.root()?);
        let at = shared.settings.clock.now();
        let sql = "INSERT INTO edges (level, size, data) VALUES (0, $1, $2)
                   ON CONFLICT (level) DO UPDATE SET size = excluded.size, data = excluded.data";
        let unfinished = (sql, vec![edge.size().into(), edge.unfinished().into()]);
        let mut statements = vec![keep_checkpoint(&checkpoint, at), unfinished];
        match self.newest {
            Some((size, signed_at)) if signed_at < self.kept_at.saturating_add(SPAN) && signed_at != self.kept_at => {
                statements.push(("DELETE FROM checkpoints WHERE size = $1", vec![size.into()]));
            }
            Some((_, signed_at)) => self.kept_at = signed_at,
            None => {}
        }
        if let Err(error) = run(&self.queue()?, statements).await {
            shared.dirty.store(true, Ordering::Release);
            return Err(error);
        }
        self.newest = Some((checkpoint.size, at));
        shared.signed.fetch_max(checkpoint.size, Ordering::AcqRel);
        self.last = Some(checkpoint);
        Ok(())
    }

    async fn sync(&self, database: &Path) -> Result<()> {
        let log = beside(database, "-wal");
        let synced = tokio::task::spawn_blocking(move || {
            // Closing a file drops the process's POSIX locks on it; SQLite has none on this one.
            match std::fs::File::open(&log).and_then(|file| file.sync_data()) {
                // The last connection was closed: SQLite copied the log into the database, synced that and removed the log.
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
                synced => synced.map_err(|error| Error::file(log, &error)),
            }
        });
        let synced = synced.await.unwrap_or_else(|error| Err(Error::Store(error.to_string())));
        if let Err(error) = &synced {
            self.shared.fail(format!("its disk failed: {error}; mend the disk, then start again"));
        }
        synced
    }

    /// Copies SQLite's log into the database.
    async fn copy(&mut self) -> Result<()> {
        if !matches!(self.shared.store, Store::Sqlite(_)) {
            return Ok(());
        }
        let link = match &mut self.copier {
            Some(link) => link,
            None => self.copier.insert(self.shared.store.link().await?),
        };
        let rows = link.rows("PRAGMA wal_checkpoint(PASSIVE)", vec![]).await?;
        if rows.first().map_or(Ok(0), |row| row.int(1))? > LARGE {
            // Not truncated: a file that grows again syncs its size too, which takes twice as long.
            link.rows("PRAGMA wal_checkpoint(RESTART)", vec![]).await?;
        }
        Ok(())
    }

    /// Says that this gateway lives, writes down when keys were used, and closes what dead gateways left open.
    async fn beat(&mut self) -> Result<()> {
        let now = self.shared.settings.clock.now();
        let mut statements = self.shared.keys.uses();
        if self.shared.is_registered() {
            statements.push(self.shared.seen(now));
        }
        if !statements.is_empty() {
            run(&self.queue()?, statements).await?;
        }
        let silent_since = now.saturating_sub(micros(self.shared.settings.lost_after));
        let dead = "SELECT id, low FROM gateways WHERE seen_at < $1 AND id <> $2";
        let args = vec![silent_since.into(), self.shared.gateway.as_str().into()];
        for row in self.shared.store.rows(dead, args).await? {
            self.bury(row.text(0)?, row.count(1)?).await?;
        }
        Ok(())
    }

    /// Closes what a gateway left open, from its entry `low` on.
    async fn bury(&self, gateway: String, low: u64) -> Result<()> {
        let open = "SELECT a.idx, a.body FROM entries a
                    LEFT JOIN entries s ON s.request_id = a.request_id AND s.phase = 1
                    WHERE a.phase = 0 AND a.idx >= $1 AND s.idx IS NULL ORDER BY a.idx LIMIT $2";
        let mut from = low;
        let mut closed = 0;
        loop {
            let rows = self.shared.store.rows(open, vec![from.into(), PAGE.into()]).await?;
            for row in &rows {
                let place = row.count(0)?;
                from = place + 1;
                if let Body::Accepted(body) = Body::decode(&row.blob(1)?)?
                    && body.gateway == gateway
                {
                    closed += u64::from(self.lose(&body, place).await?);
                }
            }
            if rows.is_empty() {
                break;
            }
        }
        run(&self.queue()?, vec![("DELETE FROM gateways WHERE id = $1", vec![gateway.as_str().into()])]).await?;
        tracing::warn!(gateway, closed, "requests of a dead gateway were closed as lost");
        Ok(())
    }

    /// Whether it was still open.
    async fn lose(&self, body: &crate::entry::AcceptedBody, place: u64) -> Result<bool> {
        let lost = Settled { outcome: Outcome::Lost, ..Settled::default() };
        let period = |hold: &crate::Hold| hold.budget.window.around(body.at);
        let holds: Vec<Held> = body.holds.iter().map(|hold| (hold.clone(), period(hold))).collect();
        let (write, done) = settlement(body, lost, self.shared.settings.clock.now(), "", holds, place)?;
        self.shared.waiting.fetch_add(1, Ordering::Relaxed);
        self.queue()?.send(Command::Write(Box::new(write))).map_err(|_| Error::Closed("it was closed".into()))?;
        match done.await.map_err(|_| Error::Closed("it was closed".into()))? {
            Ok(_) => Ok(true),
            Err(Error::Duplicate(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// A gateway that leaves with nothing open need not be buried by others.
    async fn leave(&self) -> Result<()> {
        if !self.shared.is_registered() || !self.shared.open.lock().is_empty() {
            return Ok(());
        }
        let leave = ("DELETE FROM gateways WHERE id = $1", vec![self.shared.gateway.as_str().into()]);
        run(&self.queue()?, vec![leave]).await.map(drop)
    }
}

/// A failure is told, and tried again at the next tick.
fn note(result: Result<()>, what: &str) {
    if let Err(error) = result {
        tracing::warn!(%error, "{what}");
    }
}

/// `database` with something behind its name.
pub(crate) fn beside(database: &Path, suffix: &str) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
