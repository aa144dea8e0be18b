//! Paged attention against its definition in f64, and against itself: chunks, threads and instruction sets change no bit.

use half::f16;
use proptest::prelude::*;

use super::*;
use crate::{Device, Isa, RopeScaling, RopeSpec, RopeStyle, RopeTable, rope};

/// One layer, some sequences, each with queries for its last rows.
#[derive(Debug, Clone)]
struct Case {
    spec: AttentionSpec,
    /// Length of each sequence and how many of its rows are queries.
    sequences: Vec<(usize, usize)>,
    /// Values of this size.
    spread: f32,
}

fn spec(heads: usize, kv_heads: usize, head_dim: usize) -> AttentionSpec {
    let scale = 1.0 / (head_dim as f32).sqrt();
    AttentionSpec { heads, kv_heads, head_dim, scale, window: None, softcap: None }
}

/// Numbers in -1..1, by a hash.
fn numbers(n: usize, seed: u32) -> Vec<f32> {
    let hash = |i: u32| {
        (i ^ seed.wrapping_mul(0x9e37_79b9)).wrapping_mul(0x85eb_ca6b).rotate_left(13).wrapping_mul(0xc2b2_ae35)
    };
    (0..n as u32).map(|i| (hash(i) >> 8) as f32 / 8_388_608.0 - 1.0).collect()
}

/// The content of a case: keys and values of all rows of all sequences, queries of all rows.
struct Content {
    q: Vec<Vec<f32>>,
    k: Vec<Vec<f32>>,
    v: Vec<Vec<f32>>,
}

impl Case {
    fn content(&self) -> Content {
        let spec = &self.spec;
        let make = |heads: usize, seed: u32, spread: f32| {
            let one = |(i, (len, _)): (usize, &(usize, usize))| {
                let numbers = numbers(len * heads * spec.head_dim, seed + 10 * i as u32);
                numbers.into_iter().map(|x| f16::from_f32(x * spread).to_f32()).collect()
            };
            self.sequences.iter().enumerate().map(one).collect()
        };
        Content {
            q: make(spec.heads, 1, self.spread),
            k: make(spec.kv_heads, 2, self.spread),
            v: make(spec.kv_heads, 3, 1.0),
        }
    }

    fn pages(&self) -> Vec<Vec<u32>> {
        // Neighbours in a sequence are far apart in memory, and page 0 belongs to nobody.
        let total = self.sequences.iter().map(|(len, _)| len.div_ceil(PAGE_TOKENS) as u32).sum::<u32>();
        let mut free = (1..=total).rev();
        self.sequences.iter().map(|(len, _)| free.by_ref().take(len.div_ceil(PAGE_TOKENS)).collect()).collect()
    }

    /// Stores everything, in chunks of `chunk` rows of each sequence, and computes the queried rows along the way.
    fn run(&self, dev: &Device, chunk: usize) -> Vec<Vec<f32>> {
        let (content, pages) = (self.content(), self.pages());
        let AttentionSpec { heads, kv_heads, head_dim, .. } = self.spec;
        let shape = KvShape { kv_heads, head_dim };
        let other = KvShape { kv_heads: 1, head_dim: 4 };
        let mut cache = KvCache::new(&[other, shape], pages.iter().map(Vec::len).sum::<usize>() + 1);
        let mut out: Vec<Vec<f32>> = content.q.iter().map(|q| vec![f32::NAN; q.len()]).collect();
        let longest = self.sequences.iter().map(|(len, _)| *len).max().unwrap();
        for from in (0..longest).step_by(chunk) {
            let mut spans = Vec::new();
            let (mut q, mut k, mut v) = (Vec::new(), Vec::new(), Vec::new());
            for (i, (len, _)) in self.sequences.iter().enumerate().filter(|(_, (len, _))| *len > from) {
                let to = (from + chunk).min(*len);
                spans.push(Span {
                    start: q.len() / heads / head_dim,
                    len: to - from,
                    position: from,
                    pages: &pages[i],
                });
                q.extend(&content.q[i][from * heads * head_dim..to * heads * head_dim]);
                k.extend(&content.k[i][from * kv_heads * head_dim..to * kv_heads * head_dim]);
                v.extend(&content.v[i][from * kv_heads * head_dim..to * kv_heads * head_dim]);
            }
            store_kv(dev, &mut cache, 1, &spans, &k, &v);
            let mut y = vec![f32::NAN; q.len()];
            attention(dev, &self.spec, &cache, 1, &spans, &q, &mut y);
            let of = |span: &Span<'_>| self.pages().iter().position(|pages| pages == span.pages).unwrap();
            for span in &spans {
                let (row, to) = (heads * head_dim, &mut out[of(span)]);
                to[span.position * row..][..span.len * row].copy_from_slice(&y[span.start * row..][..span.len * row]);
            }
        }
        self.queried(out)
    }

