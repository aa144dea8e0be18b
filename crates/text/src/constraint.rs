//! Which tokens may come next, by llguidance (JSON schema, regular expressions, Lark).
//!
//! llguidance works on a trie of all tokens' bytes; control tokens stand in it under names no text can spell, so a grammar
//! never lets one through. It may force tokens only if it can tell how the tokenizer itself would cut a text, which is
//! what [`Canon`] tells it. JSON is held to one layout, `{"a": 1, "b": 2}`: then everything between values is forced and
//! costs no model head, and no answer loses itself in white space.

mod multiples;

use std::fmt;
use std::sync::{Arc, OnceLock};

use llguidance::ParserFactory;
use llguidance::api::TopLevelGrammar;
use serde_json::{Value, json};
use toktrie::{InferenceCapabilities, TokEnv, TokRxInfo, TokTrie, TokenizerEnv};

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
pub struct Grammars {
    tokenizer: Arc<Tokenizer>,
    factory: OnceLock<Result<ParserFactory, Error>>,
}

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
pub struct Matcher {
    inner: llguidance::Matcher,
    words: usize,
}

impl Grammars {
    /// For this tokenizer.
    pub fn new(tokenizer: Arc<Tokenizer>) -> Self {
        Self { tokenizer, factory: OnceLock::new() }
    }

    /// A matcher at the start of an answer.
    pub fn compile(&self, constraint: &Constraint) -> Result<Matcher, Error> {
        multiples::check(constraint)?;
        let factory = self.factory.get_or_init(|| factory(&self.tokenizer)).as_ref().map_err(Clone::clone)?;
        let parser = factory.create_parser(constraint.grammar()).map_err(|error| refused(&error.to_string()))?;
        let inner = llguidance::Matcher::new(Ok(parser));
        if let Some(problem) = inner.get_error() {
            return Err(refused(&problem));
        }
        Ok(Matcher { inner, words: self.tokenizer.len().div_ceil(32) })
    }
}

impl fmt::Debug for Grammars {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grammars").field("built", &self.factory.get().is_some()).finish_non_exhaustive()
    }
}

impl Constraint {
    fn grammar(&self) -> TopLevelGrammar {
        match self {
            Self::JsonObject => TopLevelGrammar::from_json_schema(one_layout(&json!({"type": "object"}))),
            Self::JsonSchema(schema) => TopLevelGrammar::from_json_schema(one_layout(schema)),
            Self::Regex(expression) => TopLevelGrammar::from_regex(expression),
            Self::Lark(grammar) => TopLevelGrammar::from_lark(grammar.clone()),
        }
    }
}

/// The schema with llguidance's own options for the layout, unless it brings some.
pub(crate) fn one_layout(schema: &Value) -> Value {
    let mut schema = schema.clone();
    if let Some(fields) = schema.as_object_mut() {
        let layout = json!({"whitespace_flexible": false, "item_separator": ", ", "key_separator": ": "});
        fields.entry("x-guidance").or_insert(layout);
    }
    schema
}

impl Matcher {
    /// What may follow. Asking twice without a commit between gives the same answer.
    #[expect(clippy::should_implement_trait, reason = "no iterator: what comes next depends on what is committed")]
    pub fn next(&mut self) -> Result<Next, Error> {
        if self.is_complete()? {
            return Ok(Next::End);
        }
        let forced = self.inner.compute_ff_tokens();
        if !forced.is_empty() {
            return Ok(Next::Forced(forced));
        }
        match self.inner.compute_mask() {
            Ok(mask) => {
                let mut mask = Vec::from(mask);
                mask.resize(self.words, 0);
                Ok(Next::Mask(mask))
            }
            // Having no token left to offer is how a grammar may notice that it is complete.
            Err(error) => match self.inner.stop_reason().is_ok() && !self.inner.is_error() {
                true => Ok(Next::End),
                false => Err(failed(&error.to_string())),
            },
        }
    }

    /// Tells it what followed.
    pub fn commit(&mut self, id: u32) -> Result<(), Error> {
        self.inner.consume_token(id).map_err(|error| failed(&error.to_string()))
    }

    /// The text so far may stand as the whole answer.
    pub fn is_accepting(&mut self) -> bool {
        matches!(self.is_complete(), Ok(true)) || self.inner.is_accepting().unwrap_or(false)
    }

