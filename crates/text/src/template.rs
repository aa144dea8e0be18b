//! Chat templates, rendered as `transformers` renders them (`apply_chat_template`).

use serde_json::Value;

use crate::Error;

/// A compiled template.
#[derive(Debug)]
pub struct ChatTemplate {}

/// The text of a conversation, knowing which parts came from the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {}

impl Rendered {
    /// The text exactly as `transformers` renders it.
    pub fn text(&self) -> String { unimplemented!() }
}

impl ChatTemplate {
    /// Compiles a template; `bos` and `eos` are the texts of those tokens.
    pub fn new(_source: &str, _bos: &str, _eos: &str) -> Result<Self, Error> { unimplemented!() }
    /// The template itself lays out tools.
    pub fn supports_tools(&self) -> bool { unimplemented!() }
    /// Renders messages (OpenAI-shaped JSON objects), tools (OpenAI-shaped) and further variables.
    pub fn render(&self, _messages: &[Value], _tools: &[Value], _add_generation_prompt: bool, _args: &serde_json::Map<String, Value>) -> Result<Rendered, Error> { unimplemented!() }
}
