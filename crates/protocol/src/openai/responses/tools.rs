//! Tools and the choice between them, in the flat form of this dialect.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::openai::schema::Described;
use crate::{
    Error, Tool, ToolChoice,
    openai::{
        TextOr,
        body::{Rest, at, settle},
        chat::tools::{check_name, known, mode_of, nothing_twice, schema},
        fields,
        text_or::Shape,
    },
};

const CHOICE: &str = "tool_choice";

/// A function the model may call. Hosted tools are refused by their type.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = Described(&fields::RESPONSE_TOOL))]
#[serde(default)]
pub struct FunctionToolBody {
    /// `function`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its name: letters, digits, `_` and `-`, at most 64.
    pub name: String,
    /// What it does, for the model to read.
    pub description: Option<String>,
    /// JSON schema of its arguments.
    pub parameters: Option<Value>,
    /// Arguments must follow the schema.
    pub strict: Option<bool>,
    /// Other fields.
    #[serde(flatten)]
    pub rest: Rest,
}

/// The object form of `tool_choice`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = Described(&fields::RESPONSE_TOOL_CHOICE))]
#[serde(default)]
pub struct ChoiceBody {
    /// `function` or `allowed_tools`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The function that must be called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// For `allowed_tools`: `auto` or `required`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// For `allowed_tools`: the tools, by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tools: Option<Vec<AllowedBody>>,
    /// Fields without a meaning here.
    #[serde(flatten)]
    pub rest: Rest,
}

impl Shape for ChoiceBody {
    const WORDS: &'static str = "an object";
}

/// A tool that may be called, by its name.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = Described(&fields::RESPONSE_ALLOWED_TOOL))]
#[serde(default)]
pub struct AllowedBody {
    /// `function`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Fields without a meaning here.
    #[serde(flatten)]
    pub rest: Rest,
}

/// The plain tools and choice, or the field at fault.
pub(super) fn check(
    tools: Vec<FunctionToolBody>,
    choice: Option<TextOr<ChoiceBody>>,
) -> Result<(Vec<Tool>, ToolChoice), Error> {
    let tools = tools.into_iter().enumerate().map(|(i, tool)| tool.check(&format!("tools[{i}]")));
    let tools: Vec<Tool> = tools.collect::<Result<_, _>>()?;
    nothing_twice(&tools, |i| format!("tools[{i}].name"))?;
    match choice {
        None => Ok((tools, ToolChoice::Auto)),
        Some(TextOr::Text(mode)) => {
            let choice = mode_of(&mode, CHOICE, &tools)?;
            Ok((tools, choice))
        }
        Some(TextOr::Other(object)) => object.check(tools),
    }
}

impl FunctionToolBody {
    fn check(self, path: &str) -> Result<Tool, Error> {
        functions_only(&self.kind, path)?;
        settle(&fields::RESPONSE_TOOL, path, self.rest)?;
        check_name(&at(path, "name"), &self.name)?;
        let parameters = schema(path, self.parameters)?;
        Ok(Tool { name: self.name, description: self.description, parameters, strict: self.strict.unwrap_or(false) })
    }
}

fn functions_only(kind: &str, path: &str) -> Result<(), Error> {
    if kind == "function" {
        return Ok(());
    }
    let place = at(path, "type");
    let message = format!("`{place}` \"{kind}\" is not supported: no tools are hosted here; tools are functions.");
    Err(Error::invalid(place, message).with_code("unsupported_parameter"))
}

impl ChoiceBody {
    fn check(self, tools: Vec<Tool>) -> Result<(Vec<Tool>, ToolChoice), Error> {
        settle(&fields::RESPONSE_TOOL_CHOICE, CHOICE, self.rest)?;
        match (self.kind.as_str(), self.name, self.mode, self.tools) {
            ("function", Some(name), None, None) => {
                known(&at(CHOICE, "name"), &name, &tools)?;
                Ok((tools, ToolChoice::Named(name)))
            }
            ("allowed_tools", None, Some(mode), Some(allowed)) => only(&allowed, &mode, tools),
            (kind, ..) => {
                let message = format!(
                    "`{CHOICE}` of type \"{kind}\" is not understood: send {{\"type\": \"function\", \"name\": ..}} or \
                     {{\"type\": \"allowed_tools\", \"mode\": .., \"tools\": [..]}}."
                );
                Err(Error::invalid(CHOICE, message))
            }
        }
    }
}

/// The model sees only the allowed tools.
fn only(allowed: &[AllowedBody], mode: &str, tools: Vec<Tool>) -> Result<(Vec<Tool>, ToolChoice), Error> {
    for (i, tool) in allowed.iter().enumerate() {
        let path = format!("{CHOICE}.tools[{i}]");
        functions_only(&tool.kind, &path)?;
        settle(&fields::RESPONSE_ALLOWED_TOOL, &path, tool.rest.clone())?;
        known(&at(&path, "name"), &tool.name, &tools)?;
    }
    let place = at(CHOICE, "mode");
    if mode == "none" {
        return Err(Error::invalid(&*place, format!("`{place}` must be auto or required.")));
    }
    let tools: Vec<Tool> = tools.into_iter().filter(|tool| allowed.iter().any(|a| a.name == tool.name)).collect();
    let choice = mode_of(mode, &place, &tools)?;
    Ok((tools, choice))
}
