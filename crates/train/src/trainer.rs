//! A run: steps over samples by a plan, watched, kept, taken up again.
//!
//! A [`Trainer`] is a state machine: a call of [`Trainer::step`] is one step, and all that happened is in what it gives. Whoever calls owns the rest:
//! showing progress, stopping, where checkpoints go, and when.
//!
//! A step that is not finite, or whose gradient is far longer than usual, changes nothing ([`Trouble`]). Several in a row mean that the weights themselves
//! are spoilt: the run goes back to its last checkpoint, which is kept in memory. As a step depends on seed and data only, going on from there gives
//! the same again unless a machine's fault was the cause: a second time is an error.

use std::borrow::Cow;
use std::path::Path;

use kernels::{Device, Precision, blend};
use sha2::{Digest, Sha256};

use crate::checkpoint::{self, About, Snapshot, State, hash_numbers, hex};
use crate::random::Random;
use crate::replay::{DIVERGENCE, Replayed, next_weight};
use crate::sample::{self, Order, pack};
use crate::scale::LossScale;
use crate::{Batch, Error, Exits, Group, Held, Method, Network, Optimizer, Plan, Sample, Teacher, Trouble};

/// Tokens of each row of which a run remembers how likely they were; what it holds to of all others is their sum.
const TAUGHT: usize = 64;

/// A run.
#[derive(Debug)]
pub struct Trainer {
    network: Network,
    optimizer: Optimizer,
    /// The average over weights; empty where the plan has none.
    average: Vec<f32>,
    plan: Plan,
    samples: Vec<Sample>,
    order: Order,
    replayed: Replayed,
    about: About,
    state: State,
    last: Option<Snapshot>,
}

/// What a step did.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// Its number, from 1 on.
    pub number: u64,
    /// The mean loss of the tokens that it learned, in nats, before it learned.
    pub loss: f64,
    /// Its learning rate.
    pub rate: f32,
    /// The gradient's length before it was cut.
    pub gradient: f64,
    /// How far the run had gone from its beginning, where it is held to that.
    pub drift: Option<Drift>,
    /// By how much gradients were scaled on their way back, in f16: by as much as they could be without one becoming infinite.
    pub scale: Option<f32>,
    /// Tokens of the documents that it took in.
    pub tokens: usize,
    /// What came of it.
    pub outcome: Outcome,
}

/// What a step found, before it is learned from.
#[derive(Debug, Clone, Copy)]
struct Slope {
    /// Of the samples.
    loss: f64,
    /// The gradient's length by the samples alone.
    asked: f64,
    /// Its length with what holds the run to its beginning.
    gradient: f64,
    drift: Option<Drift>,
    tokens: usize,
}

impl Slope {
    /// The loss with what holds the run to its beginning.
    fn whole(&self) -> f64 {
        self.loss + self.drift.map_or(0.0, |drift| drift.divergence * drift.weight)
    }
}

/// How far a step found the run from its beginning.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Drift {
    /// The mean of `KL(beginning | now)` of its texts, in nats a token.
    pub divergence: f64,
    /// What it weighed in the loss.
    pub weight: f64,
}

/// What came of a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Outcome {
    /// The weights changed.
    Learned,
    /// They did not.
    Skipped(Trouble),
    /// The run went back to the checkpoint after step `to`; the next step is that after it.
    Rewound {
        /// A step's number; 0 is the beginning.
        to: u64,
        /// What happened last.
        why: Trouble,
    },
}

impl Trainer {
    /// A run of its first step. `base` names the weights that the network was made from: a digest of their file.
    ///
    /// # Errors
    /// When the plan makes no sense, or for the first sample that cannot be learned from.
    pub fn new(network: Network, plan: Plan, samples: Vec<Sample>, base: &str) -> Result<Self, Error> {
        plan.check()?;
        sample::check(&samples, network.spec(), plan.rows)?;
        let wrong = plan.exits.trouble(network.spec().layers.len());
        wrong.map_or(Ok(()), |what| Err(Error::Plan { field: "exits", what }))?;
        let about = about(&network, &plan, &samples, base);
        if network.group().is_some() && plan.method != Method::AdamW {
            return Err(Error::Spread);
        }
        let optimizer = Optimizer::new(plan.rule(network.precision()), network.own());
        let average = if plan.ema > 0.0 { network.own().values.clone() } else { Vec::new() };
        let (order, replayed) = (Order::new(plan.seed, samples.len()), Replayed::new(Vec::new(), plan.seed));
        let scale = (network.precision() == Precision::F16).then(LossScale::default);
        let state = State { scale, ..State::default() };
        let mut trainer =
            Self { network, optimizer, average, plan, samples, order, replayed, about, state, last: None };
        trainer.keep();
        Ok(trainer)
    }

