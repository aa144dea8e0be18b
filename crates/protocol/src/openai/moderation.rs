//! `POST /v1/moderations`.
//!
//! The categories are OpenAI's. Which of them a text has, and how strongly, is the guard's business; this is the shape.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Recorded, TextOr,
    body::{Rest, decode, settle},
    fields,
    schema::Described,
};
use crate::Error;

/// The most inputs of one request.
const MAX_INPUTS: usize = 2048;
/// The name of the rules and classifiers that this server carries.
pub const MODEL: &str = "tessera-guard";

/// The request's body.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = Described(&fields::MODERATION))]
pub struct ModerationRequest {
    /// What to judge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<TextOr<Inputs>>,
    /// Any name is taken; the answer says what judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Unknown fields.
    #[serde(flatten)]
    pub rest: Rest,
}

/// Several texts, or the parts of one.
pub type Inputs = Vec<TextOr<PartBody>>;

/// A part of an input.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ModerationPart", transform = Described(&fields::MODERATION_PART))]
pub struct PartBody {
    /// `text`; `image_url` is refused by name.
    #[serde(default, rename = "type")]
    pub kind: String,
    /// The text of a text part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The image of an image part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_url: Option<serde_json::Value>,
    /// Unknown fields.
    #[serde(flatten)]
    pub rest: Rest,
}

impl super::Shape for Inputs {
    const WORDS: &'static str = "an array of strings or parts";
}

impl super::Shape for PartBody {
    const WORDS: &'static str = "a part with a type";
}

/// A decoded call.
#[derive(Debug, Clone, PartialEq)]
pub struct ModerationCall {
    /// The texts, each with a result of its own.
    pub texts: Vec<String>,
    /// Advisory fields the caller sent.
    pub recorded: Recorded,
}

/// Decodes and checks a request body.
pub fn parse(bytes: &[u8]) -> Result<ModerationCall, Error> {
    decode::<ModerationRequest>(bytes)?.check()
}

impl ModerationRequest {
    /// The texts, or the field at fault. Strings have a result each; parts are one input together.
    pub fn check(self) -> Result<ModerationCall, Error> {
        let recorded = settle(&fields::MODERATION, "", self.rest)?;
        let texts = match self.input {
            None => return Err(Error::invalid("input", "`input` is required: the text to judge.")),
            Some(TextOr::Text(text)) => vec![text],
            Some(TextOr::Other(inputs)) => several(inputs)?,
        };
        Ok(ModerationCall { texts, recorded })
    }
}

fn several(inputs: Inputs) -> Result<Vec<String>, Error> {
    if inputs.is_empty() {
        return Err(Error::invalid("input", "`input` is empty: give at least one text."));
    }
    if inputs.len() > MAX_INPUTS {
        let message = format!("`input` has {} entries; at most {MAX_INPUTS} fit in one request.", inputs.len());
        return Err(Error::invalid("input", message));
    }
    let parts = inputs.iter().any(|input| matches!(input, TextOr::Other(_)));
    let texts: Vec<String> = inputs
        .into_iter()
        .enumerate()
        .map(|(i, input)| match input {
            TextOr::Text(text) if !parts => Ok(text),
            TextOr::Text(_) => {
                Err(Error::invalid(format!("input[{i}]"), "`input` mixes strings and parts; use one kind."))
            }
            TextOr::Other(part) => part.text(&format!("input[{i}]")),
        })
        .collect::<Result<_, _>>()?;
    Ok(if parts { vec![texts.join("\n")] } else { texts })
}

impl PartBody {
    fn text(self, path: &str) -> Result<String, Error> {
        settle(&fields::MODERATION_PART, path, self.rest)?;
        if self.kind == "image_url" || self.image_url.is_some() {
            let place = format!("{path}.image_url");
            let message = format!("`{place}` is not supported: this server judges text only; leave images out.");
            return Err(Error::invalid(place, message).with_code("unsupported_parameter"));
        }
        if self.kind != "text" {
            let message = format!("`{path}.type` is \"{}\", but must be text.", self.kind);
            return Err(Error::invalid(format!("{path}.type"), message));
        }
        let missing = || Error::invalid(format!("{path}.text"), format!("`{path}.text` is required in a text part."));
        self.text.ok_or_else(missing)
    }
}

/// The reply's body.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ModerationBody {
    /// `modr-` and the request's id.
    pub id: String,
    /// What judged.
    pub model: String,
    /// One per input, in order.
    pub results: Vec<ResultBody>,
}

/// The judgement of one input, by category.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct ResultBody {
    /// Any category counts.
    pub flagged: bool,
    /// Whether each counts.
    pub categories: BTreeMap<String, bool>,
    /// How strongly each does, 0 to 1.
    pub category_scores: BTreeMap<String, f32>,
    /// What each was judged by: always text.
    pub category_applied_input_types: BTreeMap<String, Vec<String>>,
}

impl ResultBody {
    /// The judgement from each category's name, whether it counts, and its score.
    pub fn new<'a>(categories: impl Iterator<Item = (&'a str, bool, f32)>) -> Self {
        let mut body = Self::default();
        for (name, flagged, score) in categories {
            body.flagged |= flagged;
            body.categories.insert(name.to_owned(), flagged);
            body.category_scores.insert(name.to_owned(), score);
            body.category_applied_input_types.insert(name.to_owned(), vec!["text".to_owned()]);
        }
        body
    }
}
