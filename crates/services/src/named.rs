//! Several services of text as one: whichever offers the model that a request names.
//!
//! Models come and go with the workers that offer them, so who offers what is asked with every request. A model that nobody offers
//! now is a failure of the service and not of the request: a route goes on to its next target.

use std::sync::Arc;

use futures_util::{FutureExt, future::BoxFuture};
use protocol::{Error, ErrorKind, EventStream, Generate, GenerateRequest, ModelCard};

/// Services, asked in order for the model a request names.
#[derive(Debug)]
pub struct Named(Vec<Arc<dyn Generate>>);

impl Named {
    /// These services.
    pub fn new(services: Vec<Arc<dyn Generate>>) -> Self {
        Self(services)
    }

    fn of(&self, model: &str) -> Result<Arc<dyn Generate>, Error> {
        let offers = |service: &&Arc<dyn Generate>| !model.is_empty() && service.card(model).is_some();
        let missing = || Error::new(ErrorKind::Upstream, format!("Nobody offers the model `{model}` now."));
        self.0.iter().find(offers).cloned().ok_or_else(missing)
    }
}

impl Generate for Named {
    fn models(&self) -> Vec<ModelCard> {
        self.0.iter().flat_map(|service| service.models()).collect()
    }

    /// Ready while one of them is.
    fn ready(&self) -> Result<(), Error> {
        let mut troubles = Vec::new();
        for service in &self.0 {
            match service.ready() {
                Ok(()) => return Ok(()),
                Err(trouble) => troubles.push(trouble),
            }
        }
        troubles.into_iter().next().map_or(Ok(()), Err)
    }

    fn generate(&self, request: GenerateRequest) -> BoxFuture<'_, Result<EventStream, Error>> {
        async move { self.of(&request.model)?.generate(request).await }.boxed()
    }

    fn count(&self, request: GenerateRequest) -> BoxFuture<'_, Result<usize, Error>> {
        async move { self.of(&request.model)?.count(request).await }.boxed()
    }
}