    /// The same run, held to its beginning on texts that it shall go on to say as now; their teachers are the run itself, before its first step.
    ///
    /// # Errors
    /// For the first text that cannot be learned from.
    pub fn replaying(mut self, dev: &Device, mut texts: Vec<Sample>) -> Result<Self, Error> {
        sample::check(&texts, self.network.spec(), self.plan.rows)?;
        let taught = self.network.teach(dev, &texts, (TAUGHT, self.plan.rows));
        texts.iter_mut().zip(taught).for_each(|(text, teacher)| text.teacher = Some(teacher));
        self.about.insert("replay".to_owned(), hex(hash(&texts)));
        self.replayed = Replayed::new(texts, self.plan.seed);
        Ok(self)
    }

    /// Takes a run up where it was saved. The trainer must be new, from the same model, plan, samples and base.
    ///
    /// # Errors
    /// When the file cannot be read, is damaged, or is of another run.
    pub fn resume(&mut self, dev: &Device, path: &Path) -> Result<(), Error> {
        let mut tensors = self.tensors().map(|tensor| vec![0.0; tensor.len()]);
        let state = checkpoint::read(path, &self.about, self.lens(), |tensor, at, piece| {
            let tensor = &mut tensors[tensor];
            match self.network.shards() {
                Some(shards) => shards.take(at, piece, tensor),
                None => tensor[at..at + piece.len()].copy_from_slice(piece),
            }
        })?;
        let State { step, learned, lengths, hold, scale, .. } = &state;
        let sound = lengths.sound() && *hold > 0.0 && scale.is_none_or(|scale| scale.sound());
        if *step > self.steps()
            || u64::from(*learned) > *step
            || !sound
            || scale.is_some() != self.state.scale.is_some()
        {
            let what = format!("says that it stands at step {step} of {}, {learned} of them learned", self.steps());
            return Err(Error::Checkpoint { path: path.to_owned(), what });
        }
        let snapshot = Snapshot { state, tensors };
        self.restore(dev, &snapshot);
        self.last = (self.plan.skips > 0).then_some(snapshot);
        Ok(())
    }

