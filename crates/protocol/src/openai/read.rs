//! Chunks of a chat or a completion as plain events: what a client of the API needs.
//!
//! Written for what servers send and not only for what the description says. Known differences: vLLM's error codes are numbers,
//! and its `stop_reason` says which stop string ended an answer; some servers send the usage with every chunk, some never, some no
//! `[DONE]`; names and ids of calls come again with every piece, or an id not at all; thoughts (`reasoning`,
//! `reasoning_content`) have no plain form and are left out.

use serde::Deserialize;
use serde_json::Value;

use super::{ChatLogprobs, CompletionLogprobs, TopLogprobs};
use crate::{Error, ErrorKind, Event, FinishReason, MOST_CALLS, TokenLogprob, Usage, too_many_calls};

/// The data of the last event of a stream.
const DONE: &str = "[DONE]";

/// Reads one reply.
#[derive(Debug)]
pub struct Reader {
    stops: Vec<String>,
    choices: Vec<Choice>,
    started: bool,
    usage: Option<Usage>,
    /// Pieces of answers so far: how many tokens there were at least, for servers that never say.
    pieces: usize,
    done: bool,
}

/// What is known of an answer.
#[derive(Debug, Clone, Default)]
struct Choice {
    /// The wire's index of every call, in order.
    calls: Vec<usize>,
    finished: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Incoming {
    choices: Vec<IncomingChoice>,
    usage: Option<IncomingUsage>,
    error: Option<Value>,
    /// `error` in an older form, in which the chunk itself is the error.
    object: Option<String>,
    message: Option<String>,
    code: Option<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct IncomingChoice {
    index: usize,
    delta: Option<IncomingDelta>,
    text: Option<String>,
    logprobs: Option<IncomingLogprobs>,
    finish_reason: Option<String>,
    stop_reason: Option<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct IncomingDelta {
    content: Option<String>,
    refusal: Option<String>,
    tool_calls: Option<Vec<IncomingCall>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct IncomingCall {
    index: Option<usize>,
    id: Option<String>,
    function: Option<IncomingFunction>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct IncomingFunction {
    name: Option<String>,
    arguments: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum IncomingLogprobs {
    Chat(ChatLogprobs),
    Completion(CompletionLogprobs),
    Other(serde::de::IgnoredAny),
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct IncomingUsage {
    prompt_tokens: Option<usize>,
    completion_tokens: Option<usize>,
    prompt_tokens_details: Option<IncomingDetails>,
    /// What only we are known to send: whatever else it may be with others, it breaks no answer.
    processor_micros: Value,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct IncomingDetails {
    cached_tokens: Option<usize>,
}

impl Reader {
    /// A reader of the reply to a request for `n` answers with these stop strings.
    pub fn new(n: usize, stops: Vec<String>) -> Self {
        Self { stops, choices: vec![Choice::default(); n], started: false, usage: None, pieces: 0, done: false }
    }

    /// The events of the data of one server-sent event.
    pub fn push(&mut self, data: &str) -> Result<Vec<Event>, Error> {
        if data.trim() == DONE {
            return self.finish();
        }
        let chunk: Incoming = serde_json::from_str(data).map_err(|e| {
            Error::new(ErrorKind::Upstream, format!("The upstream sent a chunk that is not understood: {e}."))
        })?;
        if let Some(error) = failure(&chunk) {
            return Err(error);
        }
        let mut out = Vec::new();
        if !std::mem::replace(&mut self.started, true) {
            // How long the prompt is, comes at the end.
            out.push(Event::Started { prompt_tokens: 0, cached_tokens: 0 });
        }
        self.usage = chunk.usage.map(Usage::from).or(self.usage);
        chunk.choices.into_iter().try_for_each(|choice| self.choice(choice, &mut out))?;
        Ok(out)
    }

    /// The stream is over, with `[DONE]` or without. An answer that never said why it ended, was cut.
    pub fn finish(&mut self) -> Result<Vec<Event>, Error> {
        if std::mem::replace(&mut self.done, true) {
            return Ok(Vec::new());
        }
        if !self.choices.iter().all(|choice| choice.finished) {
            return Err(Error::new(ErrorKind::Upstream, "The upstream ended the answer before its end."));
        }
        Ok(vec![Event::Done(self.usage.unwrap_or_default().plausible(self.pieces))])
    }

    fn choice(&mut self, choice: IncomingChoice, out: &mut Vec<Event>) -> Result<(), Error> {
        let index = choice.index;
        if index >= self.choices.len() {
            let message = format!("The upstream sent answer {index} of {}.", self.choices.len());
            return Err(Error::new(ErrorKind::Upstream, message));
        }
        let delta = choice.delta.unwrap_or_default();
        let logprobs = choice.logprobs.map(scores).unwrap_or_default();
        // A refusal is content here, as in our own answers.
        let text = [choice.text, delta.content, delta.refusal].into_iter().flatten().collect::<String>();
        if !text.is_empty() || !logprobs.is_empty() {
            self.pieces += 1;
            out.push(Event::Text { choice: index, text, logprobs });
        }
        for call in delta.tool_calls.into_iter().flatten() {
            self.pieces += 1;
            out.push(self.call(index, call)?);
        }
        if let Some(word) = choice.finish_reason {
            let reason = self.reason(&word, choice.stop_reason.as_ref())?;
            if !std::mem::replace(&mut self.choices[index].finished, true) {
                out.push(Event::Finished { choice: index, reason });
            }
        }
        Ok(())
    }

    /// Without an index, a piece with an id begins a call and one without goes on with the last.
    fn call(&mut self, choice: usize, call: IncomingCall) -> Result<Event, Error> {
        let calls = &mut self.choices[choice].calls;
        let last = calls.last().copied();
        let wire = call.index.unwrap_or(match (last, &call.id) {
            (Some(last), None) => last,
            (Some(last), Some(_)) => last.saturating_add(1),
            (None, _) => 0,
        });
        let function = call.function.unwrap_or_default();
        let arguments = function.arguments.unwrap_or_default();
        if let Some(index) = calls.iter().position(|known| *known == wire) {
            return Ok(Event::ToolCall { choice, index, id: None, name: None, arguments });
        }
        if calls.len() >= MOST_CALLS {
            return Err(too_many_calls());
        }
        calls.push(wire);
        let index = calls.len() - 1;
        let id = call.id.filter(|id| !id.is_empty()).unwrap_or_else(|| format!("call_{choice}_{index}"));
        let name = Some(function.name.unwrap_or_default());
        Ok(Event::ToolCall { choice, index, id: Some(id), name, arguments })
    }

    fn reason(&self, word: &str, stop: Option<&Value>) -> Result<FinishReason, Error> {
        Ok(match word {
            "length" => FinishReason::Length,
            "tool_calls" | "function_call" => FinishReason::ToolCalls,
            "content_filter" => FinishReason::ContentFilter,
            "error" | "abort" => {
                return Err(Error::new(ErrorKind::Upstream, format!("The upstream gave the answer up ({word}).")));
            }
            _ => {
                let which = self.stops.iter().position(|string| stop.and_then(Value::as_str) == Some(string));
                which.map_or(FinishReason::Stop, FinishReason::StopString)
            }
        })
    }
}

impl From<IncomingUsage> for Usage {
    fn from(usage: IncomingUsage) -> Self {
        Self {
            prompt_tokens: usage.prompt_tokens.unwrap_or(0),
            cached_tokens: usage.prompt_tokens_details.and_then(|details| details.cached_tokens).unwrap_or(0),
            completion_tokens: usage.completion_tokens.unwrap_or(0),
            processor_micros: usage.processor_micros.as_u64(),
        }
    }
}

/// The error a chunk is, if it is one.
fn failure(chunk: &Incoming) -> Option<Error> {
    match &chunk.error {
        Some(Value::Null) | None if chunk.object.as_deref() == Some("error") => {
            let message = chunk.message.clone().unwrap_or_default();
            Some(error_of(&serde_json::json!({ "message": message, "code": chunk.code })))
        }
        Some(Value::Null) | None => None,
        Some(error) => Some(error_of(error)),
    }
}

/// The plain form of an error object, or of whatever a server puts in its place. A number as code is an HTTP status.
pub fn error_of(error: &Value) -> Error {
    let word = |name: &str| error.get(name).and_then(Value::as_str);
    let message = word("message").or(error.as_str()).unwrap_or("the upstream failed and does not say why");
    let number = error.get("code").and_then(|code| code.as_u64().or_else(|| code.as_str()?.parse().ok()));
    let kind = match (number, word("type").unwrap_or_default(), word("code").unwrap_or_default()) {
        (_, _, "content_filter" | "content_policy_violation" | "moderation_blocked") => ErrorKind::Blocked,
        // Our own account there, so no budget of the caller's.
        (_, "insufficient_quota", _) | (_, _, "insufficient_quota") => ErrorKind::Upstream,
        (Some(status), ..) => kind_of_status(status),
        (_, "invalid_request_error" | "BadRequestError", _) => ErrorKind::Invalid,
        (_, "rate_limit_error" | "requests" | "tokens", _) | (_, _, "rate_limit_exceeded") => ErrorKind::Overloaded,
        (_, "timeout_error", _) => ErrorKind::DeadlineExceeded,
        _ => ErrorKind::Upstream,
    };
    let error = Error::new(kind, message);
    let error = match word("param") {
        Some(param) => error.with_param(param),
        None => error,
    };
    match word("code").filter(|code| code.parse::<u64>().is_err()) {
        Some(code) => error.with_code(code.to_owned()),
        None => error,
    }
}

/// What an HTTP status of an upstream means. That it does not know us or the model we name, or that we did not pay, is a fault of
/// our settings and not of the caller's: another upstream may do.
pub fn kind_of_status(status: u64) -> ErrorKind {
    match status {
        400 | 409 | 413 | 415 | 422 => ErrorKind::Invalid,
        405 | 501 => ErrorKind::Unsupported,
        408 | 504 => ErrorKind::DeadlineExceeded,
        429 | 503 | 529 => ErrorKind::Overloaded,
        _ => ErrorKind::Upstream,
    }
}

/// Scores without token ids: the wire does not have them.
fn scores(logprobs: IncomingLogprobs) -> Vec<TokenLogprob> {
    match logprobs {
        IncomingLogprobs::Chat(ChatLogprobs { content, .. }) => {
            let bytes = |token: String, bytes: Option<Vec<u8>>| bytes.unwrap_or_else(|| token.into_bytes());
            let top = |t: super::ChatTopLogprob| (TokenLogprob::UNKNOWN, bytes(t.token, t.bytes), t.logprob);
            let one = |token: super::ChatLogprob| TokenLogprob {
                id: TokenLogprob::UNKNOWN,
                bytes: bytes(token.token, token.bytes),
                logprob: Some(token.logprob),
                top: token.top_logprobs.into_iter().map(top).collect(),
            };
            content.into_iter().map(one).collect()
        }
        IncomingLogprobs::Completion(CompletionLogprobs { tokens, token_logprobs, mut top_logprobs, .. }) => {
            top_logprobs.resize_with(tokens.len(), || None);
            let top = |TopLogprobs(list): TopLogprobs| {
                list.into_iter().map(|(text, score)| (TokenLogprob::UNKNOWN, written(&text), score)).collect()
            };
            let one = |((text, logprob), best): ((String, Option<f32>), Option<TopLogprobs>)| TokenLogprob {
                id: TokenLogprob::UNKNOWN,
                bytes: written(&text),
                logprob,
                top: best.map(top).unwrap_or_default(),
            };
            tokens.into_iter().zip(token_logprobs).zip(top_logprobs).map(one).collect()
        }
        IncomingLogprobs::Other(_) => Vec::new(),
    }
}

/// The bytes of a token's text, which may be spelled out: `bytes:\xe2\x80`.
fn written(text: &str) -> Vec<u8> {
    let spelled = text
        .strip_prefix("bytes:")
        .map(|rest| rest.split("\\x").skip(1).map(|byte| u8::from_str_radix(byte, 16)).collect::<Result<Vec<u8>, _>>());
    match spelled {
        Some(Ok(bytes)) if !bytes.is_empty() => bytes,
        _ => text.as_bytes().to_vec(),
    }
}

#[cfg(test)]
mod tests;
