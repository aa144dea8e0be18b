//! A model's description as Hugging Face has it: the way back from a spec to `config.json` and the names of tensors.
//!
//! Plain decoders only: norms in front of blocks, the same layer again and again, rotations without scaling. What a file could not say truly is refused.

use kernels::{Activation, RopeScaling, RopeStyle};
use serde_json::{Map, Value, json};

use crate::arch::{self, Part};
use crate::{LayerSpec, ModelSpec, Norms, Problem};

/// Names of weights without their layer, as training and adapters have them.
const NAMES: [(&str, Part); 14] = [
    ("embedding", Part::TokenEmbedding),
    ("attention_norm", Part::AttentionNorm),
    ("query", Part::Query),
    ("key", Part::Key),
    ("value", Part::Value),
    ("query_norm", Part::QueryNorm),
    ("key_norm", Part::KeyNorm),
    ("out", Part::AttentionOut),
    ("ffn_norm", Part::FfnNorm),
    ("gate", Part::Gate),
    ("up", Part::Up),
    ("down", Part::Down),
    ("output_norm", Part::OutputNorm),
    ("head", Part::Output),
];

/// What a weight such as `layers.3.query` or `layers.3.query.bias` is called in a file of Hugging Face's; `None` if such a model has no such weight.
pub fn hugging_face_name(family: &str, name: &str) -> Option<String> {
    let family = arch::family_named(family)?;
    let (name, suffix) = name.strip_suffix(".bias").map_or((name, ".weight"), |name| (name, ".bias"));
    let (layer, name) = match name.strip_prefix("layers.") {
        Some(rest) => rest.split_once('.').and_then(|(layer, name)| Some((layer.parse().ok()?, name)))?,
        None => (0, name),
    };
    let (_, part) = NAMES.iter().find(|(known, _)| *known == name)?;
    let prefix = if *part == Part::Output { "" } else { "model." };
    Some(format!("{prefix}{}{suffix}", family.hugging_face_name(*part, layer)?))
}

/// Which row of a layer's queries or keys stands at `row` in a file of Hugging Face's: there the halves of a head rotate with each other, and GGUF's
/// converter has put what rotates together side by side.
pub fn hugging_face_row(layer: &LayerSpec, row: usize) -> usize {
    let dim = layer.attention.head_dim;
    let rotates = layer.rope.as_ref().filter(|rope| rope.style == RopeStyle::Interleaved).map_or(0, |rope| rope.dim);
    let (head, at) = (row / dim * dim, row % dim);
    let half = rotates / 2;
    head + if at >= rotates { at } else { at % half * 2 + at / half }
}

/// A `config.json` that is read as this very spec; with `tied` the embedding is the head as well.
///
/// # Errors
/// What of the spec it could not say.
pub fn hugging_face_config(spec: &ModelSpec, tied: bool) -> Result<Value, Problem> {
    let first = spec.layers.first().ok_or_else(|| Problem::field("layers", "must be one at least"))?;
    let rope = first.rope.as_ref().filter(|rope| rope.scaling == RopeScaling::None);
    let rope =
        rope.ok_or_else(|| Problem::field("rope", "is scaled, or there is none: such models are not written"))?;
    check(spec, first)?;
    let mut config = json!({
        "architectures": [if spec.family == "qwen2" { "Qwen2ForCausalLM" } else { "LlamaForCausalLM" }],
        "model_type": spec.family,
        "hidden_size": spec.width,
        "intermediate_size": first.ffn,
        "num_hidden_layers": spec.layers.len(),
        "num_attention_heads": first.attention.heads,
        "num_key_value_heads": first.attention.kv_heads,
        "head_dim": first.attention.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": spec.context,
        "rms_norm_eps": spec.norm_eps,
        "rope_theta": rope.base,
        "vocab_size": spec.vocab,
        "tie_word_embeddings": tied,
        "torch_dtype": "bfloat16",
    });
    if !spec.exits.is_empty() {
        let exits = spec.exits.iter().map(|exit| (exit.after.to_string(), Value::from(exit.threshold)));
        config["exits"] = exits.collect::<Map<_, _>>().into();
    }
    Ok(config)
}

/// Whether the few fields of such a file say all of the spec.
fn check(spec: &ModelSpec, first: &LayerSpec) -> Result<(), Problem> {
    let plain = matches!(spec.family.as_str(), "llama" | "qwen2")
        && first.norms == Norms::Before
        && first.activation == Activation::Silu
        && first.gated
        && !first.qk_norm
        && first.attention.window.is_none()
        && first.rope.as_ref().is_some_and(|rope| rope.dim == first.attention.head_dim);
    let alike = spec.layers.iter().all(|layer| layer == first);
    let refused = || Problem::field("architecture", format!("{} is not written: llama and qwen2 are", spec.family));
    if plain && alike { Ok(()) } else { Err(refused()) }
}
