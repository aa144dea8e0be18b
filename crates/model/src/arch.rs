//! Families of models, as data.
//!
//! A family is one file that says what it is called, how its tensors are called in both formats, and how a [`ModelSpec`] is
//! filled from metadata. It never computes anything: the decoder and the encoder are written once.

mod bert;
mod gemma3;
mod llama;
mod qwen2;
mod rotary;

use kernels::{Activation, AttentionSpec};

use crate::checkpoint::Checkpoint;
use crate::fields::{Format, Key, View, key};
use crate::{Error, Exit, ModelSpec, Problem};

/// A family of models.
#[derive(Debug)]
pub(crate) struct Family {
    /// As GGUF's `general.architecture`.
    pub(crate) name: &'static str,
    /// As `model_type` in `config.json`.
    pub(crate) model_types: &'static [&'static str],
    /// What its tensors are called.
    pub(crate) parts: &'static [PartName],
    /// Tensors whose names contain one of these may stay unused: results do not depend on them.
    pub(crate) ignored: &'static [&'static str],
    /// Added to norm weights that come from Hugging Face (Gemma stores them less one; GGUF has added it already).
    pub(crate) hf_norm_offset: f32,
    /// Fills in the spec.
    fill: fn(&Checkpoint) -> Result<ModelSpec, Problem>,
}

/// The weights a model is made of. `.weight` and `.bias` come behind their names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Part {
    TokenEmbedding,
    PositionEmbedding,
    TypeEmbedding,
    EmbeddingNorm,
    AttentionNorm,
    Query,
    Key,
    Value,
    QueryNorm,
    KeyNorm,
    AttentionOut,
    PostAttentionNorm,
    FfnNorm,
    Gate,
    Up,
    Down,
    PostFfnNorm,
    OutputNorm,
    Output,
}

/// A part's name in both formats; `{}` is the layer.
#[derive(Debug)]
pub(crate) struct PartName {
    part: Part,
    gguf: &'static str,
    hf: &'static str,
}

const fn part(part: Part, gguf: &'static str, hf: &'static str) -> PartName {
    PartName { part, gguf, hf }
}

const FAMILIES: [&Family; 4] = [&llama::FAMILY, &gemma3::FAMILY, &qwen2::FAMILY, &bert::FAMILY];

/// What may stand in front of Hugging Face names: nothing, the language model's own, or its place in a larger model.
const HF_PREFIXES: [&str; 5] = ["", "model.", "bert.", "language_model.model.", "model.language_model."];

/// The names of all families.
pub(crate) fn supported() -> String {
    FAMILIES.map(|f| f.name).join(", ")
}

/// A family by its name.
pub(crate) fn family_named(name: &str) -> Option<&'static Family> {
    FAMILIES.into_iter().find(|family| family.name == name)
}

/// The family of a checkpoint, by what it calls itself.
pub(crate) fn family_of(checkpoint: &Checkpoint) -> Result<&'static Family, Error> {
    let found = checkpoint.fields.architecture();
    let is = |family: &Family| match checkpoint.fields.format {
        Format::Gguf => family.name == found,
        Format::HuggingFace => family.model_types.contains(&found),
    };
    let family = FAMILIES.into_iter().find(|family| is(family));
    family.ok_or_else(|| checkpoint.blame(Problem::Family { found: found.to_owned() }))
}

impl Family {
    /// The spec of a checkpoint of this family.
    pub(crate) fn spec(&self, checkpoint: &Checkpoint) -> Result<ModelSpec, Error> {
        let fill = || {
            let spec = (self.fill)(checkpoint)?;
            Ok(ModelSpec { exits: exits(&checkpoint.fields.model(), spec.layers.len())?, ..spec })
        };
        fill().map_err(|problem| checkpoint.blame(problem))
    }

    /// What a part is called in Hugging Face's files, in a layer if it is in one.
    pub(crate) fn hugging_face_name(&self, part: Part, layer: usize) -> Option<String> {
        let name = self.parts.iter().find(|name| name.part == part)?;
        Some(name.hf.replace("{}", &layer.to_string()))
    }

    /// The full name of a part's tensor in a checkpoint: the one that is there, else the first that could be.
    pub(crate) fn tensor_name(&self, checkpoint: &Checkpoint, part: Part, layer: usize, suffix: &str) -> String {
        let Some(name) = self.parts.iter().find(|p| p.part == part) else { return format!("{part:?}{suffix}") };
        let own = if checkpoint.fields.format == Format::Gguf { name.gguf } else { name.hf };
        let own = own.replace("{}", &layer.to_string()) + suffix;
        if checkpoint.fields.format == Format::Gguf {
            return own;
        }
        let mut candidates = HF_PREFIXES.iter().map(|prefix| format!("{prefix}{own}"));
        let there = candidates.find(|name| checkpoint.tensors.get(name).is_some());
        there.unwrap_or(own)
    }
}

