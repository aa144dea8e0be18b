//! `tessera train full`: all weights of a model learn, in one process or spread over several, and become a model of their own.

use std::{collections::BTreeMap, fmt, fs, path::PathBuf};

use anyhow::{Context, ensure};
use clap::{Args, ValueEnum};
use hub::Entry;
use kernels::{Device, Precision};
use model::Model;
use serde::Serialize;
use serde_json::{Value, json};
use train::{Bits, Cut, Files, Group, Learned, Network, Plan, Stage, Student};

use super::course::{Course, Lesson, Pupil};
use crate::{compose, screen};

/// Options of `train full`.
#[derive(Debug, Args)]
pub(crate) struct FullArgs {
    #[command(flatten)]
    course: Course,
    /// Folder to put the model into [default: ~/.local/share/tessera/trained/NAME]
    #[arg(short, long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// The highest learning rate
    #[arg(long, value_name = "X", default_value_t = 1e-4)]
    rate: f32,
    /// In what products are computed; sums and the weights themselves are f32. f16 is for checkpoints that were made in it: as slow as f32, gradients scaled
    /// as far as its range goes
    #[arg(long, value_enum, default_value_t = Numbers::Bf16)]
    precision: Numbers,
    /// Recompute layers on the way back: less memory for a third more work, and the same bits
    #[arg(long)]
    recompute: bool,
    /// Spread the run over the processes that mpirun starts (ZeRO): 1 the optimizer's means, 2 also gradients, 3 also weights
    #[arg(long, value_name = "STAGE", value_parser = clap::value_parser!(u8).range(1..=3))]
    zero: Option<u8>,
}

/// What products are computed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Numbers {
    F32,
    Bf16,
    F16,
}

impl Numbers {
    fn precision(self) -> Precision {
        match self {
            Self::F32 => Precision::F32,
            Self::Bf16 => Precision::Bf16,
            Self::F16 => Precision::F16,
        }
    }

    /// How weights are written: what learned in f16 need not fit into bf16's fewer bits.
    fn bits(self) -> Bits {
        if self == Self::F16 { Bits::F16 } else { Bits::Bf16 }
    }
}

/// A model whose weights all learn.
pub(super) struct Full {
    args: FullArgs,
    group: Option<Group>,
    /// Of the tokenizer.
    written: [Value; 2],
}

impl Full {
    /// Connects with the other processes, if there shall be any; all but the first have nothing to say from now on.
    pub(super) fn new(args: FullArgs) -> anyhow::Result<(Self, Lesson)> {
        let group = args.zero.map(|_| group()).transpose()?;
        if group.as_ref().is_some_and(|group| group.rank() > 0) {
            screen::hush();
        }
        let lesson = args.course.lesson()?;
        Ok((Self { args, group, written: Default::default() }, lesson))
    }
}

#[cfg(feature = "mpi")]
fn group() -> anyhow::Result<Group> {
    Ok(Group::open(train::Mpi::connect)?)
}

#[cfg(not(feature = "mpi"))]
fn group() -> anyhow::Result<Group> {
    anyhow::bail!("--zero needs MPI, which this program was built without: cargo build --release -p cli --features mpi")
}

/// What is told of a model.
#[derive(Debug, Serialize)]
pub(super) struct Told {
    folder: PathBuf,
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let folder = self.folder.display();
        write!(f, "{folder}\nIt is served by `tessera serve --model {folder}`")
    }
}

impl Pupil for Full {
    type Told = Told;

    fn course(&self) -> &Course {
        &self.args.course
    }

    fn plan(&self) -> Plan {
        Plan { rate: self.args.rate, decay: 0.01, ..self.args.course.plan() }
    }

    fn network(&mut self, dev: &Device, model: &Model, entry: &Entry) -> anyhow::Result<Network> {
        let encoder = model.spec().encoder;
        ensure!(!encoder, "{} is an embedding model: it writes nothing that could be learned", self.course().model());
        // What cannot be written at the end is refused here.
        model::hugging_face_config(model.spec(), false)?;
        self.written = engine::tokenizer_files(model, &entry.path)?;
        let precision = self.args.precision.precision();
        let mut network = match (self.group.take(), self.args.zero) {
            (Some(group), Some(zero)) => {
                let stage = [Stage::States, Stage::Gradients, Stage::Weights][usize::from(zero) - 1];
                Network::spread((dev, precision), model, Learned::All, group, stage)
            }
            _ => Network::new(dev, model, Learned::All, precision),
        };
        network.recompute(self.args.recompute);
        Ok(network)
    }

    fn save(&mut self, network: &Network, about: BTreeMap<String, String>) -> anyhow::Result<Told> {
        let usual = || Ok(compose::home("XDG_DATA_HOME", ".local/share")?.join("trained").join(&self.args.course.name));
        let folder = self.args.out.clone().map_or_else(usual, anyhow::Ok)?;
        if let Some(parent) = folder.parent() {
            fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        }
        let [tokenizer, tokenizer_config] = std::mem::take(&mut self.written);
        ensure!(tokenizer.is_object(), "the tokenizer cannot be written");
        let files = Files { tokenizer, tokenizer_config, card: json!(about) };
        Student::new(network, &Cut::nothing(network.spec()))?.save(self.args.precision.bits(), &files, &folder)?;
        Ok(Told { folder })
    }
}
