//! `tessera train`: what a model learns, from documents to a file that is served.

pub(crate) mod documents;
mod domain;
mod general;
mod plot;
mod rewrite;
pub(crate) mod run;
mod strength;

use std::{
    collections::BTreeMap,
    fmt, fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, ensure};
use clap::{Args, Subcommand};
use data::Form;
use engine::Engine;
use hub::{Entry, Kind};
use kernels::{Device, Precision};
use model::Model;
use protocol::Capabilities;
use serde::Serialize;
use train::{Dropout, FoundDomain, Learned, Length, Lora, Network, Plan, Replay, Trainer, save_adapter};

use crate::{
    adapters,
    data::sets,
    model::{self as models, EngineArgs},
    screen,
};
use documents::{Documents, Source};
use domain::{Located, Routing};
use general::General;
use run::Run;
use strength::Curve;

/// A step replays one general text for so many documents that it learns.
const LEARNED_PER_REPLAYED: usize = 4;

/// Options of `train`.
#[derive(Debug, Args)]
pub(crate) struct TrainArgs {
    #[command(subcommand)]
    verb: TrainVerb,
}

/// What to train.
#[derive(Debug, Subcommand)]
enum TrainVerb {
    /// An adapter beside a model that stays as it is; requests then call MODEL:NAME
    Lora(LoraArgs),
    /// Draw runs as an SVG: loss, held-out loss, learning rate and speed over the steps
    Plot(plot::PlotArgs),
}

/// Options of `train lora`.
#[derive(Debug, Args)]
pub(crate) struct LoraArgs {
    /// What to learn, a JSON object a line: {"messages": [..]} as OpenAI's fine-tuning has them, {"prompt": "..", "completion": ".."}, or
    /// {"text": ".."}; or a set of `tessera data build` by its name
    #[arg(short, long, value_name = "FILE|NAME[@DIGEST]")]
    data: PathBuf,
    /// What to measure by and not to learn, in the same form [default: a tenth of --data, or what the set holds out]
    #[arg(long, value_name = "FILE")]
    held_out: Option<PathBuf>,
    /// The model that it stands beside: a catalogue name, hf:owner/name/file, pypi:package==version/member, or a path [default: smollm2]
    #[arg(short, long, value_name = "MODEL")]
    model: Option<String>,
    /// The adapter's name
    #[arg(short, long, value_name = "NAME")]
    name: String,
    /// Folder to put it into; a running server looks there [default: ~/.local/share/tessera/adapters]
    #[arg(long, value_name = "DIR", env = "TESSERA_ADAPTERS")]
    adapters: Option<PathBuf>,
    /// Columns of the adapter's waist: how much it can learn
    #[arg(long, value_name = "N", default_value_t = 8)]
    rank: usize,
    /// While it learns it is added alpha / rank times; with which alpha it is served is decided by what it forgets [default: twice the rank]
    #[arg(long, value_name = "X")]
    alpha: Option<f32>,
    /// How far the model may drift from what it was, in nats a token of general text; 0 lets it forget, and serves alpha as it is
    #[arg(long, value_name = "NATS", default_value_t = 0.01)]
    budget: f32,
    /// General text that it shall go on to say as before, in the form of --data [default: what the model says to some general prompts]
    #[arg(long, value_name = "FILE")]
    replay: Option<PathBuf>,
    /// Learn answers of chats in the model's own words, where these still say what the answer says
    #[arg(long)]
    rewrite: bool,
    /// How often every document is learned
    #[arg(long, value_name = "X", default_value_t = 3.0)]
    epochs: f64,
    /// Documents of a step
    #[arg(long, value_name = "N", default_value_t = 16)]
    batch: usize,
    /// The highest learning rate
    #[arg(long, value_name = "X", default_value_t = 1e-3)]
    rate: f32,
    /// Tokens that memory holds at the same time, and the longest document
    #[arg(long, value_name = "TOKENS", default_value_t = 2048)]
    rows: usize,
    /// Share of the adapter's inputs left out at random while it learns
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    dropout: f32,
    /// Of the order of documents and the first numbers
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Threads for the arithmetic; 0 takes one per core
    #[arg(long, value_name = "N", default_value_t = 0)]
    threads: usize,
    /// Begin anew, though an interrupted run of this name could go on
    #[arg(long)]
    fresh: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// What came of it.
#[derive(Debug, Serialize)]
struct Outcome {
    adapter: String,
    file: PathBuf,
    base: String,
    documents: usize,
    held_out: usize,
    left_out: usize,
    steps: u64,
    tokens: u64,
    seconds: f64,
    rewritten: usize,
    held_out_loss_before: f64,
    held_out_loss: f64,
    /// How far it drifted on the general text that it was held to, at the strength that learned.
    drift: Option<f64>,
    alpha: f32,
    curve: Option<Curve>,
    /// How `MODEL:auto` tells its prompts from others.
    routing: Option<Routing>,
}

/// What a run learns from, before it is laid out.
struct Lesson {
    data: Source,
    held_out: Option<Source>,
    general: Option<Source>,
    /// Documents in other words, by their lines.
    rewritten: BTreeMap<usize, Form>,
    located: Located,
    folder: PathBuf,
    /// The data set that it is.
    set: Option<String>,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} learned {} documents in {} steps, {:.0} s ({:.0} tokens/s)",
            self.adapter,
            self.documents,
            self.steps,
            self.seconds,
            self.tokens as f64 / self.seconds.max(1e-9)
        )?;
        writeln!(
            f,
            "loss on {} others: {:.3} before, {:.3} now",
            self.held_out, self.held_out_loss_before, self.held_out_loss
        )?;
        if let Some(curve) = &self.curve {
            writeln!(f, "{curve}")?;
        }
        if let Some(Routing { found, mistaken, .. }) = &self.routing {
            let [found, mistaken] = [found, mistaken].map(|share| 100.0 * share);
            writeln!(
                f,
                "MODEL:auto finds it for {found:.0} % of the others, and takes it for {mistaken:.0} % of general prompts"
            )?;
        }
        write!(
            f,
            "{}\nA running server takes it up by itself; requests name the model `{}`",
            self.file.display(),
            self.adapter
        )
    }
}

