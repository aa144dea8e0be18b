//! A server elsewhere that speaks OpenAI's or Anthropic's API, as a service like the engine.
//!
//! Text is always asked for as a stream, whatever the caller wants in the end: the first byte is then known when it comes, a broken
//! answer is noticed where it breaks, and a caller that hangs up drops the connection, which is how such servers learn that they may
//! stop. Nothing is asked of the server that its wire cannot say: a plain request that does not fit is refused by name.
//!
//! The name of the tenant stays here. It would be the wire's `user`, and is no business of a provider.

mod answer;
mod http;
mod image;

use std::time::Duration;

use futures_util::{FutureExt, StreamExt, TryStreamExt, future::BoxFuture};
use protocol::{
    Draw, DrawRequest, Drawing, Embed, EmbedRequest, Embeddings, Error, ErrorKind, EventStream, Generate,
    GenerateRequest, Hop, ModelCard, Prompt, Reason, Usage,
    anthropic::{self, MessagesRequest},
    openai::{
        self,
        chat::ChatRequest,
        completion::CompletionRequest,
        embedding::{EmbeddingList, EmbeddingRequest, Vector},
    },
};
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{Retry, first};
use answer::{Answer, Wire};
use http::Http;

/// Where the server is, what it is asked for, and how long it may take.
#[derive(Debug, Clone)]
pub struct Config {
    /// What it is called here.
    pub name: String,
    /// Its base address, such as `http://gpu-1:8000/v1`; without a path `/v1` is meant.
    pub url: String,
    /// What it speaks.
    pub api: Api,
    /// It knows the bound of an answer by its older name only, `max_tokens`, and would pass over `max_completion_tokens`.
    pub older_limit: bool,
    /// The key it is asked with.
    pub key: Option<SecretString>,
    /// Text models offered from there, the default one first.
    pub models: Vec<Offer>,
    /// Embedding models offered from there.
    pub embed_models: Vec<Offer>,
    /// Image models offered from there.
    pub image_models: Vec<Offer>,
    /// How long connecting may take.
    pub connect: Duration,
    /// How long the first byte of an answer may take.
    pub first_byte: Option<Duration>,
    /// How long a stream may be silent.
    pub idle: Option<Duration>,
    /// How long a whole answer may take, over all tries.
    pub whole: Option<Duration>,
    /// What happens to requests that fail before their first byte.
    pub retry: Retry,
}

/// What an upstream speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Api {
    /// OpenAI's, as vLLM, TensorRT-LLM, Ollama and most providers do.
    #[default]
    OpenAi,
    /// Anthropic's Messages.
    Anthropic,
}

/// A model under its name here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// Its card here.
    pub card: ModelCard,
    /// Its name there.
    pub upstream: String,
}

impl Config {
    /// A server with neutral settings and nothing on offer.
    pub fn new(name: impl Into<String>, url: impl Into<String>, api: Api) -> Self {
        Self {
            name: name.into(),
            url: url.into(),
            api,
            older_limit: false,
            key: None,
            models: Vec::new(),
            embed_models: Vec::new(),
            image_models: Vec::new(),
            connect: Duration::from_secs(5),
            first_byte: Some(Duration::from_secs(60)),
            idle: Some(Duration::from_secs(60)),
            whole: None,
            retry: Retry::default(),
        }
    }
}

/// A list of models, as far as servers agree on it.
#[derive(Debug, Deserialize)]
struct Listed {
    data: Vec<ListedModel>,
}

/// A model; the length of its context is called in two ways, ours and vLLM's.
#[derive(Debug, Deserialize)]
struct ListedModel {
    id: String,
    context_length: Option<usize>,
    max_model_len: Option<usize>,
}

/// A server elsewhere.
#[derive(Debug)]
pub struct Upstream {
    config: Config,
    http: Http,
}

