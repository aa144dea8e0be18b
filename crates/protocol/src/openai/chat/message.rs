//! One turn of a conversation on the wire.

use std::fmt;

use schemars::JsonSchema;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{SeqAccess, Visitor, value::SeqAccessDeserializer},
};

use crate::openai::schema::Described;
use crate::openai::schema::closed;
use crate::openai::schema::shapes;
use crate::{
    Error, Message, ToolCall,
    openai::{
        body::{Rest, at, settle},
        fields,
    },
};

/// The roles a template may see.
const ROLES: [&str; 5] = ["system", "developer", "user", "assistant", "tool"];

/// A message of any role.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = Described(&fields::MESSAGE))]
#[serde(default)]
pub struct MessageBody {
    /// Who speaks.
    pub role: String,
    /// What is said.
    pub content: Option<ContentParts>,
    /// Who speaks, more exactly.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Calls made in an assistant's turn.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_calls: Option<Vec<ToolCallBody>>,
    /// The call a tool's turn answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
    /// An assistant's refusal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refusal: Option<String>,
    /// Other fields.
    #[serde(flatten)]
    pub rest: Rest,
}

/// `content`: a string or parts.
#[derive(Debug, Clone, PartialEq)]
pub enum ContentParts {
    /// A string.
    Text(String),
    /// Parts.
    Parts(Vec<ContentPart>),
}

/// A part of a message.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = closed)]
#[serde(default)]
pub struct ContentPart {
    /// `text`, or in an assistant's turn `refusal`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The text of a text part.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The text of a refusal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refusal: Option<String>,
    /// Other fields.
    #[serde(flatten)]
    pub rest: Rest,
}

/// A call made by the assistant.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = closed)]
#[serde(default)]
pub struct ToolCallBody {
    /// Unique within the conversation.
    pub id: String,
    /// `function`.
    #[serde(rename = "type")]
    pub kind: String,
    /// What was called.
    pub function: FunctionCall,
    /// Its place in a stream; clients that put streams together send it back.
    #[serde(skip_serializing)]
    pub index: Option<usize>,
    /// Fields without a meaning here.
    #[serde(flatten)]
    pub rest: Rest,
}

/// A function with arguments.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = Described(&fields::FUNCTION_CALL))]
#[serde(default)]
pub struct FunctionCall {
    /// Its name.
    pub name: String,
    /// JSON text.
    pub arguments: String,
    /// Fields without a meaning here.
    #[serde(flatten)]
    pub rest: Rest,
}

impl MessageBody {
    /// The plain message, or the field at fault below `path`.
    pub(super) fn check(self, path: &str) -> Result<Message, Error> {
        self.check_role(path)?;
        settle(&fields::MESSAGE, path, self.rest)?;
        let calls = self.tool_calls.unwrap_or_default().into_iter().enumerate();
        let tool_calls = calls.map(|(i, call)| call.check(&format!("{path}.tool_calls[{i}]")));
        let tool_calls: Vec<_> = tool_calls.collect::<Result<_, _>>()?;
        let assistant = self.role == "assistant";
        let content = self.content.map(|content| content.check(&at(path, "content"), assistant)).transpose()?;
        let content = content.or(self.refusal);
        if content.is_none() && tool_calls.is_empty() {
            let place = at(path, "content");
            return Err(Error::invalid(&*place, format!("`{place}` is required: a string or an array of text parts.")));
        }
        Ok(Message { role: self.role, content, name: self.name, tool_calls, tool_call_id: self.tool_call_id })
    }

    /// The role is known, and fields that belong to one role are on that role.
    fn check_role(&self, path: &str) -> Result<(), Error> {
        let place = at(path, "role");
        match self.role.as_str() {
            "function" => {
                let message = format!("`{place}` function was replaced by `tool`; send role tool with tool_call_id.");
                return Err(Error::invalid(place, message).with_code("unsupported_parameter"));
            }
            role if !ROLES.contains(&role) => {
                let message = format!("`{place}` is \"{role}\", but must be one of {}.", ROLES.join(", "));
                return Err(Error::invalid(place, message));
            }
            "tool" if self.tool_call_id.is_none() => {
                let place = at(path, "tool_call_id");
                return Err(Error::invalid(
                    &*place,
                    format!("`{place}` is required: the id of the call this answers."),
                ));
            }
            _ => {}
        }
        let owned = [
            ("tool_calls", self.tool_calls.as_ref().is_some_and(|calls| !calls.is_empty()), "assistant"),
            ("refusal", self.refusal.is_some(), "assistant"),
            ("tool_call_id", self.tool_call_id.is_some(), "tool"),
        ];
        match owned.into_iter().find(|(_, there, owner)| *there && self.role != *owner) {
            None => Ok(()),
            Some((field, _, owner)) => {
                let place = at(path, field);
                let message = format!("`{place}` belongs to messages of role {owner}, not {}.", self.role);
                Err(Error::invalid(place, message))
            }
        }
    }
}

