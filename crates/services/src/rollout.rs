//! Versions of something under one name, each for a share of the callers.
//!
//! A version is a model behind the name: a model, one with an adapter, a route. Who asks decides which one answers ([`assigned`]), so a
//! caller who comes again meets the same one while the weights stay. A version that fails is not replaced by another one: its failures
//! are what its rollout is judged by. One that should have a deputy is a route.
//!
//! Every version is counted beside the others ([`Figures`]), so that what is said of them holds at any look ([`sequence`]). A candidate
//! may hear what they are asked and answer nobody ([`Shadow`]).
//!
//! A canary is one version more, whose share grows by a [`Plan`] while it is fine. The rollout keeps the state at hand and counts for it;
//! whoever owns it asks [`Rollout::judge`], writes the move down and hands it back ([`Rollout::follow`]), as it does with moves that
//! others made. Weights of the versions among each other stay, so a caller who has the canary keeps it while its share grows.

mod assignment;
mod canary;
pub mod sequence;
mod shadow;
mod trial;

use std::{collections::BTreeMap, sync::Arc};

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream};
use ledger::Move;
use parking_lot::Mutex;
use protocol::{Error, Event, EventStream, Generate, GenerateRequest, ModelCard, Reason};
use tokio::time::Instant;

use crate::{Target, first};
use assignment::assigned;
use trial::Trial;

pub use canary::{Action, Evidence, Plan};
pub use shadow::{Bounds, Compared, Shadow};
pub use trial::{Difference, ERROR, Figures, Metric, Moments, Standing, Tolerated, Verdict};

/// Several versions under one name.
#[derive(Debug)]
pub struct Rollout {
    name: String,
    /// The canary stands last, without a weight of its own.
    versions: Vec<(Target, u32)>,
    plan: Option<Plan>,
    stage: Mutex<Arc<Stage>>,
    shadow: Option<Arc<Shadow>>,
}

/// What is true between two moves: the weights, and what was counted under them.
#[derive(Debug)]
struct Stage {
    weights: Vec<u64>,
    /// `None` before the first move of a canary, and where there is none.
    state: Option<Move>,
    trial: Mutex<Trial>,
    /// What others counted under the same move.
    others: Mutex<Vec<Figures>>,
    /// Tells this counting from others.
    counter: String,
    /// What was last told of it.
    told: Mutex<String>,
}

/// A version as it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Version {
    /// Its model.
    pub model: String,
    /// Its weight beside the others'.
    pub weight: u64,
    /// What was counted of it, by others on the same database too.
    pub figures: Figures,
}

/// What became of a request outside the services.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Report {
    /// It was answered, or blocked, and cost so many nano-units of currency.
    Settled {
        /// The guard held the answer back.
        blocked: bool,
        /// By the prices of the version's model.
        cost: i64,
    },
    /// Somebody rated the answer, 0 to 1.
    Rated(f64),
}

/// What this process counted since a move, for others to add.
#[derive(Debug, Clone, PartialEq)]
pub struct Counted {
    /// The move.
    pub since: Move,
    /// Who counted.
    pub counter: String,
    /// The figures, as JSON; `None` if nothing is new since it was last told.
    pub figures: Option<String>,
}

impl Stage {
    fn new(weights: Vec<u64>, state: Option<Move>) -> Arc<Self> {
        let counter = format!("{:016x}", rand::random::<u64>());
        let (trial, others) = (Mutex::new(Trial::new(&weights)), Mutex::default());
        Arc::new(Self { weights, state, trial, others, counter, told: Mutex::default() })
    }
}

impl Rollout {
    /// `name` stands for these versions, each with its weight.
    pub fn new(name: impl Into<String>, versions: Vec<(Target, u32)>, shadow: Option<Shadow>) -> Self {
        let stage = Mutex::new(Stage::new(weights(&versions, None, None), None));
        Self { name: name.into(), versions, plan: None, stage, shadow: shadow.map(Arc::new) }
    }

    /// The same with a version that is let in by a plan. Nobody gets it before [`Rollout::follow`] says so.
    pub fn with_canary(mut self, canary: Target, plan: Plan) -> Self {
        self.versions.push((canary, 0));
        self.plan = Some(plan);
        self.set(None);
        self
    }

    /// What requests name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The canary's model and its plan.
    pub fn canary(&self) -> Option<(&str, &Plan)> {
        let (canary, _) = self.versions.last()?;
        self.plan.as_ref().map(|plan| (&*canary.model, plan))
    }

