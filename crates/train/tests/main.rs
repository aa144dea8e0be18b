//! The network against inference, and its gradients against differences, on the tiny checkpoints of every family.
#![expect(clippy::unwrap_used, reason = "tests fail loudly")]

mod adapters;
mod exits;
mod experts;
mod f16;
mod spread;
mod students;
mod trainer;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use kernels::{Device, PAGE_TOKENS, Precision, Span};
use model::{HeadWorkspace, Model, Workspace};
use train::{Batch, Dropout, Entry, Exits, Learned, Lora, Losses, Method, Network, Optimizer, Rule};

/// Decoders; each has something that the others have not: biases, norms around blocks, windows, stretched rotations.
const FAMILIES: [&str; 5] = ["llama", "gemma3", "qwen2", "llama3", "llama-yarn"];

fn golden_path(family: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/goldens").join(family)
}

fn load(dev: &Device, family: &str) -> Model {
    Model::load(dev, &golden_path(family), &|_, _| {}).unwrap()
}

/// Documents of random tokens; the first tokens of each are not learned.
fn batch(vocab: usize, lens: &[usize]) -> Batch {
    let (mut batch, mut state) = (Batch::default(), 1_u64);
    for &len in lens {
        let mut token = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as u32 % vocab as u32
        };
        let document: Vec<u32> = (0..len).map(|_| token()).collect();
        batch.push(&document, |i| i > 2);
    }
    batch.average();
    batch
}

/// Losses as inference gives them.
fn inferred(dev: &Device, model: &Model, batch: &Batch) -> Vec<f32> {
    let (mut losses, mut start) = (Vec::new(), 0);
    for len in batch.branches.iter().map(|branch| branch.own.len()) {
        let pages: Vec<u32> = (0..len.div_ceil(PAGE_TOKENS) as u32).collect();
        let mut cache = model.new_cache(pages.len());
        let tokens = &batch.tokens[start..start + len];
        let spans = [Span { start: 0, len, position: 0, pages: &pages }];
        let outputs: Vec<u32> = (0..len as u32).collect();
        let mut work = Workspace::default();
        let step = model::Batch { tokens, spans: &spans, outputs: &outputs, adapters: &[], leaving: &[] };
        let hidden = model.forward(dev, &mut cache, &step, &mut work).to_vec();
        let mut logits = vec![0.0; len * model.spec().vocab];
        model.logits(dev, &hidden, &mut HeadWorkspace::default(), &mut logits);
        for (row, logits) in logits.chunks(model.spec().vocab).enumerate() {
            let target = batch.targets[start + row] as usize;
            losses.push(kernels::log_sum_exp(dev, logits) - logits[target]);
        }
        start += len;
    }
    losses
}

#[test]
fn the_loss_is_that_of_inference() {
    let dev = Device::new(2);
    for family in FAMILIES {
        let model = load(&dev, family);
        let batch = batch(model.spec().vocab, &[40, 3, 90]);
        let mut network = Network::new(&dev, &model, Learned::Nothing, Precision::F32);
        let got = network.losses(&dev, &batch);
        let rows = inferred(&dev, &model, &batch);
        let total: f64 = rows.iter().zip(&batch.weights).map(|(loss, weight)| f64::from(loss * weight)).sum();
        assert!((got.total - total).abs() < 1e-3, "{family}: {}, not {total}", got.total);
        for (row, (got, want)) in got.rows.iter().zip(rows).enumerate() {
            let want = if batch.weights[row] == 0.0 { 0.0 } else { want };
            // Inference keeps keys and values in f16.
            assert!((got - want).abs() < 3e-3 * (1.0 + want), "{family}, row {row}: {got}, not {want}");
        }
    }
}

