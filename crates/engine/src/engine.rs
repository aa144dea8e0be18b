//! The async handle: commands to the core's thread, outputs back through a channel per request.
//!
//! One thread runs the core. It takes all waiting commands between two steps, and blocks on them while there is nothing
//! to do. Requests are made ready (tokens, templates, grammars) on the caller's side, so the core never waits for text.
//! Dropping a stream sends a cancellation, which takes effect before the next step. A panic of the core fails every
//! request, present and future, with an internal error; nobody is left hanging, and the handle says that it is not ready.

use std::{
    collections::HashMap,
    fmt,
    hash::{BuildHasher, RandomState},
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    task::{Context, Poll},
    time::SystemTime,
};

use futures_core::{Stream, future::BoxFuture};
use futures_util::{StreamExt, TryStreamExt, stream};
use model::{Adapter, ModelSpec};
use parking_lot::Mutex;
use protocol::{
    Capabilities, Embed, EmbedRequest, Embeddings, Error, Event, EventStream, Format, Generate, GenerateRequest, Hop,
    ModelCard, Prompt,
};
use text::{ChatTemplate, Tokenizer};
use tokio::sync::{Semaphore, mpsc as channel, oneshot};

use crate::{
    EngineConfig,
    adapters::Adaptation,
    clock::Monotonic,
    core::{Core, Output, RequestId},
    embedding,
    executor::Executor,
    front::{Front, Parts},
    job::Job,
    meters::Stats,
    route::{self, AUTO},
};

/// Inputs of one embedding request in work at the same time.
const EMBED_WINDOW: usize = 64;

/// A loaded model that answers requests. Cheap to clone; the work ends when the last handle and stream are gone.
#[derive(Clone)]
pub struct Engine {
    front: Arc<Front>,
    /// What adapters are held against; tests of the core have no model.
    spec: Option<Arc<ModelSpec>>,
    card: ModelCard,
    /// What a request means that names no model.
    usual: String,
    commands: mpsc::Sender<Command>,
    state: Arc<Published>,
    seeds: Arc<Seeds>,
    /// Grammars that may be compiled at the same time: it is work that nothing stops, whoever has gone away meanwhile.
    compiling: Arc<Semaphore>,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("card", &self.card).finish_non_exhaustive()
    }
}

type Sent = Result<Output, Error>;

/// What the core's thread is told.
enum Command {
    Submit { job: Box<Job>, outputs: channel::UnboundedSender<Sent>, reply: oneshot::Sender<Result<RequestId, Error>> },
    Cancel(RequestId),
}

/// What the core's thread lets others see.
struct Published {
    stats: Mutex<Stats>,
    /// The core panicked: nothing is served any more.
    broken: AtomicBool,
}

/// Seeds for requests that bring none.
struct Seeds {
    state: RandomState,
    count: AtomicU64,
}

impl Seeds {
    fn draw(&self) -> u64 {
        self.state.hash_one(self.count.fetch_add(1, Ordering::Relaxed))
    }
}