impl Upstream {
    /// A client of the server. Nothing is asked of it yet.
    pub fn new(config: Config) -> Result<Self, Error> {
        let http = Http::new(&config)?;
        Ok(Self { config, http })
    }

    /// A client that offers every model the server lists, under the name it has there, and takes it that each can chat. What
    /// they can do beyond that, nobody says.
    pub async fn discover(config: Config) -> Result<Self, Error> {
        let mut upstream = Self::new(config)?;
        let list: Listed = upstream.retry(|| upstream.http.get("models")).await?;
        let capabilities = upstream.config.api.usual();
        let offer = |model: ListedModel| Offer {
            card: ModelCard {
                chat: true,
                context_length: model.context_length.or(model.max_model_len).unwrap_or(0),
                capabilities,
                ..ModelCard::new(&model.id)
            },
            upstream: model.id,
        };
        upstream.config.models = list.data.into_iter().map(offer).collect();
        Ok(upstream)
    }

    async fn retry<T, F>(&self, attempt: impl FnMut() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        self.config.retry.run(attempt).await
    }

    async fn ask(&self, mut request: GenerateRequest) -> Result<EventStream, Error> {
        let whole = [request.deadline, self.config.whole].into_iter().flatten().min();
        let deadline = whole.map(|whole| Instant::now() + whole);
        let model = translated(&self.config.models, &request.model)?;
        let hop = self.alias(&request.model, &model);
        request.model = model;
        request.tenant = String::new();
        let (place, body) = self.body(&request)?;
        let stops = &request.stop.strings;
        let open = async || {
            let response = self.http.post(place, &body, &request.id).await?;
            let wire = match self.config.api {
                Api::OpenAi => Wire::OpenAi(openai::Reader::new(request.n, stops.clone())),
                Api::Anthropic => Wire::Anthropic(anthropic::Reader::new(stops.clone())),
            };
            Answer::begin(response, wire, self.config.idle, deadline).await
        };
        let begun = self.retry(|| first::within(self.config.first_byte, open()));
        let answer = answer::before(deadline, begun).await.map_err(|error| self.http.key.hidden(error))?;
        let key = self.http.key.clone();
        let events = answer.into_stream().map_err(move |error| key.hidden(error)).boxed();
        Ok(match hop {
            Some(hop) => first::routed(hop, events),
            None => events,
        })
    }

    /// That a name of ours stands for another one there. No name at all is no alias of the default.
    fn alias(&self, here: &str, there: &str) -> Option<Hop> {
        let (asked, model, service) = (here.to_owned(), there.to_owned(), self.config.name.clone());
        (here != there && !here.is_empty()).then(|| Hop {
            asked,
            reason: Reason::Alias,
            model,
            service,
            ..Hop::default()
        })
    }

    /// Where a request goes, and its body there.
    fn body(&self, request: &GenerateRequest) -> Result<(&'static str, Value), Error> {
        let body = match (self.config.api, &request.prompt) {
            (Api::OpenAi, Prompt::Chat(chat)) => {
                let mut shown = ChatRequest::show(request, chat);
                if self.config.older_limit {
                    shown.max_tokens = shown.max_completion_tokens.take();
                }
                ("chat/completions", serde_json::to_value(shown))
            }
            (Api::OpenAi, Prompt::Raw(text)) => {
                ("completions", serde_json::to_value(CompletionRequest::show(request, text)))
            }
            (Api::Anthropic, Prompt::Chat(chat)) => {
                ("messages", serde_json::to_value(MessagesRequest::show(request, chat)?))
            }
            (Api::Anthropic, Prompt::Raw(_)) => {
                let message = "The model is behind Anthropic's API, which knows conversations only; send messages.";
                return Err(Error::new(ErrorKind::Unsupported, message).with_param("prompt"));
            }
        };
        let (place, body) = (body.0, body.1.map_err(Error::internal)?);
        let Value::Object(mut body) = body else { return Err(Error::internal("A request is an object.")) };
        if !body.contains_key("tools") {
            // OpenAI refuses settings of tools that are not there.
            body.remove("tool_choice");
            body.remove("parallel_tool_calls");
        }
        body.insert("stream".to_owned(), json!(true));
        if self.config.api == Api::OpenAi {
            body.insert("stream_options".to_owned(), json!({ "include_usage": true }));
        }
        Ok((place, Value::Object(body)))
    }