    fn is_complete(&self) -> Result<bool, Error> {
        match self.inner.get_error() {
            Some(problem) => Err(failed(&problem)),
            None => Ok(self.inner.is_stopped() && self.inner.stop_reason().is_ok()),
        }
    }
}

impl fmt::Debug for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Matcher").field("stop_reason", &self.inner.stop_reason()).finish_non_exhaustive()
    }
}

/// The first line of what llguidance says; the rest describes its own state.
fn first_line(problem: &str) -> &str {
    problem.lines().next().unwrap_or_default().trim_end_matches("<non-verbose/>")
}

fn refused(problem: &str) -> Error {
    Error::Grammar(format!("the grammar is broken or asks for what is not supported: {}", first_line(problem)))
}

/// How llguidance says that a grammar took more than its limits allow; a matcher that failed keeps these words and no reason.
const LIMITS: [&str; 3] = ["Current row has ", "Too many items", "lexer error: "];

fn failed(problem: &str) -> Error {
    let problem = first_line(problem);
    if LIMITS.iter().any(|limit| problem.contains(limit)) {
        return Error::Limit(format!("the grammar takes too much work: {problem}"));
    }
    Error::Grammar(format!("the answer cannot go on under its grammar: {problem}"))
}

/// Tokens that any JSON string may hold. llguidance keeps a trie of the others for such places, so that a mask inside a
/// string costs little. Its own list of three such sets is hardly faster, and for a vocabulary of 262k tokens takes
/// twice the time to build (1.3 s against 0.8 s) and twice the memory (105 MB against 53 MB).
const IN_STRINGS: &str = r#"[^"\\\x00-\x1F\x7F]{1,30}"#;

fn factory(tokenizer: &Arc<Tokenizer>) -> Result<ParserFactory, Error> {
    let environment: TokEnv = Arc::new(Canon::new(Arc::clone(tokenizer))?);
    let mut factory = ParserFactory::new(&environment, InferenceCapabilities::default(), &[IN_STRINGS.into()])
        .map_err(|error| refused(&error.to_string()))?;
    factory.quiet();
    factory.limits_mut().verbose_errors = false;
    Ok(factory)
}

/// The tokenizer as llguidance sees it.
struct Canon {
    tokenizer: Arc<Tokenizer>,
    trie: TokTrie,
}

impl Canon {
    fn new(tokenizer: Arc<Tokenizer>) -> Result<Self, Error> {
        if tokenizer.is_empty() {
            return Err(Error::Grammar("a grammar needs a tokenizer with tokens".into()));
        }
        let words: Vec<Vec<u8>> = (0..tokenizer.len() as u32).map(|id| word(&tokenizer, id)).collect();
        let end = tokenizer.ends().first().copied().unwrap_or(toktrie::INVALID_TOKEN);
        let mut trie = TokTrie::from(&TokRxInfo::new(words.len() as u32, end), &words);
        if tokenizer.ends().len() > 1 {
            trie = trie.with_eos_tokens(tokenizer.ends());
        }
        Ok(Self { tokenizer, trie })
    }
}

/// What llguidance knows a token by: its bytes, behind a byte that no text has if it is a control token. Nothing for
/// tokens that must not be chosen.
fn word(tokenizer: &Tokenizer, id: u32) -> Vec<u8> {
    let bytes = tokenizer.bytes(id);
    if tokenizer.is_special(id) {
        return [&[TokTrie::SPECIAL_TOKEN_MARKER], bytes].concat();
    }
    let usable = !tokenizer.is_unused(id) && bytes.first() != Some(&TokTrie::SPECIAL_TOKEN_MARKER);
    if usable { bytes.to_vec() } else { Vec::new() }
}

impl TokenizerEnv for Canon {
    fn tok_trie(&self) -> &TokTrie {
        &self.trie
    }

    fn tokenize_bytes(&self, text: &[u8]) -> Vec<u32> {
        let ids = self.trie.tokenize_with_greedy_fallback(text, |text| self.tokenizer.encode_inside(text));
        // A vocabulary may lack bytes; then no tokens stand for the whole text.
        match ids.iter().map(|id| self.tokenizer.bytes(*id).len()).sum::<usize>() == text.len() {
            true => ids,
            false => self.trie.greedy_tokenize(text),
        }
    }

    fn tokenize_is_canonical(&self) -> bool {
        self.tokenizer.encodes_inside()
    }
}

#[cfg(test)]
mod tests;
