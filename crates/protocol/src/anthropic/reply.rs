//! Plain events as a message, whole or in stream events.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    content::Block,
    error::{ErrorBody, ErrorDetail},
};
use crate::{
    Error, Event, FinishReason, ToolCall, Usage,
    openai::{Call, Chunk, Collected, Envelope, Streamed},
};

/// The whole reply, or its beginning in a stream.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "MessagesReply")]
#[serde(default)]
pub struct MessageBody {
    /// The reply's id.
    pub id: String,
    /// Always `message`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Always `assistant`.
    pub role: String,
    /// The model that answers.
    pub model: String,
    /// The answer.
    pub content: Vec<Block>,
    /// Why it ended, once it has.
    pub stop_reason: Option<String>,
    /// The stop sequence that ended it, if one did.
    pub stop_sequence: Option<String>,
    /// The cost.
    pub usage: UsageBody,
}

/// `usage`: the prompt is `input_tokens`, and those that came from a cache or went into one beside them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "MessagesUsage")]
#[serde(default)]
pub struct UsageBody {
    /// Tokens of the prompt that were neither read from a cache nor written to one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_tokens: Option<usize>,
    /// Tokens of the prompt that went into a cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_creation_input_tokens: Option<usize>,
    /// Tokens of the prompt that came from a cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_read_input_tokens: Option<usize>,
    /// Tokens generated.
    pub output_tokens: usize,
}

/// What a stream sends; the name of the event is its `type`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum StreamEvent {
    /// The message begins.
    MessageStart {
        /// Without content.
        message: MessageBody,
    },
    /// A block begins.
    ContentBlockStart {
        /// Which block.
        index: usize,
        /// Without text or arguments.
        content_block: Block,
    },
    /// More of a block.
    ContentBlockDelta {
        /// Which block.
        index: usize,
        /// What is new.
        delta: BlockDelta,
    },
    /// A block is complete.
    ContentBlockStop {
        /// Which block.
        index: usize,
    },
    /// The message is complete but for its end.
    MessageDelta {
        /// Why it ended.
        delta: MessageChange,
        /// The cost so far.
        #[serde(default)]
        usage: UsageBody,
    },
    /// The end.
    MessageStop,
    /// A sign of life.
    Ping,
    /// It broke.
    Error {
        /// Why.
        error: ErrorDetail,
    },
    /// Anything else: clients are told to expect kinds of the future.
    #[serde(other)]
    Unknown,
}

impl Chunk for StreamEvent {
    fn name(&self) -> Option<&'static str> {
        Some(match self {
            Self::MessageStart { .. } => "message_start",
            Self::ContentBlockStart { .. } => "content_block_start",
            Self::ContentBlockDelta { .. } => "content_block_delta",
            Self::ContentBlockStop { .. } => "content_block_stop",
            Self::MessageDelta { .. } => "message_delta",
            Self::MessageStop => "message_stop",
            Self::Ping => "ping",
            Self::Error { .. } => "error",
            Self::Unknown => "unknown",
        })
    }
}

impl Chunk for ErrorBody {
    fn name(&self) -> Option<&'static str> {
        Some("error")
    }
}

/// What is new in a block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum BlockDelta {
    /// More text.
    TextDelta {
        /// What to append.
        text: String,
    },
    /// More of the JSON text of a call's arguments.
    InputJsonDelta {
        /// What to append.
        partial_json: String,
    },
    /// Thoughts, signatures, citations and kinds of the future.
    #[serde(other)]
    Unknown,
}

/// What changes at the end of a message.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct MessageChange {
    /// Why it ended.
    pub stop_reason: Option<String>,
    /// The stop sequence that ended it, if one did.
    pub stop_sequence: Option<String>,
}

impl From<Usage> for UsageBody {
    fn from(usage: Usage) -> Self {
        Self {
            input_tokens: Some(usage.prompt_tokens.saturating_sub(usage.cached_tokens)),
            cache_creation_input_tokens: Some(0),
            cache_read_input_tokens: Some(usage.cached_tokens),
            output_tokens: usage.completion_tokens,
        }
    }
}

/// The wire's words for the end of an answer that watched for these stop sequences.
fn change(reason: FinishReason, stops: &[String]) -> MessageChange {
    let (word, stop_sequence) = match reason {
        FinishReason::Stop => ("end_turn", None),
        FinishReason::StopString(i) => ("stop_sequence", stops.get(i).cloned()),
        FinishReason::Length => ("max_tokens", None),
        FinishReason::ToolCalls => ("tool_use", None),
        FinishReason::ContentFilter => ("refusal", None),
    };
    MessageChange { stop_reason: Some(word.to_owned()), stop_sequence }
}

/// What the answer to `call` watches for.
fn stops(call: &Call) -> Vec<String> {
    call.requests.first().map(|request| request.stop.strings.clone()).unwrap_or_default()
}

fn message(envelope: Envelope) -> MessageBody {
    let Envelope { id, model, .. } = envelope;
    MessageBody { id, kind: "message".to_owned(), role: "assistant".to_owned(), model, ..MessageBody::default() }
}

/// The block that is being sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Open {
    None,
    Text,
    /// The plain index of the call.
    Call(usize),
}

/// A message as stream events.
#[derive(Debug)]
pub struct Stream {
    message: Option<MessageBody>,
    open: Open,
    index: usize,
    stops: Vec<String>,
    end: MessageChange,
}

impl Stream {
    /// A stream for the answer to `call`.
    pub fn new(envelope: Envelope, call: &Call) -> Self {
        let message = Some(message(envelope));
        Self { message, open: Open::None, index: 0, stops: stops(call), end: MessageChange::default() }
    }

