//! How to train, as data: what a settings file or a command's options say, with its defaults, and what is made of it at every step.

use kernels::{Distil, Divergence, Precision};
use serde::{Deserialize, Serialize};

use crate::{Error, Method, Rule};

/// A run from its first step to its last.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Plan {
    /// How long it takes.
    pub length: Length,
    /// Rows of a micro-batch at most: what memory holds at the same time. A sample has a row for every token but its last.
    pub rows: usize,
    /// Samples of a step, over as many micro-batches as they need. The last step of whole epochs may have fewer.
    pub samples: usize,
    /// The highest learning rate.
    pub rate: f32,
    /// Share of the steps, 0 to 1, in which the rate rises to it.
    pub warmup: f32,
    /// What the rate does after that.
    pub schedule: Schedule,
    /// What steps the matrices of layers.
    pub method: Method,
    /// Weight decay of matrices, times the rate.
    pub decay: f32,
    /// A gradient longer than this is cut to it; 0 leaves it.
    pub clip: f32,
    /// Decay of the average over weights that is kept beside them, such as 0.999; 0 keeps none.
    pub ema: f32,
    /// A gradient longer than so many times the median of the last ones, and longer than `clip`, is not learned from; 0 learns from all.
    pub spike: f64,
    /// After so many steps in a row that were not learned from, the run goes back to its last checkpoint. With 0 it never does, and keeps no copy of
    /// what it would go back to in memory.
    pub skips: u32,
    /// What is left out at random.
    pub dropout: Dropout,
    /// Where the network learns to be left early.
    #[serde(skip_serializing_if = "Exits::are_none")]
    pub exits: Exits,
    /// How a teacher's word counts, in samples that have one.
    pub distil: Distillation,
    /// How the run is held to its beginning, if it has texts for it ([`crate::Trainer::replaying`]).
    pub replay: Replay,
    /// Of the order of samples and of what is left out.
    pub seed: u64,
    /// Steps between checkpoints; 0 makes none on the way.
    pub checkpoint: u64,
}

/// Shares of numbers that are left out while a step learns, from 0 to below 1.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dropout {
    /// Of what adapters see of their input; each sees another part.
    pub adapters: f32,
    /// Of what blocks add to the residual stream.
    pub residuals: f32,
}

/// What teaches a network to be left early: losses behind some of its layers, by its own final norm and head, and layers that are left out at random, so
/// that it does not lean on the deep ones (LayerSkip, Elhoushi et al. 2024, arXiv 2404.16710). The loss is the mean over all of these depths, by their weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Exits {
    /// Numbers of layers in front of exits, ascending, from 1 to all but one. Without any all else here is without effect.
    pub after: Vec<usize>,
    /// What an exit's loss would weigh behind the last layer, where that there weighs 1; one behind half of the layers weighs half of it.
    pub weight: f32,
    /// Share of steps in which the last layer is left out, from 0 to below 1; the others are less often, the first never.
    pub skip: f32,
}

impl Default for Exits {
    fn default() -> Self {
        Self { after: Vec::new(), weight: 1.0, skip: 0.1 }
    }
}

impl Exits {
    fn are_none(&self) -> bool {
        self.after.is_empty()
    }

    /// The shares of the loss, 1 together, of each exit and of all layers.
    pub(crate) fn shares(&self, layers: usize) -> (Vec<f32>, f32) {
        let weights = self.after.iter().map(|after| self.weight * *after as f32 / layers as f32);
        let all = 1.0 + weights.clone().sum::<f32>();
        (weights.map(|weight| weight / all).collect(), 1.0 / all)
    }

    /// In which share of steps a layer of so many is left out: growing exponentially with depth, as LayerSkip has it.
    pub(crate) fn skipped(&self, layer: usize, layers: usize) -> f32 {
        if self.after.is_empty() { 0.0 } else { self.skip * ((layer as f32 / (layers - 1).max(1) as f32).exp2() - 1.0) }
    }

