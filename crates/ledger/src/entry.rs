//! The bodies of the log's entries: JSON, hashed and kept byte for byte as first written.
//!
//! An entry of a tlog-tiles bundle is at most 65,535 bytes, and nothing of a content may stand in it. So what callers put into free-form
//! fields is kept up to a limit each, and as its hash beyond.

use std::collections::BTreeMap;

use protocol::{Candidate, Hop, Miss, Step, Usage};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tlog_tiles::{Hash, tlog};

use crate::{
    Accepted, Answered, Charge, Conversion, Error, Hold, Item, Kind, Move, Outcome, Result, Route, Settled, Unbilled,
    note::hex, record::Latency,
};

/// The longest entry that a bundle of the tile layout can carry.
const MAX_ENTRY: usize = 65_535;
/// The longest name or id, in bytes.
const MAX_NAME: usize = 128;
/// The most that free-form fields take.
const MAX_PARAMETERS: usize = 16 * 1024;
const MAX_VERDICTS: usize = 16 * 1024;
/// Choices of a route that are kept, and names in each.
const MAX_HOPS: usize = 8;
const MAX_REASON: usize = 1024;

/// Which entry of a request it is; with the request's id the key of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Phase {
    Accepted = 0,
    Settled = 1,
    Event = 2,
    Feedback = 3,
}

/// What an entry says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Body {
    Accepted(AcceptedBody),
    Settled(Box<SettledBody>),
    Erased(ErasedBody),
    Expired(ExpiredBody),
    Feedback(FeedbackBody),
    Moved(MovedBody),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct AcceptedBody {
    pub(crate) request_id: String,
    pub(crate) tenant: String,
    pub(crate) key_id: String,
    pub(crate) kind: Kind,
    pub(crate) model: String,
    pub(crate) at: i64,
    pub(crate) gateway: String,
    pub(crate) config_hash: String,
    pub(crate) parameters: Value,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) holds: Vec<Hold>,
    pub(crate) content: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct SettledBody {
    pub(crate) request_id: String,
    pub(crate) tenant: String,
    pub(crate) key_id: String,
    pub(crate) at: i64,
    pub(crate) outcome: Outcome,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
    pub(crate) route: Route,
    pub(crate) answered: Answered,
    pub(crate) verdicts: Vec<Value>,
    pub(crate) usage: Usage,
    pub(crate) latency: Latency,
    pub(crate) charges: Vec<Charge>,
    /// Empty where nothing was delivered.
    pub(crate) content: String,
}

/// A person was erased. Says which key is gone, and not whose it was.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ErasedBody {
    pub(crate) id: String,
    pub(crate) tenant: String,
    pub(crate) at: i64,
    pub(crate) subject_id: String,
}

/// Contents older than a date are deleted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ExpiredBody {
    pub(crate) id: String,
    pub(crate) at: i64,
    pub(crate) before: i64,
    pub(crate) contents: u64,
}

/// A rollout moved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct MovedBody {
    pub(crate) id: String,
    pub(crate) moved: Move,
}

/// Somebody said something of a request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct FeedbackBody {
    pub(crate) id: String,
    pub(crate) request_id: String,
    pub(crate) tenant: String,
    /// Who asked, and pays.
    pub(crate) key_id: String,
    pub(crate) at: i64,
    pub(crate) given_by: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rating: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) conversion: Option<Conversion>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) charges: Vec<Charge>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) unbilled: Option<Unbilled>,
    /// Empty where nothing was said in words.
    pub(crate) content: String,
}

/// What an accepted-entry's content holds.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Input {
    pub(crate) input: Value,
}

/// What a settled-entry's content holds.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Output {
    pub(crate) output: Value,
    pub(crate) steps: Vec<Step>,
}

/// What the table's columns repeat of a body, for queries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Columns {
    pub(crate) phase: Phase,
    pub(crate) request_id: String,
    pub(crate) tenant: String,
    pub(crate) key_id: String,
    pub(crate) kind: String,
    pub(crate) model: String,
    pub(crate) outcome: String,
    pub(crate) at: i64,
}

impl Body {
    /// Its bytes.
    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        let bytes = serde_json::to_vec(self).map_err(|error| Error::Malformed(error.to_string()))?;
        if bytes.len() > MAX_ENTRY {
            return Err(Error::Malformed(format!(
                "an entry of {} bytes: {MAX_ENTRY} is the most; names, ids and routes are too long",
                bytes.len()
            )));
        }
        Ok(bytes)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        serde_json::from_slice(bytes).map_err(|error| Error::Altered(format!("an entry cannot be read: {error}")))
    }

    pub(crate) fn columns(&self) -> Columns {
        let columns = |phase, request_id: &str, tenant: &str, key_id: &str, at| Columns {
            phase,
            request_id: request_id.to_owned(),
            tenant: tenant.to_owned(),
            key_id: key_id.to_owned(),
            kind: String::new(),
            model: String::new(),
            outcome: String::new(),
            at,
        };
        match self {
            Self::Accepted(body) => Columns {
                kind: body.kind.name().to_owned(),
                model: body.model.clone(),
                ..columns(Phase::Accepted, &body.request_id, &body.tenant, &body.key_id, body.at)
            },
            Self::Settled(body) => Columns {
                outcome: body.outcome.name().to_owned(),
                ..columns(Phase::Settled, &body.request_id, &body.tenant, &body.key_id, body.at)
            },
            Self::Erased(body) => columns(Phase::Event, &body.id, &body.tenant, "", body.at),
            Self::Expired(body) => columns(Phase::Event, &body.id, "", "", body.at),
            Self::Moved(body) => columns(Phase::Event, &body.id, "", "", body.moved.at),
            Self::Feedback(body) => columns(Phase::Feedback, &body.id, &body.tenant, &body.key_id, body.at),
        }
    }
}

