//! One sequence of tokens at work: an answer being generated, or tokens being read for their states.
//!
//! The state is two numbers: how many tokens there are and how many of them are computed, that is, stored in the cache.
//! Prefill, decoding, forced tokens and resuming after a preemption are all the same: the rows in between go into the
//! next steps, and where the last of them comes out, a token is chosen.

use std::{sync::Arc, time::Duration};

use model::{Adapter, Pooling};
use protocol::{Error, Event, FinishReason, TokenLogprob};
use text::Tokenizer;

use crate::{
    adapters::{self, Adaptation},
    answer::Answer,
    control::{Allowed, Control, State},
    core::{Output, RequestId},
    pages::PageTable,
    prefix::Root,
    sampler::Sampler,
};

/// A sequence, running or paused.
#[derive(Debug)]
pub(crate) struct Sequence {
    pub(crate) request: RequestId,
    /// What is added beside the model for its rows.
    pub(crate) adaptation: Option<Arc<Adaptation>>,
    /// Order of admission: the older one keeps its pages when there are too few.
    pub(crate) age: u64,
    pub(crate) tokens: Vec<u32>,
    pub(crate) prompt_len: usize,
    /// Tokens whose keys and values are stored.
    pub(crate) computed: usize,
    pub(crate) table: PageTable,
    /// At most so many leading tokens may come from the prefix cache: the states of the others are wanted.
    pub(crate) reusable: usize,
    /// The tokens of its answer may leave the model early.
    pub(crate) leaves: bool,
    /// Another choice of the request computes the prompt first.
    pub(crate) follows: bool,
    pub(crate) purpose: Purpose,
    /// Rows in the step being made.
    pub(crate) rows: usize,
    /// A token came of the step being made.
    pub(crate) produced: bool,
}

/// What a sequence is for.
#[derive(Debug)]
pub(crate) enum Purpose {
    /// An answer.
    Answer(Box<Generation>),
    /// One vector.
    Pool(Pool),
    /// The logits of every token.
    Logits(Vec<Vec<f32>>),
}

/// Hidden states on their way to one vector.
#[derive(Debug)]
pub(crate) struct Pool {
    pub(crate) pooling: Pooling,
    pub(crate) sum: Vec<f32>,
}

impl Pool {
    pub(crate) fn add(&mut self, hidden: &[f32]) {
        self.sum.resize(hidden.len(), 0.0);
        self.sum.iter_mut().zip(hidden).for_each(|(sum, state)| *sum += state);
    }
}

/// The state of an answer.
#[derive(Debug)]
pub(crate) struct Generation {
    pub(crate) choice: usize,
    pub(crate) answer: Answer,
    pub(crate) sampler: Sampler,
    pub(crate) control: Option<Control>,
    pub(crate) logprobs: Option<usize>,
    /// Text to send in front of the answer.
    pub(crate) echo: Option<String>,
    pub(crate) scoring: Option<Scoring>,
    pub(crate) limits: Limits,
    /// Tokens generated before a break elsewhere, until the sequence opens.
    pub(crate) resume: Vec<u32>,
    /// Send the tokens beside their text.
    pub(crate) report_tokens: bool,
    /// Tokens generated.
    pub(crate) generated: usize,
    pub(crate) finished: Option<FinishReason>,
    /// When the last token came.
    pub(crate) last_token: Option<Duration>,
}

/// Scores of the prompt's tokens, as far as they are known.
#[derive(Debug)]
pub(crate) struct Scoring {
    /// Tokens before this need no score.
    pub(crate) from: usize,
    pub(crate) scores: Vec<TokenLogprob>,
}

impl Scoring {
    /// No token gets a score; the first one never has any.
    fn is_empty(&self) -> bool {
        self.from.max(1) >= self.scores.len()
    }
}

/// What ends an answer besides its own end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// At most so many generated tokens.
    pub(crate) max_tokens: usize,
    /// The end-of-text token is a token like others.
    pub(crate) ignore_eos: bool,
}

impl Sequence {
    /// Whose keys and values it has.
    pub(crate) fn root(&self) -> Root {
        adapters::root(self.adaptation.as_ref())
    }

    pub(crate) fn adapter(&self) -> Option<&Adapter> {
        self.adaptation.as_deref().map(|adaptation| &adaptation.adapter)
    }

    /// Tokens that still have to be computed.
    pub(crate) fn pending(&self) -> usize {
        self.tokens.len() - self.computed
    }

