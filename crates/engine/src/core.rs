//! The synchronous core: requests in, events out, one step at a time.
//!
//! A step is one forward pass. First it is planned who takes part: running answers always do, prompts share a budget of
//! rows, so a long prompt delays the tokens of running answers by one small chunk at a time and never more. The oldest
//! prompt has a right to half of the budget; the other half goes to the shortest ones, so a short prompt does not wait for
//! a long one either. Then the batch runs, tokens are chosen, and events come out.
//!
//! # Memory
//! A sequence is admitted when its tokens fit into free and evictable pages, with one spare page per running sequence. It
//! grows page by page. When no page is left, the prefix cache gives up its least recently used ones; then the youngest
//! running sequence is paused: its pages go to the prefix cache and it resumes, before anything new is admitted, by being
//! computed again. Since the same row gives the same bits however it was computed, nobody can tell from the tokens. The
//! oldest sequence is never paused and no sequence may grow larger than the whole cache, so there is always progress;
//! reserving `max_tokens` ahead would also be sound but leaves most pages empty, as most answers are shorter.
//!
//! # Fairness
//! Tenants take turns by tokens served ([`crate::queue`]). Nothing overtakes the request whose turn it is. One that begins
//! like a prompt being computed right now waits for that prefix instead of computing it again.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    sync::Arc,
    time::Duration,
};

use kernels::PAGE_TOKENS;
use protocol::{Error, ErrorKind, Event, Usage};
use text::Tokenizer;

use crate::{
    clock::Clock,
    config::EngineConfig,
    executor::Executor,
    job::Job,
    meters::{Meters, Stats},
    pages::Pool,
    prefix::PrefixCache,
    queue::FairQueue,
    sequence::{Purpose, Sequence},
};

mod encode;
mod plan;
mod run;

/// Names a request within one core.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(u64);

/// What a step hands out for a request.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Output {
    /// More of an answer; the last one is [`Event::Done`].
    Event(Event),
    /// The vector of an embedding, not normalised: the only output of its request.
    Vector(Vec<f32>),
    /// The logits behind every token: the only output of their request.
    Logits(Vec<Vec<f32>>),
}

/// What a step hands out.
pub type Outputs = Vec<(RequestId, Result<Output, Error>)>;

/// A waiting or admitted request.
#[derive(Debug)]
struct Request {
    tenant: String,
    submitted: Duration,
    deadline: Option<Duration>,
    admitted: bool,
    /// Its prompt has been computed once, so further choices may start.
    prompt_ready: bool,
    choices_left: usize,
    usage: Usage,
    /// Processor time of its share in the steps so far.
    worked: Duration,
    /// Say so with every step.
    report_work: bool,
}

/// The scheduler with its model, cache and requests.
pub struct Core<E: Executor> {
    executor: E,
    tokenizer: Arc<Tokenizer>,
    clock: Box<dyn Clock>,
    config: EngineConfig,
    pool: Pool,
    cache: PrefixCache,
    queue: FairQueue<(RequestId, Job)>,
    /// Sequences of admitted requests without pages, by age: choices that wait for their prompt, and preempted ones.
    paused: Vec<Sequence>,
    /// Sequences with pages, by age.
    running: Vec<Sequence>,
    requests: HashMap<RequestId, Request>,
    deadlines: BTreeSet<(Duration, RequestId)>,
    submissions: u64,
    admissions: u64,
    /// What the executor's clock said last.
    processor: Option<Duration>,
    buffers: run::Buffers,
    /// Events of the sequence being handled.
    events: Vec<Event>,
    /// Requests that failed in this step.
    failures: Vec<(RequestId, Error)>,
    out: Outputs,
    meters: Meters,
    stats: Stats,
}

impl<E: Executor> fmt::Debug for Core<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core").field("stats", &self.stats).finish_non_exhaustive()
    }
}

impl<E: Executor> Core<E> {
    /// A core at rest.
    pub fn new(executor: E, tokenizer: Arc<Tokenizer>, clock: Box<dyn Clock>, config: EngineConfig) -> Self {
        let config = config.usable();
        let pool = Pool::new(executor.pages());
        let kv_total_bytes = (pool.total() * executor.page_bytes()) as u64;
        Self {
            executor,
            tokenizer,
            clock,
            pool,
            cache: PrefixCache::default(),
            queue: FairQueue::new(),
            paused: Vec::new(),
            running: Vec::new(),
            requests: HashMap::new(),
            deadlines: BTreeSet::new(),
            submissions: 0,
            admissions: 0,
            processor: None,
            buffers: run::Buffers::default(),
            events: Vec::new(),
            failures: Vec::new(),
            out: Vec::new(),
            meters: Meters::new(&config.name),
            config,
            stats: Stats { kv_total_bytes, ..Stats::default() },
        }
    }

    /// Longest prompt plus answer, in tokens: the model's context or the whole cache, whichever is smaller.
    pub fn context_length(&self) -> usize {
        match self.executor.is_encoder() {
            true => self.executor.context(),
            false => self.executor.context().min(self.pool.total() * PAGE_TOKENS),
        }
    }

    /// Nothing waits and nothing runs: a step would do nothing.
    pub fn is_idle(&self) -> bool {
        self.requests.is_empty()
    }

