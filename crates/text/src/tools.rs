//! Tool calls: what a model is told, what it may answer, and how its answer is read.
//!
//! Models write calls as text, each family in its own form ([`ToolFormat`]). A model whose template lays out tools is
//! told by its template; any other by [`fold_tools`], which writes them into the system prompt and turns earlier calls and
//! results into text. [`tool_grammar`] holds an answer to the form, with arguments valid under the tool's schema, and
//! [`ToolParser`] takes the calls out of the answer while it streams.

mod parser;

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::constraint::one_layout;
use crate::{ChatTemplate, Constraint};
pub use parser::{ToolEvent, ToolParser};

/// A function the model may call.
#[derive(Debug, Clone, PartialEq)]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// What it does, for the model to read.
    pub description: Option<String>,
    /// JSON schema of its arguments; `None` means no arguments.
    pub parameters: Option<Value>,
}

/// Whether the answer calls tools.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToolChoice {
    /// The model decides.
    Auto,
    /// At least one call, of any tool.
    Required,
    /// A call of this tool.
    Named(String),
}

/// The form in which a model writes calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToolFormat {
    /// `<tool_call>\n{"name": .., "arguments": ..}\n</tool_call>`, anywhere in the answer (Hermes, Qwen; the built-in form).
    Tagged,
    /// `{"name": .., "parameters": ..}` as the whole answer (Llama 3).
    Bare,
}

const OPEN: &str = "<tool_call>";
const CLOSE: &str = "</tool_call>";

impl Tool {
    /// As the OpenAI API and chat templates write it.
    pub fn to_json(&self) -> Value {
        let mut function = Map::new();
        function.insert("name".into(), self.name.clone().into());
        function.extend(self.description.as_ref().map(|text| ("description".to_owned(), text.clone().into())));
        function.insert("parameters".into(), self.schema());
        json!({"type": "function", "function": function})
    }

    /// The schema of the arguments, which are always an object.
    fn schema(&self) -> Value {
        let mut schema =
            self.parameters.clone().unwrap_or_else(|| json!({"properties": {}, "additionalProperties": false}));
        if let Some(fields) = schema.as_object_mut() {
            fields.entry("type").or_insert_with(|| "object".into());
        }
        schema
    }
}

impl ToolFormat {
    /// What the arguments stand under.
    fn key(self) -> &'static str {
        match self {
            Self::Tagged => "arguments",
            Self::Bare => "parameters",
        }
    }

    /// The form that a template shows to its model. `None` if the template lays out no tools or in a form not known
    /// here; then use [`ToolFormat::Tagged`] with [`fold_tools`], and do not hand the template any tools.
    pub fn of(template: &ChatTemplate) -> Option<Self> {
        let shown = template.shown_call()?;
        if shown.contains(OPEN) {
            Some(Self::Tagged)
        } else if shown.contains("\"parameters\": {\"probe_argument\"") {
            Some(Self::Bare)
        } else {
            None
        }
    }
}

/// The conversation with tools, calls and results written as text, for a template that knows none of them.
pub fn fold_tools(messages: &[Value], tools: &[Tool]) -> Vec<Value> {
    let mut folded: Vec<Value> = Vec::with_capacity(messages.len() + 1);
    if !tools.is_empty() && messages.first().is_none_or(|first| first["role"] != "system") {
        folded.push(json!({"role": "system", "content": tool_prompt(tools)}));
    }
    for (i, message) in messages.iter().enumerate() {
        let text = message["content"].as_str().unwrap_or_default();
        match message["role"].as_str() {
            Some("system") if i == 0 && !tools.is_empty() => {
                folded.push(json!({"role": "system", "content": format!("{text}\n\n{}", tool_prompt(tools))}));
            }
            Some("assistant") if message["tool_calls"].as_array().is_some_and(|calls| !calls.is_empty()) => {
                folded.push(json!({"role": "assistant", "content": with_calls(text, &message["tool_calls"])}));
            }
            Some("tool") => push_result(&mut folded, text, i > 0 && messages[i - 1]["role"] == "tool"),
            _ => folded.push(message.clone()),
        }
    }
    folded
}

/// Results are told by the user; those of one turn together, since templates want turns to alternate.
fn push_result(folded: &mut Vec<Value>, text: &str, joins: bool) {
    let result = format!("<tool_response>\n{text}\n</tool_response>");
    match folded.last_mut().filter(|_| joins) {
        Some(last) => {
            let before = last["content"].as_str().unwrap_or_default();
            last["content"] = format!("{before}\n{result}").into();
        }
        None => folded.push(json!({"role": "user", "content": result})),
    }
}

fn with_calls(text: &str, calls: &Value) -> String {
    let calls = calls.as_array().into_iter().flatten().map(|call| {
        let call = call.get("function").unwrap_or(call);
        let arguments = match &call["arguments"] {
            Value::String(text) => serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.clone())),
            other => other.clone(),
        };
        format!("{OPEN}\n{}\n{CLOSE}", spaced(&json!({"name": call["name"], "arguments": arguments})))
    });
    let text = Some(text.to_owned()).filter(|text| !text.is_empty());
    text.into_iter().chain(calls).collect::<Vec<_>>().join("\n")
}

