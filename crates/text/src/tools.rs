//! Tool calls: what a model is told, what it may answer, and how its answer is read.
//!
//! Models write calls as text, each family in its own form ([`ToolFormat`]). A model whose template lays out tools is
//! told by its template; any other by [`fold_tools`], which writes them into the system prompt and turns earlier calls and
//! results into text. [`tool_grammar`] holds an answer to the form, with arguments valid under the tool's schema, and
//! [`ToolParser`] takes the calls out of the answer while it streams. A call is handed on once it is complete: until then
//! it may still turn out to be text that only looked like a call.

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::constraint::one_layout;
use crate::{ChatTemplate, Constraint};

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

/// A piece of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToolEvent {
    /// Text for the reader.
    Text(String),
    /// A complete call.
    Call {
        /// Which call of this answer, from 0.
        index: usize,
        /// The tool's name.
        name: String,
        /// JSON text of the arguments.
        arguments: String,
    },
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
    let key = if format == ToolFormat::Tagged { "arguments" } else { "parameters" };
    let mut grammar = match (format, choice) {
        (ToolFormat::Bare, ToolChoice::Auto) => return None,
        (ToolFormat::Bare, _) => "start: call\n".to_owned(),
        (ToolFormat::Tagged, ToolChoice::Auto) => free_text(parallel),
        (ToolFormat::Tagged, _) => format!("start: {} body {}\n", literal(&format!("{OPEN}\n")), more(parallel)) + BODY,
    };
    let names: Vec<String> = (0..tools.len()).map(|i| format!("call_{i}")).collect();
    grammar.push_str(&format!("call: {}\n", names.join(" | ")));
    for (i, tool) in tools.iter().enumerate() {
        let head = format!("{{\"name\": {}, \"{key}\": ", Value::from(tool.name.as_str()));
        let schema = one_layout(&tool.schema());
        grammar
            .push_str(&format!("call_{i}: {} arguments_{i} \"}}\"\narguments_{i}: %json {schema}\n", literal(&head)));
    }
    Some(Constraint::Lark(grammar))
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

fn more(parallel: bool) -> String {
    if parallel { format!("({} body)*", literal(&format!("\n{OPEN}\n"))) } else { String::new() }
}

/// A string in Lark, which quotes as JSON does.
fn literal(text: &str) -> String {
    Value::from(text).to_string()
}

/// Takes calls out of an answer while it streams.
#[derive(Debug, Clone)]
pub struct ToolParser {
    format: ToolFormat,
    names: Vec<String>,
    /// What has come and is not decided yet.
    held: String,
    calls: usize,
    /// Nothing but white space has come since the beginning or the last call.
    fresh: bool,
    /// The rest is text whatever it looks like.
    plain: bool,
}

/// What the beginning of the held text is.
enum Found {
    /// Text up to here; look again.
    Text(usize),
    /// A call that ends here.
    Call(usize, String, String),
    /// More has to come first; text up to here is certain.
    Wait(usize),
}

impl ToolParser {
    /// For an answer that may call these tools. A call of any other name is text.
    pub fn new(format: ToolFormat, tools: &[Tool]) -> Self {
        let names = tools.iter().map(|tool| tool.name.clone()).collect();
        Self { format, names, held: String::new(), calls: 0, fresh: true, plain: false }
    }

    /// Calls found so far.
    pub fn calls(&self) -> usize {
        self.calls
    }

    /// What became certain with this piece of the answer.
    pub fn push(&mut self, text: &str) -> Vec<ToolEvent> {
        self.held.push_str(text);
        self.advance(false)
    }

    /// What is left at the end: an unfinished call is text.
    pub fn finish(&mut self) -> Vec<ToolEvent> {
        self.advance(true)
    }

    fn advance(&mut self, ended: bool) -> Vec<ToolEvent> {
        let mut events = Vec::new();
        while !self.held.is_empty() {
            match self.find(ended) {
                Found::Text(end) => self.release(end, &mut events),
                Found::Call(end, name, arguments) => {
                    events.push(ToolEvent::Call { index: self.calls, name, arguments });
                    self.calls += 1;
                    self.held.drain(..end);
                    self.fresh = true;
                }
                Found::Wait(end) => {
                    self.release(end, &mut events);
                    break;
                }
            }
        }
        events
    }

    /// Hands on text; white space behind a call is not text yet.
    fn release(&mut self, end: usize, events: &mut Vec<ToolEvent>) {
        let text: String = self.held.drain(..end).collect();
        let text = if self.fresh && self.calls > 0 { text.trim_start() } else { &text };
        if text.is_empty() {
            return;
        }
        self.fresh = self.fresh && text.trim().is_empty();
        match events.last_mut() {
            Some(ToolEvent::Text(last)) => last.push_str(text),
            _ => events.push(ToolEvent::Text(text.to_owned())),
        }
    }

