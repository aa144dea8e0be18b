//! Speak HTTP: decode, call, stream, count.
//!
//! A [`Gateway`] holds services (`Arc<dyn Generate>`, `Arc<dyn Embed>`) and offers them in the shape of OpenAI's API. It
//! knows no engine, so everything here is tested with a fake service and no weights. The composition root does three
//! things, in this order:
//!
//! ```no_run
//! # async fn run(services: gateway::Services) -> Result<(), gateway::Error> {
//! gateway::install_metrics(); // before any service makes its metric handles
//! let listener = gateway::bind("127.0.0.1:8080").await?;
//! let shutdown = async { tokio::signal::ctrl_c().await.unwrap_or(()) };
//! gateway::serve(listener, gateway::Gateway::new(services), shutdown).await;
//! # Ok(())
//! # }
//! ```
//!
//! A request's walk: `id` gives it a name, `drain` counts it in (or answers 503 while stopping), `body` reads it within
//! the limit, `protocol::openai` checks every field and makes plain requests of it, `app` picks the service by model
//! name, `record` takes what limits and budgets allow and writes the record that precedes the work, `stream` merges the events of all prompts, `sse` or a collector writes them out, and `refusal` is the one place
//! that knows which error has which HTTP status.
//!
//! Invariant: no engine, model or kernel is known here; no field of a request is ignored in silence; an
//! address that other machines reach is bound only with keys and TLS; the end of an answer is sent behind its record.

mod api;
mod app;
mod ask;
mod audit;
mod auth;
mod body;
mod caller;
mod canary;
mod clock;
mod connections;
mod console;
mod current;
mod drain;
mod draw;
mod embed;
mod experiments;
mod feedback;
mod health;
mod id;
mod intake;
mod internal;
mod journey;
pub mod laps;
mod listen;
mod measure;
mod messages;
mod moderation;
mod oidc;
mod rate;
mod reasoning;
mod record;
mod refusal;
mod rollouts;
mod route;
pub mod settings;
mod sse;
mod stream;
mod text;
mod tls;
mod traces;
mod turned;

use std::{
    future::{Future, pending},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use futures_util::future::BoxFuture;
use ledger::Ledger;
use services::remote::Gatekeeper;
use tokio::sync::oneshot;

pub use api::openapi;
pub use caller::{Caller, DEFAULT_TENANT, Role};
pub use current::{Current, Peer, PeerKind, Services};
pub use listen::{Error, Listener, Protection, bind, bind_protected};
pub use measure::install_metrics;

use crate::{app::App, settings::Live, tls::Certificate, turned::Turned};

/// The services on offer and the limits they are offered under.
#[derive(Debug, Clone)]
pub struct Gateway {
    /// The services on offer; they may be replaced while requests run.
    pub services: Arc<Current>,
    /// Who may ask this process as a worker; `None`: nobody.
    pub worker: Option<Arc<Gatekeeper>>,
    /// It answers clients. A process that is only a worker answers gateways, probes and Prometheus.
    pub public: bool,
    /// Limits.
    pub config: Config,
    /// Settings in force, for everything that may change while it serves.
    pub settings: Arc<Live>,
    /// Where records, usage and keys are kept; without it nothing is recorded and no key exists.
    pub ledger: Option<Ledger>,
}

impl Gateway {
    /// These services under the default limits.
    pub fn new(services: Services) -> Self {
        Self {
            services: Current::new(services),
            worker: None,
            public: true,
            config: Config::default(),
            settings: Arc::default(),
            ledger: None,
        }
    }
}

/// Limits. Every field has a default, see [`Config::default`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The longest request body, in bytes; longer ones get a 413.
    pub max_body_bytes: usize,
    /// How long requests in flight may go on after the shutdown signal before they are cut.
    pub drain_limit: Duration,
    /// Silence on an SSE stream after which a comment is sent, so that proxies keep the connection.
    pub keep_alive: Duration,
    /// Give up on a request after this long, measured from its admission; `None` never does.
    pub deadline: Option<Duration>,
    /// Prompts of one `/v1/completions` request that are with the service at the same time; the others wait their turn.
    pub prompts_at_once: usize,
    /// Web origins that may call from a browser, besides those of this machine (`http://localhost:*` and the like).
    pub origins: Vec<String>,
    /// Where learning loops keep their [laps], a folder for each, for the console to show.
    pub loops: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_body_bytes: 8 << 20,
            drain_limit: Duration::from_secs(30),
            keep_alive: Duration::from_secs(10),
            deadline: None,
            prompts_at_once: 32,
            origins: Vec::new(),
            loops: None,
        }
    }
}

