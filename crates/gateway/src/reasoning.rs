//! `/v1/reasoning`: decisions, their paths, and following one while it grows.
//!
//! Whoever asks drives the work: its steps come with the answer's stream, and hanging up cancels it. Every step is kept in
//! [`paths`] before it is sent, so whoever follows sees what the asker sees, and a replay shows it again.

mod paths;

use std::{convert::Infallible, pin::Pin, sync::Arc};

use axum::{
    Extension, Json,
    extract::{Path, State},
    response::{
        IntoResponse, Response,
        sse::{Event as Frame, KeepAlive, Sse},
    },
    routing::{get, post},
};
use futures_util::{Stream, StreamExt, future, stream};
use ledger::{Content, Scope};
use protocol::{
    Conclusion, Decide, DecideRequest, Error, ErrorKind, SolveRequest, Step, StepEvent, StepStream, Usage,
    openai::ErrorBody,
    reasoning::{Answer, DecisionBody, DecisionList, DecisionPath, PathBody, SolutionPath, SolveBody, no_such_path},
};
use serde_json::{Value, json};

use crate::{
    Caller, Role,
    api::Route,
    app::App,
    ask::Ask,
    record::{self, Record},
    refusal::Refusal,
};
pub(crate) use paths::Paths;
use paths::{Found, Kept};

pub(crate) fn routes() -> Vec<Route> {
    vec![
        Route::get("/v1/reasoning/decisions", get(decisions))
            .about("reasoning", "What can be decided")
            .gives::<DecisionList>(),
        Route::post::<DecisionBody>("/v1/reasoning/decisions", post(decide))
            .about("reasoning", "Decide from facts or a text, step by step")
            .gives::<DecisionPath>()
            .streams(),
        Route::post::<SolveBody>("/v1/reasoning/solve", post(solve))
            .about("reasoning", "Solve a problem by a chain of computed steps")
            .gives::<SolutionPath>()
            .streams(),
        Route::get("/v1/reasoning/{id}", get(replay)).about("reasoning", "A path again").gives::<PathBody>().fails(404),
        Route::get("/v1/reasoning/{id}/events", get(follow))
            .about("reasoning", "Follow a path while it grows")
            .gives_events()
            .fails(404),
    ]
}

/// `GET /v1/reasoning/decisions`.
async fn decisions(State(app): State<Arc<App>>) -> Json<DecisionList> {
    Json(app.services().decide.iter().flat_map(|service| service.decisions()).collect())
}

/// `POST /v1/reasoning/decisions`.
async fn decide(ask: Ask) -> Result<Response, Refusal> {
    let mut body = DecisionBody::parse(&ask.body)?;
    let service = ask.app.decides(&body.decision)?;
    if body.text.is_some() {
        body.model = ask.app.reader(body.model.take(), &ask.caller)?;
    } else if ask.caller.role == Role::Auditor {
        ask.caller.may_use(&body.decision)?;
    }
    let answer = Answer::new(&ask.id.0, Some(body.decision.clone()), body.text.clone().unwrap_or_default());
    let (streamed, deadline) = (body.stream, ask.app.gateway.config.deadline);
    let subject = subject(body.user.take(), &ask.caller);
    let mut request = body.request(ask.id.0.clone(), ask.caller.tenant.clone(), deadline);
    let version = service.decisions().into_iter().find(|card| card.id == request.decision).map(|card| card.version);
    let mut record = ask.begin(decision_work(&request, version.unwrap_or_default(), subject)).await?;
    let steps = match judge(&mut record, &mut request) {
        Ok(()) => service.decide(request).await,
        Err(error) => Err(error),
    };
    let steps = match steps {
        Ok(steps) => steps,
        Err(error) => return Err(record.fail(error).await.into()),
    };
    deliver(&ask, answer, record, steps, streamed).await
}

