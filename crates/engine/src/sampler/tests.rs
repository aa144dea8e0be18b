//! Draws against the distributions they should follow, and every path against every other.

use super::*;

const VOCAB: usize = 40;

fn device() -> Device {
    Device::new(1)
}

/// Some logits of a plausible shape.
fn logits() -> Vec<f32> {
    (0..VOCAB).map(|id| ((id * 7919 % 101) as f32 / 20.0).sin() * 3.0).collect()
}

fn sampling() -> Sampling {
    Sampling::default()
}

fn choose(sampling: &Sampling, seed: u64, mask: Option<&Mask>, position: usize) -> u32 {
    Sampler::new(sampling, seed, &[]).choose(&device(), &mut logits(), mask, position)
}

fn mask_of(ids: &[u32]) -> Mask {
    let mut words = vec![0; VOCAB.div_ceil(32)];
    ids.iter().for_each(|&id| words[id as usize / 32] |= 1 << (id % 32));
    Mask::new(words)
}

/// The distribution that the documented order gives, the slow way.
fn expected(sampling: &Sampling, allowed: impl Fn(u32) -> bool) -> Vec<f64> {
    let inverse = 1.0 / f64::from(sampling.temperature);
    let mut ranked: Vec<(u32, f64)> =
        logits().iter().enumerate().map(|(id, &logit)| (id as u32, f64::from(logit) * inverse)).collect();
    ranked.retain(|(id, _)| allowed(*id));
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
    if sampling.top_k > 0 {
        ranked.truncate(sampling.top_k);
    }
    let mass: f64 = ranked.iter().map(|(_, value)| value.exp()).sum();
    let mut reached = 0.0;
    let kept = ranked.iter().take_while(|(_, value)| {
        let before = reached;
        reached += value.exp() / mass;
        before < f64::from(sampling.top_p)
    });
    let kept = kept.count();
    ranked.truncate(kept);
    let floor = ranked[0].1 + f64::from(sampling.min_p).ln();
    ranked.retain(|(_, value)| *value >= floor);
    let mass: f64 = ranked.iter().map(|(_, value)| value.exp()).sum();
    let mut shares = vec![0.0; VOCAB];
    ranked.iter().for_each(|(id, value)| shares[*id as usize] = value.exp() / mass);
    shares
}

/// Pearson's statistic of many draws stays below what chance exceeds once in a million.
fn check_frequencies(sampling: &Sampling, mask: Option<&Mask>) {
    const DRAWS: usize = 20_000;
    let shares = expected(sampling, |id| mask.is_none_or(|mask| mask.allows(id)));
    let mut counts = vec![0usize; VOCAB];
    for draw in 0..DRAWS {
        counts[choose(sampling, 11, mask, draw) as usize] += 1;
    }
    // The statistic needs cells of a fair size: rare tokens are counted together.
    let (mut cells, mut rare) = (Vec::new(), (0.0, 0.0));
    for (count, share) in counts.iter().zip(&shares) {
        assert!(*share > 0.0 || *count == 0, "{sampling:?}: a token was drawn that had been cut");
        let cell = (*count as f64, share * DRAWS as f64);
        if cell.1 >= 10.0 { cells.push(cell) } else { rare = (rare.0 + cell.0, rare.1 + cell.1) }
    }
    cells.extend((rare.1 > 0.0).then_some(rare));
    let statistic: f64 = cells.iter().map(|(count, mean)| (count - mean).powi(2) / mean.max(1.0)).sum();
    let freedom = cells.len() as f64 - 1.0;
    // Wilson and Hilferty's approximation of the chi-square quantile at 4.75 standard deviations.
    let bound =
        |k: f64| if k <= 0.0 { 1e-9 } else { k * (1.0 - 2.0 / (9.0 * k) + 4.75 * (2.0 / (9.0 * k)).sqrt()).powi(3) };
    assert!(statistic <= bound(freedom), "{sampling:?}: {statistic} with {freedom} degrees of freedom");
}

#[test]
fn draws_follow_the_documented_distribution() {
    let few = mask_of(&[1, 2, 3, 5, 8, 13, 21, 34]);
    let cases = [
        sampling(),
        Sampling { temperature: 0.5, ..sampling() },
        Sampling { temperature: 2.0, ..sampling() },
        Sampling { top_k: 5, ..sampling() },
        Sampling { top_k: 1, ..sampling() },
        Sampling { top_p: 0.8, ..sampling() },
        Sampling { min_p: 0.2, ..sampling() },
        Sampling { top_k: 12, top_p: 0.9, min_p: 0.05, temperature: 1.5, ..sampling() },
    ];
    for case in &cases {
        check_frequencies(case, None);
        check_frequencies(case, Some(&few));
    }
}

