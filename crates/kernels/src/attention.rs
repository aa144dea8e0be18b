//! Attention over a paged cache, in the manner of FlashAttention (Dao et al. 2022): online softmax, no score matrix.

use crate::{Device, RopeTable};

/// Tokens of a page.
pub const PAGE_TOKENS: usize = 64;

/// What one layer caches per token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KvShape {
    /// Heads of keys and values.
    pub kv_heads: usize,
    /// Numbers of a head.
    pub head_dim: usize,
}

/// Keys (rotated) and values of all layers, f16, in pages of [`PAGE_TOKENS`] tokens. A page number means the same place in
/// every layer. Which page belongs to whom is the caller's business.
#[derive(Debug)]
pub struct KvCache {}

impl KvCache {
    /// Room for `pages` pages; memory is touched when first written.
    pub fn new(_layers: &[KvShape], _pages: usize) -> Self { unimplemented!() }
    /// Pages.
    pub fn pages(&self) -> usize { unimplemented!() }
    /// Bytes of one page over all layers.
    pub fn page_bytes(&self) -> usize { unimplemented!() }
    /// Copies the first `tokens` tokens of page `from` to page `to` in all layers (copy on write of a shared prefix).
    pub fn copy_page(&mut self, _from: u32, _to: u32, _tokens: usize) { unimplemented!() }
}

/// Consecutive rows of one sequence in a batch.
#[derive(Debug, Clone, Copy)]
pub struct Span<'a> {
    /// Index of the first row in the batch.
    pub start: usize,
    /// Rows.
    pub len: usize,
    /// Position of the first row in its sequence.
    pub position: usize,
    /// The sequence's pages: position `p` lives in `pages[p / PAGE_TOKENS]`.
    pub pages: &'a [u32],
}

/// The shape and rules of one layer's attention.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AttentionSpec {
    /// Query heads, a multiple of `kv_heads`.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Numbers of a head.
    pub head_dim: usize,
    /// Factor on the scores.
    pub scale: f32,
    /// Sliding window: position `p` sees `p - window + 1 ..= p`.
    pub window: Option<usize>,
    /// `cap * tanh(score / cap)`.
    pub softcap: Option<f32>,
}

/// Stores the keys and values (`[rows][kv_heads][head_dim]`, keys already rotated) of all spans' rows in a layer's pages.
pub fn store_kv(_dev: &Device, _cache: &mut KvCache, _layer: usize, _spans: &[Span<'_>], _k: &[f32], _v: &[f32]) { unimplemented!() }

/// Causal attention of `q` (`[rows][heads][head_dim]`, rotated) over everything stored for its sequence up to its own position.
/// `out` has the shape of `q`. The rows' own keys and values must be stored before.
#[expect(clippy::too_many_arguments, reason = "the parts of one attention")]
pub fn attention(_dev: &Device, _spec: &AttentionSpec, _cache: &KvCache, _layer: usize, _spans: &[Span<'_>], _q: &[f32], _out: &mut [f32]) { unimplemented!() }

/// Attention of encoders: every row of a sequence sees every other, nothing is cached. `lens` are the sequences' lengths;
/// `q`, `k`, `v` and `out` are `[sum of lens][heads][head_dim]`.
#[expect(clippy::too_many_arguments, reason = "the parts of one attention")]
pub fn encoder_attention(_dev: &Device, _spec: &AttentionSpec, _lens: &[usize], _q: &[f32], _k: &[f32], _v: &[f32], _out: &mut [f32]) { unimplemented!() }

/// Reads back keys `[len][kv_heads][head_dim]` of one sequence from `position`, un-rotated if `table` is given.
pub fn read_keys(_cache: &KvCache, _layer: usize, _span: &Span<'_>, _table: Option<&RopeTable>, _out: &mut [f32]) { unimplemented!() }
