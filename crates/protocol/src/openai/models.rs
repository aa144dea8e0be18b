//! `GET /v1/models`: the names a request may use, and what each of them can do.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Capabilities, ModelCard};

/// The list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ModelList {
    /// Always `list`.
    pub object: String,
    /// The models, the default one first.
    pub data: Vec<ModelBody>,
}

/// A model. `context_length`, `capabilities` and `features` are ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ModelBody {
    /// The name requests use.
    pub id: String,
    /// Always `model`.
    pub object: String,
    /// Seconds since 1970 when it was loaded.
    pub created: u64,
    /// Who made or serves it.
    pub owned_by: String,
    /// Longest prompt plus answer, in tokens.
    pub context_length: usize,
    /// Which of `chat`, `completions`, `embeddings` and `images` it answers.
    pub capabilities: Vec<String>,
    /// What its answers can be held to, and what callers can learn about them.
    #[serde(default)]
    pub features: Capabilities,
}

impl ModelBody {
    /// The wire form of a card that a service for `what` (`completions`, `embeddings` or `images`) shows.
    pub fn new(card: ModelCard, what: &str) -> Self {
        let text = what == "completions";
        let able = [
            ("chat", text && card.chat),
            ("completions", text),
            ("embeddings", card.embeddings),
            ("images", what == "images"),
        ];
        Self {
            id: card.id,
            object: "model".to_owned(),
            created: card.created,
            owned_by: card.owned_by,
            context_length: card.context_length,
            capabilities: able.into_iter().filter(|(_, yes)| *yes).map(|(word, _)| word.to_owned()).collect(),
            features: card.capabilities,
        }
    }
}

impl From<Vec<ModelBody>> for ModelList {
    fn from(data: Vec<ModelBody>) -> Self {
        Self { object: "list".to_owned(), data }
    }
}