pub(crate) async fn run(args: TrainArgs) -> anyhow::Result<()> {
    match args.verb {
        TrainVerb::Lora(args) => lora(args).await,
        TrainVerb::Plot(args) => plot::run(&args),
    }
}

async fn lora(args: LoraArgs) -> anyhow::Result<()> {
    args.check()?;
    let name = args.model.clone().unwrap_or_else(|| models::default_name(Kind::Chat));
    ensure!(!models::has_adapter(&name), "--model: {name} has an adapter; another one stands beside the model alone");
    let entry = models::fetch(&name).await?;
    let lesson = args.lesson(&name).await?;
    let (json, stop) = (args.json, run::Stop::default());
    let stopped = stop.clone();
    let work = tokio::task::spawn_blocking(move || learn(&args, &name, &entry, lesson, &stopped));
    let outcome = run::unless_interrupted(work, &stop).await?;
    match outcome {
        Some(outcome) => screen::show(json, &outcome, &outcome),
        None => Ok(()),
    }
}

/// So many threads, or one per core for 0.
pub(crate) fn device(threads: usize) -> anyhow::Result<Device> {
    Ok(Device::new(if threads == 0 { std::thread::available_parallelism()?.get() } else { threads }))
}

/// From documents to an adapter; `None` if it was stopped on the way.
fn learn(
    args: &LoraArgs,
    name: &str,
    entry: &Entry,
    lesson: Lesson,
    stop: &run::Stop,
) -> anyhow::Result<Option<Outcome>> {
    let folder = lesson.folder.clone();
    let mut course = Course::new(args, entry, lesson)?;
    // In front of an interrupted run's numbers: it is the base that is measured.
    let before = course.loss()?;
    let run = Run::open(&course.dev, &mut course.trainer, &folder, args.fresh)?;
    let mut run = run.measuring(&course.documents.held_out, before)?;
    screen::note(format_args!("Held-out loss before learning: {before:.3}; Ctrl-C stops and keeps what was learned"));
    let Some(report) = run.finish(&course.dev, stop)? else { return Ok(None) };
    run.measure(&course.dev)?;
    let outcome = course.conclude(args, name, (before, &report))?;
    run::keep(&folder.join("result.json"), &outcome)?;
    run::clear(&folder)?;
    plot::write(std::slice::from_ref(&folder), &folder.join("plot.svg"))?;
    Ok(Some(outcome))
}

