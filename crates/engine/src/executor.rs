//! What the core needs of a model: rows in, hidden states and logits out.

use std::{fmt, time::Duration};

use kernels::{Device, KvCache};
use model::{Batch, HeadWorkspace, Model, Pooling, Workspace};

/// Runs batches. [`ModelExecutor`] is the real one; tests use a fake whose logits depend on the tokens alone.
pub trait Executor: Send {
    /// Tokens of the vocabulary.
    fn vocab(&self) -> usize;
    /// Width of a hidden state.
    fn width(&self) -> usize;
    /// Longest sequence, in tokens.
    fn context(&self) -> usize;
    /// Pages of the cache.
    fn pages(&self) -> usize;
    /// Bytes of a page.
    fn page_bytes(&self) -> usize;
    /// It is an encoder: [`Executor::encode`] works and nothing else does.
    fn is_encoder(&self) -> bool;
    /// How hidden states become one vector.
    fn pooling(&self) -> Pooling;
    /// Where the passes over logits run.
    fn device(&self) -> &Device;
    /// Processor time taken so far by whatever computes; see [`Device::processor_time`].
    fn processor_time(&self) -> Option<Duration> {
        self.device().processor_time()
    }
    /// Tokens may leave before the last layer, in rows that a batch lets leave.
    fn has_exits(&self) -> bool {
        false
    }
    /// Runs a batch; `hidden` receives the final states of its outputs. Gives how many layers rows that left early did not go through, in all.
    fn forward(&mut self, batch: &Batch<'_>, hidden: &mut Vec<f32>) -> usize;
    /// Logits of hidden states, `[rows][vocab]`.
    fn logits(&mut self, hidden: &[f32], out: &mut [f32]);
    /// Logits of some tokens, `[rows][tokens.len()]`; the same bits as [`Executor::logits`] gives there.
    fn logits_of(&mut self, hidden: &[f32], tokens: &[u32], out: &mut [f32]);
    /// Copies the first `tokens` tokens of a page to another.
    fn copy_page(&mut self, from: u32, to: u32, tokens: usize);
    /// Hidden states of whole sequences, bidirectional.
    fn encode(&mut self, tokens: &[u32], lens: &[usize], hidden: &mut Vec<f32>);
}

/// A loaded model with its cache and buffers.
pub struct ModelExecutor {
    model: Model,
    device: Device,
    cache: KvCache,
    work: Workspace,
    head: HeadWorkspace,
}

impl fmt::Debug for ModelExecutor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelExecutor").field("model", &self.model.spec().name).finish_non_exhaustive()
    }
}

impl ModelExecutor {
    /// Puts a model to work with `kv_bytes` of cache, but at least one page. An encoder gets no cache.
    pub fn new(model: Model, device: Device, kv_bytes: u64) -> Self {
        let page_bytes = model.new_cache(1).page_bytes().max(1) as u64;
        let longest = model.spec().context.div_ceil(kernels::PAGE_TOKENS) as u64;
        let wanted = if model.spec().encoder { 1 } else { (kv_bytes / page_bytes).max(1) };
        // A small model on a large machine: more than 1024 full contexts would only be bookkeeping.
        let pages = wanted.min(longest.saturating_mul(1024)).min(u64::from(u32::MAX)) as usize;
        let cache = model.new_cache(pages);
        Self { model, device, cache, work: Workspace::default(), head: HeadWorkspace::default() }
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }
}

impl Executor for ModelExecutor {
    fn vocab(&self) -> usize {
        self.model.spec().vocab
    }

    fn width(&self) -> usize {
        self.model.spec().width
    }

    fn context(&self) -> usize {
        self.model.spec().context
    }

    fn pages(&self) -> usize {
        self.cache.pages()
    }

    fn page_bytes(&self) -> usize {
        self.cache.page_bytes()
    }

    fn is_encoder(&self) -> bool {
        self.model.spec().encoder
    }

    fn pooling(&self) -> Pooling {
        self.model.spec().pooling
    }

    fn device(&self) -> &Device {
        &self.device
    }

    fn has_exits(&self) -> bool {
        !self.model.spec().exits.is_empty()
    }

    fn forward(&mut self, batch: &Batch<'_>, hidden: &mut Vec<f32>) -> usize {
        let states = self.model.forward(&self.device, &mut self.cache, batch, &mut self.work);
        hidden.clear();
        hidden.extend_from_slice(states);
        self.work.skipped()
    }

    fn logits(&mut self, hidden: &[f32], out: &mut [f32]) {
        self.model.logits(&self.device, hidden, &mut self.head, out);
    }

    fn logits_of(&mut self, hidden: &[f32], tokens: &[u32], out: &mut [f32]) {
        self.model.logits_of(&self.device, hidden, tokens, &mut self.head, out);
    }

    fn copy_page(&mut self, from: u32, to: u32, tokens: usize) {
        self.cache.copy_page(from, to, tokens);
    }

    fn encode(&mut self, tokens: &[u32], lens: &[usize], hidden: &mut Vec<f32>) {
        let states = self.model.encode(&self.device, tokens, lens, &mut self.work);
        hidden.clear();
        hidden.extend_from_slice(states);
    }
}
