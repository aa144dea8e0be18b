//! Against one-line definitions, on every instruction set and thread count; the noise against its distribution.

use super::*;
use crate::Isa;

fn devices() -> Vec<Device> {
    let isas = Isa::available().into_iter();
    isas.flat_map(|isa| [1, 2].map(|threads| Device::with_isa(threads, isa))).collect()
}

/// Values with many ties.
fn logits(n: usize, seed: u32) -> Vec<f32> {
    let hash = |i: u32| i.wrapping_add(seed).wrapping_mul(2_654_435_761) >> 16 ^ i.wrapping_mul(40_503);
    (0..n as u32).map(|i| (hash(i) % 4001) as f32 / 100.0 - 20.0).collect()
}

const SIZES: [usize; 8] = [1, 2, 15, 16, 17, 1000, 49_152, 262_144];

#[test]
fn argmax_is_the_first_of_the_largest() {
    for n in SIZES {
        let mut x = logits(n, n as u32);
        if n > 3 {
            x[n / 2] = f32::NAN;
            x[n / 3] = f32::NEG_INFINITY;
        }
        let want = (0..n).filter(|&i| !x[i].is_nan()).reduce(|a, b| if x[b] > x[a] { b } else { a });
        for dev in devices() {
            assert_eq!(Some(argmax(&dev, &x)), want, "{n} on {:?}", dev.isa());
            assert_eq!(argmax(&dev, &vec![f32::NEG_INFINITY; n]), 0);
        }
    }
    assert_eq!(argmax(&Device::new(1), &[]), 0);
}

#[test]
fn log_sum_exp_is_precise_and_the_same_everywhere() {
    for n in SIZES {
        let mut x = logits(n, 3);
        x[0] = f32::NEG_INFINITY;
        let want = x.iter().map(|&x| f64::from(x).exp()).sum::<f64>().ln() as f32;
        let all: Vec<f32> = devices().iter().map(|dev| log_sum_exp(dev, &x)).collect();
        assert!(all.iter().all(|y| y.to_bits() == all[0].to_bits()), "{n}: {all:?}");
        assert!((all[0] - want).abs() <= 2e-6 * want.abs() || all[0] == want, "{n}: {} for {want}", all[0]);
    }
}

#[test]
fn top_k_is_a_sorted_prefix() {
    let mut out = Vec::new();
    for n in SIZES {
        let mut x = logits(n, 5);
        x[n / 2] = f32::NAN;
        let mut sorted: Vec<(u32, f32)> = (0..).zip(x.iter().copied()).filter(|(_, x)| !x.is_nan()).collect();
        sorted.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        for k in [0, 1, 3, 40, 1000, 5000] {
            for dev in devices() {
                top_k(&dev, &x, k, &mut out);
                assert_eq!(out, sorted[..k.min(sorted.len())], "{k} of {n}");
            }
        }
    }
}

#[test]
fn gumbel_argmax_is_the_argmax_with_noise() {
    for n in SIZES {
        let x = logits(n, 11);
        for (position, (scale, floor)) in
            [(1.0, f32::NEG_INFINITY), (0.1, 5.0), (3.0, -3.0), (1.0, 1000.0)].iter().enumerate()
        {
            let value = |i: usize| x[i].mul_add(*scale, gumbel(7, position as u64, i as u32));
            let want = (0..n).filter(|&i| x[i] >= *floor).reduce(|a, b| if value(b) > value(a) { b } else { a });
            for dev in devices() {
                let got = gumbel_argmax(&dev, &x, *scale, *floor, 7, position as u64);
                assert_eq!(got, want.unwrap_or_else(|| argmax(&dev, &x)), "{n}, {scale}, {floor}");
            }
        }
    }
}

#[test]
fn the_noise_has_gumbel_moments_and_no_infinities() {
    let n = 400_000;
    let noise: Vec<f64> = (0..n).map(|i| f64::from(gumbel(u64::from(i % 7), u64::from(i / 5000), i % 5000))).collect();
    let mean = noise.iter().sum::<f64>() / f64::from(n);
    let variance = noise.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / f64::from(n);
    assert!((mean - 0.577_215_66).abs() < 0.01, "{mean}");
    assert!((variance - std::f64::consts::PI.powi(2) / 6.0).abs() < 0.03, "{variance}");
    assert!(noise.iter().all(|x| x.is_finite() && *x < f64::from(LARGEST_NOISE)));
}

/// Pearson's statistic of draws from a known distribution.
#[test]
fn draws_follow_the_softmax() {
    let p = [0.5, 0.25, 0.125, 0.0625, 0.03125, 0.03125];
    let x = p.map(|p: f32| p.ln() / 2.0);
    let (dev, n) = (Device::new(1), 50_000);
    let mut counts = [0_u32; 6];
    for position in 0..n {
        counts[gumbel_argmax(&dev, &x, 2.0, f32::NEG_INFINITY, 42, position)] += 1;
    }
    let expected = p.map(|p| f64::from(p) * n as f64);
    let statistic: f64 = counts.iter().zip(expected).map(|(&c, e)| (f64::from(c) - e).powi(2) / e).sum();
    assert!(statistic < 20.5, "chi squared {statistic} with 5 degrees of freedom: {counts:?}");
}