const WIDTH: Key = key("embedding_length", "hidden_size");
const LAYERS: Key = key("block_count", "num_hidden_layers");
const CONTEXT: Key = key("context_length", "max_position_embeddings");
const FFN: Key = key("feed_forward_length", "intermediate_size");
const HEADS: Key = key("attention.head_count", "num_attention_heads");
const KV_HEADS: Key = key("attention.head_count_kv", "num_key_value_heads");
const HEAD_DIM: Key = key("attention.key_length", "head_dim");
const RMS_EPS: Key = key("attention.layer_norm_rms_epsilon", "rms_norm_eps");

/// More layers than any model has: a hostile count must not fill memory.
const MAX_LAYERS: usize = 4096;

/// Positions beyond a million are a claim, not a context.
const MAX_CONTEXT: usize = 1 << 20;

/// What families share: sizes that every one of them names alike.
struct Sizes {
    width: usize,
    vocab: usize,
    context: usize,
    layers: usize,
    ffn: usize,
    attention: AttentionSpec,
}

impl Sizes {
    fn read(checkpoint: &Checkpoint, family: &Family) -> Result<Self, Problem> {
        let fields = checkpoint.fields.model();
        let width = fields.need_size(WIDTH)?;
        let layers = fields.need_size(LAYERS)?;
        if layers > MAX_LAYERS {
            return Err(Problem::field("block_count", format!("is {layers}, more than {MAX_LAYERS}")));
        }
        Ok(Self {
            width,
            vocab: vocab(checkpoint, family)?,
            context: fields.need_size(CONTEXT)?.min(MAX_CONTEXT),
            layers,
            ffn: fields.need_size(FFN)?,
            attention: attention(&fields, width)?,
        })
    }
}

/// The embedding matrix says how many tokens there are; metadata may not say it at all.
fn vocab(checkpoint: &Checkpoint, family: &Family) -> Result<usize, Problem> {
    let name = family.tensor_name(checkpoint, Part::TokenEmbedding, 0, ".weight");
    let found = checkpoint.tensors.get(&name).and_then(|t| t.info.shape.first());
    found.copied().ok_or_else(|| Problem::MissingTensor { tensor: name.clone(), family: family.name.into() })
}

fn attention(fields: &View<'_>, width: usize) -> Result<AttentionSpec, Problem> {
    let heads = fields.need_size(HEADS)?;
    let kv_heads = fields.size(KV_HEADS)?.unwrap_or(heads);
    if !heads.is_multiple_of(kv_heads) {
        return Err(Problem::field(
            "head count",
            format!("{heads} is not a multiple of {kv_heads} key and value heads"),
        ));
    }
    let head_dim = match fields.size(HEAD_DIM)? {
        Some(dim) => dim,
        None if width.is_multiple_of(heads) => width / heads,
        None => return Err(Problem::field("head count", format!("{heads} does not divide the width {width}"))),
    };
    Ok(AttentionSpec {
        heads,
        kv_heads,
        head_dim,
        scale: (head_dim as f32).sqrt().recip(),
        window: None,
        softcap: None,
    })
}

/// Exits, which only our own students have: `"exits": {"2": 0.95}` is one behind two layers, at that threshold.
fn exits(fields: &View<'_>, layers: usize) -> Result<Vec<Exit>, Problem> {
    let exit = |(name, threshold): (&str, f32)| {
        let after = name.parse().ok().filter(|after| (1..layers).contains(after));
        let after =
            after.ok_or_else(|| Problem::field("exits", format!("{name:?} is no layer from 1 to below {layers}")))?;
        let fine = threshold > 0.0 && threshold <= 1.0;
        let what = || Problem::field("exits", format!("a threshold of {threshold} is not above 0 and at most 1"));
        fine.then_some(Exit { after, threshold }).ok_or_else(what)
    };
    let mut exits = fields.numbers("exits")?.into_iter().map(exit).collect::<Result<Vec<_>, _>>()?;
    exits.sort_by_key(|exit| exit.after);
    match exits.windows(2).find(|two| two[0].after == two[1].after) {
        Some(two) => Err(Problem::field("exits", format!("has layer {} twice", two[0].after))),
        None => Ok(exits),
    }
}

/// The non-linearity of `config.json`; GGUF does not say, each family has its own.
fn activation(fields: &View<'_>, name: &'static str, own: Activation) -> Result<Activation, Problem> {
    match fields.text(key("", name))? {
        None => Ok(own),
        Some("silu" | "swish") => Ok(Activation::Silu),
        Some("gelu_pytorch_tanh" | "gelu_new" | "gelu_fast") => Ok(Activation::GeluTanh),
        Some("gelu") => Ok(Activation::Gelu),
        Some(other) => Err(Problem::field(name, format!("is {other:?}, supported are silu, gelu, gelu_pytorch_tanh"))),
    }
}
