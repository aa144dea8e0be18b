//! Is the log still what was written?
//!
//! Everything is computed again from the entries' bytes and compared: leaves, tiles and roots with what is stored and signed, columns and
//! the rows of other tables with bodies, contents with their hashes, counters with sums. Content that is missing must have been erased or have expired by the log's
//! own words. All of it is read in one snapshot, so a gateway may go on writing.
//!
//! What names the bad entry: its leaf, if only the body was changed; its tile, if the leaf was changed with it; if tiles were changed as well,
//! the first checkpoint that no longer fits, and then the entry is one of those since the checkpoint before. An end that was cut off
//! together with its checkpoints shows only against a checkpoint kept elsewhere: the one beside the keys, or an auditor's.

mod beside;
mod taken;

use std::collections::{BTreeMap, HashMap};

use schemars::JsonSchema;
use serde::Serialize;
use tlog_tiles::{HASH_SIZE, Hash};

use crate::{
    Account, Balance, Charge, Checkpoint, Content, Error, Item, Ledger, Period, Result,
    counters::{self, SPENT, spent_args},
    entry::{Body, Columns, Phase, leaf},
    keyring::Keyring,
    read::opened,
    store::{Link, Row},
    tree::{self, Edge, Full},
};
use beside::{Claims, Moves};
use taken::Taken;

/// Entries read at once.
const PAGE: u64 = 256;
/// Problems listed at most; the first is what counts.
const LISTED: usize = 100;

/// What verification found.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Verification {
    /// Entries in the log.
    pub entries: u64,
    /// Of these, under a checkpoint.
    pub signed: u64,
    /// The root over all of them.
    pub root: String,
    /// Checkpoints whose signature and root were checked, those from outside and beside the keys included.
    pub checkpoints: u64,
    /// Contents that were opened and compared with their hash.
    pub contents: u64,
    /// Contents that were erased or expired.
    pub erased: u64,
    /// Usage rows compared with the log.
    pub usage: u64,
    /// What is wrong, the first bad entry first; empty if all is well.
    pub problems: Vec<Problem>,
}

/// Something that is not as it was written.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Problem {
    /// The entry at fault, if it is one.
    pub entry: Option<u64>,
    /// Its request, where that can still be told.
    pub request_id: Option<String>,
    /// What is wrong with it.
    pub what: String,
}

impl Ledger {
    /// Computes everything again; against the checkpoint beside the keys, too, and against one from outside if it is given.
    ///
    /// # Errors
    /// If the store cannot be read. That something was altered is no error but what is returned.
    pub async fn verify(&self, outside: Option<&Checkpoint>) -> Result<Verification> {
        // Read before the snapshot, which therefore has it.
        let kept = self.shared.anchor.read(self.verifier())?;
        let mut link = self.shared.store.link().await?;
        link.snapshot().await?;
        let mut check = Check::new(&self.shared.keyring);
        check.checkpoints(&mut link).await?;
        outside.into_iter().chain(kept.as_ref()).for_each(|checkpoint| check.sign(checkpoint));
        check.edges(&mut link).await?;
        check.taken = Taken::read(&mut link).await?;
        check.entries(&mut link).await?;
        check.states(&mut link).await?;
        check.money(&mut link).await?;
        link.rollback().await;
        check.finish()
    }
}

struct Check<'k> {
    keyring: &'k Keyring,
    found: Verification,
    edge: Edge,
    /// The tree cannot be computed behind a gap.
    broken: bool,
    /// Signed roots by size.
    signed: BTreeMap<u64, Hash>,
    /// The largest size whose root was right.
    good: u64,
    /// The hashes of the unfinished tile at the newest checkpoint, and its size.
    unfinished: Option<(u64, Vec<u8>)>,
    taken: Taken,
    /// Holds of requests that are not settled.
    open: HashMap<String, Vec<counters::Held>>,
    moves: Moves,
}

