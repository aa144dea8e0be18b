//! From settings to a gateway: the file, the ledger it names, the services it asks for.

use std::{
    env,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context;
use clap::Args;
use engine::Engine;
use gateway::{
    Config, Current, Gateway, Protection, Services,
    settings::{self, FILE, Live, Settings},
};
use guard::{Guard, Panel};
use ledger::Ledger;
use parking_lot::Mutex;
use protocol::{Decide, Embed, Generate};
use reason::{Library, Reason};
use services::{
    Balanced, Fallback, Guarded, Limits, Named, Target,
    rollout::{Bounds, Rollout, Shadow},
};

use crate::{
    cascades::{self, Section},
    elsewhere::{Elsewhere, WorkerArgs},
    model::EngineArgs,
    students::Students,
};

/// Where the settings are.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct FileArgs {
    /// Settings file [default: tessera.toml, if there is one]
    #[arg(short, long, value_name = "FILE", env = "TESSERA_CONFIG")]
    pub(crate) config: Option<PathBuf>,
}

impl FileArgs {
    /// The file that is meant; `None` if none is named and there is none here.
    pub(crate) fn path(&self) -> Option<PathBuf> {
        self.config.clone().or_else(|| Some(PathBuf::from(FILE)).filter(|path| path.exists()))
    }

    /// The settings in it, or the defaults.
    pub(crate) fn load(&self) -> anyhow::Result<Settings> {
        Ok(self.path().map_or_else(|| Ok(Settings::default()), |path| Settings::load(&path))?)
    }
}

/// Where the ledger is, for whoever reads it beside a gateway or without one.
#[derive(Debug, Clone, Args)]
pub(crate) struct LedgerArgs {
    #[command(flatten)]
    file: FileArgs,
    /// Where the ledger is, sqlite:PATH or postgres://USER@HOST/DATABASE; without it the one of the settings
    #[arg(long, env = "TESSERA_LEDGER", value_name = "URL", hide_env_values = true)]
    ledger: Option<String>,
    /// The file with the ledger's secrets; without it the one of the settings
    #[arg(long, env = "TESSERA_LEDGER_KEYS", value_name = "FILE")]
    ledger_keys: Option<PathBuf>,
}

impl LedgerArgs {
    /// What these options and the settings behind them come to.
    pub(crate) fn settings(&self) -> anyhow::Result<ledger::Settings> {
        let usual = ledger_settings(&self.file.load()?)?;
        let url = self.ledger.clone().unwrap_or(usual.url);
        Ok(ledger::Settings { url, keys: self.ledger_keys.clone().unwrap_or(usual.keys), ..usual })
    }
}

/// Opens the ledger that the settings name.
pub(crate) async fn ledger(settings: &Settings) -> anyhow::Result<Ledger> {
    Ledger::open(ledger_settings(settings)?).await.context("cannot open the ledger")
}

/// Where the settings have the ledger: by default a SQLite file of this user's, and its keys apart from it.
pub(crate) fn ledger_settings(settings: &Settings) -> anyhow::Result<ledger::Settings> {
    let section = &settings.ledger;
    let url = match section.url.expose() {
        "" => format!(
            "sqlite:{}",
            home("XDG_DATA_HOME", ".local/share").context("set ledger.url")?.join("ledger.db").display()
        ),
        url => url.to_owned(),
    };
    let keys = match section.key_file.as_os_str().is_empty() {
        true => home("XDG_CONFIG_HOME", ".config").context("set ledger.key_file")?.join("ledger.key"),
        false => section.key_file.clone(),
    };
    for path in [url.strip_prefix("sqlite:").map(Path::new), Some(&*keys)].into_iter().flatten() {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        folder.map_or(Ok(()), std::fs::create_dir_all).with_context(|| format!("cannot make {}", path.display()))?;
    }
    Ok(ledger::Settings { flush: section.flush.0, ..ledger::Settings::new(url, keys) })
}

/// A directory of ours in one of this user's.
pub(crate) fn home(variable: &str, usual: &str) -> anyhow::Result<PathBuf> {
    let xdg = env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    let usual = || env::var_os("HOME").map(|home| Path::new(&home).join(usual));
    let base = xdg.or_else(usual).with_context(|| format!("neither {variable} nor HOME is set"))?;
    Ok(base.join("tessera"))
}

/// Where learning loops keep their laps.
pub(crate) fn loops() -> anyhow::Result<PathBuf> {
    Ok(home("XDG_DATA_HOME", ".local/share")?.join("loops"))
}

/// What protects a listener under these settings.
pub(crate) fn protection(settings: &Settings, ledger: Option<&Ledger>) -> Protection {
    let auth = &settings.auth;
    let keys = auth.required || !auth.oidc.issuer.is_empty() || ledger.is_some_and(|ledger| ledger.keys().exist());
    Protection { keys, tls: settings.server.tls.clone(), plain_remote: settings.server.plain_remote }
}

