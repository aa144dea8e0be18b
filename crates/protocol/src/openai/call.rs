//! What a decoded request asks for beside the plain requests in it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::body::{Rest, at, settle};
use super::fields;
use crate::openai::schema::Described;
use crate::{Error, GenerateRequest};

/// Advisory fields, kept for the record: they do not change the answer.
pub type Recorded = Rest;

/// A decoded call for text: what to generate, and how to deliver it.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// One request per prompt, never empty; a chat has one.
    pub requests: Vec<GenerateRequest>,
    /// Deliver as server-sent events.
    pub stream: bool,
    /// End the stream with a chunk that carries the usage.
    pub include_usage: bool,
    /// Advisory fields the caller sent.
    pub recorded: Recorded,
}

impl Call {
    /// The model the call names.
    pub fn model(&self) -> &str {
        self.requests.first().map_or("", |request| &request.model)
    }

    /// How many answers each prompt gets.
    pub fn n(&self) -> usize {
        self.requests.first().map_or(1, |request| request.n)
    }
}

/// `stream_options`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = Described(&fields::STREAM_OPTIONS))]
pub struct StreamOptions {
    /// End the stream with a chunk that carries the usage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub include_usage: Option<bool>,
    /// Pad chunks to equal size. Only `false` is accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub include_obfuscation: Option<bool>,
    /// Fields without a meaning here.
    #[serde(flatten)]
    pub rest: Rest,
}

/// Whether the usage is asked for; options without a stream are a mistake worth naming.
pub(super) fn include_usage(stream: bool, options: Option<StreamOptions>) -> Result<bool, Error> {
    const PATH: &str = "stream_options";
    let Some(options) = options else { return Ok(false) };
    if !stream {
        return Err(Error::invalid(PATH, "`stream_options` needs `stream` to be true."));
    }
    settle(&fields::STREAM_OPTIONS, PATH, options.rest)?;
    if options.include_obfuscation == Some(true) {
        return Err(no_padding(PATH));
    }
    Ok(options.include_usage.unwrap_or(false))
}

/// The error for stream options at `path` that ask for padding.
pub(super) fn no_padding(path: &str) -> Error {
    let place = at(path, "include_obfuscation");
    let message = format!("`{place}` is not supported: no padding is sent; leave it out.");
    Error::invalid(place, message).with_code("unsupported_parameter")
}

/// Until API keys exist, the end user a caller names is the tenant for fair queueing.
pub(super) fn tenant(recorded: &Recorded) -> String {
    let named = ["safety_identifier", "user"].iter().find_map(|name| recorded.get(*name)?.as_str());
    named.unwrap_or_default().to_owned()
}

/// Models are always named: a default that changes under a caller would be a surprise.
pub(crate) fn model(name: String) -> Result<String, Error> {
    if name.is_empty() {
        return Err(Error::invalid("model", "`model` is required: name one that GET /v1/models lists."));
    }
    Ok(name)
}

/// The fields that name a tenant on the wire.
pub(super) fn user(tenant: &str) -> Rest {
    let mut rest = Rest::new();
    if !tenant.is_empty() {
        rest.insert("user".to_owned(), tenant.into());
    }
    rest
}
