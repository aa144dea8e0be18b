//! What the writer knows of the database without asking.
//!
//! A transaction of the log reads before it writes: entries of other gateways, and the counters of the accounts it charges. SQLite counts what
//! other connections changed (`PRAGMA data_version`), and as long as that number stands still both are what this writer left there. It
//! then writes without reading, in one call to SQLite's thread instead of two, and the transaction itself makes sure of the number: its
//! [guard](crate::store::Dialect::guard) is a statement that fails if it is another one. PostgreSQL has no such number, so nothing is kept.

use std::collections::BTreeSet;

use crate::{
    Account, Result,
    counters::Counters,
    entry::Columns,
    store::{Link, Text, built},
    writer::Write,
};

/// Accounts whose counters are kept at hand.
const ACCOUNTS: usize = 10_000;

/// The counters that were read, and when the database was last seen to be as they say.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// SQLite's number of changes by others; it means something to the connection that read it alone.
    version: Option<i64>,
    /// Counters of windows that had ended by then were not read.
    since: i64,
    pub(crate) counters: Counters,
}

impl Known {
    /// What is still known inside a transaction that was just begun, and with it the counters of the accounts of a batch.
    pub(crate) async fn refreshed(link: &mut Link, before: Option<Self>, batch: &[Write]) -> Result<Self> {
        let version = link.version().await?;
        let since = earliest(batch);
        let mut known = before
            .filter(|known| version.is_some() && known.version == version)
            .filter(|known| known.since <= since && known.counters.len() < ACCOUNTS)
            .unwrap_or_else(|| Self { version, ..Self::default() });
        let new = accounts(batch).filter(|account| !known.counters.knows(account)).collect::<BTreeSet<_>>();
        if let Some((sql, args)) = Counters::query(&new, since) {
            known.counters.read(new, &link.rows(built(sql), args).await?)?;
            known.since = since;
        }
        Ok(known)
    }

    /// Whether a batch needs nothing from the database as long as nobody else changes it.
    pub(crate) fn covers(&self, batch: &[Write]) -> bool {
        !batch.is_empty()
            && earliest(batch) >= self.since
            && accounts(batch).all(|account| self.counters.knows(&account))
            && batch.iter().all(|write| self.counters.has(&write.holds))
    }

    /// The statement that fails if others wrote since; `None` if nobody can know.
    pub(crate) fn guard(&self, link: &Link) -> Option<Text> {
        Some((link.dialect().guard?.to_owned(), vec![self.version?.into()]))
    }
}

fn earliest(batch: &[Write]) -> i64 {
    batch.iter().map(|write| write.columns.at).min().unwrap_or_default()
}

/// Those whose counters a batch may change.
fn accounts(batch: &[Write]) -> impl Iterator<Item = Account> {
    batch.iter().flat_map(|write| {
        let held = write.holds.iter().map(|(hold, _)| hold.account.clone());
        let charged = (!write.charges.is_empty()).then(|| {
            let Columns { tenant, key_id, .. } = &write.columns;
            [Account::tenant(tenant), Account::key(tenant, key_id)]
        });
        held.chain(charged.into_iter().flatten())
    })
}
