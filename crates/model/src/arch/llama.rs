//! Llama, and everything that calls itself so (SmolLM2, TinyLlama, Mistral 7B without its window).

use kernels::{Activation, RopeStyle};

use super::{Family, Part, RMS_EPS, Sizes, activation, part, rotary};
use crate::checkpoint::Checkpoint;
use crate::fields::Format;
use crate::{LayerSpec, ModelSpec, Norms, Pooling, Problem};

/// The tensors of the plain pre-norm decoder, which Qwen 2 shares.
pub(super) const PARTS: &[super::PartName] = &[
    part(Part::TokenEmbedding, "token_embd", "embed_tokens"),
    part(Part::AttentionNorm, "blk.{}.attn_norm", "layers.{}.input_layernorm"),
    part(Part::Query, "blk.{}.attn_q", "layers.{}.self_attn.q_proj"),
    part(Part::Key, "blk.{}.attn_k", "layers.{}.self_attn.k_proj"),
    part(Part::Value, "blk.{}.attn_v", "layers.{}.self_attn.v_proj"),
    part(Part::AttentionOut, "blk.{}.attn_output", "layers.{}.self_attn.o_proj"),
    part(Part::FfnNorm, "blk.{}.ffn_norm", "layers.{}.post_attention_layernorm"),
    part(Part::Gate, "blk.{}.ffn_gate", "layers.{}.mlp.gate_proj"),
    part(Part::Up, "blk.{}.ffn_up", "layers.{}.mlp.up_proj"),
    part(Part::Down, "blk.{}.ffn_down", "layers.{}.mlp.down_proj"),
    part(Part::OutputNorm, "output_norm", "norm"),
    part(Part::Output, "output", "lm_head"),
];

/// Tables that older converters and exporters left in the files; the spec holds what they say.
pub(super) const IGNORED: &[&str] = &[rotary::DIVISORS, "rotary_emb.inv_freq", "attn_rot_embd"];

pub(super) const FAMILY: Family =
    Family { name: "llama", model_types: &["llama"], parts: PARTS, ignored: IGNORED, hf_norm_offset: 0.0, fill };

fn fill(checkpoint: &Checkpoint) -> Result<ModelSpec, Problem> {
    // GGUF's converter permutes the rows of queries and keys so that pairs stand side by side.
    let style = match checkpoint.fields.format {
        Format::Gguf => RopeStyle::Interleaved,
        Format::HuggingFace => RopeStyle::Half,
    };
    pre_norm(checkpoint, &FAMILY, style)
}

/// The spec of a plain pre-norm decoder: gated feed-forward, RMSNorm, the same rotation in all layers.
pub(super) fn pre_norm(checkpoint: &Checkpoint, family: &Family, style: RopeStyle) -> Result<ModelSpec, Problem> {
    let fields = checkpoint.fields.model();
    let sizes = Sizes::read(checkpoint, family)?;
    let layer = LayerSpec {
        attention: sizes.attention,
        rope: Some(rotary::rotation(checkpoint, style, sizes.attention.head_dim)?),
        qk_norm: false,
        qkv_bias: false,
        ffn: sizes.ffn,
        activation: activation(&fields, "hidden_act", Activation::Silu)?,
        gated: true,
        norms: Norms::Before,
    };
    Ok(ModelSpec {
        family: family.name.into(),
        name: checkpoint.name(),
        width: sizes.width,
        vocab: sizes.vocab,
        context: sizes.context,
        embedding_scale: 1.0,
        norm_eps: fields.need_number(RMS_EPS)?,
        layers: vec![layer; sizes.layers],
        logit_softcap: None,
        encoder: false,
        pooling: Pooling::Mean,
        exits: Vec::new(),
    })
}
