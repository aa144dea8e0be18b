//! The worker's side of `services::remote`: the protocol's traits under `/internal/v1`, for gateways that know the secret.
//!
//! Mounted only when a secret is configured. Every request proves that it knows the secret, and every answer proves it back; a
//! request that does not gets a 401 and this worker's name, and nothing of its body was read. Answers are frames, and their status says only that
//! the proof was good: what failed stands in a frame.
//!
//! Work from here counts for the drain like any other. A worker that stops cuts its streams with an error that says so, and the
//! gateway takes them up elsewhere.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::{self, Body},
    extract::{FromRequest, Request, State},
    http::{HeaderValue, StatusCode},
    response::{IntoResponse, Response},
    routing::post,
};
use bytes::Bytes;
use futures_util::{
    Stream, StreamExt,
    future::{Either, select},
    stream,
};
use protocol::{DecideRequest, EmbedRequest, Error, ErrorKind, Generate, GenerateRequest, Load, SolveRequest};
use serde::Serialize;
use services::remote::{Frame, Gatekeeper, Offered, REQUEST, RESPONSE, ROOT, Standing, WORKER, decode, encode};
use tokio::time::timeout;

use crate::app::App;

/// The longest request: a conversation with its tools, or 2048 texts to embed.
const LONGEST: usize = 64 << 20;
/// How long it may take to come.
const PATIENCE: Duration = Duration::from_secs(60);

/// What asks for work, and what only looks.
pub(crate) fn routes() -> (Router<Arc<App>>, Router<Arc<App>>) {
    let at = |place: &str| format!("{ROOT}/{place}");
    let work = Router::new()
        .route(&at("generate"), post(generate))
        .route(&at("count"), post(count))
        .route(&at("embed"), post(embed))
        .route(&at("decide"), post(decide))
        .route(&at("solve"), post(solve));
    let look = Router::new().route(&at("models"), post(models)).route(&at("load"), post(load));
    (work, look)
}

/// A request whose sender knows the secret, with the proof for the answer.
struct Known {
    body: Bytes,
    proof: String,
}

impl FromRequest<Arc<App>> for Known {
    type Rejection = Response;

    /// The header first: nothing is read of somebody who does not know the secret.
    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Response> {
        let gatekeeper = app.gateway.worker.as_ref().ok_or_else(|| StatusCode::NOT_FOUND.into_response())?;
        let (parts, body) = request.into_parts();
        let (path, header) = (parts.uri.path(), parts.headers.get(REQUEST).and_then(|header| header.to_str().ok()));
        let stranger = |error| turned_away(gatekeeper, path, &error);
        let admitted = gatekeeper.admit(path, header.unwrap_or_default()).map_err(stranger)?;
        let body = timeout(PATIENCE, body::to_bytes(body, LONGEST)).await;
        let body = body.map_err(|_| StatusCode::REQUEST_TIMEOUT.into_response())?;
        let body = body.map_err(|_| StatusCode::PAYLOAD_TOO_LARGE.into_response())?;
        let proof = admitted.with(&body).map_err(stranger)?;
        Ok(Self { body, proof })
    }
}

/// A gateway that knows the secret but not yet this worker's name takes it from here.
fn turned_away(gatekeeper: &Gatekeeper, path: &str, error: &Error) -> Response {
    tracing::debug!(%error, path, "a request that is not for this worker");
    (StatusCode::UNAUTHORIZED, [(WORKER, gatekeeper.name().to_owned())]).into_response()
}

impl Known {
    fn respond(self, body: Body) -> Response {
        let mut response = body.into_response();
        if let Ok(proof) = HeaderValue::from_str(&self.proof) {
            response.headers_mut().insert(RESPONSE, proof);
        }
        response
    }

    /// The whole answer, in one frame.
    fn whole<T: Serialize>(self, answer: Result<T, Error>) -> Response {
        let frame = frame(&answer.map_or_else(Frame::Failed, Frame::Item));
        self.respond(Body::from(frame))
    }

