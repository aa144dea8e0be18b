//! Requests for text and the events that answer them.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Error, ErrorKind, Hop};

/// A request for one or more continuations of a prompt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GenerateRequest {
    /// The caller's id for this request; appears in events' logs and in the audit.
    pub id: String,
    /// Which model; empty means the default one.
    pub model: String,
    /// What to continue.
    pub prompt: Prompt,
    /// How the next token is chosen.
    pub sampling: Sampling,
    /// When to stop.
    pub stop: Stop,
    /// What the answer must look like.
    pub format: Format,
    /// How many answers (choices), at least 1. They share the prompt's work.
    pub n: usize,
    /// Log-probabilities wanted for the generated tokens: `Some(k)` gives the chosen one and the `k` best.
    pub logprobs: Option<usize>,
    /// Return the prompt in front of the answer; with `logprobs` also score it token by token.
    pub echo: bool,
    /// With `echo` and `logprobs`: prompt tokens before this index may come without a score, so that a shared context can come
    /// from the prefix cache. 0 scores all that have a score.
    pub score_from: usize,
    /// Give up after this long, measured from admission.
    pub deadline: Option<Duration>,
    /// Tenant for fair queueing: tenants with waiting work take turns.
    pub tenant: String,
    /// Who asks, for choices that must stay the same for the same one: an end user, a key; empty where nobody is known.
    #[serde(default)]
    pub unit: String,
    /// Tokens that an earlier, broken stream of the same request already generated, one list per choice (empty: from the
    /// start). They count as generated: the answer goes on behind them as it would have there, and their text is sent
    /// again from the start, so that whoever resumes drops what was delivered.
    pub resume: Vec<Vec<u32>>,
    /// Send [`Event::Tokens`], so that the stream can be resumed elsewhere.
    pub report_tokens: bool,
    /// Send [`Event::Worked`], for whoever may give the answer up before its end.
    #[serde(default)]
    pub report_work: bool,
}

impl GenerateRequest {
    /// A request with neutral settings: one greedy-free, unconstrained answer of at most `max_tokens`.
    pub fn new(prompt: Prompt, max_tokens: usize) -> Self {
        Self {
            id: String::new(),
            model: String::new(),
            prompt,
            sampling: Sampling::default(),
            stop: Stop { max_tokens: Some(max_tokens), ..Stop::default() },
            format: Format::Text,
            n: 1,
            logprobs: None,
            echo: false,
            score_from: 0,
            deadline: None,
            tenant: String::new(),
            unit: String::new(),
            resume: Vec::new(),
            report_tokens: false,
            report_work: false,
        }
    }
}

/// Text, or the ids it was already made into.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TextOrTokens {
    /// Text of a user: special tokens in it are ordinary characters.
    Text(String),
    /// Token ids of this model's vocabulary.
    Tokens(Vec<u32>),
}

/// What to continue.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Prompt {
    /// Raw text or tokens, no template.
    Raw(TextOrTokens),
    /// A conversation, laid out by the model's chat template.
    Chat(Chat),
}

/// A conversation and the tools the model may call in it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Chat {
    /// The turns so far.
    pub messages: Vec<Message>,
    /// Functions the model may call.
    pub tools: Vec<Tool>,
    /// Whether it may, must or must not call one.
    pub tool_choice: ToolChoice,
    /// Several calls in one answer are allowed.
    pub parallel_tool_calls: bool,
    /// Further variables for the template, such as `enable_thinking`.
    pub template_args: BTreeMap<String, Value>,
    /// The last turn, an assistant's, is the beginning of the answer, which goes on right behind its text.
    #[serde(default)]
    pub continue_last: bool,
}

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `developer`, `user`, `assistant` or `tool`.
    pub role: String,
    /// The text; several text parts are joined. `None` for an assistant turn that only calls tools.
    pub content: Option<String>,
    /// Who speaks, where the caller says so.
    pub name: Option<String>,
    /// Calls made by the assistant in this turn.
    pub tool_calls: Vec<ToolCall>,
    /// For role `tool`: the call this answers.
    pub tool_call_id: Option<String>,
}

