//! The service traits. Dyn-compatible: a service is an `Arc<dyn Generate>`, a decorator holds one and is one.

use std::{fmt, pin::Pin, time::Duration};

use futures_core::{Stream, future::BoxFuture};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    DecideRequest, DrawRequest, Drawing, EmbedRequest, Embeddings, Error, ErrorKind, Event, GenerateRequest,
    SolveRequest, StepEvent,
};

/// What a generation sends back. Dropping it cancels the work: the engine frees its memory within one step.
pub type EventStream = Pin<Box<dyn Stream<Item = Result<Event, Error>> + Send>>;

/// What a decision or a solution sends back while it is worked on. Dropping it cancels the work.
pub type StepStream = Pin<Box<dyn Stream<Item = Result<StepEvent, Error>> + Send>>;

/// Text in, text out, as a stream of events.
pub trait Generate: Send + Sync + fmt::Debug {
    /// The models this service answers for, the default one first.
    fn models(&self) -> Vec<ModelCard>;

    /// One of them, or the default one for an empty name. A service of many models answers without making all of their cards.
    fn card(&self, model: &str) -> Option<ModelCard> {
        self.models().into_iter().find(|card| model.is_empty() || card.id == model)
    }

    /// That it can answer at all; unless a service says otherwise, it can. An error says what broke: requests fail until that
    /// is mended, so no more should be sent here.
    fn ready(&self) -> Result<(), Error> {
        Ok(())
    }

    /// How busy it is. A service that does not know says nothing; whoever balances counts its own requests then.
    fn load(&self) -> Option<Load> {
        None
    }

    /// How its breaker stands; `None` where there is none. Whoever wraps one service passes this on.
    fn circuit(&self) -> Option<Circuit> {
        None
    }

    /// Admits a request. An error here means that nothing was done; after `Ok` every failure comes in the stream, which
    /// ends with [`Event::Done`] or an error.
    fn generate(&self, request: GenerateRequest) -> BoxFuture<'_, Result<EventStream, Error>>;

    /// How many tokens the request's prompt has, laid out as [`Generate::generate`] would lay it out. A service that does not
    /// hold the tokenizer cannot say; whoever wraps a service passes this on.
    fn count(&self, request: GenerateRequest) -> BoxFuture<'_, Result<usize, Error>> {
        let message = format!("The service behind the model `{}` does not count tokens.", request.model);
        Box::pin(async { Err(Error::new(ErrorKind::Unsupported, message).with_param("model")) })
    }
}

/// Text in, vectors out.
pub trait Embed: Send + Sync + fmt::Debug {
    /// The models this service answers for, the default one first.
    fn models(&self) -> Vec<ModelCard>;

    /// One of them, or the default one for an empty name. A service of many models answers without making all of their cards.
    fn card(&self, model: &str) -> Option<ModelCard> {
        self.models().into_iter().find(|card| model.is_empty() || card.id == model)
    }

    /// That it can answer at all; unless a service says otherwise, it can. An error says what broke: requests fail until that
    /// is mended, so no more should be sent here.
    fn ready(&self) -> Result<(), Error> {
        Ok(())
    }

    /// One vector for every input, in order.
    fn embed(&self, request: EmbedRequest) -> BoxFuture<'_, Result<Embeddings, Error>>;
}

/// Text in, images out.
pub trait Draw: Send + Sync + fmt::Debug {
    /// The models this service answers for, the default one first.
    fn models(&self) -> Vec<ModelCard>;

    /// That it can answer at all; unless a service says otherwise, it can.
    fn ready(&self) -> Result<(), Error> {
        Ok(())
    }

    /// The images, all of them once the last is done.
    fn draw(&self, request: DrawRequest) -> BoxFuture<'_, Result<Drawing, Error>>;
}

/// Facts and rules become a decision; a problem becomes a checked chain of steps. Both stream their steps as they happen.
pub trait Decide: Send + Sync + fmt::Debug {
    /// The decisions this service can make.
    fn decisions(&self) -> Vec<DecisionCard>;

    /// That it can answer at all; unless a service says otherwise, it can.
    fn ready(&self) -> Result<(), Error> {
        Ok(())
    }