impl<'k> Check<'k> {
    fn new(keyring: &'k Keyring) -> Self {
        let found = Verification {
            entries: 0,
            signed: 0,
            root: String::new(),
            checkpoints: 0,
            contents: 0,
            erased: 0,
            usage: 0,
            problems: vec![],
        };
        Self {
            keyring,
            found,
            edge: Edge::default(),
            broken: false,
            signed: BTreeMap::new(),
            good: 0,
            unfinished: None,
            taken: Taken::default(),
            open: HashMap::new(),
            moves: Moves::new(),
        }
    }

    fn problem(&mut self, entry: Option<u64>, request_id: Option<&str>, what: impl Into<String>) {
        if self.found.problems.len() < LISTED {
            self.found.problems.push(Problem { entry, request_id: request_id.map(str::to_owned), what: what.into() });
        }
    }

    /// Reads every checkpoint and checks its signature.
    async fn checkpoints(&mut self, link: &mut Link) -> Result<()> {
        let verifier = self.keyring.signer.verifier();
        for row in link.rows("SELECT size, note FROM checkpoints ORDER BY size", vec![]).await? {
            let size = row.count(0)?;
            match verifier.open(&row.text(1)?) {
                Ok(checkpoint) if checkpoint.size == size => self.sign(&checkpoint),
                Ok(other) => {
                    self.problem(None, None, format!("the checkpoint for {size} entries is one for {}", other.size))
                }
                Err(error) => self.problem(None, None, format!("checkpoint over {size} entries: {error}")),
            }
        }
        self.found.signed = self.signed.last_key_value().map_or(0, |(size, _)| *size);
        Ok(())
    }

    fn sign(&mut self, checkpoint: &Checkpoint) {
        self.found.checkpoints += 1;
        let Checkpoint { size, root, .. } = checkpoint;
        if self.signed.insert(*size, root.0).is_some_and(|other| other != root.0) {
            self.problem(None, None, format!("two different histories of {size} entries were signed"));
        }
    }

    async fn edges(&mut self, link: &mut Link) -> Result<()> {
        let rows = link.rows("SELECT size, data FROM edges WHERE level = 0", vec![]).await?;
        self.unfinished = rows.first().map(|row| Ok::<_, Error>((row.count(0)?, row.blob(1)?))).transpose()?;
        Ok(())
    }

    async fn entries(&mut self, link: &mut Link) -> Result<()> {
        let sql =
            "SELECT e.idx, e.body, e.leaf, e.phase, e.request_id, e.tenant, e.key_id, e.kind, e.model, e.outcome, e.at,
                          c.sealed, COALESCE(u.id, ''), u.wrapped
                   FROM entries e LEFT JOIN contents c ON c.idx = e.idx LEFT JOIN subjects u ON u.id = c.subject_id
                   WHERE e.idx >= $1 ORDER BY e.idx LIMIT $2";
        let mut next = 0;
        loop {
            let rows = link.rows(sql, vec![next.into(), PAGE.into()]).await?;
            let mut claims = Claims::default();
            for row in &rows {
                let place = row.count(0)?;
                self.gap(next, place);
                self.entry(link, row, place, &mut claims).await?;
                next = place + 1;
            }
            self.beside(link, claims).await?;
            if rows.is_empty() {
                break;
            }
        }
        self.found.entries = next;
        let beyond = self.signed.last_key_value().map(|(size, _)| *size).filter(|size| *size > next);
        if let Some(size) = beyond {
            let last = size - 1;
            self.problem(Some(next), None, format!("entries {next} to {last} are missing: {size} entries were signed"));
        }
        Ok(())
    }

    fn gap(&mut self, expected: u64, place: u64) {
        if place != expected {
            self.problem(Some(expected), None, format!("entries {expected} to {} are missing", place - 1));
            self.broken = true;
        }
    }

