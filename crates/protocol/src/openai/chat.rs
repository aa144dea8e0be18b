//! `POST /v1/chat/completions`: a conversation with tools, laid out by the model's own template.

mod message;
mod reply;
pub(super) mod tools;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use message::{ContentPart, ContentParts, FunctionCall, MessageBody, ToolCallBody};
pub use reply::{
    AnswerMessage, ChatChoice, ChatChunk, ChatCompletion, ChunkChoice, Collector, Delta, FunctionDelta, Stream,
    ToolCallDelta,
};
pub use tools::{AllowedTools, FunctionBody, FunctionName, ToolBody, ToolChoiceBody, ToolChoiceObject};

use super::{
    Call, LogitBias, ResponseFormat, StopStrings, StreamOptions,
    body::{Rest, decode, settle, within},
    call, fields,
    knobs::{Knobs, take_knobs},
};
use crate::openai::schema::Described;
use crate::{Chat, Error, Format, GenerateRequest, Prompt};

/// The request's body.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = Described(&fields::CHAT))]
#[serde(default)]
#[expect(missing_docs, reason = "the fields are OpenAI's; `fields::CHAT` describes them")]
pub struct ChatRequest {
    pub model: String,
    pub messages: Vec<MessageBody>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_completion_tokens: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream_options: Option<StreamOptions>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logprobs: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_logprobs: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tools: Option<Vec<ToolBody>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_choice: Option<ToolChoiceBody>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parallel_tool_calls: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_format: Option<ResponseFormat>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_effort: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub modalities: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chat_template_kwargs: Option<Map<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub continue_final_message: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub add_generation_prompt: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_k: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_p: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub presence_penalty: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frequency_penalty: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repetition_penalty: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logit_bias: Option<LogitBias>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop: Option<StopStrings>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ignore_eos: Option<bool>,
    #[serde(flatten)]
    pub rest: Rest,
}

/// Decodes and checks a request body. Never panics, whatever the bytes.
pub fn parse(bytes: &[u8]) -> Result<Call, Error> {
    decode::<ChatRequest>(bytes)?.check()
}

impl ChatRequest {
    /// The plain request, or the field at fault.
    pub fn check(mut self) -> Result<Call, Error> {
        let recorded = settle(&fields::CHAT, "", std::mem::take(&mut self.rest))?;
        let stream = self.stream.unwrap_or(false);
        let include_usage = call::include_usage(stream, self.stream_options.take())?;
        modalities(self.modalities.as_deref())?;
        let chat = self.chat()?;
        let settings = self.settings()?;
        let request = GenerateRequest { prompt: Prompt::Chat(chat), tenant: call::tenant(&recorded), ..settings };
        Ok(Call { requests: vec![request], stream, include_usage, recorded })
    }

    /// The conversation with its tools.
    fn chat(&mut self) -> Result<Chat, Error> {
        if self.messages.is_empty() {
            return Err(Error::invalid("messages", "`messages` is required: give at least one message."));
        }
        let messages = std::mem::take(&mut self.messages).into_iter().enumerate();
        let messages =
            messages.map(|(i, message)| message.check(&format!("messages[{i}]"))).collect::<Result<_, _>>()?;
        let (tools, tool_choice) = tools::check(self.tools.take().unwrap_or_default(), self.tool_choice.take())?;
        let parallel_tool_calls = self.parallel_tool_calls.unwrap_or(true);
        let mut template_args = std::mem::take(&mut self.chat_template_kwargs).unwrap_or_default();
        if let Some(effort) = self.reasoning_effort.take() {
            reasoning(&mut template_args, "reasoning_effort", effort)?;
        }
        let template_args = template_args.into_iter().collect();
        let continue_last = self.continues()?;
        Ok(Chat { messages, tools, tool_choice, parallel_tool_calls, template_args, continue_last })
    }

    /// Whether the answer goes on behind the last message. vLLM spells that with two fields; the second one only ever says
    /// the opposite of the first.
    fn continues(&self) -> Result<bool, Error> {
        let continues = self.continue_final_message.unwrap_or(false);
        match self.add_generation_prompt {
            Some(prompt) if prompt == continues => {
                let message = format!("`add_generation_prompt` must be {} here: leave it out.", !continues);
                Err(Error::invalid("add_generation_prompt", message))
            }
            _ => Ok(continues),
        }
    }

