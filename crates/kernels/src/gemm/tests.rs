//! Products against f64, in every way that operands may lie, on every instruction set.

use half::{bf16, f16};
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::Isa;
use crate::testing::Random;

/// The product in f64, of numbers as the precision sees them.
fn exact(precision: Precision, (m, n, k): (usize, usize, usize), a: &[f32], b: &[f32]) -> Vec<f64> {
    let seen = |x: f32| {
        f64::from(match precision {
            Precision::F32 => x,
            Precision::Bf16 => bf16::from_f32(x).to_f32(),
            Precision::F16 => f16::from_f32(x).to_f32(),
        })
    };
    let sum = |i: usize, j: usize| (0..k).map(|t| seen(a[i * k + t]) * seen(b[j * k + t])).sum::<f64>();
    (0..m * n).map(|at| sum(at / n, at % n)).collect()
}

fn transposed(x: &[f32], cols: usize) -> Vec<f32> {
    let rows = x.len() / cols;
    (0..x.len()).map(|at| x[at % rows * cols + at / rows]).collect()
}

/// Every way to hold the same operands gives the same bits, near the exact ones; returned are these.
#[track_caller]
fn check(precision: Precision, isa: Isa, (m, n, k): (usize, usize, usize), seed: u64) -> Vec<f32> {
    let mut random = Random::new(seed);
    let (a, b, before) = (random.numbers(m * k), random.numbers(n * k), random.numbers(m * n));
    let (a_columns, b_columns) = (transposed(&a, k), transposed(&b, k));
    let left = [Vectors::rows(&a, k), Vectors::columns(&a_columns, m)];
    let right = [Vectors::rows(&b, k), Vectors::columns(&b_columns, n)];
    let want = exact(precision, (m, n, k), &a, &b);
    let mut all: Vec<Vec<f32>> = Vec::new();
    // What was packed before stands in the room still.
    let (dev, old) = (Device::with_isa(1, isa), vec![f32::NAN; (m.max(n) + 33) * (k + 1)]);
    let (mut l, mut r) = (LeftPanels::default(), RightPanels::default());
    l.pack(&dev, Precision::F32, Vectors::rows(&old, k + 1));
    r.pack(&dev, Precision::F32, Vectors::rows(&old, k + 1));
    for (threads, way) in [(1, 0), (1, 1), (2, 2), (2, 3)] {
        let (dev, mut out) = (Device::with_isa(threads, isa), before.clone());
        l.pack(&dev, precision, left[way % 2]);
        r.pack(&dev, precision, right[way / 2]);
        gemm(&dev, &l, &r, &mut out, false);
        all.push(out.clone());
        gemm(&dev, &l, &r, &mut out, true);
        let twice = out.iter().zip(&all[0]).all(|(twice, once)| (twice - 2.0 * once).abs() < 1e-3 + 1e-5 * once.abs());
        assert!(twice, "{precision:?} {isa:?} {m}x{n}x{k}: adds up");
    }
    assert!(all.iter().all(|out| *out == all[0]), "{precision:?} {isa:?} {m}x{n}x{k}: the same bits");
    for (got, want) in all[0].iter().zip(want) {
        assert!(
            (f64::from(*got) - want).abs() < 1e-6 * k as f64 + 1e-6,
            "{precision:?} {isa:?} {m}x{n}x{k}: {got}, not {want}"
        );
    }
    all.swap_remove(0)
}

#[test]
fn products_are_right_on_every_instruction_set() {
    for shape in [(1, 1, 1), (8, 32, 2), (9, 33, 3), (65, 70, 515), (40, 300, 64), (3, 5, 1025), (270, 300, 600)] {
        let all = |precision| Isa::available().into_iter().map(move |isa| check(precision, isa, shape, 7));
        for precision in [Precision::F32, Precision::F16] {
            let alike: Vec<Vec<f32>> = all(precision).collect();
            let same = alike.iter().all(|one| *one == alike[0]);
            assert!(same, "{precision:?} {shape:?}: the same bits on every instruction set");
        }
        // Instructions on bf16 round sums their own way.
        all(Precision::Bf16).for_each(drop);
    }
}

const ALL: [Precision; 3] = [Precision::F32, Precision::Bf16, Precision::F16];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn any_shape(m in 1_usize..70, n in 1_usize..70, k in 1_usize..70, precision in select(&ALL[..]), seed: u64) {
        check(precision, Isa::detect(), (m, n, k), seed);
    }
}

#[test]
fn what_is_no_number_stays_none() {
    let dev = Device::new(1);
    for nan in [f32::NAN, f32::from_bits(0x7fff_ffff), f32::from_bits(0xffff_ffff)] {
        for precision in ALL {
            let out = dot(&dev, precision, [nan, 1.0], [1.0, 1.0]);
            assert!(out.is_nan(), "{precision:?}: {nan:?} became {out}");
        }
    }
}

fn dot(dev: &Device, precision: Precision, a: [f32; 2], b: [f32; 2]) -> f32 {
    let (mut l, mut r, mut out) = (LeftPanels::default(), RightPanels::default(), [0.0]);
    l.pack(dev, precision, Vectors::rows(&a, 2));
    r.pack(dev, precision, Vectors::rows(&b, 2));
    gemm(dev, &l, &r, &mut out, false);
    out[0]
}

/// What f16 cannot hold is not taken for its largest number, and what is too small for it is zero: a trainer's scale goes by both.
#[test]
fn f16_has_its_range() {
    for isa in Isa::available() {
        let dev = Device::with_isa(1, isa);
        let dot = |a, b| dot(&dev, Precision::F16, [a, 0.0], [b, 0.0]);
        assert_eq!(dot(65_519.0, 1.0), 65_504.0, "{isa:?}");
        assert_eq!(dot(-65_520.0, 1.0), f32::NEG_INFINITY, "{isa:?}");
        assert_eq!(dot(6e-8, 1.0), 2.0_f32.powi(-24), "{isa:?}: subnormal numbers are there");
        assert_eq!(dot(2.9e-8, 1.0), 0.0, "{isa:?}");
        assert_eq!(dot(60_000.0, 60_000.0), 60_000.0 * 60_000.0, "{isa:?}: sums are f32");
    }
}