/// A function the model may call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// What it does, for the model to read.
    pub description: Option<String>,
    /// JSON schema of its arguments; `None` means no arguments.
    pub parameters: Option<Value>,
    /// Arguments must follow the schema even when the call itself was the model's choice.
    pub strict: bool,
}

/// Whether tools are called.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum ToolChoice {
    /// The model decides.
    #[default]
    Auto,
    /// Never.
    None,
    /// At least one call, of any tool.
    Required,
    /// A call of this tool.
    Named(String),
}

/// A call the model made.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ToolCall {
    /// Unique within the conversation.
    pub id: String,
    /// The tool's name.
    pub name: String,
    /// JSON text of the arguments.
    pub arguments: String,
}

/// How the next token is chosen. The order is: penalties and bias, then temperature, then the top-k, top-p and min-p cuts, then
/// a draw by Gumbel-max whose noise is a pure function of (seed, position, token id).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sampling {
    /// 0 is greedy.
    pub temperature: f32,
    /// Keep the k most likely; 0 keeps all.
    pub top_k: usize,
    /// Keep the smallest set with this much probability; 1 keeps all.
    pub top_p: f32,
    /// Drop tokens less likely than this share of the most likely one; 0 drops none.
    pub min_p: f32,
    /// Subtracted once from the logit of every token that the answer so far contains.
    pub presence_penalty: f32,
    /// Subtracted per occurrence in the answer so far.
    pub frequency_penalty: f32,
    /// Divides positive (multiplies negative) logits of tokens seen in prompt or answer; 1 is off.
    pub repetition_penalty: f32,
    /// Added to the logits of these tokens; -100 and below bans, +100 and above forces.
    pub logit_bias: BTreeMap<u32, f32>,
    /// The same seed gives the same answer, whatever else runs. `None` draws one.
    pub seed: Option<u64>,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            repetition_penalty: 1.0,
            logit_bias: BTreeMap::new(),
            seed: None,
        }
    }
}

/// When an answer ends.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Stop {
    /// At most so many generated tokens; `None` is as many as the context holds.
    pub max_tokens: Option<usize>,
    /// Strings that end the answer and are not part of it.
    pub strings: Vec<String>,
    /// Generate past the end-of-text token (for measuring).
    pub ignore_eos: bool,
}

/// What the answer must look like.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub enum Format {
    /// Anything.
    #[default]
    Text,
    /// Any JSON object.
    JsonObject,
    /// JSON valid under this schema.
    JsonSchema(Value),
    /// Text that this regular expression matches whole.
    Regex(String),
    /// Text of this Lark grammar.
    Lark(String),
}