    /// The newest move that it follows.
    pub fn state(&self) -> Option<Move> {
        self.stage().state.clone()
    }

    /// Weights are as this move says from now on, and counting begins anew; nothing happens if they are already.
    pub fn follow(&self, moved: Move) {
        if self.stage().state.as_ref() != Some(&moved) {
            self.set(Some(moved));
        }
    }

    /// Takes the place of a rollout that stood here: its state, and what it counted where the versions are the same.
    pub fn succeed(&self, other: &Self) {
        let names = |rollout: &Self| -> Vec<(String, u32)> {
            rollout.versions.iter().map(|(version, weight)| (version.model.clone(), *weight)).collect()
        };
        let canary = |rollout: &Self| rollout.canary().map(|(canary, _)| canary.to_owned());
        if self.name != other.name || canary(self).is_none() || canary(self) != canary(other) {
            return;
        }
        if names(self) == names(other) {
            *self.stage.lock() = other.stage();
        } else if let Some(state) = other.state() {
            self.follow(state);
        }
    }

    /// The versions as they stand.
    pub fn versions(&self) -> Vec<Version> {
        let stage = self.stage();
        let (trial, others) = (stage.trial.lock(), stage.others.lock());
        let version = |(i, (target, _)): (usize, &(Target, u32))| Version {
            model: target.model.clone(),
            weight: stage.weights[i],
            figures: others.get(i).map_or(trial.figures[i], |others| trial.figures[i].and(*others)),
        };
        self.versions.iter().enumerate().map(version).collect()
    }

    /// Of these, the one that others are compared with: the first one of most callers, the canary left aside.
    pub fn base<'v>(&self, versions: &'v [Version]) -> Option<&'v Version> {
        let settled = versions.len() - usize::from(self.plan.is_some() && !versions.is_empty());
        // The last maximum of the reversed.
        versions[..settled].iter().rev().max_by_key(|version| version.weight)
    }

    /// How likely it is, at every look, that callers are spread as they are under the weights, of those that this process saw; below
    /// [`ERROR`] no comparison of the versions should be believed.
    pub fn mismatch(&self) -> f64 {
        self.stage().trial.lock().mismatch()
    }

    /// Who hears what the others are asked, and how its answers compared so far.
    pub fn shadow(&self) -> Option<(&str, Compared)> {
        self.shadow.as_ref().map(|shadow| (shadow.model(), shadow.compared()))
    }

    /// Takes in what became of a request that this version had.
    pub fn report(&self, model: &str, report: Report) {
        let Some(place) = self.versions.iter().position(|(version, _)| version.model == model) else { return };
        let stage = self.stage();
        let mut trial = stage.trial.lock();
        match report {
            Report::Settled { blocked, cost } => trial.settled(place, blocked, cost),
            Report::Rated(rating) => trial.rated(place, rating),
        }
    }

    /// What was counted here since the newest move; `None` before the first.
    pub fn counted(&self) -> Option<Counted> {
        let stage = self.stage();
        let trial = stage.trial.lock();
        let figures: BTreeMap<&str, Figures> = self
            .versions
            .iter()
            .zip(&trial.figures)
            .map(|((version, _), figures)| (&*version.model, *figures))
            .collect();
        let figures = serde_json::to_string(&figures).ok()?;
        let mut told = stage.told.lock();
        let news = (*told != figures).then(|| figures.clone());
        *told = figures;
        Some(Counted { since: stage.state.clone()?, counter: stage.counter.clone(), figures: news })
    }

    /// Adds what others counted since this move, in place of what was added before. What cannot be read counts for nothing.
    pub fn add(&self, since: &Move, figures: &[String]) {
        let stage = self.stage();
        if stage.state.as_ref() != Some(since) {
            return;
        }
        let read = figures.iter().filter_map(|text| serde_json::from_str::<BTreeMap<String, Figures>>(text).ok());
        let mut sums = vec![Figures::default(); self.versions.len()];
        for theirs in read {
            for (sum, (version, _)) in sums.iter_mut().zip(&self.versions) {
                *sum = sum.and(theirs.get(&version.model).copied().unwrap_or_default());
            }
        }
        *stage.others.lock() = sums;
    }

    /// The move that follows from what was counted; `None`: it stays as it is. `now` is in microseconds since 1970.
    pub fn judge(&self, now: i64) -> Option<Move> {
        let (canary, plan) = self.canary()?;
        let Some(state) = self.state() else { return Some(plan.begin(&self.name, canary, now)) };
        let (versions, mismatch) = (self.versions(), self.mismatch());
        let (canary, base) = (&versions.last()?.figures, &self.base(&versions)?.figures);
        plan.judge(&state, &Evidence { canary, base, mismatch }, now)
    }

    fn stage(&self) -> Arc<Stage> {
        self.stage.lock().clone()
    }

    fn set(&self, state: Option<Move>) {
        *self.stage.lock() = Stage::new(weights(&self.versions, self.plan.as_ref(), state.as_ref()), state);
    }

    /// The place of the version of whoever asks.
    fn version(&self, stage: &Stage, request: &GenerateRequest) -> Result<usize, Error> {
        let arms = self.versions.iter().zip(&stage.weights).map(|((version, _), weight)| (&*version.model, *weight));
        let missing = || Error::internal(format!("The rollout `{}` gives no version any weight.", self.name));
        assigned(&self.name, unit(request), arms).ok_or_else(missing)
    }

    /// A failure comes behind the word on whose it was, so that it counts against the right version.
    async fn ask(&self, request: GenerateRequest) -> Result<EventStream, Error> {
        let stage = self.stage();
        let place = self.version(&stage, &request)?;
        stage.trial.lock().exposed(place, unit(&request));
        let mut ear = Ear { stage, version: place, asked: Some(Instant::now()) };
        let (version, _) = &self.versions[place];
        let request = GenerateRequest { model: version.model.clone(), ..request };
        let watcher = self.shadow.as_ref().and_then(|shadow| Shadow::watch(shadow, &request));
        let events = match (version.service.generate(request).await, watcher) {
            (Ok(events), Some(mut watcher)) => events.inspect(move |item| watcher.see(item)).boxed(),
            (Ok(events), None) => events,
            (Err(error), _) => stream::iter([Err(error)]).boxed(),
        };
        let events = events.inspect(move |item| ear.hear(item));
        Ok(first::routed(version.hop(&self.name, Reason::Assigned, version.card()), events.boxed()))
    }
}

