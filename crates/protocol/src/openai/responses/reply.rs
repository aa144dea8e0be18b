//! Events as one response, and what both ways of delivery know of it while it grows.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{ChoiceBody, FunctionToolBody, ReasoningBody, ResponseRequest, TextBody};
use crate::{
    Event, FinishReason, TokenLogprob, Usage,
    openai::{ChatLogprob, Collected, Envelope, Recorded, TextOr, body::Rest},
};

/// The whole response.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ResponseBody {
    /// The response's id.
    pub id: String,
    /// Always `response`.
    pub object: String,
    /// Seconds since 1970.
    pub created_at: u64,
    /// The model that answers.
    pub model: String,
    /// `in_progress`, then `completed`, `incomplete` or `failed`.
    pub status: String,
    /// What broke, if it failed.
    pub error: Option<ResponseError>,
    /// What cut it, if it is incomplete.
    pub incomplete_details: Option<IncompleteDetails>,
    /// Messages and calls, in the order they were made.
    pub output: Vec<OutputItem>,
    /// The cost, once it is known.
    pub usage: Option<ResponseUsage>,
    /// What it repeats of its request.
    #[serde(flatten)]
    pub settings: Settings,
}

/// What a response repeats of its request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Settings {
    /// The instructions.
    pub instructions: Option<String>,
    /// The token limit.
    pub max_output_tokens: Option<usize>,
    /// The temperature.
    pub temperature: f32,
    /// The top-p cut.
    pub top_p: f32,
    /// Alternatives per token.
    pub top_logprobs: usize,
    /// The format.
    pub text: TextBody,
    /// The tools.
    pub tools: Vec<FunctionToolBody>,
    /// The choice between them.
    pub tool_choice: TextOr<ChoiceBody>,
    /// Whether several calls may come at once.
    pub parallel_tool_calls: bool,
    /// How much the model should think.
    pub reasoning: Option<ReasoningBody>,
    /// Always `disabled`.
    pub truncation: String,
    /// Always `false`.
    pub store: bool,
    /// Always `false`.
    pub background: bool,
    /// Always `null`.
    pub previous_response_id: Option<String>,
    /// The caller's notes.
    pub metadata: Value,
    /// `default`, when the request named a tier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_tier: Option<String>,
    /// The end user, when the request named one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<Value>,
    /// The end user, when the request named one so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub safety_identifier: Option<Value>,
}

impl Settings {
    /// What the response to `request` says about it.
    pub(super) fn of(request: &ResponseRequest, recorded: &Recorded) -> Self {
        let format = super::FormatBody { kind: "text".to_owned(), ..Default::default() };
        let mut text = request.text.clone().unwrap_or_default();
        text.format.get_or_insert(format);
        Self {
            instructions: request.instructions.clone(),
            max_output_tokens: request.max_output_tokens,
            temperature: request.temperature.unwrap_or(1.0),
            top_p: request.top_p.unwrap_or(1.0),
            top_logprobs: request.top_logprobs.unwrap_or(0),
            text,
            tools: request.tools.clone().unwrap_or_default(),
            tool_choice: request.tool_choice.clone().unwrap_or_else(|| TextOr::Text("auto".to_owned())),
            parallel_tool_calls: request.parallel_tool_calls.unwrap_or(true),
            reasoning: request.reasoning.clone(),
            truncation: "disabled".to_owned(),
            store: false,
            background: false,
            previous_response_id: None,
            metadata: recorded.get("metadata").cloned().unwrap_or_else(|| Rest::new().into()),
            service_tier: recorded.contains_key("service_tier").then(|| "default".to_owned()),
            user: recorded.get("user").cloned(),
            safety_identifier: recorded.get("safety_identifier").cloned(),
        }
    }
}

/// What broke.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ResponseError {
    /// `server_error`, `rate_limit_exceeded` or `invalid_prompt`.
    pub code: String,
    /// A sentence for a person.
    pub message: String,
}

/// What cut a response.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct IncompleteDetails {
    /// `max_output_tokens` or `content_filter`.
    pub reason: String,
}

