//! Attention over a paged cache, in the manner of FlashAttention (Dao et al. 2022): online softmax, no score matrix.
//!
//! # Arithmetic
//! A query meets its keys page by page; pages begin at multiples of [`PAGE_TOKENS`] in the sequence, whoever else is in the batch.
//! In a page, with `q` multiplied by the scale and by log2 e beforehand:
//!
//! ```text
//! score[t] = q[0] k[t][0] + q[1] k[t][1] + ..          a chain of fma
//! m'       = max(m, score[..])
//! w[t]     = 2^(score[t] - m')                         0 for masked tokens
//! l        = l 2^(m - m') + sum of w                   16 running sums
//! acc[d]   = acc[d] 2^(m - m') + w[0] v[0][d] + ..     a chain of fma
//! ```
//!
//! Every [`SPLIT`] pages `(m, l, acc)` starts anew, and the parts are joined in ascending order. So one long sequence can be
//! shared out over threads, and gives the bits it would have given on one. A masked token has weight zero, and since
//! stored numbers are finite it changes nothing.
//!
//! # Work
//! A task is a *tile*: some consecutive queries, all heads that share a key head, and all their pages or one split of them. A tile
//! of many rows unpacks each page to f32 once and multiplies it in blocks of registers ([`block`]); the few rows of a decode step
//! read f16 as they go, which is as fast as memory. Where there are tiles of bf16 they do both products, in an order of their own
//! (`amx`); all other instruction sets give the same bits.

#[cfg(target_arch = "x86_64")]
mod amx;
mod block;
mod cache;
mod learn;
mod plan;
mod tile;

#[cfg(test)]
mod tests;

pub use cache::{KvCache, KvShape, read_keys, store_kv};
pub use learn::{Attended, Attention, AttentionGradient, Branch, attention_backward, attention_forward};

use crate::Device;

/// Tokens of a page.
pub const PAGE_TOKENS: usize = 64;

/// Pages after which the running sums start anew.
const SPLIT: usize = 8;

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

impl AttentionSpec {
    /// Query heads that share a key head.
    fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    fn check(&self, rows: usize, q: &[f32], out: &[f32]) {
        assert!(
            self.kv_heads > 0 && self.heads.is_multiple_of(self.kv_heads),
            "{} heads over {}",
            self.heads,
            self.kv_heads
        );
        assert!(
            q.len() >= rows * self.heads * self.head_dim && out.len() == q.len(),
            "queries and output of {rows} rows"
        );
    }
}

/// Causal attention of `q` (`[rows][heads][head_dim]`, rotated) over everything stored for its sequence up to its own position.
/// `out` has the shape of `q`. The rows' own keys and values must be stored before.
#[expect(clippy::too_many_arguments, reason = "the parts of one attention")]
pub fn attention(
    dev: &Device,
    spec: &AttentionSpec,
    cache: &KvCache,
    layer: usize,
    spans: &[Span<'_>],
    q: &[f32],
    out: &mut [f32],
) {
    spec.check(spans.iter().map(|span| span.start + span.len).max().unwrap_or(0), q, out);
    plan::causal(dev, spec, cache, layer, spans, q, out);
}

/// Attention of encoders: every row of a sequence sees every other (with a window, those at a distance below it), nothing is
/// cached. `lens` are the sequences' lengths; `q`, `k`, `v` and `out` are `[sum of lens][heads][head_dim]`, keys and values
/// with `kv_heads`.
#[expect(clippy::too_many_arguments, reason = "the parts of one attention")]
pub fn encoder_attention(
    dev: &Device,
    spec: &AttentionSpec,
    lens: &[usize],
    q: &[f32],
    k: &[f32],
    v: &[f32],
    out: &mut [f32],
) {
    let rows = lens.iter().sum::<usize>();
    spec.check(rows, q, out);
    assert!(k.len() >= rows * spec.kv_heads * spec.head_dim && v.len() == k.len(), "keys and values of {rows} rows");
    plan::encoder(dev, spec, lens, q, k, v, out);
}
