//! The next service answers where one fails before its first byte.
//!
//! A name stands for several targets, asked in order. The next one is asked when one cannot be reached, is overloaded, stops, or
//! does not begin in time. A prompt that is too long for one is a case of its own: only a target with a longer context is worth
//! asking, and none of the others' failures say anything about it. Every other refusal is the caller's to hear. Who answers and who failed
//! before stands at the head of the stream.

use std::{sync::Arc, time::Duration};

use futures_util::{FutureExt, future::BoxFuture};
use protocol::{Error, EventStream, Generate, GenerateRequest, Hop, Miss, ModelCard, Reason};

use crate::first::{self, elsewhere};

/// The code of the error that says that a prompt does not fit.
const TOO_LONG: &str = "context_length_exceeded";

/// A model of a service.
#[derive(Debug, Clone)]
pub struct Target {
    /// The service.
    pub service: Arc<dyn Generate>,
    /// The model's name there.
    pub model: String,
}

/// Several targets under one name.
#[derive(Debug)]
pub struct Fallback {
    name: String,
    targets: Vec<Target>,
    first_byte: Option<Duration>,
}

impl Fallback {
    /// `name` stands for the first of `targets` that begins to answer within `first_byte`.
    pub fn new(name: impl Into<String>, targets: Vec<Target>, first_byte: Option<Duration>) -> Self {
        Self { name: name.into(), targets, first_byte }
    }

    async fn ask(&self, request: GenerateRequest) -> Result<EventStream, Error> {
        let mut failed: Option<Error> = None;
        // A target whose context is no longer than this is not asked.
        let mut too_short = 0;
        let mut misses = Vec::new();
        for target in &self.targets {
            let card = target.card();
            let length = card.as_ref().map_or(0, |card| card.context_length);
            if too_short > 0 && length > 0 && length <= too_short {
                continue;
            }
            let request = GenerateRequest { model: target.model.clone(), ..request.clone() };
            let error = match first::open(target.service.as_ref(), request, self.first_byte).await {
                Ok(stream) => return Ok(first::routed(self.hop(target, card, misses), stream)),
                Err(error) => error,
            };
            let long = error.code.as_deref() == Some(TOO_LONG);
            if !long && !elsewhere(&error) {
                return Err(error);
            }
            tracing::warn!(route = %self.name, target = %target.model, %error, "asking the next one");
            misses.push(Miss { who: target.model.clone(), error: error.word().to_owned() });
            too_short = if long { too_short.max(length) } else { too_short };
            // That a prompt is too long is what the caller can act on, whatever happens after.
            failed = failed.filter(|first| first.code.as_deref() == Some(TOO_LONG)).or(Some(error));
        }
        Err(failed.unwrap_or_else(|| Error::internal(format!("`{}` stands for no model.", self.name))))
    }

    /// That the request goes to this target.
    fn hop(&self, target: &Target, card: Option<ModelCard>, failed: Vec<Miss>) -> Hop {
        let reason = match self.targets.len() {
            1 => Reason::Alias,
            _ if failed.is_empty() => Reason::First,
            _ => Reason::Fallback,
        };
        Hop { failed, ..target.hop(&self.name, reason, card) }
    }
}

impl Target {
    pub(crate) fn card(&self) -> Option<ModelCard> {
        self.service.card(&self.model)
    }

    /// That a request for `asked` goes here, to what this card says.
    pub(crate) fn hop(&self, asked: &str, reason: Reason, card: Option<ModelCard>) -> Hop {
        let ModelCard { owned_by: service, digest, adapter, .. } = card.unwrap_or_else(|| ModelCard::new(""));
        let (asked, model) = (asked.to_owned(), self.model.clone());
        Hop { asked, reason, model, service, digest, adapter, ..Hop::default() }
    }
}

impl Generate for Fallback {
    /// One model: what its first target is, under this name.
    fn models(&self) -> Vec<ModelCard> {
        let first = self.targets.iter().find_map(Target::card);
        first.map(|card| ModelCard { id: self.name.clone(), ..card }).into_iter().collect()
    }

    /// Ready while one of them is.
    fn ready(&self) -> Result<(), Error> {
        let mut states = self.targets.iter().map(|target| target.service.ready());
        let first = states.next().unwrap_or(Ok(()));
        if states.any(|state| state.is_ok()) { Ok(()) } else { first }
    }

    fn generate(&self, request: GenerateRequest) -> BoxFuture<'_, Result<EventStream, Error>> {
        self.ask(request).boxed()
    }

    fn count(&self, request: GenerateRequest) -> BoxFuture<'_, Result<usize, Error>> {
        match self.targets.first() {
            Some(target) => target.service.count(GenerateRequest { model: target.model.clone(), ..request }),
            None => async { Err(Error::internal("No target counts.")) }.boxed(),
        }
    }
}
