//! Backup and restore: all tables, row by row, from one store into another.
//!
//! A backup is an SQLite file whatever the store is: the same queries read and write both, so one code does backup, restore and the move
//! from SQLite to PostgreSQL. It is read in one snapshot, so a gateway may go on writing. The key file is not in it: keep a copy of that
//! apart.

use std::path::{Path, PathBuf};

use crate::{
    Error, Ledger, Result, Settings, Verification,
    anchor::Anchor,
    schema,
    store::{Link, Row, Store, Value, built, placeholders},
    tree,
};

/// Rows copied at once.
const PAGE: usize = 200;

/// What a column holds.
#[derive(Debug, Clone, Copy)]
enum Column {
    Int,
    Maybe,
    Text,
    Blob,
}

/// A table: its columns, and how many of them, from the first on, are its key.
struct Table {
    name: &'static str,
    columns: &'static [(&'static str, Column)],
    key: usize,
}

use Column::{Blob, Int, Maybe, Text};

/// In an order in which no row refers to one that is not there yet.
const TABLES: [Table; 13] = [
    Table {
        name: "entries",
        columns: &[
            ("idx", Int),
            ("phase", Int),
            ("request_id", Text),
            ("tenant", Text),
            ("key_id", Text),
            ("kind", Text),
            ("model", Text),
            ("outcome", Text),
            ("at", Int),
            ("leaf", Blob),
            ("body", Blob),
        ],
        key: 1,
    },
    Table { name: "tiles", columns: &[("level", Int), ("n", Int), ("root", Blob), ("data", Blob)], key: 2 },
    Table { name: "edges", columns: &[("level", Int), ("size", Int), ("data", Blob)], key: 1 },
    Table { name: "checkpoints", columns: &[("size", Int), ("at", Int), ("note", Text)], key: 1 },
    Table {
        name: "subjects",
        columns: &[("id", Text), ("tenant", Text), ("subject", Text), ("wrapped", Blob), ("at", Int)],
        key: 1,
    },
    Table { name: "contents", columns: &[("idx", Int), ("subject_id", Text), ("at", Int), ("sealed", Blob)], key: 1 },
    Table {
        name: "usage",
        columns: &[
            ("request_id", Text),
            ("item", Text),
            ("tenant", Text),
            ("key_id", Text),
            ("quantity", Int),
            ("price", Int),
            ("amount", Int),
            ("tokens", Int),
            ("at", Int),
        ],
        key: 2,
    },
    Table {
        name: "counters",
        columns: &[
            ("tenant", Text),
            ("key_id", Text),
            ("starts", Int),
            ("ends", Int),
            ("spent", Int),
            ("spent_tokens", Int),
            ("held", Int),
            ("held_tokens", Int),
        ],
        key: 4,
    },
    Table { name: "feedback", columns: &[("id", Text), ("request_id", Text)], key: 1 },
    Table { name: "rollouts", columns: &[("rollout", Text), ("canary", Text), ("entry", Text)], key: 2 },
    Table { name: "figures", columns: &[("entry", Text), ("counter", Text), ("data", Text)], key: 2 },
    Table { name: "gateways", columns: &[("id", Text), ("seen_at", Int), ("low", Int)], key: 1 },
    Table {
        name: "keys",
        columns: &[
            ("id", Text),
            ("hash", Blob),
            ("data", Text),
            ("revoked_at", Maybe),
            ("used_at", Maybe),
            ("version", Int),
        ],
        key: 1,
    },
];

impl Ledger {
    /// Writes a consistent copy into a new file, while gateways go on writing.
    ///
    /// # Errors
    /// If the file is there already, or cannot be written.
    pub async fn backup(&self, file: &Path) -> Result<()> {
        if file.exists() {
            return Err(Error::Settings(format!("{} exists: a backup goes into a new file", file.display())));
        }
        let draft = draft(file);
        let copied = self.copy_into(&draft).await;
        let moved = copied.and_then(|()| std::fs::rename(&draft, file).map_err(|error| Error::file(file, &error)));
        if moved.is_err() {
            let _ = std::fs::remove_file(&draft);
        }
        moved
    }

