//! `tessera train lora`: an adapter learns beside a model that stays as it is, held to what that was, and found by its prompts.

use std::{
    collections::BTreeMap,
    fmt, fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, ensure};
use clap::Args;
use data::{Encoder, Form};
use engine::Engine;
use hub::Entry;
use kernels::{Device, Precision};
use model::Model;
use protocol::Capabilities;
use serde::Serialize;
use train::{Dropout, FoundDomain, Learned, Lora, Network, Plan, Replay, Sample, Trainer, save_adapter};

use super::{
    course::{Course, Lesson, Pupil},
    documents::{Documents, Source},
    domain::{Located, Routing},
    general::{self, General},
    rewrite,
    strength::{Curve, Limits},
};
use crate::{
    adapters,
    model::{self as models, EngineArgs},
};

/// A step replays one general text for so many documents that it learns.
const LEARNED_PER_REPLAYED: usize = 4;

/// Options of `train lora`.
#[derive(Debug, Args)]
pub(crate) struct LoraArgs {
    #[command(flatten)]
    course: Course,
    /// Folder to put it into; a running server looks there [default: ~/.local/share/tessera/adapters]
    #[arg(long, value_name = "DIR", env = "TESSERA_ADAPTERS")]
    adapters: Option<PathBuf>,
    /// Columns of the adapter's waist: how much it can learn
    #[arg(long, value_name = "N", default_value_t = 8)]
    rank: usize,
    /// While it learns it is added alpha / rank times; with which alpha it is served is decided by what it forgets [default: twice the rank]
    #[arg(long, value_name = "X")]
    alpha: Option<f32>,
    /// How far the model may drift from what it was, in nats a token of general text, when it is served; 0 lets it forget, and serves alpha as it is
    #[arg(long, value_name = "NATS", default_value_t = 0.03)]
    budget: f32,
    /// By what share the perplexity of general text may rise when it is served: what answers in its domain only may forget more elsewhere
    #[arg(long, value_name = "SHARE", default_value_t = 0.01)]
    forgetting: f64,
    /// General text that it shall go on to say as before, in the form of --data [default: what the model says to some general prompts]
    #[arg(long, value_name = "FILE")]
    replay: Option<PathBuf>,
    /// Learn answers of chats in the model's own words, where these still say what the answer says
    #[arg(long)]
    rewrite: bool,
    /// The highest learning rate
    #[arg(long, value_name = "X", default_value_t = 1e-3)]
    rate: f32,
    /// Share of the adapter's inputs left out at random while it learns
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    dropout: f32,
}

impl LoraArgs {
    fn check(&self) -> anyhow::Result<()> {
        ensure!(self.course.name != engine::AUTO, "--name: `{}` lets prompts choose among adapters", engine::AUTO);
        ensure!((1..=kernels::MOST_RANKS).contains(&self.rank), "--rank must be 1 to {}", kernels::MOST_RANKS);
        ensure!(self.budget.is_finite() && self.budget >= 0.0, "--budget must not be below 0");
        ensure!(self.forgetting.is_finite() && self.forgetting >= 0.0, "--forgetting must not be below 0");
        let unused = self.replay.is_some() && self.budget == 0.0;
        ensure!(!unused, "--replay is for a --budget above 0: with 0 nothing holds the model to what it was");
        Ok(())
    }

    fn alpha(&self) -> f32 {
        self.alpha.unwrap_or(2.0 * self.rank as f32)
    }

    /// What holds the model to what it was, if anything shall.
    async fn general(&self, engine: &Arc<Engine>, folder: &Path) -> anyhow::Result<Option<Source>> {
        match &self.replay {
            Some(file) => Source::read(file).map(Some),
            None if self.budget > 0.0 => general::own_words(engine, self.course.seed, folder).await.map(Some),
            None => Ok(None),
        }
    }
}

/// An adapter that learns, with what its base says of the documents before.
pub(super) struct Neighbour {
    args: LoraArgs,
    general: Option<Source>,
    /// Documents in other words, by their lines.
    retold: BTreeMap<usize, Form>,
    located: Located,
    rewritten: usize,
    /// Kinds of text to measure by what was forgotten; none where it may forget.
    measured: Vec<Vec<Sample>>,
    curve: Option<Curve>,
    found: Option<FoundDomain>,
}