/// What a generation sends, in order. `choice` counts from 0 to `n - 1`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Event {
    /// The request was admitted and its prompt laid out.
    Started {
        /// Tokens of the prompt.
        prompt_tokens: usize,
        /// Of these, how many were found in the prefix cache.
        cached_tokens: usize,
    },
    /// Scores of the prompt (`echo` with `logprobs`), once, before any text. The first token has no score.
    PromptLogprobs(Vec<TokenLogprob>),
    /// More of an answer. `text` may be empty when tokens so far are an incomplete character or could begin a stop string.
    Text {
        /// Which answer.
        choice: usize,
        /// What to append.
        text: String,
        /// Scores of the tokens that became final with this event, if asked for.
        logprobs: Vec<TokenLogprob>,
    },
    /// More of a tool call. The first delta of an `index` carries id and name.
    ToolCall {
        /// Which answer.
        choice: usize,
        /// Which call in it, from 0.
        index: usize,
        /// The call's id, in its first delta.
        id: Option<String>,
        /// The tool's name, in its first delta.
        name: Option<String>,
        /// What to append to the arguments.
        arguments: String,
    },
    /// Tokens that the answer grew by, if [`GenerateRequest::report_tokens`] asks for them; always ahead of their text.
    Tokens {
        /// Which answer.
        choice: usize,
        /// Their ids.
        ids: Vec<u32>,
    },
    /// Microseconds of processor time that the request took so far, if [`GenerateRequest::report_work`] asks for it: ahead of what
    /// the work gave, the first one even of [`Event::Started`]. [`Event::Done`] has the last word.
    Worked(u64),
    /// What a check of the request or of an answer found. Whoever watches the stream records it.
    Checked(Finding),
    /// Where the request went, and why. Whoever watches the stream records it.
    Routed(Box<Hop>),
    /// A guard had the request, or what is ready of an answer, for so long. Whoever watches the stream takes it into account.
    Held {
        /// Which answer; `None` is the request.
        choice: Option<usize>,
        /// For how long.
        time: Duration,
    },
    /// An answer is complete.
    Finished {
        /// Which answer.
        choice: usize,
        /// Why it ended.
        reason: FinishReason,
    },
    /// All answers are complete; the stream ends here.
    Done(Usage),
}

impl Event {
    /// It is about the answer and no part of it: for records, not for callers.
    pub fn is_note(&self) -> bool {
        matches!(self, Self::Worked(_) | Self::Checked(_) | Self::Routed(_) | Self::Held { .. })
    }
}

/// What a check found. It names places, never contents: it goes into logs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Which answer it is about; `None` is the request.
    pub choice: Option<usize>,
    /// What was checked, such as `schema`, or the rule of a policy, such as `personal.email`.
    pub rule: String,
    /// What came of it.
    pub outcome: Outcome,
    /// Where, or why.
    pub detail: String,
}

/// What came of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It holds.
    Passed,
    /// It does not hold; the answer was delivered all the same.
    Failed,
    /// Something was found and left as it is.
    Noted,
    /// Something was found and replaced.
    Masked,
    /// Something was found, and the request or the answer ended there.
    Blocked,
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum FinishReason {
    /// The model ended it, or a stop string of which nobody says which one.
    Stop,
    /// The stop string of this index in [`Stop::strings`] ended it.
    StopString(usize),
    /// The token limit cut it. A constrained answer cut so is not complete.
    Length,
    /// It ended in tool calls.
    ToolCalls,
    /// A policy cut it.
    ContentFilter,
}

/// A token with its log-probability (natural logarithm, of the model's distribution before temperature and cuts).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TokenLogprob {
    /// The token's id.
    pub id: u32,
    /// Its bytes; not always valid UTF-8 by themselves.
    pub bytes: Vec<u8>,
    /// `None` for the first token of a scored prompt.
    pub logprob: Option<f32>,
    /// The most likely tokens at this place, best first: id, bytes, log-probability.
    pub top: Vec<(u32, Vec<u8>, f32)>,
}

impl TokenLogprob {
    /// The id where nobody says it: OpenAI's wire has texts only.
    pub const UNKNOWN: u32 = u32::MAX;
}

/// What a request cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Usage {
    /// Tokens of the prompt, counted once whatever `n` is.
    pub prompt_tokens: usize,
    /// Of these, found in the prefix cache.
    pub cached_tokens: usize,
    /// Tokens generated over all answers.
    pub completion_tokens: usize,
    /// Microseconds of processor time: what a model's steps took of all threads, shared out by the rows of each step. `None` where
    /// somebody who worked on it does not tell. What is around the steps (text, HTTP) is not in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processor_micros: Option<u64>,
}

/// The most calls in one answer. Nobody asks for more, and whoever sends more wears the reader out.
pub const MOST_CALLS: usize = 128;

/// The error of an answer with more than [`MOST_CALLS`].
pub fn too_many_calls() -> Error {
    Error::new(ErrorKind::Upstream, format!("The upstream made more than {MOST_CALLS} calls in one answer."))
}