    /// What is going on.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Puts a request into the queue. Its prompt with the longest answer fits into the [`Core::context_length`], or it never ends.
    ///
    /// # Errors
    /// [`ErrorKind::Overloaded`] when the queue is full; then nothing was done.
    pub fn submit(&mut self, job: Job) -> Result<RequestId, Error> {
        if self.queue.len() >= self.config.queue_limit {
            return Err(overloaded(self.queue.len()));
        }
        let id = RequestId(self.submissions);
        self.submissions += 1;
        let submitted = self.clock.now();
        let deadline = job.deadline.map(|after| submitted.saturating_add(after));
        self.deadlines.extend(deadline.map(|at| (at, id)));
        let request = Request {
            tenant: job.tenant.clone(),
            submitted,
            deadline,
            admitted: false,
            prompt_ready: false,
            choices_left: job.choices(),
            usage: Usage { prompt_tokens: job.prompt.len(), ..Usage::default() },
            worked: Duration::ZERO,
            report_work: job.reports_work(),
        };
        self.queue.push(&request.tenant, (id, job));
        self.requests.insert(id, request);
        self.publish();
        Ok(id)
    }

    /// Forgets a request; its pages are free at once.
    pub fn cancel(&mut self, id: RequestId) {
        self.forget(id);
        self.publish();
    }

    /// Does the next piece of work and returns what came of it.
    pub fn step(&mut self) -> Outputs {
        // Readings compare with those of the same thread only, so the first one is taken here.
        self.processor = self.processor.or_else(|| self.executor.processor_time());
        self.expire();
        if self.executor.is_encoder() {
            self.encode();
        } else {
            self.plan();
            self.run();
        }
        self.settle();
        self.publish();
        std::mem::take(&mut self.out)
    }

    fn expire(&mut self) {
        let now = self.clock.now();
        while let Some(&(_, id)) = self.deadlines.first().filter(|(at, _)| *at <= now) {
            self.fail(id, deadline_exceeded());
        }
    }

    fn fail(&mut self, id: RequestId, error: Error) {
        if self.requests.contains_key(&id) {
            self.out.push((id, Err(error)));
            self.forget(id);
        }
    }

    /// Takes a request out wherever it is. What it computed stays in the prefix cache, free to be evicted.
    fn forget(&mut self, id: RequestId) {
        let Some(request) = self.requests.remove(&id) else { return };
        if let Some(at) = request.deadline {
            self.deadlines.remove(&(at, id));
        }
        if !request.admitted {
            self.queue.remove_where(|(waiting, _)| *waiting == id);
            return;
        }
        self.queue.ended(&request.tenant);
        self.paused.retain(|sequence| sequence.request != id);
        for sequence in self.running.extract_if(.., |sequence| sequence.request == id).collect::<Vec<_>>() {
            self.keep(sequence);
        }
    }

    /// Gives the pages of a sequence to the prefix cache; hands it back without them.
    fn keep(&mut self, mut sequence: Sequence) -> Sequence {
        let stored = sequence.shareable().len();
        let table = sequence.pause();
        if self.config.prefix_cache {
            self.cache.keep(sequence.root(), &sequence.tokens[..stored], table);
        }
        sequence
    }

    /// Sends the events gathered for a request.
    fn send(&mut self, id: RequestId) {
        let events = self.events.drain(..).map(|event| (id, Ok(Output::Event(event))));
        self.out.extend(events);
    }

    /// Ends what is done: failed requests, finished sequences, and requests whose last sequence finished.
    fn settle(&mut self) {
        for (id, error) in std::mem::take(&mut self.failures) {
            self.fail(id, error);
        }
        if self.running.iter().any(Sequence::is_done) {
            for sequence in self.running.extract_if(.., |sequence| sequence.is_done()).collect::<Vec<_>>() {
                self.end(sequence);
            }
        }
    }

    fn end(&mut self, mut sequence: Sequence) {
        let id = sequence.request;
        let output = sequence.take_output();
        let sequence = self.keep(sequence);
        let Some(request) = self.requests.get_mut(&id) else { return };
        request.choices_left -= 1;
        // An answer that was forced from beginning to end never computed its prompt: the others must do it themselves.
        request.prompt_ready = true;
        if let Purpose::Answer(generation) = &sequence.purpose {
            request.usage.completion_tokens += generation.generated;
        }
        request.usage.processor_micros = self.processor.map(|_| micros(request.worked));
        let (usage, last) = (request.usage, request.choices_left == 0);
        self.out.extend(output.map(|output| (id, Ok(output))));
        if last {
            self.complete(id, &sequence, usage);
        }
    }

    fn complete(&mut self, id: RequestId, sequence: &Sequence, usage: Usage) {
        if matches!(sequence.purpose, Purpose::Answer(_)) {
            self.out.push((id, Ok(Output::Event(Event::Done(usage)))));
        }
        self.meters.count(&usage);
        self.stats.count(&usage);
        self.forget(id);
    }

    /// Brings the snapshot up to date.
    fn publish(&mut self) {
        let page_bytes = self.executor.page_bytes() as u64;
        let cached = self.cache.evictable();
        let used = self.pool.total() - self.pool.free() - cached;
        self.stats.queued = self.queue.len();
        self.stats.running = self.running.len();
        self.stats.paused = self.paused.len();
        self.stats.kv_used_bytes = used as u64 * page_bytes;
        self.stats.kv_cached_bytes = cached as u64 * page_bytes;
        self.meters.publish(&self.stats);
    }
}

/// Whole microseconds.
fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn overloaded(waiting: usize) -> Error {
    let message = format!("{waiting} requests are waiting already; try again in a moment");
    Error::new(ErrorKind::Overloaded, message).with_code("overloaded")
}

fn deadline_exceeded() -> Error {
    let message = "the deadline passed before the answer was complete; allow more time or ask for fewer tokens";
    Error::new(ErrorKind::DeadlineExceeded, message).with_code("deadline_exceeded")
}

#[cfg(test)]
mod tests;
