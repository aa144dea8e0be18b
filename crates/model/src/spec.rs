//! What a model is made of, as data.

use kernels::{Activation, RopeSpec};

/// A model as data: everything the decoder must know besides the weights.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelSpec {
    /// Family, as GGUF's `general.architecture`: `llama`, `gemma3`, `qwen2`, `bert`.
    pub family: String,
    /// The checkpoint's own name.
    pub name: String,
    /// Width of the residual stream.
    pub width: usize,
    /// Tokens.
    pub vocab: usize,
    /// Longest sequence.
    pub context: usize,
    /// Factor on embeddings (Gemma: sqrt(width)).
    pub embedding_scale: f32,
    /// The layers, first to last.
    pub layers: Vec<LayerSpec>,
    /// `cap * tanh(logit / cap)` on the logits.
    pub logit_softcap: Option<f32>,
    /// Bidirectional (BERT): use `encode`, no logits.
    pub encoder: bool,
    /// How an embedding is pooled.
    pub pooling: Pooling,
}

/// How hidden states become one vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Pooling {
    /// Mean of all tokens.
    Mean,
    /// The first token.
    First,
    /// The last token.
    Last,
}

/// One layer.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerSpec {
    /// Attention.
    pub attention: kernels::AttentionSpec,
    /// Rotation; `None` where positions are learned.
    pub rope: Option<RopeSpec>,
    /// Width inside the feed-forward block.
    pub ffn: usize,
    /// Its non-linearity.
    pub activation: Activation,
}