    async fn copy_into(&self, file: &Path) -> Result<()> {
        let target = Store::open(&sqlite(file)).await?;
        let mut from = self.shared.store.link().await?;
        from.snapshot().await?;
        let mut to = target.link().await?;
        copy(&mut from, &mut to).await?;
        from.rollback().await;
        to.rows("PRAGMA wal_checkpoint(TRUNCATE)", vec![]).await?;
        to.rows("PRAGMA journal_mode=DELETE", vec![]).await?;
        to.close().await?;
        target.close().await;
        Ok(())
    }

    /// Fills an empty store from a backup, and verifies what is there then.
    ///
    /// # Errors
    /// If the store is not empty, the key file is not the backup's, or the backup does not verify; then the store is left empty.
    pub async fn restore(settings: Settings, file: &Path) -> Result<(Self, Verification)> {
        if !file.is_file() {
            return Err(Error::NotFound(format!("{} is no file", file.display())));
        }
        let target = Store::open(&settings.url).await?;
        if tree::size(&target).await? > 0 {
            return Err(Error::Settings(format!(
                "{} is not empty: a backup is restored into a new store",
                settings.url
            )));
        }
        let (mut from, mut to) = (Link::file(file).await?, target.link().await?);
        if schema::version(&mut from).await? != schema::version(&mut to).await? {
            return Err(Error::Settings(format!("{} was made by another version of tessera", file.display())));
        }
        copy(&mut from, &mut to).await?;
        target.close().await;
        Anchor::new(&settings.keys, &settings.url).forget()?;
        let opened = Self::open(settings).await;
        let verified = match &opened {
            Ok(ledger) => ledger.verify(None).await,
            Err(error) => Err(error.clone()),
        };
        match (opened, verified) {
            (Ok(ledger), Ok(found)) if found.problems.is_empty() => Ok((ledger, found)),
            (opened, verified) => {
                if let Ok(ledger) = opened {
                    ledger.close().await;
                }
                empty(&mut to).await?;
                let first = |found: Verification| found.problems.first().map(|problem| problem.what.clone());
                let why =
                    verified.map(|found| first(found).unwrap_or_default()).unwrap_or_else(|error| error.to_string());
                Err(Error::Altered(format!("the backup does not verify: {why}")))
            }
        }
    }
}

fn draft(file: &Path) -> PathBuf {
    crate::keeper::beside(file, ".draft")
}

fn sqlite(file: &Path) -> String {
    format!("sqlite:{}", file.display())
}

async fn copy(from: &mut Link, to: &mut Link) -> Result<()> {
    to.begin().await?;
    for table in &TABLES {
        table.copy(from, to).await?;
    }
    to.commit().await
}

async fn empty(link: &mut Link) -> Result<()> {
    link.begin().await?;
    for table in TABLES.iter().rev() {
        link.run(built(format!("DELETE FROM {}", table.name)), vec![]).await?;
    }
    link.commit().await
}

impl Table {
    async fn copy(&self, from: &mut Link, to: &mut Link) -> Result<()> {
        let names = self.columns.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        let key = self.columns[..self.key].iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        let start = format!("SELECT {names} FROM {} ORDER BY {key} LIMIT {PAGE}", self.name);
        let behind = placeholders(1, self.key);
        let go_on = format!("SELECT {names} FROM {} WHERE ({key}) > {behind} ORDER BY {key} LIMIT {PAGE}", self.name);
        let mut rows = from.rows(built(start), vec![]).await?;
        while let Some(last) = rows.last() {
            let last = self.values(last)?.into_iter().take(self.key).collect();
            let values = rows.iter().map(|row| self.values(row)).collect::<Result<Vec<_>>>()?.concat();
            let list = placeholders(rows.len(), self.columns.len());
            to.run(built(format!("INSERT INTO {} ({names}) VALUES {list}", self.name)), values).await?;
            rows = from.rows(built(go_on.clone()), last).await?;
        }
        Ok(())
    }

    fn values(&self, row: &Row) -> Result<Vec<Value>> {
        let value = |(at, (_, column)): (usize, &(&str, Column))| {
            Ok(match column {
                Int => Value::Int(row.int(at)?),
                Maybe => Value::Maybe(row.maybe(at)?),
                Text => Value::Text(row.text(at)?),
                Blob => Value::Blob(row.blob(at)?),
            })
        };
        self.columns.iter().enumerate().map(value).collect()
    }
}
