//! A stream that breaks after its first byte goes on elsewhere, and its caller does not notice.
//!
//! The service reports the tokens of its answers. When a stream breaks, the request is sent again with them
//! ([`GenerateRequest::resume`]): whoever takes it reads prompt and tokens at once, sends everything again from the start, and goes
//! on. What was delivered is dropped here, text and pieces of tool calls, for each answer. On one instruction set greedy and seeded
//! answers go on with exactly the tokens they would have had; so a request that draws gets its seed here if it has none.
//!
//! What cannot be resumed is passed through as it is: models without [`protocol::Capabilities::replay`], and requests for scores, which
//! a resumed stream does not have. A replay that says anything else than what was delivered is an error and never a splice.

use std::{sync::Arc, time::Duration};

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream};
use protocol::{Error, ErrorKind, Event, EventStream, Generate, GenerateRequest, Load, Miss, ModelCard, Reason};
use rand::RngExt;
use tokio::time::{Instant, sleep};

use crate::first::{self, elsewhere};

/// The pause before a stream is taken up again; whoever replaces a service needs a moment.
const PAUSE: Duration = Duration::from_millis(50);

/// A service whose streams survive it.
#[derive(Debug)]
pub struct Migrating {
    inner: Arc<dyn Generate>,
    most: usize,
}

impl Migrating {
    /// Streams of `inner`, each taken up again at most `most` times. `inner` should send a request elsewhere when the service it
    /// was with is broken, as [`crate::Balanced`] does.
    pub fn new(inner: Arc<dyn Generate>, most: usize) -> Self {
        Self { inner, most }
    }

    async fn ask(&self, mut request: GenerateRequest) -> Result<EventStream, Error> {
        let cards = self.inner.models();
        let named = |card: &&ModelCard| request.model.is_empty() || card.id == request.model;
        let replays = cards.iter().find(named).is_some_and(|card| card.capabilities.replay);
        if !replays || request.logprobs.is_some() {
            return self.inner.generate(request).await;
        }
        let wanted = std::mem::replace(&mut request.report_tokens, true);
        if request.sampling.temperature > 0.0 && request.sampling.seed.is_none() {
            request.sampling.seed = Some(rand::rng().random());
        }
        let deadline = request.deadline.map(|limit| Instant::now() + limit);
        let events = self.inner.generate(request.clone()).await?;
        let answers = vec![Answer::default(); request.n.max(1)];
        let inner = self.inner.clone();
        let left = self.most;
        let (with, broke) = (String::new(), Vec::new());
        let (started, resumed, over) = (false, false, false);
        let journey =
            Journey { inner, request, deadline, events, answers, wanted, started, resumed, with, broke, left, over };
        Ok(stream::unfold(journey, async |mut journey| journey.next().await.map(|item| (item, journey))).boxed())
    }
}

/// A stream, whichever service it is with.
struct Journey {
    inner: Arc<dyn Generate>,
    request: GenerateRequest,
    deadline: Option<Instant>,
    events: EventStream,
    answers: Vec<Answer>,
    /// The caller wants to know the tokens, too.
    wanted: bool,
    started: bool,
    /// It was taken up again: what the part before took, nobody tells.
    resumed: bool,
    /// Who has the stream, and with whom it broke before.
    with: String,
    broke: Vec<Miss>,
    /// Times it may still be taken up again.
    left: usize,
    over: bool,
}

/// What was delivered of an answer, and how much of that a replay still has to say again.
#[derive(Debug, Clone, Default)]
struct Answer {
    tokens: Vec<u32>,
    tokens_again: usize,
    text: Progress,
    calls: Vec<Progress>,
    finished: bool,
}

/// Bytes of a text.
#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    delivered: usize,
    again: usize,
}

impl Progress {
    /// What is new in a piece; `None` if the piece cannot be what was delivered.
    fn fresh(&mut self, piece: &str) -> Option<String> {
        let known = self.again.min(piece.len());
        let fresh = piece.get(known..)?;
        self.again -= known;
        self.delivered += fresh.len();
        Some(fresh.to_owned())
    }
}

impl Journey {
    async fn next(&mut self) -> Option<Result<Event, Error>> {
        while !self.over {
            let error = match self.events.next().await {
                Some(Ok(event)) => match self.fresh(event) {
                    Ok(None) => continue,
                    Ok(Some(event)) => {
                        self.over = matches!(event, Event::Done(_));
                        return Some(Ok(event));
                    }
                    Err(error) => error,
                },
                Some(Err(error)) => error,
                None => first::cut(),
            };
            if let Err(error) = self.go_on(error).await {
                self.over = true;
                return Some(Err(error));
            }
        }
        None
    }

