//! A run in the terminal: steps with their progress, metrics in a file, a checkpoint to go on from.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use anyhow::Context;
use indicatif::ProgressBar;
use kernels::Device;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use train::{Outcome, Sample, Step, Trainer};

use crate::{compose, screen, serve};

/// The file with a line for every step, in a run's folder.
pub(crate) const METRICS: &str = "metrics.jsonl";

/// Set when the user wants it to stop.
pub(crate) type Stop = Arc<AtomicBool>;

/// Waits for work on another thread. The first Ctrl-C sets `stop`; with a second the work is left to itself, and ends with the process.
pub(crate) async fn unless_interrupted<T>(work: JoinHandle<anyhow::Result<T>>, stop: &Stop) -> anyhow::Result<T> {
    let interrupts = async {
        serve::interrupt().await;
        stop.store(true, Ordering::Relaxed);
        screen::note("Stopping behind this step (Ctrl-C again ends at once)");
        serve::interrupt().await;
    };
    tokio::select! {
        done = work => done?,
        () = interrupts => anyhow::bail!("ended at once; the last checkpoint is there"),
    }
}

/// What a whole run took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Report {
    pub(crate) steps: u64,
    pub(crate) tokens: u64,
    pub(crate) seconds: f64,
}

/// A run with its files.
#[derive(Debug)]
pub(crate) struct Run<'t> {
    trainer: &'t mut Trainer,
    checkpoint: PathBuf,
    /// The first rank's; the others have none.
    metrics: Option<File>,
    held_out: &'t [Sample],
}

/// Where the run of this name keeps its files.
pub(crate) fn folder(name: impl AsRef<Path>) -> anyhow::Result<PathBuf> {
    Ok(compose::home("XDG_DATA_HOME", ".local/share")?.join("runs").join(name))
}

fn checkpoint(folder: &Path) -> PathBuf {
    folder.join("checkpoint.safetensors")
}

/// Removes what a run needs to go on from; its metrics stay.
pub(crate) fn clear(folder: &Path) -> anyhow::Result<()> {
    let path = checkpoint(folder);
    if path.exists() {
        fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
    }
    Ok(())
}

/// Keeps what came of a run beside its metrics.
pub(crate) fn keep(path: &Path, outcome: &impl Serialize) -> anyhow::Result<()> {
    fs::write(path, serde_json::to_string_pretty(outcome)?).with_context(|| format!("cannot write {}", path.display()))
}

impl<'t> Run<'t> {
    /// Takes an interrupted run up where it was left, unless it should begin anew.
    pub(crate) fn open(dev: &Device, trainer: &'t mut Trainer, folder: &Path, fresh: bool) -> anyhow::Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let checkpoint = checkpoint(folder);
        if checkpoint.exists() && !fresh {
            trainer.resume(dev, &checkpoint).context("--fresh begins anew")?;
            screen::note(format_args!("Going on behind step {} of {}", trainer.done(), trainer.steps()));
        }
        let first = trainer.group().is_none_or(|group| group.rank() == 0);
        let path = folder.join(METRICS);
        let open = || OpenOptions::new().create(true).append(true).open(&path);
        let metrics = first.then(open).transpose().with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self { trainer, checkpoint, metrics, held_out: &[] })
    }

    /// Measures these samples after every epoch; `before` is their loss in front of the first.
    pub(crate) fn measuring(mut self, held_out: &'t [Sample], before: f64) -> anyhow::Result<Self> {
        self.held_out = held_out;
        if self.trainer.done() == 0 {
            self.tell_held_out(before)?;
        }
        Ok(self)
    }

    /// The loss on held-out samples as the run stands now.
    pub(crate) fn measure(&mut self, dev: &Device) -> anyhow::Result<f64> {
        let loss = self.trainer.evaluate(dev, self.held_out)?;
        self.tell_held_out(loss)?;
        Ok(loss)
    }

    fn tell_held_out(&mut self, loss: f64) -> anyhow::Result<()> {
        self.write(&json!({"step": self.trainer.done(), "held_out_loss": loss}))
    }

    fn write(&mut self, line: &Value) -> anyhow::Result<()> {
        self.metrics.iter_mut().try_for_each(|metrics| writeln!(metrics, "{line}")).context("cannot write the metrics")
    }

    pub(crate) fn trainer(&mut self) -> &mut Trainer {
        self.trainer
    }

    /// Steps until the last one, or until it is stopped; then it was saved, and `None` comes back.
    #[expect(clippy::disallowed_methods, reason = "how fast it is, for whoever watches; nothing depends on it")]
    pub(crate) fn finish(&mut self, dev: &Device, stop: &Stop) -> anyhow::Result<Option<Report>> {
        let bar = screen::step_bar();
        bar.set_length(self.trainer.steps());
        let (started, mut tokens) = (Instant::now(), 0);
        bar.set_position(self.trainer.done());
        bar.reset_eta();
        let mut epochs = self.trainer.epochs();
        while let Some(step) = self.trainer.step(dev)? {
            tokens += step.tokens as u64;
            self.tell(&bar, &step, tokens as f64 / started.elapsed().as_secs_f64())?;
            if self.trainer.epochs() > epochs && !self.held_out.is_empty() && self.trainer.done() < self.trainer.steps()
            {
                self.measure(dev)?;
            }
            epochs = self.trainer.epochs();
            let stopped = self.trainer.anyone(stop.load(Ordering::Relaxed));
            if stopped || self.trainer.due() {
                self.trainer.save(&self.checkpoint)?;
            }
            if stopped && self.trainer.done() < self.trainer.steps() {
                bar.finish_and_clear();
                screen::note(format_args!(
                    "Stopped behind step {} of {}; the same command goes on from there",
                    step.number,
                    self.trainer.steps()
                ));
                return Ok(None);
            }
        }
        bar.finish_and_clear();
        let seconds = started.elapsed().as_secs_f64();
        Ok(Some(Report { steps: self.trainer.steps(), tokens, seconds }))
    }

    fn tell(&mut self, bar: &ProgressBar, step: &Step, rate: f64) -> anyhow::Result<()> {
        bar.set_position(step.number);
        let memory = screen::resident().map_or_else(String::new, |bytes| format!(", {:.1} GB", bytes as f64 / 1e9));
        bar.set_message(format!("loss {:.3}, {rate:.0} tokens/s{memory}", step.loss));
        let outcome = match step.outcome {
            Outcome::Learned => "learned".to_owned(),
            Outcome::Skipped(why) => format!("skipped: {why}"),
            Outcome::Rewound { to, why } => format!("went back to step {to}: {why}"),
        };
        if step.outcome != Outcome::Learned {
            bar.suspend(|| screen::note(format_args!("Step {}: {outcome}", step.number)));
        }
        self.write(&json!({
            "step": step.number, "loss": step.loss, "rate": step.rate, "gradient": step.gradient,
            "tokens": step.tokens, "tokens_per_second": rate, "outcome": outcome, "loss_scale": step.scale,
            "drift": step.drift.map(|drift| drift.divergence), "drift_weight": step.drift.map(|drift| drift.weight),
        }))
    }
}
