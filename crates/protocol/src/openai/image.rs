//! `POST /v1/images/generations`. Images come back in the reply: nothing is stored here that an address could lead to.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Recorded,
    body::{Rest, decode, settle, within},
    call, fields,
    schema::Described,
};
use crate::{DrawRequest, Drawing, Error};

/// The most images of one request.
const MAX_IMAGES: usize = 10;
/// The longest side of an image, in pixels.
const MAX_SIDE: u32 = 8192;

/// The request's body.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = Described(&fields::IMAGE))]
#[serde(default)]
#[expect(missing_docs, reason = "the fields are OpenAI's; `fields::IMAGE` describes them")]
pub struct ImageRequest {
    pub model: String,
    pub prompt: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_format: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<i64>,
    #[serde(flatten)]
    pub rest: Rest,
}

/// A decoded call for images.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageCall {
    /// What to draw.
    pub request: DrawRequest,
    /// Advisory fields the caller sent.
    pub recorded: Recorded,
}

/// Decodes and checks a request body.
pub fn parse(bytes: &[u8]) -> Result<ImageCall, Error> {
    decode::<ImageRequest>(bytes)?.check()
}

impl ImageRequest {
    /// The plain request, or the field at fault.
    pub fn check(self) -> Result<ImageCall, Error> {
        let recorded = settle(&fields::IMAGE, "", self.rest)?;
        if self.stream == Some(true) {
            return Err(unsupported("stream", "`stream` true is not supported: images come whole; leave it out."));
        }
        format(self.response_format.as_deref())?;
        if self.prompt.trim().is_empty() {
            return Err(Error::invalid("prompt", "`prompt` is required: say what to draw."));
        }
        let request = DrawRequest {
            id: String::new(),
            model: call::model(self.model)?,
            prompt: self.prompt,
            n: within("n", self.n, 1, MAX_IMAGES)?.unwrap_or(1),
            size: self.size.as_deref().map_or(Ok(None), size)?,
            seed: self.seed.map(i64::cast_unsigned),
            tenant: call::tenant(&recorded),
        };
        Ok(ImageCall { request, recorded })
    }

    /// The wire form of a plain request.
    pub fn show(plain: &DrawRequest) -> Self {
        Self {
            model: plain.model.clone(),
            prompt: plain.prompt.clone(),
            n: (plain.n > 1).then_some(plain.n),
            size: plain.size.map(|(width, height)| format!("{width}x{height}")),
            response_format: Some("b64_json".to_owned()),
            stream: None,
            seed: plain.seed.map(u64::cast_signed),
            rest: call::user(&plain.tenant),
        }
    }
}

fn format(name: Option<&str>) -> Result<(), Error> {
    match name {
        None | Some("b64_json") => Ok(()),
        Some("url") => {
            let message = "`response_format` url is not supported: images are not kept here; send b64_json.";
            Err(unsupported("response_format", message))
        }
        Some(other) => {
            let message = format!("`response_format` is \"{other}\", but must be b64_json.");
            Err(Error::invalid("response_format", message))
        }
    }
}

/// Width and height; `auto` leaves them to the model.
fn size(text: &str) -> Result<Option<(u32, u32)>, Error> {
    if text == "auto" {
        return Ok(None);
    }
    let sides = text.split_once('x').and_then(|(width, height)| Some((side(width)?, side(height)?)));
    sides.map(Some).ok_or_else(|| {
        let message =
            format!("`size` is \"{text}\", but must be auto or WIDTHxHEIGHT in pixels, each from 1 to {MAX_SIDE}.");
        Error::invalid("size", message)
    })
}

fn side(text: &str) -> Option<u32> {
    text.parse().ok().filter(|side| (1..=MAX_SIDE).contains(side))
}

fn unsupported(place: &str, message: &str) -> Error {
    Error::invalid(place, message).with_code("unsupported_parameter")
}

/// The reply's body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ImageList {
    /// Seconds since 1970.
    pub created: u64,
    /// In the order they were drawn.
    pub data: Vec<ImageBody>,
    /// `png`, `jpeg` or `webp`, if they are all of one kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_format: Option<String>,
}

/// An image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ImageBody {
    /// The encoded file in base64.
    pub b64_json: String,
}

impl ImageList {
    /// The wire form of a drawing made at `created`.
    pub fn new(created: u64, drawing: &Drawing) -> Self {
        let kind = |media_type: &str| media_type.strip_prefix("image/").map(str::to_owned);
        let first = drawing.images.first().map(|image| image.media_type.as_str()).unwrap_or_default();
        let alike = drawing.images.iter().all(|image| image.media_type == first);
        Self {
            created,
            data: drawing.images.iter().map(|image| ImageBody { b64_json: STANDARD.encode(&image.bytes) }).collect(),
            output_format: kind(first).filter(|_| alike),
        }
    }
}
