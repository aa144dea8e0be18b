//! Runs: what they learn, that they can be stopped anywhere, and what they make of faults and of files that are not theirs.

use std::path::{Path, PathBuf};

use kernels::{Device, Precision};
use train::{
    Distillation, Dropout, Error, Exits, Learned, Length, Lora, Method, Network, Outcome, Plan, Replay, Sample,
    Schedule, Step, Teacher, Trainer, Trouble,
};

use crate::{ADAPTERS, document, load};

/// A directory of this test's own, gone at its end.
pub(crate) struct Place(pub(crate) PathBuf);

impl Place {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("tessera-train-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.0.join("run.safetensors")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

/// Documents of different lengths whose first four tokens are a prompt.
pub(crate) fn samples(n: usize) -> Vec<Sample> {
    let sample = |number: usize| {
        let tokens = document(number, number)[..20 + number % 9].to_vec();
        Sample {
            weights: (0..tokens.len()).map(|i| if i < 4 { 0.0 } else { 1.0 }).collect(),
            tokens,
            ..Sample::default()
        }
    };
    (0..n).map(sample).collect()
}

/// Documents that are none of those, to be held to.
pub(crate) fn general() -> Vec<Sample> {
    let sample = |number: usize| {
        let tokens = document(100 + number, number)[..16].to_vec();
        Sample { weights: vec![1.0; tokens.len()], tokens, ..Sample::default() }
    };
    (0..6).map(sample).collect()
}

pub(crate) fn plan() -> Plan {
    Plan {
        length: Length::Steps(9),
        rows: 64,
        samples: 4,
        rate: 1e-2,
        schedule: Schedule::Linear { end: 0.0 },
        ema: 0.8,
        checkpoint: 3,
        dropout: Dropout { adapters: 0.1, residuals: 0.05 },
        seed: 5,
        ..Plan::default()
    }
}

/// An exit behind the first of two layers, the second of which is left out of every other step.
pub(crate) fn exits() -> Exits {
    Exits { after: vec![1], weight: 1.0, skip: 0.5 }
}

/// Micro-batches of one document each share nothing; those of all documents share their prompt.
#[test]
fn documents_that_begin_alike_are_learned_alike() {
    let dev = Device::new(2);
    let prompt = document(50, 1);
    let asked = |sample: Sample| Sample {
        tokens: [&prompt[..], &sample.tokens].concat(),
        weights: [vec![0.0; prompt.len()], sample.weights].concat(),
        ..Sample::default()
    };
    let samples: Vec<Sample> = samples(4).into_iter().map(asked).collect();
    for (family, learned) in crate::FAMILIES.into_iter().flat_map(|family| [(family, Learned::All), (family, ADAPTERS)])
    {
        let run = |rows| {
            let plan = Plan { rows, length: Length::Steps(4), dropout: Dropout::default(), ema: 0.0, ..plan() };
            let network = Network::new(&dev, &load(&dev, family), learned, Precision::F32);
            let mut trainer = Trainer::new(network, plan, samples.clone(), family).unwrap();
            let before = trainer.evaluate(&dev, &samples).unwrap();
            (before, std::iter::from_fn(|| trainer.step(&dev).unwrap()).collect::<Vec<Step>>())
        };
        let ((apart, alone), (before, shared)) = (run(64), run(512));
        let mut network = Network::new(&dev, &load(&dev, family), Learned::Nothing, Precision::F32);
        let mut taught = |rows| network.teach(&dev, &samples, (8, rows));
        assert!(taught(64) == taught(512), "{family}: the same bits");
        assert!((before - apart).abs() < 1e-6, "{family}: {before}, apart {apart}");
        for (one, other) in alone.iter().zip(&shared) {
            assert!((one.loss - other.loss).abs() < 1e-5, "{family} {learned:?}: {one:?}, shared {other:?}");
            assert!(
                (one.gradient / other.gradient - 1.0).abs() < 1e-5,
                "{family} {learned:?}: {one:?}, shared {other:?}"
            );
            assert_eq!(one.tokens, other.tokens);
        }
    }
}

fn network(dev: &Device, learned: Learned) -> Network {
    Network::new(dev, &load(dev, "llama"), learned, Precision::F32)
}

fn trainer(dev: &Device, learned: Learned, plan: Plan) -> Trainer {
    Trainer::new(network(dev, learned), plan, samples(10), "llama").unwrap()
}

/// The same run in f16.
pub(crate) fn halves(dev: &Device, learned: Learned, plan: Plan) -> Trainer {
    let network = Network::new(dev, &load(dev, "llama"), learned, Precision::F16);
    Trainer::new(network, plan, samples(10), "llama").unwrap()
}

pub(crate) fn run(dev: &Device, trainer: &mut Trainer, steps: u64) -> Vec<Step> {
    (0..steps).map_while(|_| trainer.step(dev).unwrap()).collect()
}

/// Bits of the weights and of their average.
fn bits(trainer: &mut Trainer) -> Vec<u32> {
    let average = trainer.average().unwrap_or_default().to_vec();
    trainer.network().params.values.iter().chain(&average).map(|x| x.to_bits()).collect()
}

#[test]
fn a_run_learns_what_its_samples_say() {
    let dev = Device::new(2);
    for learned in [Learned::All, ADAPTERS] {
        let mut trainer = trainer(&dev, learned, Plan { length: Length::Epochs(12.0), ..plan() });
        let before = trainer.evaluate(&dev, &samples(10)).unwrap();
        let steps = run(&dev, &mut trainer, 1000);
        assert_eq!((steps.len(), trainer.done(), trainer.steps()), (30, 30, 30));
        assert!(steps.iter().all(|step| step.outcome == Outcome::Learned && step.tokens > 60));
        let after = trainer.evaluate(&dev, &samples(10)).unwrap();
        assert!(after < before - 0.3, "{learned:?}: {before} to {after}");
        let network = trainer.finish(&dev);
        let mut averaged = Trainer::new(network, plan(), samples(10), "llama").unwrap();
        let mean = averaged.evaluate(&dev, &samples(10)).unwrap();
        assert!(mean < before - 0.1 && mean != after, "{learned:?}: the average has learned too, {before} to {mean}");
    }
}

/// How samples are spread over micro-batches is a matter of memory, not of what is learned.
#[test]
fn micro_batches_do_not_change_a_step() {
    let dev = Device::new(2);
    for exits in [Exits::default(), exits()] {
        let plan = |rows| Plan { rows, exits: exits.clone(), ..plan() };
        let step = |rows| run(&dev, &mut trainer(&dev, Learned::All, plan(rows)), 1).remove(0);
        let (small, large) = (step(30), step(4096));
        assert_eq!(small.tokens, large.tokens);
        assert!((small.loss - large.loss).abs() < 1e-6 * large.loss, "{small:?} {large:?}");
        assert!((small.gradient - large.gradient).abs() < 1e-5 * large.gradient, "{small:?} {large:?}");
    }
}

#[test]
fn a_run_that_was_killed_at_any_step_goes_on_to_the_bit() {
    let (dev, place) = (Device::new(2), Place::new("killed"));
    let kinds = [
        (Learned::All, Method::AdamW, false, Exits::default()),
        (Learned::All, Method::Muon, false, Exits::default()),
        (Learned::All, Method::AdamW, false, exits()),
        (ADAPTERS, Method::AdamW, false, Exits::default()),
        (ADAPTERS, Method::AdamW, true, exits()),
    ];
    let begin: [fn(&Device, Learned, Plan) -> Trainer; 2] = [trainer, halves];
    for ((learned, method, held, exits), begin) in
        kinds.into_iter().flat_map(|kind| begin.map(|begin| (kind.clone(), begin)))
    {
        let new = || {
            let trainer = begin(&dev, learned, Plan { method, exits: exits.clone(), ..plan() });
            if held { trainer.replaying(&dev, general()).unwrap() } else { trainer }
        };
        let mut whole = new();
        let steps = run(&dev, &mut whole, 100);
        for killed in 0..=steps.len() {
            let mut first = new();
            run(&dev, &mut first, killed as u64);
            first.save(&place.file()).unwrap();
            // Killed while it wrote the next one.
            std::fs::write(place.0.join("run.safetensors.part"), b"half of a").unwrap();
            drop(first);
            let mut second = new();
            second.resume(&dev, &place.file()).unwrap();
            let what = format!("{learned:?}, {method:?}, held: {held}, {exits:?}, killed after {killed}");
            assert_eq!(run(&dev, &mut second, 100), steps[killed..], "{what}");
            assert!(bits(&mut second) == bits(&mut whole), "{what}");
        }
    }
}

fn refused(dev: &Device, trainer: &mut Trainer, path: &Path) -> String {
    trainer.resume(dev, path).unwrap_err().to_string()
}

#[test]
fn files_of_other_runs_are_refused() {
    let (dev, place) = (Device::new(2), Place::new("foreign"));
    trainer(&dev, ADAPTERS, plan()).save(&place.file()).unwrap();
    let adapters = |samples, base| Trainer::new(network(&dev, ADAPTERS), plan(), samples, base).unwrap();
    let wider = Learned::Adapters(Lora { rank: 5, alpha: 8.0, seed: 1 });
    let others = [
        ("plan", trainer(&dev, ADAPTERS, Plan { rate: 0.5, ..plan() })),
        ("data", adapters(samples(9), "llama")),
        ("base", adapters(samples(10), "gemma")),
        ("learned", trainer(&dev, wider, plan())),
    ];
    let held = || trainer(&dev, ADAPTERS, plan());
    let mut held_to_less = held().replaying(&dev, general()[1..].to_vec()).unwrap();
    for (name, mut other) in others {
        let error = refused(&dev, &mut other, &place.file());
        assert!(error.contains(&format!("another run: its {name}")), "{error}");
    }
    assert!(refused(&dev, &mut held_to_less, &place.file()).contains("another run: its replay"));
    held().replaying(&dev, general()).unwrap().save(&place.file()).unwrap();
    assert!(refused(&dev, &mut held_to_less, &place.file()).contains("another run: its replay"));
    assert!(refused(&dev, &mut held(), &place.file()).contains("another run: its replay"));
    let error = refused(&dev, &mut trainer(&dev, ADAPTERS, plan()), &place.0.join("none"));
    assert!(error.contains("none: No such file"), "{error}");
}

/// Cut short or changed in any place, a file is refused; or it says the same in other words.
#[test]
fn damaged_files_are_refused() {
    let (dev, place) = (Device::new(2), Place::new("damaged"));
    let mut whole = trainer(&dev, ADAPTERS, plan());
    run(&dev, &mut whole, 4);
    whole.save(&place.file()).unwrap();
    let good = std::fs::read(place.file()).unwrap();
    let mut other = trainer(&dev, ADAPTERS, plan());
    let mut check = |bytes: &[u8], what: &str| {
        std::fs::write(place.file(), bytes).unwrap();
        if other.resume(&dev, &place.file()).is_ok() {
            assert!(bytes.len() == good.len() && bits(&mut other) == bits(&mut whole), "{what}");
            return false;
        }
        true
    };
    let header = 8 + u64::from_le_bytes(good[..8].try_into().unwrap()) as usize;
    let places = (0..header).chain((header..good.len()).step_by(997));
    let mut accepted = 0;
    for at in places {
        for flip in [1, 0x80] {
            let mut bytes = good.clone();
            bytes[at] ^= flip;
            accepted += usize::from(!check(&bytes, &format!("byte {at} ^ {flip}")));
        }
    }
    assert!(accepted < 8, "only blanks may change, {accepted} did");
    for len in (0..header).step_by(7).chain((header..good.len()).step_by(1009)).chain([good.len() - 1]) {
        assert!(check(&good[..len], "cut"), "cut to {len}");
    }
    assert!(check(&[&good[..], b"more"].concat(), "longer"));
    let hostile = |header: &str| [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat();
    for header in ["{}", "[]", r#"{"__metadata__":{"format":"tessera training checkpoint 2"}}"#] {
        assert!(check(&hostile(header), header), "{header}");
    }
    assert!(check(&[&u64::MAX.to_le_bytes()[..], b"{}"].concat(), "a header without end"));
    assert!(!check(&good, "the file itself"));
}

/// Weights that were spoilt by no fault of the data: the run goes back and ends as if nothing had been.
#[test]
fn a_run_goes_back_when_its_weights_are_spoilt() {
    let dev = Device::new(2);
    let plan = Plan { skips: 2, ..plan() };
    let mut whole = trainer(&dev, Learned::All, plan.clone());
    run(&dev, &mut whole, 100);
    let mut spoilt = trainer(&dev, Learned::All, plan.clone());
    run(&dev, &mut spoilt, 5);
    let spoil = |trainer: &mut Trainer| {
        trainer.network().params.values[0] = f32::NAN;
        trainer.network().refresh(&dev);
    };
    spoil(&mut spoilt);
    let outcomes: Vec<Outcome> = run(&dev, &mut spoilt, 2).into_iter().map(|step| step.outcome).collect();
    let back = Outcome::Rewound { to: 3, why: Trouble::Loss };
    assert_eq!(outcomes, [Outcome::Skipped(Trouble::Loss), back]);
    assert_eq!(spoilt.done(), 3);
    run(&dev, &mut spoilt, 100);
    assert!(bits(&mut spoilt) == bits(&mut whole), "as if nothing had been");

    let mut again = trainer(&dev, Learned::All, plan);
    run(&dev, &mut again, 4);
    spoil(&mut again);
    assert_eq!(run(&dev, &mut again, 2)[1].outcome, back);
    spoil(&mut again);
    run(&dev, &mut again, 1);
    let error = again.step(&dev).unwrap_err();
    assert!(matches!(error, Error::Again { step: 5, from: 3, why: Trouble::Loss }), "{error}");
}

/// A gradient far longer than those before changes nothing.
#[test]
fn a_spike_is_not_learned_from() {
    let dev = Device::new(2);
    let long = Plan { length: Length::Steps(20), spike: 4.0, checkpoint: 0, ..plan() };
    let mut trainer = trainer(&dev, Learned::All, long);
    run(&dev, &mut trainer, 10);
    let spread = |trainer: &mut Trainer, times: f32| {
        // Sharper predictions that are as wrong as before: the last norm's gain.
        let range =
            trainer.network().params.entries().iter().find(|entry| entry.name == "output_norm").unwrap().range.clone();
        trainer.network().params.values[range].iter_mut().for_each(|x| *x *= times);
        trainer.network().refresh(&dev);
    };
    spread(&mut trainer, 64.0);
    let before = bits(&mut trainer);
    let step = run(&dev, &mut trainer, 1).remove(0);
    assert!(matches!(step.outcome, Outcome::Skipped(Trouble::Spike(times)) if times > 4.0), "{step:?}");
    assert!(bits(&mut trainer) == before, "nothing changed");
    assert!(trainer.network().params.gradient.iter().all(|g| *g == 0.0), "nothing is left over");
    spread(&mut trainer, 1.0 / 64.0);
    assert_eq!(run(&dev, &mut trainer, 1)[0].outcome, Outcome::Learned);
}

type Change = fn(&mut Sample);

/// A teacher who says this of the first of twenty rows.
fn said(ids: &[u32], logprobs: &[f32]) -> Teacher {
    let mut teacher = Teacher::default();
    teacher.push(ids, logprobs);
    (1..20).for_each(|_| teacher.push(&[], &[]));
    teacher
}

#[test]
fn samples_that_cannot_be_learned_from_are_named() {
    let dev = Device::new(2);
    let good = samples(3);
    let with = |change: Change| {
        let mut samples = good.clone();
        change(&mut samples[1]);
        let error = Trainer::new(network(&dev, ADAPTERS), plan(), samples, "llama").unwrap_err();
        assert!(matches!(error, Error::Sample { index: 1, .. }), "{error}");
        error.to_string()
    };
    let cases: [(Change, &str); 13] = [
        (
            |sample| *sample = Sample { tokens: vec![1; 66], weights: vec![1.0; 66], ..Sample::default() },
            "has 66 tokens; 65 fit",
        ),
        (|sample| sample.weights.truncate(3), "has 21 tokens and 3 weights"),
        (|sample| sample.tokens[2] = u32::MAX, "token 4294967295 is none of the model's"),
        (|sample| sample.weights[7] = f32::NAN, "a weight of NaN"),
        (|sample| sample.weights[7] = -1.0, "a weight of -1"),
        (|sample| sample.teacher = Some(Teacher::default()), "not said something of each of 20 rows"),
        (|sample| sample.teacher = Some(said(&[3, 3], &[-1.0, -1.0])), "names a token twice"),
        (|sample| sample.teacher = Some(said(&[u32::MAX], &[-1.0])), "names a token twice, or one beyond"),
        (|sample| sample.teacher = Some(said(&[1], &[f32::NAN])), "add up to NaN"),
        (|sample| sample.teacher = Some(said(&[1, 2], &[-0.1, -0.1])), "add up to 1.8"),
        (|sample| sample.teacher = Some(said(&[0; 257], &[-9.0; 257])), "names 257 tokens in row 0; 256"),
        (
            |sample| *sample = Sample { tokens: vec![1; 2], weights: vec![1.0, 0.0], ..Sample::default() },
            "no token that is learned",
        ),
        (|sample| sample.own = true, "is the student's own, and its teacher says nothing of row 3"),
    ];
    for (change, want) in cases {
        let error = with(change);
        assert!(error.contains(want), "{error}, not {want}");
    }
    let none = Trainer::new(network(&dev, ADAPTERS), plan(), Vec::new(), "llama").unwrap_err();
    assert!(matches!(none, Error::NoSamples), "{none}");
}

/// What a network with other weights says of the samples.
fn taught(dev: &Device, by: &mut Network, k: usize) -> Vec<Sample> {
    let samples = samples(10);
    let taught = by.teach(dev, &samples, (k, 64));
    samples.into_iter().zip(taught).map(|(sample, teacher)| Sample { teacher: Some(teacher), ..sample }).collect()
}

#[test]
fn a_student_comes_near_its_teacher_and_a_run_knows_how_far_it_went() {
    let dev = Device::new(2);
    let mut base = network(&dev, Learned::All);
    let own = taught(&dev, &mut base, 8);
    base.params.values.iter_mut().enumerate().for_each(|(i, x)| *x += 0.1 * (i as f32).sin());
    base.refresh(&dev);
    let teacher = taught(&dev, &mut base, 8);
    let rows = &teacher[0].teacher.as_ref().unwrap().ends;
    assert_eq!(rows[..5], [0, 0, 0, 8, 16], "nothing is said of a prompt");
    for (skew, written) in [(0.0, false), (0.1, false), (0.1, true)] {
        let distil = Distillation { share: 1.0, skew };
        let teacher: Vec<Sample> = teacher.iter().map(|sample| Sample { own: written, ..sample.clone() }).collect();
        let plan = Plan { length: Length::Epochs(30.0), distil, dropout: Dropout::default(), ..plan() };
        let mut student = Trainer::new(network(&dev, Learned::All), plan, teacher.clone(), "llama").unwrap();
        assert!(student.evaluate(&dev, &own).unwrap().abs() < 1e-5, "it is where it began");
        let before = student.evaluate(&dev, &teacher).unwrap();
        run(&dev, &mut student, 1000);
        let after = student.evaluate(&dev, &teacher).unwrap();
        assert!(after < before / 5.0, "{distil:?} {written}: {before} to {after}");
        assert!(student.evaluate(&dev, &own).unwrap() > before / 5.0, "and has gone away from there");
    }
}

/// The same run, held and (by a budget that it cannot reach) not: the one stays within its budget and learns all the same.
#[test]
fn a_run_that_is_held_forgets_less() {
    let dev = Device::new(2);
    let run_within = |budget: f32| {
        let plan = Plan {
            length: Length::Epochs(40.0),
            replay: Replay { samples: 3, budget },
            dropout: Dropout::default(),
            ema: 0.0,
            ..plan()
        };
        let mut trainer = trainer(&dev, ADAPTERS, plan).replaying(&dev, general()).unwrap();
        assert!(trainer.drift(&dev).abs() < 1e-5, "it is where it began");
        let before = trainer.evaluate(&dev, &samples(10)).unwrap();
        let steps = run(&dev, &mut trainer, 1000);
        let first = steps[0].drift.unwrap();
        assert!(first.divergence.abs() < 1e-5 && first.weight == 10.0, "{first:?}");
        let after = trainer.evaluate(&dev, &samples(10)).unwrap();
        (trainer.drift(&dev), before - after, steps.last().unwrap().drift.unwrap().weight)
    };
    let (free, held) = (run_within(1e6), run_within(0.05));
    assert!(free.0 > 0.1 && held.0 < 0.05, "{free:?} {held:?}");
    assert!(held.1 > 0.25 * free.1 && free.1 > 0.3, "it learns within its budget: {free:?} {held:?}");
    assert!(free.2 < 0.1 && held.2 > 1.0, "the weight follows: {free:?} {held:?}");
}

/// An adapter at no strength is the base; in between it goes the way from one to the other.
#[test]
fn strength_leads_from_the_base_to_what_was_learned() {
    let dev = Device::new(2);
    let mut trainer = trainer(&dev, ADAPTERS, Plan { length: Length::Epochs(12.0), ema: 0.0, ..plan() });
    let before = trainer.evaluate(&dev, &samples(10)).unwrap();
    run(&dev, &mut trainer, 1000);
    let mut at = |alpha: f32| {
        trainer.network().set_alpha(alpha);
        trainer.evaluate(&dev, &samples(10)).unwrap()
    };
    let [none, half, whole] = [0.0, 4.0, 8.0].map(&mut at);
    assert!((none - before).abs() < 1e-6, "{none}, not {before}");
    assert!(whole < half && half < none, "{none} {half} {whole}");
}
