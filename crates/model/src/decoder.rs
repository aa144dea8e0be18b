//! The decoder of all families, written once.
//!
//! A step takes rows of several sequences, one behind the other, through all layers; what a row gives does not depend on the
//! rows beside it. In the last layer only the rows whose hidden state is wanted go on behind keys and values: a prompt's
//! other rows have done their duty when those are stored. Rows that are sure enough early leave before ([`crate::exits`]).

use kernels::{
    Device, KvCache, RopeTable, Span, attention, gated, rms_norm, rms_norm_add, rms_norm_in_place, rms_norm_to, rope,
    store_kv,
};

use crate::adapter::{Adapted, Pick};
use crate::model::Batch;
use crate::weights::{Layer, LinearLayer, Weights};
use crate::workspace::{Workspace, compact, positions, slice};
use crate::{LayerSpec, ModelSpec, Norms};

/// A model's parts as the decoder sees them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Decoder<'m> {
    pub(crate) dev: &'m Device,
    pub(crate) spec: &'m ModelSpec,
    pub(crate) weights: &'m Weights,
    /// One per distinct rotation, and which one each layer uses.
    pub(crate) tables: &'m [RopeTable],
    pub(crate) table_of: &'m [Option<usize>],
}

/// Rows that go through a layer, with their adapters.
pub(crate) struct Rows<'a> {
    pub(crate) count: usize,
    pub(crate) adapted: Adapted<'a>,
}

/// A layer with its number and description.
#[derive(Clone, Copy)]
pub(crate) struct Step<'m> {
    pub(crate) number: usize,
    spec: &'m LayerSpec,
    layer: &'m Layer,
    table: Option<&'m RopeTable>,
}

/// What stands beside the products of attention, by the first of them, and those into and out of a feed-forward block.
const QUERY: Pick = (|layer| &layer.qkv, 0);
const KEY: Pick = (|layer| &layer.qkv, 1);
const OUT: Pick = (|layer| &layer.out, 0);
const UP: Pick = (|layer| &layer.up, 0);
const DOWN: Pick = (|layer| &layer.down, 0);

/// The product at the end of a block, with what stands beside and behind it.
struct Behind<'m> {
    product: &'m LinearLayer,
    beside: Pick,
    norm: &'m [f32],
}

impl Step<'_> {
    fn query_width(&self) -> usize {
        self.spec.attention.heads * self.spec.attention.head_dim
    }

    fn kv_width(&self) -> usize {
        self.spec.attention.kv_heads * self.spec.attention.head_dim
    }
}

impl<'m> Decoder<'m> {
    /// Runs the rows of `batch` through all layers; the normed final hidden states of its outputs stand in `work.normed`.
    pub(crate) fn forward<'w>(&self, cache: &mut KvCache, batch: &Batch<'_>, work: &'w mut Workspace) -> &'w [f32] {
        positions(batch.spans, &mut work.positions);
        self.embed(batch.tokens, work);
        work.skipped = 0;
        let mut rows = Rows { count: batch.tokens.len(), adapted: Adapted::of(batch) };
        self.through(0, cache, (batch, &mut rows), work);
        &work.normed[..batch.outputs.len() * self.spec.width]
    }

    /// Runs rows through the layers from one on.
    pub(crate) fn through(
        &self,
        from: usize,
        cache: &mut KvCache,
        (batch, rows): (&Batch<'_>, &mut Rows<'_>),
        work: &mut Workspace,
    ) {
        for step in self.steps().skip(from) {
            rows.adapted.route(step.number, &work.x, self.spec.width);
            let last = step.number + 1 == self.spec.layers.len();
            if last && batch.outputs.len() < rows.count {
                let wanted = Rows { count: batch.outputs.len(), adapted: rows.adapted.only(batch.outputs) };
                self.attend_narrowly(&step, cache, batch, (&*rows, &wanted), work);
                self.feed_forward(&step, &wanted, work);
            } else {
                self.attend(&step, cache, batch, rows, work);
                self.feed_forward(&step, rows, work);
            }
            if self.leave(&step, cache, (batch, &*rows), work) {
                return;
            }
        }
        self.end(batch.outputs.len(), work);
    }

    /// The final norm of the first rows.
    pub(crate) fn end(&self, rows: usize, work: &mut Workspace) {
        let n = rows * self.spec.width;
        let hidden = slice(&mut work.normed, n);
        rms_norm(self.dev, &work.x[..n], &self.weights.output_norm.weight, self.spec.norm_eps, hidden);
    }

