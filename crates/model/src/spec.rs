//! What a model is made of, as data.

use kernels::{Activation, AttentionSpec, KvShape, RopeSpec};

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
    /// Added to the numbers inside the square root of every norm.
    pub norm_eps: f32,
    /// The layers, first to last.
    pub layers: Vec<LayerSpec>,
    /// `cap * tanh(logit / cap)` on the logits.
    pub logit_softcap: Option<f32>,
    /// Bidirectional (BERT): use `encode`, no logits.
    pub encoder: bool,
    /// How an embedding is pooled.
    pub pooling: Pooling,
    /// Where tokens may leave before the last layer, first to last.
    pub exits: Vec<Exit>,
}

/// A place behind a layer where a token may leave that is sure enough by then.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Exit {
    /// Layers in front of it, from 1 to all but one.
    pub after: usize,
    /// A token leaves whose likeliest successor has at least this probability there, by the model's own final norm and head.
    pub threshold: f32,
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
    pub attention: AttentionSpec,
    /// Rotation; `None` where positions are learned.
    pub rope: Option<RopeSpec>,
    /// Queries and keys are normed, head by head, before they rotate.
    pub qk_norm: bool,
    /// Queries, keys and values must have biases (Qwen); others have them where the checkpoint does.
    pub qkv_bias: bool,
    /// Width inside the feed-forward block.
    pub ffn: usize,
    /// Its non-linearity.
    pub activation: Activation,
    /// `f(gate) * up` instead of `f(up)`.
    pub gated: bool,
    /// Where the norms stand.
    pub norms: Norms,
}

/// Where a layer's norms stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Norms {
    /// RMSNorm in front of both blocks.
    Before,
    /// RMSNorm in front of and behind both blocks, inside the residual (Gemma).
    Around,
    /// LayerNorm behind both residual sums (BERT).
    After,
}

impl ModelSpec {
    /// What each layer caches per token; nothing for encoders.
    pub fn kv_shapes(&self) -> Vec<KvShape> {
        let shape = |l: &LayerSpec| KvShape { kv_heads: l.attention.kv_heads, head_dim: l.attention.head_dim };
        self.layers.iter().filter(|_| !self.encoder).map(shape).collect()
    }

    /// Bytes that one token takes in the cache: keys and values of all layers in f16.
    pub fn kv_bytes_per_token(&self) -> usize {
        self.kv_shapes().iter().map(|s| 2 * 2 * s.kv_heads * s.head_dim).sum()
    }
}
