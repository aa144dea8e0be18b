//! Frequencies against `transformers`, rotations against the definition.

use super::*;
use crate::Isa;

fn spec(scaling: RopeScaling) -> RopeSpec {
    RopeSpec { dim: 32, base: 10_000.0, style: RopeStyle::Half, scaling }
}

fn scaling(name: &str) -> RopeScaling {
    match name {
        "linear" => RopeScaling::Linear { factor: 4.0 },
        "dynamic" => RopeScaling::DynamicNtk { factor: 2.0, original_context: 4096 },
        "llama3" => {
            RopeScaling::Llama3 { factor: 8.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_context: 1024 }
        }
        "yarn" => RopeScaling::Yarn {
            factor: 4.0,
            original_context: 2048,
            beta_fast: 32.0,
            beta_slow: 1.0,
            attention_factor: None,
        },
        "yarn-set" => RopeScaling::Yarn {
            factor: 8.0,
            original_context: 1024,
            beta_fast: 16.0,
            beta_slow: 2.0,
            attention_factor: Some(1.5),
        },
        "longrope" => RopeScaling::Factors {
            factors: (0..16).map(|i| 1.0 + 0.25 * i as f32).collect(),
            attention_factor: (1.0 + 4_f32.ln() / 2048_f32.ln()).sqrt(),
        },
        other => panic!("{other} has no counterpart"),
    }
}

/// The values come from `tests/data/rope.py`.
#[test]
fn frequencies_are_those_of_transformers() {
    let lines = include_str!("../../tests/data/rope.txt").lines().filter(|line| !line.starts_with('#'));
    for line in lines {
        let mut words = line.split(' ');
        let name = words.next().unwrap();
        let numbers: Vec<f64> = words.map(|word| word.parse().unwrap()).collect();
        let (frequencies, factor) = spec(scaling(name)).frequencies(8192);
        assert_eq!(frequencies.len(), numbers.len() - 1);
        for (got, want) in frequencies.iter().chain([&factor]).zip(numbers[1..].iter().chain([&numbers[0]])) {
            assert!((got - want).abs() <= 1e-6 * want.abs(), "{name}: {got} for {want}");
        }
    }
}

#[track_caller]
fn check(dim: usize, head_dim: usize, style: RopeStyle, scaling: RopeScaling) {
    let table = RopeTable::new(&RopeSpec { dim, base: 10_000.0, style, scaling }, 3000);
    let positions: Vec<u32> = (0..130).map(|i| i * 23 % 3000).collect();
    let heads = 3;
    let x: Vec<f32> = (0..positions.len() * heads * head_dim).map(|i| ((i * 37 % 101) as f32 - 50.0) / 20.0).collect();
    let mut want: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
    for (head, i) in want.chunks_mut(head_dim).zip(0..) {
        for pair in 0..dim / 2 {
            let (a, b) = match style {
                RopeStyle::Half => (pair, pair + dim / 2),
                RopeStyle::Interleaved => (2 * pair, 2 * pair + 1),
            };
            let (sin, cos) = (f64::from(positions[i / heads]) * table.frequencies[pair]).sin_cos();
            let (x, y) = (head[a] * table.factor, head[b] * table.factor);
            (head[a], head[b]) = (x * cos - y * sin, x * sin + y * cos);
        }
    }
    let mut all = Vec::new();
    for (isa, threads) in Isa::available().into_iter().flat_map(|isa| [(isa, 1), (isa, 2)]) {
        let dev = Device::with_isa(threads, isa);
        let mut y = x.clone();
        rope(&dev, &table, &mut y, head_dim, &positions);
        assert!(y.iter().zip(&want).all(|(&y, want)| (f64::from(y) - want).abs() < 2e-6));
        all.push(y.clone());
        unrope(&dev, &table, &mut y, head_dim, &positions);
        assert!(y.iter().zip(&x).all(|(y, x)| (y - x).abs() < 2e-6));
    }
    assert!(all.iter().all(|y| *y == all[0]), "all the same bits");
}

#[test]
fn rotations_match_the_definition_and_can_be_undone() {
    for style in [RopeStyle::Half, RopeStyle::Interleaved] {
        for (dim, head_dim) in [(64, 64), (256, 256), (4, 4), (80, 80), (20, 48), (6, 16)] {
            check(dim, head_dim, style, RopeScaling::None);
        }
        check(64, 64, style, scaling("yarn"));
    }
}
