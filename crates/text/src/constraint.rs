//! Which tokens may come next, by llguidance (JSON schema, regular expressions, Lark).

use std::sync::Arc;

use serde_json::Value;

use crate::{Error, Tokenizer};

/// What an answer must look like.
#[derive(Debug, Clone, PartialEq)]
pub enum Constraint {
    /// Any JSON object.
    JsonObject,
    /// JSON valid under a schema.
    JsonSchema(Value),
    /// Text a regular expression matches whole.
    Regex(String),
    /// Text of a Lark grammar (llguidance's dialect).
    Lark(String),
}

/// The token trie of one tokenizer, shared by all matchers. Built on first use.
#[derive(Debug)]
pub struct Grammars {}

/// What the constraint says about the next token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// These ids must follow, in this order (at least one): no model head is needed.
    Forced(Vec<u32>),
    /// A mask: bit `id % 32` of word `id / 32` is set where the token is allowed (end tokens included when the text may end).
    Mask(Vec<u32>),
    /// The text is complete; nothing may follow.
    End,
}

/// The state of one constrained answer.
#[derive(Debug)]
pub struct Matcher {}

impl Grammars {
    /// For this tokenizer.
    pub fn new(_tokenizer: Arc<Tokenizer>) -> Self { unimplemented!() }
    /// A matcher at the start of an answer.
    pub fn compile(&self, _constraint: &Constraint) -> Result<Matcher, Error> { unimplemented!() }
}

impl Matcher {
    /// What may follow.
    pub fn next(&mut self) -> Result<Next, Error> { unimplemented!() }
    /// Tells it what followed.
    pub fn commit(&mut self, _id: u32) -> Result<(), Error> { unimplemented!() }
    /// The text so far may stand as the whole answer.
    pub fn is_accepting(&mut self) -> bool { unimplemented!() }
}