/// How often metrics are read for the console's charts, which folds them too, and canaries are judged.
const TICK: Duration = Duration::from_secs(1);

/// The shortest and the longest time between looks for contents that are past their time.
const OFTEN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3600));

/// How long connections may take to close once their requests are answered or cut.
const CLOSING: Duration = Duration::from_secs(2);

/// Serves until `shutdown` completes and the drain is over: `/healthz/ready` and new requests answer 503, streams in
/// flight finish up to [`Config::drain_limit`], then the server ends.
pub async fn serve(listener: Listener, gateway: Gateway, shutdown: impl Future<Output = ()> + Send) {
    boxed(listener, gateway, Box::pin(shutdown)).await;
}

/// An `async fn` is compiled where it is polled; a boxed one here, as hard as this crate is optimised, and not as the program is.
fn boxed(listener: Listener, gateway: Gateway, shutdown: BoxFuture<'_, ()>) -> BoxFuture<'_, ()> {
    Box::pin(serve_until(listener, gateway, shutdown))
}

async fn serve_until(listener: Listener, gateway: Gateway, shutdown: BoxFuture<'_, ()>) {
    install_metrics();
    let certificate = listener.certificate.clone();
    let app = App::new(gateway, certificate.is_some());
    let (close, closed) = oneshot::channel();
    // Before the first request: who had a new version has it now.
    canary::advance(&app).await;
    let server = Box::pin(connections::run(listener, route::router(app.clone()), closed));
    let stop = Box::pin(stop(&app, shutdown, close));
    tokio::select! {
        () = server => {}
        () = stop => {}
        () = Box::pin(clockwork(&app, certificate.as_deref())) => {}
        () = export(&app) => {}
        () = Box::pin(retention(&app)) => {}
        () = Box::pin(canaries(&app)) => {}
    }
}

/// Drains, then lets the listener go and gives connections a moment to close. Ends only if they do not.
async fn stop(app: &Arc<App>, shutdown: BoxFuture<'_, ()>, close: oneshot::Sender<()>) {
    shutdown.await;
    app.drain.run(app.gateway.config.drain_limit).await;
    Turned::sum_up(app, true).await;
    if close.send(()).is_err() {
        // The server ended by itself; its result counts.
        pending::<()>().await;
    }
    tokio::time::sleep(CLOSING).await;
    tracing::warn!("some connections did not close in time");
}

/// Never ends.
async fn clockwork(app: &Arc<App>, certificate: Option<&Certificate>) {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        tick.tick().await;
        app.console.tick();
        Turned::sum_up(app, false).await;
        certificate.into_iter().for_each(Certificate::refresh);
    }
}

/// Never ends.
async fn canaries(app: &App) {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        canary::advance(app).await;
    }
}

/// Deletes contents that are older than the settings keep them. Never ends.
async fn retention(app: &App) {
    let kept = app.gateway.settings.get().settings.ledger.retention.0;
    let Some(ledger) = app.gateway.ledger.as_ref().filter(|_| !kept.is_zero()) else { return pending().await };
    // Whatever is kept for a day or longer is gone within an hour after its time.
    let mut tick = tokio::time::interval((kept / 24).clamp(OFTEN.0, OFTEN.1));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        match ledger.expire(kept).await {
            Ok(0) => {}
            Ok(contents) => tracing::info!(contents, ?kept, "old contents were deleted"),
            Err(error) => tracing::warn!(%error, "old contents could not be deleted"),
        }
    }
}

/// Never ends.
async fn export(app: &App) {
    let export = app.export.lock().take();
    if let Some(export) = export {
        export.run().await;
    }
    pending().await
}

/// The routes over these services, for callers that bring their own server (tests do).
pub fn router(gateway: Gateway) -> axum::Router {
    install_metrics();
    route::router(App::new(gateway, false))
}
