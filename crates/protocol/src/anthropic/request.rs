//! The body of `POST /v1/messages`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    content::Content,
    fields,
    tools::{self, ToolBody, ToolChoiceBody},
    turns::{self, Turn},
};
use crate::openai::schema::Described;
use crate::{
    Chat, Error, ErrorKind, Format, GenerateRequest, Message, Prompt, Sampling, Stop, ToolChoice,
    openai::{
        Call, Recorded, Rest,
        body::{decode, settle, within},
        call,
    },
};

/// What a plain request without a limit asks for: the wire requires one.
pub const DEFAULT_MAX_TOKENS: usize = 4096;
/// The most stop sequences, and the longest of them in bytes; as with OpenAI's `stop`.
const MAX_STOPS: usize = 16;
const MAX_STOP_BYTES: usize = 1024;

/// The request's body.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = Described(&fields::MESSAGES))]
#[serde(default)]
#[expect(missing_docs, reason = "the fields are Anthropic's; `fields::MESSAGES` describes them")]
pub struct MessagesRequest {
    pub model: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system: Option<Content>,
    pub messages: Vec<Turn>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_sequences: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_k: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tools: Option<Vec<ToolBody>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_choice: Option<ToolChoiceBody>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thinking: Option<Thinking>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_config: Option<OutputConfig>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Metadata>,
    #[serde(flatten)]
    pub rest: Rest,
}

/// `thinking`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Thinking {
    /// `enabled`, `adaptive` or `disabled`.
    #[serde(rename = "type")]
    pub kind: String,
    /// How many tokens it may take; advice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget_tokens: Option<usize>,
    /// How thoughts are shown; none are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display: Option<String>,
}

/// `output_config`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OutputConfig {
    /// What the answer must look like.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<OutputFormat>,
    /// `low`, `medium`, `high`, `xhigh` or `max`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effort: Option<String>,
}

/// What the answer must look like.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OutputFormat {
    /// `json_schema`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The schema.
    pub schema: Value,
}

/// `metadata`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = Described(&fields::METADATA))]
#[serde(default)]
pub struct Metadata {
    /// Who the answer is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    /// Other fields.
    #[serde(flatten)]
    pub rest: Rest,
}

/// Decodes and checks a request body. Never panics, whatever the bytes.
pub fn parse(bytes: &[u8]) -> Result<Call, Error> {
    decode::<MessagesRequest>(bytes)?.check()
}

impl MessagesRequest {
    /// The plain request, or the field at fault. Streams of this API always end with the usage.
    pub fn check(mut self) -> Result<Call, Error> {
        let mut recorded = settle(&fields::MESSAGES, "", std::mem::take(&mut self.rest))?;
        let tenant = self.tenant(&mut recorded)?;
        let model = call::model(std::mem::take(&mut self.model))?;
        let (sampling, stop, format) = (self.sampling()?, self.stop()?, self.format()?);
        let stream = self.stream.unwrap_or(false);
        let prompt = Prompt::Chat(self.chat()?);
        let request = GenerateRequest { model, sampling, stop, format, tenant, ..GenerateRequest::new(prompt, 0) };
        Ok(Call { requests: vec![request], stream, include_usage: true, recorded })
    }

    fn tenant(&mut self, recorded: &mut Recorded) -> Result<String, Error> {
        let Some(metadata) = self.metadata.take() else { return Ok(String::new()) };
        settle(&fields::METADATA, "metadata", metadata.rest)?;
        let user = metadata.user_id.unwrap_or_default();
        if !user.is_empty() {
            recorded.insert("metadata".to_owned(), serde_json::json!({ "user_id": user }));
        }
        Ok(user)
    }

    fn sampling(&self) -> Result<Sampling, Error> {
        let neutral = Sampling::default();
        Ok(Sampling {
            temperature: within("temperature", self.temperature, 0.0, 1.0)?.unwrap_or(neutral.temperature),
            top_p: within("top_p", self.top_p, 0.0, 1.0)?.unwrap_or(neutral.top_p),
            top_k: self.top_k.unwrap_or(neutral.top_k),
            ..neutral
        })
    }