    /// Whether it is admitted, then its events; the last frame of a broken stream says why.
    fn events<T: Serialize + Send + 'static>(
        self,
        app: &App,
        events: Result<impl Stream<Item = Result<T, Error>> + Send + 'static, Error>,
    ) -> Response {
        let events = match events {
            Ok(events) => events,
            Err(error) => return self.whole::<T>(Err(error)),
        };
        let cut = Box::pin(app.drain.cut());
        let frames = stream::unfold(Some((events.boxed(), cut)), async |state| {
            let (mut events, mut cut) = state?;
            let item = match select(events.next(), &mut cut).await {
                Either::Left((item, _)) => item?,
                Either::Right((error, _)) => Err(error),
            };
            let state = item.is_ok().then_some((events, cut));
            Some((frame(&item.map_or_else(Frame::Failed, Frame::Item)), state))
        });
        let admitted = stream::iter([frame(&Frame::<T>::Admitted)]);
        self.respond(Body::from_stream(admitted.chain(frames).map(Ok::<_, std::convert::Infallible>)))
    }
}

/// Plain values have a form in CBOR, so this fails for what is too large only, and then says so.
fn frame<T: Serialize>(frame: &Frame<T>) -> Bytes {
    encode(frame).or_else(|error| encode(&Frame::<()>::Failed(error))).unwrap_or_default()
}

async fn generate(State(app): State<Arc<App>>, known: Known) -> Response {
    let events = async {
        let request: GenerateRequest = decode(&known.body)?;
        text(&app, &request.model)?.generate(request).await
    };
    let events = events.await;
    known.events(&app, events)
}

async fn count(State(app): State<Arc<App>>, known: Known) -> Response {
    let counted = async {
        let request: GenerateRequest = decode(&known.body)?;
        text(&app, &request.model)?.count(request).await
    };
    let counted = counted.await;
    known.whole(counted)
}

async fn embed(State(app): State<Arc<App>>, known: Known) -> Response {
    let embeddings = async {
        let request: EmbedRequest = decode(&known.body)?;
        let offers = |name: &str| name == request.model || request.model.is_empty();
        let services = app.services();
        let service = services.embed.iter().find(|service| service.models().iter().any(|card| offers(&card.id)));
        service.ok_or_else(|| missing(&request.model))?.embed(request).await
    };
    let embeddings = embeddings.await;
    known.whole(embeddings)
}

async fn decide(State(app): State<Arc<App>>, known: Known) -> Response {
    let steps = async {
        let request: DecideRequest = decode(&known.body)?;
        app.decides(&request.decision)?.decide(request).await
    };
    let steps = steps.await;
    known.events(&app, steps)
}

async fn solve(State(app): State<Arc<App>>, known: Known) -> Response {
    let steps = async {
        let request: SolveRequest = decode(&known.body)?;
        app.solves()?.solve(request).await
    };
    let steps = steps.await;
    known.events(&app, steps)
}

async fn models(State(app): State<Arc<App>>, known: Known) -> Response {
    let services = app.services();
    let generate = services.generate.iter().flat_map(|service| service.models()).collect();
    let embed = services.embed.iter().flat_map(|service| service.models()).collect();
    let decisions = services.decide.iter().flat_map(|service| service.decisions()).collect();
    known.whole(Ok(Offered { generate, embed, decisions }))
}

/// The queues of all services together; a worker that stops says so before its connections close.
async fn load(State(app): State<Arc<App>>, known: Known) -> Response {
    let services = app.services();
    let loads = services.generate.iter().filter_map(|service| service.load());
    let load = loads.reduce(|a, b| Load { running: a.running + b.running, waiting: a.waiting + b.waiting });
    let stopping = || Error::new(ErrorKind::ShuttingDown, "The worker is stopping.");
    let trouble = if app.drain.is_draining() { Some(stopping()) } else { app.health().obstacle().cloned() };
    known.whole(Ok(Standing { load, trouble }))
}

fn text(app: &App, model: &str) -> Result<Arc<dyn Generate>, Error> {
    app.services().generate.iter().find(|service| service.card(model).is_some()).cloned().ok_or_else(|| missing(model))
}

/// The gateway asks for what this worker does not offer any more: another one may.
fn missing(model: &str) -> Error {
    Error::new(ErrorKind::Upstream, format!("The worker does not offer the model `{model}`.")).with_param("model")
}