    /// Decides. An error here means that nothing was done; the stream ends with [`StepEvent::Done`] or an error.
    fn decide(&self, request: DecideRequest) -> BoxFuture<'_, Result<StepStream, Error>>;

    /// Solves. An error here means that nothing was done; the stream ends with [`StepEvent::Done`] or an error.
    fn solve(&self, request: SolveRequest) -> BoxFuture<'_, Result<StepStream, Error>>;
}

/// How the breaker of a service stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Circuit {
    /// Requests pass.
    Closed,
    /// None passes for so long.
    Open(Duration),
    /// One request is let through to tell whether the service is well again.
    HalfOpen {
        /// It is under way.
        probing: bool,
    },
}

/// How busy a service is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Load {
    /// Requests being worked on.
    pub running: usize,
    /// Requests that wait for their turn.
    pub waiting: usize,
}

/// What a caller may know about a decision.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DecisionCard {
    /// The name requests use.
    pub id: String,
    /// What it decides, for a person to read.
    pub title: String,
    /// The content hash of its graph and schema, so that a record can name exactly what decided.
    pub version: String,
    /// JSON schema of the facts it needs.
    pub schema: serde_json::Value,
    /// The graph to draw: `{"nodes": [{"id", "name", "kind", "x", "y"}], "edges": [{"from", "to"}]}`.
    pub graph: serde_json::Value,
    /// What is wrong with its files as they are now; the last good version, if there is one, decides meanwhile.
    pub problem: Option<String>,
}

/// What a caller may know about a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelCard {
    /// The name requests use.
    pub id: String,
    /// Seconds since 1970 when it was loaded.
    pub created: u64,
    /// Who made or serves it.
    pub owned_by: String,
    /// Longest prompt plus answer, in tokens.
    pub context_length: usize,
    /// It has a chat template, so [`crate::Prompt::Chat`] works.
    pub chat: bool,
    /// It can embed.
    pub embeddings: bool,
    /// What its answers can be held to, and what callers can learn about them.
    pub capabilities: Capabilities,
    /// What identifies its weights exactly, such as a hash of the file; empty where nobody here knows.
    pub digest: String,
    /// What identifies the adapter beside them exactly; empty without one.
    #[serde(default)]
    pub adapter: String,
}

impl ModelCard {
    /// A card that claims nothing but its name.
    pub fn new(id: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            created: 0,
            owned_by: String::new(),
            context_length: 0,
            chat: false,
            embeddings: false,
            capabilities: Capabilities::default(),
            digest: String::new(),
            adapter: String::new(),
        }
    }
}

/// What a text model can do beside answering. Whoever needs what is absent degrades or refuses; nobody pretends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Capabilities {
    /// Answers can be held to a JSON schema.
    pub schema: bool,
    /// Answers can be held to a regular expression or a Lark grammar.
    pub grammar: bool,
    /// Log-probabilities of generated tokens.
    pub logprobs: bool,
    /// Scores of the prompt's tokens (`echo` with `logprobs`).
    pub scoring: bool,
    /// The same seed gives the same answer.
    pub seed: bool,
    /// Tool calls.
    pub tools: bool,
    /// Images in the prompt.
    pub images: bool,
    /// An answer can be begun by the caller ([`crate::Chat::continue_last`]).
    #[serde(default)]
    pub prefill: bool,
    /// A broken stream can be resumed ([`GenerateRequest::resume`]) and goes on with the same tokens.
    pub replay: bool,
}

impl Capabilities {
    /// Everything this project's own engine can do.
    pub const ENGINE: Self = Self {
        schema: true,
        grammar: true,
        logprobs: true,
        scoring: true,
        seed: true,
        tools: true,
        images: false,
        prefill: true,
        replay: true,
    };

    /// What either of two models can do.
    #[must_use]
    pub fn of_both(self, other: Self) -> Self {
        Self {
            schema: self.schema && other.schema,
            grammar: self.grammar && other.grammar,
            logprobs: self.logprobs && other.logprobs,
            scoring: self.scoring && other.scoring,
            seed: self.seed && other.seed,
            tools: self.tools && other.tools,
            images: self.images && other.images,
            prefill: self.prefill && other.prefill,
            replay: self.replay && other.replay,
        }
    }
}
