//! Reading calls out of an answer while it streams.
//!
//! What looks like a call may still turn out to be text, so without a grammar a call is handed on once it is complete, and
//! an unfinished one is text. Under a grammar ([`super::tool_grammar`]) whatever begins as a call is one: its name is handed on
//! as soon as it is known, and its arguments as they come, in the model's own layout. If the token limit or a stop string
//! cuts such a call, what came of its arguments has been handed on, and no call counts as made.

use serde_json::{Map, Value, json};

use super::{CLOSE, OPEN, Tool, ToolFormat, head};

/// A piece of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToolEvent {
    /// Text for the reader.
    Text(String),
    /// A call begins; its arguments follow.
    Call {
        /// Which call of this answer, from 0.
        index: usize,
        /// The tool's name.
        name: String,
    },
    /// More of a call's arguments.
    Arguments {
        /// Which call.
        index: usize,
        /// JSON text to append.
        text: String,
    },
}

/// Takes calls out of an answer while it streams.
#[derive(Debug, Clone)]
pub struct ToolParser {
    format: ToolFormat,
    names: Vec<String>,
    /// What has come and is not decided yet.
    held: String,
    /// A grammar sees to it that what begins as a call ends as one.
    certain: bool,
    calls: usize,
    /// Where in the last call the answer is, if that is handed on in pieces.
    open: Option<Open>,
    /// Nothing but white space has come since the beginning or the last call.
    fresh: bool,
    /// The rest is text whatever it looks like.
    plain: bool,
}

/// A part of a call that has been handed on up to here.
#[derive(Debug, Clone)]
enum Open {
    /// The arguments, with the brackets still to be closed.
    Arguments(Brackets),
    /// What stands behind them.
    Tail,
}

/// What the beginning of the held text is.
enum Found {
    /// Text up to here; look again.
    Text(usize),
    /// A call that ends here.
    Call(usize, String, String),
    /// All of a call that stands before its arguments; they begin here.
    Head(usize, String),
    /// More has to come first; text up to here is certain.
    Wait(usize),
}

impl ToolParser {
    /// For an answer that may call these tools. A call of any other name is text.
    pub fn new(format: ToolFormat, tools: &[Tool]) -> Self {
        let names = tools.iter().map(|tool| tool.name.clone()).collect();
        Self { format, names, held: String::new(), certain: false, calls: 0, open: None, fresh: true, plain: false }
    }

    /// For an answer that the grammar of these calls holds to its form.
    #[must_use]
    pub fn under_grammar(self) -> Self {
        Self { certain: true, ..self }
    }

    /// Calls were found, and the arguments of the last one are complete.
    pub fn called(&self) -> bool {
        self.calls > 0 && !matches!(self.open, Some(Open::Arguments(_)))
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
            if let Some(open) = self.open.take() {
                if self.go_on(open, ended, &mut events) {
                    continue;
                }
                break;
            }
            match self.find(ended) {
                Found::Text(end) => self.release(end, &mut events),
                Found::Call(end, name, arguments) => {
                    self.begin(end, name, &mut events);
                    events.push(ToolEvent::Arguments { index: self.calls - 1, text: arguments });
                }
                Found::Head(end, name) => {
                    self.begin(end, name, &mut events);
                    self.open = Some(Open::Arguments(Brackets::default()));
                }
                Found::Wait(end) => {
                    self.release(end, &mut events);
                    break;
                }
            }
        }
        events
    }

    fn begin(&mut self, end: usize, name: String, events: &mut Vec<ToolEvent>) {
        events.push(ToolEvent::Call { index: self.calls, name });
        self.calls += 1;
        self.held.drain(..end);
        self.fresh = true;
    }

    /// Hands on what has come of an open call. False if more has to come first.
    fn go_on(&mut self, open: Open, ended: bool, events: &mut Vec<ToolEvent>) -> bool {
        match open {
            Open::Arguments(mut brackets) => {
                let end = brackets.end(&self.held);
                let text = self.held.drain(..end.unwrap_or(self.held.len())).collect();
                events.push(ToolEvent::Arguments { index: self.calls - 1, text });
                self.open = Some(if end.is_some() { Open::Tail } else { Open::Arguments(brackets) });
            }
            Open::Tail => match self.tail(ended) {
                Some(end) => drop(self.held.drain(..end)),
                None => {
                    self.open = Some(Open::Tail);
                    return false;
                }
            },
        }
        true
    }

    /// Where a call ends whose arguments are over: behind the object's brace, and its tag. `None` while that cannot be told.
    fn tail(&self, ended: bool) -> Option<usize> {
        match (self.held.starts_with('}'), self.format) {
            (false, _) => Some(0),
            (true, ToolFormat::Tagged) => closed(&self.held, 1, ended),
            (true, ToolFormat::Bare) => Some(1),
        }
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
        if let Some(found) = self.begun(start) {
            return found;
        }
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
        if let Some(found) = self.begun(start).filter(|_| self.fresh) {
            return found;
        }
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

    /// Where a call's object begins at `start` and is certain to be one: its head, or that more of it has to come.
    fn begun(&self, start: usize) -> Option<Found> {
        let rest = &self.held[start..];
        let known = self.names.iter().filter(|_| self.certain);
        let mut heads = known.map(|name| (name, head(name, self.format.key()) + "{"));
        heads.find_map(|(name, head)| match rest.starts_with(&head) {
            true => Some(Found::Head(start + head.len() - 1, name.clone())),
            false => head.starts_with(rest).then_some(Found::Wait(0)),
        })
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
    if rest.starts_with(CLOSE) {
        Some(held.len() - rest.len() + CLOSE.len())
    } else if CLOSE.starts_with(rest) {
        // A tag that was cut off is nobody's text.
        ended.then_some(held.len())
    } else {
        Some(end)
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
    Brackets::default().end(text).map_or(Extent::Incomplete, Extent::End)
}

/// The brackets of a JSON value that has come in part.
#[derive(Debug, Clone, Default)]
struct Brackets {
    depth: usize,
    quoted: bool,
    escaped: bool,
}

impl Brackets {
    /// Reads on; where in `text` the last bracket closes, if it does.
    fn end(&mut self, text: &str) -> Option<usize> {
        text.bytes().position(|byte| self.closes(byte)).map(|at| at + 1)
    }

    fn closes(&mut self, byte: u8) -> bool {
        match byte {
            _ if self.escaped => self.escaped = false,
            b'\\' if self.quoted => self.escaped = true,
            b'"' => self.quoted = !self.quoted,
            b'{' | b'[' if !self.quoted => self.depth += 1,
            b'}' | b']' if !self.quoted => {
                self.depth = self.depth.saturating_sub(1);
                return self.depth == 0;
            }
            _ => {}
        }
        false
    }
}
