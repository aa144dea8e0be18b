//! Gradients against finite differences of the definitions in f64.

use super::*;
use crate::Isa;
use crate::rope::{RopeScaling, RopeSpec, RopeStyle, RopeTable, rope, rope_backward};
use crate::testing::Random;

/// The gradient of `sum(dy * f(x))` by differences of f64, in places drawn at random, beside the one that was computed.
#[track_caller]
fn check(what: &str, x: &[f32], dy: &[f32], got: &[f32], f: impl Fn(&[f64]) -> Vec<f64>) {
    let mut random = Random::new(9);
    let wide: Vec<f64> = x.iter().map(|x| f64::from(*x)).collect();
    let loss = |x: &[f64]| f(x).iter().zip(dy).map(|(y, dy)| y * f64::from(*dy)).sum::<f64>();
    for _ in 0..40 {
        let at = random.bits() as usize % x.len();
        let moved = |by: f64| {
            let mut x = wide.clone();
            x[at] += by;
            loss(&x)
        };
        let want = (moved(1e-5) - moved(-1e-5)) / 2e-5;
        assert!((f64::from(got[at]) - want).abs() < 2e-5 * (1.0 + want.abs()), "{what}[{at}]: {}, not {want}", got[at]);
    }
}

/// What an operation computes, on every instruction set and number of threads: the same bits.
fn everywhere<T: PartialEq>(run: impl Fn(&Device) -> T) -> T {
    let all = Isa::available().into_iter().flat_map(|isa| [1, 2].map(|threads| run(&Device::with_isa(threads, isa))));
    let mut all: Vec<T> = all.collect();
    assert!(all.iter().all(|one| *one == all[0]), "the same bits");
    all.swap_remove(0)
}

#[test]
fn the_gradient_of_a_norm() {
    let (rows, cols, eps) = (70, 150, 1e-3);
    let mut random = Random::new(3);
    let (x, weight, dy) = (random.numbers(rows * cols), random.numbers(cols), random.numbers(rows * cols));
    let (y, dx, dweight) = everywhere(|dev| {
        let (mut y, mut inverse) = (vec![0.0; x.len()], vec![0.0; rows]);
        rms_norm_forward(dev, &x, &weight, eps, &mut y, &mut inverse);
        let (mut dx, mut dweight) = (vec![1.0; x.len()], vec![1.0; cols]);
        rms_norm_backward(dev, &x, &weight, &inverse, &dy, &mut dx, Some(&mut dweight));
        [&mut dx, &mut dweight].into_iter().flatten().for_each(|x| *x -= 1.0);
        (y, dx, dweight)
    });
    let mut plain = vec![0.0; x.len()];
    crate::rms_norm(&Device::new(2), &x, &weight, eps, &mut plain);
    assert_eq!(y, plain, "the norm is that of inference");
    let norm = |x: &[f64], weight: &[f64]| -> Vec<f64> {
        let row = |x: &[f64]| {
            let scale = 1.0 / (x.iter().map(|x| x * x).sum::<f64>() / cols as f64 + f64::from(eps)).sqrt();
            x.iter().zip(weight).map(|(x, w)| x * scale * w).collect::<Vec<f64>>()
        };
        x.chunks(cols).flat_map(row).collect()
    };
    let wide = |x: &[f32]| x.iter().map(|x| f64::from(*x)).collect::<Vec<f64>>();
    let (wide_x, wide_weight) = (wide(&x), wide(&weight));
    check("dx", &x, &dy, &dx, |x| norm(x, &wide_weight));
    check("dweight", &weight, &dy, &dweight, |weight| norm(&wide_x, weight));
}

/// The functions in f64.
fn exact(f: Activation, x: f64) -> f64 {
    match f {
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::GeluTanh => {
            0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3))).tanh())
        }
        Activation::Gelu => {
            // By the series of the error function; arguments here are below 4.
            let z = x / 2f64.sqrt();
            let term = |n: i32| {
                (-1f64).powi(n) * z.powi(2 * n + 1) / (f64::from(2 * n + 1) * (1..=n).map(f64::from).product::<f64>())
            };
            0.5 * x * (1.0 + 2.0 / std::f64::consts::PI.sqrt() * (0..80).map(term).sum::<f64>())
        }
    }
}

