//! A look at a checkpoint without loading it: what `models inspect` prints.

use std::path::Path;

use crate::checkpoint::Checkpoint;
use crate::{Error, ModelSpec, TensorInfo, arch};

/// What a checkpoint is, as far as its headers tell.
#[derive(Debug, Clone, PartialEq)]
pub struct Inspection {
    /// The model.
    pub spec: ModelSpec,
    /// Its tensors, in the order of the files.
    pub tensors: Vec<TensorInfo>,
    /// Bytes of all tensors.
    pub weight_bytes: u64,
    /// Numbers in all tensors.
    pub parameters: u64,
    /// Bytes that a token takes in the cache.
    pub kv_bytes_per_token: usize,
    /// Whether the checkpoint brings a chat template.
    pub has_chat_template: bool,
}

/// Reads the headers of a checkpoint: a GGUF file, or a directory with `config.json` and safetensors.
///
/// # Errors
/// Whatever is wrong with the headers, or an architecture that is not supported.
pub fn inspect(path: &Path) -> Result<Inspection, Error> {
    let checkpoint = Checkpoint::open(path)?;
    let spec = arch::family_of(&checkpoint)?.spec(&checkpoint)?;
    let tensors: Vec<_> = checkpoint.tensors.iter().cloned().collect();
    Ok(Inspection {
        weight_bytes: tensors.iter().map(|t| t.bytes).sum(),
        parameters: tensors.iter().map(|t| t.numbers() as u64).sum(),
        kv_bytes_per_token: spec.kv_bytes_per_token(),
        has_chat_template: checkpoint.chat_template.is_some(),
        tensors,
        spec,
    })
}
