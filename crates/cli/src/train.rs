//! `tessera train`: what a model learns, from documents to a file that is served.

mod course;
pub(crate) mod documents;
mod domain;
mod experts;
mod full;
mod general;
mod lora;
mod plot;
mod rewrite;
pub(crate) mod run;
mod strength;
mod texts;

use clap::{Args, Subcommand};
use kernels::Device;

use experts::ExpertsArgs;
use full::{Full, FullArgs};
use lora::{LoraArgs, Neighbour};

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
    /// A module of adapters that were learned apart: a router picks one of them, or none, for every token; requests then call MODEL:NAME
    Experts(ExpertsArgs),
    /// All weights of a model, in one process or over MPI in several
    Full(FullArgs),
    /// Draw runs as an SVG: loss, held-out loss, learning rate and speed over the steps
    Plot(plot::PlotArgs),
}

pub(crate) async fn run(args: TrainArgs) -> anyhow::Result<()> {
    match args.verb {
        TrainVerb::Lora(args) => {
            let (pupil, lesson) = Neighbour::new(args).await?;
            course::take(pupil, lesson).await
        }
        TrainVerb::Full(args) => {
            let (pupil, lesson) = Full::new(args)?;
            course::take(pupil, lesson).await
        }
        TrainVerb::Experts(args) => experts::make(args).await,
        TrainVerb::Plot(args) => plot::run(&args),
    }
}

/// So many threads, or one per core for 0.
pub(crate) fn device(threads: usize) -> anyhow::Result<Device> {
    Ok(Device::new(if threads == 0 { std::thread::available_parallelism()?.get() } else { threads }))
}
