//! Buffers of a forward pass. They grow to the largest batch seen and are reused: nothing is allocated in the steady state.

use kernels::{Activations, Span};

use crate::model::Batch;

/// Buffers of a forward pass, kept between steps: nothing is allocated once they have grown, but where rows leave early.
#[derive(Debug, Default)]
pub struct Workspace {
    /// The residual stream.
    pub(crate) x: Vec<f32>,
    /// Normed rows, and what blocks give back before a norm behind them.
    pub(crate) normed: Vec<f32>,
    pub(crate) query: Vec<f32>,
    pub(crate) key: Vec<f32>,
    pub(crate) value: Vec<f32>,
    pub(crate) mixed: Vec<f32>,
    pub(crate) gate: Vec<f32>,
    pub(crate) up: Vec<f32>,
    pub(crate) input: Activations,
    /// Waists of adapters.
    pub(crate) low: Vec<u32>,
    /// Position of every row of the batch.
    pub(crate) positions: Vec<u32>,
    pub(crate) narrow: Narrow,
    pub(crate) judged: Judged,
    pub(crate) skipped: usize,
}

impl Workspace {
    /// Layers that rows of the last batch did not go through, as they left early: rows times layers.
    pub fn skipped(&self) -> usize {
        self.skipped
    }
}

/// What exits look at.
#[derive(Debug, Default)]
pub(crate) struct Judged {
    pub(crate) x: Vec<f32>,
    pub(crate) hidden: Vec<f32>,
    pub(crate) logits: Vec<f32>,
    pub(crate) head: HeadWorkspace,
}

/// Buffers of the head.
#[derive(Debug, Default)]
pub struct HeadWorkspace {
    pub(crate) input: Activations,
}

/// The first `len` numbers of a buffer that grows when it must.
pub(crate) fn slice(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if buffer.len() < len {
        buffer.resize(len, 0.0);
    }
    &mut buffer[..len]
}

/// Moves the rows that are wanted to the front. `rows` ascend.
pub(crate) fn compact(x: &mut [f32], rows: &[u32], width: usize) {
    for (to, &from) in rows.iter().enumerate() {
        let from = from as usize * width;
        x.copy_within(from..from + width, to * width);
    }
}

/// Positions of all rows of a batch.
pub(crate) fn positions(spans: &[Span<'_>], into: &mut Vec<u32>) {
    into.clear();
    for span in spans {
        into.extend((span.position..span.position + span.len).map(|p| p as u32));
    }
}

/// The last layer's queries: only rows whose hidden state is wanted.
#[derive(Debug, Default)]
pub(crate) struct Narrow {
    pub(crate) positions: Vec<u32>,
    spans: Vec<Span<'static>>,
}

impl Narrow {
    /// Lends the spans' buffer, empty, to borrows of any length.
    pub(crate) fn lend<'a>(&mut self) -> Vec<Span<'a>> {
        recycle(std::mem::take(&mut self.spans))
    }

    /// Takes it back.
    pub(crate) fn give_back(&mut self, spans: Vec<Span<'_>>) {
        self.spans = recycle(spans);
    }

    /// Fills spans and positions with the output rows of a batch.
    pub(crate) fn select<'a>(&mut self, batch: &Batch<'a>, all: &[u32], spans: &mut Vec<Span<'a>>) {
        self.positions.clear();
        self.positions.extend(batch.outputs.iter().map(|&row| all[row as usize]));
        select(batch.spans, batch.outputs, spans);
    }
}

/// Spans of some rows, which ascend, numbered from 0. Neighbours share a span.
pub(crate) fn select<'a>(all: &[Span<'a>], rows: &[u32], spans: &mut Vec<Span<'a>>) {
    let mut left = rows;
    let mut start = 0;
    for whole in all {
        let (own, rest) = left.split_at(left.partition_point(|&row| (row as usize) < whole.start + whole.len));
        left = rest;
        for run in own.chunk_by(|a, b| a + 1 == *b) {
            let position = whole.position + run[0] as usize - whole.start;
            spans.push(Span { start, len: run.len(), position, pages: whole.pages });
            start += run.len();
        }
    }
}

/// An empty vector with the same memory: collecting in place keeps the allocation.
fn recycle<'b>(mut spans: Vec<Span<'_>>) -> Vec<Span<'b>> {
    spans.clear();
    spans.into_iter().map(|span| Span { pages: &[], ..span }).collect()
}
