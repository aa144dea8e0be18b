//! What a model cannot do is refused by name, or done in another way where one is defined. Nobody pretends.
//!
//! | a request that asks for | and the capability is absent |
//! |---|---|
//! | a JSON schema, or any JSON object | the model is told the schema, in JSON mode where there is one; the answer is checked, and once asked for again; the finding is an event |
//! | a regular expression or a grammar | refused: `response_format` |
//! | scores of tokens | refused: `logprobs` |
//! | scores of the prompt | refused: `echo` |
//! | a seed | refused: `seed` |
//! | tools | refused: `tools` |
//! | an answer that is begun | refused: `continue_final_message` |
//! | a stream to go on | refused: `resume` |
//!
//! Images in a prompt have no place in a plain request yet, so every dialect refuses them by name.
//!
//! An answer that must be checked is held back whole: what was delivered could not be asked for again.

mod schema;

use std::sync::Arc;

use futures_util::{FutureExt, future::BoxFuture};
use protocol::{
    Capabilities, Circuit, Error, ErrorKind, EventStream, Format, Generate, GenerateRequest, Load, ModelCard, Prompt,
};

use schema::Schema;

/// A service that is asked for nothing it cannot do.
#[derive(Debug)]
pub struct Capable {
    inner: Arc<dyn Generate>,
    json_mode: bool,
}

impl Capable {
    /// The service; `json_mode` says that it can be held to JSON without a schema.
    pub fn new(inner: Arc<dyn Generate>, json_mode: bool) -> Self {
        Self { inner, json_mode }
    }

    async fn ask(&self, request: GenerateRequest) -> Result<EventStream, Error> {
        let cards = self.inner.models();
        let named = |card: &&ModelCard| request.model.is_empty() || card.id == request.model;
        // A model that is not on offer is the service's to refuse.
        let Some(card) = cards.iter().find(named) else { return self.inner.generate(request).await };
        refuse(&card.capabilities, &request)?;
        let schema = match &request.format {
            _ if card.capabilities.schema => None,
            Format::JsonSchema(schema) => Some(Schema::new(schema)?),
            Format::JsonObject if !self.json_mode => Some(Schema::any()?),
            _ => None,
        };
        match schema {
            None => self.inner.generate(request).await,
            Some(schema) => schema.ask(self.inner.as_ref(), request, self.json_mode).await,
        }
    }
}

/// The first thing the request asks for that is absent.
pub(crate) fn refuse(able: &Capabilities, request: &GenerateRequest) -> Result<(), Error> {
    let (tools, begun) = match &request.prompt {
        Prompt::Chat(chat) => (!chat.tools.is_empty(), chat.continue_last),
        Prompt::Raw(_) => (false, false),
    };
    let grammar = matches!(request.format, Format::Regex(_) | Format::Lark(_));
    let scores = request.logprobs.is_some();
    let asked = [
        ("response_format", grammar && !able.grammar, "answers under a regular expression or a grammar"),
        ("logprobs", scores && !able.logprobs, "scores of tokens"),
        ("echo", scores && request.echo && !able.scoring, "scores of the prompt"),
        ("seed", request.sampling.seed.is_some() && !able.seed, "answers that a seed decides"),
        ("tools", tools && !able.tools, "calls of tools"),
        ("continue_final_message", begun && !able.prefill, "answers that the caller begins"),
        ("resume", !request.resume.is_empty() && !able.replay, "streams that go on where they broke"),
    ];
    match asked.into_iter().find(|(_, absent, _)| *absent) {
        None => Ok(()),
        Some((name, _, what)) => {
            let message = format!(
                "`{name}`: the service behind the model `{}` cannot do {what}; leave it out, or take another model.",
                request.model
            );
            Err(Error::new(ErrorKind::Unsupported, message).with_param(name).with_code("unsupported_parameter"))
        }
    }
}

impl Generate for Capable {
    fn models(&self) -> Vec<ModelCard> {
        self.inner.models()
    }

    fn card(&self, model: &str) -> Option<ModelCard> {
        self.inner.card(model)
    }

    fn ready(&self) -> Result<(), Error> {
        self.inner.ready()
    }

    fn load(&self) -> Option<Load> {
        self.inner.load()
    }

    fn circuit(&self) -> Option<Circuit> {
        self.inner.circuit()
    }

    fn generate(&self, request: GenerateRequest) -> BoxFuture<'_, Result<EventStream, Error>> {
        self.ask(request).boxed()
    }

    fn count(&self, request: GenerateRequest) -> BoxFuture<'_, Result<usize, Error>> {
        self.inner.count(request)
    }
}
