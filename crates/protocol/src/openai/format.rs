//! `response_format`: OpenAI's three kinds, and ours for regular expressions and grammars.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{MapAccess, Visitor, value::MapAccessDeserializer},
};
use serde_json::Value;

use super::{
    body::{Rest, at},
    schema::{closed, shapes},
};
use crate::{Error, Format};

const PATH: &str = "response_format";

/// `{"type": .., ..}`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(transform = closed)]
pub struct ResponseFormat {
    /// `text`, `json_object`, `json_schema`; ours: `regex`, `lark`, `grammar`.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// For `json_schema`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub json_schema: Option<JsonSchema>,
    /// For `regex`: what the whole answer must match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub regex: Option<String>,
    /// For `lark` and `grammar`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grammar: Option<Grammar>,
    /// Fields without a meaning here.
    #[serde(flatten)]
    pub rest: Rest,
}

/// A schema with its name.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(transform = closed, rename = "NamedSchema")]
pub struct JsonSchema {
    /// Required by OpenAI; not shown to the model.
    #[serde(default)]
    pub name: String,
    /// Not shown to the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The schema; without one any JSON object will do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<Value>,
    /// Schemas are always enforced, so both values are fine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strict: Option<bool>,
    /// Fields without a meaning here.
    #[serde(flatten)]
    pub rest: Rest,
}

/// A grammar: Lark's text alone, or OpenAI's `{"syntax": "lark" | "regex", "definition": ".."}`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Grammar {
    /// `lark` or `regex`.
    pub syntax: String,
    /// The grammar's text.
    pub definition: String,
}

impl ResponseFormat {
    /// The plain format, or what is wrong with this one.
    pub(super) fn check(self) -> Result<Format, Error> {
        let format = match self.kind.as_str() {
            "text" => Format::Text,
            "json_object" => Format::JsonObject,
            "json_schema" => self.json_schema.as_ref().ok_or_else(|| needs("json_schema"))?.check()?,
            "regex" => Format::Regex(self.regex.clone().ok_or_else(|| needs("regex"))?),
            "lark" | "grammar" => self.grammar.clone().ok_or_else(|| needs("grammar"))?.check()?,
            other => return Err(unknown_kind(other)),
        };
        self.nothing_else()?;
        Ok(format)
    }

    /// A field that belongs to another kind would be ignored: refuse it instead.
    fn nothing_else(&self) -> Result<(), Error> {
        let wanted = match self.kind.as_str() {
            "lark" => "grammar",
            kind => kind,
        };
        let present = [
            ("json_schema", self.json_schema.is_some()),
            ("regex", self.regex.is_some()),
            ("grammar", self.grammar.is_some()),
        ];
        let known = present.into_iter().filter(|(name, there)| *there && *name != wanted).map(|(name, _)| name);
        match known.chain(self.rest.keys().map(String::as_str)).next() {
            None => Ok(()),
            Some(name) => Err(stray(PATH, name, &self.kind)),
        }
    }

    /// The wire form of a plain format; `None` for plain text.
    pub(super) fn show(format: &Format) -> Option<Self> {
        let of = |kind: &str| Self { kind: kind.to_owned(), ..Self::default() };
        Some(match format {
            Format::Text => return None,
            Format::JsonObject => of("json_object"),
            Format::JsonSchema(schema) => {
                let schema =
                    JsonSchema { name: "answer".into(), schema: Some(schema.clone()), ..JsonSchema::default() };
                Self { json_schema: Some(schema), ..of("json_schema") }
            }
            Format::Regex(regex) => Self { regex: Some(regex.clone()), ..of("regex") },
            Format::Lark(grammar) => {
                let grammar = Grammar { syntax: "lark".into(), definition: grammar.clone() };
                Self { grammar: Some(grammar), ..of("grammar") }
            }
        })
    }
}

impl JsonSchema {
    fn check(&self) -> Result<Format, Error> {
        let path = at(PATH, "json_schema");
        if self.name.is_empty() {
            let place = at(&path, "name");
            return Err(Error::invalid(&*place, format!("`{place}` is required: any word, such as \"answer\".")));
        }
        if let Some(name) = self.rest.keys().next() {
            return Err(stray(&path, name, "json_schema"));
        }
        match &self.schema {
            None => Ok(Format::JsonObject),
            Some(schema @ (Value::Object(_) | Value::Bool(_))) => Ok(Format::JsonSchema(schema.clone())),
            Some(_) => {
                let place = at(&path, "schema");
                Err(Error::invalid(&*place, format!("`{place}` must be a JSON schema, that is an object.")))
            }
        }
    }
}

impl Grammar {
    fn check(self) -> Result<Format, Error> {
        match self.syntax.as_str() {
            "lark" => Ok(Format::Lark(self.definition)),
            "regex" => Ok(Format::Regex(self.definition)),
            other => {
                let place = at(PATH, "grammar.syntax");
                Err(Error::invalid(&*place, format!("`{place}` is \"{other}\", but must be lark or regex.")))
            }
        }
    }
}

fn needs(field: &str) -> Error {
    let place = at(PATH, field);
    Error::invalid(&*place, format!("`{place}` is required by this type of `{PATH}`."))
}

fn stray(path: &str, name: &str, kind: &str) -> Error {
    let place = at(path, name);
    let message = format!("Unknown field `{place}`: a `{PATH}` of type {kind} has no such field; remove it.");
    Error::invalid(place, message).with_code("unknown_parameter")
}

fn unknown_kind(kind: &str) -> Error {
    let place = at(PATH, "type");
    let kinds = "text, json_object, json_schema, regex, lark or grammar";
    Error::invalid(&*place, format!("`{place}` is \"{kind}\", but must be {kinds}."))
}

shapes!(Grammar, "Grammar": String, Written);

impl<'de> Deserialize<'de> for Grammar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(GrammarVisitor)
    }
}

struct GrammarVisitor;

/// The object form.
#[derive(Deserialize, schemars::JsonSchema)]
#[schemars(rename = "GrammarObject")]
#[serde(deny_unknown_fields)]
struct Written {
    syntax: String,
    definition: String,
}

impl<'de> Visitor<'de> for GrammarVisitor {
    type Value = Grammar;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a Lark grammar, or an object with syntax and definition")
    }

    fn visit_str<E>(self, text: &str) -> Result<Grammar, E> {
        Ok(Grammar { syntax: "lark".to_owned(), definition: text.to_owned() })
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Grammar, A::Error> {
        let Written { syntax, definition } = Written::deserialize(MapAccessDeserializer::new(map))?;
        Ok(Grammar { syntax, definition })
    }
}
