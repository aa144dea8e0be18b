//! One of several alike services answers: the less busy of two drawn at random.
//!
//! Taking the better of two is nearly as good as taking the best of all, and does not send every request of a moment to the one that
//! looked idle (Mitzenmacher 2001, "The Power of Two Choices in Randomized Load Balancing"). Busy is counted in tokens to write. For
//! our own requests the cost is predicted: what they may write, and an eighth of what must be read, since prompts are read in
//! batches. Requests of others show in the service's queue and are taken to be of middling size.
//!
//! A service that is not ready is left out; one that failed rests for a moment. If the chosen one fails before its first byte, or
//! takes too long for it, one other is asked. The stream says who was compared and who answers. After the first byte a broken stream is [`crate::Migrating`]'s.

use std::{sync::Arc, time::Duration};

use futures_util::{FutureExt, StreamExt, future::BoxFuture};
use parking_lot::Mutex;
use protocol::{
    Candidate, Error, ErrorKind, EventStream, Generate, GenerateRequest, Hop, Load, Miss, ModelCard, Prompt, Reason,
    TextOrTokens,
};
use rand::RngExt;
use tokio::time::Instant;

use crate::first::{self, elsewhere};

/// The longest answer that is taken into account when a request names no limit, in tokens.
const USUAL_ANSWER: u64 = 256;
/// Tokens that are read in the time of one that is written.
const READ_PER_WRITTEN: u64 = 8;
/// Bytes of text to a token, about.
const BYTES_PER_TOKEN: usize = 4;

/// Several alike services.
#[derive(Debug)]
pub struct Balanced {
    members: Vec<Arc<Member>>,
    limits: Limits,
}

/// What a member may take, and what happens when it fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How long its first byte may take before another one is asked.
    pub first_byte: Option<Duration>,
    /// How long it is left alone after a failure.
    pub rest: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { first_byte: Some(Duration::from_secs(60)), rest: Duration::from_secs(1) }
    }
}

#[derive(Debug)]
struct Member {
    name: String,
    service: Arc<dyn Generate>,
    own: Mutex<Own>,
}

/// What this balancer knows of a member by itself.
#[derive(Debug, Default)]
struct Own {
    /// Its requests there.
    requests: u64,
    /// Their predicted cost, in tokens.
    cost: u64,
    rests_until: Option<Instant>,
}

/// A request at a member; dropping it counts it out.
struct Counted {
    member: Arc<Member>,
    cost: u64,
    rest: Duration,
}

impl Balanced {
    /// These services by their names, which offer the same models as far as they offer them.
    pub fn new(services: Vec<(String, Arc<dyn Generate>)>, limits: Limits) -> Self {
        let member = |(name, service)| Arc::new(Member { name, service, own: Mutex::default() });
        Self { members: services.into_iter().map(member).collect(), limits }
    }

    async fn ask(&self, request: GenerateRequest) -> Result<EventStream, Error> {
        let first = self.pick(&request.model, None).ok_or_else(|| self.nobody(&request.model))?;
        let error = match self.ask_one(&first.0, request.clone()).await {
            Err(error) if elsewhere(&error) => error,
            other => return other.map(|events| first::routed(hop(&request.model, &first, Vec::new()), events)),
        };
        let Some(second) = self.pick(&request.model, Some(&first.0)) else { return Err(error) };
        tracing::warn!(%error, "asking another one");
        let missed = Miss { who: first.0.name.clone(), error: error.word().to_owned() };
        let hop = hop(&request.model, &second, vec![missed]);
        Ok(first::routed(hop, self.ask_one(&second.0, request).await?))
    }

    /// The less busy of two that can answer, and how busy both were. Those that rest are asked only if there are no others.
    fn pick(&self, model: &str, but: Option<&Arc<Member>>) -> Option<(Arc<Member>, Vec<Candidate>)> {
        let able = |member: &&Arc<Member>| {
            but.is_none_or(|but| !Arc::ptr_eq(but, member)) && member.offers(model) && member.service.ready().is_ok()
        };
        let able: Vec<&Arc<Member>> = self.members.iter().filter(able).collect();
        let awake: Vec<_> = able.iter().copied().filter(|member| !member.rests()).collect();
        let among = if awake.is_empty() { able } else { awake };
        let (a, b) = two_of(among.len())?;
        let (a, b) = (among[a], among[b]);
        let candidate =
            |member: &Arc<Member>| Candidate { service: member.name.clone(), busy: member.busy(), nearness: None };
        let mut compared = vec![candidate(a), candidate(b)];
        let taken = if compared[1].busy < compared[0].busy { b } else { a };
        // The only one is compared with nobody.
        compared.truncate(if Arc::ptr_eq(a, b) { 0 } else { 2 });
        Some((taken.clone(), compared))
    }

    async fn ask_one(&self, member: &Arc<Member>, request: GenerateRequest) -> Result<EventStream, Error> {
        let counted = Counted::new(member.clone(), predicted(&request), self.limits.rest);
        match first::open(member.service.as_ref(), request, self.limits.first_byte).await {
            Ok(events) => Ok(events.inspect(move |item| counted.saw(item)).boxed()),
            Err(error) => {
                counted.failed(&error);
                Err(error)
            }
        }
    }