/// Weights by version. The canary has its share of all of them, and the others keep theirs among each other.
fn weights(versions: &[(Target, u32)], plan: Option<&Plan>, state: Option<&Move>) -> Vec<u64> {
    let own = |versions: &[(Target, u32)]| versions.iter().map(|(_, weight)| u64::from(*weight)).collect::<Vec<_>>();
    let (Some(_), Some((_, settled))) = (plan, versions.split_last()) else { return own(versions) };
    let share = u64::from(state.map_or(0, |state| state.share).min(100));
    let all: u64 = settled.iter().map(|(_, weight)| u64::from(*weight)).sum();
    let others = own(settled).into_iter().map(|weight| weight * (100 - share));
    others.chain([all * share]).collect()
}

/// Who asks; where nobody is known each request is somebody else's.
fn unit(request: &GenerateRequest) -> &str {
    if request.unit.is_empty() { &request.id } else { &request.unit }
}

/// Counts what becomes of a request.
struct Ear {
    stage: Arc<Stage>,
    version: usize,
    /// `None` once the first piece came.
    asked: Option<Instant>,
}

impl Ear {
    fn hear(&mut self, item: &Result<Event, Error>) {
        match item {
            Ok(Event::Text { .. } | Event::ToolCall { .. }) => {
                if let Some(asked) = self.asked.take() {
                    self.stage.trial.lock().began(self.version, asked.elapsed());
                }
            }
            Ok(Event::Done(_)) => self.stage.trial.lock().ended(self.version, None),
            Ok(_) => {}
            Err(error) => self.stage.trial.lock().ended(self.version, Some(error)),
        }
    }
}

impl Generate for Rollout {
    /// One model: what the version of most callers is, under this name, but for what another version cannot do.
    fn models(&self) -> Vec<ModelCard> {
        let stage = self.stage();
        let mut versions: Vec<_> = self.versions.iter().zip(&stage.weights).collect();
        versions.sort_by_key(|(_, weight)| std::cmp::Reverse(**weight));
        let cards = versions.into_iter().filter_map(|((version, _), _)| version.card());
        let both = |card: ModelCard, other: ModelCard| {
            let capabilities = card.capabilities.of_both(other.capabilities);
            ModelCard { capabilities, ..card }
        };
        cards.reduce(both).map(|card| ModelCard { id: self.name.clone(), ..card }).into_iter().collect()
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
        match self.version(&self.stage(), &request) {
            Ok(place) => {
                let (version, _) = &self.versions[place];
                version.service.count(GenerateRequest { model: version.model.clone(), ..request })
            }
            Err(error) => async { Err(error) }.boxed(),
        }
    }
}