    /// The last rows of each sequence.
    fn queried(&self, all: Vec<Vec<f32>>) -> Vec<Vec<f32>> {
        let row = self.spec.heads * self.spec.head_dim;
        let cut = |(all, (len, rows)): (Vec<f32>, &(usize, usize))| all[(len - rows) * row..].to_vec();
        all.into_iter().zip(&self.sequences).map(cut).collect()
    }

    /// The definition, in f64.
    fn exact(&self, sight: fn(usize) -> tile::Sight) -> Vec<Vec<f32>> {
        let content = self.content();
        let row = self.spec.heads * self.spec.head_dim;
        let all = self.sequences.iter().enumerate().map(|(i, (len, rows))| {
            let mut out = vec![0.0; len * row];
            for position in len - rows..*len {
                let seen = sight(*len).range(&self.spec, position);
                for head in 0..self.spec.heads {
                    let at = position * row + head * self.spec.head_dim;
                    let q = &content.q[i][at..at + self.spec.head_dim];
                    out[at..at + self.spec.head_dim].copy_from_slice(&self.exact_head(
                        q,
                        head,
                        seen,
                        &content.k[i],
                        &content.v[i],
                    ));
                }
            }
            out
        });
        self.queried(all.collect())
    }

    fn exact_head(&self, q: &[f32], head: usize, seen: (usize, usize), k: &[f32], v: &[f32]) -> Vec<f32> {
        let AttentionSpec { heads, kv_heads, head_dim, scale, softcap, .. } = self.spec;
        let at = |t: usize| (t * kv_heads + head / (heads / kv_heads)) * head_dim;
        let score = |t: usize| {
            let dot: f64 = q.iter().zip(&k[at(t)..]).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum();
            let score = dot * f64::from(scale);
            softcap.map_or(score, |cap| f64::from(cap) * (score / f64::from(cap)).tanh())
        };
        let scores: Vec<f64> = (seen.0..seen.1).map(score).collect();
        let max = scores.iter().copied().fold(f64::MIN, f64::max);
        let weights: Vec<f64> = scores.iter().map(|score| (score - max).exp()).collect();
        let total: f64 = weights.iter().sum();
        let sum = |d: usize| -> f64 { weights.iter().zip(seen.0..).map(|(w, t)| w * f64::from(v[at(t) + d])).sum() };
        (0..head_dim).map(|d| (sum(d) / total) as f32).collect()
    }

    /// Right on every instruction set, and to the bit the same in chunks of any length, on one thread and on two; tiles of
    /// bf16 have bits of their own.
    #[track_caller]
    fn check(&self, chunks: &[usize]) {
        let want = self.exact(|_| tile::Sight::Causal);
        let whole = self.sequences.iter().map(|(len, _)| *len).max().unwrap();
        let first = |isa| {
            let dev = Device::with_isa(1, isa);
            let first = self.run(&dev, whole);
            close(&first, &want, self.tolerance(dev.isa()));
            first
        };
        let firsts = [Isa::Scalar, Isa::Amx].map(first);
        for isa in Isa::available() {
            for (threads, chunk) in [(2, whole)].into_iter().chain(chunks.iter().map(|chunk| (1 + chunk % 2, *chunk))) {
                let got = self.run(&Device::with_isa(threads, isa), chunk);
                let first = &firsts[usize::from(isa == Isa::Amx)];
                assert!(same(&got, first), "{isa:?}, {threads} threads, chunks of {chunk}");
            }
        }
    }

    /// Parts of the largest score: f32 loses two in a million, numbers of 16 bits ten times as many.
    fn tolerance(&self, isa: Isa) -> f32 {
        (1.0 + self.spread * self.spread) * if isa == Isa::Amx { 2e-5 } else { 2e-6 }
    }
}

fn same(a: &[Vec<f32>], b: &[Vec<f32>]) -> bool {
    let bits = |x: &[Vec<f32>]| -> Vec<u32> { x.iter().flatten().map(|x| x.to_bits()).collect() };
    bits(a) == bits(b)
}

#[track_caller]
fn close(got: &[Vec<f32>], want: &[Vec<f32>], tolerance: f32) {
    for (i, (got, want)) in got.iter().flatten().zip(want.iter().flatten()).enumerate() {
        assert!((got - want).abs() <= tolerance, "{i}: {got} for {want}");
    }
}

