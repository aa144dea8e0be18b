//! `POST /v1/responses`: the same conversations as chat completions in the newer dialect, whose turns, calls and results are
//! items of one list and whose stream tells of every item and part as it opens and closes.
//!
//! The server keeps no responses: whatever refers to a stored one (`previous_response_id`, `conversation`, `store: true`,
//! `background`) is refused by name, and a `store` that is left out means `false` here, where OpenAI's own default is `true`.
//! A client continues a conversation by sending its items again, as it must with `store: false` at OpenAI.

mod events;
mod item;
mod reply;
mod tools;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use events::{Payload, ResponseEvent, Stream};
pub use item::{CallItem, CallOutputItem, InputItems, MessageItem, PartBody, Parts};
pub use reply::{
    Collector, IncompleteDetails, InputDetails, OutputDetails, OutputItem, OutputText, ResponseBody, ResponseError,
    ResponseUsage, Settings,
};
pub use tools::{AllowedBody, ChoiceBody, FunctionToolBody};

use super::{
    Call, Recorded, TextOr,
    body::{Rest, at, decode, settle, within},
    call, chat, fields,
};
use crate::openai::schema::Described;
use crate::{Chat, Error, Format, GenerateRequest, Message, Prompt, Sampling, Stop};

/// The request's body.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = Described(&fields::RESPONSE))]
#[serde(default)]
#[expect(missing_docs, reason = "the fields are OpenAI's; `fields::RESPONSE` describes them")]
pub struct ResponseRequest {
    pub model: String,
    pub input: Option<TextOr<InputItems>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instructions: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_output_tokens: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub include: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_logprobs: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tools: Option<Vec<FunctionToolBody>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_choice: Option<TextOr<ChoiceBody>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parallel_tool_calls: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<TextBody>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<ReasoningBody>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub truncation: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub background: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream_options: Option<ResponseStreamOptions>,
    #[serde(flatten)]
    pub rest: Rest,
}

/// `text`: what the answer must look like.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = Described(&fields::RESPONSE_TEXT))]
#[serde(default)]
pub struct TextBody {
    /// The format.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<FormatBody>,
    /// Advisory and unknown fields.
    #[serde(flatten)]
    pub rest: Rest,
}

/// `text.format`. What chat completions nest under `json_schema` stands here flat.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = Described(&fields::RESPONSE_FORMAT))]
#[serde(default)]
pub struct FormatBody {
    /// `text`, `json_object` or `json_schema`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The schema's name; not shown to the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Not shown to the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The schema.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schema: Option<Value>,
    /// Schemas are always enforced, so both values are fine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strict: Option<bool>,
    /// Fields without a meaning here.
    #[serde(flatten)]
    pub rest: Rest,
}

/// `reasoning`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = Described(&fields::REASONING))]
#[serde(default)]
pub struct ReasoningBody {
    /// How much the model should think, for templates that ask.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effort: Option<String>,
    /// Advisory and unknown fields.
    #[serde(flatten)]
    pub rest: Rest,
}

/// `stream_options`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = Described(&fields::RESPONSE_STREAM_OPTIONS))]
#[serde(default)]
pub struct ResponseStreamOptions {
    /// Pad events to equal size. Only `false` is accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub include_obfuscation: Option<bool>,
    /// Fields without a meaning here.
    #[serde(flatten)]
    pub rest: Rest,
}

/// A decoded call, with what its response repeats of it.
#[derive(Debug, Clone, PartialEq)]
pub struct ResponseCall {
    /// What to generate and how to deliver it.
    pub call: Call,
    /// What the response says about its request.
    pub settings: Settings,
}

/// Decodes and checks a request body. Never panics, whatever the bytes.
pub fn parse(bytes: &[u8]) -> Result<ResponseCall, Error> {
    decode::<ResponseRequest>(bytes)?.check()
}

impl ResponseRequest {
    /// The plain request, or the field at fault.
    pub fn check(mut self) -> Result<ResponseCall, Error> {
        let recorded = settle(&fields::RESPONSE, "", std::mem::take(&mut self.rest))?;
        self.stateless()?;
        let stream = self.stream.unwrap_or(false);
        padding(stream, self.stream_options.take())?;
        let settings = Settings::of(&self, &recorded);
        let chat = self.chat()?;
        let request = self.request(chat, &recorded)?;
        let call = Call { requests: vec![request], stream, include_usage: false, recorded };
        Ok(ResponseCall { call, settings })
    }

    /// Nothing is kept between requests, and nothing runs without a caller.
    fn stateless(&self) -> Result<(), Error> {
        let wishes = [
            ("store", self.store, "responses are not kept here; leave it out or send false"),
            ("background", self.background, "an answer is made while its caller waits; leave it out or send false"),
        ];
        if let Some((name, _, why)) = wishes.into_iter().find(|(_, wish, _)| *wish == Some(true)) {
            return Err(unsupported(name, format!("`{name}` true is not supported: {why}.")));
        }
        match self.truncation.as_deref() {
            None | Some("disabled") => Ok(()),
            Some("auto") => {
                let message =
                    "`truncation` auto is not supported: nothing of a conversation is dropped here; leave it out.";
                Err(unsupported("truncation", message.to_owned()))
            }
            Some(other) => {
                Err(Error::invalid("truncation", format!("`truncation` is \"{other}\", but must be disabled.")))
            }
        }
    }

