//! `tessera train experts`: adapters that were learned apart become the experts of one module, whose router picks one of them, or none, for every token.

use std::{
    collections::BTreeMap,
    fmt, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};
use clap::Args;
use data::Encoder;
use engine::Engine;
use hub::{Entry, Kind};
use model::{Adapter, Model, OpenedAdapter};
use serde::Serialize;
use train::{Part, Sample, States, save_experts};

use super::{
    device,
    documents::{Documents, Source},
    general::{self, General},
    run,
    texts::{self, Row, Text},
};
use crate::{
    adapters,
    data::sets,
    model::{self as models, EngineArgs},
    screen,
};

/// One layer in so many runs without experts.
const LAYERS_PER_FREE: usize = 4;
/// Tokens of each kind that the router learns from.
const LEARNED_FROM: usize = 20_000;
/// Documents of each kind that are measured.
const MEASURED: usize = 40;

/// Options of `train experts`.
#[derive(Debug, Args)]
pub(crate) struct ExpertsArgs {
    /// An adapter of the folder, and what it is for: a file in the form of `train lora`, or a set by its name, best the one that it learned from; is
    /// given for every expert
    #[arg(short, long = "expert", value_name = "ADAPTER=FILE|NAME", required = true, value_parser = named)]
    experts: Vec<(String, PathBuf)>,
    /// The name of what comes out
    #[arg(short, long, value_name = "NAME")]
    name: String,
    /// The model that the adapters were learned over: a catalogue name, hf:owner/name/file, pypi:package==version/member, or a path [default: smollm2]
    #[arg(short, long, value_name = "MODEL")]
    model: Option<String>,
    /// Layers that all tokens run through without any expert, before one is picked [default: a quarter of them]
    #[arg(long, value_name = "N")]
    layers: Option<usize>,
    /// General text that no expert shall take, in the same form [default: what the model says to some general prompts]
    #[arg(long, value_name = "FILE")]
    general: Option<PathBuf>,
    /// Folder of the adapters, into which the module is put as well [default: ~/.local/share/tessera/adapters]
    #[arg(long, value_name = "DIR", env = "TESSERA_ADAPTERS")]
    adapters: Option<PathBuf>,
    /// The longest document, in tokens
    #[arg(long, value_name = "TOKENS", default_value_t = 2048)]
    rows: usize,
    /// Of the order in which the router sees tokens
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Threads for the arithmetic; 0 takes one per core
    #[arg(long, value_name = "N", default_value_t = 0)]
    threads: usize,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// `credit=credit.jsonl`.
fn named(text: &str) -> Result<(String, PathBuf), String> {
    let parts = text.split_once('=').filter(|(name, data)| adapters::is_name(name) && !data.is_empty());
    let (name, data) = parts.ok_or("give an adapter and what it is for, such as credit=credit.jsonl")?;
    Ok((name.to_owned(), data.into()))
}

impl ExpertsArgs {
    fn check(&self) -> anyhow::Result<()> {
        let (own, most) = (&self.name, model::MOST_EXPERTS);
        ensure!(adapters::is_name(own), "--name: letters, digits, `-`, `_` and `.`, such as desk-2");
        ensure!(own != engine::AUTO, "--name: `{}` lets prompts choose among adapters", engine::AUTO);
        ensure!(self.experts.len() <= most, "--expert: a module has at most {most} experts");
        for (at, (name, _)) in self.experts.iter().enumerate() {
            ensure!(name != own, "--name: {name} is the name of an expert, whose file would be lost");
            let again = self.experts[..at].iter().any(|(other, _)| other == name);
            ensure!(!again, "--expert: {name} stands there twice");
        }
        ensure!(models::adapter(&self.model()).is_none(), "--model: name the model alone; its adapters are --expert");
        Ok(())
    }

