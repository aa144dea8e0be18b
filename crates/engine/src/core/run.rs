//! One forward pass and what comes of its rows.

use std::{ops::Range, time::Duration};

use kernels::{Device, Span, log_sum_exp, top_k};
use model::Batch;
use protocol::{Event, FinishReason, TokenLogprob};
use text::Tokenizer;

use super::{Core, Output, micros};
use crate::{
    control::Allowed,
    executor::Executor,
    meters::seconds,
    sampler::SMALL_SET,
    sequence::{Purpose, Sequence},
};

/// Logits made at a time, in bytes: larger batches go through the head in groups.
const LOGITS_BYTES: usize = 32 << 20;

/// What a step needs, kept between steps.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    tokens: Vec<u32>,
    /// Rows that may leave early.
    leaving: Vec<u32>,
    /// Rows whose hidden state is wanted, and what for.
    outputs: Vec<u32>,
    targets: Vec<Target>,
    pub(super) hidden: Vec<f32>,
    gathered: Vec<f32>,
    logits: Vec<f32>,
    best: Vec<(u32, f32)>,
}

/// A row whose hidden state is wanted.
#[derive(Debug, Clone, Copy)]
struct Target {
    /// Index among the running sequences.
    sequence: usize,
    position: usize,
}

/// The model's own distribution at one place, before anything is changed for sampling.
struct Measured {
    log_mass: f32,
    top: Vec<(u32, f32)>,
}

impl<E: Executor> Core<E> {
    pub(super) fn run(&mut self) {
        let mut buffers = std::mem::take(&mut self.buffers);
        buffers.gather(&self.running);
        if !buffers.tokens.is_empty() {
            self.forward(&mut buffers);
            self.advance();
            self.choose(&mut buffers);
            self.close_read();
            self.count_step(buffers.tokens.len());
            self.time_tokens(self.clock.now());
            self.book_work(buffers.tokens.len());
        }
        self.buffers = buffers;
    }

    fn forward(&mut self, buffers: &mut Buffers) {
        let mut start = 0;
        let taking_part = || self.running.iter().filter(|sequence| sequence.rows > 0);
        let spans: Vec<Span<'_>> = taking_part()
            .map(|sequence| {
                debug_assert!(sequence.computed >= sequence.table.writable_from(), "a shared page is never written");
                let span = Span { start, len: sequence.rows, position: sequence.computed, pages: sequence.table.ids() };
                start += sequence.rows;
                span
            })
            .collect();
        let adapters: Vec<_> = taking_part().map(Sequence::adapter).collect();
        let Buffers { tokens, outputs, leaving, hidden, .. } = buffers;
        let batch = Batch { tokens, spans: &spans, outputs, adapters: &adapters, leaving };
        let skipped = self.executor.forward(&batch, hidden) as u64;
        self.stats.skipped_layers += skipped;
        self.meters.skipped_layers.increment(skipped);
    }

    /// Books the rows as computed and shares whole pages of prompts with whoever comes next.
    fn advance(&mut self) {
        for sequence in self.running.iter_mut().filter(|sequence| sequence.rows > 0) {
            let Some(request) = self.requests.get_mut(&sequence.request) else { continue };
            let was_decoding = sequence.is_decoding();
            sequence.computed += sequence.rows;
            if was_decoding {
                self.queue.charge(&request.tenant, sequence.rows);
                continue;
            }
            request.prompt_ready |= sequence.is_decoding();
            if self.config.prefix_cache {
                let root = sequence.root();
                let stored = sequence.shareable().len();
                self.cache.share(root, &sequence.tokens[..stored], &mut sequence.table);
            }
        }
    }

