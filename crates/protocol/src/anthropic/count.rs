//! The body of `POST /v1/messages/count_tokens`: a messages request without what only an answer needs.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Content, MessagesRequest, OutputConfig, Thinking, ToolBody, ToolChoiceBody, Turn, fields};
use crate::openai::schema::Described;
use crate::{
    Error, GenerateRequest,
    openai::{
        Rest,
        body::{decode, settle},
    },
};

/// The request's body.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = Described(&fields::COUNT))]
#[serde(default)]
#[expect(missing_docs, reason = "the fields are Anthropic's; `fields::COUNT` describes them")]
pub struct CountRequest {
    pub model: String,
    pub messages: Vec<Turn>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system: Option<Content>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tools: Option<Vec<ToolBody>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_choice: Option<ToolChoiceBody>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thinking: Option<Thinking>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_config: Option<OutputConfig>,
    #[serde(flatten)]
    pub rest: Rest,
}

/// The reply's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TokenCount {
    /// Tokens of the prompt.
    pub input_tokens: usize,
}

/// Decodes and checks a request body: the plain request whose prompt is to be counted.
pub fn parse_count(bytes: &[u8]) -> Result<GenerateRequest, Error> {
    decode::<CountRequest>(bytes)?.check()
}

impl CountRequest {
    /// The plain request, or the field at fault.
    pub fn check(self) -> Result<GenerateRequest, Error> {
        settle(&fields::COUNT, "", self.rest)?;
        let whole = MessagesRequest {
            model: self.model,
            messages: self.messages,
            // The wire asks nothing about an answer, which a request has to name a limit for.
            max_tokens: Some(1),
            system: self.system,
            tools: self.tools,
            tool_choice: self.tool_choice,
            thinking: self.thinking,
            output_config: self.output_config,
            ..MessagesRequest::default()
        };
        let mut call = whole.check()?;
        call.requests.pop().ok_or_else(|| Error::internal("A messages request became no plain request."))
    }
}
