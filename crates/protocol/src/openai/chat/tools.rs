//! Tools on the wire, and which of them may or must be called.

use std::fmt;

use schemars::JsonSchema;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, Visitor, value::MapAccessDeserializer},
};
use serde_json::Value;

use super::message::nothing_else;
use crate::openai::schema::closed;
use crate::openai::schema::shapes;
use crate::{
    Error, Tool, ToolChoice,
    openai::body::{Rest, at},
};

const CHOICE: &str = "tool_choice";

/// A tool.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = closed)]
#[serde(default)]
pub struct ToolBody {
    /// `function`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The function.
    pub function: FunctionBody,
    /// Fields without a meaning here.
    #[serde(flatten)]
    pub rest: Rest,
}

/// A function the model may call.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = closed)]
#[serde(default)]
pub struct FunctionBody {
    /// Its name: letters, digits, `_` and `-`, at most 64.
    pub name: String,
    /// What it does, for the model to read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// JSON schema of its arguments.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameters: Option<Value>,
    /// Arguments must follow the schema.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strict: Option<bool>,
    /// Fields without a meaning here.
    #[serde(flatten)]
    pub rest: Rest,
}

/// `tool_choice`: a mode or an object.
#[derive(Debug, Clone, PartialEq)]
pub enum ToolChoiceBody {
    /// `none`, `auto` or `required`.
    Mode(String),
    /// A named function, or a set of allowed ones.
    Object(Box<ToolChoiceObject>),
}

/// The object form of `tool_choice`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = closed)]
#[serde(default)]
pub struct ToolChoiceObject {
    /// `function` or `allowed_tools`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The function that must be called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub function: Option<FunctionName>,
    /// The tools that may be called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed_tools: Option<AllowedTools>,
    /// Fields without a meaning here.
    #[serde(flatten)]
    pub rest: Rest,
}

/// A function by its name.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = closed)]
#[serde(default)]
pub struct FunctionName {
    /// The name.
    pub name: String,
    /// Fields without a meaning here.
    #[serde(flatten)]
    pub rest: Rest,
}

/// Some of the tools, and whether one must be called.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = closed)]
#[serde(default)]
pub struct AllowedTools {
    /// `auto` or `required`.
    pub mode: String,
    /// The tools, by name.
    pub tools: Vec<ToolBody>,
    /// Fields without a meaning here.
    #[serde(flatten)]
    pub rest: Rest,
}

/// The plain tools and choice, or the field at fault.
pub(super) fn check(tools: Vec<ToolBody>, choice: Option<ToolChoiceBody>) -> Result<(Vec<Tool>, ToolChoice), Error> {
    let tools = tools.into_iter().enumerate().map(|(i, tool)| tool.check(&format!("tools[{i}]")));
    let tools: Vec<Tool> = tools.collect::<Result<_, _>>()?;
    nothing_twice(&tools, |i| format!("tools[{i}].function.name"))?;
    match choice {
        None => Ok((tools, ToolChoice::Auto)),
        Some(ToolChoiceBody::Mode(mode)) => {
            let choice = mode_of(&mode, CHOICE, &tools)?;
            Ok((tools, choice))
        }
        Some(ToolChoiceBody::Object(object)) => object.check(tools),
    }
}

/// Refuses two tools of one name; `place` is where the name of a tool stands.
pub(in crate::openai) fn nothing_twice(tools: &[Tool], place: impl Fn(usize) -> String) -> Result<(), Error> {
    match (1..tools.len()).find(|&i| tools[..i].iter().any(|before| before.name == tools[i].name)) {
        None => Ok(()),
        Some(i) => {
            let place = place(i);
            let message = format!("`{place}`: there are two functions called \"{}\".", tools[i].name);
            Err(Error::invalid(place, message))
        }
    }
}

pub(in crate::openai) fn mode_of(mode: &str, path: &str, tools: &[Tool]) -> Result<ToolChoice, Error> {
    match mode {
        "none" => Ok(ToolChoice::None),
        "auto" => Ok(ToolChoice::Auto),
        "required" if tools.is_empty() => {
            Err(Error::invalid(path, format!("`{path}` is required, but there are no `tools` to call.")))
        }
        "required" => Ok(ToolChoice::Required),
        other => {
            let message = format!("`{path}` is \"{other}\", but must be none, auto, required or an object.");
            Err(Error::invalid(path, message))
        }
    }
}

impl ToolBody {
    fn check(self, path: &str) -> Result<Tool, Error> {
        if self.kind != "function" {
            let place = at(path, "type");
            let message =
                format!("`{place}` is \"{}\", but must be function: there are no other tools here.", self.kind);
            return Err(Error::invalid(place, message).with_code("unsupported_parameter"));
        }
        nothing_else(path, &self.rest)?;
        let path = at(path, "function");
        nothing_else(&path, &self.function.rest)?;
        let FunctionBody { name, description, parameters, strict, .. } = self.function;
        check_name(&at(&path, "name"), &name)?;
        let parameters = schema(&path, parameters)?;
        Ok(Tool { name, description, parameters, strict: strict.unwrap_or(false) })
    }
}

