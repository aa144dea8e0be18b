//! Services that are not in this process, put together: upstreams and workers as the settings and the command line name them.
//!
//! An upstream is asked for nothing it cannot do, and left alone while it keeps failing. Workers that offer the same model share its
//! requests; a stream that breaks with one goes on with another. A route is a name over any of these and over the models of this
//! process.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context;
use clap::{Args, ValueEnum};
use futures_util::future;
use gateway::{
    Gateway, Protection,
    settings::{self, Settings},
};
use protocol::{Embed, Generate, ModelCard};
use secrecy::SecretString;
use services::{
    Balanced, Breaker, Capable, Fallback, Limits, Migrating, Retry, Rotating, Target, Trip,
    remote::{Gatekeeper, Remote, Secret},
    upstream::{Api, Config, Offer, Upstream},
};

/// How often a worker is asked how it is.
const PROBE: Duration = Duration::from_secs(1);
/// Times a stream is taken up again.
const MIGRATIONS: usize = 4;

/// Which part of Tessera a process is, and where the others are.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Workers")]
pub(crate) struct WorkerArgs {
    /// Be only this part of Tessera: `gateway` loads no model and asks workers and upstreams, `text` runs models for gateways and
    /// answers nobody else [default: everything in one process]
    #[arg(long, value_name = "PART", requires_if("text", "worker_secret_file"))]
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
        match self.only {
            Some(Only::Text) => Protection { keys: true, plain_remote: true, ..of_clients },
            _ => of_clients,
        }
    }

    /// Clients ask this process, and not only gateways.
    pub(crate) fn answers_clients(&self) -> bool {
        self.only != Some(Only::Text)
    }

    /// No model runs in this process.
    pub(crate) fn loads_nothing(&self) -> bool {
        self.only == Some(Only::Gateway)
    }

    /// Who may ask this process as a worker: whoever knows the secret, unless this process is the one that asks.
    fn door(&self) -> anyhow::Result<Option<Arc<Gatekeeper>>> {
        let secret = self.secret()?.filter(|_| self.only != Some(Only::Gateway) && self.workers.is_empty());
        Ok(secret.map(|secret| Arc::new(Gatekeeper::new(secret))))
    }
}

/// Services elsewhere.
#[derive(Debug, Default)]
pub(crate) struct Elsewhere {
    generate: Vec<Arc<dyn Generate>>,
    embed: Vec<Arc<dyn Embed>>,
    remotes: Vec<Arc<Remote>>,
}

impl Elsewhere {
    /// Those that the settings and the command line name; workers have been asked once what they offer.
    pub(crate) async fn open(settings: &Settings, args: &WorkerArgs) -> anyhow::Result<Self> {
        let mut elsewhere = Self::default();
        for upstream in &settings.upstreams {
            elsewhere.add_upstream(upstream)?;
        }
        elsewhere.remotes = remotes(settings, args)?;
        future::join_all(elsewhere.remotes.iter().map(|remote| remote.probe())).await;
        if !elsewhere.remotes.is_empty() {
            let generate = elsewhere.remotes.iter().map(|remote| remote.clone() as Arc<dyn Generate>).collect();
            let balanced = Arc::new(Balanced::new(generate, Limits::default()));
            elsewhere.generate.push(Arc::new(Migrating::new(balanced, MIGRATIONS)));
            let embed = elsewhere.remotes.iter().map(|remote| remote.clone() as Arc<dyn Embed>).collect();
            elsewhere.embed.push(Arc::new(Rotating::new(embed)));
        }
        Ok(elsewhere)
    }

    fn add_upstream(&mut self, section: &settings::Upstream) -> anyhow::Result<()> {
        let service = Upstream::new(config(section)).with_context(|| format!("the upstream {}", section.name))?;
        let service = Arc::new(service);
        let json_mode = section.api == settings::Api::OpenAi;
        let trip =
            Trip { failures: section.breaker_failures as usize, pause: section.breaker_pause.0, ..Trip::default() };
        let breaker = Arc::new(Breaker::new(service.clone(), trip));
        if !section.models.is_empty() {
            self.generate.push(Arc::new(Capable::new(breaker, json_mode)));
        }
        if !section.embed_models.is_empty() {
            self.embed.push(service);
        }
        Ok(())
    }

