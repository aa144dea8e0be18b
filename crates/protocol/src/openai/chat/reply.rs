//! Events as chat bodies and chunks.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::message::ToolCallBody;
use crate::{
    Error, Event, TokenLogprob, ToolCall,
    openai::{
        Call, ChatLogprob, ChatLogprobs, Chunk, Collected, Envelope, ErrorBody, Streamed, UsageBody,
        reply::finish_reason,
    },
};

/// The whole reply.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ChatCompletion {
    /// The reply's id.
    pub id: String,
    /// Always `chat.completion`.
    pub object: String,
    /// Seconds since 1970.
    pub created: u64,
    /// The model that answered.
    pub model: String,
    /// Which software answered.
    pub system_fingerprint: String,
    /// The answers.
    pub choices: Vec<ChatChoice>,
    /// The cost.
    pub usage: UsageBody,
    /// `default`, when the request named a tier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_tier: Option<String>,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct ChatChoice {
    /// Which answer.
    pub index: usize,
    /// The answer.
    pub message: AnswerMessage,
    /// Scores, if asked for.
    pub logprobs: Option<ChatLogprobs>,
    /// Why it ended.
    pub finish_reason: Option<String>,
}

/// The assistant's turn.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct AnswerMessage {
    /// Always `assistant`.
    pub role: String,
    /// The text; `null` when there are only calls.
    pub content: Option<String>,
    /// Always `null`: a refusal is content here.
    pub refusal: Option<String>,
    /// Calls of tools.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCallBody>,
}

/// A piece of the reply.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ChatChunk {
    /// The reply's id.
    pub id: String,
    /// Always `chat.completion.chunk`.
    pub object: String,
    /// Seconds since 1970.
    pub created: u64,
    /// The model that answers.
    pub model: String,
    /// Which software answers.
    pub system_fingerprint: String,
    /// One piece of one answer; none in the chunk with the usage.
    pub choices: Vec<ChunkChoice>,
    /// The cost, in the last chunk if asked for.
    pub usage: Option<UsageBody>,
    /// `default`, when the request named a tier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_tier: Option<String>,
}

/// A piece of an answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ChunkChoice {
    /// Which answer.
    pub index: usize,
    /// What is new.
    pub delta: Delta,
    /// Scores, if asked for.
    pub logprobs: Option<ChatLogprobs>,
    /// Why it ended, once it has.
    pub finish_reason: Option<String>,
}

/// What is new in an answer.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Delta {
    /// `assistant`, in an answer's first delta.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// More text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// More of a call.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCallDelta>,
}

/// More of a call. Its first delta has everything but the whole arguments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ToolCallDelta {
    /// Which call.
    pub index: usize,
    /// The call's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// `function`.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// What is called.
    pub function: FunctionDelta,
}

/// More of a function call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FunctionDelta {
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// More of its arguments.
    pub arguments: String,
}

/// The word for the one tier there is, for callers that named one.
fn service_tier(call: &Call) -> Option<String> {
    call.recorded.contains_key("service_tier").then(|| "default".to_owned())
}

/// A chat as chunks.
#[derive(Debug)]
pub struct Stream {
    envelope: Envelope,
    service_tier: Option<String>,
    scored: bool,
    include_usage: bool,
    usage: UsageBody,
    begun: Vec<bool>,
}

impl Stream {
    /// A stream for the answers to `call`.
    pub fn new(envelope: Envelope, call: &Call) -> Self {
        Self {
            envelope,
            service_tier: service_tier(call),
            scored: call.requests.iter().any(|request| request.logprobs.is_some()),
            include_usage: call.include_usage,
            usage: UsageBody::default(),
            begun: vec![false; call.n()],
        }
    }

    fn chunk(&self, choices: Vec<ChunkChoice>, usage: Option<UsageBody>) -> ChatChunk {
        let Envelope { id, created, model, system_fingerprint } = self.envelope.clone();
        let (object, service_tier) = ("chat.completion.chunk".to_owned(), self.service_tier.clone());
        ChatChunk { id, object, created, model, system_fingerprint, choices, usage, service_tier }
    }

    /// The first delta of an answer says who speaks; its content is empty text unless the answer begins with a call.
    fn opening(&mut self, index: usize, content: Option<&str>) -> Option<ChatChunk> {
        let begun = self.begun.get_mut(index)?;
        if std::mem::replace(begun, true) {
            return None;
        }
        let role = Some("assistant".to_owned());
        let delta = Delta { role, content: content.map(str::to_owned), tool_calls: Vec::new() };
        Some(self.chunk(vec![ChunkChoice { index, delta, logprobs: None, finish_reason: None }], None))
    }

    fn piece(&mut self, piece: ChunkChoice) -> Vec<ChatChunk> {
        let content = piece.delta.tool_calls.is_empty().then_some("");
        let opening = self.opening(piece.index, content);
        opening.into_iter().chain([self.chunk(vec![piece], None)]).collect()
    }
}

impl Chunk for ChatChunk {}

impl Streamed for Stream {
    type Chunk = ChatChunk;
    type Failure = ErrorBody;

    const END: Option<&'static str> = Some("[DONE]");