/// The `parameters` of the function at `path`.
pub(in crate::openai) fn schema(path: &str, parameters: Option<Value>) -> Result<Option<Value>, Error> {
    if parameters.as_ref().is_some_and(|p| !p.is_object()) {
        let place = at(path, "parameters");
        return Err(Error::invalid(&*place, format!("`{place}` must be a JSON schema, that is an object.")));
    }
    Ok(parameters)
}

pub(in crate::openai) fn check_name(place: &str, name: &str) -> Result<(), Error> {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if name.is_empty() || name.len() > 64 || !name.chars().all(fits) {
        let message = format!("`{place}` must be 1 to 64 letters, digits, `_` or `-`.");
        return Err(Error::invalid(place, message));
    }
    Ok(())
}

impl ToolChoiceObject {
    fn check(self, tools: Vec<Tool>) -> Result<(Vec<Tool>, ToolChoice), Error> {
        nothing_else(CHOICE, &self.rest)?;
        match (self.kind.as_str(), self.function, self.allowed_tools) {
            ("function", Some(function), None) => {
                let path = at(CHOICE, "function");
                nothing_else(&path, &function.rest)?;
                known(&at(&path, "name"), &function.name, &tools)?;
                Ok((tools, ToolChoice::Named(function.name)))
            }
            ("allowed_tools", None, Some(allowed)) => allowed.check(tools),
            (kind, ..) => {
                let message = format!(
                    "`{CHOICE}` of type \"{kind}\" is not understood: send {{\"type\": \"function\", \"function\": \
                     {{\"name\": ..}}}} or {{\"type\": \"allowed_tools\", \"allowed_tools\": {{..}}}}."
                );
                Err(Error::invalid(CHOICE, message))
            }
        }
    }
}

impl AllowedTools {
    /// The model sees only the allowed tools.
    fn check(self, tools: Vec<Tool>) -> Result<(Vec<Tool>, ToolChoice), Error> {
        let path = at(CHOICE, "allowed_tools");
        nothing_else(&path, &self.rest)?;
        for (i, tool) in self.tools.iter().enumerate() {
            known(&format!("{path}.tools[{i}].function.name"), &tool.function.name, &tools)?;
        }
        let allowed = |tool: &Tool| self.tools.iter().any(|t| t.function.name == tool.name);
        let tools: Vec<Tool> = tools.into_iter().filter(allowed).collect();
        let mode = at(&path, "mode");
        if self.mode == "none" {
            return Err(Error::invalid(&*mode, format!("`{mode}` must be auto or required.")));
        }
        let choice = mode_of(&self.mode, &mode, &tools)?;
        Ok((tools, choice))
    }
}

pub(in crate::openai) fn known(place: &str, name: &str, tools: &[Tool]) -> Result<(), Error> {
    if tools.iter().any(|tool| tool.name == name) {
        return Ok(());
    }
    Err(Error::invalid(place, format!("`{place}`: \"{name}\" is not one of the `tools` of this request.")))
}

impl ToolChoiceBody {
    /// The wire form of a plain choice; `None` for the default.
    pub(super) fn show(choice: &ToolChoice) -> Option<Self> {
        match choice {
            ToolChoice::Auto => None,
            ToolChoice::None => Some(Self::Mode("none".to_owned())),
            ToolChoice::Required => Some(Self::Mode("required".to_owned())),
            ToolChoice::Named(name) => {
                let function = FunctionName { name: name.clone(), rest: Rest::new() };
                let kind = "function".to_owned();
                let object = ToolChoiceObject { kind, function: Some(function), ..ToolChoiceObject::default() };
                Some(Self::Object(Box::new(object)))
            }
        }
    }
}

impl From<&Tool> for ToolBody {
    fn from(tool: &Tool) -> Self {
        let function = FunctionBody {
            name: tool.name.clone(),
            description: tool.description.clone(),
            parameters: tool.parameters.clone(),
            strict: tool.strict.then_some(true),
            rest: Rest::new(),
        };
        Self { kind: "function".to_owned(), function, rest: Rest::new() }
    }
}

shapes!(ToolChoiceBody, "ToolChoice": String, ToolChoiceObject);

impl Serialize for ToolChoiceBody {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Mode(mode) => serializer.serialize_str(mode),
            Self::Object(object) => object.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for ToolChoiceBody {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ChoiceVisitor)
    }
}

struct ChoiceVisitor;

impl<'de> Visitor<'de> for ChoiceVisitor {
    type Value = ToolChoiceBody;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or an object")
    }

    fn visit_str<E>(self, mode: &str) -> Result<ToolChoiceBody, E> {
        Ok(ToolChoiceBody::Mode(mode.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ToolChoiceBody, A::Error> {
        ToolChoiceObject::deserialize(MapAccessDeserializer::new(map)).map(|o| ToolChoiceBody::Object(Box::new(o)))
    }
}
