//! Networks that learn to be left early: their gradients, what they learn, and how sure a token must be.

use kernels::{Device, Precision};
use train::{Batch, Dropout, Error, Exits, Learned, Length, Network, Plan, Sample, Trainer};

use crate::trainer::{exits, plan, samples};
use crate::{ADAPTERS, check_gradient, load, teach};

#[test]
fn gradients_behind_exits_are_differences_of_the_loss() {
    let with = |exits: Exits, seed: u64| move |batch: &mut Batch| (batch.exits, batch.seed) = (exits.clone(), seed);
    let whole = |after: &[usize]| Exits { after: after.to_vec(), weight: 1.0, skip: 0.0 };
    check_gradient("llama", Learned::All, with(whole(&[1]), 0));
    check_gradient("qwen2", ADAPTERS, with(whole(&[1]), 0));
    // Norms around blocks, and more than one exit.
    check_gradient("gemma3", Learned::All, with(whole(&[2, 5]), 0));
    for seed in [1, 2] {
        check_gradient("gemma3", Learned::All, with(Exits { skip: 0.9, ..whole(&[2, 5]) }, seed));
    }
    check_gradient("llama", Learned::All, |batch| {
        teach(batch);
        batch.exits = whole(&[1]);
        batch.dropout = Dropout { residuals: 0.2, ..Dropout::default() };
    });
}

/// The loss behind one layer, which is that of a network that has no other.
fn behind_one(dev: &Device, network: &mut Network) -> f64 {
    let samples = samples(10);
    let mut batch = Batch::default();
    samples.iter().for_each(|sample| batch.push(&sample.tokens, |i| sample.weights[i] != 0.0));
    batch.average();
    // The second layer adds nothing without these.
    let values = network.params.values.clone();
    let silent = |name: &str| name == "layers.1.out" || name == "layers.1.down";
    for entry in network.params.entries().to_vec().into_iter().filter(|entry| silent(&entry.name)) {
        network.params.values[entry.range].fill(0.0);
    }
    network.refresh(dev);
    let loss = network.losses(dev, &batch).total;
    network.params.values = values;
    network.refresh(dev);
    loss
}

#[test]
fn a_network_with_an_exit_is_good_there_too() {
    let dev = Device::new(2);
    let run = |exits: Exits| {
        let plan = Plan { length: Length::Epochs(20.0), ema: 0.0, dropout: Dropout::default(), exits, ..plan() };
        let network = Network::new(&dev, &load(&dev, "llama"), Learned::All, Precision::F32);
        let mut trainer = Trainer::new(network, plan, samples(10), "llama").unwrap();
        while trainer.step(&dev).unwrap().is_some() {}
        (trainer.evaluate(&dev, &samples(10)).unwrap(), behind_one(&dev, trainer.network()))
    };
    let (plain, with) = (run(Exits::default()), run(exits()));
    assert!(with.1 < plain.1 - 0.5, "behind one layer: {with:?}, without an exit {plain:?}");
    assert!(with.0 < with.1 - 0.1, "behind both it is better still: {with:?}");
}

#[test]
fn exits_that_are_none_are_refused() {
    let dev = Device::new(1);
    for after in [vec![0], vec![2], vec![1, 1]] {
        let network = Network::new(&dev, &load(&dev, "llama"), Learned::All, Precision::F32);
        let plan = Plan { exits: Exits { after: after.clone(), ..Exits::default() }, ..plan() };
        let error = Trainer::new(network, plan, samples(3), "llama").unwrap_err();
        assert!(matches!(error, Error::Plan { field: "exits", .. }), "{after:?}: {error}");
    }
}

/// A network whose second layer does nothing agrees with itself behind the first; one whose second layer does much does not.
#[test]
fn a_token_may_leave_where_the_deeper_layers_would_not_change_it() {
    let dev = Device::new(2);
    let many: Vec<Sample> = (0..4).flat_map(|_| samples(10)).collect();
    let calibrated = |second: f32| {
        let mut network = Network::new(&dev, &load(&dev, "llama"), Learned::All, Precision::F32);
        for entry in network.params.entries().to_vec() {
            let by = match entry.name.as_str() {
                "layers.1.out" | "layers.1.down" => second,
                // Sure of itself.
                "output_norm" => 300.0,
                _ => 1.0,
            };
            network.params.values[entry.range].iter_mut().for_each(|x| *x *= by);
        }
        network.refresh(&dev);
        network.calibrate(&dev, &many, &[1], 64).remove(0)
    };
    let (idle, busy) = (calibrated(0.0), calibrated(30.0));
    // Of every document the answer's tokens but the last, which nothing follows.
    let tokens: usize = many.iter().map(|sample| sample.tokens.len() - 5).sum();
    assert_eq!((idle.tokens, idle.wrong, busy.tokens), (tokens, 0, tokens));
    assert!(idle.left > 528 && idle.exit().is_some_and(|exit| exit.after == 1), "{idle:?}");
    assert!(busy.left == 0 && busy.exit().is_none(), "{busy:?}");
}
