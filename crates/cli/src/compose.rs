//! From settings to a gateway: the file, the ledger it names, the services it asks for.

use std::{
    env,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context;
use clap::Args;
use gateway::{
    Config, Gateway, Protection,
    settings::{FILE, Live, Settings},
};
use guard::Guard;
use ledger::Ledger;
use protocol::Generate;
use services::Guarded;

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

/// Opens the ledger that the settings name: by default a SQLite file of this user's, and its keys apart from it.
pub(crate) async fn ledger(settings: &Settings) -> anyhow::Result<Ledger> {
    let section = &settings.ledger;
    let url = match section.url.expose() {
        "" => format!("sqlite:{}", home("XDG_DATA_HOME", ".local/share")?.join("ledger.db").display()),
        url => url.to_owned(),
    };
    let keys = match section.key_file.as_os_str().is_empty() {
        true => home("XDG_CONFIG_HOME", ".config")?.join("ledger.keys"),
        false => section.key_file.clone(),
    };
    for path in [url.strip_prefix("sqlite:").map(Path::new), Some(&*keys)].into_iter().flatten() {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        folder.map_or(Ok(()), std::fs::create_dir_all).with_context(|| format!("cannot make {}", path.display()))?;
    }
    let opened = ledger::Settings { flush: section.flush.0, ..ledger::Settings::new(url, keys) };
    Ledger::open(opened).await.context("cannot open the ledger")
}

/// A directory of ours in one of this user's.
fn home(variable: &str, usual: &str) -> anyhow::Result<PathBuf> {
    let xdg = env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    let usual = || env::var_os("HOME").map(|home| Path::new(&home).join(usual));
    let base = xdg
        .or_else(usual)
        .with_context(|| format!("neither {variable} nor HOME is set: set ledger.url and ledger.key_file"))?;
    Ok(base.join("tessera"))
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
    }
}

/// The settings name services that are not in this process.
pub(crate) fn elsewhere(settings: &Settings) -> bool {
    !settings.upstreams.is_empty() || !settings.workers.is_empty()
}

/// A gateway over these services, under these settings: every text goes past the guard, where clients ask. A worker's goes past
/// that of the gateway that asked: here it would stand between a broken stream and whoever takes it up.
pub(crate) fn gateway(mut services: Gateway, settings: Settings, ledger: Option<Ledger>) -> anyhow::Result<Gateway> {
    let (config, guard) = (limits(&settings), Guard::new(&settings.guard).context("the section guard")?);
    let guarded = |service| Arc::new(Guarded::new(service, guard.clone())) as Arc<dyn Generate>;
    if services.public {
        services.generate = services.generate.into_iter().map(guarded).collect();
    }
    Ok(Gateway { config, guard, settings: Live::new(settings), ledger, ..services })
}
