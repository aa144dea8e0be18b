//! A spec with its weights, and the one decoder.

use std::path::Path;

use kernels::{Device, KvCache};

/// A loaded model.
#[derive(Debug)]
pub struct Model {}

/// Sequences of one step, one behind the other.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a> {
    /// Token ids of all rows.
    pub tokens: &'a [u32],
    /// Which rows belong to which sequence. Spans cover the rows without gap, in order.
    pub spans: &'a [kernels::Span<'a>],
    /// Rows whose final hidden state is wanted, ascending.
    pub outputs: &'a [u32],
}

/// Buffers of a forward pass, kept between steps: nothing is allocated once they have grown.
#[derive(Debug, Default)]
pub struct Workspace {}

impl Model {
    /// Reads a GGUF file, or a directory with `config.json` and safetensors. `progress(done, total)` counts bytes of weights.
    ///
    /// # Errors
    /// Whatever is wrong with the files, naming file, tensor and offset.
    pub fn load(_dev: &Device, _path: &Path, _progress: &dyn Fn(u64, u64)) -> Result<Self, crate::Error> { unimplemented!() }
    /// What it is made of.
    pub fn spec(&self) -> &crate::ModelSpec { unimplemented!() }
    /// Its tokenizer's data (taken once, then dropped by the caller).
    pub fn tokenizer_source(&self) -> &crate::TokenizerSource { unimplemented!() }
    /// Its chat template (Jinja), if it has one.
    pub fn chat_template(&self) -> Option<&str> { unimplemented!() }
    /// An empty cache of `pages` pages with this model's shapes.
    pub fn new_cache(&self, _pages: usize) -> KvCache { unimplemented!() }
    /// Runs the rows of `batch` through all layers, storing their keys and values in `cache`. Returns the normed final hidden
    /// states of `batch.outputs`, `[outputs][width]`.
    pub fn forward<'w>(&self, _dev: &Device, _cache: &mut KvCache, _batch: &Batch<'_>, _work: &'w mut Workspace) -> &'w [f32] { unimplemented!() }
    /// Logits of hidden states: `out` is `[rows][vocab]`.
    pub fn logits(&self, _dev: &Device, _hidden: &[f32], _work: &mut HeadWorkspace, _out: &mut [f32]) { unimplemented!() }
    /// Logits of some tokens only: `out` is `[rows][tokens.len()]`; the same bits as [`Model::logits`] gives there.
    pub fn logits_of(&self, _dev: &Device, _hidden: &[f32], _tokens: &[u32], _work: &mut HeadWorkspace, _out: &mut [f32]) { unimplemented!() }
    /// Encoders (BERT): hidden states of all rows, no cache, every row of a span sees all of its span.
    pub fn encode<'w>(&self, _dev: &Device, _tokens: &[u32], _lens: &[usize], _work: &'w mut Workspace) -> &'w [f32] { unimplemented!() }
    /// Bytes of packed weights.
    pub fn weight_bytes(&self) -> usize { unimplemented!() }
}

/// Buffers of the head.
#[derive(Debug, Default)]
pub struct HeadWorkspace {}