impl Engine {
    /// Starts the thread that runs a core over `executor`.
    pub(crate) fn start<E: Executor + 'static>(
        executor: E,
        tokenizer: Arc<Tokenizer>,
        template: Option<ChatTemplate>,
        config: EngineConfig,
    ) -> Result<Self, crate::Error> {
        let name = config.name.clone();
        let encoder = executor.is_encoder();
        let vocab = executor.vocab();
        let core = Core::new(executor, Arc::clone(&tokenizer), Box::new(Monotonic::start()), config);
        let context_length = core.context_length();
        let chat = template.is_some() && !encoder;
        let parts = Parts { name: name.clone(), tokenizer, template, vocab, context: context_length, encoder };
        let front = Front::new(parts);
        let state = Arc::new(Published { stats: Mutex::new(*core.stats()), broken: AtomicBool::new(false) });
        let (commands, inbox) = mpsc::channel();
        let published = Arc::clone(&state);
        std::thread::Builder::new()
            .name("engine".into())
            .spawn(move || serve(core, &inbox, &published))
            .map_err(crate::Error::Thread)?;
        let generates = Capabilities { tools: chat, ..Capabilities::ENGINE };
        let card = ModelCard {
            created: created(),
            owned_by: "tessera".into(),
            context_length,
            chat,
            embeddings: true,
            capabilities: if encoder { Capabilities::default() } else { generates },
            ..ModelCard::new(name)
        };
        let seeds = Arc::new(Seeds { state: RandomState::new(), count: AtomicU64::new(0) });
        let compiling = Arc::new(Semaphore::new(std::thread::available_parallelism().map_or(1, usize::from)));
        Ok(Self { front: Arc::new(front), spec: None, card, usual: String::new(), commands, state, seeds, compiling })
    }

    /// The same with what identifies its weights, for its card.
    #[must_use]
    pub fn with_digest(mut self, digest: String) -> Self {
        self.card.digest = digest;
        self
    }

    pub(crate) fn with_spec(mut self, spec: Arc<ModelSpec>) -> Self {
        self.spec = Some(spec);
        self
    }

    /// Adds the adapter in a file under this name, in place of one that had it; requests in flight keep theirs. `digest` identifies the file.
    ///
    /// # Errors
    /// Whatever is wrong with the file, or that it was learned over another model.
    pub fn add_adapter(&self, name: &str, path: &Path, digest: String) -> Result<(), crate::Error> {
        let Some(spec) = self.spec.as_ref().filter(|spec| !spec.encoder) else {
            return Err(crate::Error::NoAdapters { name: self.card.id.clone() });
        };
        let opened = Adapter::open(path).map_err(crate::Error::Adapter)?;
        if opened.base() != self.card.digest {
            return Err(crate::Error::OtherBase {
                path: path.to_owned(),
                learned_over: opened.base().to_owned(),
                name: self.card.id.clone(),
                found: self.card.digest.clone(),
            });
        }
        let domain = opened.domain(spec).map_err(crate::Error::Adapter)?;
        let adapter = opened.load(spec).map_err(crate::Error::Adapter)?;
        self.front.adapters.add(name, digest, (adapter, domain));
        Ok(())
    }

    /// The same with this adapter beside the model wherever a request names no model; [`crate::AUTO`] lets the prompt choose.
    ///
    /// # Errors
    /// There is no such adapter.
    pub fn preferring(mut self, adapter: &str) -> Result<Self, Error> {
        self.usual = format!("{}:{adapter}", self.card.id);
        if !self.front.routes(&self.usual) {
            self.front.adaptation(&self.usual)?;
        }
        Ok(self)
    }

    /// Takes an adapter away; requests in flight keep it.
    pub fn remove_adapter(&self, name: &str) {
        self.front.adapters.remove(name);
    }

    fn meant<'a>(&'a self, model: &'a str) -> &'a str {
        if model.is_empty() { &self.usual } else { model }
    }

    fn adapted(&self, adaptation: &Adaptation) -> ModelCard {
        let mut card = self.card.clone();
        card.id = format!("{}:{}", card.id, adaptation.name);
        card.adapter.clone_from(&adaptation.digest);
        card
    }

    /// The name under which prompts choose, if they can.
    fn auto(&self) -> Option<ModelCard> {
        let card = || ModelCard { id: format!("{}:{AUTO}", self.card.id), embeddings: false, ..self.card.clone() };
        self.front.adapters.any_domain().then(card)
    }

    fn cards(&self) -> Vec<ModelCard> {
        let adapted = self.front.adapters.all();
        let adapted = adapted.iter().map(|adaptation| self.adapted(adaptation));
        let mut cards: Vec<ModelCard> = std::iter::once(self.card.clone()).chain(adapted).collect();
        // Stable: the usual one first, the others as they were.
        cards.sort_by_key(|card| card.id != self.usual);
        cards
    }

    fn card_of(&self, model: &str) -> Option<ModelCard> {
        let model = self.meant(model);
        match self.front.adaptation(model).ok()? {
            Some(adaptation) => Some(self.adapted(&adaptation)),
            None => Some(self.card.clone()),
        }
    }

    /// What is going on right now.
    pub fn stats(&self) -> Stats {
        *self.state.stats.lock()
    }

    /// That requests can be answered at all.
    ///
    /// # Errors
    /// The core's thread panicked, which only a restart helps against.
    pub fn ready(&self) -> Result<(), Error> {
        if self.state.broken.load(Ordering::Acquire) { Err(stopped()) } else { Ok(()) }
    }

    /// What callers may know about the model.
    pub fn card(&self) -> &ModelCard {
        &self.card
    }

    /// Its tokenizer.
    pub fn tokenizer(&self) -> &Arc<Tokenizer> {
        self.front.tokenizer()
    }

    /// The logits behind every token of a sequence, `[tokens][vocab]`: for comparing models. Needs
    /// `tokens.len() * vocab * 4` bytes.
    ///
    /// # Errors
    /// Ids outside of the vocabulary, sequences longer than the context, or an encoder.
    pub async fn logits(&self, tokens: Vec<u32>) -> Result<Vec<Vec<f32>>, Error> {
        let mut ticket = self.submit(self.front.logits_job(&self.usual, tokens)?).await?;
        match ticket.next().await {
            Some(Ok(Output::Logits(rows))) => Ok(rows),
            Some(Err(error)) => Err(error),
            _ => Err(stopped()),
        }
    }

    async fn submit(&self, job: Job) -> Result<Ticket, Error> {
        let (outputs, inbox) = channel::unbounded_channel();
        let (reply, answer) = oneshot::channel();
        let command = Command::Submit { job: Box::new(job), outputs, reply };
        self.commands.send(command).map_err(|_| stopped())?;
        let id = answer.await.map_err(|_| stopped())??;
        Ok(Ticket { id, inbox, commands: self.commands.clone(), ended: false })
    }

    async fn answer(&self, mut request: GenerateRequest) -> Result<EventStream, Error> {
        request.model = self.meant(&request.model).to_owned();
        if !self.front.routes(&request.model) {
            return self.answer_as_named(request).await;
        }
        let hop = self.route(&request).await?;
        request.model.clone_from(&hop.model);
        let events = self.answer_as_named(request).await?;
        Ok(Box::pin(stream::iter([Ok(Event::Routed(Box::new(hop)))]).chain(events)))
    }

    /// The adapter whose domain the prompt is of.
    async fn route(&self, request: &GenerateRequest) -> Result<Hop, Error> {
        let vectors = self.locate([&request.prompt]).await?;
        let vector = vectors.first().map(Vec::as_slice).unwrap_or_default();
        let (found, scores) = route::nearest(&self.front.adapters.all(), vector);
        let card = found.map_or_else(|| self.card.clone(), |adaptation| self.adapted(&adaptation));
        Ok(route::hop(&self.card.id, card, scores))
    }

    /// Where prompts lie: the vectors that the model without adapters gives of what users said in them, by which [`crate::AUTO`] chooses.
    ///
    /// # Errors
    /// A prompt in which no user says anything, or one of unknown tokens.
    pub async fn locate<'p>(&self, prompts: impl IntoIterator<Item = &'p Prompt>) -> Result<Vec<Vec<f32>>, Error> {
        let inputs = prompts.into_iter().map(route::subject).collect();
        Ok(self.vectors(EmbedRequest { model: self.card.id.clone(), inputs, dimensions: None }).await?.vectors)
    }

    async fn answer_as_named(&self, request: GenerateRequest) -> Result<EventStream, Error> {
        let (front, seeds) = (Arc::clone(&self.front), Arc::clone(&self.seeds));
        let turn = if is_held(&request) { Arc::clone(&self.compiling).acquire_owned().await.ok() } else { None };
        let job = aside(move || {
            let _turn = turn;
            front.answer_job(request, || seeds.draw())
        });
        let job = job.await?;
        let ticket = self.submit(job).await?;
        let events = ticket.filter_map(async |output| match output {
            Ok(Output::Event(event)) => Some(Ok(event)),
            Ok(_) => None,
            Err(error) => Some(Err(error)),
        });
        Ok(Box::pin(events))
    }

    async fn vectors(&self, request: EmbedRequest) -> Result<Embeddings, Error> {
        let front = Arc::clone(&self.front);
        let dimensions = request.dimensions;
        let jobs = aside(move || front.vector_jobs(request)).await?;
        let prompt_tokens = jobs.iter().map(|job| job.prompt.len()).sum();
        let vectors = stream::iter(jobs).map(|job| self.vector(job, dimensions)).buffered(EMBED_WINDOW);
        Ok(Embeddings { vectors: vectors.try_collect().await?, prompt_tokens, hops: Vec::new() })
    }

    async fn vector(&self, job: Job, dimensions: Option<usize>) -> Result<Vec<f32>, Error> {
        let mut ticket = self.submit(job).await?;
        match ticket.next().await {
            Some(Ok(Output::Vector(vector))) => embedding::finish(vector, dimensions),
            Some(Err(error)) => Err(error),
            _ => Err(stopped()),
        }
    }
}