    /// Handles the wanted rows: those that need few logits or none at once, the others through the whole head in groups.
    fn choose(&mut self, buffers: &mut Buffers) {
        let width = self.executor.width();
        let mut whole = Vec::new();
        for at in 0..buffers.targets.len() {
            if !self.handle_small(buffers, at, at * width..(at + 1) * width) {
                whole.push(at);
            }
        }
        let vocab = self.executor.vocab();
        for group in whole.chunks((LOGITS_BYTES / (vocab * size_of::<f32>())).max(1)) {
            let mut logits = std::mem::take(&mut buffers.logits);
            logits.resize(logits.len().max(group.len() * vocab), 0.0);
            self.executor.logits(buffers.gather_hidden(group, width), &mut logits[..group.len() * vocab]);
            for (row, &at) in logits.chunks_exact_mut(vocab).zip(group) {
                self.handle_row(buffers.targets[at], row, &mut buffers.best);
            }
            buffers.logits = logits;
        }
    }

    /// Handles a row that needs no logits (pooling) or those of a small set only (most grammars). False if it needs all.
    fn handle_small(&mut self, buffers: &mut Buffers, at: usize, hidden: Range<usize>) -> bool {
        let Target { sequence, position } = buffers.targets[at];
        let hidden = &buffers.hidden[hidden];
        let index = sequence;
        let generation = match &mut self.running[index].purpose {
            Purpose::Pool(pool) => {
                pool.add(hidden);
                return true;
            }
            Purpose::Logits(_) => return false,
            Purpose::Answer(generation) => generation,
        };
        let small = generation.allowed().filter(|allowed| generation.logprobs.is_none() && allowed.len() <= SMALL_SET);
        let Some(ids) = small.map(|allowed| allowed.ids(self.executor.vocab())) else { return false };
        buffers.logits.resize(buffers.logits.len().max(ids.len()), 0.0);
        let logits = &mut buffers.logits[..ids.len()];
        self.executor.logits_of(hidden, &ids, logits);
        let token = generation.sampler.choose_of(&ids, logits, position + 1);
        self.accept(index, token, None);
        true
    }

    fn handle_row(&mut self, target: Target, row: &mut [f32], best: &mut Vec<(u32, f32)>) {
        let Target { sequence: index, position } = target;
        let sequence = &mut self.running[index];
        let scores_prompt = sequence.scores_after(position);
        let next = sequence.tokens.get(position + 1).copied();
        let generation = match &mut sequence.purpose {
            Purpose::Logits(rows) => return rows.push(row.to_vec()),
            Purpose::Pool(_) => return,
            Purpose::Answer(generation) => generation,
        };
        let (dev, tokenizer) = (self.executor.device(), &*self.tokenizer);
        let measured = generation.logprobs.map(|k| Measured::of(dev, row, k, best));
        if let (true, Some(measured), Some(next), Some(scoring)) =
            (scores_prompt, &measured, next, &mut generation.scoring)
        {
            scoring.scores[position + 1] = measured.score(next, row[next as usize], tokenizer);
            return;
        }
        let raw = measured.is_some().then(|| row.to_vec());
        let generation = &mut **generation;
        let token = match generation.control.as_ref().and_then(|control| control.allowed()) {
            Some(Allowed::One(id)) => id,
            Some(Allowed::Mask(mask)) => generation.sampler.choose(dev, row, Some(mask), position + 1),
            None => generation.sampler.choose(dev, row, None, position + 1),
        };
        let score = measured.zip(raw).map(|(measured, raw)| measured.score(token, raw[token as usize], tokenizer));
        self.accept(index, token, score);
    }

    fn accept(&mut self, index: usize, token: u32, score: Option<TokenLogprob>) {
        let sequence = &mut self.running[index];
        let id = sequence.request;
        let accepted = sequence.accept(token, score, &self.tokenizer, &mut self.events);
        self.send(id);
        if let Err(error) = accepted {
            self.failures.push((id, error));
        }
    }

    /// Finishes answers that only wanted their prompt read (`max_tokens` of 0).
    fn close_read(&mut self) {
        for index in 0..self.running.len() {
            let sequence = &mut self.running[index];
            let read = sequence.pending() == 0;
            if let Purpose::Answer(generation) = &mut sequence.purpose
                && read
                && generation.finished.is_none()
            {
                generation.finish(FinishReason::Length, &mut self.events);
                let id = sequence.request;
                self.send(id);
            }
        }
    }