#[test]
fn shapes_of_real_models() {
    Case { spec: spec(9, 3, 64), sequences: vec![(200, 200), (70, 3)], spread: 2.0 }.check(&[1, 64, 33]);
    Case { spec: spec(4, 1, 256), sequences: vec![(130, 130)], spread: 1.0 }.check(&[17]);
    Case { spec: spec(14, 2, 64), sequences: vec![(70, 70), (65, 65), (1, 1)], spread: 3.0 }.check(&[1, 50]);
}

#[test]
fn odd_shapes() {
    for (heads, kv_heads, head_dim) in [(1, 1, 1), (2, 2, 4), (5, 5, 16), (8, 1, 80), (3, 1, 20), (26, 2, 8)] {
        Case { spec: spec(heads, kv_heads, head_dim), sequences: vec![(90, 90), (65, 1)], spread: 2.0 }.check(&[1, 40]);
    }
}

#[test]
fn windows_and_caps() {
    for (window, softcap) in
        [(Some(1), None), (Some(30), None), (Some(64), Some(2.0)), (None, Some(5.0)), (Some(100), None)]
    {
        let spec = AttentionSpec { window, softcap, ..spec(4, 2, 32) };
        Case { spec, sequences: vec![(210, 210), (20, 20)], spread: 2.0 }.check(&[1, 64, 100]);
    }
}

/// Long enough for several splits, so that the tasks of one sequence are joined.
#[test]
fn splits_change_no_bit() {
    for window in [None, Some(700)] {
        let spec = AttentionSpec { window, ..spec(3, 1, 16) };
        Case { spec, sequences: vec![(1400, 9), (530, 530)], spread: 3.0 }.check(&[400, 7]);
    }
}

#[test]
fn large_scores_stay_exact_and_finite() {
    Case { spec: AttentionSpec { scale: 1.0, ..spec(3, 1, 64) }, sequences: vec![(140, 140)], spread: 12.0 }
        .check(&[1]);
}

/// Whatever lies in a page behind a sequence's end or in front of its window changes nothing.
#[test]
fn masked_tokens_contribute_nothing() {
    let case =
        Case { spec: AttentionSpec { window: Some(20), ..spec(2, 1, 16) }, sequences: vec![(100, 100)], spread: 1.0 };
    let (content, dev) = (case.content(), Device::new(1));
    let run = |garbage: f32| {
        let mut cache = KvCache::new(&[KvShape { kv_heads: 1, head_dim: 16 }], 2);
        let all = vec![garbage; 128 * 16];
        store_kv(&dev, &mut cache, 0, &[Span { start: 0, len: 128, position: 0, pages: &[0, 1] }], &all, &all);
        // Rows 30.. only: their windows begin at 11.
        let span = |start, len| Span { start, len, position: 11 + start, pages: &[1, 0] };
        let (k, v) = (&content.k[0][11 * 16..], &content.v[0][11 * 16..]);
        store_kv(&dev, &mut cache, 0, &[span(0, 89)], k, v);
        let mut out = vec![0.0; 70 * 32];
        let span = Span { start: 0, len: 70, position: 30, pages: &[1, 0] };
        attention(&dev, &case.spec, &cache, 0, &[span], &content.q[0][30 * 32..], &mut out);
        out
    };
    let clean = run(0.0);
    for garbage in [1e30, f32::INFINITY, f32::NAN, -65_504.0] {
        assert!(same(&[run(garbage)], std::slice::from_ref(&clean)), "{garbage}");
    }
}

#[test]
fn nan_reaches_its_own_row_only() {
    let spec = spec(2, 1, 16);
    let dev = Device::new(1);
    let mut cache = KvCache::new(&[KvShape { kv_heads: 1, head_dim: 16 }], 1);
    let span = Span { start: 0, len: 30, position: 0, pages: &[0] };
    let (k, mut q) = (numbers(30 * 16, 1), numbers(30 * 32, 2));
    store_kv(&dev, &mut cache, 0, &[span], &k, &k);
    q[3 * 32 + 16] = f32::NAN;
    let mut out = vec![0.0; q.len()];
    attention(&dev, &spec, &cache, 0, &[span], &q, &mut out);
    let nan: Vec<usize> = (0..60).filter(|head| out[head * 16..][..16].iter().any(|x| x.is_nan())).collect();
    assert_eq!(nan, [7]);
}

