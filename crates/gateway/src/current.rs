//! Services that may be replaced while requests run: a request goes on with the service it began with, the next one takes the
//! new one.

use std::sync::Arc;

use arc_swap::ArcSwap;
use futures_util::{FutureExt, future::BoxFuture};
use protocol::{Embed, EmbedRequest, Embeddings, Error, ErrorKind, EventStream, Generate, GenerateRequest, ModelCard};

/// Services on offer together.
#[derive(Debug, Clone, Default)]
pub struct Services {
    /// Text services, asked in order for the model a request names.
    pub generate: Vec<Arc<dyn Generate>>,
    /// Embedding services, asked in order for the model a request names.
    pub embed: Vec<Arc<dyn Embed>>,
}

/// The services in force, as one service of each kind.
#[derive(Debug)]
pub struct Current(ArcSwap<Services>);

impl Current {
    /// These are in force.
    pub fn new(services: Services) -> Arc<Self> {
        Arc::new(Self(ArcSwap::from_pointee(services)))
    }

    /// From now on these are.
    pub fn replace(&self, services: Services) {
        self.0.store(Arc::new(services));
    }

    fn text(&self, model: &str) -> Result<Arc<dyn Generate>, Error> {
        let services = self.0.load();
        let offers = |service: &&Arc<dyn Generate>| model.is_empty() || named(&service.models(), model);
        services.generate.iter().find(offers).cloned().ok_or_else(|| gone(model))
    }
}

fn named(cards: &[ModelCard], model: &str) -> bool {
    cards.iter().any(|card| card.id == model)
}

/// Chosen a moment ago, and taken away since.
fn gone(model: &str) -> Error {
    let message = format!("The model `{model}` is not offered any more.");
    Error::new(ErrorKind::NotFound, message).with_param("model").with_code("model_not_found")
}

impl Generate for Current {
    fn models(&self) -> Vec<ModelCard> {
        self.0.load().generate.iter().flat_map(|service| service.models()).collect()
    }

    fn ready(&self) -> Result<(), Error> {
        self.0.load().generate.iter().try_for_each(|service| service.ready())
    }

    fn generate(&self, request: GenerateRequest) -> BoxFuture<'_, Result<EventStream, Error>> {
        let service = self.text(&request.model);
        async move { service?.generate(request).await }.boxed()
    }

    fn count(&self, request: GenerateRequest) -> BoxFuture<'_, Result<usize, Error>> {
        let service = self.text(&request.model);
        async move { service?.count(request).await }.boxed()
    }
}

impl Embed for Current {
    fn models(&self) -> Vec<ModelCard> {
        self.0.load().embed.iter().flat_map(|service| service.models()).collect()
    }

    fn ready(&self) -> Result<(), Error> {
        self.0.load().embed.iter().try_for_each(|service| service.ready())
    }

    fn embed(&self, request: EmbedRequest) -> BoxFuture<'_, Result<Embeddings, Error>> {
        let services = self.0.load();
        let found = services.embed.iter().find(|service| named(&service.models(), &request.model)).cloned();
        async move { found.ok_or_else(|| gone(&request.model))?.embed(request).await }.boxed()
    }
}
