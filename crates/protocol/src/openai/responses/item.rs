//! The items of `input` and how they become turns.
//!
//! Turns, calls and results of calls stand beside each other in one list. A call belongs to the assistant's turn in front of it,
//! so calls join that turn, or open one.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::openai::schema::{Described, any_of, typed};
use crate::{
    Error, Message, ToolCall,
    openai::{
        TextOr,
        body::{Rest, at, decode_at, settle},
        fields,
        text_or::Shape,
    },
};

/// The items of `input`. Each is decoded once its type is known.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct InputItems(pub Vec<Rest>);

impl Shape for InputItems {
    const WORDS: &'static str = "an array of items";
}

impl JsonSchema for InputItems {
    fn schema_name() -> Cow<'static, str> {
        "InputItems".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let items = any_of(vec![
            typed::<MessageItem>(generator, "message", true),
            typed::<CallItem>(generator, "function_call", false),
            typed::<CallOutputItem>(generator, "function_call_output", false),
        ]);
        json_schema!({"type": "array", "items": items})
    }
}

/// A turn; its type `message` may be left out.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = Described(&fields::RESPONSE_MESSAGE))]
#[serde(default)]
pub struct MessageItem {
    /// Who speaks: `system`, `developer`, `user` or `assistant`.
    pub role: String,
    /// What is said.
    pub content: Option<TextOr<Parts>>,
    /// Other fields.
    #[serde(flatten)]
    pub rest: Rest,
}

/// A call the model made; its type is `function_call`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = Described(&fields::RESPONSE_CALL))]
#[serde(default)]
pub struct CallItem {
    /// Unique within the conversation.
    pub call_id: String,
    /// The function's name.
    pub name: String,
    /// JSON text.
    pub arguments: String,
    /// Other fields.
    #[serde(flatten)]
    pub rest: Rest,
}

/// What a call came to; its type is `function_call_output`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = Described(&fields::RESPONSE_CALL_OUTPUT))]
#[serde(default)]
pub struct CallOutputItem {
    /// The call this answers.
    pub call_id: String,
    /// What came of it.
    pub output: Option<TextOr<Parts>>,
    /// Other fields.
    #[serde(flatten)]
    pub rest: Rest,
}

/// Parts of a content.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Parts(pub Vec<PartBody>);

impl Shape for Parts {
    const WORDS: &'static str = "an array of text parts";
}

/// A part of a content.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = Described(&fields::RESPONSE_PART))]
#[serde(default)]
pub struct PartBody {
    /// `input_text`, or in an assistant's turn `output_text` or `refusal`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The text of a refusal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refusal: Option<String>,
    /// Other fields.
    #[serde(flatten)]
    pub rest: Rest,
}

/// The turns that `input` stands for.
pub(super) fn messages(input: TextOr<InputItems>) -> Result<Vec<Message>, Error> {
    let items = match input {
        TextOr::Text(text) => return Ok(vec![turn("user", Some(text))]),
        TextOr::Other(InputItems(items)) => items,
    };
    if items.is_empty() {
        return Err(Error::invalid("input", "`input` is empty: give at least one item."));
    }
    let mut messages = Vec::new();
    for (i, item) in items.into_iter().enumerate() {
        add(&mut messages, item, &format!("input[{i}]"))?;
    }
    Ok(messages)
}

fn turn(role: &str, content: Option<String>) -> Message {
    Message { role: role.to_owned(), content, ..Message::default() }
}

fn add(messages: &mut Vec<Message>, mut item: Rest, path: &str) -> Result<(), Error> {
    let kind = item.remove("type").unwrap_or(Value::Null);
    match (&kind, kind.as_str()) {
        (Value::Null, _) | (_, Some("message")) => messages.push(decode_at::<MessageItem>(path, item)?.check(path)?),
        (_, Some("function_call")) => {
            let call = decode_at::<CallItem>(path, item)?.check(path)?;
            match messages.last_mut() {
                Some(last) if last.role == "assistant" => last.tool_calls.push(call),
                _ => messages.push(Message { tool_calls: vec![call], ..turn("assistant", None) }),
            }
        }
        (_, Some("function_call_output")) => {
            messages.push(decode_at::<CallOutputItem>(path, item)?.check(path)?);
        }
        _ => return Err(foreign(path, &kind)),
    }
    Ok(())
}