impl Body {
    /// The hash its content must have; empty if it has none.
    pub(crate) fn content(&self) -> &str {
        match self {
            Self::Accepted(body) => &body.content,
            Self::Settled(body) => &body.content,
            Self::Feedback(body) => &body.content,
            Self::Erased(_) | Self::Expired(_) | Self::Moved(_) => "",
        }
    }
}

impl AcceptedBody {
    pub(crate) fn new(accepted: &Accepted, at: i64, gateway: &str, content: String) -> Result<Self> {
        let Accepted { request_id, tenant, key_id, kind, model, config_hash, parameters, holds, .. } = accepted;
        if request_id.is_empty() {
            return Err(Error::Malformed("a request needs an id".into()));
        }
        for (name, text) in
            [("request_id", request_id), ("tenant", tenant), ("key_id", key_id), ("subject", &accepted.subject)]
        {
            if text.len() > MAX_NAME || text.contains('\0') {
                return Err(Error::Malformed(format!("{name}: at most {MAX_NAME} bytes, none of them zero")));
            }
        }
        Ok(Self {
            request_id: request_id.clone(),
            tenant: tenant.clone(),
            key_id: key_id.clone(),
            kind: *kind,
            model: printable(model),
            at,
            gateway: gateway.to_owned(),
            config_hash: printable(config_hash),
            parameters: brief(parameters, MAX_PARAMETERS),
            holds: holds.clone(),
            content,
        })
    }
}

impl SettledBody {
    pub(crate) fn new(accepted: &AcceptedBody, settled: &Settled, at: i64) -> Self {
        let Answered { model, adapter, digest } = &settled.answered;
        let route = Route {
            chosen: printable(&settled.route.chosen),
            why: settled.route.why.chars().take(MAX_REASON).collect(),
            hops: settled.route.hops.iter().take(MAX_HOPS).map(told).collect(),
        };
        Self {
            request_id: accepted.request_id.clone(),
            tenant: accepted.tenant.clone(),
            key_id: accepted.key_id.clone(),
            at,
            outcome: settled.outcome,
            error: settled.error.as_deref().map(printable),
            route,
            answered: Answered { model: printable(model), adapter: printable(adapter), digest: printable(digest) },
            verdicts: brief_list(settled.verdicts.clone(), MAX_VERDICTS),
            usage: settled.usage,
            latency: settled.latency.clone(),
            charges: merged(&settled.charges),
            content: String::new(),
        }
    }
}

/// One charge per item: request and item are the key of a usage row.
fn merged(charges: &[Charge]) -> Vec<Charge> {
    let mut by_item = BTreeMap::<Item, Charge>::new();
    for charge in charges {
        by_item
            .entry(charge.item)
            .and_modify(|sum| {
                sum.quantity = sum.quantity.saturating_add(charge.quantity);
                sum.amount = sum.amount.saturating_add(charge.amount);
            })
            .or_insert(*charge);
    }
    by_item.into_values().collect()
}

/// A name that every database can keep: PostgreSQL's texts have no zero bytes.
fn printable(name: &str) -> String {
    name.chars().filter(|&c| c != '\0').take(MAX_NAME).collect()
}

/// A choice with names that every database can keep.
fn told(hop: &Hop) -> Hop {
    let miss = |miss: &Miss| Miss { who: printable(&miss.who), error: printable(&miss.error) };
    let candidate = |one: &Candidate| Candidate { service: printable(&one.service), ..one.clone() };
    Hop {
        asked: printable(&hop.asked),
        reason: hop.reason,
        model: printable(&hop.model),
        service: printable(&hop.service),
        digest: printable(&hop.digest),
        adapter: printable(&hop.adapter),
        failed: hop.failed.iter().take(MAX_HOPS).map(miss).collect(),
        among: hop.among.iter().take(MAX_HOPS).map(candidate).collect(),
        score: hop.score,
    }
}

/// The value, or its hash and length if it is too long.
fn brief(value: &Value, limit: usize) -> Value {
    let text = value.to_string();
    if text.len() <= limit {
        return value.clone();
    }
    json!({ "sha256": hex(&Sha256::digest(&text)), "bytes": text.len() })
}

fn brief_list(list: Vec<Value>, limit: usize) -> Vec<Value> {
    match brief(&Value::Array(list), limit) {
        Value::Array(list) => list,
        hash => vec![hash],
    }
}

/// The leaf of an entry.
pub(crate) fn leaf(body: &[u8]) -> Hash {
    tlog::record_hash(body)
}

/// What an entry's content is bound to.
pub(crate) fn binding(request_id: &str, phase: Phase) -> String {
    format!("{request_id} {}", phase as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An entry as it was written before records told processor time.
    const OLD: &str = r#"{"type":"settled","request_id":"r","tenant":"t","key_id":"k","at":1,"outcome":"served","route":{"chosen":"engine","why":"named"},"answered":{"model":"m","adapter":"","digest":"d"},"verdicts":[],"usage":{"prompt_tokens":10,"cached_tokens":4,"completion_tokens":7},"latency":{"queue":5},"charges":[],"content":""}"#;

    #[test]
    fn old_entries_are_read_and_say_what_they_said() {
        let Body::Settled(body) = Body::decode(OLD.as_bytes()).unwrap() else { panic!("another type") };
        assert_eq!((body.usage.completion_tokens, body.usage.processor_micros), (7, None));
        assert_eq!(String::from_utf8(Body::Settled(body).encode().unwrap()).unwrap(), OLD);
    }
}
