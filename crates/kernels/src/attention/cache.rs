//! Where keys and values live.
//!
//! A page holds 64 tokens of one sequence in all layers, in one stretch of memory: what is never used is never touched, and a short
//! sequence touches little. Within a page, layer by layer and head by head: keys *across* (`[head_dim][64 tokens]`, so that a
//! vector holds one dimension of sixteen tokens and scores need no sums over lanes), then values *along*
//! (`[64 tokens][head_dim]`, rows filled up to whole vectors).
//!
//! Numbers are f16, saturated: only finite ones are stored, so weight zero times anything in a page is zero.
#![expect(unsafe_code, reason = "bytes of the buffer, read and written as numbers")]

use crate::buffer::Buffer;
use crate::parallel::Shared;
use crate::rope::{Rotate, Turn};
use crate::simd::{Kernel, LANES, Simd, dispatch};
use crate::{Device, PAGE_TOKENS, RopeTable, Span};

/// What one layer caches per token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KvShape {
    /// Heads of keys and values.
    pub kv_heads: usize,
    /// Numbers of a head.
    pub head_dim: usize,
}

impl KvShape {
    /// Numbers of a value row in a page.
    fn value_row(self) -> usize {
        self.head_dim.next_multiple_of(LANES)
    }

    /// Numbers of one head in a page: keys and values.
    fn head_len(self) -> usize {
        PAGE_TOKENS * (self.head_dim + self.value_row())
    }
}

/// Keys (rotated) and values of all layers, f16, in pages of [`PAGE_TOKENS`] tokens. A page number means the same place in
/// every layer. Which page belongs to whom is the caller's business.
#[derive(Debug)]
pub struct KvCache {
    /// Each layer and where in a page it starts.
    layers: Vec<(KvShape, usize)>,
    pages: usize,
    /// Numbers of a page.
    page_len: usize,
    buffer: Buffer,
}

impl KvCache {
    /// Room for `pages` pages; memory is touched when first written.
    pub fn new(layers: &[KvShape], pages: usize) -> Self {
        let mut page_len = 0;
        let places = layers.iter().map(|shape| {
            let start = page_len;
            page_len += shape.kv_heads * shape.head_len();
            (*shape, start)
        });
        let layers = places.collect();
        let buffer = Buffer::zeroed(pages * page_len * size_of::<u16>());
        Self { layers, pages, page_len, buffer }
    }

    /// Pages.
    pub fn pages(&self) -> usize {
        self.pages
    }

    /// Bytes of one page over all layers.
    pub fn page_bytes(&self) -> usize {
        self.page_len * size_of::<u16>()
    }

    /// Copies the first `tokens` tokens of page `from` to page `to` in all layers (copy on write of a shared prefix).
    pub fn copy_page(&mut self, from: u32, to: u32, tokens: usize) {
        assert!(tokens <= PAGE_TOKENS, "{tokens} tokens in a page");
        if from == to {
            return;
        }
        for layer in 0..self.layers.len() {
            let shape = self.layers[layer].0;
            for head in 0..shape.kv_heads {
                let (source, target) = (self.place(layer, from, head), self.place(layer, to, head));
                let (keys, row) = (shape.head_dim * PAGE_TOKENS, shape.value_row());
                let numbers = self.numbers_mut();
                for d in (0..keys).step_by(PAGE_TOKENS) {
                    numbers.copy_within(source + d..source + d + tokens, target + d);
                }
                numbers.copy_within(source + keys..source + keys + tokens * row, target + keys);
            }
        }
    }

    /// A layer's shape.
    pub(super) fn shape(&self, layer: usize) -> KvShape {
        self.layers[layer].0
    }

    /// One head of a page: keys `[head_dim][64]` and values `[64][value_row]`.
    pub(super) fn head(&self, layer: usize, page: u32, head: usize) -> (&[u16], &[u16]) {
        let shape = self.layers[layer].0;
        self.numbers()[self.place(layer, page, head)..][..shape.head_len()].split_at(shape.head_dim * PAGE_TOKENS)
    }

    /// Where a head of a page starts.
    fn place(&self, layer: usize, page: u32, head: usize) -> usize {
        let (shape, start) = self.layers[layer];
        assert!((page as usize) < self.pages && head < shape.kv_heads, "page {page} of {}, head {head}", self.pages);
        page as usize * self.page_len + start + head * shape.head_len()
    }

    fn numbers(&self) -> &[u16] {
        // SAFETY: every pair of bytes is a u16; the buffer is aligned to 64, so nothing is cut off in front.
        unsafe { self.buffer.bytes().align_to().1 }
    }

    fn numbers_mut(&mut self) -> &mut [u16] {
        // SAFETY: as above.
        unsafe { self.buffer.bytes_mut().align_to_mut().1 }
    }
}