    fn find(&mut self, ended: bool) -> Found {
        let all = self.held.len();
        if self.plain {
            return Found::Text(all);
        }
        let found = match self.format {
            ToolFormat::Tagged => self.find_tagged(ended),
            ToolFormat::Bare => self.find_bare(),
        };
        match found {
            // What would have to wait is text if nothing follows; white space behind a call then is nothing.
            Found::Wait(_) if ended => Found::Text(all),
            found => found,
        }
    }

    fn find_tagged(&self, ended: bool) -> Found {
        let held = self.held.as_str();
        let Some(open) = held.find(OPEN) else { return Found::Wait(held.len() - undecided(held)) };
        // Blanks before a call separate it from the text; they belong to neither.
        let text = held[..open].trim_end().len();
        if text > 0 {
            return Found::Text(text);
        }
        let body = &held[open + OPEN.len()..];
        let start = held.len() - body.trim_start().len();
        match object_end(&held[start..]) {
            Extent::Incomplete => Found::Wait(0),
            Extent::None => Found::Text(open + OPEN.len()),
            Extent::End(end) => match self.call(&held[start..start + end], "arguments") {
                Some((name, arguments)) => match closed(held, start + end, ended) {
                    Some(end) => Found::Call(end, name, arguments),
                    None => Found::Wait(0),
                },
                None => Found::Text(start + end),
            },
        }
    }

    fn find_bare(&mut self) -> Found {
        const PYTHON_TAG: &str = "<|python_tag|>";
        let blank = self.held.len() - self.held.trim_start_matches([' ', '\n', '\t', '\r', ';']).len();
        let rest = &self.held[blank..];
        let begins = self.fresh && (rest.is_empty() || rest.starts_with('{') || PYTHON_TAG.starts_with(rest));
        let rest = if self.fresh { rest.strip_prefix(PYTHON_TAG).unwrap_or(rest) } else { rest };
        let start = self.held.len() - rest.len();
        match object_end(rest) {
            Extent::Incomplete if begins || self.fresh && rest.starts_with('{') => return Found::Wait(0),
            Extent::End(end) if self.fresh => {
                if let Some((name, arguments)) = self.call(&rest[..end], "parameters") {
                    return Found::Call(start + end, name, arguments);
                }
            }
            _ if begins && (rest.is_empty() || PYTHON_TAG.starts_with(rest)) => return Found::Wait(0),
            _ => {}
        }
        self.plain = true;
        Found::Text(self.held.len())
    }

    /// Name and arguments, if that is what the object holds and such a tool exists.
    fn call(&self, object: &str, key: &str) -> Option<(String, String)> {
        let call: Value = serde_json::from_str(object).ok()?;
        let name = call.get("name")?.as_str()?;
        let arguments = call.get(key).or_else(|| call.get("arguments")).or_else(|| call.get("parameters"));
        let arguments = match arguments {
            // Some models quote the object once more.
            Some(Value::String(text)) => serde_json::from_str::<Map<String, Value>>(text).ok().map(Value::from)?,
            Some(object @ Value::Object(_)) => object.clone(),
            None | Some(Value::Null) => json!({}),
            Some(_) => return None,
        };
        self.names.iter().any(|known| known == name).then(|| (name.to_owned(), arguments.to_string()))
    }
}

/// Where a call ends whose object ends at `end`: behind its closing tag, or there if no tag follows (which is forgiven).
/// `None` while that cannot be told.
fn closed(held: &str, end: usize, ended: bool) -> Option<usize> {
    let rest = held[end..].trim_start();
    match rest.starts_with(CLOSE) {
        true => Some(held.len() - rest.len() + CLOSE.len()),
        false => (ended || !CLOSE.starts_with(rest)).then_some(end),
    }
}

/// How many bytes at the end may be blanks before a call or the beginning of its tag.
fn undecided(text: &str) -> usize {
    let begun = (1..OPEN.len()).rev().find(|length| text.ends_with(&OPEN[..*length])).unwrap_or(0);
    let before = &text[..text.len() - begun];
    text.len() - before.trim_end().len()
}

enum Extent {
    /// The text does not begin with an object.
    None,
    /// The object is not over.
    Incomplete,
    /// It ends here.
    End(usize),
}

/// Where the JSON object at the beginning of a text ends, by its brackets; whether it is JSON is seen later.
fn object_end(text: &str) -> Extent {
    if text.is_empty() {
        return Extent::Incomplete;
    }
    if !text.starts_with('{') {
        return Extent::None;
    }
    let (mut depth, mut quoted, mut escaped) = (0usize, false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'{' | b'[' if !quoted => depth += 1,
            b'}' | b']' if !quoted => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return Extent::End(at + 1);
                }
            }
            _ => {}
        }
    }
    Extent::Incomplete
}

#[cfg(test)]
mod tests;