impl Generate for Engine {
    fn models(&self) -> Vec<ModelCard> {
        let mut cards = self.cards();
        let at = if self.front.routes(&self.usual) { 0 } else { cards.len() };
        cards.splice(at..at, self.auto());
        cards
    }

    fn card(&self, model: &str) -> Option<ModelCard> {
        if self.front.routes(self.meant(model)) { self.auto() } else { self.card_of(model) }
    }

    fn ready(&self) -> Result<(), Error> {
        self.ready()
    }

    fn generate(&self, request: GenerateRequest) -> BoxFuture<'_, Result<EventStream, Error>> {
        Box::pin(self.answer(request))
    }

    fn count(&self, request: GenerateRequest) -> BoxFuture<'_, Result<usize, Error>> {
        let front = Arc::clone(&self.front);
        Box::pin(aside(move || front.count(&request)))
    }
}

impl Embed for Engine {
    fn models(&self) -> Vec<ModelCard> {
        self.cards()
    }

    fn card(&self, model: &str) -> Option<ModelCard> {
        self.card_of(model)
    }

    fn ready(&self) -> Result<(), Error> {
        self.ready()
    }

    fn embed(&self, request: EmbedRequest) -> BoxFuture<'_, Result<Embeddings, Error>> {
        Box::pin(self.vectors(request))
    }
}