    fn model(&self) -> String {
        self.model.clone().unwrap_or_else(|| models::default_name(Kind::Chat))
    }
}

/// Adapters and documents, before anything is computed.
struct Desk {
    args: ExpertsArgs,
    entry: Entry,
    folder: PathBuf,
    experts: Vec<Expert>,
    general: Source,
}

/// An adapter that becomes an expert.
struct Expert {
    name: String,
    digest: String,
    opened: OpenedAdapter,
    data: Source,
    held_out: Option<Source>,
}

pub(super) async fn make(args: ExpertsArgs) -> anyhow::Result<()> {
    args.check()?;
    let (json, model) = (args.json, args.model());
    let folder = args.adapters.clone().map_or_else(adapters::usual_place, Ok)?;
    let engine = EngineArgs { threads: Some(args.threads), ..EngineArgs::default() };
    let engine = models::load(&model, &engine).await?;
    let experts = args.experts.iter().map(|(name, data)| Expert::new(&engine, &folder, name, data));
    let experts = experts.collect::<anyhow::Result<_>>()?;
    let kept = run::folder(&args.name)?;
    fs::create_dir_all(&kept).with_context(|| format!("cannot make {}", kept.display()))?;
    let general = match &args.general {
        Some(file) => Source::read(file)?,
        None => general::own_words(&engine, args.seed, &kept).await?,
    };
    let desk = Desk { entry: models::fetch(&model).await?, args, folder, experts, general };
    let mut outcome = tokio::task::spawn_blocking(move || desk.make()).await??;
    outcome.measure(&engine).await?;
    run::keep(&kept.join("result.json"), &outcome)?;
    screen::show(json, &outcome, &outcome)
}

impl Expert {
    /// The engine takes it up, too, so that what it gives alone can be measured; one of another base is refused here.
    fn new(engine: &Engine, folder: &Path, name: &str, data: &Path) -> anyhow::Result<Self> {
        let file = folder.join(format!("{name}.safetensors"));
        let digest = models::digest(file.clone()).with_context(|| format!("there is no adapter {name}"))?;
        engine.add_adapter(name, &file, digest.clone())?;
        let opened = Adapter::open(&file)?;
        ensure!(!opened.is_module(), "--expert: {name} is a module of experts; name those that it was made of");
        let found = sets::find(data, None)?;
        let held_out = found.held_out.as_deref().map(Source::read).transpose()?;
        Ok(Self { name: name.to_owned(), digest, opened, data: Source::read(&found.data)?, held_out })
    }
}

impl Desk {
    /// Learns the router, writes the module, and lets the router choose on what is held out.
    fn make(self) -> anyhow::Result<Outcome> {
        let dev = device(self.args.threads)?;
        let mut model = Model::load(&dev, &self.entry.path, &|_, _| {})?;
        let (tokenizer, template) = engine::words(&mut model, &self.entry.path)?;
        let (all, context) = (model.spec().layers.len(), model.spec().context);
        let layer = self.args.layers.unwrap_or(all / LAYERS_PER_FREE);
        ensure!(layer < all, "--layers: {layer} leave none for the experts; the model has {all}");
        let Self { args, entry, folder, experts, general } = self;
        let longest = args.rows.min(context);
        let Kinds { learned, held_out, parts } =
            Kinds::new(experts, general, &Encoder::new(&tokenizer, template.as_ref()), longest)?;
        let states = |texts: &[Text]| {
            let mut states = States::new(&model, layer);
            texts.iter().for_each(|text| states.read(&dev, &model, &text.parts()));
            states
        };
        screen::note("Reading what the base makes of the documents");
        let seen = states(&Text::learned(&learned, LEARNED_FROM, context));
        let router = seen.learn(&dev, learned.len(), args.seed);
        let experts: Vec<String> = parts.iter().map(|part| part.name.clone()).collect();
        let mut rows = Row::all(&experts, &held_out, MEASURED, context);
        rows.iter_mut().for_each(|row| row.route(&router, states));
        let file = folder.join(format!("{}.safetensors", args.name));
        save_experts(&router, &parts, &about(&args.model(), &entry)?, &file)?;
        let adapter = format!("{}:{}", models::served_name(&args.model())?, args.name);
        Ok(Outcome { name: args.name, adapter, file, layer, experts, tokens: seen.iter().count(), rows })
    }
}

/// Documents of every kind, general text first, and the experts of the others.
struct Kinds {
    learned: Vec<Vec<Sample>>,
    held_out: Vec<Vec<Sample>>,
    parts: Vec<Part>,
}

impl Kinds {
    fn new(experts: Vec<Expert>, general: Source, encoder: &Encoder<'_>, longest: usize) -> anyhow::Result<Self> {
        let General { replayed, measured } = General::new(general, encoder, longest)?;
        let mut kinds = Self { learned: vec![replayed], held_out: vec![measured], parts: Vec::new() };
        for Expert { name, digest, opened, data, held_out } in experts {
            let documents = Documents::new(data, held_out, encoder, longest)?;
            if opened.about().get("data").is_some_and(|data| *data != documents.digest) {
                screen::note(format_args!("{name} learned from other documents than these"));
            }
            kinds.learned.push(documents.learned);
            kinds.held_out.push(documents.held_out);
            kinds.parts.push(Part { name, digest, adapter: opened });
        }
        Ok(kinds)
    }
}

/// What the file says of the module.
fn about(model: &str, entry: &Entry) -> anyhow::Result<BTreeMap<String, String>> {
    let about = [
        ("base", entry.digest()?),
        ("base_name", model.to_owned()),
        ("made_by", concat!("tessera ", env!("CARGO_PKG_VERSION")).to_owned()),
    ];
    Ok(about.map(|(key, value)| (key.to_owned(), value)).into())
}

/// What came of it.
#[derive(Debug, Serialize)]
struct Outcome {
    name: String,
    adapter: String,
    file: PathBuf,
    /// That the router stands in front of.
    layer: usize,
    experts: Vec<String>,
    /// That the router learned from.
    tokens: usize,
    rows: Vec<Row>,
}

impl Outcome {
    /// What models lose on what is held out: the base alone, adapters alone, and the module.
    async fn measure(&mut self, engine: &Engine) -> anyhow::Result<()> {
        engine.add_adapter(&self.name, &self.file, models::digest(self.file.clone())?)?;
        for row in &mut self.rows {
            row.measure(engine, &self.name, &self.experts).await?;
        }
        Ok(())
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, layer, tokens, experts, rows, .. } = self;
        writeln!(
            f,
            "{name} picks for every token in front of layer {layer}; its router learned from {tokens} of them"
        )?;
        writeln!(f, "{}", texts::table(experts, rows))?;
        writeln!(f, "{}", self.file.display())?;
        write!(f, "A running server takes it up by itself; requests name the model `{}`", self.adapter)
    }
}
