//! Requests for vectors and what comes back.

use serde::{Deserialize, Serialize};

use crate::{Hop, TextOrTokens};

/// A request for one vector per input.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EmbedRequest {
    /// Which model; empty means the default one.
    pub model: String,
    /// The texts, or their token ids.
    pub inputs: Vec<TextOrTokens>,
    /// Keep the first so many dimensions and normalise again; `None` keeps all.
    pub dimensions: Option<usize>,
}

/// Vectors of unit length, in the order of the inputs.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Embeddings {
    /// One vector per input.
    pub vectors: Vec<Vec<f32>>,
    /// Tokens read, over all inputs.
    pub prompt_tokens: usize,
    /// Where the request went, and why.
    #[serde(default)]
    pub hops: Vec<Hop>,
}
