//! `tessera train`: what a model learns, from documents to a file that is served.

pub(crate) mod documents;
pub(crate) mod run;

use std::{collections::BTreeMap, fmt, fs, path::PathBuf};

use anyhow::{Context, ensure};
use clap::{Args, Subcommand};
use hub::{Entry, Kind};
use kernels::{Device, Precision};
use model::Model;
use serde::Serialize;
use train::{Dropout, Learned, Length, Lora, Network, Plan, Trainer, save_adapter};

use crate::{adapters, compose, data::sets, model as models, screen};
use documents::{Documents, Source};
use run::Run;

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
    /// It is added alpha / rank times [default: twice the rank]
    #[arg(long, value_name = "X")]
    alpha: Option<f32>,
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
    held_out_loss_before: f64,
    held_out_loss: f64,
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
    }
}

async fn lora(args: LoraArgs) -> anyhow::Result<()> {
    ensure!(adapters::is_name(&args.name), "--name: letters, digits, `-`, `_` and `.`, such as credit-2");
    ensure!((1..=kernels::MOST_RANKS).contains(&args.rank), "--rank must be 1 to {}", kernels::MOST_RANKS);
    let name = args.model.clone().unwrap_or_else(|| models::default_name(Kind::Chat));
    let entry = models::fetch(&name).await?;
    let (json, stop) = (args.json, run::Stop::default());
    let stopped = stop.clone();
    let work = tokio::task::spawn_blocking(move || learn(&args, &name, &entry, &stopped));
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
fn learn(args: &LoraArgs, name: &str, entry: &Entry, stop: &run::Stop) -> anyhow::Result<Option<Outcome>> {
    let dev = device(args.threads)?;
    let mut model = Model::load(&dev, &entry.path, &|_, _| {})?;
    ensure!(!model.spec().encoder, "{name} is an embedding model: it writes nothing that could be learned");
    let (tokenizer, template) = engine::words(&mut model, &entry.path)?;
    let encoder = data::Encoder::new(&tokenizer, template.as_ref());
    let longest = args.rows.min(model.spec().context) + 1;
    let found = sets::find(&args.data, args.held_out.as_deref())?;
    let held_out = found.held_out.as_deref().map(Source::read).transpose()?;
    let documents = Documents::new(Source::read(&found.data)?, held_out, &encoder, longest)?;
    let base = entry.digest()?;
    let mut trainer = args.trainer(&dev, &model, &documents, &base)?;
    drop(model);
    let folder = compose::home("XDG_DATA_HOME", ".local/share")?.join("runs").join(&args.name);
    // In front of an interrupted run's numbers: it is the base that is measured.
    let before = trainer.evaluate(&dev, &documents.held_out)?;
    let mut run = Run::open(&dev, &mut trainer, &folder, args.fresh)?;
    screen::note(format_args!("Held-out loss before learning: {before:.3}; Ctrl-C stops and keeps what was learned"));
    let Some(report) = run.finish(&dev, stop)? else { return Ok(None) };
    let held_out_loss = run.trainer().evaluate(&dev, &documents.held_out)?;
    let network = trainer.finish(&dev);
    let adapter = format!("{}:{}", models::served_name(name)?, args.name);
    let file = args.save(&network, &about(name, &base, (&documents, found.set), held_out_loss))?;
    run::clear(&folder)?;
    Ok(Some(Outcome {
        adapter,
        file,
        base,
        documents: documents.learned.len(),
        held_out: documents.held_out.len(),
        left_out: documents.left_out,
        steps: report.steps,
        tokens: report.tokens,
        seconds: report.seconds,
        held_out_loss_before: before,
        held_out_loss,
    }))
}

impl LoraArgs {
    fn trainer(&self, dev: &Device, model: &Model, documents: &Documents, base: &str) -> anyhow::Result<Trainer> {
        let lora = Lora { rank: self.rank, alpha: self.alpha.unwrap_or(2.0 * self.rank as f32), seed: self.seed };
        let plan = Plan {
            length: Length::Epochs(self.epochs),
            rows: self.rows,
            samples: self.batch,
            rate: self.rate,
            decay: 0.0,
            dropout: Dropout { adapters: self.dropout, ..Dropout::default() },
            seed: self.seed,
            checkpoint: 20,
            ..Plan::default()
        };
        let network = Network::new(dev, model, Learned::Adapters(lora), Precision::Bf16);
        Ok(Trainer::new(network, plan, documents.learned.clone(), base)?)
    }

    fn save(&self, network: &Network, about: &BTreeMap<String, String>) -> anyhow::Result<PathBuf> {
        let folder = self.adapters.clone().map_or_else(adapters::usual_place, Ok)?;
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let file = folder.join(format!("{}.safetensors", self.name));
        save_adapter(network, about, &file)?;
        Ok(file)
    }
}

/// What the file says of the adapter.
fn about(
    model: &str,
    base: &str,
    (documents, set): (&Documents, Option<String>),
    loss: f64,
) -> BTreeMap<String, String> {
    let about = [
        ("base", base.to_owned()),
        ("base_name", model.to_owned()),
        ("data", documents.digest.clone()),
        ("documents", documents.learned.len().to_string()),
        ("held_out_loss", format!("{loss:.4}")),
        ("made_by", concat!("tessera ", env!("CARGO_PKG_VERSION")).to_owned()),
    ];
    let set = set.map(|set| (sets::KEY, set));
    about.into_iter().chain(set).map(|(key, value)| (key.to_owned(), value)).collect()
}
