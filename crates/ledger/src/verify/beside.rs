//! Tables that repeat in rows what entries say: usage, which request feedback speaks of, the newest moves of rollouts.

use std::collections::{BTreeMap, HashMap};

use super::{Check, charge};
use crate::{
    Charge, Move, Result,
    entry::Body,
    store::{Link, built, placeholders},
};

/// What the tables must have of one page of entries.
#[derive(Default)]
pub(super) struct Claims {
    /// Charges by entry id, with the entry's place.
    charges: HashMap<String, (u64, Vec<Charge>)>,
    /// Requests by id of the feedback, with its place.
    feedback: HashMap<String, (u64, String)>,
}

/// The entry that the table must have as the newest of every rollout and version.
pub(super) type Moves = BTreeMap<(String, String), String>;

impl Claims {
    pub(super) fn add(&mut self, place: u64, body: Body, moves: &mut Moves) {
        match body {
            Body::Settled(body) => _ = self.charges.insert(body.request_id, (place, body.charges)),
            Body::Feedback(body) => {
                self.charges.insert(body.id.clone(), (place, body.charges));
                self.feedback.insert(body.id, (place, body.request_id));
            }
            Body::Moved(body) => {
                let Move { rollout, canary, .. } = body.moved;
                moves.insert((rollout, canary), body.id);
            }
            _ => {}
        }
    }
}

impl Check<'_> {
    pub(super) async fn beside(&mut self, link: &mut Link, mut claims: Claims) -> Result<()> {
        claims.charges.retain(|_, (_, charges)| !charges.is_empty());
        self.usage(link, claims.charges).await?;
        self.feedback(link, claims.feedback).await
    }

    /// The usage rows of the entries of a page.
    async fn usage(&mut self, link: &mut Link, claimed: HashMap<String, (u64, Vec<Charge>)>) -> Result<()> {
        if claimed.is_empty() {
            return Ok(());
        }
        let ids = placeholders(1, claimed.len());
        let sql = format!("SELECT request_id, item, quantity, price, amount FROM usage WHERE request_id IN {ids}");
        let args = claimed.keys().map(|id| id.as_str().into()).collect();
        let mut rows = HashMap::<String, Vec<Charge>>::new();
        for row in link.rows(built(sql), args).await? {
            self.found.usage += 1;
            rows.entry(row.text(0)?).or_default().push(charge(&row)?);
        }
        for (id, (place, charges)) in in_order(claimed) {
            let mut billed = rows.remove(&id).unwrap_or_default();
            billed.sort_by_key(|charge| charge.item);
            if billed != charges {
                self.problem(Some(place), Some(&id), "its usage rows are not what the entry charges");
            }
        }
        Ok(())
    }

    async fn feedback(&mut self, link: &mut Link, claimed: HashMap<String, (u64, String)>) -> Result<()> {
        if claimed.is_empty() {
            return Ok(());
        }
        let sql = format!("SELECT id, request_id FROM feedback WHERE id IN {}", placeholders(1, claimed.len()));
        let args = claimed.keys().map(|id| id.as_str().into()).collect();
        let mut rows = HashMap::new();
        for row in link.rows(built(sql), args).await? {
            rows.insert(row.text(0)?, row.text(1)?);
        }
        for (id, (place, request_id)) in in_order(claimed) {
            if rows.get(&id) != Some(&request_id) {
                self.problem(Some(place), Some(&request_id), "the table of feedback says another request, or none");
            }
        }
        Ok(())
    }

    /// Rows of feedback that no entry is behind, and rollouts whose state is not their newest move.
    pub(super) async fn states(&mut self, link: &mut Link) -> Result<()> {
        let orphan = "SELECT f.id FROM feedback f LEFT JOIN entries e ON e.request_id = f.id AND e.phase = 3
                      WHERE e.idx IS NULL ORDER BY f.id LIMIT 1";
        if let Some(row) = link.rows(orphan, vec![]).await?.first() {
            self.problem(None, None, format!("the feedback {} has no entry", row.text(0)?));
        }
        let mut stored = Moves::new();
        for row in link.rows("SELECT rollout, canary, entry FROM rollouts", vec![]).await? {
            stored.insert((row.text(0)?, row.text(1)?), row.text(2)?);
        }
        if stored != self.moves {
            self.problem(None, None, "the table of rollouts does not say their newest moves");
        }
        Ok(())
    }
}

/// By the places of the entries.
fn in_order<T>(claimed: HashMap<String, (u64, T)>) -> Vec<(String, (u64, T))> {
    let mut claimed: Vec<_> = claimed.into_iter().collect();
    claimed.sort_by_key(|(_, (place, _))| *place);
    claimed
}
