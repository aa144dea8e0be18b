//! Reading: records as stories, the log as a log.
//!
//! Every read of records is limited by a [`Scope`]; there is no other way to get at them.

use protocol::{Step, Usage as Tokens};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value as Json;

use crate::{
    Checkpoint, Content, Error, Kind, Ledger, Outcome, Place, Record, Result,
    entry::{AcceptedBody, Body, Input, Output, Phase, SettledBody, binding},
    keyring::Keyring,
    store::{Row, Value, built},
    tree,
    vault::{Plain, SubjectKey},
};

/// Whose records may be seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Everybody's.
    All,
    /// One tenant's.
    Tenant(String),
}

/// Which records are looked for. `None` means any.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Filter {
    /// What was asked for.
    pub kind: Option<Kind>,
    /// The model or decision asked for, by its exact name.
    pub model: Option<String>,
    /// The public part of the key.
    pub key_id: Option<String>,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// Accepted at this microsecond since 1970 or later.
    pub since: Option<i64>,
    /// Accepted before this microsecond since 1970.
    pub until: Option<i64>,
    /// Only those of which somebody said something.
    pub with_feedback: bool,
}

/// Which part of what was found: the newest records stand first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// Goes on behind the record whose accepted-entry stands here ([`Records::next`]).
    pub before: Option<u64>,
    /// Records at most.
    pub limit: u32,
}

impl Default for Page {
    fn default() -> Self {
        Self { before: None, limit: 50 }
    }
}

/// A page of records.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Records {
    /// The newest first.
    pub records: Vec<Record>,
    /// Where the next page begins, if there may be one.
    pub next: Option<u64>,
}

/// Records read at once: a content is sealed as one, so none of it can be read without all of it.
const AT_ONCE: u32 = 8;

/// An accepted-entry, the settled one where there is one, the sealed contents of both and the keys for them.
const STORY: &str = "SELECT a.idx, a.body, s.idx, s.body, ca.sealed, COALESCE(ua.id, ''), ua.wrapped,
            cs.sealed, COALESCE(us.id, ''), us.wrapped
     FROM entries a
     LEFT JOIN entries s ON s.request_id = a.request_id AND s.phase = 1
     LEFT JOIN contents ca ON ca.idx = a.idx LEFT JOIN subjects ua ON ua.id = ca.subject_id
     LEFT JOIN contents cs ON cs.idx = s.idx LEFT JOIN subjects us ON us.id = cs.subject_id
     WHERE a.phase = 0";

impl Ledger {
    /// The records that a filter finds, a page of them, the newest first; of each what `kept` leaves, such as [`crate::beginnings`]. No more than
    /// a few whole ones are in memory at a time.
    pub async fn records(
        &self,
        scope: &Scope,
        filter: &Filter,
        page: Page,
        kept: impl Fn(Record) -> Record,
    ) -> Result<Records> {
        let (mut records, mut before) = (Vec::new(), page.before);
        let mut left = page.limit.clamp(1, 1000);
        while left > 0 {
            let limit = left.min(AT_ONCE);
            let part = self.part(scope, filter, Page { before, limit }).await?;
            let full = part.len() == limit as usize;
            before = part.last().map(|last| last.log.accepted).filter(|_| full);
            records.extend(part.into_iter().map(&kept));
            left = if full { left - limit } else { 0 };
        }
        Ok(Records { records, next: before })
    }

    /// As many of them as `page` says, whole.
    async fn part(&self, scope: &Scope, filter: &Filter, page: Page) -> Result<Vec<Record>> {
        let mut conditions = Conditions::default();
        conditions.scope(scope);
        conditions.equal("a.kind", filter.kind.map(Kind::name));
        conditions.equal("a.model", filter.model.as_deref());
        conditions.equal("a.key_id", filter.key_id.as_deref());
        conditions.equal("s.outcome", filter.outcome.map(Outcome::name));
        conditions.number("a.at >=", filter.since);
        conditions.number("a.at <", filter.until);
        conditions.number("a.idx <", page.before.map(|before| i64::try_from(before).unwrap_or(i64::MAX)));
        if filter.with_feedback {
            conditions.sql += " AND EXISTS (SELECT 1 FROM feedback f WHERE f.request_id = a.request_id)";
        }
        let Conditions { sql, args } = conditions;
        let sql = format!("{STORY}{sql} ORDER BY a.idx DESC LIMIT {}", page.limit);
        let rows = self.shared.store.rows(built(sql), args).await?;
        let mut records = rows.iter().map(|row| self.story(row)).collect::<Result<Vec<_>>>()?;
        self.add_feedback(&mut records).await?;
        Ok(records)
    }

