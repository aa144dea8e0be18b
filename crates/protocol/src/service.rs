//! The service traits. Dyn-compatible: a service is an `Arc<dyn Generate>`, a decorator holds one and is one.

use std::{fmt, pin::Pin};

use futures_core::{Stream, future::BoxFuture};

use crate::{EmbedRequest, Embeddings, Error, Event, GenerateRequest};

/// What a generation sends back. Dropping it cancels the work: the engine frees its memory within one step.
pub type EventStream = Pin<Box<dyn Stream<Item = Result<Event, Error>> + Send>>;

/// Text in, text out, as a stream of events.
pub trait Generate: Send + Sync + fmt::Debug {
    /// The models this service answers for, the default one first.
    fn models(&self) -> Vec<ModelCard>;

    /// That it can answer at all; unless a service says otherwise, it can. An error says what broke: requests fail until that
    /// is mended, so no more should be sent here.
    fn ready(&self) -> Result<(), Error> {
        Ok(())
    }

    /// Admits a request. An error here means that nothing was done; after `Ok` every failure comes in the stream, which
    /// ends with [`Event::Done`] or an error.
    fn generate(&self, request: GenerateRequest) -> BoxFuture<'_, Result<EventStream, Error>>;
}

/// Text in, vectors out.
pub trait Embed: Send + Sync + fmt::Debug {
    /// The models this service answers for, the default one first.
    fn models(&self) -> Vec<ModelCard>;

    /// That it can answer at all; unless a service says otherwise, it can. An error says what broke: requests fail until that
    /// is mended, so no more should be sent here.
    fn ready(&self) -> Result<(), Error> {
        Ok(())
    }

    /// One vector for every input, in order.
    fn embed(&self, request: EmbedRequest) -> BoxFuture<'_, Result<Embeddings, Error>>;
}

/// What a caller may know about a model.
#[derive(Debug, Clone, PartialEq, Eq)]
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
}