/// An item of a response.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum OutputItem {
    /// Text.
    Message {
        /// The item's id.
        id: String,
        /// `in_progress`, `completed` or `incomplete`.
        status: String,
        /// Always `assistant`.
        role: String,
        /// One part.
        content: Vec<OutputText>,
    },
    /// A call.
    FunctionCall {
        /// The item's id.
        id: String,
        /// `in_progress`, `completed` or `incomplete`.
        status: String,
        /// The call's id, which its result names.
        call_id: String,
        /// The function's name.
        name: String,
        /// JSON text.
        arguments: String,
    },
}

/// The text of a message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OutputText {
    /// Always `output_text`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The text.
    pub text: String,
    /// Always empty.
    pub annotations: Vec<Value>,
    /// Scores, if asked for.
    pub logprobs: Vec<ChatLogprob>,
}

impl Default for OutputText {
    fn default() -> Self {
        Self { kind: "output_text".to_owned(), text: String::new(), annotations: Vec::new(), logprobs: Vec::new() }
    }
}

/// `usage`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct ResponseUsage {
    /// Tokens of the prompt.
    pub input_tokens: usize,
    /// How much of the prompt was cheap.
    pub input_tokens_details: InputDetails,
    /// Tokens generated.
    pub output_tokens: usize,
    /// How much of the answer was not for the caller.
    pub output_tokens_details: OutputDetails,
    /// Both together.
    pub total_tokens: usize,
}

/// A share of the prompt's tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct InputDetails {
    /// Found in the prefix cache.
    pub cached_tokens: usize,
}

/// A share of the answer's tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct OutputDetails {
    /// Always 0: what a model thinks is part of its text here.
    pub reasoning_tokens: usize,
}

impl From<Usage> for ResponseUsage {
    fn from(usage: Usage) -> Self {
        Self {
            input_tokens: usage.prompt_tokens,
            input_tokens_details: InputDetails { cached_tokens: usage.cached_tokens },
            output_tokens: usage.completion_tokens,
            output_tokens_details: OutputDetails::default(),
            total_tokens: usage.total(),
        }
    }
}

impl OutputItem {
    pub(super) fn id(&self) -> &str {
        match self {
            Self::Message { id, .. } | Self::FunctionCall { id, .. } => id,
        }
    }

    /// The item as it was when it opened: without content.
    pub(super) fn opened(&self) -> Self {
        let mut item = self.clone();
        match &mut item {
            Self::Message { content, .. } => content.clear(),
            Self::FunctionCall { arguments, .. } => arguments.clear(),
        }
        item
    }

    fn close(&mut self, as_status: &str) {
        match self {
            Self::Message { status, .. } | Self::FunctionCall { status, .. } => as_status.clone_into(status),
        }
    }
}

/// What an event changed; items are named by their place in the output.
#[derive(Debug)]
pub(super) enum Change {
    /// A new item.
    Opened(usize),
    /// More text of a message.
    Text(usize, String, Vec<ChatLogprob>),
    /// More arguments of a call.
    Arguments(usize, String),
    /// An item is whole, or will not grow any more.
    Closed(usize),
    /// The response has ended.
    Ended,
}

/// A response as far as it is known.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) body: ResponseBody,
    /// The item that is open.
    open: Option<usize>,
    /// Where each call stands in the output.
    calls: Vec<usize>,
    reason: FinishReason,
}

impl Answer {
    pub(super) fn new(envelope: Envelope, settings: Settings) -> Self {
        let body = ResponseBody {
            id: envelope.id,
            object: "response".to_owned(),
            created_at: envelope.created,
            model: envelope.model,
            status: "in_progress".to_owned(),
            error: None,
            incomplete_details: None,
            output: Vec::new(),
            usage: None,
            settings,
        };
        Self { body, open: None, calls: Vec::new(), reason: FinishReason::Stop }
    }