impl ContentParts {
    fn check(self, path: &str, assistant: bool) -> Result<String, Error> {
        let parts = match self {
            Self::Text(text) => return Ok(text),
            Self::Parts(parts) => parts,
        };
        if parts.is_empty() {
            return Err(Error::invalid(path, format!("`{path}` is empty: give at least one text part.")));
        }
        let parts = parts.into_iter().enumerate();
        let texts = parts.map(|(i, part)| part.check(&format!("{path}[{i}]"), assistant));
        Ok(texts.collect::<Result<Vec<_>, _>>()?.join("\n"))
    }
}

impl ContentPart {
    fn check(self, path: &str, assistant: bool) -> Result<String, Error> {
        let (name, text, other) = match self.kind.as_str() {
            "text" => ("text", self.text, self.refusal.map(|_| "refusal")),
            "refusal" if assistant => ("refusal", self.refusal, self.text.map(|_| "text")),
            kind => {
                let message = format!("`{path}.type` \"{kind}\" is not supported: this server reads text parts only.");
                return Err(Error::invalid(at(path, "type"), message).with_code("unsupported_content"));
            }
        };
        if let Some(stray) = other.or(self.rest.keys().map(String::as_str).next()) {
            let place = at(path, stray);
            let message = format!("Unknown field `{place}`: a {name} part has no such field; remove it.");
            return Err(Error::invalid(place, message).with_code("unknown_parameter"));
        }
        let place = at(path, name);
        text.ok_or_else(|| Error::invalid(&*place, format!("`{place}` is required: a string.")))
    }
}

impl ToolCallBody {
    fn check(self, path: &str) -> Result<ToolCall, Error> {
        if !matches!(self.kind.as_str(), "function" | "") {
            let place = at(path, "type");
            let message = format!("`{place}` \"{}\" is not supported: calls of functions only.", self.kind);
            return Err(Error::invalid(place, message).with_code("unsupported_parameter"));
        }
        let name = self.function.name;
        let missing = [("id", self.id.is_empty()), ("function.name", name.is_empty())];
        if let Some((field, _)) = missing.into_iter().find(|(_, missing)| *missing) {
            let place = at(path, field);
            return Err(Error::invalid(&*place, format!("`{place}` is required.")));
        }
        nothing_else(path, &self.rest)?;
        settle(&fields::FUNCTION_CALL, &at(path, "function"), self.function.rest)?;
        Ok(ToolCall { id: self.id, name, arguments: self.function.arguments })
    }
}

/// Refuses what is left of an object without optional fields of its own.
pub(super) fn nothing_else(path: &str, rest: &Rest) -> Result<(), Error> {
    match rest.keys().next() {
        None => Ok(()),
        Some(name) => {
            let place = at(path, name);
            let message = format!("Unknown field `{place}`; remove it.");
            Err(Error::invalid(place, message).with_code("unknown_parameter"))
        }
    }
}

impl From<&Message> for MessageBody {
    fn from(message: &Message) -> Self {
        let calls = &message.tool_calls;
        Self {
            role: message.role.clone(),
            content: message.content.clone().map(ContentParts::Text),
            name: message.name.clone(),
            tool_calls: (!calls.is_empty()).then(|| calls.iter().cloned().map(ToolCallBody::from).collect()),
            tool_call_id: message.tool_call_id.clone(),
            ..Self::default()
        }
    }
}

impl From<ToolCall> for ToolCallBody {
    fn from(call: ToolCall) -> Self {
        let function = FunctionCall { name: call.name, arguments: call.arguments, rest: Rest::new() };
        Self { id: call.id, kind: "function".to_owned(), function, ..Self::default() }
    }
}

shapes!(ContentParts, "ContentParts": String, Vec<ContentPart>);

impl Serialize for ContentParts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => serializer.serialize_str(text),
            Self::Parts(parts) => serializer.collect_seq(parts),
        }
    }
}

impl<'de> Deserialize<'de> for ContentParts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ContentVisitor)
    }
}

struct ContentVisitor;

impl<'de> Visitor<'de> for ContentVisitor {
    type Value = ContentParts;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or an array of text parts")
    }

    fn visit_str<E>(self, text: &str) -> Result<ContentParts, E> {
        Ok(ContentParts::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<ContentParts, E> {
        Ok(ContentParts::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<ContentParts, A::Error> {
        Vec::deserialize(SeqAccessDeserializer::new(seq)).map(ContentParts::Parts)
    }
}