    fn nobody(&self, model: &str) -> Error {
        let offering: Vec<_> = self.members.iter().filter(|member| member.offers(model)).collect();
        match offering.iter().find_map(|member| member.service.ready().err()) {
            Some(error) => error,
            None => Error::new(ErrorKind::Upstream, format!("No worker offers the model `{model}` at the moment.")),
        }
    }
}

/// That the request goes to this member.
fn hop(model: &str, (member, among): &(Arc<Member>, Vec<Candidate>), failed: Vec<Miss>) -> Hop {
    let reason = match (failed.is_empty(), among.is_empty()) {
        (false, _) => Reason::Fallback,
        (true, true) => Reason::Only,
        (true, false) => Reason::Balanced,
    };
    let card = member.service.card(model);
    let (digest, adapter) = card.map_or_else(Default::default, |card| (card.digest, card.adapter));
    let (asked, service, among) = (model.to_owned(), member.name.clone(), among.clone());
    Hop { model: asked.clone(), asked, reason, service, digest, adapter, failed, among, score: None }
}

/// Two different ones of so many, or the only one twice.
fn two_of(n: usize) -> Option<(usize, usize)> {
    match n {
        0 => None,
        1 => Some((0, 0)),
        n => {
            let a = rand::rng().random_range(0..n);
            let b = rand::rng().random_range(1..n);
            Some((a, (a + b) % n))
        }
    }
}

/// What a request will probably cost, in tokens to write.
fn predicted(request: &GenerateRequest) -> u64 {
    let read = match &request.prompt {
        Prompt::Raw(TextOrTokens::Tokens(ids)) => ids.len(),
        Prompt::Raw(TextOrTokens::Text(text)) => text.len() / BYTES_PER_TOKEN,
        Prompt::Chat(chat) => {
            let text = |message: &protocol::Message| message.content.as_ref().map_or(0, String::len);
            chat.messages.iter().map(text).sum::<usize>() / BYTES_PER_TOKEN
        }
    };
    let written = request.stop.max_tokens.map_or(USUAL_ANSWER, |most| (most as u64).min(4 * USUAL_ANSWER));
    1 + read as u64 / READ_PER_WRITTEN + written * request.n as u64
}

impl Member {
    fn offers(&self, model: &str) -> bool {
        let models = self.service.models();
        if model.is_empty() { !models.is_empty() } else { models.iter().any(|card| card.id == model) }
    }

    fn rests(&self) -> bool {
        self.own.lock().rests_until.is_some_and(|until| until > Instant::now())
    }

    /// Tokens to write before a new request would be alone.
    fn busy(&self) -> u64 {
        let queue = self.service.load().map_or(0, |load| (load.running + load.waiting) as u64);
        let own = self.own.lock();
        own.cost + queue.saturating_sub(own.requests) * USUAL_ANSWER
    }
}

impl Counted {
    fn new(member: Arc<Member>, cost: u64, rest: Duration) -> Self {
        let mut own = member.own.lock();
        own.requests += 1;
        own.cost += cost;
        drop(own);
        Self { member, cost, rest }
    }

    /// A member that failed rests, as long as it asked for if it did.
    fn failed(&self, error: &Error) {
        if elsewhere(error) {
            let rest = error.retry_after.unwrap_or(self.rest);
            self.member.own.lock().rests_until = Some(Instant::now() + rest);
        }
    }

    fn saw<T>(&self, item: &Result<T, Error>) {
        if let Err(error) = item {
            self.failed(error);
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut own = self.member.own.lock();
        own.requests = own.requests.saturating_sub(1);
        own.cost = own.cost.saturating_sub(self.cost);
    }
}

impl Generate for Balanced {
    /// Every model once, in the order of the members.
    fn models(&self) -> Vec<ModelCard> {
        let mut cards: Vec<ModelCard> = Vec::new();
        for card in self.members.iter().flat_map(|member| member.service.models()) {
            if !cards.iter().any(|known| known.id == card.id) {
                cards.push(card);
            }
        }
        cards
    }

    /// Ready while one of them is.
    fn ready(&self) -> Result<(), Error> {
        let mut states = self.members.iter().map(|member| member.service.ready());
        let first = states.next().unwrap_or(Ok(()));
        if first.is_ok() || states.any(|state| state.is_ok()) { Ok(()) } else { first }
    }

    fn load(&self) -> Option<Load> {
        let loads = self.members.iter().filter_map(|member| member.service.load());
        loads.reduce(|a, b| Load { running: a.running + b.running, waiting: a.waiting + b.waiting })
    }

    fn generate(&self, request: GenerateRequest) -> BoxFuture<'_, Result<EventStream, Error>> {
        self.ask(request).boxed()
    }

    fn count(&self, request: GenerateRequest) -> BoxFuture<'_, Result<usize, Error>> {
        async move {
            let (member, _) = self.pick(&request.model, None).ok_or_else(|| self.nobody(&request.model))?;
            member.service.count(request).await
        }
        .boxed()
    }
}
