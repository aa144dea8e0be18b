//! The one binary, `tessera`: reads what the user typed, puts the other rooms together, runs.
//!
//! Every verb is a file: its options as a clap struct and its `run`. [`model`] turns a name into a loaded engine with progress
//! on the terminal, [`elsewhere`] puts services together that are not in this process, [`screen`] is the only place that writes
//! to the terminal. Results go to stdout (as JSON with `--json`), everything else to stderr.
//!
//! Invariant: no logic of its own; no secret is printed or logged.

mod adapters;
mod answers;
mod args;
mod asked;
mod audit;
mod bench;
mod cascades;
mod chat;
mod circle;
mod compose;
mod config;
mod data;
mod decide;
mod distill;
mod elsewhere;
mod embed;
mod eval;
mod generate;
mod keys;
mod model;
mod models;
mod remote;
mod rollout;
mod sampling;
mod screen;
mod serve;
mod size;
mod solve;
mod students;
mod train;
mod up;

use std::{io, process::ExitCode};

use clap::Parser;
use tracing_subscriber::EnvFilter;

use args::{Cli, Verb};

/// A request is some hundreds of small allocations, and most are freed by another thread: glibc's takes a fifth of a gateway's time
/// over them (docs/results/services.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The exit code of a command line that cannot be understood, as clap has it.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version end here too; nothing can be done about a terminal that is gone.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS };
        }
    };
    log_to_stderr();
    match start(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            screen::note(format_args!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn start(cli: Cli) -> anyhow::Result<()> {
    // Before any engine makes its metric handles.
    gateway::install_metrics();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(Box::pin(run(cli.verb)));
    // A pull that was left to itself, or a reader of a closed terminal, does not keep the process.
    runtime.shutdown_background();
    result
}

async fn run(verb: Verb) -> anyhow::Result<()> {
    match verb {
        Verb::Up(args) => up::run(args).await,
        Verb::Serve(args) => serve::run(args).await,
        Verb::Keys(args) => keys::run(args).await,
        Verb::Config(args) => config::run(args),
        Verb::Chat(args) => chat::run(args).await,
        Verb::Generate(args) => generate::run(args).await,
        Verb::Decide(args) => decide::run(args).await,
        Verb::Solve(args) => solve::run(args).await,
        Verb::Embed(args) => embed::run(args).await,
        Verb::Data(args) => Box::pin(data::run(args)).await,
        Verb::Train(args) => train::run(args).await,
        Verb::Distill(args) => distill::run(args).await,
        Verb::Eval(args) => eval::run(args).await,
        Verb::Models(args) => models::run(args).await,
        Verb::Rollout(args) => rollout::run(args).await,
        Verb::Loop(args) => circle::run(args).await,
        Verb::Audit(args) => Box::pin(audit::run(args)).await,
        Verb::Bench(args) => bench::run(args).await,
    }
}

fn log_to_stderr() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).init();
}

/// The reader of our output left, as `head` does: not a failure of ours.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().filter_map(|e| e.downcast_ref::<io::Error>()).any(|e| e.kind() == io::ErrorKind::BrokenPipe)
}
