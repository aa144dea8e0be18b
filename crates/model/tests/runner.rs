//! Running sequences through a model as an engine would: paged cache, chunks, batches.

use std::path::{Path, PathBuf};

use kernels::{Device, PAGE_TOKENS, Span};
use model::{Batch, HeadWorkspace, Model, Workspace};

/// A file or directory beside the tests.
pub(crate) fn golden_path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens").join(name)
}

/// A model that must load.
pub(crate) fn load(dev: &Device, path: &Path) -> Model {
    Model::load(dev, path, &|_, _| {}).unwrap_or_else(|error| panic!("{error}"))
}

/// A cache with some sequences in it, each with its own pages.
pub(crate) struct Runner<'m> {
    pub(crate) dev: &'m Device,
    pub(crate) model: &'m Model,
    cache: kernels::KvCache,
    pages: Vec<Vec<u32>>,
    lengths: Vec<usize>,
    work: Workspace,
}

impl<'m> Runner<'m> {
    /// Room for `sequences` of at most `tokens` tokens. Their pages are interleaved, so that no order is special.
    pub(crate) fn new(dev: &'m Device, model: &'m Model, sequences: usize, tokens: usize) -> Self {
        let per_sequence = tokens.div_ceil(PAGE_TOKENS);
        let page = |sequence: usize, i: usize| (i * sequences + sequence) as u32;
        let pages = (0..sequences).map(|s| (0..per_sequence).map(|i| page(s, i)).collect()).collect();
        let cache = model.new_cache(sequences * per_sequence);
        Self { dev, model, cache, pages, lengths: vec![0; sequences], work: Workspace::default() }
    }

    /// One step: `parts` are (sequence, its next tokens). Returns the hidden states of `outputs`.
    pub(crate) fn step(&mut self, parts: &[(usize, &[u32])], outputs: &[u32]) -> Vec<f32> {
        self.step_leaving(parts, outputs, &[])
    }

    /// The same with rows that may leave early.
    pub(crate) fn step_leaving(&mut self, parts: &[(usize, &[u32])], outputs: &[u32], leaving: &[u32]) -> Vec<f32> {
        let mut spans = Vec::new();
        let mut start = 0;
        for &(sequence, tokens) in parts {
            let position = self.lengths[sequence];
            spans.push(Span { start, len: tokens.len(), position, pages: &self.pages[sequence] });
            start += tokens.len();
        }
        let tokens: Vec<u32> = parts.iter().flat_map(|(_, tokens)| tokens.iter().copied()).collect();
        let batch = Batch { tokens: &tokens, spans: &spans, outputs, adapters: &[], leaving };
        let hidden = self.model.forward(self.dev, &mut self.cache, &batch, &mut self.work).to_vec();
        parts.iter().for_each(|(sequence, tokens)| self.lengths[*sequence] += tokens.len());
        hidden
    }

    /// Layers that rows of the last step did not go through.
    pub(crate) fn skipped(&self) -> usize {
        self.work.skipped()
    }

    /// Hidden states of all tokens of one new sequence, in chunks.
    pub(crate) fn chunked(dev: &'m Device, model: &'m Model, tokens: &[u32], chunk: usize) -> Vec<f32> {
        let mut runner = Self::new(dev, model, 1, tokens.len());
        let all = |n: usize| (0..n as u32).collect::<Vec<_>>();
        tokens.chunks(chunk).flat_map(|chunk| runner.step(&[(0, chunk)], &all(chunk.len()))).collect()
    }
}

/// Logits of hidden states.
pub(crate) fn logits(dev: &Device, model: &Model, hidden: &[f32]) -> Vec<f32> {
    let rows = hidden.len() / model.spec().width;
    let mut out = vec![0.0; rows * model.spec().vocab];
    model.logits(dev, hidden, &mut HeadWorkspace::default(), &mut out);
    out
}