    /// What is wrong with them in a network of so many layers.
    pub(crate) fn trouble(&self, layers: usize) -> Option<String> {
        let ascending = self.after.windows(2).all(|two| two[0] < two[1]);
        let inside = self.after.iter().all(|after| (1..layers).contains(after));
        (!ascending || !inside).then(|| format!("must be ascending numbers of layers from 1 to {}", layers.max(2) - 1))
    }
}

/// How a run is held to its beginning: how much of its loss is how far it went from there, on texts beside those that it learns.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Replay {
    /// Texts of a step.
    pub samples: usize,
    /// How far the run may go, in nats a token: the mean of `KL(beginning | now)` is kept below.
    pub budget: f32,
}

impl Default for Replay {
    fn default() -> Self {
        Self { samples: 4, budget: 0.03 }
    }
}

/// How a teacher's word and the token that followed are mixed, in samples that have a teacher.
///
/// A share of 1 leaves the token that followed to the other samples. Where the student wrote the text itself ([`crate::Sample::own`]) the teacher's is 1,
/// and the student is compared with the teacher, not the teacher with the student.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Distillation {
    /// The teacher's share of the loss, 0 to 1; the token that followed has the rest.
    pub share: f32,
    /// How much of the one distribution is mixed into the other (DistiLLM), from 0 to below 1.
    pub skew: f32,
}

impl Default for Distillation {
    fn default() -> Self {
        let Distil { share, skew, .. } = Distil::default();
        Self { share, skew }
    }
}

impl Distillation {
    pub(crate) fn rule(self) -> Distil {
        Distil { share: self.share, skew: self.skew, divergence: Divergence::Forward }
    }
}

/// How long a run takes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Length {
    /// So many steps.
    Steps(u64),
    /// So often every sample, which need not be a whole number.
    Epochs(f64),
}

/// What the rate does behind the warm-up; shares are of the highest rate.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Schedule {
    /// It stays.
    Constant,
    /// It falls evenly.
    Linear {
        /// The share that it would reach one step after the last.
        end: f32,
    },
    /// It falls by half a cosine.
    Cosine {
        /// The share that it would reach one step after the last.
        end: f32,
    },
    /// It stays, then falls evenly (warmup, stable, decay).
    Stable {
        /// Share of all steps in which it falls.
        decay: f32,
        /// The share that it would reach one step after the last.
        end: f32,
    },
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            length: Length::Epochs(1.0),
            rows: 2048,
            samples: 16,
            rate: 2e-4,
            warmup: 0.03,
            schedule: Schedule::Cosine { end: 0.1 },
            method: Method::AdamW,
            decay: 0.1,
            clip: 1.0,
            ema: 0.0,
            spike: 10.0,
            skips: 3,
            dropout: Dropout::default(),
            exits: Exits::default(),
            distil: Distillation::default(),
            replay: Replay::default(),
            seed: 0,
            checkpoint: 100,
        }
    }
}

impl Schedule {
    fn end(self) -> f32 {
        match self {
            Self::Constant => 1.0,
            Self::Linear { end } | Self::Cosine { end } | Self::Stable { end, .. } => end,
        }
    }

    /// The share of the highest rate at `t` of the way from the warm-up to the end, `warm` being what that took.
    fn share(self, t: f64, warm: f64) -> f64 {
        let end = f64::from(self.end());
        match self {
            Self::Constant => 1.0,
            Self::Linear { .. } => 1.0 - (1.0 - end) * t,
            Self::Cosine { .. } => end + (1.0 - end) * 0.5 * (1.0 + (std::f64::consts::PI * t).cos()),
            Self::Stable { decay, .. } => {
                let falls = (f64::from(decay) / (1.0 - warm)).min(1.0);
                let fallen = if falls > 0.0 { ((t - (1.0 - falls)) / falls).max(0.0) } else { 0.0 };
                1.0 - (1.0 - end) * fallen
            }
        }
    }
}