    fn stop(&mut self) -> Result<Stop, Error> {
        let max_tokens = within("max_tokens", self.max_tokens, 1, usize::MAX)?;
        let missing = || Error::invalid("max_tokens", "`max_tokens` is required: the longest answer, in tokens.");
        let strings = self.stop_sequences.take().unwrap_or_default();
        if strings.len() > MAX_STOPS {
            let message = format!("`stop_sequences` has {}; at most {MAX_STOPS} are watched for.", strings.len());
            return Err(Error::invalid("stop_sequences", message));
        }
        if let Some(i) = strings.iter().position(|s| s.is_empty() || s.len() > MAX_STOP_BYTES) {
            let place = format!("stop_sequences[{i}]");
            let message = format!("`{place}` must have between 1 and {MAX_STOP_BYTES} bytes.");
            return Err(Error::invalid(place, message));
        }
        Ok(Stop { max_tokens: Some(max_tokens.ok_or_else(missing)?), strings, ignore_eos: false })
    }

    fn format(&self) -> Result<Format, Error> {
        match self.output_config.as_ref().and_then(|config| config.format.as_ref()) {
            None => Ok(Format::Text),
            Some(OutputFormat { kind, schema }) if kind == "json_schema" && schema.is_object() => {
                Ok(Format::JsonSchema(schema.clone()))
            }
            Some(_) => {
                let message = "`output_config.format` must be {\"type\": \"json_schema\", \"schema\": {..}}.";
                Err(Error::invalid("output_config.format", message))
            }
        }
    }

    /// The conversation with its tools.
    fn chat(self) -> Result<Chat, Error> {
        if self.messages.is_empty() {
            return Err(Error::invalid("messages", "`messages` is required: give at least one message."));
        }
        let system = self.system.map(|content| content.text("system")).transpose()?;
        let system = system.filter(|text| !text.is_empty());
        let system =
            system.map(|text| Message { role: "system".to_owned(), content: Some(text), ..Message::default() });
        let mut messages: Vec<Message> = system.into_iter().collect();
        for (i, turn) in self.messages.into_iter().enumerate() {
            messages.extend(turn.check(&format!("messages[{i}]"))?);
        }
        let tools = tools::check(self.tools.unwrap_or_default())?;
        let choice = self.tool_choice.map(|choice| choice.check(&tools)).transpose()?;
        let (tool_choice, parallel_tool_calls) = choice.unwrap_or((ToolChoice::Auto, true));
        let continue_last = messages.last().is_some_and(|message| message.role == "assistant");
        let template_args = template_args(self.thinking.as_ref(), self.output_config.and_then(|config| config.effort))?;
        Ok(Chat { messages, tools, tool_choice, parallel_tool_calls, template_args, continue_last })
    }

    /// The wire form of a plain request for `chat`. What the wire cannot say is refused by name.
    pub fn show(plain: &GenerateRequest, chat: &Chat) -> Result<Self, Error> {
        expressible(plain, chat)?;
        let (sampling, neutral) = (&plain.sampling, Sampling::default());
        let unless = |value: f32, neutral: f32| (value.to_bits() != neutral.to_bits()).then_some(value);
        let (system, messages) = turns::show(&chat.messages);
        let user_id = (!plain.tenant.is_empty()).then(|| plain.tenant.clone());
        let (thinking, effort) = show_template_args(chat);
        let format = match &plain.format {
            Format::JsonSchema(schema) => Some(OutputFormat { kind: "json_schema".into(), schema: schema.clone() }),
            _ => None,
        };
        let some_config = format.is_some() || effort.is_some();
        Ok(Self {
            model: plain.model.clone(),
            max_tokens: Some(plain.stop.max_tokens.unwrap_or(DEFAULT_MAX_TOKENS)),
            system: system.map(Content::Text),
            messages,
            stop_sequences: (!plain.stop.strings.is_empty()).then(|| plain.stop.strings.clone()),
            temperature: unless(sampling.temperature, neutral.temperature),
            top_k: (sampling.top_k > 0).then_some(sampling.top_k),
            top_p: unless(sampling.top_p, neutral.top_p),
            tools: (!chat.tools.is_empty()).then(|| chat.tools.iter().map(ToolBody::from).collect()),
            tool_choice: ToolChoiceBody::show(&chat.tool_choice, chat.parallel_tool_calls)
                .filter(|_| !chat.tools.is_empty()),
            thinking,
            output_config: some_config.then_some(OutputConfig { format, effort }),
            metadata: user_id.map(|id| Metadata { user_id: Some(id), ..Metadata::default() }),
            ..Self::default()
        })
    }
}