    /// Takes an event in.
    pub(super) fn push(&mut self, event: Event) -> Vec<Change> {
        let mut changes = Vec::new();
        match event {
            Event::Text { text, logprobs, .. } if text.is_empty() && logprobs.is_empty() => {}
            Event::Text { text, logprobs, .. } => self.text(text, logprobs, &mut changes),
            Event::ToolCall { index, id, name, arguments, .. } => {
                let at = self.call(index, id.unwrap_or_default(), name.unwrap_or_default(), &mut changes);
                self.arguments(at, arguments, &mut changes);
            }
            Event::Finished { reason, .. } => self.finish(reason, &mut changes),
            Event::Done(usage) => self.end(usage, &mut changes),
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
        changes
    }

    /// Opens an item behind the one that is open.
    fn open(&mut self, item: OutputItem, changes: &mut Vec<Change>) -> usize {
        self.close("completed", changes);
        let at = self.body.output.len();
        self.body.output.push(item);
        self.open = Some(at);
        changes.push(Change::Opened(at));
        at
    }

    fn close(&mut self, status: &str, changes: &mut Vec<Change>) {
        if let Some(at) = self.open.take() {
            self.body.output[at].close(status);
            changes.push(Change::Closed(at));
        }
    }

    /// An id for the next item; `prefix` is how ids of its kind begin.
    fn item_id(&self, prefix: &str) -> String {
        let id = self.body.id.strip_prefix("resp_").unwrap_or(&self.body.id);
        format!("{prefix}_{id}_{}", self.body.output.len())
    }

    /// The message that is open, or a new one.
    fn message(&mut self, changes: &mut Vec<Change>) -> usize {
        let open = self.open.filter(|&at| matches!(self.body.output[at], OutputItem::Message { .. }));
        open.unwrap_or_else(|| {
            let item = OutputItem::Message {
                id: self.item_id("msg"),
                status: "in_progress".to_owned(),
                role: "assistant".to_owned(),
                content: vec![OutputText::default()],
            };
            self.open(item, changes)
        })
    }

    fn text(&mut self, text: String, scores: Vec<TokenLogprob>, changes: &mut Vec<Change>) {
        let at = self.message(changes);
        let scores: Vec<ChatLogprob> = scores.into_iter().map(ChatLogprob::from).collect();
        if let OutputItem::Message { content, .. } = &mut self.body.output[at] {
            for part in content {
                part.text.push_str(&text);
                part.logprobs.extend(scores.iter().cloned());
            }
        }
        changes.push(Change::Text(at, text, scores));
    }

    /// The place of the `index`-th call, which may be new.
    fn call(&mut self, index: usize, call_id: String, name: String, changes: &mut Vec<Change>) -> usize {
        if let Some(&at) = self.calls.get(index) {
            return at;
        }
        let (id, status) = (self.item_id("fc"), "in_progress".to_owned());
        let at = self.open(OutputItem::FunctionCall { id, status, call_id, name, arguments: String::new() }, changes);
        self.calls.push(at);
        at
    }

    fn arguments(&mut self, at: usize, more: String, changes: &mut Vec<Change>) {
        if let OutputItem::FunctionCall { arguments, .. } = &mut self.body.output[at]
            && !more.is_empty()
        {
            arguments.push_str(&more);
            changes.push(Change::Arguments(at, more));
        }
    }

    /// An answer of nothing is an empty message.
    fn finish(&mut self, reason: FinishReason, changes: &mut Vec<Change>) {
        if self.body.output.is_empty() {
            self.message(changes);
        }
        self.reason = reason;
        self.close(if cut(reason).is_some() { "incomplete" } else { "completed" }, changes);
    }

    fn end(&mut self, usage: Usage, changes: &mut Vec<Change>) {
        self.body.usage = Some(usage.into());
        self.body.incomplete_details = cut(self.reason).map(|reason| IncompleteDetails { reason: reason.to_owned() });
        let incomplete = self.body.incomplete_details.is_some();
        if incomplete { "incomplete" } else { "completed" }.clone_into(&mut self.body.status);
        changes.push(Change::Ended);
    }
}

/// What cut an answer that ended so, if anything did.
fn cut(reason: FinishReason) -> Option<&'static str> {
    match reason {
        FinishReason::Length => Some("max_output_tokens"),
        FinishReason::ContentFilter => Some("content_filter"),
        FinishReason::Stop | FinishReason::StopString(_) | FinishReason::ToolCalls => None,
    }
}

/// A response as one body.
#[derive(Debug)]
pub struct Collector(Answer);

impl Collector {
    /// The body for a call with these settings.
    pub fn new(envelope: Envelope, settings: Settings) -> Self {
        Self(Answer::new(envelope, settings))
    }
}

impl Collected for Collector {
    type Body = ResponseBody;

    fn push(&mut self, _prompt: usize, event: Event) {
        self.0.push(event);
    }

    fn finish(self) -> ResponseBody {
        self.0.body
    }
}
