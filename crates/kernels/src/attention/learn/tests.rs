//! Attention and its gradient against the definition in f64 and its finite differences.

use super::*;
use crate::Isa;
use crate::testing::Random;

const PLAIN: AttentionSpec =
    AttentionSpec { heads: 4, kv_heads: 2, head_dim: 24, scale: 0.3, window: None, softcap: None };

/// Rows, queries, keys and values, and a gradient to start from.
struct Inputs {
    branches: Vec<Branch>,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    dout: Vec<f32>,
}

impl Inputs {
    fn new(spec: &AttentionSpec, lens: &[usize], seed: u64) -> Self {
        let (mut random, rows) = (Random::new(seed), lens.iter().sum::<usize>());
        let (query, key) = (rows * spec.heads * spec.head_dim, rows * spec.kv_heads * spec.head_dim);
        let [q, k, v, dout] = [query, key, key, query].map(|n| random.numbers(n).iter().map(|x| 2.0 * x).collect());
        Self { branches: Branch::behind_each_other(lens), q, k, v, dout }
    }

    fn attended(&self) -> Attended<'_> {
        Attended { q: &self.q, k: &self.k, v: &self.v }
    }

    /// Result, gradient of queries, keys, values.
    fn run(&self, spec: &AttentionSpec, dev: &Device) -> [Vec<f32>; 4] {
        let rows: usize = self.branches.iter().map(|branch| branch.own.len()).sum();
        let (mut out, mut log_sums) = (vec![f32::NAN; self.q.len()], vec![f32::NAN; rows * spec.heads]);
        attention_forward(dev, spec, &self.branches, self.attended(), &mut out, &mut log_sums);
        let [mut q, mut k, mut v] = [&self.q, &self.k, &self.v].map(|x| vec![f32::NAN; x.len()]);
        let gradient = AttentionGradient { out: &self.dout, q: &mut q, k: &mut k, v: &mut v };
        let done = Attention { out: &out, log_sums: &log_sums };
        attention_backward(dev, spec, &self.branches, self.attended(), done, gradient);
        [out, q, k, v]
    }
}

/// The definition in f64, with numbers at will: `(q, k, v)` to the result of every row and head.
fn exact(spec: &AttentionSpec, lens: &[usize], [q, k, v]: [&[f64]; 3]) -> Vec<f64> {
    let (dim, mut out, mut start) = (spec.head_dim, vec![0.0; q.len()], 0);
    for &len in lens {
        for (row, head) in (start..start + len).flat_map(|row| (0..spec.heads).map(move |head| (row, head))) {
            let at = (row * spec.heads + head) * dim;
            let kv = |key: usize| (key * spec.kv_heads + head / spec.group()) * dim;
            let first = spec.window.map_or(start, |window| start.max((row + 1).saturating_sub(window)));
            let score = |key: usize| {
                let s = (0..dim).map(|d| q[at + d] * k[kv(key) + d]).sum::<f64>() * f64::from(spec.scale);
                spec.softcap.map_or(s, |cap| f64::from(cap) * (s / f64::from(cap)).tanh())
            };
            let weights: Vec<f64> = (first..=row).map(|key| score(key).exp()).collect();
            let total: f64 = weights.iter().sum();
            for (key, weight) in (first..=row).zip(weights) {
                (0..dim).for_each(|d| out[at + d] += weight / total * v[kv(key) + d]);
            }
        }
        start += len;
    }
    out
}

/// The result is the definition's; gradients are its finite differences, in places drawn at random.
#[track_caller]
fn check(spec: &AttentionSpec, lens: &[usize]) {
    let inputs = Inputs::new(spec, lens, 11);
    let wide = |x: &[f32]| x.iter().map(|x| f64::from(*x)).collect::<Vec<f64>>();
    let exact_of = |x: &[Vec<f64>; 3]| exact(spec, lens, [&x[0], &x[1], &x[2]]);
    let x = [wide(&inputs.q), wide(&inputs.k), wide(&inputs.v)];
    let loss = |x: &[Vec<f64>; 3]| exact_of(x).iter().zip(&inputs.dout).map(|(a, b)| a * f64::from(*b)).sum::<f64>();
    let got = inputs.run(spec, &Device::new(2));
    for (got, want) in got[0].iter().zip(exact_of(&x)) {
        assert!((f64::from(*got) - want).abs() < 2e-5, "{spec:?} {lens:?}: {got}, not {want}");
    }
    let mut random = Random::new(5);
    for which in 0..3 {
        for _ in 0..12 {
            let at = random.bits() as usize % x[which].len();
            let moved = |by: f64| {
                let mut x = x.clone();
                x[which][at] += by;
                loss(&x)
            };
            let want = (moved(1e-4) - moved(-1e-4)) / 2e-4;
            let got = f64::from(got[which + 1][at]);
            assert!(
                (got - want).abs() < 1e-4 * (1.0 + want.abs()),
                "{spec:?} {lens:?}: gradient {which}[{at}] {got}, not {want}"
            );
        }
    }
}