/// A run with all that it needs from its first step to its outcome.
struct Course {
    dev: Device,
    trainer: Trainer,
    base: String,
    documents: Documents,
    rewritten: usize,
    general: Option<General>,
    located: Located,
    set: Option<String>,
}

impl Course {
    fn new(args: &LoraArgs, entry: &Entry, lesson: Lesson) -> anyhow::Result<Self> {
        let dev = device(args.threads)?;
        let mut model = Model::load(&dev, &entry.path, &|_, _| {})?;
        let (tokenizer, template) = engine::words(&mut model, &entry.path)?;
        let encoder = data::Encoder::new(&tokenizer, template.as_ref());
        let longest = args.rows.min(model.spec().context) + 1;
        let Lesson { data, held_out, general, rewritten, located, set, .. } = lesson;
        let mut documents = Documents::new(data, held_out, &encoder, longest)?;
        let rewritten = documents.rewrite(&rewritten, &encoder, longest);
        let general = general.map(|general| General::new(general, &encoder, longest)).transpose()?;
        let base = entry.digest()?;
        let mut trainer = args.trainer(&dev, &model, &documents, &base)?;
        drop(model);
        if let Some(general) = &general {
            trainer = trainer.replaying(&dev, general.replayed.clone())?;
        }
        Ok(Self { dev, trainer, base, documents, rewritten, general, located, set })
    }

    fn loss(&mut self) -> anyhow::Result<f64> {
        Ok(self.trainer.evaluate(&self.dev, &self.documents.held_out)?)
    }

    /// Decides with what strength the adapter is served, where there is general text to decide by.
    fn curve(&mut self, alpha: f32) -> anyhow::Result<Option<Curve>> {
        let Self { dev, trainer, documents, general, .. } = self;
        let Some(general) = general else { return Ok(None) };
        Curve::measure(dev, trainer, alpha, (&documents.held_out, &general.measured)).map(Some)
    }

    /// Behind the last step: the adapter's file, and what came of it.
    fn conclude(
        mut self,
        args: &LoraArgs,
        name: &str,
        (before, report): (f64, &run::Report),
    ) -> anyhow::Result<Outcome> {
        let drift = self.general.is_some().then(|| self.trainer.drift(&self.dev));
        let curve = self.curve(args.alpha())?;
        let loss = self.loss()?;
        let found = self.located.domain(&self.documents);
        let Self { dev, trainer, documents, base, rewritten, set, .. } = self;
        let about = about(name, &base, (&documents, set), (loss, curve.as_ref()));
        Ok(Outcome {
            adapter: format!("{}:{}", models::served_name(name)?, args.name),
            file: args.save(&trainer.finish(&dev), found.as_ref(), &about)?,
            base,
            documents: documents.learned.len(),
            held_out: documents.held_out.len(),
            left_out: documents.left_out,
            steps: report.steps,
            tokens: report.tokens,
            seconds: report.seconds,
            rewritten,
            held_out_loss_before: before,
            held_out_loss: loss,
            drift,
            alpha: curve.as_ref().map_or(args.alpha(), |curve| curve.chosen.alpha),
            curve,
            routing: found.as_ref().map(Routing::from),
        })
    }
}

impl LoraArgs {
    fn check(&self) -> anyhow::Result<()> {
        ensure!(adapters::is_name(&self.name), "--name: letters, digits, `-`, `_` and `.`, such as credit-2");
        ensure!(self.name != engine::AUTO, "--name: `{}` lets prompts choose among adapters", engine::AUTO);
        ensure!((1..=kernels::MOST_RANKS).contains(&self.rank), "--rank must be 1 to {}", kernels::MOST_RANKS);
        ensure!(self.budget.is_finite() && self.budget >= 0.0, "--budget must not be below 0");
        let unused = self.replay.is_some() && self.budget == 0.0;
        ensure!(!unused, "--replay is for a --budget above 0: with 0 nothing holds the model to what it was");
        Ok(())
    }

