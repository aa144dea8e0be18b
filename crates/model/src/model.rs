//! A spec with its weights: loading, and the public face of decoder, encoder and head.

use std::path::Path;

use kernels::{Device, KvCache, RopeSpec, RopeTable, linear, linear_rows};

use crate::adapter::Adapter;
use crate::checkpoint::Checkpoint;
use crate::decoder::Decoder;
use crate::encoder::Encoder;
use crate::weights::{LinearLayer, Weights};
use crate::{Error, HeadWorkspace, ModelSpec, TokenizerSource, Workspace, arch};

/// A loaded model.
#[derive(Debug)]
pub struct Model {
    spec: ModelSpec,
    weights: Weights,
    tables: Vec<RopeTable>,
    table_of: Vec<Option<usize>>,
    tokenizer: TokenizerSource,
    chat_template: Option<String>,
}

/// Sequences of one step, one behind the other.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a> {
    /// Token ids of all rows.
    pub tokens: &'a [u32],
    /// Which rows belong to which sequence. Spans cover the rows without gap, in order.
    pub spans: &'a [kernels::Span<'a>],
    /// Rows whose final hidden state is wanted, ascending.
    pub outputs: &'a [u32],
    /// The adapter of each span, if it has one; may be empty where none has.
    pub adapters: &'a [Option<&'a Adapter>],
    /// Rows that may leave at the model's exits, ascending, none of them with an adapter; all others go through all layers.
    pub leaving: &'a [u32],
}

impl Model {
    /// Reads a GGUF file, or a directory with `config.json` and safetensors. `progress(done, total)` counts bytes of weights.
    ///
    /// # Errors
    /// Whatever is wrong with the files, naming file, tensor and offset.
    pub fn load(dev: &Device, path: &Path, progress: &dyn Fn(u64, u64)) -> Result<Self, Error> {
        let checkpoint = Checkpoint::open(path)?;
        let family = arch::family_of(&checkpoint)?;
        let spec = family.spec(&checkpoint)?;
        let weights = Weights::load(dev, &checkpoint, family, &spec, progress)?;
        let (tables, table_of) = rotations(&spec);
        let Checkpoint { tokenizer, chat_template, .. } = checkpoint;
        Ok(Self { spec, weights, tables, table_of, tokenizer, chat_template })
    }

    /// What it is made of.
    pub fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    /// Its weights, for whoever learns from them.
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// Its tokenizer's data.
    pub fn tokenizer_source(&self) -> &TokenizerSource {
        &self.tokenizer
    }

    /// Moves its tokenizer's data out: vocabularies are large, and nothing here needs them.
    pub fn take_tokenizer_source(&mut self) -> TokenizerSource {
        std::mem::replace(&mut self.tokenizer, TokenizerSource::Vocabulary(crate::Vocabulary::default()))
    }

    /// Its chat template (Jinja), if it has one.
    pub fn chat_template(&self) -> Option<&str> {
        self.chat_template.as_deref()
    }

    /// An empty cache of `pages` pages with this model's shapes.
    pub fn new_cache(&self, pages: usize) -> KvCache {
        KvCache::new(&self.spec.kv_shapes(), pages)
    }