/// Stores the keys and values (`[rows][kv_heads][head_dim]`, keys already rotated) of all spans' rows in a layer's pages.
pub fn store_kv(dev: &Device, cache: &mut KvCache, layer: usize, spans: &[Span<'_>], k: &[f32], v: &[f32]) {
    let shape = cache.shape(layer);
    let cols = shape.kv_heads * shape.head_dim;
    assert_eq!(k.len(), v.len(), "keys and values");
    for span in spans.iter().filter(|span| span.len > 0) {
        let first = span.position / PAGE_TOKENS;
        let pages = (span.position + span.len).div_ceil(PAGE_TOKENS) - first;
        let places = |i: usize| cache.place(layer, span.pages[first + i / shape.kv_heads], i % shape.kv_heads);
        // Bounds of all places are checked here, before several threads write.
        (0..pages * shape.kv_heads).for_each(|i| _ = places(i));
        let (layers, page_len) = (cache.layers[layer].1, cache.page_len);
        let numbers = Shared::new(cache.numbers_mut());
        let task = |i: usize| {
            let (page, head) = (first + i / shape.kv_heads, i % shape.kv_heads);
            let start = span.pages[page] as usize * page_len + layers + head * shape.head_len();
            // Tasks differ in page or head.
            let to = numbers.part(start, shape.head_len());
            let from = span.position.max(page * PAGE_TOKENS);
            let rows = (span.position + span.len).min((page + 1) * PAGE_TOKENS) - from;
            let offset = (span.start + from - span.position) * cols + head * shape.head_dim;
            let (k, v) = (&k[offset..], &v[offset..]);
            dispatch(dev.isa(), Store { shape, cols, k, v, rows, token: from % PAGE_TOKENS, to });
        };
        if span.len < LANES || dev.threads() == 1 {
            (0..pages * shape.kv_heads).for_each(task);
        } else {
            dev.run(pages * shape.kv_heads, &task);
        }
    }
}

/// Stores some rows of one head in one page.
struct Store<'a> {
    shape: KvShape,
    /// Numbers from row to row of the input.
    cols: usize,
    k: &'a [f32],
    v: &'a [f32],
    rows: usize,
    /// Where in the page the first row goes.
    token: usize,
    to: &'a mut [u16],
}

impl Kernel for Store<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (n, row) = (self.shape.head_dim, self.shape.value_row());
        let (keys, values) = self.to.split_at_mut(n * PAGE_TOKENS);
        for i in 0..self.rows {
            let (k, v) = (&self.k[i * self.cols..][..n], &self.v[i * self.cols..][..n]);
            let token = self.token + i;
            for (k, across) in k.chunks(LANES).zip(keys.chunks_mut(LANES * PAGE_TOKENS)) {
                let halves = to_f16(s, k);
                for (half, keys) in halves.iter().zip(across.chunks_mut(PAGE_TOKENS)) {
                    keys[token] = *half;
                }
            }
            for (v, along) in v.chunks(LANES).zip(values[token * row..][..row].as_chunks_mut().0) {
                *along = to_f16(s, v);
            }
        }
    }
}

/// The nearest finite f16 of up to sixteen numbers, zeros behind them.
#[inline(always)]
fn to_f16<S: Simd>(s: S, x: &[f32]) -> [u16; LANES] {
    const MAX: f32 = 65_504.0;
    let mut halves = [0; LANES];
    // NaN becomes the largest number: `min` gives its second operand then.
    let bounded = s.max(s.min(s.load_part(x), s.splat(MAX)), s.splat(-MAX));
    s.store_f16(bounded, &mut halves);
    halves
}

/// Reads back keys `[len][kv_heads][head_dim]` of one sequence from `position`, un-rotated if `table` is given.
pub fn read_keys(cache: &KvCache, layer: usize, span: &Span<'_>, table: Option<&RopeTable>, out: &mut [f32]) {
    let KvShape { kv_heads, head_dim } = cache.shape(layer);
    assert_eq!(out.len(), span.len * kv_heads * head_dim, "{} rows of {kv_heads} heads of {head_dim}", span.len);
    for (i, row) in out.chunks_exact_mut(kv_heads * head_dim).enumerate() {
        let position = span.position + i;
        for (h, head) in row.chunks_exact_mut(head_dim).enumerate() {
            let (keys, _) = cache.head(layer, span.pages[position / PAGE_TOKENS], h);
            for (x, keys) in head.iter_mut().zip(keys.chunks(PAGE_TOKENS)) {
                *x = half::f16::from_bits(keys[position % PAGE_TOKENS]).to_f32();
            }
        }
        if let Some(table) = table {
            dispatch(crate::Isa::Scalar, Rotate { table, x: row, head_dim, position, turn: Turn::Back });
        }
    }
}