    async fn entry(&mut self, link: &mut Link, row: &Row, place: u64, claims: &mut Claims) -> Result<()> {
        let bytes = row.blob(1)?;
        let hash = leaf(&bytes);
        let id = row.text(4)?;
        if tree::hash(row, 2).ok() != Some(hash) {
            self.problem(Some(place), Some(&id), "its bytes were altered: they do not have the hash of its leaf");
        } else {
            self.meaning(row, place, &id, &bytes, claims)?;
        }
        if !self.broken {
            let mut full = Vec::new();
            self.edge.push(hash, &mut full);
            for tile in full {
                self.tile(link, &tile).await?;
            }
            self.root()?;
        }
        Ok(())
    }

    /// The columns, the content and the charges of an entry.
    fn meaning(&mut self, row: &Row, place: u64, id: &str, bytes: &[u8], claims: &mut Claims) -> Result<()> {
        let body = match Body::decode(bytes) {
            Ok(body) => body,
            Err(error) => {
                self.problem(Some(place), Some(id), error.to_string());
                return Ok(());
            }
        };
        let said = body.columns();
        if columns(row)?.as_ref() != Some(&said) {
            self.problem(Some(place), Some(id), "the columns beside it say something else than the entry");
        }
        let hash = body.content();
        match opened(self.keyring, row, 11, id, said.phase, hash)? {
            (_, Content::Altered) => self.problem(Some(place), Some(id), "its content was altered"),
            (_, Content::Erased) if self.taken.explains(place, &said) => self.found.erased += 1,
            (_, Content::Erased) => {
                self.problem(Some(place), Some(id), "its content is missing, and no entry says that it was erased");
            }
            (_, Content::Intact) => self.found.contents += u64::from(!hash.is_empty()),
        }
        match &body {
            Body::Accepted(body) if !body.holds.is_empty() => {
                let held = body.holds.iter().map(|hold| (hold.clone(), hold.budget.window.around(body.at)));
                self.open.insert(body.request_id.clone(), held.collect());
            }
            Body::Settled(body) => _ = self.open.remove(&body.request_id),
            _ => {}
        }
        claims.add(place, body, &mut self.moves);
        Ok(())
    }

    /// Compares a tile that got full with the one that is stored.
    async fn tile(&mut self, link: &mut Link, tile: &Full) -> Result<()> {
        let sql = "SELECT data, root FROM tiles WHERE level = $1 AND n = $2";
        let rows = link.rows(sql, vec![tile.level.into(), tile.n.into()]).await?;
        let Full { level, n, .. } = tile;
        let Some(row) = rows.first() else {
            self.problem(None, None, format!("tile {n} of level {level} is missing"));
            return Ok(());
        };
        let stored = row.blob(0)?;
        if let Some(at) = differs(&tile.data, &stored) {
            let entry = (n * tree::WIDTH + at) << (8 * level);
            self.problem(Some(entry), None, format!("tile {n} of level {level} does not fit the entries from here on"));
        } else if tree::hash(row, 1)? != tile.root {
            self.problem(None, None, format!("tile {n} of level {level} has another root than is stored with it"));
        }
        Ok(())
    }

    /// Where a checkpoint was signed, the root must be the signed one.
    fn root(&mut self) -> Result<()> {
        let size = self.edge.size();
        let Some(signed) = self.signed.get(&size).copied() else { return Ok(()) };
        if self.edge.root()? == signed {
            self.good = size;
            return Ok(());
        }
        let since = self.good;
        // Everything behind it has another root, too; that says nothing new.
        self.broken = true;
        if self.found.problems.iter().any(|problem| problem.entry.is_some_and(|entry| (since..size).contains(&entry))) {
            return Ok(());
        }
        let stored = self.unfinished.take_if(|(at, _)| *at == size).map(|(_, data)| data);
        let current = self.edge.unfinished();
        let known = stored.and_then(|stored| differs(&current, &stored)).map(|at| size - size % tree::WIDTH + at);
        match known.filter(|entry| *entry >= since) {
            Some(entry) => self.problem(Some(entry), None, "it is not the entry that was signed"),
            None => {
                let what = format!("one of the entries {since} to {} is not the one that was signed", size - 1);
                self.problem(Some(since), None, what);
            }
        }
        Ok(())
    }

