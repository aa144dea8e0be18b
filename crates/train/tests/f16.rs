//! Learning in f16: what its range would lose is kept by the scale of the loss, and what goes beyond it is taken back.

use kernels::{Device, Precision};
use train::{Batch, Learned, Length, Network, Outcome, Plan, Trouble};

use crate::trainer::{halves, plan, run, samples};
use crate::{ADAPTERS, FAMILIES, batch, load};

fn network(dev: &Device, family: &str, learned: Learned, precision: Precision) -> Network {
    Network::new(dev, &load(dev, family), learned, precision)
}

/// A batch's gradient, by what it should be times, and its loss.
fn gradient(dev: &Device, network: &mut Network, batch: &Batch) -> (Vec<f64>, f64) {
    network.params.gradient.fill(0.0);
    let loss = network.learn(dev, batch).total;
    let times = f64::from(network.loss_scale());
    (network.params.gradient.iter().map(|g| f64::from(*g) / times).collect(), loss)
}

/// How far one vector is from another, by that one's length.
fn apart(one: &[f64], other: &[f64]) -> f64 {
    let square = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>();
    (square(&mut one.iter().zip(other).map(|(a, b)| a - b)) / square(&mut other.iter().copied())).sqrt()
}

/// Where nothing is rounded to f16 a scale changes nothing, not even a bit.
#[test]
fn a_scaled_loss_has_the_same_gradient() {
    let dev = Device::new(2);
    for (family, learned) in FAMILIES.into_iter().flat_map(|family| [(family, Learned::All), (family, ADAPTERS)]) {
        let mut network = network(&dev, family, learned, Precision::F32);
        let batch = batch(network.spec().vocab, &[40, 3, 90]);
        let plain = gradient(&dev, &mut network, &batch);
        network.scale_loss(65_536.0);
        assert!(gradient(&dev, &mut network, &batch) == plain, "{family} {learned:?}");
    }
}

/// A row's share of a mean over a million: without the scale most of its gradient is zero in f16, with it rounding is all that is lost.
#[test]
fn small_gradients_are_kept_by_the_scale() {
    let dev = Device::new(2);
    for (family, learned) in FAMILIES.into_iter().flat_map(|family| [(family, Learned::All), (family, ADAPTERS)]) {
        let mut exact = network(&dev, family, learned, Precision::F32);
        let mut batch = batch(exact.spec().vocab, &[40, 3, 90]);
        batch.weights.iter_mut().for_each(|weight| *weight *= 1e-4);
        let (want, exact_loss) = gradient(&dev, &mut exact, &batch);
        let mut halves = network(&dev, family, learned, Precision::F16);
        let (plain, loss) = gradient(&dev, &mut halves, &batch);
        halves.scale_loss(65_536.0);
        let (scaled, scaled_loss) = gradient(&dev, &mut halves, &batch);
        let [plain, scaled] = [plain, scaled].map(|got| apart(&got, &want));
        let mut coarse = network(&dev, family, learned, Precision::Bf16);
        let coarse = apart(&gradient(&dev, &mut coarse, &batch).0, &want);
        assert!(scaled < coarse / 4.0, "{family} {learned:?}: {scaled} apart, in bf16 {coarse}");
        assert!(plain > 10.0 * scaled, "{family} {learned:?}: {plain} apart without, {scaled} with a scale");
        assert!((loss / exact_loss - 1.0).abs() < 1e-3, "{family} {learned:?}: {loss}, in f32 {exact_loss}");
        assert_eq!(loss, scaled_loss, "the loss is not scaled");
    }
}

#[test]
fn a_run_learns_in_f16_as_in_f32() {
    let dev = Device::new(2);
    for learned in [Learned::All, ADAPTERS] {
        let plan = Plan { length: Length::Epochs(12.0), ..plan() };
        let mut trainer = halves(&dev, learned, plan);
        let before = trainer.evaluate(&dev, &samples(10)).unwrap();
        let steps = run(&dev, &mut trainer, 1000);
        assert!(steps.iter().all(|step| step.outcome == Outcome::Learned && step.scale == Some(65_536.0)), "{steps:?}");
        let after = trainer.evaluate(&dev, &samples(10)).unwrap();
        assert!(after < before - 0.3, "{learned:?}: {before} to {after}");
    }
}

/// A gradient that is scaled beyond the range costs a smaller scale and no sample; where nothing is scaled any more it is trouble.
#[test]
fn a_gradient_beyond_the_range_is_scaled_less() {
    let dev = Device::new(2);
    let spread = |times: f32| {
        let mut trainer = halves(&dev, Learned::All, Plan { skips: 0, ..plan() });
        let params = &mut trainer.network().params;
        let range = params.entries().iter().find(|entry| entry.name == "output_norm").unwrap().range.clone();
        params.values[range].iter_mut().for_each(|x| *x *= times);
        trainer.network().refresh(&dev);
        trainer
    };
    let mut trainer = spread(1000.0);
    let step = run(&dev, &mut trainer, 1).remove(0);
    assert_eq!((step.number, step.outcome), (1, Outcome::Learned));
    assert!(step.scale.unwrap() < 65_536.0 && step.gradient.is_finite(), "{step:?}");

    let mut trainer = spread(1e12);
    let step = run(&dev, &mut trainer, 1).remove(0);
    assert_eq!((step.outcome, step.scale), (Outcome::Skipped(Trouble::Loss), Some(65_536.0)), "{step:?}");
}