    /// Takes up to `budget` more rows for the step being planned; returns how many. Forced tokens may have come behind those
    /// that pages were found for: they wait for the next step. Nothing is computed for an answer that is complete already.
    pub(crate) fn take_rows(&mut self, budget: usize) -> usize {
        if self.is_done() {
            return 0;
        }
        let room = self.table.capacity().min(self.tokens.len()) - self.computed;
        let taken = (room - self.rows).min(budget);
        self.rows += taken;
        taken
    }

    /// It generates, rather than reads.
    pub(crate) fn makes_answer(&self) -> bool {
        matches!(self.purpose, Purpose::Answer(_))
    }

    /// How many leading tokens go through the whole model. What is stored of the others depends on where the prompt ends, so nobody shares it: who
    /// needs it computes it again, and they leave where they left.
    pub(crate) fn whole(&self) -> usize {
        if self.leaves { self.prompt_len } else { self.tokens.len() }
    }

    /// It makes an answer by the model alone, which is what exits are calibrated for: no adapter changes it, and any token may come, not only those of
    /// a grammar.
    pub(crate) fn is_free(&self) -> bool {
        let free = matches!(&self.purpose, Purpose::Answer(generation) if generation.control.is_none());
        free && self.adaptation.is_none()
    }

    /// How many leading tokens may come from the cache: a paused answer needs the state of its last token only.
    pub(crate) fn reusable_now(&self) -> usize {
        let all = self.reusable + 1 == self.prompt_len;
        if all { self.whole().min(self.tokens.len() - 1) } else { self.reusable }
    }

    /// What is stored of it and may serve others.
    pub(crate) fn shareable(&self) -> &[u32] {
        &self.tokens[..self.computed.min(self.whole())]
    }

    /// Its prompt is computed: its rows are few and somebody waits for them.
    pub(crate) fn is_decoding(&self) -> bool {
        self.computed >= self.prompt_len
    }

    /// The hidden state of the row at `position` is wanted.
    pub(crate) fn wants(&self, position: usize) -> bool {
        let last = position + 1 == self.tokens.len();
        match &self.purpose {
            Purpose::Answer(generation) => (last && generation.wants_token()) || self.scores_after(position),
            Purpose::Pool(pool) => match pool.pooling {
                Pooling::Mean => true,
                Pooling::First => position == 0,
                Pooling::Last => last,
            },
            Purpose::Logits(_) => true,
        }
    }

    /// The row at `position` scores the prompt token behind it.
    pub(crate) fn scores_after(&self, position: usize) -> bool {
        match &self.purpose {
            Purpose::Answer(generation) => {
                let scored = generation.scoring.as_ref().is_some_and(|scoring| position + 1 >= scoring.from);
                scored && position + 1 < self.prompt_len
            }
            _ => false,
        }
    }

    /// Gives up the pages; what was computed must be found again or repeated.
    pub(crate) fn pause(&mut self) -> PageTable {
        (self.computed, self.rows) = (0, 0);
        match &mut self.purpose {
            Purpose::Pool(pool) => pool.sum.fill(0.0),
            Purpose::Logits(rows) => rows.clear(),
            Purpose::Answer(_) => {}
        }
        std::mem::take(&mut self.table)
    }

    /// What a sequence that makes no answer hands out when it is done.
    pub(crate) fn take_output(&mut self) -> Option<Output> {
        match &mut self.purpose {
            Purpose::Answer(_) => None,
            Purpose::Pool(pool) => Some(Output::Vector(std::mem::take(&mut pool.sum))),
            Purpose::Logits(rows) => Some(Output::Logits(std::mem::take(rows))),
        }
    }

    /// Nothing is left to do.
    pub(crate) fn is_done(&self) -> bool {
        match &self.purpose {
            Purpose::Answer(generation) => generation.finished.is_some(),
            Purpose::Pool(_) | Purpose::Logits(_) => self.pending() == 0,
        }
    }

    /// Sends what comes before the answer, repeats what is resumed, and appends the tokens that a grammar forces. An answer without tokens
    /// ends here if no score of the prompt is wanted either, or another choice of the request finds them.
    ///
    /// # Errors
    /// The grammar failed.
    pub(crate) fn open(&mut self, tokenizer: &Tokenizer, out: &mut Vec<Event>) -> Result<(), Error> {
        let Purpose::Answer(generation) = &mut self.purpose else { return Ok(()) };
        if generation.scoring.is_none() {
            generation.send_echo(out);
        }
        if generation.limits.max_tokens > 0 {
            generation.repeat(&mut self.tokens, tokenizer, out)?;
            generation.follow(&mut self.tokens, tokenizer, out)?;
        } else if self.follows || generation.scoring.as_ref().is_some_and(Scoring::is_empty) {
            generation.finish(FinishReason::Length, out);
        }
        Ok(())
    }