/// Whether a grammar is compiled for it.
fn is_held(request: &GenerateRequest) -> bool {
    let tools = matches!(&request.prompt, Prompt::Chat(chat) if !chat.tools.is_empty());
    tools || request.format != Format::Text
}

/// Runs work that may take milliseconds where it blocks nobody: on the runtime's blocking threads if there is a runtime.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => {
            runtime.spawn_blocking(work).await.map_err(|_| Error::internal("a request could not be prepared"))?
        }
        Err(_) => work(),
    }
}

/// The receiving end of one request. Dropped before its end, it cancels.
struct Ticket {
    id: RequestId,
    inbox: channel::UnboundedReceiver<Sent>,
    commands: mpsc::Sender<Command>,
    ended: bool,
}

impl Stream for Ticket {
    type Item = Sent;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Sent>> {
        if self.ended {
            return Poll::Ready(None);
        }
        self.inbox.poll_recv(context).map(|output| {
            let output = output.unwrap_or_else(|| Err(stopped()));
            self.ended = is_last(&output);
            Some(output)
        })
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.ended {
            // A core that is gone has nothing left to cancel.
            let _ = self.commands.send(Command::Cancel(self.id));
        }
    }
}

fn is_last(output: &Sent) -> bool {
    !matches!(output, Ok(Output::Event(event)) if !matches!(event, Event::Done(_)))
}

fn stopped() -> Error {
    Error::internal("the engine has stopped after an internal error; its log says why; restart the service")
}

#[expect(clippy::disallowed_methods, reason = "a date for people, not a clock for scheduling")]
fn created() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

type Outboxes = HashMap<RequestId, channel::UnboundedSender<Sent>>;

/// The thread's life.
fn serve<E: Executor>(mut core: Core<E>, commands: &mpsc::Receiver<Command>, state: &Published) {
    let mut outboxes = Outboxes::new();
    let work = AssertUnwindSafe(|| work(&mut core, commands, &mut outboxes, &state.stats));
    if catch_unwind(work).is_ok() {
        return;
    }
    tracing::error!("the engine's core panicked; every request fails from now on");
    state.broken.store(true, Ordering::Release);
    for outbox in outboxes.into_values() {
        let _ = outbox.send(Err(stopped()));
    }
    while let Ok(command) = commands.recv() {
        if let Command::Submit { reply, .. } = command {
            let _ = reply.send(Err(stopped()));
        }
    }
}

fn work<E: Executor>(
    core: &mut Core<E>,
    commands: &mpsc::Receiver<Command>,
    outboxes: &mut Outboxes,
    stats: &Mutex<Stats>,
) {
    loop {
        if core.is_idle() {
            *stats.lock() = *core.stats();
            let Ok(command) = commands.recv() else { return };
            obey(core, command, outboxes);
        }
        while let Ok(command) = commands.try_recv() {
            obey(core, command, outboxes);
        }
        for (id, output) in core.step() {
            deliver(core, outboxes, id, output);
        }
        *stats.lock() = *core.stats();
    }
}

fn obey<E: Executor>(core: &mut Core<E>, command: Command, outboxes: &mut Outboxes) {
    match command {
        Command::Submit { job, outputs, reply } => {
            let submitted = core.submit(*job);
            if let Ok(id) = submitted {
                outboxes.insert(id, outputs);
            }
            // Whoever asked may have gone away before the answer.
            if let Err(Ok(id)) = reply.send(submitted) {
                cancel(core, outboxes, id);
            }
        }
        Command::Cancel(id) => cancel(core, outboxes, id),
    }
}

fn cancel<E: Executor>(core: &mut Core<E>, outboxes: &mut Outboxes, id: RequestId) {
    outboxes.remove(&id);
    core.cancel(id);
}

fn deliver<E: Executor>(core: &mut Core<E>, outboxes: &mut Outboxes, id: RequestId, output: Sent) {
    let last = is_last(&output);
    let Some(outbox) = outboxes.get(&id) else { return };
    if outbox.send(output).is_err() {
        cancel(core, outboxes, id);
    } else if last {
        outboxes.remove(&id);
    }
}

#[cfg(test)]
mod tests;
