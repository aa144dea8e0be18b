//! A server that speaks the OpenAI API, as a service like the engine: `chat` and `generate` do not see the difference. Ours
//! also decides ([`Remote::decide`]).

use std::{collections::VecDeque, fmt, time::Duration};

use futures_util::{FutureExt, Stream, future::BoxFuture, stream};
use protocol::{
    Conclusion, DecideRequest, Decision, Error, ErrorKind, Event, EventStream, FinishReason, Generate, GenerateRequest,
    ModelCard, Prompt, Step, StepEvent, StepStream, Usage,
    openai::{ErrorBody, chat::ChatRequest, completion::CompletionRequest, models::ModelList},
    reasoning::DecisionBody,
};
use reqwest::{Client, Response};
use serde::Deserialize;
use serde_json::{Value, json};

/// A server elsewhere.
pub(crate) struct Remote {
    client: Client,
    base: String,
    key: Option<String>,
    models: Vec<ModelCard>,
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").field("base", &self.base).finish_non_exhaustive()
    }
}

impl Remote {
    /// Asks the server at `url` (with or without `/v1`) which models it has. A key is taken from `TESSERA_API_KEY`.
    pub(crate) async fn connect(url: &str) -> anyhow::Result<Self> {
        hub::install_tls();
        let client = Client::builder().connect_timeout(Duration::from_secs(10)).build()?;
        let base = url.trim_end_matches('/').trim_end_matches("/v1").to_owned();
        let key = std::env::var("TESSERA_API_KEY").ok().filter(|key| !key.is_empty());
        let mut remote = Self { client, base, key, models: Vec::new() };
        remote.models = remote.ask_models().await.map_err(|e| {
            anyhow::anyhow!("no OpenAI API at {url}: {e}; check the address, or start a server with `tessera up`")
        })?;
        Ok(remote)
    }

    async fn ask_models(&self) -> Result<Vec<ModelCard>, Error> {
        let response = self.send(self.client.get(self.address("models"))).await?;
        let list: ModelList = serde_json::from_slice(&response.bytes().await.map_err(broken)?).map_err(broken)?;
        let card = |id: String| ModelCard { chat: true, ..ModelCard::new(id) };
        Ok(list.data.into_iter().map(|model| card(model.id)).collect())
    }

    async fn ask(&self, request: GenerateRequest) -> Result<EventStream, Error> {
        let (place, body) = match &request.prompt {
            Prompt::Chat(chat) => ("chat/completions", serde_json::to_value(ChatRequest::show(&request, chat))),
            Prompt::Raw(text) => ("completions", serde_json::to_value(CompletionRequest::show(&request, text))),
        };
        let mut body = body.map_err(broken)?;
        body["stream"] = json!(true);
        body["stream_options"] = json!({ "include_usage": true });
        if request.model.is_empty() {
            body["model"] = json!(self.models.first().map(|card| &card.id));
        }
        let builder = self.client.post(self.address(place)).header("content-type", "application/json");
        let response = self.send(builder.body(body.to_string())).await?;
        Ok(Box::pin(Reader::stream(response, events_of)))
    }

    /// Has the server decide, step by step.
    pub(crate) async fn decide(&self, request: DecideRequest) -> Result<StepStream, Error> {
        let body = DecisionBody {
            decision: request.decision,
            text: request.text,
            facts: request.facts,
            model: Some(request.model).filter(|model| !model.is_empty()),
            language: request.language,
            stream: true,
        };
        let body = serde_json::to_string(&body).map_err(broken)?;
        let address = self.address("reasoning/decisions");
        let response =
            self.send(self.client.post(address).header("content-type", "application/json").body(body)).await?;
        Ok(Box::pin(Reader::stream(response, steps_of)))
    }

    async fn send(&self, mut builder: reqwest::RequestBuilder) -> Result<Response, Error> {
        if let Some(key) = &self.key {
            builder = builder.bearer_auth(key);
        }
        let response = builder.send().await.map_err(broken)?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let body = response.bytes().await.unwrap_or_default();
        let said = serde_json::from_slice::<ErrorBody>(&body).map(|body| body.error.message);
        Err(Error::new(ErrorKind::Invalid, said.unwrap_or_else(|_| format!("the server answers {status}"))))
    }

    fn address(&self, place: &str) -> String {
        format!("{}/v1/{place}", self.base)
    }
}

impl Generate for Remote {
    fn models(&self) -> Vec<ModelCard> {
        self.models.clone()
    }

    fn generate(&self, request: GenerateRequest) -> BoxFuture<'_, Result<EventStream, Error>> {
        self.ask(request).boxed()
    }
}

