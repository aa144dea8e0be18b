//! Tools, and which of them may or must be called.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::fields;
use crate::openai::schema::Described;
use crate::openai::schema::closed;
use crate::{
    Error, Tool, ToolChoice,
    openai::{
        Rest,
        body::{at, settle},
    },
};

const CHOICE: &str = "tool_choice";

/// A tool.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "MessagesTool")]
#[schemars(transform = Described(&fields::TOOL))]
#[serde(default)]
pub struct ToolBody {
    /// `custom`, or absent.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Its name.
    pub name: String,
    /// What it does, for the model to read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// JSON schema of its arguments.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_schema: Option<Value>,
    /// Arguments must follow the schema.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strict: Option<bool>,
    /// Other fields.
    #[serde(flatten)]
    pub rest: Rest,
}

/// `tool_choice`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "MessagesToolChoice")]
#[schemars(transform = closed)]
#[serde(default)]
pub struct ToolChoiceBody {
    /// `auto`, `any`, `tool` or `none`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The tool that must be called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// At most one call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disable_parallel_tool_use: Option<bool>,
    /// Other fields.
    #[serde(flatten)]
    pub rest: Rest,
}

/// The plain tools, or the field at fault.
pub(super) fn check(tools: Vec<ToolBody>) -> Result<Vec<Tool>, Error> {
    let tools = tools.into_iter().enumerate().map(|(i, tool)| tool.check(&format!("tools[{i}]")));
    let tools: Vec<Tool> = tools.collect::<Result<_, _>>()?;
    match (1..tools.len()).find(|&i| tools[..i].iter().any(|before| before.name == tools[i].name)) {
        None => Ok(tools),
        Some(i) => {
            let place = format!("tools[{i}].name");
            let message = format!("`{place}`: there are two tools called \"{}\".", tools[i].name);
            Err(Error::invalid(place, message))
        }
    }
}

impl ToolBody {
    fn check(self, path: &str) -> Result<Tool, Error> {
        if let Some(kind) = self.kind.filter(|kind| kind != "custom") {
            let place = at(path, "type");
            let message = format!("`{place}` \"{kind}\" is not supported: only tools of the caller can be called.");
            return Err(Error::invalid(place, message).with_code("unsupported_parameter"));
        }
        settle(&fields::TOOL, path, self.rest)?;
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if self.name.is_empty() || self.name.len() > 64 || !self.name.chars().all(fits) {
            let place = at(path, "name");
            return Err(Error::invalid(&*place, format!("`{place}` must be 1 to 64 letters, digits, `_` or `-`.")));
        }
        if self.input_schema.as_ref().is_some_and(|schema| !schema.is_object()) {
            let place = at(path, "input_schema");
            return Err(Error::invalid(&*place, format!("`{place}` must be a JSON schema, that is an object.")));
        }
        let strict = self.strict.unwrap_or(false);
        Ok(Tool { name: self.name, description: self.description, parameters: self.input_schema, strict })
    }
}

impl From<&Tool> for ToolBody {
    /// The wire requires a schema; without arguments it is that of an object without properties.
    fn from(tool: &Tool) -> Self {
        let none = || serde_json::json!({ "type": "object", "properties": {} });
        Self {
            name: tool.name.clone(),
            description: tool.description.clone(),
            input_schema: Some(tool.parameters.clone().unwrap_or_else(none)),
            strict: tool.strict.then_some(true),
            ..Self::default()
        }
    }
}

impl ToolChoiceBody {
    /// The plain choice, and whether several calls are allowed.
    pub(super) fn check(self, tools: &[Tool]) -> Result<(ToolChoice, bool), Error> {
        if let Some(name) = self.rest.keys().next() {
            let place = at(CHOICE, name);
            let message = format!("Unknown field `{place}`; remove it.");
            return Err(Error::invalid(place, message).with_code("unknown_parameter"));
        }
        let parallel = !self.disable_parallel_tool_use.unwrap_or(false);
        let choice = match (self.kind.as_str(), self.name) {
            ("auto", None) => ToolChoice::Auto,
            ("none", None) => ToolChoice::None,
            ("any", None) if tools.is_empty() => {
                return Err(Error::invalid(CHOICE, format!("`{CHOICE}` is any, but there are no `tools` to call.")));
            }
            ("any", None) => ToolChoice::Required,
            ("tool", Some(name)) if tools.iter().any(|tool| tool.name == name) => ToolChoice::Named(name),
            ("tool", Some(name)) => {
                let place = at(CHOICE, "name");
                let message = format!("`{place}`: \"{name}\" is not one of the `tools` of this request.");
                return Err(Error::invalid(place, message));
            }
            (kind, _) => {
                let message = format!(
                    "`{CHOICE}` of type \"{kind}\" is not understood: send auto, any, none, or \
                     {{\"type\": \"tool\", \"name\": ..}}."
                );
                return Err(Error::invalid(CHOICE, message));
            }
        };
        Ok((choice, parallel))
    }

    /// The wire form of a plain choice; `None` for the default.
    pub(super) fn show(choice: &ToolChoice, parallel: bool) -> Option<Self> {
        let disable_parallel_tool_use = (!parallel).then_some(true);
        let of = |kind: &str| Self { kind: kind.to_owned(), disable_parallel_tool_use, ..Self::default() };
        Some(match choice {
            ToolChoice::Auto if parallel => return None,
            ToolChoice::Auto => of("auto"),
            ToolChoice::None => Self { kind: "none".to_owned(), ..Self::default() },
            ToolChoice::Required => of("any"),
            ToolChoice::Named(name) => Self { name: Some(name.clone()), ..of("tool") },
        })
    }
}
