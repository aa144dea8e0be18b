//! A worker: another Tessera that runs models or decisions for this one, over HTTP/2.
//!
//! Both ends of a worker are the protocol's traits, so what goes over the wire are their plain values: a request is one CBOR value, an
//! answer is a row of frames (`frame`). CBOR and not JSON, because it keeps every number as it is: an impossible token's score is minus
//! infinity, and JSON has no word for it. One connection carries all requests to a worker; dropping a stream resets it, which is how
//! the worker learns that it may stop.
//!
//! Both ends must know one secret, and prove it to each other (`secret` says what that protects, and what not). A worker is asked for
//! its state all the time ([`Remote::watch`]): whether it is ready, how long its queue is, what it offers. Until it has answered
//! once it offers nothing, and while it does not answer it is not ready.

mod frame;
mod secret;

use std::{fmt, time::Duration};

use bytes::Bytes;
use futures_util::{FutureExt, Stream, StreamExt, future::BoxFuture, stream};
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, StatusCode, Uri, body::Incoming};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use parking_lot::Mutex;
use protocol::{
    Decide, DecideRequest, DecisionCard, Embed, EmbedRequest, Embeddings, Error, ErrorKind, EventStream, Generate,
    GenerateRequest, Load, ModelCard, SolveRequest, StepStream,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::time::{sleep, timeout};

pub use frame::{Frame, decode, encode};
pub use secret::{Gatekeeper, REQUEST, RESPONSE, Secret, WORKER};

use crate::first;
use frame::Decoder;

/// Where a worker's routes begin.
pub const ROOT: &str = "/internal/v1";
/// How long connecting may take: workers are near.
const CONNECT: Duration = Duration::from_secs(2);
/// How long a worker may take to say how it is.
const PROBE: Duration = Duration::from_secs(2);
/// A connection on which nothing comes back for so long is dead, and so are the requests on it.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// What a worker offers.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Offered {
    /// Text models.
    pub generate: Vec<ModelCard>,
    /// Embedding models.
    pub embed: Vec<ModelCard>,
    /// Decisions.
    pub decisions: Vec<DecisionCard>,
}

/// How a worker is.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Standing {
    /// Its queue, if it knows.
    pub load: Option<Load>,
    /// Why it cannot answer, if it cannot.
    pub trouble: Option<Error>,
}

/// A worker.
pub struct Remote {
    url: String,
    base: Uri,
    secret: Secret,
    client: Client<HttpConnector, Full<Bytes>>,
    /// The worker's name, as it told it last.
    worker: Mutex<String>,
    known: Mutex<Known>,
}