    async fn vectors(&self, mut request: EmbedRequest) -> Result<Embeddings, Error> {
        let model = translated(&self.config.embed_models, &request.model)?;
        let hops = self.alias(&request.model, &model).into_iter().collect();
        request.model = model;
        let body = serde_json::to_value(EmbeddingRequest::show(&request)).map_err(Error::internal)?;
        let list: EmbeddingList = self.retry(|| self.http.exchange("embeddings", &body)).await?;
        let mut data = list.data;
        data.sort_by_key(|one| one.index);
        if data.len() != request.inputs.len() {
            let message = format!("The upstream made {} vectors of {} inputs.", data.len(), request.inputs.len());
            return Err(Error::new(ErrorKind::Upstream, message));
        }
        let vectors = data.into_iter().map(|one| numbers(one.embedding)).collect::<Result<_, _>>()?;
        let prompt_tokens = list.usage.prompt_tokens.min(Usage::MOST);
        Ok(Embeddings { vectors, prompt_tokens, hops })
    }

    async fn images(&self, request: DrawRequest) -> Result<Drawing, Error> {
        let model = translated(&self.config.image_models, &request.model)?;
        let body = image::body(&request, &model)?;
        let reply = self.retry(|| self.http.exchange("images/generations", &body)).await?;
        image::drawing(reply)
    }
}

fn numbers(vector: Vector) -> Result<Vec<f32>, Error> {
    match vector {
        Vector::Float(numbers) => Ok(numbers),
        Vector::Base64(_) => Err(Error::new(ErrorKind::Upstream, "The upstream sent base64 that nobody asked for.")),
    }
}

impl Api {
    /// What models behind this API can usually do.
    pub fn usual(self) -> protocol::Capabilities {
        let tools = protocol::Capabilities { tools: true, ..protocol::Capabilities::default() };
        match self {
            Self::OpenAi => protocol::Capabilities { schema: true, logprobs: true, seed: true, ..tools },
            Self::Anthropic => tools,
        }
    }
}

/// The model's name there; an empty one means the default.
fn translated(offers: &[Offer], name: &str) -> Result<String, Error> {
    let found = if name.is_empty() { offers.first() } else { offers.iter().find(|offer| offer.card.id == name) };
    found.map(|offer| offer.upstream.clone()).ok_or_else(|| {
        let error = Error::new(ErrorKind::NotFound, format!("The model `{name}` is not offered by this upstream."));
        error.with_param("model").with_code("model_not_found")
    })
}

fn cards(offers: &[Offer]) -> Vec<ModelCard> {
    offers.iter().map(|offer| offer.card.clone()).collect()
}

impl Generate for Upstream {
    fn models(&self) -> Vec<ModelCard> {
        cards(&self.config.models)
    }

    fn generate(&self, request: GenerateRequest) -> BoxFuture<'_, Result<EventStream, Error>> {
        self.ask(request).boxed()
    }
}

impl Embed for Upstream {
    fn models(&self) -> Vec<ModelCard> {
        cards(&self.config.embed_models)
    }

    fn embed(&self, request: EmbedRequest) -> BoxFuture<'_, Result<Embeddings, Error>> {
        self.vectors(request).boxed()
    }
}

impl Draw for Upstream {
    fn models(&self) -> Vec<ModelCard> {
        cards(&self.config.image_models)
    }

    fn draw(&self, request: DrawRequest) -> BoxFuture<'_, Result<Drawing, Error>> {
        self.images(request).boxed()
    }
}
