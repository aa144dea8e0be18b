//! Documents become tokens, and which of them are learned.
//!
//! A chat is laid out by the model's own template, as a request would be: what stands before an assistant's turn, up to the words with which the
//! template opens it, is exactly what the model will be shown, and what is learned is what it has to write from there on: the turn, and the
//! token that ends it. What the template puts behind that token is the server's to write, and is not learned.

use serde_json::{Map, Value};
use text::{ChatTemplate, Tokenizer, Tool, ToolFormat, fold_tools};

use crate::document::learned;
use crate::{Document, Form};

/// A document's tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// All of them.
    pub tokens: Vec<u32>,
    /// Whether each is learned.
    pub learned: Vec<bool>,
}

/// Lays documents out for one model.
#[derive(Debug)]
pub struct Encoder<'a> {
    tokenizer: &'a Tokenizer,
    template: Option<&'a ChatTemplate>,
}

impl<'a> Encoder<'a> {
    /// For a model with this tokenizer, and this chat template if it has one.
    pub fn new(tokenizer: &'a Tokenizer, template: Option<&'a ChatTemplate>) -> Self {
        Self { tokenizer, template }
    }

    /// A document's tokens.
    ///
    /// # Errors
    /// What keeps it from being laid out, for a person.
    pub fn encode(&self, document: &Document) -> Result<Encoded, String> {
        match &document.form {
            Form::Chat { messages, tools } => self.chat(messages, tools),
            Form::Completion { prompt, completion } => Ok(self.completion(prompt, completion)),
            Form::Text(text) => Ok(self.completion("", text)),
        }
    }

    fn completion(&self, prompt: &str, completion: &str) -> Encoded {
        let bos = self.tokenizer.bos().filter(|_| self.tokenizer.adds_bos());
        let given: Vec<u32> = bos.into_iter().chain(self.tokenizer.encode(prompt)).collect();
        let mut tokens = given.clone();
        tokens.extend(self.tokenizer.encode(completion));
        tokens.extend(self.tokenizer.eos());
        // Nothing stands before the first token of a text, so nobody could learn it.
        let learned = (0..tokens.len()).map(|at| at >= given.len().max(1)).collect();
        Encoded { tokens, learned }
    }

    fn chat(&self, messages: &[Value], tools: &[Value]) -> Result<Encoded, String> {
        let template = self.template.ok_or("the model has no chat template: give prompts and completions, or texts")?;
        let layout = Layout { tokenizer: self.tokenizer, template, tools };
        let last = messages.iter().rposition(learned).map_or(messages.len(), |at| at + 1);
        let mut encoded = Encoded { tokens: layout.tokens(&messages[..last], false)?, learned: Vec::new() };
        encoded.learned = vec![false; encoded.tokens.len()];
        for (turn, _) in messages[..last].iter().enumerate().filter(|(_, message)| learned(message)) {
            let (before, through) =
                (layout.tokens(&messages[..turn], true)?, layout.tokens(&messages[..=turn], false)?);
            if !through.starts_with(&before) || !encoded.tokens.starts_with(&through) {
                return Err(format!(
                    "the model's template lays message {} out differently once others follow it: end the chat with it",
                    turn + 1
                ));
            }
            let written = self.written(&through[before.len()..]);
            encoded.learned[before.len()..][..written].fill(true);
        }
        Ok(encoded)
    }

    /// How many tokens of a turn the model writes: up to the one that ends it.
    fn written(&self, turn: &[u32]) -> usize {
        turn.iter().position(|token| self.tokenizer.ends().contains(token)).map_or(turn.len(), |end| end + 1)
    }
}

struct Layout<'a> {
    tokenizer: &'a Tokenizer,
    template: &'a ChatTemplate,
    tools: &'a [Value],
}

impl Layout<'_> {
    fn tokens(&self, messages: &[Value], opens: bool) -> Result<Vec<u32>, String> {
        let none = Map::new();
        let rendered = if self.tools.is_empty() || ToolFormat::of(self.template).is_some() {
            self.template.render(messages, self.tools, opens, &none)
        } else {
            self.template.render(&fold_tools(messages, &self.described()?), &[], opens, &none)
        };
        Ok(self.tokenizer.encode_rendered(&rendered.map_err(|error| error.to_string())?))
    }

    fn described(&self) -> Result<Vec<Tool>, String> {
        let tool = |tool: &Value| {
            let function = &tool["function"];
            let name = function["name"].as_str().ok_or("a tool has no `function.name`")?.to_owned();
            let description = function["description"].as_str().map(str::to_owned);
            Ok(Tool { name, description, parameters: function.get("parameters").cloned() })
        };
        self.tools.iter().map(tool).collect()
    }
}