/// Judges what a decision is made from: its text, and the words among its facts.
fn judge(record: &mut Record, request: &mut DecideRequest) -> Result<(), Error> {
    if let Some(text) = &mut request.text {
        record.judge("text", text)?;
    }
    request.facts.iter_mut().try_for_each(|(name, fact)| judge_fact(record, &format!("facts.{name}"), fact))
}

fn judge_fact(record: &mut Record, place: &str, fact: &mut Value) -> Result<(), Error> {
    match fact {
        Value::String(text) => record.judge(place, text),
        Value::Array(facts) => facts.iter_mut().try_for_each(|fact| judge_fact(record, place, fact)),
        Value::Object(facts) => facts.values_mut().try_for_each(|fact| judge_fact(record, place, fact)),
        _ => Ok(()),
    }
}

/// What came in, for the sealed part of the record: facts are about somebody, as the text is.
fn decided_from(request: &DecideRequest) -> Value {
    match (&request.text, request.facts.is_empty()) {
        (text, true) => json!(text.clone().unwrap_or_default()),
        (None, false) => json!({ "facts": request.facts }),
        (Some(text), false) => json!({ "text": text, "facts": request.facts }),
    }
}

/// Whom the contents of a request concern: the end user whom it names, else all of the tenant.
fn subject(user: Option<String>, caller: &Caller) -> String {
    user.filter(|user| !user.is_empty()).unwrap_or_else(|| caller.tenant.clone())
}

/// What a decision's record says before the work.
fn decision_work(request: &DecideRequest, version: String, subject: String) -> record::Work {
    record::Work {
        kind: ledger::Kind::Decision,
        model: request.decision.clone(),
        digest: version,
        adapter: String::new(),
        service: "rules".to_owned(),
        parameters: json!({ "facts": request.facts.len(), "model": request.model, "language": request.language }),
        input: decided_from(request),
        subject,
        estimate: Usage::default(),
    }
}

/// What a solution's record says before the work.
fn solution_work(request: &SolveRequest, subject: String) -> record::Work {
    record::Work {
        kind: ledger::Kind::Solution,
        model: request.model.clone(),
        digest: String::new(),
        adapter: String::new(),
        service: "chains".to_owned(),
        parameters: json!({ "effort": request.effort, "seed": request.seed }),
        input: json!(request.problem),
        subject,
        estimate: Usage::default(),
    }
}

/// `POST /v1/reasoning/solve`.
async fn solve(ask: Ask) -> Result<Response, Refusal> {
    let mut body = SolveBody::parse(&ask.body)?;
    body.model = ask.app.reader(body.model.take(), &ask.caller)?;
    let service = ask.app.solves()?;
    let answer = Answer::new(&ask.id.0, None, body.problem.clone());
    let (streamed, deadline) = (body.stream, ask.app.gateway.config.deadline);
    let subject = subject(body.user.take(), &ask.caller);
    let mut request = body.request(ask.id.0.clone(), ask.caller.tenant.clone(), deadline);
    let mut record = ask.begin(solution_work(&request, subject)).await?;
    let steps = match record.judge("problem", &mut request.problem) {
        Ok(()) => service.solve(request).await,
        Err(error) => Err(error),
    };
    let steps = match steps {
        Ok(steps) => steps,
        Err(error) => return Err(record.fail(error).await.into()),
    };
    deliver(&ask, answer, record, steps, streamed).await
}

impl App {
    /// Services that decide, the ready ones first. A worker that only runs models has no decisions, and solves nothing either.
    fn deciders(&self) -> Vec<Arc<dyn Decide>> {
        let services = self.services();
        let mut able: Vec<_> =
            services.decide.iter().filter(|service| !service.decisions().is_empty()).cloned().collect();
        able.sort_by_key(|service| service.ready().is_err());
        able
    }