    /// Runs the rows of `batch` through all layers, or as far as exits where they may leave, storing their keys and values of all layers in
    /// `cache`. Returns the normed final hidden states of `batch.outputs`, `[outputs][width]`.
    ///
    /// # Panics
    /// When this is an encoder, or tokens, spans or outputs lie outside of vocabulary, context or batch.
    pub fn forward<'w>(
        &self,
        dev: &Device,
        cache: &mut KvCache,
        batch: &Batch<'_>,
        work: &'w mut Workspace,
    ) -> &'w [f32] {
        assert!(!self.spec.encoder, "an encoder has no cache: use encode");
        let Self { spec, weights, tables, table_of, .. } = self;
        Decoder { dev, spec, weights, tables, table_of }.forward(cache, batch, work)
    }

    /// What enters a layer without any adapter, of all rows of `batch`, `[rows][width]`: the states that a [`Router`](crate::Router) in front of it
    /// reads. Stores keys and values of the layers below only.
    ///
    /// # Panics
    /// As [`Model::forward`], and when there is no such layer.
    pub fn states<'w>(
        &self,
        dev: &Device,
        cache: &mut KvCache,
        batch: &Batch<'_>,
        layer: usize,
        work: &'w mut Workspace,
    ) -> &'w [f32] {
        assert!(!self.spec.encoder && layer < self.spec.layers.len(), "a decoder's layer");
        let Self { spec, weights, tables, table_of, .. } = self;
        Decoder { dev, spec, weights, tables, table_of }.states(cache, batch, layer, work)
    }

    /// Logits of hidden states: `out` is `[rows][vocab]`.
    pub fn logits(&self, dev: &Device, hidden: &[f32], work: &mut HeadWorkspace, out: &mut [f32]) {
        logits(dev, (&self.spec, &self.weights), hidden, work, out);
    }

    /// Logits of some tokens only: `out` is `[rows][tokens.len()]`; the same bits as [`Model::logits`] gives there.
    pub fn logits_of(&self, dev: &Device, hidden: &[f32], tokens: &[u32], work: &mut HeadWorkspace, out: &mut [f32]) {
        let head = prepare_head(dev, (&self.spec, &self.weights), hidden, work);
        linear_rows(dev, &work.input, head.matrix(), tokens, out);
        cap(&self.spec, out);
    }

    /// Encoders (BERT): hidden states of all rows, no cache, every row of a span sees all of its span.
    ///
    /// # Panics
    /// When this is no encoder, or a sequence is longer than its context.
    pub fn encode<'w>(&self, dev: &Device, tokens: &[u32], lens: &[usize], work: &'w mut Workspace) -> &'w [f32] {
        assert!(self.spec.encoder, "a decoder needs its cache: use forward");
        assert!(lens.iter().all(|&len| len <= self.spec.context), "a sequence is longer than {}", self.spec.context);
        assert_eq!(lens.iter().sum::<usize>(), tokens.len(), "lengths and tokens differ");
        Encoder { dev, spec: &self.spec, weights: &self.weights }.forward(tokens, lens, work)
    }

    /// Bytes of packed weights.
    pub fn weight_bytes(&self) -> usize {
        self.weights.bytes
    }
}

/// Logits of hidden states.
pub(crate) fn logits(
    dev: &Device,
    model: (&ModelSpec, &Weights),
    hidden: &[f32],
    work: &mut HeadWorkspace,
    out: &mut [f32],
) {
    let head = prepare_head(dev, model, hidden, work);
    linear(dev, &work.input, &mut [head.to(out)]);
    cap(model.0, out);
}

fn prepare_head<'m>(
    dev: &Device,
    (spec, weights): (&ModelSpec, &'m Weights),
    hidden: &[f32],
    work: &mut HeadWorkspace,
) -> &'m LinearLayer {
    let head = weights.output.as_ref().unwrap_or(&weights.embedding);
    work.input.set(dev, hidden, spec.width, &[head.matrix().form()]);
    head
}

fn cap(spec: &ModelSpec, logits: &mut [f32]) {
    if let Some(cap) = spec.logit_softcap {
        logits.iter_mut().for_each(|logit| *logit = cap * (*logit / cap).tanh());
    }
}

/// One table per distinct rotation, and which one each layer uses.
fn rotations(spec: &ModelSpec) -> (Vec<RopeTable>, Vec<Option<usize>>) {
    let mut distinct: Vec<&RopeSpec> = Vec::new();
    let mut number = |rope| match distinct.iter().position(|known| *known == rope) {
        Some(i) => i,
        None => {
            distinct.push(rope);
            distinct.len() - 1
        }
    };
    let table_of = spec.layers.iter().map(|layer| layer.rope.as_ref().map(&mut number)).collect();
    (distinct.into_iter().map(|rope| RopeTable::new(rope, spec.context)).collect(), table_of)
}