    fn push(&mut self, _prompt: usize, event: Event) -> Vec<ChatChunk> {
        match event {
            Event::Text { text, logprobs, .. } if text.is_empty() && (logprobs.is_empty() || !self.scored) => {
                Vec::new()
            }
            Event::Text { choice, text, logprobs } => {
                let logprobs = self.scored.then(|| logprobs.into());
                let delta = Delta { content: Some(text), ..Delta::default() };
                self.piece(ChunkChoice { index: choice, delta, logprobs, finish_reason: None })
            }
            Event::ToolCall { choice, index, id, name, arguments } => {
                let kind = id.is_some().then(|| "function".to_owned());
                let call = ToolCallDelta { index, id, kind, function: FunctionDelta { name, arguments } };
                let delta = Delta { tool_calls: vec![call], ..Delta::default() };
                self.piece(ChunkChoice { index: choice, delta, logprobs: None, finish_reason: None })
            }
            Event::Finished { choice, reason } => {
                let finish_reason = Some(finish_reason(reason).to_owned());
                self.piece(ChunkChoice { index: choice, delta: Delta::default(), logprobs: None, finish_reason })
            }
            Event::Done(usage) => {
                self.usage = usage.into();
                Vec::new()
            }
            Event::Routed(hop) => {
                if let Some(model) = hop.answers_as() {
                    model.clone_into(&mut self.envelope.model);
                }
                Vec::new()
            }
            Event::Started { .. }
            | Event::PromptLogprobs(_)
            | Event::Tokens { .. }
            | Event::Checked(_)
            | Event::Worked(_)
            | Event::Held { .. } => Vec::new(),
        }
    }

    fn finish(&mut self) -> Option<ChatChunk> {
        self.include_usage.then(|| self.chunk(Vec::new(), Some(self.usage)))
    }

    fn fail(&mut self, error: &Error) -> ErrorBody {
        error.into()
    }
}

/// A chat as one body.
#[derive(Debug)]
pub struct Collector {
    body: ChatCompletion,
}

impl Collector {
    /// A body for the answers to `call`.
    pub fn new(envelope: Envelope, call: &Call) -> Self {
        let scored = call.requests.iter().any(|request| request.logprobs.is_some());
        let Envelope { id, created, model, system_fingerprint } = envelope;
        let body = ChatCompletion {
            id,
            object: "chat.completion".to_owned(),
            created,
            model,
            system_fingerprint,
            choices: (0..call.n()).map(|index| ChatChoice::new(index, scored)).collect(),
            usage: UsageBody::default(),
            service_tier: service_tier(call),
        };
        Self { body }
    }

    fn choice(&mut self, choice: usize) -> Option<&mut ChatChoice> {
        self.body.choices.get_mut(choice)
    }
}

impl ChatChoice {
    fn new(index: usize, scored: bool) -> Self {
        let message = AnswerMessage { role: "assistant".to_owned(), ..AnswerMessage::default() };
        let logprobs = scored.then(|| Vec::new().into());
        Self { index, message, logprobs, finish_reason: None }
    }

    fn text(&mut self, text: &str, scores: Vec<TokenLogprob>) {
        if !text.is_empty() {
            self.message.content.get_or_insert_default().push_str(text);
        }
        if let Some(logprobs) = &mut self.logprobs {
            logprobs.content.extend(scores.into_iter().map(ChatLogprob::from));
        }
    }

    /// Adds to the `index`-th call, which may be its first piece.
    fn call(&mut self, index: usize, piece: ToolCall) {
        let calls = &mut self.message.tool_calls;
        match calls.get_mut(index) {
            Some(call) => call.function.arguments.push_str(&piece.arguments),
            None => calls.push(piece.into()),
        }
    }
}

impl Collected for Collector {
    type Body = ChatCompletion;

    fn push(&mut self, _prompt: usize, event: Event) {
        match event {
            Event::Text { choice, text, logprobs } => {
                if let Some(c) = self.choice(choice) {
                    c.text(&text, logprobs);
                }
            }
            Event::ToolCall { choice, index, id, name, arguments } => {
                let piece = ToolCall { id: id.unwrap_or_default(), name: name.unwrap_or_default(), arguments };
                if let Some(c) = self.choice(choice) {
                    c.call(index, piece);
                }
            }
            Event::Finished { choice, reason } => {
                if let Some(c) = self.choice(choice) {
                    c.finish_reason = Some(finish_reason(reason).to_owned());
                }
            }
            Event::Done(usage) => self.body.usage = usage.into(),
            Event::Routed(hop) => {
                if let Some(model) = hop.answers_as() {
                    model.clone_into(&mut self.body.model);
                }
            }
            Event::Started { .. }
            | Event::PromptLogprobs(_)
            | Event::Tokens { .. }
            | Event::Checked(_)
            | Event::Worked(_)
            | Event::Held { .. } => {}
        }
    }

    /// An answer without calls has text, even if it is empty.
    fn finish(mut self) -> ChatCompletion {
        for choice in &mut self.body.choices {
            let message = &mut choice.message;
            if message.tool_calls.is_empty() {
                message.content.get_or_insert_default();
            }
        }
        self.body
    }
}
