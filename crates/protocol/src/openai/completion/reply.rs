//! Events as completion bodies and chunks. Both have one form; a chunk holds one choice.
//!
//! Choices of several prompts are numbered `prompt * n + choice`. With `echo` the service sends the prompt's scores once
//! and then its text as the first text of every choice; the scores are kept until then, so that offsets can follow the
//! text.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    Error, Event, FinishReason, TokenLogprob, Usage,
    openai::{
        Call, Chunk, Collected, CompletionLogprobs, Envelope, ErrorBody, Streamed, UsageBody, reply::finish_reason,
    },
};

/// A body, or a chunk of a stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Completion {
    /// The reply's id.
    pub id: String,
    /// Always `text_completion`.
    pub object: String,
    /// Seconds since 1970.
    pub created: u64,
    /// The model that answers.
    pub model: String,
    /// Which software answers.
    pub system_fingerprint: String,
    /// The answers, or in a chunk one piece of one.
    pub choices: Vec<CompletionChoice>,
    /// The cost; in chunks `null` until the last.
    pub usage: Option<UsageBody>,
}

/// An answer, or a piece of one.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct CompletionChoice {
    /// The text.
    pub text: String,
    /// Which answer.
    pub index: usize,
    /// Scores, if asked for.
    pub logprobs: Option<CompletionLogprobs>,
    /// Why it ended, once it has.
    pub finish_reason: Option<String>,
}

/// What is known of the answers so far; both ways of delivery are made of its pieces.
#[derive(Debug)]
struct Answers {
    envelope: Envelope,
    n: usize,
    scored: bool,
    usage: Usage,
    places: Vec<Place>,
}

/// Where an answer's text stands.
#[derive(Debug, Clone, Default)]
struct Place {
    /// Scores of the prompt that wait for its text.
    waiting: Vec<TokenLogprob>,
    /// Where the next token begins, in characters.
    offset: usize,
    /// The bytes of a character that the tokens so far began.
    partial: Vec<u8>,
}

impl Answers {
    fn new(envelope: Envelope, call: &Call) -> Self {
        let n = call.n();
        let scored = call.requests.iter().any(|r| r.logprobs.is_some());
        let places = vec![Place::default(); call.requests.len() * n];
        Self { envelope, n, scored, usage: Usage::NOTHING, places }
    }

    /// The piece of an answer this event is, if any.
    fn piece(&mut self, prompt: usize, event: Event) -> Option<CompletionChoice> {
        match event {
            Event::PromptLogprobs(scores) => {
                let first = prompt * self.n;
                self.places.iter_mut().skip(first).take(self.n).for_each(|place| place.waiting.clone_from(&scores));
                None
            }
            Event::Text { choice, text, logprobs } => self.text(prompt * self.n + choice, text, &logprobs),
            Event::Finished { choice, reason } => Some(self.end(prompt * self.n + choice, reason)),
            Event::Done(usage) => {
                self.usage.add(usage);
                None
            }
            Event::Routed(hop) => {
                if let Some(model) = hop.answers_as() {
                    model.clone_into(&mut self.envelope.model);
                }
                None
            }
            // A raw prompt has no tools; admission says nothing on this wire.
            Event::Started { .. }
            | Event::ToolCall { .. }
            | Event::Tokens { .. }
            | Event::Checked(_)
            | Event::Worked(_)
            | Event::Held { .. } => None,
        }
    }

    fn text(&mut self, index: usize, text: String, logprobs: &[TokenLogprob]) -> Option<CompletionChoice> {
        let logprobs = self.scores(index, &text, logprobs);
        let silent = text.is_empty() && logprobs.as_ref().is_none_or(|l| l.tokens.is_empty());
        (!silent).then_some(CompletionChoice { text, index, logprobs, finish_reason: None })
    }

    fn end(&mut self, index: usize, reason: FinishReason) -> CompletionChoice {
        let logprobs = self.scores(index, "", &[]);
        let finish_reason = Some(finish_reason(reason).to_owned());
        CompletionChoice { text: String::new(), index, logprobs, finish_reason }
    }