    fn alpha(&self) -> f32 {
        self.alpha.unwrap_or(2.0 * self.rank as f32)
    }

    /// Reads what is learned, and lets the model say what it has to say of its own.
    async fn lesson(&self, name: &str) -> anyhow::Result<Lesson> {
        let found = sets::find(&self.data, self.held_out.as_deref())?;
        let (data, held_out) = (Source::read(&found.data)?, found.held_out.as_deref().map(Source::read).transpose()?);
        let folder = run::folder(&self.name)?;
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let engine = models::load(name, &EngineArgs { threads: Some(self.threads), ..EngineArgs::default() }).await?;
        let writes = engine.card().capabilities != Capabilities::default();
        ensure!(writes, "{name} is an embedding model: it writes nothing that could be learned");
        let located = Located::new(&engine, &data, held_out.as_ref()).await?;
        let general = self.general(&engine, &folder).await?;
        let rewritten = match self.rewrite {
            true => rewrite::own_words(&engine, &data.documents, &folder).await?,
            false => BTreeMap::new(),
        };
        Ok(Lesson { data, held_out, general, rewritten, located, folder, set: found.set })
    }

    /// What holds the model to what it was, if anything shall.
    async fn general(&self, engine: &Arc<Engine>, folder: &Path) -> anyhow::Result<Option<Source>> {
        match &self.replay {
            Some(file) => Source::read(file).map(Some),
            None if self.budget > 0.0 => general::own_words(engine, self.seed, folder).await.map(Some),
            None => Ok(None),
        }
    }

    fn trainer(&self, dev: &Device, model: &Model, documents: &Documents, base: &str) -> anyhow::Result<Trainer> {
        let lora = Lora { rank: self.rank, alpha: self.alpha(), seed: self.seed };
        let plan = Plan {
            length: Length::Epochs(self.epochs),
            rows: self.rows,
            samples: self.batch,
            rate: self.rate,
            decay: 0.0,
            dropout: Dropout { adapters: self.dropout, ..Dropout::default() },
            // Without texts to hold to, neither number counts.
            replay: Replay {
                samples: self.batch.div_ceil(LEARNED_PER_REPLAYED),
                budget: if self.budget > 0.0 { self.budget } else { Replay::default().budget },
            },
            seed: self.seed,
            checkpoint: 20,
            ..Plan::default()
        };
        let network = Network::new(dev, model, Learned::Adapters(lora), Precision::Bf16);
        Ok(Trainer::new(network, plan, documents.learned.clone(), base)?)
    }

    fn save(
        &self,
        network: &Network,
        found: Option<&FoundDomain>,
        about: &BTreeMap<String, String>,
    ) -> anyhow::Result<PathBuf> {
        let folder = self.adapters.clone().map_or_else(adapters::usual_place, Ok)?;
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let file = folder.join(format!("{}.safetensors", self.name));
        save_adapter(network, found.map(|found| &found.domain), about, &file)?;
        Ok(file)
    }
}

/// What the file says of the adapter.
fn about(
    model: &str,
    base: &str,
    (documents, set): (&Documents, Option<String>),
    (loss, curve): (f64, Option<&Curve>),
) -> BTreeMap<String, String> {
    let forgetting = curve.map(|curve| ("forgetting", format!("{:.5}", curve.chosen.forgetting)));
    let about = [
        ("base", base.to_owned()),
        ("base_name", model.to_owned()),
        ("data", documents.digest.clone()),
        ("documents", documents.learned.len().to_string()),
        ("held_out_loss", format!("{loss:.4}")),
        ("made_by", concat!("tessera ", env!("CARGO_PKG_VERSION")).to_owned()),
    ];
    let set = set.map(|set| (sets::KEY, set));
    about.into_iter().chain(forgetting).chain(set).map(|(key, value)| (key.to_owned(), value)).collect()
}