    /// One record, with what was said of it.
    pub async fn record(&self, scope: &Scope, request_id: &str) -> Result<Option<Record>> {
        let mut conditions = Conditions::default();
        conditions.scope(scope);
        conditions.equal("a.request_id", Some(request_id));
        let Conditions { sql, args } = conditions;
        let rows = self.shared.store.rows(built(format!("{STORY}{sql}")), args).await?;
        let mut records = rows.first().map(|row| self.story(row)).transpose()?;
        self.add_feedback(records.as_mut_slice()).await?;
        Ok(records)
    }

    /// The newest checkpoint; `None` while nothing was ever signed. Keep a copy elsewhere: only against one from outside can be seen that the
    /// log's end was cut off.
    pub async fn checkpoint(&self) -> Result<Option<Checkpoint>> {
        let rows = self.shared.store.rows("SELECT note FROM checkpoints ORDER BY size DESC LIMIT 1", vec![]).await?;
        rows.first().map(|row| self.verifier().open(&row.text(0)?)).transpose()
    }

    /// Entries in the log: all of these are sequenced; those under [`Ledger::checkpoint`] are signed, too.
    pub async fn size(&self) -> Result<u64> {
        tree::size(&self.shared.store).await
    }

    /// A tile of the log (c2sp.org/tlog-tiles): `width` hashes of tree level `8 * level`, from `256 * n` on.
    ///
    /// # Errors
    /// [`Error::NotFound`] if the log has no such tile yet.
    pub async fn tile(&self, level: u8, n: u64, width: u16) -> Result<Vec<u8>> {
        let width = u64::from(width);
        let hashes = self.size().await?.checked_shr(8 * u32::from(level)).unwrap_or(0);
        let there =
            (1..=tree::WIDTH).contains(&width) && n.checked_mul(tree::WIDTH).is_some_and(|at| at + width <= hashes);
        if !there {
            return Err(Error::NotFound(format!("the log has no tile {n} of level {level} with {width} hashes")));
        }
        tree::tile(&self.shared.store, u64::from(level), n, width).await
    }

    /// Up to 256 entries from `256 * n` on, each behind its length in two bytes, as tlog-tiles bundles them.
    pub async fn bundle(&self, n: u64, width: u16) -> Result<Vec<u8>> {
        let first = n.saturating_mul(tree::WIDTH);
        let last = first.saturating_add(u64::from(width).min(tree::WIDTH));
        let sql = "SELECT body FROM entries WHERE idx >= $1 AND idx < $2 ORDER BY idx";
        let rows = self.shared.store.rows(sql, vec![first.into(), last.into()]).await?;
        if rows.len() as u64 != last - first {
            return Err(Error::NotFound(format!("the log has no bundle {n} of {width} entries")));
        }
        let mut bundle = Vec::new();
        for row in &rows {
            let body = row.blob(0)?;
            let length = u16::try_from(body.len()).map_err(|_| Error::Altered("an entry is too long".into()))?;
            bundle.extend_from_slice(&length.to_be_bytes());
            bundle.extend_from_slice(&body);
        }
        Ok(bundle)
    }

    fn story(&self, row: &Row) -> Result<Record> {
        let (place, accepted) = (row.count(0)?, Body::decode(&row.blob(1)?)?);
        let Body::Accepted(accepted) = accepted else {
            return Err(Error::Altered(format!("entry {place} is no accepted-entry")));
        };
        let settled = match row.maybe_blob(3)?.as_deref().map(Body::decode).transpose()? {
            Some(Body::Settled(body)) => Some((row.count(2)?, *body)),
            Some(_) => return Err(Error::Altered(format!("the request of entry {place} has no settled-entry"))),
            None => None,
        };
        let keyring = &self.shared.keyring;
        let (input, first) = opened(keyring, row, 4, &accepted.request_id, Phase::Accepted, &accepted.content)?;
        let hash = settled.as_ref().map_or("", |(_, body)| &body.content);
        let (output, second) = opened(keyring, row, 7, &accepted.request_id, Phase::Settled, hash)?;
        let signed = self.shared.signed.load(std::sync::atomic::Ordering::Acquire);
        let last = settled.as_ref().map_or(place, |(place, _)| *place);
        let place = Place { accepted: place, settled: settled.as_ref().map(|(p, _)| *p), checkpointed: last < signed };
        let content = worse(first, second);
        Ok(assemble(accepted, settled.map(|(_, body)| body), input.as_ref(), output.as_ref(), content, place))
    }
}