    /// Takes the stream up again after `error`, if that is of any use.
    async fn go_on(&mut self, mut error: Error) -> Result<(), Error> {
        while elsewhere(&error) && self.left > 0 {
            self.left -= 1;
            let tokens: usize = self.answers.iter().map(|answer| answer.tokens.len()).sum();
            tracing::warn!(id = %self.request.id, %error, tokens, "a stream broke: it goes on elsewhere");
            self.broke.push(Miss { who: self.with.clone(), error: error.word().to_owned() });
            sleep(PAUSE).await;
            match self.inner.generate(self.rest()?).await {
                Ok(events) => {
                    (self.events, self.resumed) = (events, true);
                    self.answers.iter_mut().for_each(Answer::expect_again);
                    return Ok(());
                }
                Err(next) => error = next,
            }
        }
        Err(error)
    }

    /// The request for the rest, within what is left of its time.
    fn rest(&self) -> Result<GenerateRequest, Error> {
        let mut request = self.request.clone();
        let tokens = |answer: &Answer| answer.tokens.clone();
        if self.answers.iter().any(|answer| !answer.tokens.is_empty()) {
            request.resume = self.answers.iter().map(tokens).collect();
        }
        if let Some(deadline) = self.deadline {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::new(ErrorKind::DeadlineExceeded, "The time for the request is over."));
            }
            request.deadline = Some(left);
        }
        Ok(request)
    }

    /// The event without what was delivered before; `None` if nothing is left of it.
    fn fresh(&mut self, event: Event) -> Result<Option<Event>, Error> {
        Ok(match event {
            Event::Started { .. } => (!std::mem::replace(&mut self.started, true)).then_some(event),
            Event::Tokens { choice, ids } => {
                let ids = self.answer(choice)?.tokens(&ids)?;
                (self.wanted && !ids.is_empty()).then_some(Event::Tokens { choice, ids })
            }
            Event::Text { choice, text, logprobs } => {
                let was_empty = text.is_empty();
                let text = self.answer(choice)?.text.fresh(&text).ok_or_else(differs)?;
                (was_empty || !text.is_empty()).then_some(Event::Text { choice, text, logprobs })
            }
            Event::ToolCall { choice, index, id, name, arguments } => {
                let (begun, arguments) = self.answer(choice)?.call(index, &arguments)?;
                match begun {
                    true => Some(Event::ToolCall { choice, index, id, name, arguments }),
                    // Whoever resumes makes up another id; the first one counts.
                    false => (!arguments.is_empty()).then_some(Event::ToolCall {
                        choice,
                        index,
                        id: None,
                        name: None,
                        arguments,
                    }),
                }
            }
            Event::Finished { choice, .. } => {
                (!std::mem::replace(&mut self.answer(choice)?.finished, true)).then_some(event)
            }
            Event::Routed(mut hop) => {
                self.with.clone_from(&hop.service);
                if !self.broke.is_empty() {
                    hop.reason = Reason::Resumed;
                    hop.failed.splice(0..0, self.broke.drain(..));
                }
                Some(Event::Routed(hop))
            }
            Event::Done(mut usage) if self.resumed => {
                usage.processor_micros = None;
                Some(Event::Done(usage))
            }
            other => Some(other),
        })
    }

    fn answer(&mut self, choice: usize) -> Result<&mut Answer, Error> {
        self.answers.get_mut(choice).ok_or_else(|| Error::internal(format!("There is no answer {choice}.")))
    }
}

impl Answer {
    /// A replay begins.
    fn expect_again(&mut self) {
        self.tokens_again = self.tokens.len();
        self.text.again = self.text.delivered;
        self.calls.iter_mut().for_each(|call| call.again = call.delivered);
    }

    /// The tokens that are new. Those of a replay must be the ones that were reported.
    fn tokens(&mut self, ids: &[u32]) -> Result<Vec<u32>, Error> {
        let known = self.tokens_again.min(ids.len());
        let place = self.tokens.len() - self.tokens_again;
        if self.tokens[place..place + known] != ids[..known] {
            return Err(differs());
        }
        self.tokens_again -= known;
        let fresh = ids[known..].to_vec();
        self.tokens.extend_from_slice(&fresh);
        Ok(fresh)
    }

    /// Whether the call begins with this piece, and what of its arguments is new.
    fn call(&mut self, index: usize, arguments: &str) -> Result<(bool, String), Error> {
        let begun = index >= self.calls.len();
        if begun {
            self.calls.resize(index + 1, Progress::default());
        }
        let fresh = self.calls[index].fresh(arguments).ok_or_else(differs)?;
        Ok((begun, fresh))
    }
}

fn differs() -> Error {
    Error::internal("The service that took the stream over says something else than what was delivered.")
}

impl Generate for Migrating {
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

    fn generate(&self, request: GenerateRequest) -> BoxFuture<'_, Result<EventStream, Error>> {
        self.ask(request).boxed()
    }

    fn count(&self, request: GenerateRequest) -> BoxFuture<'_, Result<usize, Error>> {
        self.inner.count(request)
    }
}
