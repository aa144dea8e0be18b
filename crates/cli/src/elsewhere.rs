//! Services that are not in this process: upstreams and workers as the settings and the command line name them.
//!
//! An upstream is asked for nothing it cannot do, and left alone while it keeps failing. Workers that offer the same model share its
//! requests; a stream that breaks with one goes on with another. When the settings change, what they still name is kept as it is,
//! with its connections and what is known of it.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context;
use clap::{Args, ValueEnum};
use futures_util::future;
use gateway::{
    Peer, PeerKind, Protection, Services,
    settings::{self, Ability, Settings},
};
use protocol::{Capabilities, Decide, Embed, Generate, ModelCard};
use secrecy::SecretString;
use services::{
    Balanced, Breaker, Capable, Limits, Migrating, Retry, Rotating, Trip,
    remote::{Gatekeeper, Remote, Secret},
    upstream::{Api, Config, Offer, Upstream},
};
use tokio::task::JoinSet;

/// How often a worker is asked how it is.
const PROBE: Duration = Duration::from_secs(1);
/// Times a stream is taken up again.
const MIGRATIONS: usize = 4;

/// Which part of Tessera a process is, and where the others are.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Workers")]
pub(crate) struct WorkerArgs {
    /// Be only this part of Tessera: `gateway` loads no model and asks workers and upstreams, `text` runs models and `reason` decides
    /// for gateways, and both answer nobody else [default: everything in one process]
    #[arg(long, value_name = "PART", requires_ifs([("text", "worker_secret_file"), ("reason", "worker_secret_file")]))]
    only: Option<Only>,
    /// Workers to ask, such as http://10.0.0.2:9090; separate several by commas
    #[arg(long, value_name = "URL", value_delimiter = ',', requires = "worker_secret_file")]
    workers: Vec<String>,
    /// File with the secret that gateway and workers know: at least 32 characters, made by `openssl rand -hex 32`
    #[arg(long, value_name = "FILE")]
    worker_secret_file: Option<PathBuf>,
}

/// A part of Tessera.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Only {
    /// The gateway.
    Gateway,
    /// Models of text and vectors.
    Text,
    /// Decisions and solutions, over the models of workers and upstreams.
    Reason,
}

impl WorkerArgs {
    /// The secret in the file, if one is named.
    fn secret(&self) -> anyhow::Result<Option<Secret>> {
        let Some(path) = &self.worker_secret_file else { return Ok(None) };
        let shown = path.display();
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read the workers' secret in {shown}"))?;
        Ok(Some(Secret::new(&text).with_context(|| format!("the workers' secret in {shown} is of no use"))?))
    }

    /// A process that answers gateways only is protected by their secret; it needs no keys, and no TLS that it has not got.
    pub(crate) fn protection(&self, of_clients: Protection) -> Protection {
        if self.answers_clients() { of_clients } else { Protection { keys: true, plain_remote: true, ..of_clients } }
    }

    /// Clients ask this process, and not only gateways.
    pub(crate) fn answers_clients(&self) -> bool {
        matches!(self.only, None | Some(Only::Gateway))
    }

    /// Models run in this process.
    pub(crate) fn runs_models(&self) -> bool {
        matches!(self.only, None | Some(Only::Text))
    }

    /// Decisions are made in this process.
    pub(crate) fn reasons(&self) -> bool {
        matches!(self.only, None | Some(Only::Reason))
    }

    /// Who may ask this process as a worker: whoever knows the secret, unless this process is the one that asks.
    pub(crate) fn door(&self) -> anyhow::Result<Option<Arc<Gatekeeper>>> {
        let asks = self.answers_clients() && (self.only.is_some() || !self.workers.is_empty());
        Ok(self.secret()?.filter(|_| !asks).map(|secret| Arc::new(Gatekeeper::new(secret))))
    }
}

/// Services elsewhere.
#[derive(Debug, Default)]
pub(crate) struct Elsewhere {
    upstreams: Vec<(settings::Upstream, Services)>,
    workers: Vec<Arc<Worker>>,
}

/// A worker that is asked all the time how it is.
#[derive(Debug)]
struct Worker {
    url: String,
    secret: Secret,
    remote: Arc<Remote>,
    /// The asking; it ends with this.
    _watch: JoinSet<()>,
}

impl Elsewhere {
    /// What the settings and the command line name; whatever was `known` before is kept.
    pub(crate) fn open(settings: &Settings, args: &WorkerArgs, known: &Self) -> anyhow::Result<Self> {
        let upstream = |section: &settings::Upstream| {
            let same = known.upstreams.iter().find(|(before, _)| before == section).cloned();
            same.map_or_else(|| Ok((section.clone(), upstream(section)?)), Ok)
        };
        let worker = |(url, secret): (String, Secret)| {
            let same = known.workers.iter().find(|before| before.url == url && before.secret == secret).cloned();
            same.map_or_else(|| Ok(Arc::new(Worker::new(url, secret)?)), Ok)
        };
        Ok(Self {
            upstreams: settings.upstreams.iter().map(upstream).collect::<anyhow::Result<_>>()?,
            workers: workers(settings, args)?.into_iter().map(worker).collect::<anyhow::Result<_>>()?,
        })
    }

    /// Asks every worker once what it offers.
    pub(crate) async fn probe(&self) {
        future::join_all(self.workers.iter().map(|worker| worker.remote.probe())).await;
    }

    /// There are workers, and so models that come and go.
    pub(crate) fn has_workers(&self) -> bool {
        !self.workers.is_empty()
    }

