//! What every route shares: the services, the limits, and the state of the drain. Picks the service by model name.

use std::sync::Arc;

use parking_lot::Mutex;
use protocol::{
    Draw, Embed, Error, ErrorKind, Generate, ModelCard,
    openai::{Envelope, models::ModelBody},
};

use crate::{
    Gateway, Services,
    auth::Auth,
    clock,
    console::Console,
    drain::Drain,
    intake::Intake,
    rate::Rates,
    reasoning::Paths,
    traces::{self, Export, Traces},
    turned::Turned,
};

/// Shared by all requests.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) gateway: Gateway,
    /// Connections are TLS.
    pub(crate) tls: bool,
    pub(crate) drain: Drain,
    pub(crate) intake: Intake,
    pub(crate) console: Console,
    pub(crate) paths: Paths,
    pub(crate) auth: Auth,
    pub(crate) rates: Rates,
    pub(crate) turned: Turned,
    pub(crate) traces: Option<Traces>,
    /// Where spans leave; taken by whoever serves.
    pub(crate) export: Mutex<Option<Export>>,
}

/// How the services are.
#[derive(Debug)]
pub(crate) struct Health {
    /// One of them can answer.
    pub(crate) able: bool,
    /// Why the others cannot.
    pub(crate) troubles: Vec<Error>,
}

impl Health {
    /// Why the process should get no work: something in it is broken, or everything elsewhere.
    pub(crate) fn obstacle(&self) -> Option<&Error> {
        let elsewhere = |error: &Error| matches!(error.kind, ErrorKind::Upstream | ErrorKind::ShuttingDown);
        let own = self.troubles.iter().find(|error| !elsewhere(error));
        own.or(self.troubles.first().filter(|_| !self.able))
    }
}

impl App {
    pub(crate) fn new(gateway: Gateway, tls: bool) -> Arc<Self> {
        let auth = Auth::new(gateway.ledger.as_ref().map(ledger::Ledger::keys), gateway.settings.clone());
        let opened = traces::open(&gateway.settings.get().settings.tracing);
        let (traces, export) = opened
            .unwrap_or_else(|error| {
                tracing::error!(error);
                None
            })
            .unzip();
        let (drain, console, paths, rates) = (Drain::default(), Console::default(), Paths::default(), Rates::default());
        let intake = Intake::new(gateway.config.max_body_bytes);
        let (turned, export) = (Turned::default(), Mutex::new(export));
        Arc::new(Self { gateway, tls, drain, intake, console, paths, auth, rates, turned, traces, export })
    }

    /// The frame of a reply to the request called `id`.
    pub(crate) fn envelope(prefix: &str, id: &str, model: &str) -> Envelope {
        Envelope {
            id: format!("{prefix}{}", id.strip_prefix("req_").unwrap_or(id)),
            created: clock::unix_seconds(),
            model: model.to_owned(),
            system_fingerprint: concat!("tessera-", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }

    /// Every model once, in the order of the services; a name that both offer has both capabilities.
    pub(crate) fn models(&self) -> Vec<ModelBody> {
        let mut models: Vec<ModelBody> = Vec::new();
        let Services { generate, embed, draw, .. } = &*self.services();
        let texts = generate.iter().flat_map(|s| s.models()).map(|card| ModelBody::new(card, "completions"));
        let vectors = embed.iter().flat_map(|s| s.models()).map(embeds);
        let images = draw.iter().flat_map(|s| s.models()).map(|card| ModelBody::new(card, "images"));
        for model in texts.chain(vectors).chain(images) {
            match models.iter_mut().find(|seen| seen.id == model.id) {
                None => models.push(model),
                Some(seen) => model.capabilities.into_iter().for_each(|word| add(&mut seen.capabilities, word)),
            }
        }
        models
    }

    /// What is on offer now.
    pub(crate) fn services(&self) -> Arc<Services> {
        self.gateway.services.get()
    }

    /// Why services cannot answer, those that cannot.
    pub(crate) fn health(&self) -> Health {
        let states = self.services().states();
        let able = states.iter().any(Result::is_ok);
        Health { able, troubles: states.into_iter().filter_map(Result::err).collect() }
    }

    /// The service that continues raw text with this model.
    pub(crate) fn completions(&self, model: &str) -> Result<Arc<dyn Generate>, Error> {
        self.text(model).map(|(service, _)| service)
    }

    /// The service that chats with this model; a model without a template cannot.
    pub(crate) fn chat(&self, model: &str) -> Result<Arc<dyn Generate>, Error> {
        let (service, card) = self.text(model)?;
        if card.chat {
            return Ok(service);
        }
        let message = format!("The model `{model}` has no chat template. Send its prompt as text to /v1/completions.");
        Err(Error::new(ErrorKind::Unsupported, message).with_param("model").with_code("no_chat_template"))
    }

    fn text(&self, model: &str) -> Result<(Arc<dyn Generate>, ModelCard), Error> {
        let services = self.services();
        let offering = |service: &Arc<dyn Generate>| Some((service.clone(), service.card(model)?));
        let found = services.generate.iter().filter(|_| !model.is_empty()).find_map(offering);
        found.ok_or_else(|| self.missing(model, "completions", "/v1/embeddings"))
    }

    /// The service that embeds with this model.
    pub(crate) fn embeddings(&self, model: &str) -> Result<Arc<dyn Embed>, Error> {
        let offers = |service: &Arc<dyn Embed>| service.models().iter().any(|card| card.id == model);
        let found = self.services().embed.iter().find(|service| offers(service)).cloned();
        found.ok_or_else(|| self.missing(model, "embeddings", "/v1/completions"))
    }

    /// The service that draws with this model.
    pub(crate) fn drawings(&self, model: &str) -> Result<Arc<dyn Draw>, Error> {
        let offers = |service: &Arc<dyn Draw>| service.models().iter().any(|card| card.id == model);
        let found = self.services().draw.iter().find(|service| offers(service)).cloned();
        found.ok_or_else(|| self.missing(model, "images", "other requests"))
    }

    /// The error for a model that does not exist, or cannot do what is wanted but something else.
    fn missing(&self, model: &str, wanted: &str, elsewhere: &str) -> Error {
        let models = self.models();
        let able: Vec<_> = models.iter().filter(|m| m.capabilities.iter().any(|c| c == wanted)).collect();
        let able = able.iter().map(|m| format!("`{}`", m.id)).collect::<Vec<_>>().join(", ");
        let able = if able.is_empty() { "none".to_owned() } else { able };
        if models.iter().any(|m| m.id == model) {
            let message =
                format!("The model `{model}` offers no {wanted}; it answers {elsewhere}. Models that do: {able}.");
            return Error::new(ErrorKind::Unsupported, message).with_param("model");
        }
        let message = format!("The model `{model}` does not exist here. Available for {wanted}: {able}.");
        Error::new(ErrorKind::NotFound, message).with_param("model").with_code("model_not_found")
    }
}

/// A card of an embedding service, whatever it says about itself.
fn embeds(card: ModelCard) -> ModelBody {
    ModelBody::new(ModelCard { embeddings: true, ..card }, "embeddings")
}

fn add(words: &mut Vec<String>, word: String) {
    if !words.contains(&word) {
        words.push(word);
    }
}
