//! `POST /v1/embeddings`.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Input, Recorded,
    body::{Rest, decode, settle},
    call, fields,
};
use crate::openai::schema::Described;
use crate::{EmbedRequest, Embeddings, Error, TextOrTokens};

/// The most inputs of one request.
const MAX_INPUTS: usize = 2048;

/// The request's body.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = Described(&fields::EMBEDDING))]
pub struct EmbeddingRequest {
    /// Which model.
    #[serde(default)]
    pub model: String,
    /// What to embed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Input>,
    /// Keep so many dimensions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dimensions: Option<usize>,
    /// `float` or `base64`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding_format: Option<String>,
    /// Advisory and unknown fields.
    #[serde(flatten)]
    pub rest: Rest,
}

/// How vectors are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encoding {
    /// As an array of numbers.
    #[default]
    Float,
    /// As base64 of little-endian `f32`: a third of the bytes, and what the Python SDK asks for.
    Base64,
}

/// A decoded call for vectors.
#[derive(Debug, Clone, PartialEq)]
pub struct EmbedCall {
    /// What to embed.
    pub request: EmbedRequest,
    /// How to write the vectors.
    pub encoding: Encoding,
    /// Advisory fields the caller sent.
    pub recorded: Recorded,
}

/// Decodes and checks a request body.
pub fn parse(bytes: &[u8]) -> Result<EmbedCall, Error> {
    decode::<EmbeddingRequest>(bytes)?.check()
}

impl EmbeddingRequest {
    /// The plain request, or the field at fault.
    pub fn check(self) -> Result<EmbedCall, Error> {
        let recorded = settle(&fields::EMBEDDING, "", self.rest)?;
        let model = call::model(self.model)?;
        let input = self.input.ok_or_else(|| Error::invalid("input", "`input` is required: the texts to embed."))?;
        let inputs = input.texts("input", MAX_INPUTS)?.into_iter().map(|(place, text)| not_empty(&place, text));
        let inputs = inputs.collect::<Result<_, _>>()?;
        if self.dimensions == Some(0) {
            return Err(Error::invalid("dimensions", "`dimensions` must be 1 or more."));
        }
        let encoding = encoding(self.encoding_format.as_deref())?;
        Ok(EmbedCall { request: EmbedRequest { model, inputs, dimensions: self.dimensions }, encoding, recorded })
    }

    /// The wire form of a plain request.
    pub fn show(plain: &EmbedRequest) -> Self {
        Self {
            model: plain.model.clone(),
            input: Some(Input::Many(plain.inputs.clone())),
            dimensions: plain.dimensions,
            ..Self::default()
        }
    }
}

fn not_empty(place: &str, text: TextOrTokens) -> Result<TextOrTokens, Error> {
    match text {
        TextOrTokens::Text(text) if text.is_empty() => {
            Err(Error::invalid(place, format!("`{place}` is an empty string: there is nothing to embed.")))
        }
        text => Ok(text),
    }
}

fn encoding(name: Option<&str>) -> Result<Encoding, Error> {
    match name {
        None | Some("float") => Ok(Encoding::Float),
        Some("base64") => Ok(Encoding::Base64),
        Some(other) => {
            let message = format!("`encoding_format` is \"{other}\", but must be float or base64.");
            Err(Error::invalid("encoding_format", message))
        }
    }
}

/// The reply's body.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EmbeddingList {
    /// Always `list`.
    pub object: String,
    /// One per input, in order.
    pub data: Vec<EmbeddingBody>,
    /// The model that answered.
    pub model: String,
    /// What it cost.
    pub usage: EmbeddingUsage,
}

/// A vector.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EmbeddingBody {
    /// Always `embedding`.
    pub object: String,
    /// Which input it belongs to.
    pub index: usize,
    /// The numbers.
    pub embedding: Vector,
}

/// A vector in either form.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Vector {
    /// An array of numbers.
    Float(Vec<f32>),
    /// Base64 of little-endian `f32`.
    Base64(String),
}

/// `usage` of an embedding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EmbeddingUsage {
    /// Tokens read.
    pub prompt_tokens: usize,
    /// The same.
    pub total_tokens: usize,
}

impl EmbeddingList {
    /// The wire form of the vectors `model` made.
    pub fn new(model: String, embeddings: Embeddings, encoding: Encoding) -> Self {
        let body = |(index, vector)| EmbeddingBody {
            object: "embedding".to_owned(),
            index,
            embedding: Vector::new(vector, encoding),
        };
        let tokens = embeddings.prompt_tokens;
        Self {
            object: "list".to_owned(),
            data: embeddings.vectors.into_iter().enumerate().map(body).collect(),
            model,
            usage: EmbeddingUsage { prompt_tokens: tokens, total_tokens: tokens },
        }
    }
}

impl Vector {
    fn new(numbers: Vec<f32>, encoding: Encoding) -> Self {
        match encoding {
            Encoding::Float => Self::Float(numbers),
            Encoding::Base64 => {
                let bytes: Vec<u8> = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
                Self::Base64(STANDARD.encode(bytes))
            }
        }
    }
}
