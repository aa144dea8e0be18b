//! What a request tells the ledger, and what an auditor reads back.
//!
//! A request is two facts, and so two entries of the log: [`Accepted`] before the work, [`Settled`] after it. What either says in
//! public (ids, digests, tokens, latency, cost, verdicts) is the entry's body and stays for ever; what was said in words (input,
//! steps, output) is sealed apart under the key of the person it concerns, and the body holds a salted hash of it. So a person can be
//! erased and the log still verifies.

use std::{borrow::Cow, collections::BTreeMap};

use protocol::{Hop, Step, Usage};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Charge, Given, Hold};

/// What is known of a request before its work begins.
#[derive(Debug, Clone, PartialEq)]
pub struct Accepted {
    /// Unique in the ledger for ever; at most 128 bytes. A second request under the same id is refused ([`crate::Error::Duplicate`]).
    pub request_id: String,
    /// Whose request it is; every read is limited to a tenant.
    pub tenant: String,
    /// The public part of the key it came with; empty where none was needed.
    pub key_id: String,
    /// What is asked for.
    pub kind: Kind,
    /// The model or decision that was asked for, by its public name.
    pub model: String,
    /// Which configuration was in force.
    pub config_hash: String,
    /// The parameters in force, defaults filled in. They stay in the log in the clear, so nothing of the content belongs here. Above 16 KiB
    /// their hash is kept instead.
    pub parameters: Value,
    /// What came in: a text, or the messages. Sealed.
    pub input: Value,
    /// Whom the content concerns, as the tenant names them; empty means the tenant itself. The name is kept beside the key, not in the log.
    pub subject: String,
    /// What is held back from budgets until the request settles; all of it or the request is refused ([`crate::Error::OverBudget`]).
    pub holds: Vec<Hold>,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Kind {
    /// `POST /v1/chat/completions`.
    Chat,
    /// `POST /v1/completions`.
    Completion,
    /// `POST /v1/embeddings`.
    Embedding,
    /// `POST /v1/reasoning/decisions`.
    Decision,
    /// `POST /v1/reasoning/solve`.
    Solution,
    /// `POST /v1/messages`.
    Message,
    /// `POST /v1/responses`.
    Response,
    /// `POST /v1/images/generations`.
    Image,
    /// `POST /v1/moderations`.
    Moderation,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Chat,
        Self::Completion,
        Self::Embedding,
        Self::Decision,
        Self::Solution,
        Self::Message,
        Self::Response,
        Self::Image,
        Self::Moderation,
    ];

    /// Its name, as it is stored and shown.
    pub fn name(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Completion => "completion",
            Self::Embedding => "embedding",
            Self::Decision => "decision",
            Self::Solution => "solution",
            Self::Message => "message",
            Self::Response => "response",
            Self::Image => "image",
            Self::Moderation => "moderation",
        }
    }
}

/// How a request ended.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Settled {
    /// In one word.
    pub outcome: Outcome,
    /// The stable code of the error, where there was one.
    pub error: Option<String>,
    /// What was delivered, after moderation: a text, or the decision. Sealed.
    pub output: Value,
    /// The steps that led to it. Sealed.
    pub steps: Vec<Step>,
    /// What moderation said: categories and actions, no quotes; it stays in the log in the clear.
    pub verdicts: Vec<Value>,
    /// Where the request went.
    pub route: Route,
    /// What answered.
    pub answered: Answered,
    /// Tokens.
    pub usage: Usage,
    /// Microseconds by stage.
    pub latency: Latency,
    /// What it costs. Written together with this record or not at all.
    pub charges: Vec<Charge>,
}

/// Microseconds by stage.
pub type Latency = BTreeMap<Cow<'static, str>, u64>;

/// How a request ended, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Outcome {
    /// The answer was delivered.
    #[default]
    Served,
    /// The guard held back what came in or would have gone out.
    Blocked,
    /// It was turned away: a limit, a budget, a right that is missing.
    Refused,
    /// It failed.
    Failed,
    /// The client hung up, or the work was dropped.
    Aborted,
    /// The gateway that worked on it died; another one closed the record.
    Lost,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Served, Self::Blocked, Self::Refused, Self::Failed, Self::Aborted, Self::Lost];

    /// Its name, as it is stored and shown.
    pub fn name(self) -> &'static str {
        match self {
            Self::Served => "served",
            Self::Blocked => "blocked",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Aborted => "aborted",
            Self::Lost => "lost",
        }
    }
}

/// Where a request went, and why there.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Route {
    /// The service that answered.
    pub chosen: String,
    /// Why this one: the words of the choices on the way ([`protocol::Reason`]), joined by commas.
    pub why: String,
    /// The choices, in the order in which the request passed them; none where it named a model that one service offers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hops: Vec<Hop>,
}

/// What answered, exactly.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Answered {
    /// The model or decision graph.
    pub model: String,
    /// The adapter on it, empty if none.
    pub adapter: String,
    /// What identifies weights or graph: a content hash.
    pub digest: String,
}

/// A request as an auditor reads it: both entries and the content, where its key is still there.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Record {
    /// The request.
    pub request_id: String,
    /// Whose it is.
    pub tenant: String,
    /// The public part of its key.
    pub key_id: String,
    /// What was asked for.
    pub kind: Kind,
    /// The model or decision asked for.
    pub model: String,
    /// Microseconds since 1970, when it was accepted.
    pub accepted_at: i64,
    /// And settled; `None` while it runs.
    pub settled_at: Option<i64>,
    /// How it ended; `None` while it runs.
    pub outcome: Option<Outcome>,
    /// The stable code of the error.
    pub error: Option<String>,
    /// What came in, in words; `None` once erased.
    pub input_text: Option<String>,
    /// What came in, as it came, if it was not a mere text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<Value>,
    /// The steps that led to the output.
    pub inference_steps: Vec<Step>,
    /// What was delivered; `None` while it runs, and once erased.
    pub output_decision: Option<Value>,
    /// Which configuration was in force.
    pub config_hash: String,
    /// The parameters in force.
    pub parameters: Value,
    /// Where it went.
    pub route: Route,
    /// What answered.
    pub answered: Answered,
    /// What moderation said.
    pub verdicts: Vec<Value>,
    /// Tokens.
    pub usage: Usage,
    /// Microseconds by stage.
    pub latency: Latency,
    /// What it cost, row by row.
    pub charges: Vec<Charge>,
    /// The sum of these, in nano-units of currency.
    pub cost: i64,
    /// What was said of it since; a conversion's charges stand there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub feedback: Vec<Given>,
    /// What has become of the content.
    pub content: Content,
    /// Where it stands in the log.
    pub log: Place,
}

/// What has become of a record's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Content {
    /// It is here, and its hash is the one in the log.
    Intact,
    /// The person's key was destroyed, or the content was older than it may be.
    Erased,
    /// It is here and its hash is another one, or it cannot be opened with its key.
    Altered,
}

/// Where a record stands in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Place {
    /// The index of the accepted-entry: it is *sequenced*, its place is fixed.
    pub accepted: u64,
    /// The index of the settled-entry.
    pub settled: Option<u64>,
    /// All entries so far stand *under a signed checkpoint*: from here on nobody can change them unnoticed.
    pub checkpointed: bool,
}