#[test]
fn the_gradients_of_activations() {
    let mut random = Random::new(4);
    let n = 9001;
    let [gate, up, dy] = [(); 3].map(|()| random.numbers(n).iter().map(|x| 3.0 * x).collect::<Vec<f32>>());
    for f in [Activation::Silu, Activation::GeluTanh, Activation::Gelu] {
        let (dgate, dup) = everywhere(|dev| {
            let (mut gate, mut up) = (gate.clone(), up.clone());
            gated_backward(dev, f, &mut gate, &mut up, &dy);
            (gate, up)
        });
        let wide = |x: &[f32]| x.iter().map(|x| f64::from(*x)).collect::<Vec<f64>>();
        let (wide_gate, wide_up) = (wide(&gate), wide(&up));
        let product =
            |gate: &[f64], up: &[f64]| gate.iter().zip(up).map(|(g, u)| exact(f, *g) * u).collect::<Vec<f64>>();
        check("gate", &gate, &dy, &dgate, |gate| product(gate, &wide_up));
        check("up", &up, &dy, &dup, |up| product(&wide_gate, up));
        let alone = everywhere(|dev| {
            let mut x = gate.clone();
            activate_backward(dev, f, &mut x, &dy);
            x
        });
        check("alone", &gate, &dy, &alone, |x| x.iter().map(|x| exact(f, *x)).collect());
        let mut y = vec![0.0; n];
        gated_forward(&Device::new(2), f, &gate, &up, &mut y);
        assert!(y.iter().zip(product(&wide_gate, &wide_up)).all(|(y, want)| (f64::from(*y) - want).abs() < 1e-5));
    }
}

#[test]
fn the_gradient_of_a_rotation_is_its_transpose() {
    let scaling = RopeScaling::Yarn {
        factor: 4.0,
        original_context: 64,
        beta_fast: 32.0,
        beta_slow: 1.0,
        attention_factor: None,
    };
    for style in [RopeStyle::Half, RopeStyle::Interleaved] {
        let spec = RopeSpec { style, dim: 32, base: 1e4, scaling: scaling.clone() };
        let (table, dev, positions) = (RopeTable::new(&spec, 256), Device::new(2), [3, 200]);
        let mut random = Random::new(6);
        let (x, dy) = (random.numbers(160), random.numbers(160));
        let (mut y, mut dx) = (x.clone(), dy.clone());
        rope(&dev, &table, &mut y, 40, &positions);
        rope_backward(&dev, &table, &mut dx, 40, &positions);
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
        assert!((dot(&y, &dy) - dot(&x, &dx)).abs() < 1e-5, "{style:?}: dy·Rx = Rᵀdy·x");
    }
}

#[test]
fn losses_and_their_gradient() {
    let (rows, cols) = (21, 515);
    let mut random = Random::new(8);
    let logits: Vec<f32> = random.numbers(rows * cols).iter().map(|x| 6.0 * x).collect();
    let targets: Vec<u32> = (0..rows).map(|_| random.bits() as u32 % cols as u32).collect();
    let weights: Vec<f32> = (0..rows).map(|i| if i % 5 == 0 { 0.0 } else { 0.3 }).collect();
    for softcap in [None, Some(4.0)] {
        let (dlogits, losses) = everywhere(|dev| {
            let (mut logits, mut losses) = (logits.clone(), vec![0.0; rows]);
            cross_entropy(dev, &mut logits, &targets, &weights, softcap, &mut losses);
            (logits, losses)
        });
        let exact = |x: &[f64]| -> Vec<f64> {
            let loss = |(row, target): (&[f64], &u32)| {
                let cap = |x: f64| softcap.map_or(x, |cap: f32| f64::from(cap) * (x / f64::from(cap)).tanh());
                row.iter().map(|x| cap(*x).exp()).sum::<f64>().ln() - cap(row[*target as usize])
            };
            x.chunks(cols).zip(&targets).map(loss).collect()
        };
        let wide: Vec<f64> = logits.iter().map(|x| f64::from(*x)).collect();
        assert!(
            losses.iter().zip(exact(&wide)).all(|(got, want)| (f64::from(*got) - want).abs() < 1e-5),
            "{softcap:?}"
        );
        check("logits", &logits, &weights, &dlogits, exact);
        assert!(dlogits[..cols].iter().all(|x| *x == 0.0), "a row of no weight teaches nothing");
    }
}

#[test]
fn embeddings_gather_what_their_tokens_get() {
    let (tokens, cols) = ([2_u32, 0, 2], 70);
    let mut random = Random::new(12);
    let (table, dy) = (random.numbers(3 * cols), random.numbers(3 * cols));
    let dev = Device::new(2);
    let (mut y, mut dtable) = (vec![0.0; 3 * cols], vec![0.0; 3 * cols]);
    embed(&dev, &table, &tokens, 2.0, &mut y);
    embed_backward(&dev, &mut dtable, &tokens, 2.0, &dy);
    for c in 0..cols {
        assert_eq!([y[c], y[cols + c]], [2.0 * table[2 * cols + c], 2.0 * table[c]]);
        assert_eq!([dtable[c], dtable[cols + c]], [2.0 * dy[cols + c], 0.0]);
        assert_eq!(dtable[2 * cols + c], 2.0 * dy[c] + 2.0 * dy[2 * cols + c]);
    }
}