/// A stream of server-sent events becomes plain events.
struct Reader<E> {
    response: Response,
    buffer: Vec<u8>,
    events: VecDeque<E>,
    /// Reads the data of one.
    read: fn(&Value) -> Vec<E>,
    over: bool,
}

impl<E> Reader<E> {
    fn stream(response: Response, read: fn(&Value) -> Vec<E>) -> impl Stream<Item = Result<E, Error>> {
        let reader = Self { response, buffer: Vec::new(), events: VecDeque::new(), read, over: false };
        stream::try_unfold(reader, |mut reader| async { Ok(reader.next().await?.map(|event| (event, reader))) })
    }

    async fn next(&mut self) -> Result<Option<E>, Error> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(Some(event));
            }
            if self.over {
                return Ok(None);
            }
            match self.response.chunk().await.map_err(broken)? {
                Some(bytes) => self.buffer.extend_from_slice(&bytes),
                None => return Err(broken("the server ended the answer before its end")),
            }
            while let Some(end) = self.buffer.iter().position(|&b| b == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                self.line(&String::from_utf8_lossy(&line))?;
            }
        }
    }

    fn line(&mut self, line: &str) -> Result<(), Error> {
        let Some(data) = line.trim_end().strip_prefix("data:").map(str::trim_start) else { return Ok(()) };
        if data == "[DONE]" {
            self.over = true;
            return Ok(());
        }
        let chunk: Value = serde_json::from_str(data).map_err(broken)?;
        if let Some(message) = chunk["error"]["message"].as_str() {
            return Err(Error::internal(message));
        }
        // Paths of reasoning end with their outcome and have no mark.
        self.over |= chunk["status"].is_string();
        self.events.extend((self.read)(&chunk));
        Ok(())
    }
}

/// The events of one chunk, of a chat or of a completion.
fn events_of(chunk: &Value) -> Vec<Event> {
    let mut events = Vec::new();
    for choice in chunk["choices"].as_array().into_iter().flatten() {
        let index = choice["index"].as_u64().unwrap_or(0) as usize;
        if let Some(text) = choice["delta"]["content"].as_str().or_else(|| choice["text"].as_str()) {
            events.push(Event::Text { choice: index, text: text.to_owned(), logprobs: Vec::new() });
        }
        let reason = match choice["finish_reason"].as_str() {
            Some("length") => FinishReason::Length,
            Some("tool_calls") => FinishReason::ToolCalls,
            Some("content_filter") => FinishReason::ContentFilter,
            Some(_) => FinishReason::Stop,
            None => continue,
        };
        events.push(Event::Finished { choice: index, reason });
    }
    if let Some(usage) = chunk["usage"].as_object() {
        let count = |name: &str| usage.get(name).and_then(Value::as_u64).unwrap_or(0) as usize;
        let cached = chunk["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap_or(0) as usize;
        let (prompt_tokens, completion_tokens) = (count("prompt_tokens"), count("completion_tokens"));
        events.push(Event::Done(Usage { prompt_tokens, cached_tokens: cached, completion_tokens }));
    }
    events
}

/// The events of one message of a decision's stream: its head, a step or its end.
fn steps_of(message: &Value) -> Vec<StepEvent> {
    if message["status"].is_string() {
        let decision = Decision::deserialize(message).map(|decision| Box::new(Conclusion::Decision(decision)));
        return decision.map(StepEvent::Done).into_iter().collect();
    }
    let head = message["version"].as_str().map(|version| StepEvent::Started { version: version.to_owned() });
    head.or_else(|| Step::deserialize(message).ok().map(StepEvent::Step)).into_iter().collect()
}

/// A failure of the connection or of what came over it.
fn broken(error: impl fmt::Display) -> Error {
    Error::internal(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_become_events() {
        let text = |text: &str| Event::Text { choice: 0, text: text.to_owned(), logprobs: Vec::new() };
        let stop = Event::Finished { choice: 0, reason: FinishReason::Stop };
        let check = |chunk: Value, events: &[Event]| assert_eq!(events_of(&chunk), events, "{chunk}");
        check(json!({"choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": null}]}), &[text("Hi")]);
        check(json!({"choices": [{"index": 0, "text": "Hi", "finish_reason": "stop"}]}), &[text("Hi"), stop]);
        check(json!({"choices": [{"index": 0, "delta": {"role": "assistant"}}]}), &[]);
        let usage = Usage { prompt_tokens: 3, cached_tokens: 1, completion_tokens: 2 };
        let body = json!({"prompt_tokens": 3, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 1}});
        check(json!({"choices": [], "usage": body}), &[Event::Done(usage)]);
    }
}
