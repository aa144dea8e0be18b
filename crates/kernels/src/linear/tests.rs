//! Products: every instruction set, shape and number of threads against the scalar form, to the bit.

use proptest::prelude::*;

use super::*;
use crate::BlockType;
use crate::testing::{Random, random_bytes};

/// A matrix and activations to multiply it by.
struct Case {
    weight: Matrix,
    x: Vec<f32>,
    bias: Vec<f32>,
    residual: Vec<f32>,
}

impl Case {
    fn new(kind: BlockType, rows: usize, cols: usize, m: usize, seed: u64) -> Self {
        let dev = Device::with_isa(1, Isa::Scalar);
        let weight = Matrix::pack(&dev, kind, rows, cols, &random_bytes(kind, rows * cols, seed)).unwrap();
        let mut random = Random::new(!seed);
        let mut x = random.numbers(m * cols);
        // Some blocks of very different sizes, and one of zeros.
        x.chunks_mut(32).enumerate().for_each(|(i, block)| {
            let scale = [1.0, 100.0, 0.0, 1e-3, 1e-35][i % 5];
            block.iter_mut().for_each(|x| *x *= scale);
        });
        Self { weight, x, bias: random.numbers(rows), residual: random.numbers(m * rows) }
    }

    fn activations(&self, dev: &Device, rows: Range<usize>) -> Activations {
        let (cols, mut activations) = (self.weight.cols(), Activations::new());
        activations.set(dev, &self.x[rows.start * cols..rows.end * cols], cols, &[self.weight.form()]);
        activations
    }

