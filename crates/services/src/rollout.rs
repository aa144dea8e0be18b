//! Versions of something under one name, each for a share of the callers.
//!
//! A version is a model behind the name: a model, one with an adapter, a route. Who asks decides which one answers ([`assigned`]), so a
//! caller who comes again meets the same one while the weights stay. A version that fails is not replaced by another one: its failures
//! are what its rollout is judged by. One that should have a deputy is a route.
//!
//! Every version is counted beside the others ([`Figures`]), so that what is said of them holds at any look ([`sequence`]). A candidate
//! may hear what they are asked and answer nobody ([`Shadow`]).

mod assignment;
pub mod sequence;
mod shadow;
mod trial;

use std::sync::Arc;

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream};
use parking_lot::Mutex;
use protocol::{Error, Event, EventStream, Generate, GenerateRequest, Hop, ModelCard, Reason};
use tokio::time::Instant;

use crate::Target;
use assignment::assigned;
use trial::Trial;

pub use shadow::{Bounds, Compared, Shadow};
pub use trial::{Difference, ERROR, Figures, Moments, Standing};

/// Several versions under one name.
#[derive(Debug)]
pub struct Rollout {
    name: String,
    versions: Vec<(Target, u32)>,
    trial: Arc<Mutex<Trial>>,
    shadow: Option<Arc<Shadow>>,
}

/// A version as it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Version {
    /// Its model.
    pub model: String,
    /// Its weight beside the others'.
    pub weight: u32,
    /// What was counted of it.
    pub figures: Figures,
}

impl Rollout {
    /// `name` stands for these versions, each with its weight.
    pub fn new(name: impl Into<String>, versions: Vec<(Target, u32)>, shadow: Option<Shadow>) -> Self {
        let weights: Vec<u32> = versions.iter().map(|(_, weight)| *weight).collect();
        let trial = Arc::new(Mutex::new(Trial::new(&weights)));
        Self { name: name.into(), versions, trial, shadow: shadow.map(Arc::new) }
    }

    /// What requests name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The versions as they stand.
    pub fn versions(&self) -> Vec<Version> {
        let trial = self.trial.lock();
        let rows = self.versions.iter().zip(&trial.figures);
        let version = |((target, weight), figures): (&(Target, u32), &Figures)| Version {
            model: target.model.clone(),
            weight: *weight,
            figures: *figures,
        };
        rows.map(version).collect()
    }

    /// How likely it is, at every look, that callers are spread as they are under the weights; below [`ERROR`] no comparison of the
    /// versions should be believed.
    pub fn mismatch(&self) -> f64 {
        self.trial.lock().mismatch()
    }

    /// Who hears what the others are asked, and how its answers compared so far.
    pub fn shadow(&self) -> Option<(&str, Compared)> {
        self.shadow.as_ref().map(|shadow| (shadow.model(), shadow.compared()))
    }

    /// The place of the version of whoever asks.
    fn version(&self, request: &GenerateRequest) -> Result<usize, Error> {
        let arms = self.versions.iter().map(|(version, weight)| (&*version.model, *weight));
        let missing = || Error::internal(format!("The rollout `{}` gives no version any weight.", self.name));
        assigned(&self.name, unit(request), arms).ok_or_else(missing)
    }

    /// A failure comes behind the word on whose it was, so that it counts against the right version.
    async fn ask(&self, request: GenerateRequest) -> Result<EventStream, Error> {
        let place = self.version(&request)?;
        self.trial.lock().exposed(place, unit(&request));
        let mut ear = Ear { trial: self.trial.clone(), version: place, asked: Some(Instant::now()) };
        let (version, _) = &self.versions[place];
        let request = GenerateRequest { model: version.model.clone(), ..request };
        let watcher = self.shadow.as_ref().and_then(|shadow| Shadow::watch(shadow, &request));
        let events = match (version.service.generate(request).await, watcher) {
            (Ok(events), Some(mut watcher)) => events.inspect(move |item| watcher.see(item)).boxed(),
            (Ok(events), None) => events,
            (Err(error), _) => stream::iter([Err(error)]).boxed(),
        };
        let events = events.inspect(move |item| ear.hear(item));
        Ok(stream::iter([Ok(Event::Routed(Box::new(self.hop(version))))]).chain(events).boxed())
    }

    fn hop(&self, version: &Target) -> Hop {
        let ModelCard { owned_by: service, digest, adapter, .. } =
            version.card().unwrap_or_else(|| ModelCard::new(version.model.clone()));
        let (asked, model, reason) = (self.name.clone(), version.model.clone(), Reason::Assigned);
        Hop { asked, reason, model, service, digest, adapter, ..Hop::default() }
    }
}

/// Who asks; where nobody is known each request is somebody else's.
fn unit(request: &GenerateRequest) -> &str {
    if request.unit.is_empty() { &request.id } else { &request.unit }
}

/// Counts what becomes of a request.
struct Ear {
    trial: Arc<Mutex<Trial>>,
    version: usize,
    /// `None` once the first piece came.
    asked: Option<Instant>,
}

impl Ear {
    fn hear(&mut self, item: &Result<Event, Error>) {
        match item {
            Ok(Event::Text { .. } | Event::ToolCall { .. }) => {
                if let Some(asked) = self.asked.take() {
                    self.trial.lock().began(self.version, asked.elapsed());
                }
            }
            Ok(Event::Done(_)) => self.trial.lock().ended(self.version, None),
            Ok(_) => {}
            Err(error) => self.trial.lock().ended(self.version, Some(error)),
        }
    }
}

impl Generate for Rollout {
    /// One model: what the version of most callers is, under this name.
    fn models(&self) -> Vec<ModelCard> {
        let mut versions: Vec<_> = self.versions.iter().collect();
        versions.sort_by_key(|(_, weight)| std::cmp::Reverse(*weight));
        let card = versions.into_iter().find_map(|(version, _)| version.card());
        card.map(|card| ModelCard { id: self.name.clone(), ..card }).into_iter().collect()
    }

    /// Ready while one of them is.
    fn ready(&self) -> Result<(), Error> {
        let mut states = self.versions.iter().map(|(version, _)| version.service.ready());
        let first = states.next().unwrap_or(Ok(()));
        if states.any(|state| state.is_ok()) { Ok(()) } else { first }
    }

    fn generate(&self, request: GenerateRequest) -> BoxFuture<'_, Result<EventStream, Error>> {
        self.ask(request).boxed()
    }

    fn count(&self, request: GenerateRequest) -> BoxFuture<'_, Result<usize, Error>> {
        match self.version(&request) {
            Ok(place) => {
                let (version, _) = &self.versions[place];
                version.service.count(GenerateRequest { model: version.model.clone(), ..request })
            }
            Err(error) => async { Err(error) }.boxed(),
        }
    }
}