impl Plan {
    /// Whether its numbers make sense.
    ///
    /// # Errors
    /// The first field that does not.
    pub fn check(&self) -> Result<(), Error> {
        let long = match self.length {
            Length::Steps(steps) => steps > 0,
            Length::Epochs(epochs) => epochs.is_finite() && epochs > 0.0,
        };
        let share = |x: f32| (0.0..=1.0).contains(&x);
        let below = |x: f32| (0.0..1.0).contains(&x);
        let positive = |x: f32| x.is_finite() && x >= 0.0;
        let falls = if let Schedule::Stable { decay, .. } = self.schedule { decay } else { 0.0 };
        let fields = [
            ("length", long, "must be above 0"),
            ("rows", self.rows > 0, "must be above 0"),
            ("samples", self.samples > 0, "must be above 0"),
            ("rate", positive(self.rate) && self.rate > 0.0, "must be above 0"),
            ("warmup", share(self.warmup), "must be from 0 to 1"),
            ("schedule", share(falls) && share(self.schedule.end()), "has a share that is not from 0 to 1"),
            ("decay", positive(self.decay), "must not be below 0"),
            ("clip", positive(self.clip), "must not be below 0"),
            ("ema", below(self.ema), "must be from 0 to below 1"),
            ("dropout", below(self.dropout.adapters) && below(self.dropout.residuals), "must be from 0 to below 1"),
            (
                "exits",
                self.exits.trouble(usize::MAX).is_none()
                    && positive(self.exits.weight)
                    && self.exits.weight > 0.0
                    && below(self.exits.skip),
                "need ascending layers, a weight above 0 and a skip from 0 to below 1",
            ),
            (
                "distil",
                share(self.distil.share) && below(self.distil.skew),
                "needs a share from 0 to 1 and a skew below 1",
            ),
            (
                "replay",
                self.replay.samples > 0 && positive(self.replay.budget) && self.replay.budget > 0.0,
                "needs texts of a step and a budget above 0",
            ),
            ("spike", self.spike == 0.0 || (self.spike.is_finite() && self.spike > 1.0), "must be 0 or above 1"),
        ];
        let wrong = fields.into_iter().find(|(_, fine, _)| !fine);
        wrong.map_or(Ok(()), |(field, _, what)| Err(Error::Plan { field, what: what.to_owned() }))
    }

    /// Steps of a run over so many samples.
    pub fn steps(&self, samples: usize) -> u64 {
        match self.length {
            Length::Steps(steps) => steps,
            Length::Epochs(_) => self.taken(samples).div_ceil(self.samples as u64),
        }
    }

    /// Samples that are taken in all, each counted as often as it is.
    pub(crate) fn taken(&self, samples: usize) -> u64 {
        match self.length {
            Length::Steps(steps) => steps.saturating_mul(self.samples as u64),
            Length::Epochs(epochs) => (epochs * samples as f64).ceil() as u64,
        }
    }

    /// The learning rate of a step, counted from 0 on, of so many.
    pub fn rate(&self, step: u64, steps: u64) -> f32 {
        let warm = (f64::from(self.warmup) * steps as f64).round();
        let (step, steps) = (step as f64, steps as f64);
        let share = if step < warm {
            (step + 1.0) / warm
        } else {
            self.schedule.share((step - warm) / (steps - warm), warm / steps)
        };
        (f64::from(self.rate) * share) as f32
    }