#[test]
fn a_draw_depends_on_seed_and_position_only() {
    let draws = |seed: u64| (0..200).map(|position| choose(&sampling(), seed, None, position)).collect::<Vec<_>>();
    assert_eq!(draws(3), draws(3));
    assert_ne!(draws(3), draws(4));
    assert_ne!(draws(choice_seed(3, 0)), draws(choice_seed(3, 1)));
}

#[test]
fn all_paths_agree() {
    let everything = mask_of(&(0..VOCAB as u32).collect::<Vec<_>>());
    let ids: Vec<u32> = (0..VOCAB as u32).collect();
    let cuts = [(0, 1.0, 0.0), (7, 1.0, 0.0), (0, 0.7, 0.0), (0, 1.0, 0.1), (20, 0.9, 0.02)];
    for (top_k, top_p, min_p) in cuts {
        for temperature in [0.0, 0.8, 1.0] {
            let sampling = Sampling { temperature, top_k, top_p, min_p, ..sampling() };
            for position in 0..100 {
                let row = choose(&sampling, 5, None, position);
                let masked = choose(&sampling, 5, Some(&everything), position);
                let set = Sampler::new(&sampling, 5, &[]).choose_of(&ids, &logits(), position);
                assert_eq!((row, row), (masked, set), "{sampling:?} at {position}");
            }
        }
    }
}

#[test]
fn zero_temperature_is_the_best_allowed_token() {
    let greedy = Sampling { temperature: 0.0, ..sampling() };
    let row = logits();
    let best =
        |ids: &mut dyn Iterator<Item = u32>| ids.max_by(|a, b| row[*a as usize].total_cmp(&row[*b as usize])).unwrap();
    assert_eq!(choose(&greedy, 1, None, 0), best(&mut (0..VOCAB as u32)));
    let few = mask_of(&[4, 9, 30]);
    assert_eq!(choose(&greedy, 1, Some(&few), 0), best(&mut [4, 9, 30].into_iter()));
}

#[test]
fn penalties_and_bias_change_the_logits_as_documented() {
    let check = |sampling: Sampling, prompt: &[u32], answer: &[u32], id: u32, expected: &dyn Fn(f32) -> f32| {
        let mut sampler = Sampler::new(&sampling, 0, prompt);
        answer.iter().for_each(|&id| sampler.note(id));
        let mut row = logits();
        sampler.adjust(&mut row);
        for (at, (after, before)) in row.iter().zip(logits()).enumerate() {
            let wanted = if at == id as usize { expected(before) } else { before };
            assert!(
                (after - wanted).abs() < 1e-6 || after == &wanted,
                "{sampling:?}: token {at}: {after}, not {wanted}"
            );
        }
    };
    check(Sampling { presence_penalty: 0.5, ..sampling() }, &[1], &[3, 3, 3], 3, &|x| x - 0.5);
    check(Sampling { frequency_penalty: 0.5, ..sampling() }, &[1], &[3, 3, 3], 3, &|x| x - 1.5);
    let repetition = Sampling { repetition_penalty: 2.0, ..sampling() };
    check(repetition.clone(), &[6], &[], 6, &|x| if x > 0.0 { x / 2.0 } else { x * 2.0 });
    check(repetition, &[], &[7], 7, &|x| if x > 0.0 { x / 2.0 } else { x * 2.0 });
    let bias = |value| Sampling { logit_bias: [(9, value)].into(), ..sampling() };
    check(bias(1.5), &[], &[], 9, &|x| x + 1.5);
    check(bias(-100.0), &[], &[], 9, &|_| f32::NEG_INFINITY);
}

#[test]
fn a_bias_of_a_hundred_forces_within_the_grammar() {
    let forced = Sampling { logit_bias: [(9, 100.0), (10, 100.0)].into(), ..sampling() };
    let all: HashSet<u32> = (0..200).map(|position| choose(&forced, 5, None, position)).collect();
    assert_eq!(all, [9, 10].into());
    let mask = mask_of(&[3, 10]);
    assert!((0..50).all(|position| choose(&forced, 5, Some(&mask), position) == 10));
    let mask = mask_of(&[3, 4]);
    assert!((0..50).all(|position| mask.allows(choose(&forced, 5, Some(&mask), position))));
}

#[test]
fn masks_list_their_tokens() {
    let mask = mask_of(&[0, 31, 32, 39]);
    assert_eq!((mask.allowed(), mask.ids(VOCAB), mask.ids(33)), (4, vec![0, 31, 32, 39], vec![0, 31, 32]));
}