#[test]
fn keys_come_back_as_they_were() {
    for (style, isa) in [(RopeStyle::Half, Isa::detect()), (RopeStyle::Interleaved, Isa::Scalar)] {
        let (dev, shape) = (Device::with_isa(2, isa), KvShape { kv_heads: 2, head_dim: 24 });
        let table = RopeTable::new(&RopeSpec { dim: 20, base: 10_000.0, style, scaling: RopeScaling::None }, 300);
        let plain = numbers(150 * 48, 4);
        let mut keys = plain.clone();
        rope(&dev, &table, &mut keys, 24, &(100..250).collect::<Vec<u32>>());
        let mut cache = KvCache::new(&[shape], 4);
        let span = Span { start: 0, len: 150, position: 100, pages: &[9, 3, 0, 2] };
        store_kv(&dev, &mut cache, 0, &[span], &keys, &plain);
        let (mut rotated, mut back) = (vec![0.0; 150 * 48], vec![0.0; 150 * 48]);
        read_keys(&cache, 0, &span, None, &mut rotated);
        read_keys(&cache, 0, &span, Some(&table), &mut back);
        assert!(rotated.iter().zip(&keys).all(|(a, b)| *a == f16::from_f32(*b).to_f32()));
        assert!(back.iter().zip(&plain).all(|(a, b)| (a - b).abs() < 2e-3));
    }
}

#[test]
fn copied_pages_hold_the_first_tokens() {
    let shapes = [KvShape { kv_heads: 2, head_dim: 20 }, KvShape { kv_heads: 1, head_dim: 64 }];
    let (dev, mut cache) = (Device::new(1), KvCache::new(&shapes, 3));
    assert_eq!((cache.pages(), cache.page_bytes()), (3, 2 * 64 * (2 * (20 + 32) + 64 + 64)));
    for (layer, cols) in [(0, 40), (1, 64)] {
        for page in 0..2 {
            let x = numbers(64 * cols, page);
            store_kv(&dev, &mut cache, layer, &[Span { start: 0, len: 64, position: 0, pages: &[page] }], &x, &x);
        }
    }
    cache.copy_page(0, 1, 13);
    for (layer, shape) in shapes.iter().enumerate() {
        let cols = shape.kv_heads * shape.head_dim;
        let mut out = vec![0.0; 64 * cols];
        read_keys(&cache, layer, &Span { start: 0, len: 64, position: 0, pages: &[1] }, None, &mut out);
        let expected = |page| numbers(64 * cols, page).into_iter().map(|x| f16::from_f32(x).to_f32());
        let want: Vec<f32> = expected(0).take(13 * cols).chain(expected(1).skip(13 * cols)).collect();
        assert_eq!(out, want);
        for head in 0..shape.kv_heads {
            let (from, to) = (cache.head(layer, 0, head).1, cache.head(layer, 1, head).1);
            let row = from.len() / 64;
            assert!(from[..13 * row] == to[..13 * row] && from[13 * row..] != to[13 * row..]);
        }
    }
}

#[test]
fn encoders_see_both_sides() {
    for (heads, kv_heads, head_dim, window) in [(12, 12, 32, None), (4, 2, 20, Some(9)), (1, 1, 64, Some(70))] {
        let spec = AttentionSpec { window, ..spec(heads, kv_heads, head_dim) };
        let lens = [5, 1, 64, 150];
        let mut first = None;
        for (isa, threads) in Isa::available().into_iter().flat_map(|isa| [(isa, 1), (isa, 2)]) {
            let case = Case { spec, sequences: lens.map(|len| (len, len)).into(), spread: 2.0 };
            let Content { q, k, v } = case.content();
            let mut out = vec![0.0; q.concat().len()];
            encoder_attention(
                &Device::with_isa(threads, isa),
                &spec,
                &lens,
                &q.concat(),
                &k.concat(),
                &v.concat(),
                &mut out,
            );
            close(&[out.clone()], &[case.exact(tile::Sight::Both).concat()], case.tolerance(Isa::Scalar));
            assert!(same(&[out.clone()], &[first.get_or_insert(out).clone()]), "{isa:?}, {threads} threads");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 24 } else { 200 }))]
    #[test]
    fn any_batch_is_right_and_the_same_in_chunks(
        kv_heads in 1_usize..4,
        group in 1_usize..9,
        head_dim in 1_usize..70,
        window in proptest::option::of(1_usize..200),
        softcap in proptest::option::of(1.0_f32..30.0),
        lens in proptest::collection::vec(1_usize..260, 1..4),
        chunk in 1_usize..130,
    ) {
        let spec = AttentionSpec { window, softcap, ..spec(kv_heads * group, kv_heads, head_dim) };
        let sequences = lens.iter().map(|len| (*len, (*len).min(40))).collect();
        let case = Case { spec, sequences, spread: 2.0 };
        let want = case.exact(|_| tile::Sight::Causal);
        for isa in [Isa::Avx2, Isa::Avx512, Isa::Amx] {
            let dev = |threads| Device::with_isa(threads, isa);
            let whole = case.run(&dev(1), 260);
            close(&whole, &want, case.tolerance(dev(1).isa()));
            prop_assert!(same(&case.run(&dev(2), chunk), &whole));
        }
    }
}
