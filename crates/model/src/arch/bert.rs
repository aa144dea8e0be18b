//! BERT encoders (MiniLM and other sentence embedders): learned positions, LayerNorm behind each sum, biases everywhere.

use kernels::Activation;

use super::{Family, Part, Sizes, activation, part};
use crate::checkpoint::Checkpoint;
use crate::fields::{View, key};
use crate::{LayerSpec, ModelSpec, Norms, Pooling, Problem};

const PARTS: &[super::PartName] = &[
    part(Part::TokenEmbedding, "token_embd", "embeddings.word_embeddings"),
    part(Part::PositionEmbedding, "position_embd", "embeddings.position_embeddings"),
    part(Part::TypeEmbedding, "token_types", "embeddings.token_type_embeddings"),
    part(Part::EmbeddingNorm, "token_embd_norm", "embeddings.LayerNorm"),
    part(Part::Query, "blk.{}.attn_q", "encoder.layer.{}.attention.self.query"),
    part(Part::Key, "blk.{}.attn_k", "encoder.layer.{}.attention.self.key"),
    part(Part::Value, "blk.{}.attn_v", "encoder.layer.{}.attention.self.value"),
    part(Part::AttentionOut, "blk.{}.attn_output", "encoder.layer.{}.attention.output.dense"),
    part(Part::PostAttentionNorm, "blk.{}.attn_output_norm", "encoder.layer.{}.attention.output.LayerNorm"),
    part(Part::Up, "blk.{}.ffn_up", "encoder.layer.{}.intermediate.dense"),
    part(Part::Down, "blk.{}.ffn_down", "encoder.layer.{}.output.dense"),
    part(Part::PostFfnNorm, "blk.{}.layer_output_norm", "encoder.layer.{}.output.LayerNorm"),
];

pub(super) const FAMILY: Family = Family {
    name: "bert",
    model_types: &["bert"],
    parts: PARTS,
    // Heads that were trained with the encoder and are not part of it.
    ignored: &["pooler.", "cls.", "position_ids"],
    hf_norm_offset: 0.0,
    fill,
};

fn fill(checkpoint: &Checkpoint) -> Result<ModelSpec, Problem> {
    let sizes = Sizes::read(checkpoint, &FAMILY)?;
    let fields = checkpoint.fields.model();
    refuse_other_positions(&fields)?;
    let layer = LayerSpec {
        attention: sizes.attention,
        rope: None,
        qk_norm: false,
        qkv_bias: true,
        ffn: sizes.ffn,
        activation: activation(&fields, "hidden_act", Activation::Gelu)?,
        gated: false,
        norms: Norms::After,
    };
    Ok(ModelSpec {
        family: FAMILY.name.into(),
        name: checkpoint.name(),
        width: sizes.width,
        vocab: sizes.vocab,
        context: sizes.context,
        embedding_scale: 1.0,
        norm_eps: fields.need_number(key("attention.layer_norm_epsilon", "layer_norm_eps"))?,
        layers: vec![layer; sizes.layers],
        logit_softcap: None,
        encoder: true,
        pooling: pooling(checkpoint, &fields)?,
        exits: Vec::new(),
    })
}

fn refuse_other_positions(fields: &View<'_>) -> Result<(), Problem> {
    match fields.text(key("", "position_embedding_type"))? {
        None | Some("absolute") => Ok(()),
        Some(other) => Err(Problem::field("position_embedding_type", format!("is {other:?}, supported is absolute"))),
    }
}

/// What GGUF numbers; in a directory, what `1_Pooling/config.json` says. Mean is what nearly all of them use.
fn pooling(checkpoint: &Checkpoint, fields: &View<'_>) -> Result<Pooling, Problem> {
    match fields.size(key("pooling_type", ""))? {
        Some(2) => return Ok(Pooling::First),
        Some(3) => return Ok(Pooling::Last),
        _ => {}
    }
    Ok(checkpoint.pooling.unwrap_or(Pooling::Mean))
}