/// The limits of the server section.
pub(crate) fn limits(settings: &Settings) -> Config {
    let server = &settings.server;
    Config {
        max_body_bytes: usize::try_from(server.max_body.0).unwrap_or(usize::MAX),
        drain_limit: server.drain.0,
        keep_alive: server.keep_alive.0,
        deadline: server.deadline.unless_zero(),
        prompts_at_once: server.prompts_at_once,
        origins: server.origins.clone(),
        loops: loops().ok(),
    }
}

/// The settings name services that are not in this process.
pub(crate) fn elsewhere(settings: &Settings) -> bool {
    !settings.upstreams.is_empty() || !settings.workers.is_empty()
}

/// What stays as it is while settings change.
#[derive(Debug)]
pub(crate) struct Local {
    /// Engines of text models.
    pub(crate) chat: Vec<Arc<Engine>>,
    /// Engines of embedding models; they come first where vectors are asked for.
    pub(crate) embed: Vec<Arc<Engine>>,
    /// How models run here.
    pub(crate) engine: EngineArgs,
    /// Decisions, in a process that makes them: they are compiled, and a gateway alone has no use for that.
    pub(crate) library: Option<Arc<Library>>,
    /// The part that this process is.
    pub(crate) part: WorkerArgs,
}

impl Local {
    /// Everything on offer. Every text goes past the guard where clients ask; a worker's goes past that of the gateway that asked:
    /// here it would stand between a broken stream and whoever takes it up.
    fn services(&self, Found { students, elsewhere }: &Found, settings: &Settings) -> anyhow::Result<Services> {
        let guard = Guard::new(&settings.guard).context("the section guard")?;
        let text = || self.chat.iter().chain(students.engines());
        let mut services = Services {
            generate: text().map(|engine| engine.clone() as Arc<dyn Generate>).collect(),
            embed: self.embed.iter().chain(text()).map(|engine| engine.clone() as Arc<dyn Embed>).collect(),
            guard: guard.clone(),
            ..Services::default()
        };
        elsewhere.join(&mut services);
        // In front: a route may bear the name of a model that it tries first.
        services.generate.splice(0..0, routes(settings, &services.generate, elsewhere)?);
        self.compound(settings, elsewhere, &mut services)?;
        if let Some(library) = &self.library {
            let reason = Reason::new(services.generate.clone()).with_library(library.clone());
            services.decide.insert(0, Arc::new(reason));
        }
        if self.part.answers_clients() {
            let panel = panel(settings, &services)?;
            let guarded = |service| Guarded::new(service, guard.clone()).with_panel(panel.clone());
            let all = services.generate.into_iter().map(|service| Arc::new(guarded(service)) as Arc<dyn Generate>);
            services.generate = all.collect();
        } else if !self.part.runs_models() {
            // The models it asks are other workers': a gateway knows those itself.
            services.generate.clear();
            services.embed.clear();
            services.decide.truncate(1);
        }
        Ok(services)
    }

    /// What the settings name beside it; what was `known` before is kept.
    fn find(&self, settings: &Settings, known: &Found) -> anyhow::Result<Found> {
        let names = if self.part.runs_models() { settings.models.students.as_slice() } else { &[] };
        Ok(Found {
            students: Students::open(names, &self.engine, &known.students)?,
            elsewhere: Elsewhere::open(settings, &self.part, &known.elsewhere)?,
        })
    }

    /// Puts cascades and rollouts in front, each over what was there before it.
    fn compound(&self, settings: &Settings, elsewhere: &Elsewhere, services: &mut Services) -> anyhow::Result<()> {
        let deciders = self.deciders(services);
        for section in cascades::in_order(settings) {
            let service: Arc<dyn Generate> = match section {
                Section::Cascade(section) => {
                    let target = |model: &str| target(model, &services.generate, elsewhere);
                    Arc::new(cascades::open(section, target, &deciders)?)
                }
                Section::Rollout(section) => {
                    let rollout = rollout(section, &services.generate, elsewhere)?;
                    services.rollouts.push(rollout.clone());
                    rollout
                }
            };
            services.generate.insert(0, service);
        }
        Ok(())
    }

    /// Who decides on facts alone, here and elsewhere.
    fn deciders(&self, services: &Services) -> Vec<Arc<dyn Decide>> {
        let here = self
            .library
            .iter()
            .map(|library| Arc::new(Reason::new(Vec::new()).with_library(library.clone())) as Arc<dyn Decide>);
        here.chain(services.decide.iter().cloned()).collect()
    }
}

/// What settings name and what follows when they change: students in this process, and services elsewhere.
#[derive(Debug, Default)]
struct Found {
    students: Students,
    elsewhere: Elsewhere,
}