/// The template gets the wishes under the names that chat templates read.
fn template_args(thinking: Option<&Thinking>, effort: Option<String>) -> Result<BTreeMap<String, Value>, Error> {
    let mut args = BTreeMap::new();
    match thinking.map(|thinking| thinking.kind.as_str()) {
        None | Some("adaptive") => {}
        Some("enabled") => drop(args.insert("enable_thinking".to_owned(), true.into())),
        Some("disabled") => drop(args.insert("enable_thinking".to_owned(), false.into())),
        Some(kind) => {
            let message = format!("`thinking.type` is \"{kind}\", but must be enabled, adaptive or disabled.");
            return Err(Error::invalid("thinking.type", message));
        }
    }
    if let Some(effort) = effort {
        const EFFORTS: [&str; 5] = ["low", "medium", "high", "xhigh", "max"];
        if !EFFORTS.contains(&effort.as_str()) {
            let message = format!("`output_config.effort` is \"{effort}\", but must be one of {}.", EFFORTS.join(", "));
            return Err(Error::invalid("output_config.effort", message));
        }
        args.insert("reasoning_effort".to_owned(), effort.into());
    }
    Ok(args)
}

/// Only the wish for no thinking can be said without a budget.
fn show_template_args(chat: &Chat) -> (Option<Thinking>, Option<String>) {
    let disabled = chat.template_args.get("enable_thinking") == Some(&Value::Bool(false));
    let thinking = disabled.then(|| Thinking { kind: "disabled".to_owned(), ..Thinking::default() });
    let effort = chat.template_args.get("reasoning_effort").and_then(Value::as_str).map(str::to_owned);
    (thinking, effort)
}

/// Refuses, by OpenAI's names (plain requests come from there), what this wire has no words for.
fn expressible(plain: &GenerateRequest, chat: &Chat) -> Result<(), Error> {
    let (sampling, neutral) = (&plain.sampling, Sampling::default());
    let differs = |value: f32, neutral: f32| value.to_bits() != neutral.to_bits();
    let named = chat.messages.iter().any(|message| message.name.is_some());
    // On this wire an assistant's last turn is always the beginning of the answer.
    let ended = !chat.continue_last && chat.messages.last().is_some_and(|message| message.role == "assistant");
    let strange = |name: &String| name != "enable_thinking" && name != "reasoning_effort";
    let unsayable = [
        ("n", plain.n > 1),
        ("logprobs", plain.logprobs.is_some()),
        ("echo", plain.echo),
        ("seed", sampling.seed.is_some()),
        ("min_p", differs(sampling.min_p, neutral.min_p)),
        ("presence_penalty", differs(sampling.presence_penalty, neutral.presence_penalty)),
        ("frequency_penalty", differs(sampling.frequency_penalty, neutral.frequency_penalty)),
        ("repetition_penalty", differs(sampling.repetition_penalty, neutral.repetition_penalty)),
        ("logit_bias", !sampling.logit_bias.is_empty()),
        ("ignore_eos", plain.stop.ignore_eos),
        ("temperature", sampling.temperature > 1.0),
        ("max_tokens", plain.stop.max_tokens == Some(0)),
        ("response_format", !matches!(plain.format, Format::Text | Format::JsonSchema(_))),
        ("messages.name", named),
        ("messages", ended),
        ("chat_template_kwargs", chat.template_args.keys().any(strange)),
    ];
    match unsayable.into_iter().find(|(_, asked)| *asked) {
        None => Ok(()),
        Some((name, _)) => {
            let message =
                format!("`{name}` has this value, but Anthropic's API, which answers for the model, cannot do that.");
            Err(Error::new(ErrorKind::Unsupported, message).with_param(name).with_code("unsupported_parameter"))
        }
    }
}