impl Usage {
    /// What no work costs: where sums begin. It is known to have taken no time, unlike [`Usage::default`].
    pub const NOTHING: Self =
        Self { prompt_tokens: 0, cached_tokens: 0, completion_tokens: 0, processor_micros: Some(0) };

    /// The most tokens, or microseconds, that anybody is believed to have counted in one request. Far above every context, and so far below the largest
    /// number that sums over requests hold.
    pub const MOST: usize = 1 << 40;

    /// What another server says a request cost, as far as that can be true: no more than [`Usage::MOST`], no more found in a cache than
    /// there was, and something where at least `delivered` tokens came.
    #[must_use]
    pub fn plausible(self, delivered: usize) -> Self {
        let prompt_tokens = self.prompt_tokens.min(Self::MOST);
        let completion_tokens = match self.completion_tokens {
            0 => delivered,
            said => said.min(Self::MOST.max(delivered)),
        };
        let processor_micros = self.processor_micros.map(|micros| micros.min(Self::MOST as u64));
        Self {
            prompt_tokens,
            cached_tokens: self.cached_tokens.min(prompt_tokens),
            completion_tokens,
            processor_micros,
        }
    }

    /// Counts another request in.
    pub fn add(&mut self, other: Self) {
        self.prompt_tokens = self.prompt_tokens.saturating_add(other.prompt_tokens);
        self.cached_tokens = self.cached_tokens.saturating_add(other.cached_tokens);
        self.completion_tokens = self.completion_tokens.saturating_add(other.completion_tokens);
        self.work(other.processor_micros);
    }

    /// Counts the processor time of somebody else's work in; without it the whole is not known either.
    pub fn work(&mut self, micros: Option<u64>) {
        self.processor_micros = self.processor_micros.zip(micros).map(|(mine, other)| mine.saturating_add(other));
    }

    /// Tokens read and written.
    pub fn total(&self) -> usize {
        self.prompt_tokens.saturating_add(self.completion_tokens)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_count_is_believed_within_reason() {
        let usage = |(prompt_tokens, cached_tokens, completion_tokens)| Usage {
            prompt_tokens,
            cached_tokens,
            completion_tokens,
            ..Usage::default()
        };
        let check =
            |said, delivered, expected| assert_eq!(usage(said).plausible(delivered), usage(expected), "{said:?}");
        check((3, 1, 2), 5, (3, 1, 2));
        check((3, 9, 0), 5, (3, 3, 5));
        check((usize::MAX, usize::MAX, usize::MAX), 1, (Usage::MOST, Usage::MOST, Usage::MOST));
        let mut sum = usage((usize::MAX, 1, usize::MAX));
        sum.add(usage((1, 1, 1)));
        assert_eq!((sum, sum.total()), (usage((usize::MAX, 2, usize::MAX)), usize::MAX));
    }

    #[test]
    fn a_time_is_known_where_all_parts_are() {
        let took = |processor_micros| Usage { processor_micros, ..Usage::default() };
        let check = |parts: &[Option<u64>], whole| {
            let mut sum = Usage::NOTHING;
            parts.iter().for_each(|part| sum.add(took(*part)));
            assert_eq!(sum.processor_micros, whole, "{parts:?}");
        };
        check(&[], Some(0));
        check(&[Some(2), Some(3)], Some(5));
        check(&[Some(2), None, Some(3)], None);
        assert_eq!(took(Some(u64::MAX)).plausible(0).processor_micros, Some(Usage::MOST as u64));
        let old: Usage =
            serde_json::from_str(r#"{"prompt_tokens":1,"cached_tokens":0,"completion_tokens":2}"#).unwrap();
        assert_eq!(old.processor_micros, None, "records and workers from before");
        assert!(!serde_json::to_string(&old).unwrap().contains("micros"));
    }
}