    /// The beginning of the message, once.
    fn begin(&mut self, usage: Usage, out: &mut Vec<StreamEvent>) {
        if let Some(message) = self.message.take() {
            out.push(StreamEvent::MessageStart { message: MessageBody { usage: usage.into(), ..message } });
        }
    }

    fn close(&mut self, out: &mut Vec<StreamEvent>) {
        if self.open != Open::None {
            out.push(StreamEvent::ContentBlockStop { index: self.index });
            self.index += 1;
            self.open = Open::None;
        }
    }

    fn turn_to(&mut self, wanted: Open, content_block: Block, out: &mut Vec<StreamEvent>) {
        if self.open != wanted {
            self.close(out);
            self.open = wanted;
            out.push(StreamEvent::ContentBlockStart { index: self.index, content_block });
        }
    }

    fn delta(&self, delta: BlockDelta, out: &mut Vec<StreamEvent>) {
        out.push(StreamEvent::ContentBlockDelta { index: self.index, delta });
    }

    fn call(&mut self, call: (usize, ToolCall), out: &mut Vec<StreamEvent>) {
        let (index, ToolCall { id, name, arguments }) = call;
        let block = Block::call(&ToolCall { id, name, arguments: String::new() });
        self.turn_to(Open::Call(index), block, out);
        if !arguments.is_empty() {
            self.delta(BlockDelta::InputJsonDelta { partial_json: arguments }, out);
        }
    }
}

impl Streamed for Stream {
    type Chunk = StreamEvent;
    type Failure = ErrorBody;

    const END: Option<&'static str> = None;

    fn push(&mut self, _prompt: usize, event: Event) -> Vec<StreamEvent> {
        let mut out = Vec::new();
        match event {
            Event::Started { prompt_tokens, cached_tokens } => {
                self.begin(Usage { prompt_tokens, cached_tokens, completion_tokens: 0, ..Usage::default() }, &mut out);
            }
            Event::Text { text, .. } if !text.is_empty() => {
                self.begin(Usage::default(), &mut out);
                self.turn_to(Open::Text, Block::text(""), &mut out);
                self.delta(BlockDelta::TextDelta { text }, &mut out);
            }
            Event::ToolCall { index, id, name, arguments, .. } => {
                self.begin(Usage::default(), &mut out);
                let call = ToolCall { id: id.unwrap_or_default(), name: name.unwrap_or_default(), arguments };
                self.call((index, call), &mut out);
            }
            Event::Finished { reason, .. } => self.end = change(reason, &self.stops),
            Event::Routed(hop) => {
                if let (Some(model), Some(message)) = (hop.answers_as(), &mut self.message) {
                    model.clone_into(&mut message.model);
                }
            }
            Event::Done(usage) => {
                self.begin(usage, &mut out);
                self.close(&mut out);
                let delta = std::mem::take(&mut self.end);
                out.push(StreamEvent::MessageDelta { delta, usage: usage.into() });
            }
            Event::Text { .. }
            | Event::PromptLogprobs(_)
            | Event::Tokens { .. }
            | Event::Checked(_)
            | Event::Worked(_)
            | Event::Held { .. } => {}
        }
        out
    }

    fn finish(&mut self) -> Option<StreamEvent> {
        Some(StreamEvent::MessageStop)
    }

    fn fail(&mut self, error: &Error) -> ErrorBody {
        error.into()
    }
}

/// A message as one body.
#[derive(Debug)]
pub struct Collector {
    body: MessageBody,
    /// The open block, and the text of its arguments if it is a call.
    open: Open,
    arguments: String,
    stops: Vec<String>,
}

impl Collector {
    /// A body for the answer to `call`.
    pub fn new(envelope: Envelope, call: &Call) -> Self {
        Self { body: message(envelope), open: Open::None, arguments: String::new(), stops: stops(call) }
    }

    /// What was open is complete: a call's arguments become an object.
    fn close(&mut self) {
        let arguments = std::mem::take(&mut self.arguments);
        if let (Open::Call(_), Some(block)) = (self.open, self.body.content.last_mut()) {
            let called = Block::call(&ToolCall { arguments, ..ToolCall::default() });
            block.input = called.input.or(Some(Value::Null));
        }
        self.open = Open::None;
    }

    fn turn_to(&mut self, wanted: Open, block: Block) {
        if self.open != wanted {
            self.close();
            self.open = wanted;
            self.body.content.push(block);
        }
    }
}

impl Collected for Collector {
    type Body = MessageBody;

    fn push(&mut self, _prompt: usize, event: Event) {
        match event {
            Event::Text { text, .. } if !text.is_empty() => {
                self.turn_to(Open::Text, Block::text(""));
                if let Some(block) = self.body.content.last_mut() {
                    block.text.get_or_insert_default().push_str(&text);
                }
            }
            Event::ToolCall { index, id, name, arguments, .. } => {
                let (id, name) = (id.unwrap_or_default(), name.unwrap_or_default());
                self.turn_to(Open::Call(index), Block::call(&ToolCall { id, name, arguments: String::new() }));
                self.arguments.push_str(&arguments);
            }
            Event::Finished { reason, .. } => {
                let MessageChange { stop_reason, stop_sequence } = change(reason, &self.stops);
                (self.body.stop_reason, self.body.stop_sequence) = (stop_reason, stop_sequence);
            }
            Event::Done(usage) => self.body.usage = usage.into(),
            Event::Routed(hop) => {
                if let Some(model) = hop.answers_as() {
                    model.clone_into(&mut self.body.model);
                }
            }
            Event::Text { .. }
            | Event::Started { .. }
            | Event::PromptLogprobs(_)
            | Event::Tokens { .. }
            | Event::Checked(_)
            | Event::Worked(_)
            | Event::Held { .. } => {}
        }
    }

    fn finish(mut self) -> MessageBody {
        self.close();
        self.body
    }
}