    /// These scores after those that waited for `text`, with their offsets.
    fn scores(&mut self, index: usize, text: &str, new: &[TokenLogprob]) -> Option<CompletionLogprobs> {
        let place = self.places.get_mut(index).filter(|_| self.scored)?;
        let mut scores = CompletionLogprobs::default();
        let mut rest = text.as_bytes();
        for token in std::mem::take(&mut place.waiting) {
            scores.push(&token, place.offset);
            // Tokens that the text does not show (a beginning of text, say) take no room in it.
            if let Some(after) = past(rest, &token.bytes) {
                place.advance(&rest[..rest.len() - after.len()]);
                rest = after;
            }
        }
        for token in new {
            scores.push(token, place.offset);
            place.advance(&token.bytes);
        }
        Some(scores)
    }

    fn frame(&self, choices: Vec<CompletionChoice>, usage: Option<UsageBody>) -> Completion {
        let Envelope { id, created, model, system_fingerprint } = self.envelope.clone();
        Completion { id, object: "text_completion".to_owned(), created, model, system_fingerprint, choices, usage }
    }
}

impl Place {
    /// Moves past the whole characters that `bytes` complete.
    fn advance(&mut self, bytes: &[u8]) {
        self.partial.extend_from_slice(bytes);
        let whole = match std::str::from_utf8(&self.partial) {
            Ok(text) => text.len(),
            // An incomplete character waits; a broken one counts as what it is shown as.
            Err(error) => error.error_len().map_or(error.valid_up_to(), |_| self.partial.len()),
        };
        self.offset += String::from_utf8_lossy(&self.partial[..whole]).chars().count();
        self.partial.drain(..whole);
    }
}

/// What of `text` follows `token`; some tokenizers begin a text with a space that it does not have.
fn past<'a>(text: &'a [u8], token: &[u8]) -> Option<&'a [u8]> {
    text.strip_prefix(token).or_else(|| text.strip_prefix(token.trim_ascii_start()))
}

/// A completion as chunks.
#[derive(Debug)]
pub struct Stream {
    answers: Answers,
    include_usage: bool,
}

impl Stream {
    /// A stream for the answers to `call`.
    pub fn new(envelope: Envelope, call: &Call) -> Self {
        Self { answers: Answers::new(envelope, call), include_usage: call.include_usage }
    }
}

impl Chunk for Completion {}

impl Streamed for Stream {
    type Chunk = Completion;
    type Failure = ErrorBody;

    const END: Option<&'static str> = Some("[DONE]");

    fn push(&mut self, prompt: usize, event: Event) -> Vec<Completion> {
        let piece = self.answers.piece(prompt, event);
        piece.map(|piece| self.answers.frame(vec![piece], None)).into_iter().collect()
    }

    fn finish(&mut self) -> Option<Completion> {
        self.include_usage.then(|| self.answers.frame(Vec::new(), Some(self.answers.usage.into())))
    }

    fn fail(&mut self, error: &Error) -> ErrorBody {
        error.into()
    }
}

/// A completion as one body.
#[derive(Debug)]
pub struct Collector {
    answers: Answers,
    choices: Vec<CompletionChoice>,
}

impl Collector {
    /// A body for the answers to `call`.
    pub fn new(envelope: Envelope, call: &Call) -> Self {
        let answers = Answers::new(envelope, call);
        let empty = |index| CompletionChoice { index, ..CompletionChoice::default() };
        let choices = (0..answers.places.len()).map(empty).collect();
        Self { answers, choices }
    }
}

impl Collected for Collector {
    type Body = Completion;

    fn push(&mut self, prompt: usize, event: Event) {
        let Some(piece) = self.answers.piece(prompt, event) else { return };
        if let Some(choice) = self.choices.get_mut(piece.index) {
            choice.append(piece);
        }
    }

    fn finish(self) -> Completion {
        let usage = Some(self.answers.usage.into());
        self.answers.frame(self.choices, usage)
    }
}

impl CompletionChoice {
    fn append(&mut self, piece: Self) {
        self.text.push_str(&piece.text);
        self.finish_reason = piece.finish_reason.or(self.finish_reason.take());
        if let Some(more) = piece.logprobs {
            let scores = self.logprobs.get_or_insert_default();
            scores.tokens.extend(more.tokens);
            scores.token_logprobs.extend(more.token_logprobs);
            scores.top_logprobs.extend(more.top_logprobs);
            scores.text_offset.extend(more.text_offset);
        }
    }
}
