//! Which way a request went, and why: whoever chooses among services says so in the answer's own stream, and the record of the
//! request keeps it. Words for programs, names of services, never contents.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A choice on a request's way. Choices stand in the order in which the request passed them.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Hop {
    /// The model that was asked for here: the caller's name for it, or a route's.
    pub asked: String,
    /// Why this one.
    pub reason: Reason,
    /// The model, by the name it has from here on.
    pub model: String,
    /// Who took the request: an upstream, a worker by its address, whoever offers the model.
    pub service: String,
    /// What identifies the model's weights; empty where nobody here knows.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub digest: String,
    /// What identifies the adapter beside them; empty without one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub adapter: String,
    /// Those that were asked before and failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<Miss>,
    /// Those it was chosen from, where they were compared.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub among: Vec<Candidate>,
    /// How sure the model was that had been asked first, 0 to 1, where that decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
}

impl Hop {
    /// The model that an answer names, where the caller left it to what was asked; elsewhere an answer is called as it was asked for.
    pub fn answers_as(&self) -> Option<&str> {
        (self.reason == Reason::Domain).then_some(&self.model)
    }
}

/// Why a request went where it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Reason {
    /// The request named the model, and this service offers it.
    #[default]
    Named,
    /// The name stands for this one.
    Alias,
    /// It is the first one of a route.
    First,
    /// Those before it in the route failed.
    Fallback,
    /// It was the less busy one of those compared.
    Balanced,
    /// It was its turn.
    Turn,
    /// It was the only one left that could answer.
    Only,
    /// The stream broke with another one and went on here.
    Resumed,
    /// It is the version that a rollout's weights gave this caller.
    Assigned,
    /// It is the student of a cascade, and was sure enough.
    Accepted,
    /// It is the teacher of a cascade, and its student would not do.
    Escalated,
    /// What was asked is of its domain, or of none that there is an adapter for.
    Domain,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Named,
        Self::Alias,
        Self::First,
        Self::Fallback,
        Self::Balanced,
        Self::Turn,
        Self::Only,
        Self::Resumed,
        Self::Assigned,
        Self::Accepted,
        Self::Escalated,
        Self::Domain,
    ];

    /// Its word, as it is recorded and shown.
    pub fn word(self) -> &'static str {
        match self {
            Self::Named => "named",
            Self::Alias => "alias",
            Self::First => "first",
            Self::Fallback => "fallback",
            Self::Balanced => "balanced",
            Self::Turn => "turn",
            Self::Only => "only",
            Self::Resumed => "resumed",
            Self::Assigned => "assigned",
            Self::Accepted => "accepted",
            Self::Escalated => "escalated",
            Self::Domain => "domain",
        }
    }
}

/// Somebody who was asked and failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Miss {
    /// Who: a model of a route, or a service.
    pub who: String,
    /// The code of its error, such as `upstream_failed`.
    pub error: String,
}

/// Somebody who could have answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Candidate {
    /// Who.
    pub service: String,
    /// Tokens it had to write before the request would have been alone there; less is better.
    #[serde(default)]
    pub busy: u64,
    /// Where domains were compared: how near its domain the prompt was, in thousandths of a cosine; more is better.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nearness: Option<i32>,
}
