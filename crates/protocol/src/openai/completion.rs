//! `POST /v1/completions`: raw text or token ids, several prompts at once, and the scoring of prompts that evaluation
//! harnesses rely on (`echo` with `logprobs`).

mod reply;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use reply::{Collector, Completion, CompletionChoice, Stream};

use super::{
    Call, Input, LogitBias, ResponseFormat, StopStrings, StreamOptions,
    body::{Rest, decode, settle, within},
    call, fields,
    knobs::{Knobs, take_knobs},
};
use crate::openai::schema::Described;
use crate::{Error, Format, GenerateRequest, Prompt, TextOrTokens};

/// The most prompts of one request.
const MAX_PROMPTS: usize = 2048;
/// The default length of an answer, OpenAI's.
const DEFAULT_MAX_TOKENS: usize = 16;
/// OpenAI stops at 5; comparing distributions needs more.
const MAX_LOGPROBS: usize = 100;

/// The request's body.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = Described(&fields::COMPLETION))]
#[serde(default)]
#[expect(missing_docs, reason = "the fields are OpenAI's; `fields::COMPLETION` describes them")]
pub struct CompletionRequest {
    pub model: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt: Option<Input>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub echo: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logprobs: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score_from: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub best_of: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream_options: Option<StreamOptions>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_format: Option<ResponseFormat>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_k: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_p: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub presence_penalty: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frequency_penalty: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repetition_penalty: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logit_bias: Option<LogitBias>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop: Option<StopStrings>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ignore_eos: Option<bool>,
    #[serde(flatten)]
    pub rest: Rest,
}

/// Decodes and checks a request body. Never panics, whatever the bytes.
pub fn parse(bytes: &[u8]) -> Result<Call, Error> {
    decode::<CompletionRequest>(bytes)?.check()
}

impl CompletionRequest {
    /// One plain request per prompt, or the field at fault.
    pub fn check(mut self) -> Result<Call, Error> {
        let recorded = settle(&fields::COMPLETION, "", std::mem::take(&mut self.rest))?;
        let prompt = self.prompt.take();
        let prompt = prompt.ok_or_else(|| Error::invalid("prompt", "`prompt` is required: what to continue."))?;
        let stream = self.stream.unwrap_or(false);
        let include_usage = call::include_usage(stream, self.stream_options.take())?;
        let plain = GenerateRequest { tenant: call::tenant(&recorded), ..self.settings()? };
        let of = |(_, text)| GenerateRequest { prompt: Prompt::Raw(text), ..plain.clone() };
        let requests = prompt.texts("prompt", MAX_PROMPTS)?.into_iter().map(of).collect();
        Ok(Call { requests, stream, include_usage, recorded })
    }

    /// Everything but the prompt.
    fn settings(&mut self) -> Result<GenerateRequest, Error> {
        let (sampling, mut stop) = take_knobs!(self).check()?;
        let n = within("n", self.n, 1, 128)?.unwrap_or(1);
        best_of(self.best_of, n)?;
        let max_tokens = self.max_tokens.unwrap_or(DEFAULT_MAX_TOKENS);
        stop.max_tokens = Some(max_tokens);
        let format = self.response_format.take().map_or(Ok(Format::Text), ResponseFormat::check)?;
        let logprobs = within("logprobs", self.logprobs, 0, MAX_LOGPROBS)?;
        let echo = self.echo.unwrap_or(false);
        let model = call::model(std::mem::take(&mut self.model))?;
        let prompt = Prompt::Raw(TextOrTokens::Tokens(Vec::new()));
        let score_from = score_from(self.score_from, echo && logprobs.is_some())?;
        let neutral = GenerateRequest::new(prompt, max_tokens);
        Ok(GenerateRequest { model, sampling, stop, format, n, logprobs, echo, score_from, ..neutral })
    }

    /// The wire form of a plain request for `prompt`.
    pub fn show(plain: &GenerateRequest, prompt: &TextOrTokens) -> Self {
        let knobs = Knobs::show(&plain.sampling, &plain.stop);
        Self {
            model: plain.model.clone(),
            prompt: Some(Input::One(prompt.clone())),
            max_tokens: plain.stop.max_tokens,
            echo: plain.echo.then_some(true),
            logprobs: plain.logprobs,
            score_from: (plain.score_from > 0).then_some(plain.score_from),
            n: (plain.n > 1).then_some(plain.n),
            response_format: ResponseFormat::show(&plain.format),
            temperature: knobs.temperature,
            top_p: knobs.top_p,
            top_k: knobs.top_k,
            min_p: knobs.min_p,
            presence_penalty: knobs.presence_penalty,
            frequency_penalty: knobs.frequency_penalty,
            repetition_penalty: knobs.repetition_penalty,
            logit_bias: knobs.logit_bias,
            seed: knobs.seed,
            stop: knobs.stop,
            ignore_eos: knobs.ignore_eos,
            rest: call::user(&plain.tenant),
            ..Self::default()
        }
    }
}

fn best_of(best_of: Option<usize>, n: usize) -> Result<(), Error> {
    match best_of {
        Some(b) if b != n => {
            let message =
                format!("`best_of` is {b} but `n` is {n}: nothing is drawn and thrown away here; leave it out.");
            Err(Error::invalid("best_of", message).with_code("unsupported_parameter"))
        }
        _ => Ok(()),
    }
}

fn score_from(from: Option<usize>, scoring: bool) -> Result<usize, Error> {
    match from {
        Some(from) if from > 0 && !scoring => {
            let message = format!("`score_from` is {from}, but only `echo` with `logprobs` scores a prompt.");
            Err(Error::invalid("score_from", message))
        }
        from => Ok(from.unwrap_or(0)),
    }
}