    /// Puts these services behind those that are there.
    pub(crate) fn join(&self, services: &mut Services) {
        for (section, upstream) in &self.upstreams {
            services.peers.push(peer(section, upstream));
            services.generate.extend(upstream.generate.iter().cloned());
            services.embed.extend(upstream.embed.iter().cloned());
            services.draw.extend(upstream.draw.iter().cloned());
        }
        let remotes = || self.workers.iter().map(|worker| (worker.url.clone(), worker.remote.clone()));
        if !self.workers.is_empty() {
            let generate = remotes().map(|(url, remote)| (url, remote as Arc<dyn Generate>)).collect();
            let balanced = Arc::new(Balanced::new(generate, Limits::default()));
            services.generate.push(Arc::new(Migrating::new(balanced, MIGRATIONS)));
            let embed = remotes().map(|(url, remote)| (url, remote as Arc<dyn Embed>)).collect();
            services.embed.push(Arc::new(Rotating::new(embed)));
            services.decide.extend(remotes().map(|(_, remote)| remote as Arc<dyn Decide>));
            services.peers.extend(self.workers.iter().map(|worker| worker.peer()));
        }
    }
}

impl Worker {
    fn new(url: String, secret: Secret) -> anyhow::Result<Self> {
        let remote = Arc::new(Remote::new(&url, secret.clone())?);
        let (watched, mut watch) = (remote.clone(), JoinSet::new());
        watch.spawn(async move { watched.watch(PROBE).await });
        Ok(Self { url, secret, remote, _watch: watch })
    }

    fn peer(&self) -> Peer {
        let offers = Services {
            generate: vec![self.remote.clone()],
            embed: vec![self.remote.clone()],
            decide: vec![self.remote.clone()],
            ..Services::default()
        };
        Peer { name: self.url.clone(), url: self.url.clone(), kind: PeerKind::Worker, offers }
    }
}

fn peer(section: &settings::Upstream, offers: &Services) -> Peer {
    let kind = PeerKind::Upstream(section.api);
    Peer { name: section.name.clone(), url: section.url.clone(), kind, offers: offers.clone() }
}

fn upstream(section: &settings::Upstream) -> anyhow::Result<Services> {
    let server = Upstream::new(config(section)).with_context(|| format!("the upstream {}", section.name))?;
    let server = Arc::new(server);
    let json_mode = section.api == settings::Api::OpenAi;
    let trip = Trip { failures: section.breaker_failures as usize, pause: section.breaker_pause.0, ..Trip::default() };
    let mut services = Services::default();
    if !section.models.is_empty() {
        let breaker = Arc::new(Breaker::new(server.clone(), trip));
        services.generate.push(Arc::new(Capable::new(breaker, json_mode)));
    }
    if !section.embed_models.is_empty() {
        services.embed.push(server.clone());
    }
    if !section.image_models.is_empty() {
        services.draw.push(server);
    }
    Ok(services)
}

/// Every worker's address and secret.
fn workers(settings: &Settings, args: &WorkerArgs) -> anyhow::Result<Vec<(String, Secret)>> {
    let mut named = Vec::new();
    if let Some(secret) = args.secret()? {
        named.extend(args.workers.iter().map(|url| (url.clone(), secret.clone())));
    }
    for worker in &settings.workers {
        let secret = Secret::new(worker.secret.expose()).with_context(|| format!("the secret of {}", worker.url))?;
        named.push((worker.url.clone(), secret));
    }
    Ok(named)
}

fn config(section: &settings::Upstream) -> Config {
    let api = match section.api {
        settings::Api::OpenAi => Api::OpenAi,
        settings::Api::Anthropic => Api::Anthropic,
    };
    let card = |name: &String| ModelCard {
        chat: true,
        owned_by: section.name.clone(),
        capabilities: able(section).unwrap_or(api.usual()),
        ..ModelCard::new(name)
    };
    let offers = |models: &std::collections::BTreeMap<String, String>| {
        let offer = |(here, there): (&String, &String)| Offer { card: card(here), upstream: there.clone() };
        models.iter().map(offer).collect::<Vec<_>>()
    };
    Config {
        older_limit: section.older_limit,
        key: (!section.key.is_empty()).then(|| SecretString::from(section.key.expose())),
        models: offers(&section.models),
        embed_models: offers(&section.embed_models),
        image_models: offers(&section.image_models),
        connect: section.connect_timeout.0,
        first_byte: section.first_byte_timeout.unless_zero(),
        whole: section.timeout.unless_zero(),
        retry: Retry { times: section.retries, ..Retry::default() },
        ..Config::new(&section.name, &section.url, api)
    }
}

/// What the settings say its models can do, if they do.
fn able(section: &settings::Upstream) -> Option<Capabilities> {
    let can = |ability| section.capabilities.contains(&ability);
    (!section.capabilities.is_empty()).then(|| Capabilities {
        schema: can(Ability::Schema),
        grammar: can(Ability::Grammar),
        logprobs: can(Ability::Logprobs),
        scoring: can(Ability::Scoring),
        seed: can(Ability::Seed),
        tools: can(Ability::Tools),
        prefill: can(Ability::Prefill),
        // No wire of theirs has words for these.
        images: false,
        replay: false,
    })
}

/// A server with an OpenAI API at `url` and every model it lists. A key is taken from `TESSERA_API_KEY`.
pub(crate) async fn server(url: &str) -> anyhow::Result<Upstream> {
    let key = std::env::var("TESSERA_API_KEY").ok().filter(|key| !key.is_empty()).map(SecretString::from);
    let config = Config { key, retry: Retry::NEVER, ..Config::new("server", url, Api::OpenAi) };
    Upstream::discover(config).await.map_err(|e| {
        anyhow::anyhow!("no OpenAI API at {url}: {e} Check the address, or start a server with `tessera up`")
    })
}