/// A gateway over the services of this process and those that the settings name. When the settings change, all but the services
/// of this process follow.
pub(crate) async fn gateway(local: Local, settings: Settings, ledger: Option<Ledger>) -> anyhow::Result<Gateway> {
    let found = local.find(&settings, &Found::default())?;
    found.elsewhere.probe().await;
    let services = Current::new(local.services(&found, &settings)?);
    let (config, worker, public) = (limits(&settings), local.part.door()?, local.part.answers_clients());
    let live = Live::new(settings);
    follow(&live, local, found, services.clone());
    Ok(Gateway { services, worker, public, config, settings: live, ledger })
}

fn follow(live: &Live, local: Local, found: Found, current: Arc<Current>) {
    let known = Arc::new(Mutex::new(found));
    live.follow(move |settings| {
        let next = local.find(settings, &known.lock());
        let next = next.map_err(|error| format!("{error:#}"))?;
        let services = local.services(&next, settings).map_err(|error| format!("{error:#}"))?;
        let (known, current) = (known.clone(), current.clone());
        Ok(Box::new(move || {
            *known.lock() = next;
            current.replace(services);
        }))
    });
}

/// The policy's questions to models, over these services.
fn panel(settings: &Settings, services: &Services) -> anyhow::Result<Panel> {
    let text = |model: &str| services.generate.iter().find(|service| service.card(model).is_some()).cloned();
    let vectors = |model: &str| {
        let offers = |service: &&Arc<dyn Embed>| service.models().iter().any(|card| card.id == model);
        services.embed.iter().find(offers).cloned()
    };
    Panel::new(&settings.guard, text, vectors).context("the section guard")
}

/// The settings' routes over these services.
fn routes(
    settings: &Settings,
    services: &[Arc<dyn Generate>],
    elsewhere: &Elsewhere,
) -> anyhow::Result<Vec<Arc<dyn Generate>>> {
    let route = |route: &settings::Route| {
        let missing = |model| format!("the route {} leads to {model}, which nobody offers", route.model);
        let targets = route.targets.iter();
        let targets = targets.map(|model| target(model, services, elsewhere).with_context(|| missing(model)));
        Ok(routed(route, targets.collect::<anyhow::Result<_>>()?))
    };
    settings.routes.iter().map(route).collect()
}

/// The model among these services; workers may offer later what nobody offers now.
fn target(model: &str, services: &[Arc<dyn Generate>], elsewhere: &Elsewhere) -> Option<Target> {
    let offers = |service: &&Arc<dyn Generate>| service.card(model).is_some();
    let later = || elsewhere.has_workers().then(|| Arc::new(Named::new(services.to_vec())) as Arc<dyn Generate>);
    let service = services.iter().find(offers).cloned().or_else(later);
    Some(Target { service: service?, model: model.to_owned() })
}

/// A rollout over these services.
fn rollout(
    rollout: &settings::Rollout,
    services: &[Arc<dyn Generate>],
    elsewhere: &Elsewhere,
) -> anyhow::Result<Arc<Rollout>> {
    let missing = |model| format!("the rollout {} leads to {model}, which nobody offers", rollout.model);
    let target = |model| target(model, services, elsewhere).with_context(|| missing(model));
    let versions = rollout.versions.iter().map(|(model, weight)| Ok((target(model)?, *weight)));
    let versions: Vec<_> = versions.collect::<anyhow::Result<_>>()?;
    let shadow = Some(&rollout.shadow).filter(|model| !model.is_empty());
    let shadow = shadow.map(|model| Ok::<_, anyhow::Error>(Shadow::new(target(model)?, bounds(rollout))));
    let built = Rollout::new(&rollout.model, versions, shadow.transpose()?);
    if rollout.canary.is_empty() {
        return Ok(Arc::new(built));
    }
    Ok(Arc::new(built.with_canary(target(&rollout.canary)?, rollout.plan())))
}

fn bounds(rollout: &settings::Rollout) -> Bounds {
    Bounds {
        share: rollout.shadow_share,
        at_once: rollout.shadow_at_once,
        tokens_per_hour: rollout.shadow_tokens_per_hour,
        time: rollout.shadow_timeout.0,
    }
}

fn routed(route: &settings::Route, targets: Vec<Target>) -> Arc<dyn Generate> {
    let (name, limits) = (&route.model, Limits::default());
    match route.strategy {
        settings::Strategy::Fallback => Arc::new(Fallback::new(name, targets, limits.first_byte)),
        settings::Strategy::Balance => {
            // Each target answers to the route's name, so that the balancer sees them as alike.
            let alike = |target: Target| {
                let model = target.model.clone();
                (model, Arc::new(Fallback::new(name, vec![target], None)) as Arc<dyn Generate>)
            };
            Arc::new(Balanced::new(targets.into_iter().map(alike).collect(), limits))
        }
    }
}
