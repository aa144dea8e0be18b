//! Qwen 2 and 2.5: Llama with biases on queries, keys and values, and pairs half a head apart in every format.

use kernels::RopeStyle;

use super::{Family, llama};
use crate::checkpoint::Checkpoint;
use crate::fields::key;
use crate::{ModelSpec, Problem};

pub(super) const FAMILY: Family = Family {
    name: "qwen2",
    model_types: &["qwen2"],
    parts: llama::PARTS,
    ignored: llama::IGNORED,
    hf_norm_offset: 0.0,
    fill,
};

fn fill(checkpoint: &Checkpoint) -> Result<ModelSpec, Problem> {
    let mut spec = llama::pre_norm(checkpoint, &FAMILY, RopeStyle::Half)?;
    spec.layers.iter_mut().for_each(|layer| layer.qkv_bias = true);
    window(checkpoint, &mut spec)?;
    Ok(spec)
}

/// Layers from `max_window_layers` on slide where `use_sliding_window` says so; no GGUF file does.
fn window(checkpoint: &Checkpoint, spec: &mut ModelSpec) -> Result<(), Problem> {
    let fields = checkpoint.fields.model();
    if fields.truth(key("", "use_sliding_window"))? != Some(true) {
        return Ok(());
    }
    let window = fields.need_size(key("", "sliding_window"))?;
    let first = fields.size(key("", "max_window_layers"))?.unwrap_or(0);
    let kinds = fields.texts(key("", "layer_types"))?;
    for (i, layer) in spec.layers.iter_mut().enumerate() {
        let slides = kinds.and_then(|k| k.get(i)).map_or(i >= first, |kind| kind == "sliding_attention");
        layer.attention.window = slides.then_some(window);
    }
    Ok(())
}
