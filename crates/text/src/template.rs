//! Chat templates, rendered as `transformers` renders them (`apply_chat_template`).
use std::ops::Range;

use serde_json::Value;

use crate::{Error, Tokenizer};

/// A compiled template.
#[derive(Debug)]
pub struct ChatTemplate {}

/// The text of a conversation, knowing which parts came from the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    text: String,
    literal: Vec<Range<usize>>,
}

impl Rendered {
    /// The text exactly as `transformers` renders it.
    pub fn text(&self) -> String {
        self.text.clone()
    }

    /// The same, borrowed.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub(crate) fn literal(&self) -> &[Range<usize>] {
        &self.literal
    }
}

impl ChatTemplate {
    /// Compiles a template; the texts of bos and eos come from the tokenizer, and so do the control tokens that a
    /// caller's text must not be able to spell.
    pub fn new(_source: &str, _tokenizer: &Tokenizer) -> Result<Self, Error> {
        unimplemented!()
    }
    /// The template itself lays out tools.
    pub fn supports_tools(&self) -> bool {
        unimplemented!()
    }
    /// Renders messages (OpenAI-shaped JSON objects), tools (OpenAI-shaped) and further variables.
    pub fn render(
        &self,
        _messages: &[Value],
        _tools: &[Value],
        _add_generation_prompt: bool,
        _args: &serde_json::Map<String, Value>,
    ) -> Result<Rendered, Error> {
        unimplemented!()
    }
}