/// What a model is told that was not trained on a form of its own, or whose template does not show it.
pub fn tool_prompt(tools: &[Tool]) -> String {
    let list: String = tools.iter().map(|tool| spaced(&tool.to_json()) + "\n").collect();
    format!(
        "You can call functions. They are listed here, one JSON object a line, between <tools> and </tools>:\n\
         <tools>\n{list}</tools>\n\n\
         To call a function, answer with a JSON object holding its name and its arguments, between {OPEN} and {CLOSE}:\n\
         {OPEN}\n{{\"name\": \"function-name\", \"arguments\": {{\"argument-name\": \"value\"}}}}\n{CLOSE}\n\
         Call a function only if it is needed to answer; otherwise answer in words."
    )
}

/// JSON with a space behind commas and colons, the way models have seen it most.
fn spaced(value: &Value) -> String {
    let mut out = Vec::new();
    // Writing to memory cannot fail.
    let _ = value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, Spaced));
    String::from_utf8(out).unwrap_or_default()
}

struct Spaced;

impl serde_json::ser::Formatter for Spaced {
    fn begin_array_value<W: std::io::Write + ?Sized>(&mut self, out: &mut W, first: bool) -> std::io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_key<W: std::io::Write + ?Sized>(&mut self, out: &mut W, first: bool) -> std::io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_value<W: std::io::Write + ?Sized>(&mut self, out: &mut W) -> std::io::Result<()> {
        out.write_all(b": ")
    }
}

/// What an answer may look like: with a choice other than `Auto`, calls in the given form and nothing else; with `Auto`, any
/// text, but what begins as a call goes on as one. Arguments are always valid under the tool's schema. `None` if
/// nothing is to be held to: no tools, or a bare form that the model may or may not use.
pub fn tool_grammar(format: ToolFormat, tools: &[Tool], choice: &ToolChoice, parallel: bool) -> Option<Constraint> {
    let chosen = |tool: &&Tool| !matches!(choice, ToolChoice::Named(name) if *name != tool.name);
    let tools: Vec<&Tool> = tools.iter().filter(chosen).collect();
    if tools.is_empty() {
        return None;
    }
    let key = format.key();
    let mut grammar = match (format, choice) {
        (ToolFormat::Bare, ToolChoice::Auto) => return None,
        (ToolFormat::Bare, _) => "start: call\n".to_owned(),
        (ToolFormat::Tagged, ToolChoice::Auto) => free_text(parallel),
        (ToolFormat::Tagged, _) => format!("start: {}\n{BODY}", calls(parallel)),
    };
    grammar.push_str(&call_rules(&tools, key));
    Some(Constraint::Lark(grammar))
}

/// What an answer may look like that either calls tools, in the tagged form, or is JSON valid under `schema`. No JSON can be
/// taken for a call: its strings hold no bare quotes, so nothing behind a tag in them is an object.
pub fn tool_or_json_grammar(tools: &[Tool], schema: &Value, parallel: bool) -> Constraint {
    let tools: Vec<&Tool> = tools.iter().collect();
    let rules = call_rules(&tools, ToolFormat::Tagged.key());
    let answer = one_layout(schema);
    Constraint::Lark(format!("start: {} | answer\nanswer: %json {answer}\n{BODY}{rules}", calls(parallel)))
}

/// The rule `call` and those that it needs.
fn call_rules(tools: &[&Tool], key: &str) -> String {
    let names: Vec<String> = (0..tools.len()).map(|i| format!("call_{i}")).collect();
    let mut rules = format!("call: {}\n", names.join(" | "));
    for (i, tool) in tools.iter().enumerate() {
        let head = literal(&head(&tool.name, key));
        let schema = one_layout(&tool.schema());
        rules.push_str(&format!("call_{i}: {head} arguments_{i} \"}}\"\narguments_{i}: %json {schema}\n"));
    }
    rules
}

/// How a call's object begins: everything before the arguments, which stand under `key`.
fn head(name: &str, key: &str) -> String {
    format!("{{\"name\": {}, \"{key}\": ", Value::from(name))
}

/// What stands between the tags, and the closing one.
const BODY: &str = "body: call \"\\n</tool_call>\"\n";

fn free_text(parallel: bool) -> String {
    format!(
        "start: TEXT | opened \"\\n\" body {}\nTEXT: /(?s:.*)/ & ~/(?s:.*)<tool_call>(?s:.*)/\n\
         opened[lazy]: /(?s:.*)<tool_call>/\n{BODY}",
        more(parallel)
    )
}

/// Calls and nothing else.
fn calls(parallel: bool) -> String {
    format!("{} body {}", literal(&format!("{OPEN}\n")), more(parallel))
}

fn more(parallel: bool) -> String {
    if parallel { format!("({} body)*", literal(&format!("\n{OPEN}\n"))) } else { String::new() }
}

/// A string in Lark, which quotes as JSON does.
fn literal(text: &str) -> String {
    Value::from(text).to_string()
}

#[cfg(test)]
mod tests;
