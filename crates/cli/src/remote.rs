//! A server of ours and what OpenAI's API lacks, and so no upstream offers: its decisions, its rollouts.

use std::{collections::VecDeque, fmt, time::Duration};

use futures_util::stream;
use protocol::{
    Conclusion, DecideRequest, Decision, Error, ErrorKind, Step, StepEvent, StepStream, openai::ErrorBody,
    reasoning::DecisionBody, sse::Decoder,
};
use reqwest::{Client, Method, RequestBuilder, Response};
use serde::Deserialize;
use serde_json::Value;

/// Has the server at `url` decide, step by step. A key is taken from `TESSERA_API_KEY`.
pub(crate) async fn decide(url: &str, request: DecideRequest) -> anyhow::Result<StepStream> {
    let body = DecisionBody {
        decision: request.decision,
        text: request.text,
        facts: request.facts,
        model: Some(request.model).filter(|model| !model.is_empty()),
        language: request.language,
        user: None,
        stream: true,
    };
    let builder = asking(Method::POST, url, "/v1/reasoning/decisions")?.header("content-type", "application/json");
    let response = accepted(builder.body(serde_json::to_string(&body)?).send().await.map_err(broken)?).await?;
    let reader = Reader { response, decoder: Decoder::default(), events: VecDeque::new(), over: false };
    Ok(Box::pin(stream::try_unfold(reader, |mut reader| async {
        Ok(reader.next().await?.map(|event| (event, reader)))
    })))
}

/// What the server at `url` says under a path. A key is taken from `TESSERA_API_KEY`.
pub(crate) async fn get(url: &str, path: &str) -> anyhow::Result<Value> {
    let response = accepted(asking(Method::GET, url, path)?.send().await.map_err(broken)?).await?;
    Ok(serde_json::from_slice(&response.bytes().await.map_err(broken)?)?)
}

/// What the server at `url` answers to a body under a path. A key is taken from `TESSERA_API_KEY`.
pub(crate) async fn post(url: &str, path: &str, body: &Value) -> anyhow::Result<Value> {
    let builder = asking(Method::POST, url, path)?.header("content-type", "application/json");
    let response = accepted(builder.body(body.to_string()).send().await.map_err(broken)?).await?;
    Ok(serde_json::from_slice(&response.bytes().await.map_err(broken)?)?)
}

/// A request with the caller's key, if there is one.
fn asking(method: Method, url: &str, path: &str) -> anyhow::Result<RequestBuilder> {
    hub::install_tls();
    let client = Client::builder().connect_timeout(Duration::from_secs(10)).build()?;
    let base = url.trim_end_matches('/').trim_end_matches("/v1");
    let builder = client.request(method, format!("{base}{path}"));
    let key = std::env::var("TESSERA_API_KEY").ok().filter(|key| !key.is_empty());
    Ok(match key {
        Some(key) => builder.bearer_auth(key),
        None => builder,
    })
}

async fn accepted(response: Response) -> Result<Response, Error> {
    if response.status().is_success() {
        return Ok(response);
    }
    let status = response.status();
    let body = response.bytes().await.unwrap_or_default();
    let said = serde_json::from_slice::<ErrorBody>(&body).map(|body| body.error.message);
    Err(Error::new(ErrorKind::Invalid, said.unwrap_or_else(|_| format!("the server answers {status}"))))
}

/// A stream of server-sent events becomes steps.
struct Reader {
    response: Response,
    decoder: Decoder,
    events: VecDeque<StepEvent>,
    over: bool,
}

impl Reader {
    async fn next(&mut self) -> Result<Option<StepEvent>, Error> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(Some(event));
            }
            if self.over {
                return Ok(None);
            }
            match self.response.chunk().await.map_err(broken)? {
                Some(bytes) => self.decoder.push(&bytes)?,
                None => return Err(broken("the server ended the answer before its end")),
            }
            while let Some(frame) = self.decoder.next_frame() {
                self.take(&frame.data)?;
            }
        }
    }

    fn take(&mut self, data: &str) -> Result<(), Error> {
        let message: Value = serde_json::from_str(data).map_err(broken)?;
        if let Some(message) = message["error"]["message"].as_str() {
            return Err(Error::internal(message));
        }
        // Paths of reasoning end with their outcome and have no mark.
        self.over |= message["status"].is_string();
        self.events.extend(steps_of(&message));
        Ok(())
    }
}

/// The events of one message of a decision's stream: its head, a step or its end.
fn steps_of(message: &Value) -> Option<StepEvent> {
    if message["status"].is_string() {
        let decision = Decision::deserialize(message).ok()?;
        return Some(StepEvent::Done(Box::new(Conclusion::Decision(decision))));
    }
    let head = message["version"].as_str().map(|version| StepEvent::Started { version: version.to_owned() });
    head.or_else(|| Step::deserialize(message).ok().map(StepEvent::Step))
}

/// A failure of the connection or of what came over it.
fn broken(error: impl fmt::Display) -> Error {
    Error::internal(error)
}
