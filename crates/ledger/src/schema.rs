//! The tables, the same in both databases.
//!
//! `entries` is the log: written once, never changed; its columns repeat what queries look for in the body, and `verify` compares the two.
//! `tiles` holds full tiles of 256 hashes, `edges` the unfinished one of leaves at the newest checkpoint (only to name what was changed under it). `contents` and `subjects` are what erasure takes away.
//! `feedback` says which request an entry speaks of, `rollouts` which entry is a rollout's newest, `figures` what was counted since.

use crate::{
    Result,
    store::{Link, built},
};

/// Every step from an empty database to the present one. A released step never changes; new ones are put behind it.
const STEPS: [&str; 2] = [
    "
CREATE TABLE entries (
    idx {id} PRIMARY KEY,
    phase BIGINT NOT NULL,
    request_id TEXT NOT NULL,
    tenant TEXT NOT NULL,
    key_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    model TEXT NOT NULL,
    outcome TEXT NOT NULL,
    at BIGINT NOT NULL,
    leaf {blob} NOT NULL,
    body {blob} NOT NULL,
    UNIQUE (request_id, phase)
);
CREATE INDEX entries_of_tenant ON entries (tenant, idx);
CREATE TABLE tiles (
    level BIGINT NOT NULL,
    n BIGINT NOT NULL,
    root {blob} NOT NULL,
    data {blob} NOT NULL,
    PRIMARY KEY (level, n)
){clustered};
CREATE TABLE edges (
    level BIGINT PRIMARY KEY,
    size BIGINT NOT NULL,
    data {blob} NOT NULL
);
CREATE TABLE checkpoints (
    size {id} PRIMARY KEY,
    at BIGINT NOT NULL,
    note TEXT NOT NULL
);
CREATE TABLE subjects (
    id TEXT PRIMARY KEY,
    tenant TEXT NOT NULL,
    subject TEXT NOT NULL,
    wrapped {blob} NOT NULL,
    at BIGINT NOT NULL,
    UNIQUE (tenant, subject)
);
CREATE TABLE contents (
    idx {id} PRIMARY KEY,
    subject_id TEXT NOT NULL REFERENCES subjects (id) ON DELETE CASCADE,
    at BIGINT NOT NULL,
    sealed {blob} NOT NULL
);
CREATE INDEX contents_of_subject ON contents (subject_id);
CREATE INDEX contents_by_age ON contents (at);
CREATE TABLE usage (
    request_id TEXT NOT NULL,
    item TEXT NOT NULL,
    tenant TEXT NOT NULL,
    key_id TEXT NOT NULL,
    quantity BIGINT NOT NULL,
    price BIGINT NOT NULL,
    amount BIGINT NOT NULL,
    tokens BIGINT NOT NULL,
    at BIGINT NOT NULL,
    PRIMARY KEY (request_id, item)
){clustered};
CREATE INDEX usage_of_account ON usage (tenant, key_id, at);
CREATE TABLE counters (
    tenant TEXT NOT NULL,
    key_id TEXT NOT NULL,
    starts BIGINT NOT NULL,
    ends BIGINT NOT NULL,
    spent BIGINT NOT NULL,
    spent_tokens BIGINT NOT NULL,
    held BIGINT NOT NULL,
    held_tokens BIGINT NOT NULL,
    PRIMARY KEY (tenant, key_id, starts, ends)
){clustered};
CREATE TABLE gateways (
    id TEXT PRIMARY KEY,
    seen_at BIGINT NOT NULL,
    low BIGINT NOT NULL
);
CREATE TABLE keys (
    id TEXT PRIMARY KEY,
    hash {blob} NOT NULL,
    data TEXT NOT NULL,
    revoked_at BIGINT,
    used_at BIGINT,
    version BIGINT NOT NULL
)
",
    "
CREATE TABLE feedback (
    id TEXT PRIMARY KEY,
    request_id TEXT NOT NULL
);
CREATE INDEX feedback_of_request ON feedback (request_id);
CREATE TABLE rollouts (
    rollout TEXT NOT NULL,
    canary TEXT NOT NULL,
    entry TEXT NOT NULL,
    PRIMARY KEY (rollout, canary)
){clustered};
CREATE TABLE figures (
    entry TEXT NOT NULL,
    counter TEXT NOT NULL,
    data TEXT NOT NULL,
    PRIMARY KEY (entry, counter)
){clustered}
",
];

/// Brings a database to the present state. Several gateways may do so at once.
pub(crate) async fn prepare(link: &mut Link) -> Result<()> {
    link.begin().await?;
    let done = steps(link).await;
    if done.is_err() {
        link.rollback().await;
    }
    done
}

async fn steps(link: &mut Link) -> Result<()> {
    link.run("CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value BIGINT NOT NULL)", vec![]).await?;
    let present = version(link).await?;
    for (number, step) in STEPS.iter().enumerate().skip(usize::try_from(present).unwrap_or(usize::MAX)) {
        let dialect = link.dialect();
        let step =
            step.replace("{id}", dialect.id).replace("{blob}", dialect.blob).replace("{clustered}", dialect.clustered);
        for statement in step.split(';') {
            link.run(built(statement.to_owned()), vec![]).await?;
        }
        let set = "INSERT INTO meta VALUES ('schema', $1) ON CONFLICT (name) DO UPDATE SET value = excluded.value";
        link.run(set, vec![(number as u64 + 1).into()]).await?;
    }
    link.commit().await
}

/// How many steps were taken.
pub(crate) async fn version(link: &mut Link) -> Result<u64> {
    let found = link.rows("SELECT value FROM meta WHERE name = 'schema'", vec![]).await?;
    found.first().map_or(Ok(0), |row| row.count(0))
}
