//! Runs over several ranks, which are threads here: the same bits on any number of them, in every stage, and over every break.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use kernels::{Device, Precision};
use train::{Collective, Error, Group, Held, Learned, Length, Method, Network, Outcome, Plan, Stage, Step, Trainer};

use crate::trainer::{Place, general, plan, samples};
use crate::{ADAPTERS, load};

/// A rank among threads: a channel to every other one and from it.
struct Threads {
    rank: usize,
    to: Vec<Sender<Vec<f64>>>,
    from: Vec<Receiver<Vec<f64>>>,
}

impl Threads {
    fn ranks(n: usize) -> Vec<Self> {
        let mut all: Vec<Self> = (0..n).map(|rank| Self { rank, to: Vec::new(), from: Vec::new() }).collect();
        for from in 0..n {
            for to in 0..n {
                let (sender, receiver) = channel();
                all[from].to.push(sender);
                all[to].from.push(receiver);
            }
        }
        all
    }

    /// Sends `part(r)` to every rank `r`; what comes from all, in their order.
    fn swap(&self, part: impl Fn(usize) -> Vec<f64>) -> Vec<f64> {
        self.to.iter().enumerate().for_each(|(rank, to)| to.send(part(rank)).unwrap());
        self.from.iter().flat_map(|from| from.recv().unwrap()).collect()
    }
}

fn wide(numbers: &[f32]) -> Vec<f64> {
    numbers.iter().map(|x| f64::from(*x)).collect()
}

impl Collective for Threads {
    fn rank(&self) -> usize {
        self.rank
    }

    fn ranks(&self) -> usize {
        self.to.len()
    }

    fn all_gather(&mut self, part: &[f32], whole: &mut [f32]) {
        let all = self.swap(|_| wide(part));
        whole.iter_mut().zip(all).for_each(|(to, x)| *to = x as f32);
    }

    fn all_gather_f64(&mut self, part: &[f64], whole: &mut [f64]) {
        whole.copy_from_slice(&self.swap(|_| part.to_vec()));
    }

    fn all_to_all(&mut self, blocks: &[f32], from: &mut [f32]) {
        let each = blocks.len() / self.ranks();
        let all = self.swap(|rank| wide(&blocks[rank * each..][..each]));
        from.iter_mut().zip(all).for_each(|(to, x)| *to = x as f32);
    }
}

/// What is learned, and how.
#[derive(Clone)]
struct Run {
    family: &'static str,
    learned: Learned,
    recompute: bool,
    /// It is held to its beginning.
    held: bool,
    plan: Plan,
}

impl Run {
    fn new(family: &'static str, learned: Learned) -> Self {
        // Five micro-batches of one or two samples: more than ranks, and not a multiple of them.
        let plan = Plan { rows: 50, samples: 8, ..plan() };
        Self { family, learned, recompute: false, held: false, plan }
    }

    fn trainer(&self, dev: &Device, network: Network) -> Trainer {
        let mut network = network;
        network.recompute(self.recompute);
        let trainer = Trainer::new(network, self.plan.clone(), samples(10), self.family).unwrap();
        if self.held { trainer.replaying(dev, general()).unwrap() } else { trainer }
    }

    /// In one process, without ranks.
    fn alone(&self) -> Trainer {
        let dev = Device::new(1);
        self.trainer(&dev, Network::new(&dev, &load(&dev, self.family), self.learned, Precision::F32))
    }

    /// On every one of `n` ranks; what the first one gives.
    fn on<T: Send>(&self, n: usize, stage: Stage, work: impl Fn(&Device, Trainer) -> T + Sync) -> T {
        let (run, work) = (self, &work);
        thread::scope(|scope| {
            let rank = |ranks: Threads| {
                scope.spawn(move || {
                    let dev = Device::new(1);
                    let group = Group::open(move || Ok(ranks)).unwrap();
                    let model = load(&dev, run.family);
                    let network = Network::spread((&dev, Precision::F32), &model, run.learned, group, stage);
                    work(&dev, run.trainer(&dev, network))
                })
            };
            let ranks: Vec<_> = Threads::ranks(n).into_iter().map(rank).collect();
            let mut given: Vec<T> = ranks.into_iter().map(|rank| rank.join().unwrap()).collect();
            given.remove(0)
        })
    }

    /// Steps, a loss on other samples with the drift, and the bits of all weights at the end.
    fn whole(&self, n: usize, stage: Stage) -> (Vec<Step>, f64, Vec<u32>) {
        self.on(n, stage, finish)
    }
}

fn finish(dev: &Device, mut trainer: Trainer) -> (Vec<Step>, f64, Vec<u32>) {
    let steps = std::iter::from_fn(|| trainer.step(dev).unwrap()).collect();
    let loss = trainer.evaluate(dev, &samples(7)).unwrap() + trainer.drift(dev);
    (steps, loss, trainer.finish(dev).params.values.iter().map(|x| x.to_bits()).collect())
}

