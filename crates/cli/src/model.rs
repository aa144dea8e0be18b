//! From a name to a loaded engine, with what the user should see on the way: download, licence, terms, loading.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context;
use clap::Args;
use engine::{Engine, EngineConfig};
use hub::{Entry, Hub, Kind, Listing, Name, Options, Stage};

use crate::{
    adapters::{self, Folder},
    screen, size,
};

/// Options of every command that runs a model in this process.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Engine")]
pub(crate) struct EngineArgs {
    /// Threads for the arithmetic; 0 takes one per core [default: 0]
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<usize>,
    /// Memory for keys and values, prefix cache included (units: MiB, GiB, MB, GB); touched only as it is used
    /// [default: 1GiB]
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    pub(crate) kv_memory: Option<u64>,
    /// Answers generated at the same time; more wait in the queue [default: 64]
    #[arg(long, value_name = "N")]
    pub(crate) max_sequences: Option<usize>,
    /// Requests that may wait; one more is refused with 429 [default: 256]
    #[arg(long, value_name = "N")]
    pub(crate) max_queue: Option<usize>,
    /// Do not keep the work of prompts that may come again
    #[arg(long)]
    pub(crate) no_prefix_cache: bool,
    /// Folder of adapters: NAME.safetensors is what requests call MODEL:NAME [default: ~/.local/share/tessera/adapters]
    #[arg(long, value_name = "DIR", env = "TESSERA_ADAPTERS")]
    pub(crate) adapters: Option<PathBuf>,
}

impl EngineArgs {
    pub(crate) fn config(&self, name: String) -> EngineConfig {
        let usual = EngineConfig::default();
        EngineConfig {
            name,
            threads: self.threads.unwrap_or(usual.threads),
            kv_bytes: self.kv_memory.unwrap_or(usual.kv_bytes),
            max_sequences: self.max_sequences.unwrap_or(usual.max_sequences),
            queue_limit: self.max_queue.unwrap_or(usual.queue_limit),
            prefix_cache: !self.no_prefix_cache,
            ..usual
        }
    }

    /// What is not said on the command line is as the settings have it.
    pub(crate) fn over(&self, settings: &gateway::settings::Engine) -> Self {
        Self {
            threads: self.threads.or(Some(settings.threads)),
            kv_memory: self.kv_memory.or(Some(settings.kv_memory.0)),
            max_sequences: self.max_sequences.or(Some(settings.max_sequences)),
            max_queue: self.max_queue.or(Some(settings.max_queue)),
            no_prefix_cache: self.no_prefix_cache || !settings.prefix_cache,
            adapters: self.adapters.clone(),
        }
    }

    /// Where adapters lie.
    pub(crate) fn adapters_folder(&self) -> anyhow::Result<PathBuf> {
        self.adapters.clone().map_or_else(adapters::usual_place, Ok)
    }

    /// The folder of adapters for these engines, looked at once.
    pub(crate) fn adapters(&self, engines: Vec<Arc<Engine>>) -> anyhow::Result<Folder> {
        let place = self.adapters_folder()?;
        let mut folder = Folder::new(place, engines);
        folder.look();
        Ok(folder)
    }
}

/// The hub of this user's environment.
pub(crate) fn hub() -> Hub {
    Hub::new(Options::from_env())
}

/// The name of the default model of a kind.
pub(crate) fn default_name(kind: Kind) -> String {
    hub::default_model(kind).map(|listing| listing.name.clone()).unwrap_or_default()
}

/// A model's name, and that of the adapter behind it, as in `smollm2:credit`. Sources have colons too, so a name that is one is whole.
fn adapted(text: &str) -> (&str, Option<&str>) {
    let is_model = |text: &str| match Name::parse(text) {
        Ok(Name::Path(path)) => path.exists(),
        other => other.is_ok(),
    };
    let parts = text.rsplit_once(':');
    let parts = parts.filter(|(model, adapter)| !is_model(text) && adapters::is_name(adapter) && is_model(model));
    parts.map_or((text, None), |(model, adapter)| (model, Some(adapter)))
}

/// The adapter's name in that of a model with one beside it.
pub(crate) fn adapter(text: &str) -> Option<&str> {
    adapted(text).1
}

/// What identifies a file.
pub(crate) fn digest(file: PathBuf) -> anyhow::Result<String> {
    let gone = format!("{} is gone", file.display());
    Ok(hub().locate(&Name::Path(file)).context(gone)?.digest()?)
}

/// Brings a model here, telling on stderr what is fetched, how far it is, and under which licence.
pub(crate) async fn fetch(text: &str) -> anyhow::Result<Entry> {
    let (hub, name) = (hub(), Name::parse(adapted(text).0)?);
    if let Some(entry) = hub.locate(&name) {
        return Ok(entry);
    }
    if let Name::Catalogue(listing) = &name {
        announce(listing);
    }
    let bar = screen::byte_bar();
    let report = |progress: hub::Progress<'_>| {
        let what = match progress.stage {
            Stage::Waiting => "waiting for another pull",
            Stage::Resolving => "asking the model hub",
            Stage::Unpacking => "unpacking and checking",
            _ => "downloading",
        };
        bar.set_message(what);
        bar.set_length(progress.total.unwrap_or(progress.done));
        bar.set_position(progress.done);
    };
    let result = hub.pull(&name, &report).await;
    bar.finish_and_clear();
    let entry = result?;
    conclude(&name, &entry);
    Ok(entry)
}