    /// Rows that no entry charges, and counters that are no sums.
    async fn money(&mut self, link: &mut Link) -> Result<()> {
        let rows = link.rows("SELECT COUNT(*) FROM usage", vec![]).await?;
        let count = rows.first().map_or(Ok(0), |row| row.count(0))?;
        if count > self.found.usage {
            let orphan =
                "SELECT u.request_id FROM usage u LEFT JOIN entries s ON s.request_id = u.request_id AND s.phase IN (1, 3)
                          WHERE s.idx IS NULL ORDER BY u.request_id LIMIT 1";
            let id = link.rows(orphan, vec![]).await?.first().map(|row| row.text(0)).transpose()?;
            self.problem(None, id.as_deref(), format!("{} usage rows belong to no entry", count - self.found.usage));
        }
        let sql = "SELECT tenant, key_id, starts, ends, spent, spent_tokens, held, held_tokens FROM counters";
        for row in link.rows(sql, vec![]).await? {
            let ((account, period), balance) = counters::read(&row)?;
            let computed = self.computed(link, &account, period).await?;
            if balance != computed {
                let what = format!("the counter of {account} for {period} says {balance:?}, the rows say {computed:?}");
                self.problem(None, None, what);
            }
        }
        Ok(())
    }

    async fn computed(&self, link: &mut Link, account: &Account, period: Period) -> Result<Balance> {
        let rows = link.rows(SPENT, spent_args(account, period)).await?;
        let mut balance = Balance::default();
        if let Some(row) = rows.first() {
            (balance.spent, balance.spent_tokens) = (row.int(0)?, row.int(1)?);
        }
        let held = self.open.values().flatten();
        for (hold, _) in held.filter(|(hold, of)| hold.account == *account && *of == period) {
            balance.held += hold.money;
            balance.held_tokens += hold.tokens;
        }
        Ok(balance)
    }

    fn finish(mut self) -> Result<Verification> {
        self.found.root = self.edge.root()?.to_string();
        // What names an entry stands before what does not.
        self.found.problems.sort_by_key(|problem| problem.entry.unwrap_or(u64::MAX));
        Ok(self.found)
    }
}

/// The place of the first hash in which two tiles differ.
fn differs(a: &[u8], b: &[u8]) -> Option<u64> {
    let pairs = a.chunks(HASH_SIZE).zip(b.chunks(HASH_SIZE));
    let first = pairs.zip(0..).find_map(|((a, b), at)| (a != b).then_some(at));
    first.or_else(|| (a.len() != b.len()).then_some((a.len().min(b.len()) / HASH_SIZE) as u64))
}

/// The columns beside an entry; `None` if they make no sense.
fn columns(row: &Row) -> Result<Option<Columns>> {
    let phase = match row.int(3)? {
        0 => Phase::Accepted,
        1 => Phase::Settled,
        2 => Phase::Event,
        3 => Phase::Feedback,
        _ => return Ok(None),
    };
    Ok(Some(Columns {
        phase,
        request_id: row.text(4)?,
        tenant: row.text(5)?,
        key_id: row.text(6)?,
        kind: row.text(7)?,
        model: row.text(8)?,
        outcome: row.text(9)?,
        at: row.int(10)?,
    }))
}

/// A usage row, from its item on.
fn charge(row: &Row) -> Result<Charge> {
    let name = row.text(1)?;
    let item = Item::ALL.into_iter().find(|item| item.name() == name);
    let item = item.ok_or_else(|| Error::Store(format!("{name:?} is nothing that can be charged for")))?;
    Ok(Charge { item, quantity: row.count(2)?, price: row.int(3)?, amount: row.int(4)? })
}
