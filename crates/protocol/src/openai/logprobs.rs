//! Token scores in the two shapes OpenAI gives them: one object per token in chats, parallel arrays in completions.
//!
//! Numbers stay `f32` up to the text of the JSON: lm-eval compares a token's score with the best one for equality, and
//! a detour over `f64` on one side only would break that.

use std::fmt;

use schemars::JsonSchema;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, Visitor},
};

use crate::TokenLogprob;
use crate::openai::schema::shapes;

/// What JSON, which has no infinities, says for an impossible token; OpenAI's number for it.
const IMPOSSIBLE: f32 = -9999.0;

/// A score as JSON can hold it.
fn finite(logprob: f32) -> f32 {
    if logprob.is_finite() { logprob } else { IMPOSSIBLE }
}

/// A chat choice's scores.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ChatLogprobs {
    /// One entry per token of the answer.
    pub content: Vec<ChatLogprob>,
    /// Never used: there are no separate refusals.
    pub refusal: Option<Vec<ChatLogprob>>,
}

/// A token of a chat answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ChatLogprob {
    /// Its text; characters that end in a later token are replaced, see `bytes`.
    pub token: String,
    /// Natural logarithm of its probability.
    pub logprob: f32,
    /// Its bytes.
    pub bytes: Option<Vec<u8>>,
    /// The likeliest tokens at its place, best first.
    pub top_logprobs: Vec<ChatTopLogprob>,
}

/// An alternative at a token's place.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ChatTopLogprob {
    /// Its text.
    pub token: String,
    /// Natural logarithm of its probability.
    pub logprob: f32,
    /// Its bytes.
    pub bytes: Option<Vec<u8>>,
}

impl From<Vec<TokenLogprob>> for ChatLogprobs {
    fn from(tokens: Vec<TokenLogprob>) -> Self {
        Self { content: tokens.into_iter().map(ChatLogprob::from).collect(), refusal: None }
    }
}

impl From<TokenLogprob> for ChatLogprob {
    fn from(token: TokenLogprob) -> Self {
        let alternative = |(_, bytes, logprob): (u32, Vec<u8>, f32)| ChatTopLogprob {
            token: String::from_utf8_lossy(&bytes).into_owned(),
            logprob: finite(logprob),
            bytes: Some(bytes),
        };
        Self {
            token: String::from_utf8_lossy(&token.bytes).into_owned(),
            logprob: token.logprob.map_or(IMPOSSIBLE, finite),
            bytes: Some(token.bytes),
            top_logprobs: token.top.into_iter().map(alternative).collect(),
        }
    }
}

/// A completion choice's scores, one entry per token in each array.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct CompletionLogprobs {
    /// The tokens' texts; `bytes:\xe2\x80` for a part of a character.
    pub tokens: Vec<String>,
    /// Their scores; `null` for the first token of a scored prompt.
    pub token_logprobs: Vec<Option<f32>>,
    /// Their alternatives by text, the token itself included.
    pub top_logprobs: Vec<Option<TopLogprobs>>,
    /// Where each begins, in characters of the choice's text.
    pub text_offset: Vec<usize>,
}

impl CompletionLogprobs {
    /// Adds a token that begins at `offset`.
    pub(super) fn push(&mut self, token: &TokenLogprob, offset: usize) {
        self.tokens.push(readable(&token.bytes));
        self.token_logprobs.push(token.logprob.map(finite));
        self.top_logprobs.push(token.logprob.map(|logprob| TopLogprobs::of(token, logprob)));
        self.text_offset.push(offset);
    }
}

/// Alternatives by text, best first. When two tokens read the same, the better one counts.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TopLogprobs(pub Vec<(String, f32)>);

impl TopLogprobs {
    fn of(token: &TokenLogprob, logprob: f32) -> Self {
        let chosen = (readable(&token.bytes), finite(logprob));
        let top = token.top.iter().map(|(_, bytes, score)| (readable(bytes), finite(*score)));
        let mut list: Vec<(String, f32)> = Vec::with_capacity(token.top.len() + 1);
        for (text, score) in top.chain([chosen]) {
            if !list.iter().any(|(seen, _)| *seen == text) {
                list.push((text, score));
            }
        }
        Self(list)
    }
}

/// The text of a token, or its bytes spelled out when they are only part of a character.
fn readable(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().fold("bytes:".to_owned(), |text, byte| format!("{text}\\x{byte:02x}")),
    }
}

shapes!(TopLogprobs, "TopLogprobs": std::collections::BTreeMap<String, f32>);

impl Serialize for TopLogprobs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(text, score)| (text, score)))
    }
}

impl<'de> Deserialize<'de> for TopLogprobs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(TopVisitor)
    }
}

struct TopVisitor;

impl<'de> Visitor<'de> for TopVisitor {
    type Value = TopLogprobs;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of token texts and scores")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<TopLogprobs, A::Error> {
        let mut list = Vec::new();
        while let Some(entry) = map.next_entry()? {
            list.push(entry);
        }
        Ok(TopLogprobs(list))
    }
}