/// What the worker said last.
struct Known {
    offered: Offered,
    standing: Standing,
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Remote {
    /// A worker at `url`, such as `http://10.0.0.2:9090`. Nothing is asked of it yet.
    pub fn new(url: &str, secret: Secret) -> Result<Self, Error> {
        let wrong = || {
            let message = format!("`{url}` is not the address of a worker: write http://HOST:PORT.");
            Error::new(ErrorKind::Invalid, message).with_param("url")
        };
        let base: Uri = url.trim_end_matches('/').parse().map_err(|_| wrong())?;
        if base.scheme_str() != Some("http") || base.authority().is_none() || base.path() != "/" {
            return Err(wrong());
        }
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT));
        let client = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .http2_only(true)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .http2_keep_alive_timeout(KEEP_ALIVE)
            .http2_keep_alive_while_idle(true)
            .build(connector);
        let trouble = Some(Error::new(ErrorKind::Upstream, format!("The worker at {url} has not answered yet.")));
        let known = Known { offered: Offered::default(), standing: Standing { load: None, trouble } };
        let (worker, known) = (Mutex::new(secret::UNNAMED.to_owned()), Mutex::new(known));
        Ok(Self { url: url.to_owned(), base, secret, client, worker, known })
    }

    /// Asks the worker how it is, now and again and again. Never ends; whoever composes keeps it running.
    pub async fn watch(&self, every: Duration) {
        loop {
            self.probe().await;
            sleep(every).await;
        }
    }

    /// Asks the worker how it is, and what it offers if that is not known.
    pub async fn probe(&self) {
        let unknown = self.known.lock().standing.trouble.is_some();
        let asked = timeout(PROBE, async {
            let offered: Option<Offered> = if unknown { Some(self.exchange("models", &()).await?) } else { None };
            Ok((offered, self.exchange::<_, Standing>("load", &()).await?))
        });
        let asked = asked.await.unwrap_or_else(|_| Err(self.trouble("did not answer in time")));
        let mut known = self.known.lock();
        match asked {
            Ok((offered, standing)) => {
                if unknown && standing.trouble.is_none() {
                    tracing::info!(url = %self.url, "a worker is ready");
                }
                known.offered = offered.unwrap_or_else(|| std::mem::take(&mut known.offered));
                known.standing = standing;
            }
            Err(error) => {
                if !unknown {
                    tracing::warn!(url = %self.url, %error, "a worker does not answer");
                }
                known.standing = Standing { load: None, trouble: Some(error) };
            }
        }
    }

    fn trouble(&self, what: &str) -> Error {
        Error::new(ErrorKind::Upstream, format!("The worker at {} {what}.", self.url))
    }

    /// Whether it can answer. Whatever broke there, here it is a service elsewhere that fails: another one may be asked, and this
    /// process is whole.
    fn standing(&self) -> Result<(), Error> {
        match self.known.lock().standing.trouble.clone() {
            None => Ok(()),
            Some(trouble) if first::elsewhere(&trouble) => Err(trouble),
            Some(mut trouble) => {
                trouble.kind = ErrorKind::Upstream;
                Err(trouble)
            }
        }
    }

    /// One request, one answer.
    async fn exchange<Q: Serialize, A: DeserializeOwned>(&self, place: &str, request: &Q) -> Result<A, Error> {
        let mut reading = self.ask::<Q, A>(place, request).await?;
        match reading.next().await? {
            Some(Frame::Item(answer)) => Ok(answer),
            Some(Frame::Failed(error)) => Err(error),
            Some(Frame::Admitted) | None => Err(first::cut()),
        }
    }

    /// One request, a row of events. Admitted or not, is known when this returns.
    async fn events<Q: Serialize, T: DeserializeOwned + Send + 'static>(
        &self,
        place: &str,
        request: &Q,
    ) -> Result<impl Stream<Item = Result<T, Error>> + Send + use<Q, T>, Error> {
        let mut reading = self.ask::<Q, T>(place, request).await?;
        match reading.next().await? {
            Some(Frame::Admitted) => {}
            Some(Frame::Failed(error)) => return Err(error),
            Some(Frame::Item(_)) | None => return Err(first::cut()),
        }
        Ok(stream::unfold(Some(reading), async |reading| {
            let mut reading = reading?;
            match reading.next().await {
                Ok(Some(Frame::Item(item))) => Some((Ok(item), Some(reading))),
                Ok(Some(Frame::Failed(error))) | Err(error) => Some((Err(error), None)),
                Ok(Some(Frame::Admitted) | None) => None,
            }
        }))
    }

    async fn ask<Q: Serialize, T>(&self, place: &str, request: &Q) -> Result<Reading<T>, Error> {
        let path = format!("{ROOT}/{place}");
        let body = frame::plain(request)?;
        let worker = self.worker.lock().clone();
        let (mut response, mut signed) = self.send(&worker, &path, body.clone()).await?;
        // It was started anew, or has not been asked before: what it told is its name now.
        if let Some(name) = renamed(&response, &worker) {
            (response, signed) = self.send(&name, &path, body).await?;
            *self.worker.lock() = name;
        }
        self.check(&response, &signed)?;
        Ok(Reading { body: response.into_body(), frames: Decoder::default(), of: std::marker::PhantomData })
    }

    async fn send(&self, worker: &str, path: &str, body: Bytes) -> Result<(Response<Incoming>, secret::Signed), Error> {
        let signed = self.secret.sign(worker, path, &body);
        let request = Request::post(format!("{}{path}", self.base.to_string().trim_end_matches('/')))
            .header(REQUEST, signed.header())
            .body(Full::new(body))
            .map_err(Error::internal)?;
        let response = self.client.request(request).await.map_err(|e| self.broken(&e))?;
        Ok((response, signed))
    }

    /// That it is the worker who answers: only it can know the proof for this request.
    fn check(&self, response: &Response<Incoming>, signed: &secret::Signed) -> Result<(), Error> {
        if response.status() == StatusCode::UNAUTHORIZED {
            return Err(self.trouble("does not accept our secret, or its clock is more than a minute off"));
        }
        let proof = response.headers().get(RESPONSE).and_then(|proof| proof.to_str().ok()).unwrap_or_default();
        if !self.secret.proves(signed, proof) {
            return Err(self.trouble(&format!("answers {} without knowing our secret", response.status())));
        }
        Ok(())
    }

    /// The connection failed. What is asked next need not try in vain: the next probe knows more.
    fn broken(&self, error: &dyn std::error::Error) -> Error {
        let mut why = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            why = format!("{why}: {error}");
            cause = error.source();
        }
        let error = self.trouble(&format!("cannot be reached ({why})"));
        self.known.lock().standing.trouble = Some(error.clone());
        error
    }
}