fn worse(a: Content, b: Content) -> Content {
    match (a, b) {
        (Content::Altered, _) | (_, Content::Altered) => Content::Altered,
        (Content::Erased, _) | (_, Content::Erased) => Content::Erased,
        _ => Content::Intact,
    }
}

/// The content of an entry from the columns `sealed`, key id and wrapped key; its hash is compared with the one in the log.
pub(crate) fn opened(
    keyring: &Keyring,
    row: &Row,
    column: usize,
    request_id: &str,
    phase: Phase,
    hash: &str,
) -> Result<(Option<Plain>, Content)> {
    if hash.is_empty() {
        return Ok((None, Content::Intact));
    }
    let (Some(sealed), Some(wrapped)) = (row.maybe_blob(column)?, row.maybe_blob(column + 2)?) else {
        return Ok((None, Content::Erased));
    };
    let key = SubjectKey::unwrap(&keyring.wrap, &row.text(column + 1)?, &wrapped);
    let plain = key.and_then(|key| key.open(&binding(request_id, phase), &sealed));
    let intact = plain.as_ref().is_some_and(|plain| plain.hash() == hash);
    Ok((plain, if intact { Content::Intact } else { Content::Altered }))
}

fn assemble(
    accepted: AcceptedBody,
    settled: Option<SettledBody>,
    input: Option<&Plain>,
    output: Option<&Plain>,
    content: Content,
    log: Place,
) -> Record {
    let input = input.and_then(|plain| serde_json::from_slice(plain.content()).ok()).map(|Input { input }| input);
    let (input_text, input) = match input {
        Some(Json::String(text)) => (Some(text), None),
        Some(value) => (Some(words(&value)), Some(value)),
        None => (None, None),
    };
    let output: Option<Output> = output.and_then(|plain| serde_json::from_slice(plain.content()).ok());
    let (output_decision, inference_steps) = output.map_or((None, Vec::<Step>::new()), |o| (Some(o.output), o.steps));
    let AcceptedBody { request_id, tenant, key_id, kind, model, at, config_hash, parameters, .. } = accepted;
    let (settled_at, outcome) = (settled.as_ref().map(|s| s.at), settled.as_ref().map(|s| s.outcome));
    let (error, route, answered, verdicts, usage, latency, charges) = settled.map_or_else(
        || (None, Default::default(), Default::default(), vec![], Tokens::default(), Default::default(), vec![]),
        |s| (s.error, s.route, s.answered, s.verdicts, s.usage, s.latency, s.charges),
    );
    let cost = charges.iter().fold(0_i64, |sum, charge| sum.saturating_add(charge.amount));
    Record {
        request_id,
        tenant,
        key_id,
        kind,
        model,
        accepted_at: at,
        settled_at,
        outcome,
        error,
        input_text,
        input,
        inference_steps,
        output_decision,
        config_hash,
        parameters,
        route,
        answered,
        verdicts,
        usage,
        latency,
        charges,
        cost,
        feedback: Vec::new(),
        content,
        log,
    }
}

/// The words of an input that is not a mere text: of messages, a line each, whether they stand alone or with what came beside them.
fn words(input: &Json) -> String {
    if let Some(text) = input["text"].as_str() {
        return text.to_owned();
    }
    let input = input.get("messages").unwrap_or(input);
    let Some(messages) = input.as_array().filter(|list| list.iter().all(|m| m.get("role").is_some())) else {
        return input.to_string();
    };
    let line = |message: &Json| {
        let content = match &message["content"] {
            Json::String(text) => text.clone(),
            Json::Array(parts) => parts.iter().filter_map(|part| part["text"].as_str()).collect::<Vec<_>>().join(" "),
            Json::Null => String::new(),
            other => other.to_string(),
        };
        format!("{}: {content}", message["role"].as_str().unwrap_or_default())
    };
    messages.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Conditions of a query, with their arguments.
#[derive(Default)]
struct Conditions {
    sql: String,
    args: Vec<Value>,
}

impl Conditions {
    fn add(&mut self, condition: &str, value: Value) {
        self.args.push(value);
        self.sql += &format!(" AND {condition} ${}", self.args.len());
    }

    fn equal(&mut self, column: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.add(&format!("{column} ="), value.into());
        }
    }

    fn number(&mut self, comparison: &str, value: Option<i64>) {
        if let Some(value) = value {
            self.add(comparison, value.into());
        }
    }

    fn scope(&mut self, scope: &Scope) {
        if let Scope::Tenant(tenant) = scope {
            self.equal("a.tenant", Some(tenant));
        }
    }
}
