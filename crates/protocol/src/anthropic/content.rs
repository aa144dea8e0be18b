//! What a turn consists of: a string, or blocks of text, calls and results.

use std::fmt;

use schemars::JsonSchema;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{SeqAccess, Visitor, value::SeqAccessDeserializer},
};
use serde_json::Value;

use super::fields;
use crate::openai::schema::shapes;
use crate::{
    Error, ToolCall,
    openai::{
        Rest,
        body::{at, settle},
        fields::Object,
    },
};

/// `content`: a string or blocks.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// A string.
    Text(String),
    /// Blocks.
    Blocks(Vec<Block>),
}

impl Default for Content {
    fn default() -> Self {
        Self::Blocks(Vec::new())
    }
}

/// A block of a turn, of any type.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Block {
    /// `text`, `tool_use` or `tool_result`; `thinking` and `redacted_thinking` are accepted and not shown to the model.
    #[serde(rename = "type")]
    pub kind: String,
    /// The text of a text block.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The id of a call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The tool called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The arguments of a call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<Value>,
    /// The call a result belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_use_id: Option<String>,
    /// The content of a result.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<Content>,
    /// The tool failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub is_error: Option<bool>,
    /// Other fields.
    #[serde(flatten)]
    pub rest: Rest,
}

/// What a block says in plain words.
pub(super) enum Said {
    Text(String),
    Call(ToolCall),
    /// The call's id, and its result.
    Result(String, String),
    /// What an earlier answer thought: Anthropic's API does not show it to the model either.
    Thought,
}

impl Content {
    /// The texts of blocks that may only be text.
    pub(super) fn text(self, path: &str) -> Result<String, Error> {
        let blocks = match self {
            Self::Text(text) => return Ok(text),
            Self::Blocks(blocks) => blocks,
        };
        let one = |(i, block): (usize, Block)| {
            let path = format!("{path}[{i}]");
            match block.check(&path)? {
                Said::Text(text) => Ok(text),
                _ => {
                    let place = at(&path, "type");
                    Err(Error::invalid(&*place, format!("`{place}` must be text here.")))
                }
            }
        };
        Ok(blocks.into_iter().enumerate().map(one).collect::<Result<Vec<_>, _>>()?.join("\n"))
    }
}

impl Block {
    /// A block of text.
    pub fn text(text: impl Into<String>) -> Self {
        Self { kind: "text".to_owned(), text: Some(text.into()), ..Self::default() }
    }

    /// A call. Arguments that are no JSON object are sent as `{"arguments": TEXT}`, since the wire has no place for text.
    pub fn call(call: &ToolCall) -> Self {
        let input = match serde_json::from_str(&call.arguments) {
            Ok(input @ Value::Object(_)) => input,
            _ if call.arguments.trim().is_empty() => Value::Object(Rest::new()),
            _ => serde_json::json!({ "arguments": call.arguments }),
        };
        let (id, name) = (Some(call.id.clone()), Some(call.name.clone()));
        Self { kind: "tool_use".to_owned(), id, name, input: Some(input), ..Self::default() }
    }

    /// The result of the call named `id`.
    pub fn result(id: &str, content: &str) -> Self {
        let content = (!content.is_empty()).then(|| Content::Text(content.to_owned()));
        Self { kind: "tool_result".to_owned(), tool_use_id: Some(id.to_owned()), content, ..Self::default() }
    }

    /// What it says, or the field at fault below `path`.
    pub(super) fn check(self, path: &str) -> Result<Said, Error> {
        match self.kind.as_str() {
            "text" => {
                self.only(path, &fields::TEXT, &["text"])?;
                Ok(Said::Text(needed(path, "text", self.text)?))
            }
            "tool_use" => {
                self.only(path, &fields::TOOL_USE, &["id", "name", "input"])?;
                let arguments = arguments(&at(path, "input"), self.input)?;
                let (id, name) = (needed(path, "id", self.id)?, needed(path, "name", self.name)?);
                Ok(Said::Call(ToolCall { id, name, arguments }))
            }
            "tool_result" => {
                self.only(path, &fields::TOOL_RESULT, &["tool_use_id", "content", "is_error"])?;
                let id = needed(path, "tool_use_id", self.tool_use_id)?;
                let text = self.content.unwrap_or_default().text(&at(path, "content"))?;
                let failed = self.is_error == Some(true);
                Ok(Said::Result(id, if failed { format!("Error: {text}") } else { text }))
            }
            "thinking" | "redacted_thinking" => Ok(Said::Thought),
            kind => {
                let place = at(path, "type");
                let known = "this server reads text, tool_use and tool_result blocks";
                let message = format!("`{place}` \"{kind}\" is not supported: {known}.");
                Err(Error::invalid(place, message).with_code("unsupported_content"))
            }
        }
    }

    /// Refuses fields that blocks of this type do not have.
    fn only(&self, path: &str, object: &Object, own: &[&str]) -> Result<(), Error> {
        let there = [
            ("text", self.text.is_some()),
            ("id", self.id.is_some()),
            ("name", self.name.is_some()),
            ("input", self.input.is_some()),
            ("tool_use_id", self.tool_use_id.is_some()),
            ("content", self.content.is_some()),
            ("is_error", self.is_error.is_some()),
        ];
        if let Some((stray, _)) = there.into_iter().find(|(name, there)| *there && !own.contains(name)) {
            let place = at(path, stray);
            let message = format!("Unknown field `{place}`: {} has no such field; remove it.", object.name);
            return Err(Error::invalid(place, message).with_code("unknown_parameter"));
        }
        settle(object, path, self.rest.clone()).map(drop)
    }
}

/// JSON text of a call's arguments.
fn arguments(place: &str, input: Option<Value>) -> Result<String, Error> {
    match input {
        Some(Value::Object(input)) => Ok(Value::Object(input).to_string()),
        None => Ok("{}".to_owned()),
        Some(_) => Err(Error::invalid(place, format!("`{place}` must be an object: the arguments of the call."))),
    }
}

fn needed(path: &str, name: &str, value: Option<String>) -> Result<String, Error> {
    let place = at(path, name);
    value.ok_or_else(|| Error::invalid(&*place, format!("`{place}` is required: a string.")))
}

shapes!(Content, "Content": String, Vec<Block>);

impl Serialize for Content {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => serializer.serialize_str(text),
            Self::Blocks(blocks) => serializer.collect_seq(blocks),
        }
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ContentVisitor)
    }
}

struct ContentVisitor;

impl<'de> Visitor<'de> for ContentVisitor {
    type Value = Content;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or an array of blocks")
    }

    fn visit_str<E>(self, text: &str) -> Result<Content, E> {
        Ok(Content::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Content, A::Error> {
        Vec::deserialize(SeqAccessDeserializer::new(seq)).map(Content::Blocks)
    }
}