    /// The conversation with its tools: the instructions are its first turn.
    fn chat(&mut self) -> Result<Chat, Error> {
        let system = |text| Message { role: "system".to_owned(), content: Some(text), ..Message::default() };
        let mut messages: Vec<Message> = self.instructions.take().map(system).into_iter().collect();
        let input = self.input.take().ok_or_else(|| {
            Error::invalid("input", "`input` is required: a string, or an array of items such as messages.")
        })?;
        messages.extend(item::messages(input)?);
        let (tools, tool_choice) = tools::check(self.tools.take().unwrap_or_default(), self.tool_choice.take())?;
        let parallel_tool_calls = self.parallel_tool_calls.unwrap_or(true);
        let mut template_args = serde_json::Map::new();
        if let Some(reasoning) = self.reasoning.take() {
            settle(&fields::REASONING, "reasoning", reasoning.rest)?;
            reasoning
                .effort
                .map_or(Ok(()), |effort| chat::reasoning(&mut template_args, "reasoning.effort", effort))?;
        }
        let template_args = template_args.into_iter().collect();
        Ok(Chat { messages, tools, tool_choice, parallel_tool_calls, template_args, continue_last: false })
    }

    fn request(self, chat: Chat, recorded: &Recorded) -> Result<GenerateRequest, Error> {
        let or = |value: Result<Option<f32>, Error>, default: f32| value.map(|v| v.unwrap_or(default));
        let sampling = Sampling {
            temperature: or(within("temperature", self.temperature, 0.0, 2.0), 1.0)?,
            top_p: or(within("top_p", self.top_p, 0.0, 1.0), 1.0)?,
            seed: self.seed.map(i64::cast_unsigned),
            ..Sampling::default()
        };
        let max_tokens = within("max_output_tokens", self.max_output_tokens, 1, usize::MAX)?;
        let logprobs = scores(self.include.as_deref().unwrap_or_default(), self.top_logprobs)?;
        let format = self.text.map_or(Ok(Format::Text), TextBody::check)?;
        let model = call::model(self.model)?;
        let neutral = GenerateRequest::new(Prompt::Chat(chat), 0);
        let stop = Stop { max_tokens, ..Stop::default() };
        Ok(GenerateRequest { model, sampling, stop, format, logprobs, tenant: call::tenant(recorded), ..neutral })
    }
}

/// Scores are asked for by name; how many alternatives they come with stands apart.
fn scores(include: &[String], top: Option<usize>) -> Result<Option<usize>, Error> {
    const SCORES: &str = "message.output_text.logprobs";
    // There are no reasoning items, so there is no content of theirs to include.
    const NOTHING: &str = "reasoning.encrypted_content";
    if let Some(i) = include.iter().position(|name| name != SCORES && name != NOTHING) {
        let place = format!("include[{i}]");
        let message = format!("`{place}` \"{}\" is not supported: only {SCORES} can be included.", include[i]);
        return Err(unsupported(&place, message));
    }
    let top = within("top_logprobs", top, 0, 20)?;
    let wanted = include.iter().any(|name| name == SCORES);
    match top {
        Some(top) if top > 0 && !wanted => {
            let message = format!("`top_logprobs` needs `include` to hold \"{SCORES}\".");
            Err(Error::invalid("top_logprobs", message))
        }
        top => Ok(wanted.then(|| top.unwrap_or(0))),
    }
}

impl TextBody {
    fn check(self) -> Result<Format, Error> {
        settle(&fields::RESPONSE_TEXT, "text", self.rest)?;
        self.format.map_or(Ok(Format::Text), FormatBody::check)
    }
}

impl FormatBody {
    fn check(self) -> Result<Format, Error> {
        const PATH: &str = "text.format";
        settle(&fields::RESPONSE_FORMAT, PATH, self.rest)?;
        let schema = match self.kind.as_str() {
            "text" | "json_object" => None,
            "json_schema" => Some(self.schema.as_ref()),
            other => {
                let place = at(PATH, "type");
                let message = format!("`{place}` is \"{other}\", but must be text, json_object or json_schema.");
                return Err(Error::invalid(place, message));
            }
        };
        let named = [("name", self.name.is_some()), ("schema", self.schema.is_some())];
        match schema {
            Some(Some(schema @ (Value::Object(_) | Value::Bool(_)))) if self.name.is_some() => {
                Ok(Format::JsonSchema(schema.clone()))
            }
            Some(_) => {
                let missing = if self.name.is_none() { "name" } else { "schema" };
                let place = at(PATH, missing);
                let what = if missing == "name" { "any word, such as \"answer\"" } else { "a JSON schema, an object" };
                Err(Error::invalid(&*place, format!("`{place}` is required by json_schema: {what}.")))
            }
            None => match named.into_iter().find(|(_, there)| *there) {
                Some((name, _)) => {
                    let place = at(PATH, name);
                    let message = format!("`{place}` belongs to the type json_schema; remove it.");
                    Err(Error::invalid(place, message).with_code("unknown_parameter"))
                }
                None if self.kind == "text" => Ok(Format::Text),
                None => Ok(Format::JsonObject),
            },
        }
    }
}

fn padding(stream: bool, options: Option<ResponseStreamOptions>) -> Result<(), Error> {
    const PATH: &str = "stream_options";
    let Some(options) = options else { return Ok(()) };
    if !stream {
        return Err(Error::invalid(PATH, "`stream_options` needs `stream` to be true."));
    }
    settle(&fields::RESPONSE_STREAM_OPTIONS, PATH, options.rest)?;
    match options.include_obfuscation {
        Some(true) => Err(call::no_padding(PATH)),
        _ => Ok(()),
    }
}

fn unsupported(place: &str, message: String) -> Error {
    Error::invalid(place, message).with_code("unsupported_parameter")
}