/// Gradients against differences of the loss, in some numbers of every parameter.
#[track_caller]
fn check_gradient(family: &str, learned: Learned, change: impl Fn(&mut Batch)) {
    let dev = Device::new(2);
    let model = load(&dev, family);
    let mut batch = batch(model.spec().vocab, &[20, 70]);
    change(&mut batch);
    let mut network = Network::new(&dev, &model, learned, Precision::F32);
    // Away from where adapters begin, so that both their halves have a gradient.
    let values = &mut network.params.values;
    let entries = values.len();
    (0..entries).for_each(|i| values[i] += 0.02 * ((i * 2_654_435_761) % 1000) as f32 / 1000.0 - 0.01);
    network.refresh(&dev);
    network.learn(&dev, &batch);
    let gradient = network.params.gradient.clone();
    let entries = network.params.entries().to_vec();
    let mut loss = |at: usize, by: f32| {
        network.params.values[at] += by;
        network.refresh(&dev);
        // What is left out is left out of what is learned only.
        let total = network.learn(&dev, &batch).total;
        network.params.values[at] -= by;
        total
    };
    let norm = gradient.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
    for Entry { name, range, .. } in entries {
        // The number whose gradient is largest, where differences in f32 say most.
        let at = range.max_by(|a, b| gradient[*a].abs().total_cmp(&gradient[*b].abs())).unwrap();
        let want = (loss(at, 5e-3) - loss(at, -5e-3)) / 1e-2;
        let got = f64::from(gradient[at]);
        let near = (got - want).abs() < 0.02 * want.abs() + 1e-4 * norm;
        assert!(near, "{family} {learned:?} {name}: {got}, not {want}");
        let left_out = !batch.exits.after.is_empty() && batch.exits.skip > 0.0;
        assert!(got != 0.0 || left_out, "{family} {learned:?} {name} learns");
    }
}

const ADAPTERS: Learned = Learned::Adapters(Lora { rank: 4, alpha: 8.0, seed: 1 });

#[test]
fn gradients_are_differences_of_the_loss() {
    for family in FAMILIES {
        check_gradient(family, Learned::All, |_| {});
        check_gradient(family, ADAPTERS, |_| {});
    }
}

#[test]
fn gradients_with_dropout_are_differences_of_the_loss() {
    // Gemma has norms between blocks and the residual stream.
    for family in ["llama", "gemma3"] {
        let drop = |batch: &mut Batch| {
            (batch.dropout, batch.seed) = (Dropout { adapters: 0.3, residuals: 0.2 }, 7);
        };
        check_gradient(family, Learned::All, drop);
        check_gradient(family, ADAPTERS, drop);
    }
}

/// A teacher that names up to five tokens in two of three rows.
fn teach(batch: &mut Batch) {
    for row in 0..batch.tokens.len() {
        let ids: Vec<u32> = (0..row % 3 * 3).map(|i| (row + 7 * i) as u32 % 50).collect();
        batch.teacher.push(&ids, &vec![-2.0; ids.len()]);
    }
}

#[test]
fn gradients_of_distillation_are_differences_of_the_loss() {
    check_gradient("llama", Learned::All, teach);
    check_gradient("qwen2", ADAPTERS, teach);
}

/// A document beside a text that the student wrote.
#[test]
fn gradients_of_documents_and_own_texts_together_are_differences_of_the_loss() {
    let mixed = |batch: &mut Batch| {
        teach(batch);
        let written = batch.branches[1].own.clone();
        batch.own[written].fill(true);
    };
    check_gradient("llama", Learned::All, mixed);
    check_gradient("qwen2", ADAPTERS, mixed);
}

/// Losses and gradients of a step, and the bytes that it took.
fn learn(dev: &Device, network: &mut Network, batch: &Batch) -> (Losses, Vec<f32>, usize) {
    network.params.gradient.fill(0.0);
    let losses = network.learn(dev, batch);
    (losses, network.params.gradient.clone(), network.bytes())
}

#[test]
fn recomputing_gives_the_same_bits_in_less_room() {
    let dev = Device::new(2);
    for (family, learned) in FAMILIES.into_iter().flat_map(|family| [(family, Learned::All), (family, ADAPTERS)]) {
        let model = load(&dev, family);
        let mut network = Network::new(&dev, &model, learned, Precision::F32);
        let batches = [&[20, 70][..], &[33], &[40, 3, 90]].map(|lens| {
            let dropout = Dropout { adapters: 0.3, residuals: 0.2 };
            let exits = Exits { after: vec![1], skip: 0.5, ..Exits::default() };
            Batch { dropout, exits, ..batch(model.spec().vocab, lens) }
        });
        let kept = batches.each_ref().map(|batch| learn(&dev, &mut network, batch));
        network.recompute(true);
        let again = batches.each_ref().map(|batch| learn(&dev, &mut network, batch));
        for ((kept, again), batch) in kept.iter().zip(&again).zip(&batches) {
            assert!(
                (&kept.0, &kept.1) == (&again.0, &again.1),
                "{family} {learned:?} {:?}: the same bits",
                batch.branches
            );
            assert!(again.2 < kept.2, "{family}: {} bytes, {} without", again.2, kept.2);
        }
    }
}

