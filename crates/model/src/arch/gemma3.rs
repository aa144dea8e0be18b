//! Gemma 3: five layers with a sliding window to one that sees all, each kind with a rotation of its own; norms around both
//! blocks and on queries and keys; embeddings times sqrt(width).

use kernels::{Activation, RopeScaling, RopeSpec, RopeStyle};

use super::{Family, Part, RMS_EPS, Sizes, activation, part, rotary};
use crate::checkpoint::Checkpoint;
use crate::fields::{View, key};
use crate::{LayerSpec, ModelSpec, Norms, Pooling, Problem};

/// Every sixth layer is global where the checkpoint does not say otherwise.
const PATTERN: usize = 6;
/// Base of the local layers' frequencies; most GGUF files do not mention it.
const LOCAL_BASE: f32 = 10_000.0;

const PARTS: &[super::PartName] = &[
    part(Part::TokenEmbedding, "token_embd", "embed_tokens"),
    part(Part::AttentionNorm, "blk.{}.attn_norm", "layers.{}.input_layernorm"),
    part(Part::Query, "blk.{}.attn_q", "layers.{}.self_attn.q_proj"),
    part(Part::Key, "blk.{}.attn_k", "layers.{}.self_attn.k_proj"),
    part(Part::Value, "blk.{}.attn_v", "layers.{}.self_attn.v_proj"),
    part(Part::QueryNorm, "blk.{}.attn_q_norm", "layers.{}.self_attn.q_norm"),
    part(Part::KeyNorm, "blk.{}.attn_k_norm", "layers.{}.self_attn.k_norm"),
    part(Part::AttentionOut, "blk.{}.attn_output", "layers.{}.self_attn.o_proj"),
    part(Part::PostAttentionNorm, "blk.{}.post_attention_norm", "layers.{}.post_attention_layernorm"),
    part(Part::FfnNorm, "blk.{}.ffn_norm", "layers.{}.pre_feedforward_layernorm"),
    part(Part::Gate, "blk.{}.ffn_gate", "layers.{}.mlp.gate_proj"),
    part(Part::Up, "blk.{}.ffn_up", "layers.{}.mlp.up_proj"),
    part(Part::Down, "blk.{}.ffn_down", "layers.{}.mlp.down_proj"),
    part(Part::PostFfnNorm, "blk.{}.post_ffw_norm", "layers.{}.post_feedforward_layernorm"),
    part(Part::OutputNorm, "output_norm", "norm"),
    part(Part::Output, "output", "lm_head"),
];

pub(super) const FAMILY: Family = Family {
    name: "gemma3",
    model_types: &["gemma3_text", "gemma3"],
    parts: PARTS,
    // The language model of a multimodal checkpoint is complete without its eyes.
    ignored: &["vision_tower.", "multi_modal_projector.", "rotary_emb.inv_freq"],
    hf_norm_offset: 1.0,
    fill,
};

fn fill(checkpoint: &Checkpoint) -> Result<ModelSpec, Problem> {
    let sizes = Sizes::read(checkpoint, &FAMILY)?;
    let fields = checkpoint.fields.model();
    let (global, local) = layers(checkpoint, &fields, &sizes)?;
    let is_global = global_layers(&fields, sizes.layers)?;
    let pick = |global_layer: bool| if global_layer { global.clone() } else { local.clone() };
    Ok(ModelSpec {
        family: FAMILY.name.into(),
        name: checkpoint.name(),
        width: sizes.width,
        vocab: sizes.vocab,
        context: sizes.context,
        embedding_scale: (sizes.width as f32).sqrt(),
        norm_eps: fields.need_number(RMS_EPS)?,
        layers: is_global.into_iter().map(pick).collect(),
        logit_softcap: softcap(&fields, "final_logit_softcapping")?,
        encoder: false,
        pooling: Pooling::Mean,
        exits: Vec::new(),
    })
}

/// The two kinds of layers.
fn layers(checkpoint: &Checkpoint, fields: &View<'_>, sizes: &Sizes) -> Result<(LayerSpec, LayerSpec), Problem> {
    let mut attention = sizes.attention;
    if let Some(scalar) = fields.number(key("", "query_pre_attn_scalar"))? {
        attention.scale = scalar.sqrt().recip();
    } else if sizes.layers == 62 {
        // The 27B model alone scales by its width per head, and its GGUF files do not say so.
        attention.scale = ((sizes.width / attention.heads) as f32).sqrt().recip();
    }
    attention.softcap = softcap(fields, "attn_logit_softcapping")?;
    let global = LayerSpec {
        attention,
        rope: Some(global_rotation(checkpoint, fields, attention.head_dim)?),
        qk_norm: true,
        qkv_bias: false,
        ffn: sizes.ffn,
        activation: activation(fields, "hidden_activation", Activation::GeluTanh)?,
        gated: true,
        norms: Norms::Around,
    };
    let mut local = global.clone();
    local.attention.window = Some(fields.need_size(key("attention.sliding_window", "sliding_window"))?);
    local.rope = Some(local_rotation(fields, attention.head_dim)?);
    Ok((global, local))
}

fn global_rotation(checkpoint: &Checkpoint, fields: &View<'_>, head_dim: usize) -> Result<RopeSpec, Problem> {
    match fields.group("rope_parameters.full_attention") {
        Some(group) => rotary::rotation_of(checkpoint, &group, RopeStyle::Half, head_dim),
        None => rotary::rotation(checkpoint, RopeStyle::Half, head_dim),
    }
}

/// Local layers are never stretched: their window is shorter than any text they were trained on.
fn local_rotation(fields: &View<'_>, head_dim: usize) -> Result<RopeSpec, Problem> {
    let group = fields.group("rope_parameters.sliding_attention");
    let own = group.map_or(Ok(None), |group| group.number(key("", "rope_theta")))?;
    let base = own.or(fields.number(key("rope.freq_base_swa", "rope_local_base_freq"))?).unwrap_or(LOCAL_BASE);
    Ok(RopeSpec { dim: head_dim, base, style: RopeStyle::Half, scaling: RopeScaling::None })
}

fn global_layers(fields: &View<'_>, n: usize) -> Result<Vec<bool>, Problem> {
    let kinds = fields.texts(key("", "layer_types"))?.filter(|kinds| kinds.len() == n);
    let pattern = fields.size(key("", "sliding_window_pattern"))?.unwrap_or(PATTERN);
    let by_pattern = || (1..=n).map(|i| i.is_multiple_of(pattern)).collect();
    Ok(kinds.map_or_else(by_pattern, |kinds| kinds.iter().map(|kind| kind == "full_attention").collect()))
}

fn softcap(fields: &View<'_>, hf: &'static str) -> Result<Option<f32>, Problem> {
    let cap = fields.number(key("", hf))?;
    cap.map_or(Ok(None), |cap| if cap > 0.0 { Ok(Some(cap)) } else { Err(Problem::field(hf, "is not positive")) })
}