    /// The service that makes this decision.
    pub(crate) fn decides(&self, decision: &str) -> Result<Arc<dyn Decide>, Error> {
        let services = self.deciders();
        let makes = |service: &&Arc<dyn Decide>| service.decisions().iter().any(|card| card.id == decision);
        // The first one says best what there is instead.
        services.iter().find(makes).or(services.first()).cloned().ok_or_else(|| {
            Error::new(ErrorKind::Unsupported, "No decisions are made here: the server runs without that service.")
        })
    }

    /// The service that solves.
    pub(crate) fn solves(&self) -> Result<Arc<dyn Decide>, Error> {
        self.deciders().into_iter().next().ok_or_else(|| {
            Error::new(ErrorKind::Unsupported, "Nothing is solved here: the server runs without that service.")
        })
    }

    /// The model that reads a text: the one named, else the first this caller may use; nothing where there is no model at all.
    fn reader(&self, named: Option<String>, caller: &Caller) -> Result<Option<String>, Error> {
        let services = self.services();
        let cards = services.generate.iter().flat_map(|service| service.models());
        let names: Vec<String> = named.map_or_else(|| cards.map(|card| card.id).collect(), |name| vec![name]);
        let allowed = names.iter().find(|name| caller.may_use(name).is_ok());
        match (allowed, names.first()) {
            (Some(name), _) => Ok(Some(name.clone())),
            (None, Some(name)) => caller.may_use(name).map(|()| None),
            (None, None) => Ok(None),
        }
    }
}

/// Answers with the steps as they come, or with the whole path.
pub(crate) async fn deliver(
    ask: &Ask,
    answer: Answer,
    record: Record,
    steps: StepStream,
    streamed: bool,
) -> Result<Response, Refusal> {
    let (cut, kept) = (Box::pin(ask.app.drain.cut()), ask.app.paths.keep(&ask.caller, answer));
    let mut work = Work { steps, cut, kept, record: Some(record), over: false };
    if !streamed {
        while work.next().await.is_some() {}
        let answer = work.kept.answer();
        return match &answer.end {
            Some(Err(error)) => Err(error.clone().into()),
            _ => Ok(Json(answer.body()).into_response()),
        };
    }
    // The status is not sent before the first event: a failure right at the start gets its own.
    let first = work.next().await;
    if let Some(Err(error)) = work.kept.answer().end {
        return Err(error.into());
    }
    let rest = stream::unfold(work, |mut work| async move { work.next().await.map(|frame| (frame, work)) });
    Ok(sse(&ask.app, stream::iter(first).chain(rest)))
}

/// Work that somebody waits for.
struct Work {
    steps: StepStream,
    cut: Pin<Box<dyn Future<Output = Error> + Send>>,
    kept: Kept,
    record: Option<Record>,
    over: bool,
}

impl Work {
    /// The next event, kept and then shown.
    async fn next(&mut self) -> Option<Shown> {
        if self.over {
            return None;
        }
        let item = match future::select(self.steps.next(), &mut self.cut).await {
            future::Either::Left((Some(item), _)) => item,
            future::Either::Left((None, _)) => Err(Error::internal("The service ended its answer early; try again.")),
            future::Either::Right((error, _)) => Err(error),
        };
        self.over = matches!(item, Ok(StepEvent::Done(_)) | Err(_));
        if let Err(error) = &item {
            tracing::warn!(%error, "a path of reasoning ends in an error");
        }
        let shown = self.kept.push(item);
        match self.record.take_if(|_| self.over) {
            // The end is sent behind its record.
            Some(record) => close(record, &self.kept.answer()).await.err().as_ref().map(Shown::failure).or(shown),
            None => shown,
        }
    }
}

/// Closes the record of a path with its outcome.
async fn close(record: Record, answer: &Answer) -> Result<(), Error> {
    match &answer.end {
        Some(Err(error)) => {
            record.fail(error.clone()).await;
            Ok(())
        }
        Some(Ok(conclusion)) => {
            let usage = match conclusion {
                Conclusion::Decision(decision) => decision.usage,
                Conclusion::Solution(solution) => solution.usage,
            };
            record.deliver(answer.record(), answer.steps.clone(), usage).await
        }
        None => Ok(()),
    }
}

