//! What the log says was taken away: one person's contents, or everybody's by age.
//!
//! Content may be missing only where such an entry stands behind it. An expiry says up to which date it reached. An erasure names a key and
//! not whose it was, so it explains what is missing of its tenant; which persons' entries those were must not be told.

use std::collections::HashMap;

use crate::{
    Result,
    entry::{Body, Columns, Phase},
    store::Link,
};

#[derive(Default)]
pub(super) struct Taken {
    /// The last erasure of each tenant.
    erased: HashMap<String, u64>,
    /// Expiries with the date that they reached, in the order of the log.
    expired: Vec<(u64, i64)>,
}

impl Taken {
    /// An entry that cannot be read explains nothing; that it cannot is found when all entries are.
    pub(super) async fn read(link: &mut Link) -> Result<Self> {
        let sql = "SELECT idx, body FROM entries WHERE phase = $1 ORDER BY idx";
        let mut taken = Self::default();
        for row in link.rows(sql, vec![(Phase::Event as i64).into()]).await? {
            match (row.count(0)?, Body::decode(&row.blob(1)?)) {
                (place, Ok(Body::Erased(body))) => _ = taken.erased.insert(body.tenant, place),
                (place, Ok(Body::Expired(body))) => taken.expired.push((place, body.before)),
                _ => {}
            }
        }
        Ok(taken)
    }

    /// Whether the content of this entry may be missing.
    pub(super) fn explains(&self, place: u64, columns: &Columns) -> bool {
        let erased = self.erased.get(&columns.tenant).is_some_and(|event| *event > place);
        let later = self.expired.iter().rev().take_while(|(event, _)| *event > place);
        erased || later.into_iter().any(|(_, before)| columns.at < *before)
    }
}