    /// What enters a layer, `[rows][width]`, of rows that have no adapters.
    pub(crate) fn states<'w>(
        &self,
        cache: &mut KvCache,
        batch: &Batch<'_>,
        layer: usize,
        work: &'w mut Workspace,
    ) -> &'w [f32] {
        positions(batch.spans, &mut work.positions);
        self.embed(batch.tokens, work);
        let rows = Rows { count: batch.tokens.len(), adapted: Adapted::default() };
        for step in self.steps().take(layer) {
            self.attend(&step, cache, batch, &rows, work);
            self.feed_forward(&step, &rows, work);
        }
        &work.x[..rows.count * self.spec.width]
    }

    pub(crate) fn steps(&self) -> impl Iterator<Item = Step<'m>> {
        let Self { tables, table_of, .. } = *self;
        let layers = self.spec.layers.iter().zip(&self.weights.layers).enumerate();
        layers.map(move |(number, (spec, layer))| {
            let table = table_of[number].map(|i| &tables[i]);
            Step { number, spec, layer, table }
        })
    }

    fn embed(&self, tokens: &[u32], work: &mut Workspace) {
        let width = self.spec.width;
        let x = slice(&mut work.x, tokens.len() * width);
        for (row, &token) in x.chunks_exact_mut(width).zip(tokens) {
            self.weights.embedding.matrix().row(token as usize, row);
            if self.spec.embedding_scale != 1.0 {
                row.iter_mut().for_each(|x| *x *= self.spec.embedding_scale);
            }
        }
    }

    /// Attention of all rows.
    fn attend(&self, step: &Step<'_>, cache: &mut KvCache, batch: &Batch<'_>, rows: &Rows<'_>, work: &mut Workspace) {
        self.norm(step, rows, work);
        let Workspace { query, key, value, input, low, .. } = work;
        let weights = &step.layer.attention;
        let (query, kv) = (slice(query, rows.count * step.query_width()), rows.count * step.kv_width());
        let (key, value) = (slice(key, kv), slice(value, kv));
        let mut products = [weights.query.to(query), weights.key.to(key), weights.value.to(value)];
        rows.adapted.linear(self.dev, input, (step.number, QUERY), low, &mut products);
        self.store(step, cache, batch.spans, rows.count, work);
        self.rotate_queries(step, rows.count, false, work);
        self.mix(step, cache, batch.spans, rows, work);
    }

    /// Attention of the outputs' rows only; keys and values of all. Leaves the outputs' rows at the front of `x`.
    fn attend_narrowly(
        &self,
        step: &Step<'_>,
        cache: &mut KvCache,
        batch: &Batch<'_>,
        (rows, wanted): (&Rows<'_>, &Rows<'_>),
        work: &mut Workspace,
    ) {
        self.remember(step, cache, batch.spans, rows, work);
        if wanted.count == 0 {
            return;
        }
        let mut spans = work.narrow.lend();
        work.narrow.select(batch, &work.positions, &mut spans);
        compact(&mut work.x, batch.outputs, self.spec.width);
        self.norm(step, wanted, work);
        let query = slice(&mut work.query, wanted.count * step.query_width());
        let Workspace { input, low, .. } = work;
        let weights = &step.layer.attention;
        wanted.adapted.linear(self.dev, input, (step.number, QUERY), low, &mut [weights.query.to(query)]);
        self.rotate_queries(step, wanted.count, true, work);
        self.mix(step, cache, &spans, wanted, work);
        work.narrow.give_back(spans);
    }

    /// Keys and values of rows, and nothing else.
    pub(crate) fn remember(
        &self,
        step: &Step<'_>,
        cache: &mut KvCache,
        spans: &[Span<'_>],
        rows: &Rows<'_>,
        work: &mut Workspace,
    ) {
        self.norm(step, rows, work);
        let Workspace { key, value, input, low, .. } = work;
        let weights = &step.layer.attention;
        let kv = rows.count * step.kv_width();
        let (key, value) = (slice(key, kv), slice(value, kv));
        let mut products = [weights.key.to(key), weights.value.to(value)];
        rows.adapted.linear(self.dev, input, (step.number, KEY), low, &mut products);
        self.store(step, cache, spans, rows.count, work);
    }

    /// The norm in front of attention, prepared for its products.
    fn norm(&self, step: &Step<'_>, rows: &Rows<'_>, work: &mut Workspace) {
        let weight = &step.layer.attention_norm.weight;
        let forms = rows.adapted.forms(&step.layer.attention.qkv_forms);
        let x = &work.x[..rows.count * self.spec.width];
        rms_norm_to(self.dev, x, weight, self.spec.norm_eps, &mut work.input, forms);
    }

    fn store(&self, step: &Step<'_>, cache: &mut KvCache, spans: &[Span<'_>], rows: usize, work: &mut Workspace) {
        let kv = rows * step.kv_width();
        let key = &mut work.key[..kv];
        self.rotate(step, step.layer.attention.key_norm.as_deref(), key, &work.positions);
        store_kv(self.dev, cache, step.number, spans, key, &work.value[..kv]);
    }

    fn rotate_queries(&self, step: &Step<'_>, rows: usize, narrow: bool, work: &mut Workspace) {
        let Workspace { query, positions, narrow: narrowed, .. } = work;
        let positions = if narrow { &narrowed.positions } else { positions };
        let query = &mut query[..rows * step.query_width()];
        self.rotate(step, step.layer.attention.query_norm.as_deref(), query, positions);
    }

    fn rotate(&self, step: &Step<'_>, norm: Option<&[f32]>, x: &mut [f32], positions: &[u32]) {
        if let Some(weight) = norm {
            rms_norm_in_place(self.dev, x, weight, self.spec.norm_eps);
        }
        if let Some(table) = step.table {
            rope(self.dev, table, x, step.spec.attention.head_dim, positions);
        }
    }

    /// Scores, values and the product behind them, added to the residual.
    fn mix(&self, step: &Step<'_>, cache: &KvCache, spans: &[Span<'_>], rows: &Rows<'_>, work: &mut Workspace) {
        let n = rows.count * step.query_width();
        let mixed = slice(&mut work.mixed, n);
        attention(self.dev, &step.spec.attention, cache, step.number, spans, &work.query[..n], mixed);
        let weights = &step.layer.attention;
        work.input.set(self.dev, mixed, step.query_width(), rows.adapted.forms(&weights.out_forms));
        let behind = Behind { product: &weights.out, beside: OUT, norm: &step.layer.post_attention_norm.weight };
        self.add(step, &behind, rows, work);
    }

    /// The feed-forward block of the first `rows` rows.
    fn feed_forward(&self, step: &Step<'_>, rows: &Rows<'_>, work: &mut Workspace) {
        let (ffn, inner, adapted) = (&step.layer.ffn, rows.count * step.spec.ffn, &rows.adapted);
        let (x, weight) = (&work.x[..rows.count * self.spec.width], &step.layer.ffn_norm.weight);
        rms_norm_to(self.dev, x, weight, self.spec.norm_eps, &mut work.input, adapted.forms(&ffn.up_forms));
        let (up, down_forms) = (slice(&mut work.up, inner), adapted.forms(&ffn.down_forms));
        if let Some(gate_weights) = &ffn.gate {
            let gate = slice(&mut work.gate, inner);
            let mut products = [gate_weights.to(gate), ffn.up.to(up)];
            adapted.linear(self.dev, &work.input, (step.number, UP), &mut work.low, &mut products);
            gated(self.dev, step.spec.activation, gate, up, step.spec.ffn, &mut work.input, down_forms);
        } else {
            adapted.linear(self.dev, &work.input, (step.number, UP), &mut work.low, &mut [ffn.up.to(up)]);
            kernels::activate(self.dev, step.spec.activation, up);
            work.input.set(self.dev, up, step.spec.ffn, down_forms);
        }
        let behind = Behind { product: &ffn.down, beside: DOWN, norm: &step.layer.post_ffn_norm.weight };
        self.add(step, &behind, rows, work);
    }

    /// `x += W input`, with a norm between where the family has one.
    fn add(&self, step: &Step<'_>, behind: &Behind<'_>, rows: &Rows<'_>, work: &mut Workspace) {
        let n = rows.count * self.spec.width;
        let Workspace { x, normed, input, low, .. } = work;
        let (x, beside) = (&mut x[..n], (step.number, behind.beside));
        if step.spec.norms == Norms::Before {
            return rows.adapted.linear(self.dev, input, beside, low, &mut [behind.product.onto(x)]);
        }
        let out = slice(normed, n);
        rows.adapted.linear(self.dev, input, beside, low, &mut [behind.product.to(out)]);
        rms_norm_add(self.dev, out, behind.norm, self.spec.norm_eps, x);
    }
}
