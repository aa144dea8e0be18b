//! The text services at hand, and which of their models a request means.

use std::sync::Arc;

use protocol::{Error, ErrorKind, Generate, ModelCard};

/// Text services, asked in order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Models(Vec<Arc<dyn Generate>>);

impl Models {
    pub(crate) fn new(services: Vec<Arc<dyn Generate>>) -> Self {
        Self(services)
    }

    /// There is no service at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The service and the card of the model called `name`; an empty name means the first model there is.
    pub(crate) fn pick(&self, name: &str) -> Result<(Arc<dyn Generate>, ModelCard), Error> {
        let fits = |card: &ModelCard| name.is_empty() || card.id == name;
        let of = |service: &Arc<dyn Generate>| service.models().into_iter().find(fits);
        let found = self.0.iter().find_map(|service| Some((service.clone(), of(service)?)));
        found.ok_or_else(|| self.missing(name))
    }

    fn missing(&self, name: &str) -> Error {
        let known: Vec<String> = self.0.iter().flat_map(|s| s.models()).map(|card| format!("`{}`", card.id)).collect();
        let message = match known.is_empty() {
            true => "No text model is loaded here, and this request needs one.".to_owned(),
            false => format!("The model `{name}` does not exist here. Available: {}.", known.join(", ")),
        };
        Error::new(ErrorKind::NotFound, message).with_param("model").with_code("model_not_found")
    }
}