fn foreign(path: &str, kind: &Value) -> Error {
    let place = at(path, "type");
    let why = match kind.as_str() {
        Some("item_reference") => "nothing is stored here that could be referred to; send the item itself",
        Some("reasoning") => "another server's reasoning cannot be read here; leave the item out",
        _ => "items here are message, function_call and function_call_output",
    };
    Error::invalid(&*place, format!("`{place}` {kind} is not supported: {why}.")).with_code("unsupported_parameter")
}

impl MessageItem {
    fn check(self, path: &str) -> Result<Message, Error> {
        const ROLES: [&str; 4] = ["system", "developer", "user", "assistant"];
        settle(&fields::RESPONSE_MESSAGE, path, self.rest)?;
        if !ROLES.contains(&self.role.as_str()) {
            let place = at(path, "role");
            let message = format!("`{place}` is \"{}\", but must be one of {}.", self.role, ROLES.join(", "));
            return Err(Error::invalid(place, message));
        }
        let place = at(path, "content");
        let content = required(self.content, &place)?.check(&place, self.role == "assistant")?;
        Ok(turn(&self.role, Some(content)))
    }
}

impl CallItem {
    fn check(self, path: &str) -> Result<ToolCall, Error> {
        settle(&fields::RESPONSE_CALL, path, self.rest)?;
        let missing = [("call_id", self.call_id.is_empty()), ("name", self.name.is_empty())];
        if let Some((field, _)) = missing.into_iter().find(|(_, missing)| *missing) {
            let place = at(path, field);
            return Err(Error::invalid(&*place, format!("`{place}` is required.")));
        }
        Ok(ToolCall { id: self.call_id, name: self.name, arguments: self.arguments })
    }
}

impl CallOutputItem {
    fn check(self, path: &str) -> Result<Message, Error> {
        settle(&fields::RESPONSE_CALL_OUTPUT, path, self.rest)?;
        if self.call_id.is_empty() {
            let place = at(path, "call_id");
            return Err(Error::invalid(&*place, format!("`{place}` is required: the id of the call this answers.")));
        }
        let place = at(path, "output");
        let content = required(self.output, &place)?.check(&place, false)?;
        Ok(Message { tool_call_id: Some(self.call_id), ..turn("tool", Some(content)) })
    }
}

fn required(content: Option<TextOr<Parts>>, place: &str) -> Result<TextOr<Parts>, Error> {
    content.ok_or_else(|| Error::invalid(place, format!("`{place}` is required: a string or an array of text parts.")))
}

impl TextOr<Parts> {
    fn check(self, path: &str, assistant: bool) -> Result<String, Error> {
        let parts = match self {
            Self::Text(text) => return Ok(text),
            Self::Other(Parts(parts)) => parts,
        };
        if parts.is_empty() {
            return Err(Error::invalid(path, format!("`{path}` is empty: give at least one text part.")));
        }
        let parts = parts.into_iter().enumerate();
        let texts = parts.map(|(i, part)| part.check(&format!("{path}[{i}]"), assistant));
        Ok(texts.collect::<Result<Vec<_>, _>>()?.join("\n"))
    }
}

impl PartBody {
    fn check(self, path: &str, assistant: bool) -> Result<String, Error> {
        let (name, text, other) = match self.kind.as_str() {
            "input_text" if !assistant => ("text", self.text, self.refusal.map(|_| "refusal")),
            "output_text" if assistant => ("text", self.text, self.refusal.map(|_| "refusal")),
            "refusal" if assistant => ("refusal", self.refusal, self.text.map(|_| "text")),
            kind => {
                let place = at(path, "type");
                let may = if assistant { "output_text and refusal" } else { "input_text" };
                let message = format!("`{place}` \"{kind}\" is not supported here: this turn may hold {may}.");
                return Err(Error::invalid(place, message).with_code("unsupported_content"));
            }
        };
        settle(&fields::RESPONSE_PART, path, self.rest)?;
        if let Some(stray) = other {
            let place = at(path, stray);
            let message = format!("Unknown field `{place}`: this part has no such field; remove it.");
            return Err(Error::invalid(place, message).with_code("unknown_parameter"));
        }
        let place = at(path, name);
        text.ok_or_else(|| Error::invalid(&*place, format!("`{place}` is required: a string.")))
    }
}