/// An event as it is sent: its name and its data.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Shown {
    name: &'static str,
    data: Value,
}

impl Shown {
    fn head(answer: &Answer) -> Option<Self> {
        answer.version.as_ref().map(|_| Self { name: "started", data: json!(answer.head()) })
    }

    fn end(answer: &Answer) -> Option<Self> {
        Some(match answer.end.as_ref()? {
            Ok(_) => Self { name: answer.name(), data: json!(answer.body()) },
            Err(error) => Self { name: "error", data: json!(ErrorBody::from(error)) },
        })
    }

    /// The end could not be recorded.
    fn failure(error: &Error) -> Self {
        Self { name: "error", data: json!(ErrorBody::from(error)) }
    }

    fn step(step: &Step) -> Self {
        Self { name: "step", data: json!(step) }
    }

    /// The events of a path from the `from`-th on: its head, its steps, its end.
    fn of(answer: &Answer, from: usize) -> Vec<Self> {
        let steps = answer.steps.iter().map(Self::step);
        Self::head(answer).into_iter().chain(steps).chain(Self::end(answer)).skip(from).collect()
    }

    /// How many there are.
    fn count(answer: &Answer) -> usize {
        usize::from(answer.version.is_some()) + answer.steps.len() + usize::from(answer.end.is_some())
    }

    /// The last of them.
    fn last(answer: &Answer) -> Option<Self> {
        Self::end(answer).or_else(|| answer.steps.last().map(Self::step)).or_else(|| Self::head(answer))
    }

    fn frame(self) -> Frame {
        // Strings and numbers only: this cannot fail, and a comment is the harmless form of "cannot".
        let frame = Frame::default().event(self.name);
        frame.json_data(self.data).unwrap_or_else(|error| Frame::default().comment(error.to_string()))
    }
}

fn sse(app: &App, events: impl Stream<Item = Shown> + Send + 'static) -> Response {
    let comments = KeepAlive::new().interval(app.gateway.config.keep_alive).text("keep-alive");
    Sse::new(events.map(|shown| Ok::<_, Infallible>(shown.frame()))).keep_alive(comments).into_response()
}

impl App {
    /// The path of this name, if the caller may see it. Whose content was erased from the ledger is not shown from memory either.
    async fn path(&self, caller: &Caller, id: &str) -> Result<Found, Error> {
        let found = self.paths.find(caller, id)?;
        let Some(ledger) = &self.gateway.ledger else { return Ok(found) };
        let record = ledger.record(&Scope::All, id).await.map_err(Error::from)?;
        if record.is_some_and(|record| record.content == Content::Erased) {
            self.paths.forget(id);
            return Err(no_such_path(id));
        }
        Ok(found)
    }
}

/// `GET /v1/reasoning/{id}`.
async fn replay(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Arc<Caller>>,
    Path(id): Path<String>,
) -> Result<Json<PathBody>, Refusal> {
    Ok(Json(app.path(&caller, &id).await?.answer().body()))
}

/// `GET /v1/reasoning/{id}/events`: from the beginning, and on as long as it grows.
async fn follow(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Arc<Caller>>,
    Path(id): Path<String>,
) -> Result<Response, Refusal> {
    let path = app.path(&caller, &id).await?;
    let cut = Box::pin(app.drain.cut());
    let batches = stream::unfold((path, cut, 0, false), |(mut path, mut cut, seen, over)| async move {
        if over {
            return None;
        }
        let (events, over) = {
            let grown = std::pin::pin!(path.grown(seen));
            match future::select(grown, &mut cut).await {
                future::Either::Left((grown, _)) => grown,
                future::Either::Right(_) => (Vec::new(), true),
            }
        };
        let seen = seen + events.len();
        Some((stream::iter(events), (path, cut, seen, over)))
    });
    Ok(sse(&app, batches.flatten()))
}