    /// Everything but the conversation.
    fn settings(&mut self) -> Result<GenerateRequest, Error> {
        let (sampling, mut stop) = take_knobs!(self).check()?;
        stop.max_tokens = self.limit()?;
        let n = within("n", self.n, 1, 128)?.unwrap_or(1);
        let format = self.response_format.take().map_or(Ok(Format::Text), ResponseFormat::check)?;
        let logprobs = self.scores()?;
        let model = call::model(std::mem::take(&mut self.model))?;
        let neutral = GenerateRequest::new(Prompt::Chat(Chat::default()), 0);
        Ok(GenerateRequest { model, sampling, stop, format, n, logprobs, ..neutral })
    }

    /// The token limit under either of its names.
    fn limit(&self) -> Result<Option<usize>, Error> {
        let newer = within("max_completion_tokens", self.max_completion_tokens, 1, usize::MAX)?;
        let older = within("max_tokens", self.max_tokens, 1, usize::MAX)?;
        match (newer, older) {
            (Some(a), Some(b)) if a != b => {
                let message =
                    format!("`max_tokens` is {b} but `max_completion_tokens` is {a}: they are one; send one.");
                Err(Error::invalid("max_tokens", message))
            }
            (newer, older) => Ok(newer.or(older)),
        }
    }

    fn scores(&self) -> Result<Option<usize>, Error> {
        let top = within("top_logprobs", self.top_logprobs, 0, 20)?;
        match (self.logprobs, top) {
            (Some(true), top) => Ok(Some(top.unwrap_or(0))),
            (_, Some(top)) if top > 0 => {
                Err(Error::invalid("top_logprobs", "`top_logprobs` needs `logprobs` to be true."))
            }
            _ => Ok(None),
        }
    }

    /// The wire form of a plain request for `chat`.
    pub fn show(plain: &GenerateRequest, chat: &Chat) -> Self {
        let knobs = Knobs::show(&plain.sampling, &plain.stop);
        let template_args: Map<String, Value> = chat.template_args.clone().into_iter().collect();
        Self {
            model: plain.model.clone(),
            messages: chat.messages.iter().map(MessageBody::from).collect(),
            max_completion_tokens: plain.stop.max_tokens,
            n: (plain.n > 1).then_some(plain.n),
            logprobs: plain.logprobs.map(|_| true),
            top_logprobs: plain.logprobs.filter(|top| *top > 0),
            tools: (!chat.tools.is_empty()).then(|| chat.tools.iter().map(ToolBody::from).collect()),
            tool_choice: ToolChoiceBody::show(&chat.tool_choice),
            parallel_tool_calls: (!chat.parallel_tool_calls).then_some(false),
            response_format: ResponseFormat::show(&plain.format),
            chat_template_kwargs: (!template_args.is_empty()).then_some(template_args),
            continue_final_message: chat.continue_last.then_some(true),
            add_generation_prompt: chat.continue_last.then_some(false),
            temperature: knobs.temperature,
            top_p: knobs.top_p,
            top_k: knobs.top_k,
            min_p: knobs.min_p,
            presence_penalty: knobs.presence_penalty,
            frequency_penalty: knobs.frequency_penalty,
            repetition_penalty: knobs.repetition_penalty,
            logit_bias: knobs.logit_bias,
            seed: knobs.seed,
            stop: knobs.stop,
            ignore_eos: knobs.ignore_eos,
            rest: call::user(&plain.tenant),
            ..Self::default()
        }
    }
}

/// The template gets the wish; templates of models that can think or not read `enable_thinking`. What the caller set
/// through `chat_template_kwargs` is left alone.
pub(super) fn reasoning(template_args: &mut Map<String, Value>, place: &str, effort: String) -> Result<(), Error> {
    const EFFORTS: [&str; 6] = ["none", "minimal", "low", "medium", "high", "xhigh"];
    if !EFFORTS.contains(&effort.as_str()) {
        let message = format!("`{place}` is \"{effort}\", but must be one of {}.", EFFORTS.join(", "));
        return Err(Error::invalid(place, message));
    }
    if effort == "none" {
        template_args.entry("enable_thinking").or_insert(false.into());
    }
    template_args.entry("reasoning_effort").or_insert(effort.into());
    Ok(())
}

fn modalities(wanted: Option<&[String]>) -> Result<(), Error> {
    match wanted.unwrap_or_default().iter().position(|modality| modality != "text") {
        None => Ok(()),
        Some(i) => {
            let message = format!("`modalities[{i}]` is not supported: this server answers in text; send [\"text\"].");
            Err(Error::invalid(format!("modalities[{i}]"), message).with_code("unsupported_parameter"))
        }
    }
}