    /// Adds a chosen token and those a grammar forces behind it.
    ///
    /// # Errors
    /// The grammar failed.
    pub(crate) fn accept(
        &mut self,
        id: u32,
        score: Option<TokenLogprob>,
        tokenizer: &Tokenizer,
        out: &mut Vec<Event>,
    ) -> Result<(), Error> {
        let Purpose::Answer(generation) = &mut self.purpose else { return Ok(()) };
        self.produced = true;
        generation.accept(&mut self.tokens, Token { id, score }, tokenizer, out)?;
        generation.follow(&mut self.tokens, tokenizer, out)
    }
}

/// A chosen token and, where asked for, its score.
#[derive(Debug)]
pub(crate) struct Token {
    id: u32,
    score: Option<TokenLogprob>,
}

impl Generation {
    /// A token is to be chosen when the last row comes out.
    pub(crate) fn wants_token(&self) -> bool {
        self.finished.is_none() && self.limits.max_tokens > 0
    }

    /// The tokens that may come, if a grammar says so.
    pub(crate) fn allowed(&self) -> Option<Allowed<'_>> {
        self.control.as_ref().and_then(Control::allowed)
    }

    /// Takes the tokens of a broken stream as if they had just been chosen. They are rows to compute like those of a prompt.
    fn repeat(&mut self, tokens: &mut Vec<u32>, tokenizer: &Tokenizer, out: &mut Vec<Event>) -> Result<(), Error> {
        for id in std::mem::take(&mut self.resume) {
            if self.finished.is_some() {
                break;
            }
            self.accept(tokens, Token { id, score: None }, tokenizer, out)?;
        }
        Ok(())
    }

    /// Appends forced tokens until the grammar leaves a choice. With scores wanted, each waits for its row instead.
    fn follow(&mut self, tokens: &mut Vec<u32>, tokenizer: &Tokenizer, out: &mut Vec<Event>) -> Result<(), Error> {
        while self.finished.is_none() {
            match self.control.as_ref().map(Control::state) {
                Some(&State::Forced(id)) if self.logprobs.is_none() => {
                    self.accept(tokens, Token { id, score: None }, tokenizer, out)?;
                }
                Some(State::End) => self.finish(FinishReason::Stop, out),
                _ => return Ok(()),
            }
        }
        Ok(())
    }

    fn accept(
        &mut self,
        tokens: &mut Vec<u32>,
        token: Token,
        tokenizer: &Tokenizer,
        out: &mut Vec<Event>,
    ) -> Result<(), Error> {
        self.send_prompt(out);
        self.generated += 1;
        let honours_end = self.control.is_some() || !self.limits.ignore_eos;
        if honours_end && tokenizer.ends().contains(&token.id) {
            self.finish(FinishReason::Stop, out);
            return Ok(());
        }
        tokens.push(token.id);
        if self.report_tokens {
            out.push(Event::Tokens { choice: self.choice, ids: vec![token.id] });
        }
        self.sampler.note(token.id);
        if let Some(control) = &mut self.control {
            control.commit(token.id)?;
        }
        if let Some(stop) = self.answer.push(tokenizer, token.id, token.score, out) {
            self.finish(FinishReason::StopString(stop), out);
        } else if self.generated >= self.limits.max_tokens {
            let complete = self.control.as_ref().is_some_and(|control| *control.state() == State::End);
            self.finish(if complete { FinishReason::Stop } else { FinishReason::Length }, out);
        }
        Ok(())
    }

    /// Ends the answer: whatever text was held back goes out.
    pub(crate) fn finish(&mut self, reason: FinishReason, out: &mut Vec<Event>) {
        self.send_prompt(out);
        let called = self.answer.finish(out);
        let whole = matches!(reason, FinishReason::Stop | FinishReason::StopString(_));
        let reason = if called && whole { FinishReason::ToolCalls } else { reason };
        out.push(Event::Finished { choice: self.choice, reason });
        self.finished = Some(reason);
    }

    /// Sends the scores of the prompt once they are complete, then its text.
    pub(crate) fn send_prompt(&mut self, out: &mut Vec<Event>) {
        if let Some(scoring) = self.scoring.take() {
            out.push(Event::PromptLogprobs(scoring.scores));
        }
        self.send_echo(out);
    }

    fn send_echo(&mut self, out: &mut Vec<Event>) {
        if let Some(text) = self.echo.take() {
            out.push(Event::Text { choice: self.choice, text, logprobs: Vec::new() });
        }
    }
}
