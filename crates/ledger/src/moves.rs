//! Which share of the callers a new version has, since when, and why: every move of a rollout is an entry of the log.
//!
//! The newest move of a rollout is its state, for this gateway after a restart and for all others on the same database. A move's place is in
//! its entry's id, which exists once: of two gateways that move at the same time one is told that it came second ([`Error::Duplicate`]).
//! What was counted since a move is kept beside it, by whoever counted, and goes with the next one.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    Error, Ledger, Result,
    entry::{Body, MovedBody},
    note::hex,
};

/// A state of a rollout, and how it came to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    /// The name that requests use.
    pub rollout: String,
    /// The new version's model.
    pub canary: String,
    /// How many moves were before it.
    pub number: u64,
    /// Microseconds since 1970.
    pub at: i64,
    /// Per cent of the callers that get the new version from then on.
    pub share: u32,
    /// What happens next.
    pub course: Course,
    /// Why, for people.
    pub why: String,
    /// The public part of the key that wanted it; empty where the figures did.
    pub by: String,
}

/// How a rollout goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Course {
    /// It goes on step by step while the new version is fine.
    Running,
    /// It stays where it is until a person moves it, or figures take it back.
    Paused,
    /// All callers have the new version.
    Promoted,
    /// Nobody has it.
    RolledBack,
}

impl Course {
    /// Its name, as it is stored and shown.
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Promoted => "promoted",
            Self::RolledBack => "rolled_back",
        }
    }
}

impl Move {
    /// Its entry's id.
    pub(crate) fn id(&self, number: u64) -> String {
        let mut hash = Sha256::new();
        for word in [&self.rollout, &self.canary] {
            hash.update((word.len() as u64).to_le_bytes());
            hash.update(word);
        }
        format!("move-{}-{number}", hex(&hash.finalize()[..16]))
    }
}

impl Ledger {
    /// The newest move of a rollout to this version; `None` if there was none.
    pub async fn last_move(&self, rollout: &str, canary: &str) -> Result<Option<Move>> {
        let sql = "SELECT e.body FROM rollouts r JOIN entries e ON e.request_id = r.entry AND e.phase = 2
                   WHERE r.rollout = $1 AND r.canary = $2";
        let rows = self.shared.store.rows(sql, vec![rollout.into(), canary.into()]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        match Body::decode(&row.blob(0)?)? {
            Body::Moved(body) => Ok(Some(body.moved)),
            _ => Err(Error::Altered(format!("the last move of the rollout {rollout} is none"))),
        }
    }

    /// Writes a move. What was counted since the one before goes.
    ///
    /// # Errors
    /// [`Error::Duplicate`] if the rollout was moved in the meantime.
    pub async fn record_move(&self, moved: &Move) -> Result<()> {
        let id = moved.id(moved.number);
        let state = "INSERT INTO rollouts (rollout, canary, entry) VALUES ($1, $2, $3)
                     ON CONFLICT (rollout, canary) DO UPDATE SET entry = excluded.entry";
        let names = [&moved.rollout, &moved.canary, &id];
        let state = (state, names.map(|name| name.as_str().into()).to_vec());
        let before = moved.id(moved.number.saturating_sub(1));
        let counted = ("DELETE FROM figures WHERE entry = $1", vec![before.into()]);
        let body = Body::Moved(MovedBody { id, moved: moved.clone() });
        self.write(&body, None, vec![], vec![counted, state]).await.map(drop)
    }

    /// Keeps what one counter counted since a move, in place of what it kept before.
    pub async fn keep_figures(&self, since: &Move, counter: &str, figures: &str) -> Result<()> {
        let sql = "INSERT INTO figures (entry, counter, data) VALUES ($1, $2, $3)
                   ON CONFLICT (entry, counter) DO UPDATE SET data = excluded.data";
        let args = vec![since.id(since.number).into(), counter.into(), figures.into()];
        self.run(vec![(sql, args)]).await.map(drop)
    }

    /// What all others than this counter counted since a move.
    pub async fn figures_of_others(&self, since: &Move, counter: &str) -> Result<Vec<String>> {
        let sql = "SELECT data FROM figures WHERE entry = $1 AND counter <> $2 ORDER BY counter";
        let args = vec![since.id(since.number).into(), counter.into()];
        self.shared.store.rows(sql, args).await?.iter().map(|row| row.text(0)).collect()
    }
}
