//! The rows of one transaction.

use std::{collections::HashMap, mem::take};

use tlog_tiles::Hash;

use crate::{
    Result,
    counters::Counters,
    entry::{Columns, binding, leaf},
    store::{Text, Value, placeholders},
    tree::{Edge, Full},
    vault::SubjectKey,
    writer::{Person, Write},
};

/// The most rows in one statement. Every number of them is a statement of its own that stays prepared.
pub(crate) const CHUNK: usize = 32;

/// The ids and keys of persons.
pub(crate) type Subjects = HashMap<Person, (String, SubjectKey)>;

/// A batch as rows by table, and the log as it is with them.
#[derive(Debug)]
pub(crate) struct Rows {
    pub(crate) edge: Edge,
    /// The last leaf.
    pub(crate) last: Option<Hash>,
    pub(crate) places: Vec<u64>,
    entries: Vec<Value>,
    contents: Vec<Value>,
    usage: Vec<Value>,
    full: Vec<Full>,
}

/// How rows get into a table: what stands before the values, how many columns there are, what stands behind.
struct Insert(&'static str, usize, &'static str);

const ENTRIES: Insert = Insert(
    "INSERT INTO entries (idx, phase, request_id, tenant, key_id, kind, model, outcome, at, leaf, body) VALUES ",
    11,
    "",
);
const CONTENTS: Insert = Insert("INSERT INTO contents (idx, subject_id, at, sealed) VALUES ", 4, "");
const USAGE: Insert =
    Insert("INSERT INTO usage (request_id, item, tenant, key_id, quantity, price, amount, tokens, at) VALUES ", 9, "");
const TILES: Insert = Insert("INSERT INTO tiles (level, n, root, data) VALUES ", 4, "");
const COUNTERS: Insert = Insert(
    "INSERT INTO counters (tenant, key_id, starts, ends, spent, spent_tokens, held, held_tokens) VALUES ",
    8,
    " ON CONFLICT (tenant, key_id, starts, ends) DO UPDATE SET spent = excluded.spent,
      spent_tokens = excluded.spent_tokens, held = excluded.held, held_tokens = excluded.held_tokens",
);

impl Rows {
    /// Gives the entries of a batch their places behind `edge` and seals their contents.
    pub(crate) fn of(batch: &[Write], edge: Edge, subjects: &Subjects) -> Result<Self> {
        let mut rows = Self {
            edge,
            last: None,
            places: Vec::with_capacity(batch.len()),
            entries: vec![],
            contents: vec![],
            usage: vec![],
            full: vec![],
        };
        for write in batch {
            rows.add(write, subjects)?;
        }
        Ok(rows)
    }

    fn add(&mut self, write: &Write, subjects: &Subjects) -> Result<()> {
        let (place, hash) = (self.edge.size(), leaf(&write.body));
        self.edge.push(hash, &mut self.full);
        self.last = Some(hash);
        self.places.push(place);
        let Columns { phase, request_id, tenant, key_id, kind, model, outcome, at } = &write.columns;
        self.entries.extend([
            place.into(),
            (*phase as i64).into(),
            request_id.as_str().into(),
            tenant.as_str().into(),
            key_id.as_str().into(),
            kind.as_str().into(),
            model.as_str().into(),
            outcome.as_str().into(),
            (*at).into(),
            hash.0.to_vec().into(),
            write.body.clone().into(),
        ]);
        for charge in &write.charges {
            self.usage.extend([
                request_id.as_str().into(),
                charge.item.name().into(),
                tenant.as_str().into(),
                key_id.as_str().into(),
                charge.quantity.into(),
                charge.price.into(),
                charge.amount.into(),
                charge.tokens().into(),
                (*at).into(),
            ]);
        }
        let Some((subject, plain)) = &write.content else { return Ok(()) };
        let Some((id, key)) = subjects.get(&(tenant.clone(), subject.clone())) else { return Ok(()) };
        let sealed = key.seal(&binding(request_id, *phase), plain)?;
        self.contents.extend([place.into(), id.as_str().into(), (*at).into(), sealed.into()]);
        Ok(())
    }

    /// The statements that write them, the counters that changed, and what the batch brings along.
    pub(crate) fn statements(&mut self, batch: &[Write], counters: &mut Counters) -> Vec<Text> {
        let tile = |full: Full| -> [Value; 4] {
            [full.level.into(), full.n.into(), full.root.0.to_vec().into(), full.data.into()]
        };
        let tiles = take(&mut self.full).into_iter().flat_map(tile).collect();
        let tables = [
            (ENTRIES, take(&mut self.entries)),
            (CONTENTS, take(&mut self.contents)),
            (USAGE, take(&mut self.usage)),
            (TILES, tiles),
            (COUNTERS, counters.changed()),
        ];
        let also = batch.iter().flat_map(|write| &write.also).map(|(sql, args)| ((*sql).to_owned(), args.clone()));
        tables.into_iter().flat_map(|(insert, values)| insert.rows(values)).chain(also).collect()
    }
}

impl Insert {
    fn rows(&self, values: Vec<Value>) -> Vec<Text> {
        let Self(head, columns, tail) = self;
        let (mut values, mut statements) = (values.into_iter(), Vec::new());
        while values.len() > 0 {
            let rows = CHUNK.min(values.len() / columns);
            let text = format!("{head}{}{tail}", placeholders(rows, *columns));
            statements.push((text, values.by_ref().take(rows * columns).collect()));
        }
        statements
    }
}