#[test]
fn a_run_has_the_same_bits_on_any_number_of_ranks() {
    // Embeddings that are the head and others, biases, norms around blocks, adapters.
    let runs = [
        Run::new("llama", Learned::All),
        Run { recompute: true, ..Run::new("gemma3", Learned::All) },
        Run::new("qwen2", Learned::All),
        Run::new("llama3", ADAPTERS),
        Run { held: true, ..Run::new("llama", Learned::All) },
        Run { held: true, ..Run::new("qwen2", ADAPTERS) },
    ];
    for run in runs {
        let (steps, loss, bits) = run.whole(1, Stage::States);
        let cases = [2, 3, 4]
            .into_iter()
            .flat_map(|n| [Stage::States, Stage::Gradients, Stage::Weights].map(|stage| (n, stage)));
        for (n, stage) in cases.chain([(1, Stage::Weights)]) {
            let (other, other_loss, other_bits) = run.whole(n, stage);
            assert_eq!((&other, other_loss), (&steps, loss), "{} on {n}, {stage:?}", run.family);
            assert!(other_bits == bits, "{} on {n}, {stage:?}: the same weights", run.family);
        }
        let (alone, alone_loss, _) = finish(&Device::new(1), run.alone());
        assert_eq!(alone.len(), 9);
        for (step, alone) in steps.iter().zip(&alone) {
            assert!((step.loss - alone.loss).abs() <= 1e-6 * alone.loss, "{}: {step:?} beside {alone:?}", run.family);
            assert_eq!((step.tokens, step.outcome), (alone.tokens, Outcome::Learned));
            assert_eq!(step.drift.is_some(), run.held, "{}: {step:?}", run.family);
        }
        assert!((loss - alone_loss).abs() <= 1e-6 * loss, "{}: {loss} beside {alone_loss}", run.family);
    }
}

#[test]
fn a_run_goes_on_with_other_ranks_to_the_bit() {
    let place = Place::new("spread");
    // Held: how much that weighs goes on, too.
    let run = Run { held: true, ..Run::new("gemma3", Learned::All) };
    let (steps, loss, bits) = run.whole(1, Stage::Weights);
    for (before, after, stage) in
        [(4, 4, Stage::Weights), (4, 2, Stage::Gradients), (2, 3, Stage::States), (1, 4, Stage::Weights)]
    {
        run.on(before, Stage::Weights, |dev, mut trainer| {
            (0..5).for_each(|_| assert!(trainer.step(dev).unwrap().is_some()));
            trainer.save(&place.file()).unwrap();
        });
        let (rest, other_loss, other_bits) = run.on(after, stage, |dev, mut trainer| {
            trainer.resume(dev, &place.file()).unwrap();
            finish(dev, trainer)
        });
        assert_eq!((&rest[..], other_loss), (&steps[5..], loss), "{before} to {after}, {stage:?}");
        assert!(other_bits == bits, "{before} to {after}, {stage:?}: the same weights");
    }
    // The file is of the same run without ranks, too.
    let mut alone = run.alone();
    alone.resume(&Device::new(1), &place.file()).unwrap();
    assert_eq!(alone.done(), 5);
}

/// Several files of a run at the same time would be of different steps; where the first rank cannot write none goes on.
#[test]
fn all_ranks_know_when_the_first_cannot_save() {
    let run = Run::new("llama", Learned::All);
    let place = Place::new("unsaved");
    let nowhere = place.0.join("none").join("run.safetensors");
    run.on(3, Stage::Weights, |_, trainer| {
        let error = trainer.save(&nowhere).unwrap_err();
        let first = trainer.group().unwrap().rank() == 0;
        assert_eq!(matches!(error, Error::Unsaved), !first, "{error}");
    });
}

#[test]
fn a_rank_holds_its_part() {
    let run = Run {
        plan: Plan { length: Length::Steps(1), ema: 0.0, skips: 0, ..Run::new("gemma3", Learned::All).plan },
        ..Run::new("gemma3", Learned::All)
    };
    let held = |dev: &Device, mut trainer: Trainer| {
        trainer.step(dev).unwrap();
        let all = trainer.held().into_iter().map(|Held { weights, gradients, states }| weights + gradients + states);
        all.max().unwrap()
    };
    let whole = held(&Device::new(1), run.alone());
    let mut last = whole;
    for stage in [Stage::States, Stage::Gradients, Stage::Weights] {
        let most = run.on(4, stage, held);
        assert!(most < last, "{stage:?}: {most} bytes, {last} without");
        last = most;
    }
    // Seven small layers: units are rounded up to blocks, and one layer is there as a whole.
    assert!(last * 2 < whole, "{last} of {whole} bytes");
}

#[test]
fn matrices_that_step_as_wholes_are_not_spread() {
    let dev = Device::new(1);
    let group = Group::open(|| Ok(Threads::ranks(1).remove(0))).unwrap();
    let network = Network::spread((&dev, Precision::F32), &load(&dev, "llama"), Learned::All, group, Stage::States);
    let muon = Plan { method: Method::Muon, ..plan() };
    assert!(matches!(Trainer::new(network, muon, samples(3), "llama").unwrap_err(), Error::Spread));
}
