//! A service that keeps failing is left alone for a while.
//!
//! The last outcomes are kept. When enough of them are failures, and those are a large enough share, the breaker opens: requests
//! are refused at once, so that whoever waits goes elsewhere instead of waiting for another failure. After a pause it is half open:
//! one request is let through as a probe. If it goes well the breaker closes and forgets; if not, it opens again.
//!
//! Only failures of the service count. A request that was refused for its own fault shows that the service works; one that its
//! caller dropped shows nothing. An overloaded service says so itself, with the time to wait, and is not broken.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream};
use parking_lot::Mutex;
use protocol::{Circuit, Error, ErrorKind, Event, EventStream, Generate, GenerateRequest, Load, ModelCard};
use tokio::time::Instant;

use crate::first;

/// When a breaker opens, and for how long.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Trip {
    /// Outcomes that are kept.
    pub window: usize,
    /// Failures among them, at least.
    pub failures: usize,
    /// Their share of the outcomes, at least: 0 to 1.
    pub share: f64,
    /// How long it stays open before it lets a probe through.
    pub pause: Duration,
}

impl Default for Trip {
    fn default() -> Self {
        Self { window: 20, failures: 5, share: 0.5, pause: Duration::from_secs(10) }
    }
}

/// A service behind a breaker.
#[derive(Debug)]
pub struct Breaker {
    inner: Arc<dyn Generate>,
    trip: Trip,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// Whether each of the last requests failed, the oldest first.
    failed: VecDeque<bool>,
    open_until: Option<Instant>,
    /// A probe is under way.
    probing: bool,
}

/// A request that was let through; dropped without an outcome, it shows nothing.
#[derive(Debug)]
struct Passed {
    state: Arc<Mutex<State>>,
    trip: Trip,
    probe: bool,
}

impl Breaker {
    /// The service behind a closed breaker.
    pub fn new(inner: Arc<dyn Generate>, trip: Trip) -> Self {
        Self { inner, trip, state: Arc::default() }
    }

    /// Lets a request through, or says how long none will be.
    fn pass(&self) -> Result<Passed, Error> {
        let mut state = self.state.lock();
        state.check()?;
        let probe = state.open_until.is_some();
        state.probing = probe;
        Ok(Passed { state: self.state.clone(), trip: self.trip, probe })
    }

    async fn ask(&self, request: GenerateRequest) -> Result<EventStream, Error> {
        let passed = self.pass()?;
        match self.inner.generate(request).await {
            Err(error) => {
                passed.outcome(Some(&error));
                Err(error)
            }
            Ok(events) => Ok(watched(events, passed)),
        }
    }
}

impl State {
    fn circuit(&self) -> Circuit {
        match self.open_until.map(|until| until.saturating_duration_since(Instant::now())) {
            None => Circuit::Closed,
            Some(left) if left.is_zero() => Circuit::HalfOpen { probing: self.probing },
            Some(left) => Circuit::Open(left),
        }
    }

    /// Whether a request may pass: not while open, and not beside a probe.
    fn check(&self) -> Result<(), Error> {
        let left = match self.circuit() {
            Circuit::Closed | Circuit::HalfOpen { probing: false } => return Ok(()),
            Circuit::HalfOpen { probing: true } => Duration::ZERO,
            Circuit::Open(left) => left,
        };
        let message = "The service failed too often and is left alone for a moment.";
        let wait = left.max(Duration::from_secs(1));
        Err(Error::new(ErrorKind::Upstream, message).with_code("breaker_open").with_retry_after(wait))
    }
}

impl Passed {
    fn outcome(mut self, error: Option<&Error>) {
        let failed = error.is_some_and(|error| {
            matches!(error.kind, ErrorKind::Upstream | ErrorKind::DeadlineExceeded | ErrorKind::Internal)
        });
        let mut state = self.state.lock();
        if std::mem::take(&mut self.probe) {
            state.probing = false;
            state.open_until = failed.then(|| Instant::now() + self.trip.pause);
            return;
        }
        if state.failed.len() >= self.trip.window.max(1) {
            state.failed.pop_front();
        }
        state.failed.push_back(failed);
        let failures = state.failed.iter().filter(|failed| **failed).count();
        let share = failures as f64 / state.failed.len() as f64;
        if failed && failures >= self.trip.failures.max(1) && share >= self.trip.share {
            tracing::warn!(failures, of = state.failed.len(), pause = ?self.trip.pause, "a breaker opens");
            state.failed.clear();
            state.open_until = Some(Instant::now() + self.trip.pause);
        }
    }
}

impl Drop for Passed {
    fn drop(&mut self) {
        if self.probe {
            self.state.lock().probing = false;
        }
    }
}

/// The same events; the last one is the outcome.
fn watched(events: EventStream, passed: Passed) -> EventStream {
    let step = async |(mut events, mut passed): (EventStream, Option<Passed>)| {
        let item = events.next().await;
        let outcome = match &item {
            Some(Ok(Event::Done(_))) => Some(None),
            Some(Ok(_)) => None,
            Some(Err(error)) => Some(Some(error.clone())),
            None => Some(Some(first::cut())),
        };
        if let Some(outcome) = outcome
            && let Some(passed) = passed.take()
        {
            passed.outcome(outcome.as_ref());
        }
        item.map(|item| (item, (events, passed)))
    };
    stream::unfold((events, Some(passed)), step).boxed()
}

impl Generate for Breaker {
    fn models(&self) -> Vec<ModelCard> {
        self.inner.models()
    }

    fn card(&self, model: &str) -> Option<ModelCard> {
        self.inner.card(model)
    }

    fn ready(&self) -> Result<(), Error> {
        self.state.lock().check()?;
        self.inner.ready()
    }

    fn load(&self) -> Option<Load> {
        self.inner.load()
    }

    fn circuit(&self) -> Option<Circuit> {
        Some(self.state.lock().circuit())
    }

    fn generate(&self, request: GenerateRequest) -> BoxFuture<'_, Result<EventStream, Error>> {
        self.ask(request).boxed()
    }

    fn count(&self, request: GenerateRequest) -> BoxFuture<'_, Result<usize, Error>> {
        self.inner.count(request)
    }
}