    /// Saves the run as it stands now. Of several ranks all must, and the first one writes.
    ///
    /// # Errors
    /// When the file cannot be written; what stood under this name before stands there still.
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        let (tensors, lens) = (self.tensors(), self.lens());
        let write = |pieces: &mut dyn Iterator<Item = Cow<'_, [f32]>>| {
            checkpoint::write(path, &self.about, &self.state, lens, pieces)
        };
        let Some(shards) = self.network.shards() else {
            return write(&mut tensors.into_iter().map(Cow::Borrowed));
        };
        let there = tensors.into_iter().filter(|tensor| !tensor.is_empty());
        let mut pieces =
            there.flat_map(|tensor| (0..shards.units()).map(|unit| Cow::Owned(shards.whole(unit, tensor))));
        let written = if shards.group().rank() == 0 { write(&mut pieces) } else { Ok(()) };
        // Whoever does not write, or could not go on, still has its part in what the others gather.
        pieces.for_each(drop);
        let failed = shards.group().anyone(written.is_err());
        written.and(if failed { Err(Error::Unsaved) } else { Ok(()) })
    }

    /// How long whole tensors are.
    fn lens(&self) -> [usize; 4] {
        let len = self.network.shards().map(|shards| shards.len());
        self.tensors().map(|tensor| len.filter(|_| !tensor.is_empty()).unwrap_or(tensor.len()))
    }

    /// The next step; none after the last.
    ///
    /// # Errors
    /// [`Error::Again`], after which there is no going on.
    pub fn step(&mut self, dev: &Device) -> Result<Option<Step>, Error> {
        if self.done() == self.steps() {
            return Ok(None);
        }
        let rate = self.plan.rate(self.state.step, self.steps());
        let batches = self.batches();
        let slope = self.slope(dev, &batches);
        let Slope { loss, gradient, drift, tokens, .. } = slope;
        let (trouble, scale) = (self.trouble(&slope), self.state.scale.map(LossScale::times));
        self.state.step += 1;
        let number = self.state.step;
        let outcome = match trouble {
            None => self.learned(dev, rate, &slope),
            Some(why) => self.skipped(dev, why)?,
        };
        Ok(Some(Step { number, loss, rate, gradient, drift, scale, tokens, outcome }))
    }

    /// The gradient of a step, scaled as far as it goes in f16: a step that goes beyond is taken once more, so that no sample is lost to it.
    fn slope(&mut self, dev: &Device, batches: &[Batch]) -> Slope {
        loop {
            self.network.scale_loss(self.state.scale.map_or(1.0, LossScale::times));
            let slope = self.descend(dev, batches);
            let beyond = slope.whole().is_finite() && !slope.gradient.is_finite();
            if !beyond || !self.state.scale.as_mut().is_some_and(LossScale::halve) {
                return slope;
            }
            self.network.own_mut().gradient.fill(0.0);
        }
    }

    fn descend(&mut self, dev: &Device, batches: &[Batch]) -> Slope {
        let loss = self.network.learn_all(dev, batches);
        let tokens = batches.iter().map(Batch::seen).sum();
        // What holds a run to its beginning weighs now more and now less: only what the samples ask for tells a spike.
        let asked = self.network.length(dev);
        let (drift, replayed) = self.replay(dev, tokens);
        let gradient = if drift.is_some() { self.network.length(dev) } else { asked };
        Slope { loss, asked, gradient, drift, tokens: tokens + replayed }
    }

    fn trouble(&self, slope: &Slope) -> Option<Trouble> {
        let trouble = self.state.lengths.trouble(slope.whole(), slope.asked, (self.plan.spike, self.plan.clip));
        trouble.or((!slope.gradient.is_finite()).then_some(Trouble::Gradient))
    }

    /// What holds the next step to the run's beginning, behind so many rows of its own, and how many rows that took.
    fn replay(&mut self, dev: &Device, rows: usize) -> (Option<Drift>, usize) {
        let weight = self.state.hold;
        let like = Batch { first: rows as u64, exits: Exits::default(), ..self.like() };
        let batches = self.replayed.batches(self.plan.replay, self.state.step, (self.plan.rows, weight), like);
        let taken = batches.iter().map(Batch::seen).sum();
        let loss = self.network.learn_all(dev, &batches);
        ((!batches.is_empty()).then_some(Drift { divergence: loss / weight, weight }), taken)
    }

    /// The mean loss over the learned tokens of other samples.
    ///
    /// # Errors
    /// For the first sample that has none.
    pub fn evaluate(&mut self, dev: &Device, samples: &[Sample]) -> Result<f64, Error> {
        sample::check(samples, self.network.spec(), self.plan.rows)?;
        let batches = pack(samples.iter(), self.plan.rows, &self.like());
        Ok(self.network.losses_all(dev, &batches))
    }

    /// The ranks that this run is spread over, if it is.
    pub fn group(&self) -> Option<&Group> {
        self.network.group()
    }

    /// Whether any rank says so; all of them must ask at the same time.
    pub fn anyone(&self, says: bool) -> bool {
        self.group().map_or(says, |group| group.anyone(says))
    }

    /// Bytes that every rank held at most at the same time, beside what a batch takes.
    pub fn held(&self) -> Vec<Held> {
        let [_, beside @ ..] = self.tensors();
        let last = self.last.iter().flat_map(|last| &last.tensors).map(|tensor| size_of_val(tensor.as_slice()));
        let states = beside.into_iter().map(size_of_val).sum::<usize>() + last.sum::<usize>();
        let ours = Held { states, ..self.network.held() };
        let Some(group) = self.group() else { return vec![ours] };
        let bytes = group.gather_f64([ours.weights, ours.gradients, ours.states].map(|bytes| bytes as f64).to_vec());
        let held = |bytes: &[f64; 3]| {
            let [weights, gradients, states] = bytes.map(|bytes| bytes as usize);
            Held { weights, gradients, states }
        };
        bytes.as_chunks().0.iter().map(held).collect()
    }

    /// How far the run is from its beginning: the mean of `KL(beginning | now)`, in nats a token, on the texts that it is held to; 0 without any.
    pub fn drift(&mut self, dev: &Device) -> f64 {
        let like = Batch { distil: DIVERGENCE, ..self.like() };
        let batches = pack(self.replayed.samples().iter(), self.plan.rows, &like);
        self.network.losses_all(dev, &batches)
    }

    /// Steps that are done.
    pub fn done(&self) -> u64 {
        self.state.step
    }

    /// Steps of the whole run.
    pub fn steps(&self) -> u64 {
        self.plan.steps(self.samples.len())
    }

    /// How often every sample was taken by now, whole epochs only.
    pub fn epochs(&self) -> u64 {
        self.state.step.saturating_mul(self.plan.samples as u64) / self.samples.len() as u64
    }

    /// Whether the plan wants a checkpoint of the run as it stands now.
    pub fn due(&self) -> bool {
        let Self { plan, state, .. } = self;
        plan.checkpoint > 0 && state.step > 0 && state.skipped == 0 && state.step.is_multiple_of(plan.checkpoint)
    }

    /// What learns.
    pub fn network(&mut self) -> &mut Network {
        &mut self.network
    }

    /// The average over weights, in the order of [`crate::Params`]; none where the plan has none.
    pub fn average(&self) -> Option<&[f32]> {
        (self.plan.ema > 0.0).then_some(&self.average)
    }

    /// The whole network at the end, on every rank, with the average over its weights where the plan has one.
    pub fn finish(mut self, dev: &Device) -> Network {
        if self.plan.ema > 0.0 {
            self.network.own_mut().values.copy_from_slice(&self.average);
            self.network.update(dev);
        }
        self.network.unite(dev);
        self.network
    }

    /// Micro-batches of the next step.
    fn batches(&mut self) -> Vec<Batch> {
        let like = self.like();
        let Self { plan, samples, order, state, .. } = self;
        let first = state.step.saturating_mul(plan.samples as u64);
        let last = first.saturating_add(plan.samples as u64).min(plan.taken(samples.len()));
        let taken: Vec<&Sample> = (first..last).map(|taken| &samples[order.at(taken)]).collect();
        pack(taken.iter().copied(), plan.rows, &like)
    }

    /// What the batches of the next step have in common.
    fn like(&self) -> Batch {
        let Plan { distil, dropout, seed, ref exits, .. } = self.plan;
        let seed = Random::new(seed, &format!("step {}", self.state.step)).bits();
        Batch { distil: distil.rule(), dropout, exits: exits.clone(), seed, ..Batch::default() }
    }

    fn learned(&mut self, dev: &Device, rate: f32, slope: &Slope) -> Outcome {
        let Self { network, optimizer, average, plan, state, .. } = self;
        let Slope { asked, gradient, drift, .. } = *slope;
        let times = network.loss_scale();
        optimizer.apply(dev, network.own_mut(), rate, (gradient, times));
        network.update(dev);
        if plan.ema > 0.0 {
            blend(dev, average, &network.own().values, 1.0 - plan.ema);
        }
        state.lengths.push(asked);
        state.scale.iter_mut().for_each(LossScale::learned);
        if let Some(Drift { divergence, weight }) = drift {
            state.hold = next_weight(weight, divergence, plan.replay.budget, [asked, gradient]);
        }
        (state.skipped, state.learned) = (0, state.learned + 1);
        if self.due() {
            self.keep();
        }
        Outcome::Learned
    }

    fn skipped(&mut self, dev: &Device, why: Trouble) -> Result<Outcome, Error> {
        self.network.own_mut().gradient.fill(0.0);
        self.state.skipped += 1;
        if self.state.skipped < self.plan.skips {
            return Ok(Outcome::Skipped(why));
        }
        let Some(last) = self.last.take() else { return Ok(Outcome::Skipped(why)) };
        let (step, to) = (self.state.step, last.state.step);
        if self.state.rewound == Some(to) {
            return Err(Error::Again { step, from: to, why });
        }
        self.restore(dev, &last);
        (self.state.rewound, self.last) = (Some(to), Some(last));
        Ok(Outcome::Rewound { to, why })
    }

    fn tensors(&self) -> [&[f32]; 4] {
        let (mean, square) = self.optimizer.means();
        [&self.network.own().values, mean, square, &self.average]
    }

    /// Remembers the run as it stands now, to go back to.
    fn keep(&mut self) {
        if self.plan.skips > 0 {
            self.last = Some(Snapshot { state: self.state.clone(), tensors: self.tensors().map(<[f32]>::to_vec) });
        }
    }

    fn restore(&mut self, dev: &Device, snapshot: &Snapshot) {
        let Snapshot { state, tensors: [weights, mean, square, average] } = snapshot;
        self.optimizer.restore(state.learned, mean, square);
        self.network.own_mut().values.copy_from_slice(weights);
        self.average.copy_from_slice(average);
        self.state = state.clone();
        self.network.update(dev);
    }
}

/// What tells this run from others.
fn about(network: &Network, plan: &Plan, samples: &[Sample], base: &str) -> About {
    // A plan is data, and data become JSON.
    let plan = serde_json::to_string(plan).unwrap_or_default();
    let learned = format!("{:?} in {:?}", network.learned(), network.precision());
    let about = [
        ("base", base.to_owned()),
        ("data", hex(hash(samples))),
        ("learned", learned),
        ("plan", plan),
        ("replay", hex(hash(&[]))),
    ];
    about.map(|(key, value)| (key.to_owned(), value)).into()
}

fn hash(samples: &[Sample]) -> Sha256 {
    let mut data = Sha256::new();
    for Sample { tokens, weights, teacher, own } in samples {
        tokens.iter().for_each(|token| data.update(token.to_le_bytes()));
        hash_numbers(&mut data, weights);
        data.update([u8::from(teacher.is_some()) + 2 * u8::from(*own)]);
        let Some(Teacher { ends, ids, logprobs }) = teacher else { continue };
        ends.iter().for_each(|end| data.update((*end as u64).to_le_bytes()));
        ids.iter().for_each(|id| data.update(id.to_le_bytes()));
        hash_numbers(&mut data, logprobs);
    }
    data
}
