//! Taking contents away: one person's at once, everybody's by age. The log stays, says that it happened, and still verifies.

use std::time::Duration;

use crate::{
    Error, Ledger, Result,
    clock::micros,
    entry::{Body, ErasedBody, ExpiredBody},
    note::hex,
    store::Store,
};

/// Contents deleted in one transaction; requests go on in between.
const BATCH: i64 = 500;

impl Ledger {
    /// Destroys a person's key, and with it all their contents; how many that were. What they ask from now on is sealed under a new key.
    ///
    /// A copy of the database made earlier still has the wrapped key: an erasure is complete once older backups are gone, too.
    ///
    /// # Errors
    /// [`Error::NotFound`] if nothing is kept about this person.
    pub async fn erase(&self, tenant: &str, subject: &str) -> Result<u64> {
        let store = &self.shared.store;
        let sql = "SELECT u.id, COUNT(c.idx) FROM subjects u LEFT JOIN contents c ON c.subject_id = u.id
                   WHERE u.tenant = $1 AND u.subject = $2 GROUP BY u.id";
        let rows = store.rows(sql, vec![tenant.into(), subject.into()]).await?;
        let nobody = || Error::NotFound(format!("nothing is kept about {subject:?} of tenant {tenant:?}"));
        let row = rows.first().ok_or_else(nobody)?;
        let (subject_id, contents) = (row.text(0)?, row.count(1)?);
        let body = ErasedBody {
            id: event_id(),
            tenant: tenant.to_owned(),
            at: self.clock().now(),
            subject_id: subject_id.clone(),
        };
        // Contents go with their subject.
        let delete = ("DELETE FROM subjects WHERE id = $1", vec![subject_id.as_str().into()]);
        self.write(&Body::Erased(body), None, vec![], vec![delete]).await?;
        self.empty_log().await?;
        Ok(contents)
    }

    /// Pages that held what is gone are in SQLite's log file, too, until it is emptied.
    async fn empty_log(&self) -> Result<()> {
        let store = &self.shared.store;
        if let Store::Sqlite(_) = store {
            store.link().await?.rows("PRAGMA wal_checkpoint(TRUNCATE)", vec![]).await?;
        }
        Ok(())
    }

    /// Deletes contents older than this, in batches; how many there were.
    pub async fn expire(&self, age: Duration) -> Result<u64> {
        let before = self.clock().now().saturating_sub(micros(age));
        let old = "SELECT COUNT(*) FROM contents WHERE at < $1";
        let rows = self.shared.store.rows(old, vec![before.into()]).await?;
        let contents = rows.first().map_or(Ok(0), |row| row.count(0))?;
        if contents == 0 {
            return Ok(0);
        }
        // Before they go: whoever verifies meanwhile, or after a crash, finds nothing missing without a reason.
        let body = ExpiredBody { id: event_id(), at: self.clock().now(), before, contents };
        self.write(&Body::Expired(body), None, vec![], vec![]).await?;
        let delete = "DELETE FROM contents WHERE idx IN (SELECT idx FROM contents WHERE at < $1 ORDER BY at LIMIT $2)";
        while self.run(vec![(delete, vec![before.into(), BATCH.into()])]).await? > 0 {}
        self.empty_log().await?;
        Ok(contents)
    }
}

fn event_id() -> String {
    format!("event-{}", hex(&rand::random::<[u8; 16]>()))
}