    /// The product of some rows of activations, with bias and residual.
    fn product(&self, dev: &Device, rows: Range<usize>) -> Vec<f32> {
        let x = self.activations(dev, rows.clone());
        let n = self.weight.rows();
        let mut out = self.residual[rows.start * n..rows.end * n].to_vec();
        linear(
            dev,
            &x,
            &mut [Linear { weight: &self.weight, bias: Some(&self.bias), out: &mut out, accumulate: true }],
        );
        out
    }
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

/// Tiles give the same bits too; `linear` leaves small products like these to vectors.
fn check_tiles(case: &Case, m: usize, expected: &[u32]) {
    let (dev, n) = (Device::with_isa(1, Isa::Amx), case.weight.rows());
    if dev.isa() < Isa::Amx {
        return;
    }
    let (x, mut out) = (case.activations(&dev, 0..m), case.residual.clone());
    let mut product = Linear { weight: &case.weight, bias: Some(&case.bias), out: &mut out, accumulate: true };
    let sink = Sink::new(&mut product, &x);
    multiply(Isa::Amx, &case.weight, 0..n.div_ceil(LANES), &x, 0..m, &sink);
    assert_eq!(bits(&out), expected, "{:?} {n} x {}, {m} rows in tiles", case.weight.kind(), case.weight.cols());
}

/// The same bits on all instruction sets, except for bf16, and for a row alone, in part, and by `linear_rows`.
fn check(kind: BlockType, rows: usize, cols: usize, m: usize, seed: u64) {
    let case = Case::new(kind, rows, cols, m, seed);
    let expected = bits(&case.product(&Device::with_isa(1, Isa::Scalar), 0..m));
    if kind != BlockType::BF16 {
        check_tiles(&case, m, &expected);
    }
    for isa in Isa::available() {
        let dev = Device::with_isa(1 + seed as usize % 3, isa);
        let context = format!("{kind:?} {rows} x {cols}, {m} rows, {isa:?}");
        let all = bits(&case.product(&dev, 0..m));
        if kind != BlockType::BF16 {
            assert_eq!(all, expected, "{context}");
        }
        let part = seed as usize % m..m;
        assert_eq!(bits(&case.product(&dev, part.clone())), all[part.start * rows..], "{context}: {part:?}");
        check_rows(&case, &dev, m, seed, &context);
    }
}

/// `linear_rows` gives what `linear` gives there.
fn check_rows(case: &Case, dev: &Device, m: usize, seed: u64, context: &str) {
    let (n, mut random) = (case.weight.rows(), Random::new(seed));
    let picked: Vec<u32> = (0..random.bits() % 40).map(|_| (random.bits() % n as u64) as u32).collect();
    let x = case.activations(dev, 0..m);
    let (mut all, mut some) = (vec![0.0; m * n], vec![f32::NAN; m * picked.len()]);
    linear(dev, &x, &mut [Linear { weight: &case.weight, bias: None, out: &mut all, accumulate: false }]);
    linear_rows(dev, &x, &case.weight, &picked, &mut some);
    let expected: Vec<_> = all.chunks(n).flat_map(|row| picked.iter().map(|i| row[*i as usize])).collect();
    assert_eq!(bits(&some), bits(&expected), "{context}: rows {picked:?}");
}

#[test]
fn every_instruction_set_gives_the_same_bits() {
    for kind in BlockType::ALL {
        for m in (1..=40).chain([64, 67]) {
            let cols = kind.block_len().max(32) * if m % 2 == 0 { 1 } else { 3 };
            check(kind, 16 + 5 * (m % 7), cols, m, m as u64);
        }
    }
}

#[test]
fn dense_columns_need_not_be_multiples_of_anything() {
    for kind in [BlockType::F32, BlockType::F16, BlockType::BF16] {
        for cols in [1, 2, 3, 16, 31, 33, 97] {
            check(kind, 70, cols, 1 + cols % 6, cols as u64);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_shape_gives_the_same_bits(kind in 0..BlockType::ALL.len(), rows in 1usize..200, blocks in 1usize..5, m in 1usize..50, seed: u64) {
        let kind = BlockType::ALL[kind];
        check(kind, rows, blocks * kind.block_len(), m, seed);
    }
}

#[test]
fn products_are_near_those_of_f64() {
    for isa in Isa::available() {
        let dev = Device::with_isa(2, isa);
        BlockType::ALL.into_iter().for_each(|kind| check_near(&dev, kind));
    }
}

fn check_near(dev: &Device, kind: BlockType) {
    let (rows, cols, m) = (20, 512, 3);
    let case = Case::new(kind, rows, cols, m, 3);
    let (out, mut row) = (case.product(dev, 0..m), vec![0.0; cols]);
    for n in 0..rows {
        case.weight.row(n, &mut row);
        for r in 0..m {
            let terms = || row.iter().zip(&case.x[r * cols..]).map(|(w, x)| f64::from(*w) * f64::from(*x));
            let size = terms().map(|t| t * t).sum::<f64>().sqrt();
            let expected = terms().sum::<f64>() + f64::from(case.bias[n]) + f64::from(case.residual[r * rows + n]);
            let error = (expected - f64::from(out[r * rows + n])).abs();
            assert!(error < 0.02 * size, "{kind:?} on {:?}: {error} of {size}", dev.isa());
        }
    }
}

#[test]
fn a_group_gives_what_its_matrices_give_alone() {
    let cols = 512;
    let cases: Vec<_> = [
        (BlockType::Q4_1, 33),
        (BlockType::Q8_0, 16),
        (BlockType::Q6_K, 100),
        (BlockType::Q4_0, 1),
        (BlockType::Q5_K, 64),
    ]
    .map(|(kind, rows)| Case::new(kind, rows, cols, 21, 5))
    .into();
    for isa in Isa::available() {
        let dev = Device::with_isa(2, isa);
        let x = cases[0].activations(&dev, 0..21);
        let mut outs: Vec<_> = cases.iter().map(|case| vec![f32::NAN; 21 * case.weight.rows()]).collect();
        let product = |(case, out)| Linear { weight: &(case as &Case).weight, bias: None, out, accumulate: false };
        let mut group: Vec<_> = cases.iter().zip(outs.iter_mut().map(|out| &mut out[..])).map(product).collect();
        linear(&dev, &x, &mut group);
        for (case, out) in cases.iter().zip(&outs) {
            let mut alone = vec![f32::NAN; out.len()];
            linear(&dev, &x, &mut [Linear { weight: &case.weight, bias: None, out: &mut alone, accumulate: false }]);
            assert_eq!(bits(out), bits(&alone), "{isa:?}");
        }
    }
}

#[test]
fn what_is_not_finite_becomes_nan_and_stays_in_its_row() {
    for isa in Isa::available() {
        let dev = Device::with_isa(1, isa);
        for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut case = Case::new(BlockType::Q4_0, 20, 96, 6, 1);
            let clean = case.product(&dev, 0..6);
            case.x[3 * 96 + 50] = wrong;
            let out = case.product(&dev, 0..6);
            for (r, (out, clean)) in out.chunks(20).zip(clean.chunks(20)).enumerate() {
                let expected = |(out, clean): (&f32, &f32)| if r == 3 { out.is_nan() } else { out == clean };
                assert!(out.iter().zip(clean).all(expected), "{isa:?}: row {r} with {wrong}");
            }
        }
    }
}

#[test]
fn activations_that_are_computed_equal_those_that_are_set() {
    let (rows, cols) = (5, 5000);
    let x = Random::new(1).numbers(rows * cols);
    let forms = [Form::Int8, Form::Bf16, Form::F32];
    let dev = Device::new(2);
    let (mut set, mut filled) = (Activations::new(), Activations::new());
    set.set(&dev, &x, cols, &forms);
    filled.fill(&dev, rows, cols, &forms, &|row, range, out| out.copy_from_slice(&x[row * cols..][range]));
    assert_eq!(format!("{set:?}"), format!("{filled:?}"));
}

#[test]
fn nothing_in_nothing_out() {
    let dev = Device::new(2);
    let empty = Matrix::pack(&dev, BlockType::Q8_0, 0, 64, &[]).unwrap();
    let mut x = Activations::new();
    x.set(&dev, &[1.0; 64], 64, &[Form::Int8]);
    linear(&dev, &x, &mut [Linear { weight: &empty, bias: None, out: &mut [], accumulate: false }]);
    linear(&dev, &x, &mut []);
    x.set(&dev, &[], 64, &[Form::Int8]);
    let weight = Matrix::pack(&dev, BlockType::Q8_0, 1, 64, &[0; 68]).unwrap();
    linear(&dev, &x, &mut [Linear { weight: &weight, bias: None, out: &mut [], accumulate: false }]);
    linear_rows(&dev, &x, &weight, &[0], &mut []);
}