/// The name of a worker that refuses what was meant for `worker`.
fn renamed(response: &Response<Incoming>, worker: &str) -> Option<String> {
    let name = response.headers().get(WORKER)?.to_str().ok()?;
    (response.status() == StatusCode::UNAUTHORIZED && name != worker).then(|| name.to_owned())
}

/// The frames of a response.
struct Reading<T> {
    body: Incoming,
    frames: Decoder,
    of: std::marker::PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Reading<T> {
    async fn next(&mut self) -> Result<Option<Frame<T>>, Error> {
        loop {
            if let Some(frame) = self.frames.next_frame()? {
                return Ok(Some(frame));
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.frames.push(&data);
                    }
                }
                Some(Err(error)) => {
                    let message = format!("The connection to the worker broke: {error}.");
                    return Err(Error::new(ErrorKind::Upstream, message));
                }
            }
        }
    }
}

impl Generate for Remote {
    fn models(&self) -> Vec<ModelCard> {
        self.known.lock().offered.generate.clone()
    }

    fn ready(&self) -> Result<(), Error> {
        self.standing()
    }

    fn load(&self) -> Option<Load> {
        self.known.lock().standing.load
    }

    fn generate(&self, request: GenerateRequest) -> BoxFuture<'_, Result<EventStream, Error>> {
        async move { Ok(self.events("generate", &request).await?.boxed() as EventStream) }.boxed()
    }

    fn count(&self, request: GenerateRequest) -> BoxFuture<'_, Result<usize, Error>> {
        async move { self.exchange("count", &request).await }.boxed()
    }
}

impl Embed for Remote {
    fn models(&self) -> Vec<ModelCard> {
        self.known.lock().offered.embed.clone()
    }

    fn ready(&self) -> Result<(), Error> {
        self.standing()
    }

    fn embed(&self, request: EmbedRequest) -> BoxFuture<'_, Result<Embeddings, Error>> {
        async move { self.exchange("embed", &request).await }.boxed()
    }
}

impl Decide for Remote {
    fn decisions(&self) -> Vec<DecisionCard> {
        self.known.lock().offered.decisions.clone()
    }

    fn ready(&self) -> Result<(), Error> {
        self.standing()
    }

    fn decide(&self, request: DecideRequest) -> BoxFuture<'_, Result<StepStream, Error>> {
        async move { Ok(self.events("decide", &request).await?.boxed() as StepStream) }.boxed()
    }

    fn solve(&self, request: SolveRequest) -> BoxFuture<'_, Result<StepStream, Error>> {
        async move { Ok(self.events("solve", &request).await?.boxed() as StepStream) }.boxed()
    }
}
