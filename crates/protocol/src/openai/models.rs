//! `GET /v1/models`: the names a request may use, and what each of them can do.

use serde::{Deserialize, Serialize};

use crate::ModelCard;

/// The list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelList {
    /// Always `list`.
    pub object: String,
    /// The models, the default one first.
    pub data: Vec<ModelBody>,
}

/// A model. `context_length` and `capabilities` are ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Which of `chat`, `completions` and `embeddings` it answers.
    pub capabilities: Vec<String>,
}

impl ModelBody {
    /// The wire form of a card; `completions` says whether a text service offers the model.
    pub fn new(card: ModelCard, completions: bool) -> Self {
        let able = [("chat", card.chat && completions), ("completions", completions), ("embeddings", card.embeddings)];
        Self {
            id: card.id,
            object: "model".to_owned(),
            created: card.created,
            owned_by: card.owned_by,
            context_length: card.context_length,
            capabilities: able.into_iter().filter(|(_, yes)| *yes).map(|(word, _)| word.to_owned()).collect(),
        }
    }
}

impl From<Vec<ModelBody>> for ModelList {
    fn from(data: Vec<ModelBody>) -> Self {
        Self { object: "list".to_owned(), data }
    }
}