    /// The gateway with these services and the settings' routes over all of them, as the part that it is.
    pub(crate) fn join(&self, mut gateway: Gateway, settings: &Settings, args: &WorkerArgs) -> anyhow::Result<Gateway> {
        gateway.generate.extend(self.generate.iter().cloned());
        gateway.embed.extend(self.embed.iter().cloned());
        gateway.generate.extend(routes(settings, &gateway.generate)?);
        gateway.worker = args.door()?;
        gateway.public = args.answers_clients();
        Ok(gateway)
    }

    /// Keeps asking the workers how they are. Never ends.
    pub(crate) async fn watch(&self) {
        future::join_all(self.remotes.iter().map(|remote| remote.watch(PROBE))).await;
        future::pending().await
    }
}

/// The settings' routes over these services.
fn routes(settings: &Settings, services: &[Arc<dyn Generate>]) -> anyhow::Result<Vec<Arc<dyn Generate>>> {
    settings.routes.iter().map(|route| self::route(route, services)).collect()
}

fn route(route: &settings::Route, services: &[Arc<dyn Generate>]) -> anyhow::Result<Arc<dyn Generate>> {
    let target = |model: &String| {
        let offers = |service: &&Arc<dyn Generate>| service.models().iter().any(|card| card.id == *model);
        let service = services.iter().find(offers).cloned();
        let service =
            service.with_context(|| format!("the route {} leads to {model}, which nobody offers", route.model))?;
        Ok(Target { service, model: model.clone() })
    };
    let targets: Vec<Target> = route.targets.iter().map(target).collect::<anyhow::Result<_>>()?;
    let name = || route.model.clone();
    Ok(match route.strategy {
        settings::Strategy::Fallback => Arc::new(Fallback::new(name(), targets, Limits::default().first_byte)),
        settings::Strategy::Balance => {
            // Each target answers to the route's name, so that the balancer sees them as alike.
            let alike = targets
                .into_iter()
                .map(|target| Arc::new(Fallback::new(name(), vec![target], None)) as Arc<dyn Generate>);
            Arc::new(Balanced::new(alike.collect(), Limits::default()))
        }
    })
}

fn remotes(settings: &Settings, args: &WorkerArgs) -> anyhow::Result<Vec<Arc<Remote>>> {
    let mut named = Vec::new();
    if let Some(secret) = args.secret()? {
        named.extend(args.workers.iter().map(|url| (url.as_str(), secret.clone())));
    }
    for worker in &settings.workers {
        let secret = Secret::new(worker.secret.expose()).with_context(|| format!("the secret of {}", worker.url))?;
        named.push((&worker.url, secret));
    }
    named.into_iter().map(|(url, secret)| Ok(Arc::new(Remote::new(url, secret)?))).collect()
}

fn config(section: &settings::Upstream) -> Config {
    let api = match section.api {
        settings::Api::OpenAi => Api::OpenAi,
        settings::Api::Anthropic => Api::Anthropic,
    };
    let card = |name: &String| ModelCard {
        chat: true,
        owned_by: section.name.clone(),
        capabilities: api.usual(),
        ..ModelCard::new(name)
    };
    let offers = |models: &std::collections::BTreeMap<String, String>| {
        let offer = |(here, there): (&String, &String)| Offer { card: card(here), upstream: there.clone() };
        models.iter().map(offer).collect::<Vec<_>>()
    };
    Config {
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

/// A server with an OpenAI API at `url` and every model it lists. A key is taken from `TESSERA_API_KEY`.
pub(crate) async fn server(url: &str) -> anyhow::Result<Upstream> {
    let key = std::env::var("TESSERA_API_KEY").ok().filter(|key| !key.is_empty()).map(SecretString::from);
    let config = Config { key, retry: Retry::NEVER, ..Config::new("server", url, Api::OpenAi) };
    Upstream::discover(config).await.map_err(|e| {
        anyhow::anyhow!("no OpenAI API at {url}: {e} Check the address, or start a server with `tessera up`")
    })
}