fn announce(listing: &Listing) {
    let size = listing.size().map_or_else(String::new, |bytes| format!(", {}", size::show(bytes)));
    screen::note(format_args!("Fetching {}{size}; licence: {}", listing.title, listing.licence));
    if let Some(terms) = &listing.terms {
        screen::note(format_args!("{}.\nBy using the model you accept them: {}", terms.notice, terms.url));
    }
}

fn conclude(name: &Name, entry: &Entry) {
    let how = match entry.files.iter().map(|file| file.checked.as_str()).find(|checked| *checked != "catalogue") {
        None => "checked against the catalogue",
        Some("hub") => "checked against the model hub's own sum, which is now pinned",
        Some(_) => "its sum, which nobody vouches for, is now pinned",
    };
    screen::note(format_args!("Fetched {} ({}), {how}", entry.name, size::show(entry.size)));
    match name {
        Name::Catalogue(Listing { terms: Some(terms), .. }) => {
            let dir = entry.path.parent().unwrap_or(Path::new(""));
            screen::note(format_args!("{}: {}", terms.name, dir.join(&terms.file).display()));
        }
        Name::Catalogue(_) => {}
        _ if entry.licence.is_empty() => screen::note("The source declares no licence: check whether you may use it"),
        _ => screen::note(format_args!("Licence: {}", entry.licence)),
    }
}

/// The name requests use for a model: short, and without the place it lies at.
pub(crate) fn served_name(text: &str) -> anyhow::Result<String> {
    let stem = |path: &str| Path::new(path).file_stem().unwrap_or_default().to_string_lossy().into_owned();
    Ok(match Name::parse(adapted(text).0)? {
        Name::Catalogue(listing) => listing.name.clone(),
        Name::Hub(name) => name.file.as_deref().map_or_else(|| last(&name.repo), stem),
        Name::Package(name) => name.member.as_deref().map_or(name.package, stem),
        // A directory has no extension: a dot in its name belongs to it.
        Name::Path(path) if path.is_dir() => last(&path.canonicalize()?.to_string_lossy()),
        Name::Path(path) => stem(&path.to_string_lossy()),
    })
}

fn last(path: &str) -> String {
    path.rsplit('/').next().unwrap_or_default().to_owned()
}

/// Brings a model here and loads it.
pub(crate) async fn load(text: &str, args: &EngineArgs) -> anyhow::Result<Arc<Engine>> {
    let entry = fetch(text).await?;
    let config = args.config(served_name(text)?);
    let bar = screen::byte_bar();
    bar.set_message(format!("loading {}", config.name));
    let shown = bar.clone();
    // Loading computes (weights are repacked) and must not hold up what the runtime does meanwhile.
    let path = entry.path.clone();
    // The hub knows the sums of what came through it; other files are summed beside the loading, which reads them anyway.
    let summing = tokio::task::spawn_blocking(move || entry.digest());
    let loading = tokio::task::spawn_blocking(move || {
        Engine::load(&path, config, &|done, total| {
            shown.set_length(total);
            shown.set_position(done);
        })
    });
    let (engine, digest) = (loading.await?, summing.await??);
    let engine = engine.map(|engine| engine.with_digest(digest));
    bar.finish_and_clear();
    let engine = engine.with_context(|| format!("cannot load `{text}`"))?;
    let Some(adapter) = adapted(text).1 else { return Ok(Arc::new(engine)) };
    args.adapters(vec![Arc::new(engine.clone())])?;
    Ok(Arc::new(engine.preferring(adapter)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_are_served_under_short_names() {
        let check = |text, name| assert_eq!(served_name(text).unwrap(), name, "{text}");
        check("smollm2", "smollm2");
        check("smollm2-135m", "smollm2");
        check("hf:owner/name", "name");
        check("hf:owner/name/dir/file.Q4_1.gguf@main", "file.Q4_1");
        check("pypi:p==1/a/b.gguf", "b");
        check("/no/such/model.gguf", "model");
        check("smollm2:credit", "smollm2");
        check("hf:owner/name/model.gguf:credit", "model");
        check(env!("CARGO_MANIFEST_DIR"), "cli");
    }

    #[test]
    fn the_options_show_the_engines_own_defaults() {
        #[derive(Debug, clap::Parser)]
        struct Line {
            #[command(flatten)]
            engine: EngineArgs,
        }
        let args = <Line as clap::Parser>::parse_from(["line"]).engine;
        assert_eq!(args.config(String::new()), EngineConfig::default());
        let args = args.over(&gateway::settings::Engine::default());
        assert_eq!(args.config(String::new()), EngineConfig::default());
    }
}