    pub(super) fn count_step(&mut self, rows: usize) {
        self.stats.steps += 1;
        self.stats.batch_rows = rows;
        self.meters.batch_rows.record(rows as f64);
    }

    /// Shares out the processor time since the step before by the rows of this one. Whoever wants to know it as it grows is told ahead of the
    /// step's text, behind which the answer may be given up.
    fn book_work(&mut self, rows: usize) {
        let Some(now) = self.executor.processor_time() else { return };
        let step = now.saturating_sub(self.processor.replace(now).unwrap_or(now));
        let mut told = Vec::new();
        for sequence in self.running.iter().filter(|sequence| sequence.rows > 0) {
            let Some(request) = self.requests.get_mut(&sequence.request) else { continue };
            request.worked += step.mul_f64(sequence.rows as f64 / rows as f64);
            if request.report_work {
                told.push((sequence.request, Ok(Output::Event(Event::Worked(micros(request.worked))))));
            }
        }
        self.out.splice(0..0, told);
    }

    /// Times the tokens of this step: the first of an answer from its submission, the others from the one before.
    fn time_tokens(&mut self, now: Duration) {
        for sequence in self.running.iter_mut().filter(|sequence| sequence.produced) {
            let Purpose::Answer(generation) = &mut sequence.purpose else { continue };
            let Some(request) = self.requests.get(&sequence.request) else { continue };
            match generation.last_token.replace(now) {
                Some(before) => self.meters.inter_token.record(seconds(now.saturating_sub(before))),
                None => self.meters.first_token.record(seconds(now.saturating_sub(request.submitted))),
            }
        }
    }
}

impl Buffers {
    /// Collects the rows of a step and which of them are wanted.
    fn gather(&mut self, running: &[Sequence]) {
        self.tokens.clear();
        self.outputs.clear();
        self.leaving.clear();
        self.targets.clear();
        for (index, sequence) in running.iter().enumerate() {
            let (start, positions) = (self.tokens.len(), sequence.computed..sequence.computed + sequence.rows);
            self.tokens.extend_from_slice(&sequence.tokens[positions.clone()]);
            let may_leave = positions.clone().filter(|position| *position >= sequence.whole());
            self.leaving.extend(may_leave.map(|position| (start + position - sequence.computed) as u32));
            for (row, position) in positions.enumerate().filter(|(_, position)| sequence.wants(*position)) {
                self.outputs.push((start + row) as u32);
                self.targets.push(Target { sequence: index, position });
            }
        }
    }

    /// The hidden states of some targets, one behind the other.
    fn gather_hidden(&mut self, group: &[usize], width: usize) -> &[f32] {
        let first = group.first().copied().unwrap_or(0);
        if group.iter().enumerate().all(|(i, &at)| at == first + i) {
            return &self.hidden[first * width..(first + group.len()) * width];
        }
        self.gathered.clear();
        for &at in group {
            self.gathered.extend_from_slice(&self.hidden[at * width..(at + 1) * width]);
        }
        &self.gathered
    }
}

impl Measured {
    fn of(dev: &Device, row: &[f32], k: usize, best: &mut Vec<(u32, f32)>) -> Self {
        best.clear();
        if k > 0 {
            top_k(dev, row, k.min(row.len()), best);
        }
        Self { log_mass: log_sum_exp(dev, row), top: best.clone() }
    }

    fn score(&self, id: u32, logit: f32, tokenizer: &Tokenizer) -> TokenLogprob {
        let bytes = |id: u32| tokenizer.bytes(id).to_vec();
        let top = self.top.iter().map(|&(id, logit)| (id, bytes(id), logit - self.log_mass)).collect();
        TokenLogprob { id, bytes: bytes(id), logprob: Some(logit - self.log_mass), top }
    }
}
