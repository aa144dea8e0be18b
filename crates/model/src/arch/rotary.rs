//! Rotation, as metadata describe it: base, scaling and the names both formats have given them over the years.

use kernels::{RopeScaling, RopeSpec, RopeStyle};

use crate::Problem;
use crate::checkpoint::Checkpoint;
use crate::fields::{Format, View, key};

/// GGUF's tensor of frequency divisors (Llama 3.1 and later).
pub(super) const DIVISORS: &str = "rope_freqs.weight";
/// Where `config.json` keeps rotation: `transformers` 5, and before.
const HF_GROUPS: [&str; 2] = ["rope_parameters", "rope_scaling"];

/// The rotation of a checkpoint's layers. `head_dim` rotates unless the checkpoint names fewer numbers.
pub(super) fn rotation(checkpoint: &Checkpoint, style: RopeStyle, head_dim: usize) -> Result<RopeSpec, Problem> {
    let fields = checkpoint.fields.model();
    let group = HF_GROUPS.iter().find_map(|name| fields.group(name)).unwrap_or_else(|| fields.clone());
    rotation_of(checkpoint, &group, style, head_dim)
}

/// The same from one group of `config.json`, where layers differ.
pub(super) fn rotation_of(
    checkpoint: &Checkpoint,
    group: &View<'_>,
    style: RopeStyle,
    head_dim: usize,
) -> Result<RopeSpec, Problem> {
    let fields = checkpoint.fields.model();
    let base = group.number(key("rope.freq_base", "rope_theta"))?;
    let base = base.or(fields.number(key("", "rope_theta"))?).unwrap_or(10_000.0);
    let dim = rotated(&fields, group, head_dim)?;
    let scaling = match fields.format() {
        Format::Gguf => gguf_scaling(checkpoint, &fields, dim)?,
        Format::HuggingFace => hf_scaling(group, &fields)?,
    };
    if !(base > 0.0 && dim > 0 && dim.is_multiple_of(2) && dim <= head_dim) {
        return Err(Problem::field("rope", format!("base {base} and {dim} of {head_dim} numbers make no rotation")));
    }
    Ok(RopeSpec { dim, base, style, scaling })
}

fn rotated(fields: &View<'_>, group: &View<'_>, head_dim: usize) -> Result<usize, Problem> {
    let part = key("", "partial_rotary_factor");
    let part = group.number(part)?.or(fields.number(part)?);
    let dim = fields.size(key("rope.dimension_count", ""))?;
    Ok(dim.unwrap_or_else(|| part.map_or(head_dim, |part| (head_dim as f32 * part) as usize)))
}

fn gguf_scaling(checkpoint: &Checkpoint, fields: &View<'_>, dim: usize) -> Result<RopeScaling, Problem> {
    let Some(divisors) = checkpoint.tensors.get(DIVISORS) else {
        return gguf_formula(fields);
    };
    let factors = checkpoint.tensors.floats(divisors).map_err(|error| error.problem)?;
    if factors.len() != dim / 2 || !factors.iter().all(|f| *f > 0.0) {
        let what = format!("has {} divisors for {} pairs, or one that is not positive", factors.len(), dim / 2);
        return Err(Problem::tensor(DIVISORS, what));
    }
    Ok(RopeScaling::Factors { factors, attention_factor: 1.0 })
}

fn gguf_formula(fields: &View<'_>) -> Result<RopeScaling, Problem> {
    let factor = fields.number(key("rope.scaling.factor", ""))?.or(fields.number(key("rope.scale_linear", ""))?);
    let factor = factor.unwrap_or(1.0);
    let kind = fields.text(key("rope.scaling.type", ""))?.unwrap_or("linear");
    match kind {
        "none" => Ok(RopeScaling::None),
        _ if factor == 1.0 || factor == 0.0 => Ok(RopeScaling::None),
        "linear" => Ok(RopeScaling::Linear { factor }),
        "yarn" => Ok(RopeScaling::Yarn {
            factor,
            original_context: fields.need_size(key("rope.scaling.original_context_length", ""))?,
            beta_fast: fields.number(key("rope.scaling.yarn_beta_fast", ""))?.unwrap_or(32.0),
            beta_slow: fields.number(key("rope.scaling.yarn_beta_slow", ""))?.unwrap_or(1.0),
            attention_factor: fields
                .number(key("rope.scaling.attn_factor", ""))?
                .map(|own| own * (0.1 * factor.ln() + 1.0)),
        }),
        other => Err(unknown("rope.scaling.type", other, "none, linear, yarn")),
    }
}

fn hf_scaling(group: &View<'_>, fields: &View<'_>) -> Result<RopeScaling, Problem> {
    let kind = group.text(key("", "rope_type"))?.or(group.text(key("", "type"))?).unwrap_or("default");
    let factor = || group.need_number(key("", "factor"));
    let trained = || {
        let own = group.size(key("", "original_max_position_embeddings"))?;
        own.map_or_else(|| fields.need_size(super::CONTEXT), Ok)
    };
    match kind {
        "default" => Ok(RopeScaling::None),
        "linear" => Ok(RopeScaling::Linear { factor: factor()? }),
        "dynamic" => Ok(RopeScaling::DynamicNtk { factor: factor()?, original_context: trained()? }),
        "llama3" => Ok(RopeScaling::Llama3 {
            factor: factor()?,
            low_freq_factor: group.need_number(key("", "low_freq_factor"))?,
            high_freq_factor: group.need_number(key("", "high_freq_factor"))?,
            original_context: trained()?,
        }),
        "yarn" => Ok(RopeScaling::Yarn {
            factor: factor()?,
            original_context: trained()?,
            beta_fast: group.number(key("", "beta_fast"))?.unwrap_or(32.0),
            beta_slow: group.number(key("", "beta_slow"))?.unwrap_or(1.0),
            attention_factor: group.number(key("", "attention_factor"))?,
        }),
        other => Err(unknown("rope_type", other, "default, linear, dynamic, llama3, yarn")),
    }
}

fn unknown(field: &str, found: &str, supported: &str) -> Problem {
    Problem::field(field, format!("is {found:?}; supported are {supported}"))
}