#[test]
fn results_and_gradients_are_those_of_the_definition() {
    check(&PLAIN, &[1]);
    check(&PLAIN, &[64, 5]);
    check(&PLAIN, &[7, 130, 65]);
    check(&AttentionSpec { window: Some(20), ..PLAIN }, &[150, 3]);
    check(&AttentionSpec { window: Some(1), ..PLAIN }, &[70]);
    check(&AttentionSpec { softcap: Some(3.0), ..PLAIN }, &[90]);
    check(&AttentionSpec { heads: 3, kv_heads: 1, head_dim: 70, ..PLAIN }, &[66]);
}

/// Sequences that share rows have the results, to the bit, and the gradients that they have with rows of their own.
#[track_caller]
fn check_shared(spec: &AttentionSpec, lens: &[usize], shares: &[(usize, usize)]) {
    let mut inputs = Inputs::new(spec, lens, 17);
    let branches = Branch::behind_each_other(lens);
    let share = |branch: &Branch, (root, rows): (usize, usize)| Branch {
        shared: branches[root].own.start..branches[root].own.start + rows,
        own: branch.own.clone(),
    };
    inputs.branches = branches.iter().zip(shares).map(|(branch, from)| share(branch, *from)).collect();
    let alone = apart(&inputs, spec);
    let (got, want) = (inputs.run(spec, &Device::new(2)), alone.run(spec, &Device::new(2)));
    let rows: Vec<usize> =
        inputs.branches.iter().flat_map(|branch| branch.shared.clone().chain(branch.own.clone())).collect();
    let width = spec.heads * spec.head_dim;
    for (row, want) in rows.iter().zip(want[0].chunks(width)) {
        assert_eq!(&got[0][row * width..][..width], want, "{spec:?} {lens:?}: row {row}");
    }
    for (which, heads) in [(1, spec.heads), (2, spec.kv_heads), (3, spec.kv_heads)] {
        let (width, mut sums) = (heads * spec.head_dim, vec![0.0; got[which].len()]);
        for (row, from) in rows.iter().zip(want[which].chunks(width)) {
            sums[row * width..][..width].iter_mut().zip(from).for_each(|(sum, x)| *sum += x);
        }
        let far = got[which].iter().zip(&sums).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(far < 1e-5, "{spec:?} {lens:?}: gradient {which} is {far} away");
    }
}

/// The same sequences, each with rows of its own; what is asked of a shared row is asked once.
fn apart(inputs: &Inputs, spec: &AttentionSpec) -> Inputs {
    let lens: Vec<usize> = inputs.branches.iter().map(Branch::len).collect();
    let mut alone =
        Inputs { branches: Branch::behind_each_other(&lens), q: vec![], k: vec![], v: vec![], dout: vec![] };
    for branch in &inputs.branches {
        for row in branch.shared.clone().chain(branch.own.clone()) {
            let copy =
                |from: &[f32], heads: usize| from[row * heads * spec.head_dim..][..heads * spec.head_dim].to_vec();
            alone.q.extend(copy(&inputs.q, spec.heads));
            alone.k.extend(copy(&inputs.k, spec.kv_heads));
            alone.v.extend(copy(&inputs.v, spec.kv_heads));
            let asked = if branch.own.contains(&row) { 1.0 } else { 0.0 };
            alone.dout.extend(copy(&inputs.dout, spec.heads).iter().map(|x| x * asked));
        }
    }
    alone
}

#[test]
fn rows_that_are_shared_give_what_they_give_apart() {
    let none = (0, 0);
    check_shared(&PLAIN, &[20, 5], &[none, (0, 16)]);
    check_shared(&PLAIN, &[100, 30, 7, 90, 3], &[none, (0, 70), (0, 64), none, (3, 90)]);
    check_shared(&AttentionSpec { window: Some(20), ..PLAIN }, &[150, 70, 3], &[none, (0, 140), (0, 128)]);
    check_shared(&AttentionSpec { softcap: Some(3.0), ..PLAIN }, &[40, 80], &[none, (0, 33)]);
}

#[test]
fn bits_do_not_depend_on_threads_or_instruction_set() {
    let spec = AttentionSpec { window: Some(90), softcap: Some(5.0), ..PLAIN };
    let inputs = Inputs::new(&spec, &[3, 140, 64], 3);
    let all: Vec<_> = Isa::available()
        .into_iter()
        .flat_map(|isa| [1, 2].map(|threads| inputs.run(&spec, &Device::with_isa(threads, isa))))
        .collect();
    assert!(all.iter().all(|one| *one == all[0]));
}
