//! Leaving early: a token that is sure enough behind some layers goes no deeper.
//!
//! Behind an exit's layer the rows that may leave are judged by what the final norm and the head make of them there: one leaves whose likeliest
//! token has at least the exit's probability (CALM, Schuster et al. 2022, arXiv 2207.07061). Tokens behind it will look for its keys and values in
//! every layer, so those of the deeper ones are made of the state that it left with, and the cache has no gaps: a norm and two products a layer. The
//! others go on as a smaller batch.
//!
//! Whether a row leaves depends on the row alone. Judging reads the head once more for every exit: an exit pays where the head is small beside
//! the layers behind it.

use kernels::{KvCache, Span, log_sum_exp, rms_norm};

use crate::Exit;
use crate::adapter::Adapted;
use crate::decoder::{Decoder, Rows, Step};
use crate::model::{Batch, logits};
use crate::workspace::{Judged, Workspace, compact, select, slice};

/// Logits that are judged at a time, in numbers.
const LOGITS: usize = 8 << 20;

/// Some rows of a batch, as a batch of their own. Their tokens have been read, and their adapters stand with them.
struct Part<'a> {
    spans: Vec<Span<'a>>,
    positions: Vec<u32>,
    outputs: Vec<u32>,
    leaving: Vec<u32>,
    rows: Rows<'a>,
}

impl<'a> Part<'a> {
    /// Those of `batch` that stand in `own`, ascending; `positions` are those of all.
    fn of((batch, adapted): (&Batch<'a>, &Adapted<'a>), own: &[u32], positions: &[u32]) -> Self {
        let mut spans = Vec::new();
        select(batch.spans, own, &mut spans);
        let among =
            |rows: &[u32]| rows.iter().filter_map(|row| own.binary_search(row).ok()).map(|at| at as u32).collect();
        Self {
            spans,
            positions: own.iter().map(|&row| positions[row as usize]).collect(),
            outputs: among(batch.outputs),
            leaving: among(batch.leaving),
            rows: Rows { count: own.len(), adapted: adapted.only(own) },
        }
    }
}

impl Decoder<'_> {
    /// Lets rows go that are sure enough behind a layer, and the others on to the end. False, and nothing was done, if nobody leaves.
    pub(crate) fn leave(
        &self,
        step: &Step<'_>,
        cache: &mut KvCache,
        (batch, rows): (&Batch<'_>, &Rows<'_>),
        work: &mut Workspace,
    ) -> bool {
        let exit = self.spec.exits.iter().find(|exit| exit.after == step.number + 1);
        let Some(exit) = exit.filter(|_| !batch.leaving.is_empty()) else { return false };
        let (sure, width) = (self.sure(exit, batch.leaving, work), self.spec.width);
        if sure.is_empty() {
            return false;
        }
        let others: Vec<u32> = (0..rows.count as u32).filter(|row| sure.binary_search(row).is_err()).collect();
        let [left, mut stay] = [&sure, &others].map(|own| Part::of((batch, &rows.adapted), own, &work.positions));
        let mut x = Vec::new();
        gather(&work.x, &others, width, &mut x);
        compact(&mut work.x, &sure, width);
        let early = self.depart(exit, cache, &left, work);
        if stay.rows.count > 0 {
            work.x[..x.len()].copy_from_slice(&x);
            work.positions.clone_from(&stay.positions);
            let Part { spans, outputs, leaving, rows, .. } = &mut stay;
            let batch = Batch { tokens: &[], spans, outputs, adapters: &[], leaving };
            self.through(exit.after, cache, (&batch, rows), work);
        }
        let late = work.normed[..stay.outputs.len() * width].to_vec();
        let is_early = batch.outputs.iter().map(|row| sure.binary_search(row).is_ok());
        merge(is_early, [&early, &late], width, slice(&mut work.normed, batch.outputs.len() * width));
        true
    }

    /// Those of some rows that are sure enough.
    fn sure(&self, exit: &Exit, rows: &[u32], work: &mut Workspace) -> Vec<u32> {
        let Workspace { x: all, judged: Judged { x, hidden, logits: out, head }, .. } = work;
        let (dev, spec, vocab) = (self.dev, self.spec, self.spec.vocab);
        let mut sure = Vec::new();
        for some in rows.chunks((LOGITS / vocab).max(1)) {
            gather(all, some, spec.width, x);
            let (hidden, out) = (slice(hidden, x.len()), slice(out, some.len() * vocab));
            rms_norm(dev, x, &self.weights.output_norm.weight, spec.norm_eps, hidden);
            logits(dev, (spec, self.weights), hidden, head, out);
            // The largest probability: exp(max - ln Σ exp).
            let confidence = |row: &[f32]| (row.iter().copied().fold(f32::MIN, f32::max) - log_sum_exp(dev, row)).exp();
            let judged = some.iter().zip(out.chunks_exact(vocab));
            sure.extend(judged.filter(|(_, row)| confidence(row) >= exit.threshold).map(|(row, _)| *row));
        }
        sure
    }

    /// Final states of the outputs among rows that leave, which stand at the front of `x`; the deeper layers get their keys and values.
    fn depart(&self, exit: &Exit, cache: &mut KvCache, left: &Part<'_>, work: &mut Workspace) -> Vec<f32> {
        let Part { spans, positions, rows, outputs, .. } = left;
        work.positions.clone_from(positions);
        for step in self.steps().skip(exit.after) {
            self.remember(&step, cache, spans, rows, work);
            work.skipped += rows.count;
        }
        self.end(rows.count, work);
        let mut states = Vec::new();
        gather(&work.normed, outputs, self.spec.width, &mut states);
        states
    }
}

/// Some rows, one behind the other.
fn gather(x: &[f32], rows: &[u32], width: usize, into: &mut Vec<f32>) {
    into.clear();
    rows.iter().for_each(|&row| into.extend_from_slice(&x[row as usize * width..][..width]));
}

/// Puts rows back into their order, of which each is the next of the first or of the second.
fn merge(first: impl Iterator<Item = bool>, rows: [&[f32]; 2], width: usize, out: &mut [f32]) {
    let [mut early, mut late] = rows.map(|rows| rows.chunks_exact(width));
    for (out, first) in out.chunks_exact_mut(width).zip(first) {
        let next = if first { early.next() } else { late.next() };
        next.into_iter().for_each(|row| out.copy_from_slice(row));
    }
}