    pub(crate) fn rule(&self, precision: Precision) -> Rule {
        Rule { method: self.method, decay: self.decay, clip: self.clip, precision, ..Rule::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rates of ten steps, as shares of the highest.
    #[track_caller]
    fn check(warmup: f32, schedule: Schedule, want: [f64; 10]) {
        let plan = Plan { rate: 1.0, warmup, schedule, ..Plan::default() };
        for (step, want) in want.into_iter().enumerate() {
            let got = f64::from(plan.rate(step as u64, 10));
            assert!((got - want).abs() < 1e-3, "{schedule:?}, step {step}: {got}, not {want}");
        }
    }

    #[test]
    fn rates_are_what_the_schedule_says() {
        check(0.2, Schedule::Constant, [0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]);
        check(0.0, Schedule::Linear { end: 0.0 }, [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]);
        check(0.2, Schedule::Linear { end: 0.2 }, [0.5, 1.0, 1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3]);
        check(0.2, Schedule::Cosine { end: 0.1 }, [0.5, 1.0, 1.0, 0.966, 0.868, 0.722, 0.55, 0.378, 0.232, 0.134]);
        check(0.2, Schedule::Stable { decay: 0.4, end: 0.0 }, [0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25]);
        check(1.0, Schedule::Constant, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]);
    }

    #[test]
    fn exits_weigh_more_and_layers_are_left_out_more_often_the_deeper_they_are() {
        let exits = Exits { after: vec![2, 4], weight: 1.0, skip: 0.2 };
        assert_eq!(exits.shares(8), (vec![0.25 / 1.75, 0.5 / 1.75], 1.0 / 1.75));
        let skipped: Vec<f32> = (0..3).map(|layer| exits.skipped(layer, 3)).collect();
        assert!(skipped[0] == 0.0 && skipped[2] == 0.2 && (skipped[1] - 0.2 * 0.41421).abs() < 1e-5, "{skipped:?}");
        assert_eq!((Exits::default().shares(8), Exits::default().skipped(7, 8)), ((vec![], 1.0), 0.0));
        assert_eq!((exits.trouble(5), exits.trouble(4).is_some()), (None, true));
    }

    #[test]
    fn lengths_become_steps() {
        let steps = |length, samples| Plan { length, samples: 4, ..Plan::default() }.steps(samples);
        assert_eq!(
            [steps(Length::Steps(7), 10), steps(Length::Epochs(1.0), 10), steps(Length::Epochs(2.5), 10)],
            [7, 3, 7]
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_field() {
        let plan = Plan::default();
        plan.check().unwrap();
        let wrong = [
            Plan { length: Length::Epochs(f64::NAN), ..plan.clone() },
            Plan { rows: 0, ..plan.clone() },
            Plan { samples: 0, ..plan.clone() },
            Plan { rate: f32::INFINITY, ..plan.clone() },
            Plan { warmup: 1.5, ..plan.clone() },
            Plan { schedule: Schedule::Stable { decay: 2.0, end: 0.0 }, ..plan.clone() },
            Plan { decay: -1.0, ..plan.clone() },
            Plan { clip: f32::NAN, ..plan.clone() },
            Plan { ema: 1.0, ..plan.clone() },
            Plan { spike: 0.5, ..plan.clone() },
            Plan { dropout: Dropout { adapters: 0.1, residuals: 1.0 }, ..plan.clone() },
            Plan { exits: Exits { after: vec![2, 2], ..Exits::default() }, ..plan.clone() },
            Plan { distil: Distillation { skew: 1.0, ..Distillation::default() }, ..plan.clone() },
            Plan { replay: Replay { budget: 0.0, ..Replay::default() }, ..plan.clone() },
        ];
        let named = [
            "length", "rows", "samples", "rate", "warmup", "schedule", "decay", "clip", "ema", "spike", "dropout",
            "exits", "distil", "replay",
        ];
        for (plan, name) in wrong.into_iter().zip(named) {
            let error = plan.check().unwrap_err().to_string();
            assert!(error.starts_with(&format!("plan: `{name}`")), "{error}");
        }
    }

    #[test]
    fn a_plan_is_read_as_it_was_written() {
        let plan = Plan { rate: 0.1, schedule: Schedule::Stable { decay: 0.3, end: 0.0 }, ..Plan::default() };
        let text = serde_json::to_string(&plan).unwrap();
        assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan);
        assert_eq!(serde_json::from_str::<Plan>("{}").unwrap(), Plan::default());
        assert!(serde_json::from_str::<Plan>(r#"{"speed": 1}"#).is_err(), "an unknown field is refused");
    }
}
