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

/// The divergence in f64, from its definition.
fn divergence(rule: &Distil, logits: &[f64], ids: &[u32], logprobs: &[f32]) -> f64 {
    let sum: f64 = logits.iter().map(|x| x.exp()).sum();
    let mut p: Vec<f64> = logprobs.iter().map(|x| f64::from(*x).exp()).collect();
    let mut q: Vec<f64> = ids.iter().map(|id| logits[*id as usize].exp() / sum).collect();
    if ids.len() < logits.len() {
        p.push((1.0 - p.iter().sum::<f64>()).max(1e-7));
        let unnamed = (0..logits.len()).filter(|i| !ids.contains(&(*i as u32)));
        q.push(unnamed.map(|i| logits[i].exp()).sum::<f64>() / sum);
    }
    let skew = f64::from(rule.skew);
    let each = p.iter().zip(&q).map(|(p, q)| match rule.divergence {
        Divergence::Forward => p * (p / (skew * p + (1.0 - skew) * q)).ln(),
        Divergence::Reverse => q * (q / ((1.0 - skew) * p + skew * q)).ln(),
    });
    each.sum()
}

/// What a teacher with other logits says: of row `i`, its `i` first tokens by a stride; of row 7, all.
fn teach(rows: usize, cols: usize) -> (Vec<usize>, Vec<u32>, Vec<f32>) {
    let mut random = Random::new(80);
    let (mut ends, mut ids, mut logprobs) = (Vec::new(), Vec::new(), Vec::new());
    for row in 0..rows {
        let logits: Vec<f64> = random.numbers(cols).iter().map(|x| 4.0 * f64::from(*x)).collect();
        let log_sum = logits.iter().map(|x| x.exp()).sum::<f64>().ln();
        for i in 0..if row == 7 { cols } else { row } {
            let id = i * 7 % cols;
            ids.push(id as u32);
            logprobs.push((logits[id] - log_sum) as f32);
        }
        ends.push(ids.len());
    }
    (ends, ids, logprobs)
}

#[test]
fn losses_against_a_teacher_and_their_gradient() {
    let (rows, cols) = (12, 101);
    let mut random = Random::new(8);
    let logits: Vec<f32> = random.numbers(rows * cols).iter().map(|x| 5.0 * x).collect();
    // Some targets are named by the teacher, some are not.
    let targets: Vec<u32> = (0..rows as u32).map(|i| i * 7 % 50).collect();
    let weights: Vec<f32> = (0..rows).map(|i| 0.1 + 0.05 * i as f32).collect();
    let (ends, ids, logprobs) = teach(rows, cols);
    let teaching = Teaching { ends: &ends, ids: &ids, logprobs: &logprobs };
    let rules = [(1.0, 0.0), (0.5, 0.0), (0.7, 0.2), (1.0, 0.1)].into_iter().flat_map(|(share, skew)| {
        [Divergence::Forward, Divergence::Reverse].map(|divergence| Distil { share, skew, divergence })
    });
    // Every second row is compared the other way round, and with the teacher alone.
    let mixed = |rule: Distil| {
        let other = match rule.divergence {
            Divergence::Forward => Divergence::Reverse,
            Divergence::Reverse => Divergence::Forward,
        };
        let other = Distil { share: 1.0, divergence: other, ..rule };
        [vec![rule; rows], (0..rows).map(|row| if row % 2 == 0 { rule } else { other }).collect()]
    };
    for (rules, softcap) in rules.flat_map(mixed).flat_map(|rules| [(rules.clone(), None), (rules, Some(4.0_f32))]) {
        let (dlogits, losses) = everywhere(|dev| {
            let (mut logits, mut losses) = (logits.clone(), vec![0.0; rows]);
            distil(dev, &mut logits, (&targets, teaching), &weights, &rules, softcap, &mut losses);
            (logits, losses)
        });
        let exact = |x: &[f64]| -> Vec<f64> {
            let loss = |(i, row): (usize, &[f64])| {
                let cap = |x: &f64| softcap.map_or(*x, |cap| f64::from(cap) * (x / f64::from(cap)).tanh());
                let row: Vec<f64> = row.iter().map(cap).collect();
                let known = row.iter().map(|x| x.exp()).sum::<f64>().ln() - row[targets[i] as usize];
                let said = if i == 0 { 0..0 } else { ends[i - 1]..ends[i] };
                let share = if said.is_empty() { 0.0 } else { f64::from(rules[i].share) };
                let apart = divergence(&rules[i], &row, &ids[said.clone()], &logprobs[said]);
                (1.0 - share) * known + if share > 0.0 { share * apart } else { 0.0 }
            };
            x.chunks(cols).enumerate().map(loss).collect()
        };
        let wide: Vec<f64> = logits.iter().map(|x| f64::from(*x)).collect();
        for (row, (got, want)) in losses.iter().zip(exact(&wide)).enumerate() {
            assert!(
                (f64::from(*got) - want).abs() < 2e-5 * (1.0 + want),
                "{:?} {softcap:?}, row {row}: {got}, not {want}",
                rules[row]
            );
        }
        check(&format!("{:?} {softcap:?}", &rules[..2]), &logits, &weights, &dlogits, exact);
    }
}

/// A student that is sure of what its teacher knows nothing of, and a teacher that is sure.
#[test]
fn far_apart_is_finite() {
    let logits = [200.0, -200.0, 0.0, -100.0, 90.0, 1.0];
    for (skew, divergence) in [0.0, 0.1].into_iter().flat_map(|a| [(a, Divergence::Forward), (a, Divergence::Reverse)])
    {
        for (id, logprob) in [(0, -1e-9), (1, 0.0), (1, -50.0), (5, -1e4)] {
            let (mut row, mut losses) = (logits, [0.0]);
            let teaching = Teaching { ends: &[1], ids: &[id], logprobs: &[logprob] };
            let rule = Distil { share: 1.0, skew, divergence };
            distil(&Device::new(1), &mut row, (&[2], teaching), &[1.0], &[rule], None, &mut losses);
            assert!(losses[0].is_finite() && losses[0] >= -1e-6, "{rule:?} {id} {logprob}: {losses:?}");
            assert!(row.iter().all(|x| x.is_finite()), "{rule:?} {id} {logprob}: {row:?}");
        }
    }
}

#[test]
fn what_is_left_out_depends_on_the_row_and_not_on_its_neighbours() {
    let (rows, cols, share) = (300, 70, 0.3);
    let drop = Dropout { share, seed: 5, first: 10 };
    let all = everywhere(|dev| {
        let mut x = vec![1.0; rows * cols];
        dropout(dev, &drop, cols, &mut x);
        x
    });
    let left_out = all.iter().filter(|x| **x == 0.0).count() as f32 / all.len() as f32;
    assert!((left_out - share).abs() < 0.01, "{left_out}");
    assert!(all.iter().all(|x| *x == 0.0 || (x - 1.0 / 0.7).abs() < 1e-6), "the others grow");
    let mut late = vec![1.0; cols * 7];
    dropout(&Device::new(1), &Dropout { first: 10 + 50, ..drop }, cols, &mut late);
    assert_eq!(late, all[50 * cols..57 * cols], "rows apart are drawn as together");
    let mut other = vec![1.0; cols * 7];
    dropout(&Device::new(1), &Dropout { seed: 6, ..drop }, cols, &mut other);
    assert!(other[..cols] != all[..cols] && all[..cols] != all[cols..2 * cols], "seeds and rows differ");
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