impl Neighbour {
    /// Reads what is learned, and lets the model say what it has to say of its own.
    pub(super) async fn new(args: LoraArgs) -> anyhow::Result<(Self, Lesson)> {
        args.check()?;
        let lesson = args.course.lesson()?;
        let (name, Lesson { data, held_out, folder, .. }) = (args.course.model(), &lesson);
        let engine = EngineArgs { threads: Some(args.course.threads), ..EngineArgs::default() };
        let engine = models::load(&name, &engine).await?;
        let writes = engine.card().capabilities != Capabilities::default();
        ensure!(writes, "{name} is an embedding model: it writes nothing that could be learned");
        let located = Located::new(&engine, data, held_out.as_ref()).await?;
        let general = args.general(&engine, folder).await?;
        let retold = match args.rewrite {
            true => rewrite::own_words(&engine, &data.documents, folder).await?,
            false => BTreeMap::new(),
        };
        let (rewritten, measured, curve, found) = Default::default();
        Ok((Self { args, general, retold, located, rewritten, measured, curve, found }, lesson))
    }
}

/// What is told of an adapter.
#[derive(Debug, Serialize)]
pub(super) struct Told {
    adapter: String,
    file: PathBuf,
    rewritten: usize,
    /// How far it drifted on the general text that it was held to, at the strength that is served.
    drift: Option<f64>,
    alpha: f32,
    curve: Option<Curve>,
    /// How `MODEL:auto` tells its prompts from others.
    routing: Option<Routing>,
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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
        writeln!(f, "{}", self.file.display())?;
        write!(f, "A running server takes it up by itself; requests name the model `{}`", self.adapter)
    }
}

impl Pupil for Neighbour {
    type Told = Told;

    fn course(&self) -> &Course {
        &self.args.course
    }

    fn plan(&self) -> Plan {
        let LoraArgs { course, rate, dropout, budget, .. } = &self.args;
        let plan = course.plan();
        Plan {
            rate: *rate,
            decay: 0.0,
            dropout: Dropout { adapters: *dropout, ..Dropout::default() },
            // Without texts to hold to, neither number counts.
            replay: Replay {
                samples: plan.samples.div_ceil(LEARNED_PER_REPLAYED),
                budget: if *budget > 0.0 { *budget } else { Replay::default().budget },
            },
            ..plan
        }
    }

    fn network(&mut self, dev: &Device, model: &Model, _: &Entry) -> anyhow::Result<Network> {
        let lora = Lora { rank: self.args.rank, alpha: self.args.alpha(), seed: self.args.course.seed };
        Ok(Network::new(dev, model, Learned::Adapters(lora), Precision::Bf16))
    }

    fn prepare(
        &mut self,
        documents: &mut Documents,
        encoder: &Encoder<'_>,
        longest: usize,
    ) -> anyhow::Result<Vec<Sample>> {
        self.rewritten = documents.rewrite(&self.retold, encoder, longest);
        let Some(general) = self.general.take() else { return Ok(Vec::new()) };
        let General { replayed, measured } = General::new(general, encoder, longest)?;
        self.measured.push(measured);
        if self.args.replay.is_none() {
            let passages = general::passages(encoder, longest)?;
            self.measured.extend((!passages.is_empty()).then_some(passages));
        }
        Ok(replayed)
    }

    fn settle(&mut self, dev: &Device, trainer: &mut Trainer, documents: &Documents) -> anyhow::Result<Option<f64>> {
        self.found = self.located.domain(documents);
        if self.measured.is_empty() {
            return Ok(None);
        }
        let LoraArgs { budget, forgetting, .. } = &self.args;
        let limits = Limits { budget: f64::from(*budget), forgetting: *forgetting };
        let curve = Curve::measure(dev, trainer, (self.args.alpha(), limits), (&documents.held_out, &self.measured))?;
        Ok(Some(self.curve.insert(curve).chosen.domain_loss))
    }

    fn save(&mut self, network: &Network, mut about: BTreeMap<String, String>) -> anyhow::Result<Told> {
        let LoraArgs { course, adapters, .. } = &self.args;
        let curve = self.curve.take();
        about.extend(curve.iter().map(|curve| ("forgetting".to_owned(), format!("{:.5}", curve.chosen.forgetting))));
        let folder = adapters.clone().map_or_else(adapters::usual_place, Ok)?;
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let file = folder.join(format!("{}.safetensors", course.name));
        save_adapter(network, self.found.as_ref().map(|found| &found.domain), &about, &file)?;
        Ok(Told {
            adapter: format!("{}:{}", models::served_name(&course.model())?, course.name),
            file,
            rewritten: self.rewritten,
            drift: curve.as_ref().map(|curve| curve.chosen.drift),
            alpha: curve.as_ref().map_or(self.args.alpha(), |curve| curve.chosen.alpha),
            curve,
            routing: self.found.as_ref().map(Routing::from),
        })
    }
}
