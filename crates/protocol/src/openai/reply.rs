//! What chat and text completions share on the way out: the frame around every body and chunk, the usage, and the two
//! ways to deliver events.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ErrorBody;
use crate::{Error, Event, FinishReason, Usage};

/// What every body and chunk of one reply repeats.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Envelope {
    /// The reply's id.
    pub id: String,
    /// Seconds since 1970 when the request came.
    pub created: u64,
    /// The model that answers.
    pub model: String,
    /// Which software answers: with the same fingerprint and seed the answer is the same.
    pub system_fingerprint: String,
}

/// `usage`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct UsageBody {
    /// Tokens of the prompts.
    pub prompt_tokens: usize,
    /// Tokens generated.
    pub completion_tokens: usize,
    /// Both together.
    pub total_tokens: usize,
    /// How much of the prompts was cheap.
    pub prompt_tokens_details: PromptTokensDetails,
    /// Ours: microseconds of processor time that the model's steps took; absent where somebody who worked on the answer does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processor_micros: Option<u64>,
}

/// A share of the prompt tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct PromptTokensDetails {
    /// Found in the prefix cache.
    pub cached_tokens: usize,
}

impl From<Usage> for UsageBody {
    fn from(usage: Usage) -> Self {
        Self {
            prompt_tokens: usage.prompt_tokens,
            completion_tokens: usage.completion_tokens,
            total_tokens: usage.total(),
            prompt_tokens_details: PromptTokensDetails { cached_tokens: usage.cached_tokens },
            processor_micros: usage.processor_micros,
        }
    }
}

/// The wire's word for the end of an answer.
pub(super) fn finish_reason(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop | FinishReason::StopString(_) => "stop",
        FinishReason::Length => "length",
        FinishReason::ToolCalls => "tool_calls",
        FinishReason::ContentFilter => "content_filter",
    }
}

/// What is sent as one server-sent event. Some wires give their events names, others send data only.
pub trait Chunk: Serialize + Send {
    /// The event's name.
    fn name(&self) -> Option<&'static str> {
        None
    }
}

impl Chunk for ErrorBody {}

/// A reply as chunks: events in, the chunks to send now out.
pub trait Streamed: Send {
    /// What is sent.
    type Chunk: Chunk;
    /// What a failure in the middle is sent as.
    type Failure: Chunk;

    /// What follows the last chunk of a stream that went well, on wires that have such a mark.
    const END: Option<&'static str>;

    /// The chunks for an event of the call's `prompt`-th request; most events give one, some none.
    fn push(&mut self, prompt: usize, event: Event) -> Vec<Self::Chunk>;

    /// After the last event: the chunk with the usage, if it was asked for.
    fn finish(&mut self) -> Option<Self::Chunk>;

    /// The last thing sent when the events end in an error.
    fn fail(&mut self, error: &Error) -> Self::Failure;
}

/// A reply as one body: events in, the body out at the end.
pub trait Collected: Send {
    /// What is sent.
    type Body: Serialize + Send;

    /// Takes an event of the call's `prompt`-th request in.
    fn push(&mut self, prompt: usize, event: Event);

    /// The whole reply.
    fn finish(self) -> Self::Body;
}