#[test]
fn nothing_is_left_out_of_what_is_only_looked_at() {
    let dev = Device::new(2);
    let model = load(&dev, "llama");
    let plain = batch(model.spec().vocab, &[20, 70]);
    let exits = Exits { after: vec![1], skip: 0.9, ..Exits::default() };
    let dropped = Batch { dropout: Dropout { adapters: 0.3, residuals: 0.2 }, exits, ..plain.clone() };
    let mut network = Network::new(&dev, &model, Learned::All, Precision::F32);
    let looked_at = network.losses(&dev, &plain);
    assert_eq!(network.losses(&dev, &dropped), looked_at);
    assert_ne!(network.learn(&dev, &dropped), looked_at);
}

#[test]
fn a_step_gives_the_same_bits_on_any_number_of_threads() {
    let run = |threads| {
        let dev = Device::new(threads);
        let model = load(&dev, "gemma3");
        let batch = batch(model.spec().vocab, &[33, 64, 70]);
        let mut network = Network::new(&dev, &model, Learned::All, Precision::Bf16);
        let losses = network.learn(&dev, &batch);
        (losses, network.params.gradient.clone())
    };
    assert!(run(1) == run(2));
}

#[test]
fn documents_do_not_see_each_other() {
    let dev = Device::new(2);
    let model = load(&dev, "llama");
    let mut network = Network::new(&dev, &model, Learned::Nothing, Precision::F32);
    let together = batch(model.spec().vocab, &[30, 50]);
    let all = network.losses(&dev, &together).rows;
    let second = Batch {
        tokens: together.tokens[29..].to_vec(),
        targets: together.targets[29..].to_vec(),
        weights: together.weights[29..].to_vec(),
        branches: kernels::Branch::behind_each_other(&[49]),
        ..Batch::default()
    };
    assert_eq!(network.losses(&dev, &second).rows, all[29..]);
}

/// The tokens that `goldens/make.py` learned from.
fn document(step: usize, number: usize) -> Vec<u32> {
    let mut token = (7 * step + 13 * number) % 61;
    let mut next = |i: usize| {
        let noise = if (step * 31 + number * 17 + i * i).is_multiple_of(5) { i } else { 0 };
        let now = token;
        token = (token * 5 + 3 + noise) % 61;
        now as u32
    };
    (0..33).map(&mut next).collect()
}

/// The same weights, data and rule as PyTorch, from the first step to the last.
#[track_caller]
fn check_curve(family: &str, method: Method, losses: &[f64]) {
    let dev = Device::new(2);
    let model = load(&dev, family);
    let mut network = Network::new(&dev, &model, Learned::All, Precision::F32);
    let rule = Rule { method, precision: Precision::F32, ..Rule::default() };
    let mut optimizer = Optimizer::new(rule, &network.params);
    for (step, want) in losses.iter().enumerate() {
        let mut batch = Batch::default();
        (0..4).for_each(|number| batch.push(&document(step, number), |_| true));
        batch.average();
        let got = network.learn(&dev, &batch).total;
        optimizer.step(&dev, &mut network.params, 3e-3);
        network.refresh(&dev);
        assert!((got - want).abs() < 1e-4 * want, "{family}, {method:?}, step {step}: {got}, not {want}");
    }
}

#[test]
fn two_hundred_steps_are_those_of_pytorch() {
    type Curves = BTreeMap<String, Vec<f64>>;
    let recorded: [(Method, Curves); 2] = {
        let mut recorded: BTreeMap<String, Curves> = serde_json::from_str(include_str!("goldens/curves.json")).unwrap();
        [(Method::AdamW, "adamw"), (Method::Muon, "muon")]
            .map(|(method, name)| (method, recorded.remove(name).unwrap()))
    };
    for (method, curves) in recorded {
        curves.iter().for_each(|(family, losses)| check_curve(family, method, losses));
    }
}
