//! Where a domain's prompts lie, found from examples, and from which score on a prompt is one of them.

use model::Domain;

/// A domain with what its threshold does to prompts that it was not made from.
#[derive(Debug, Clone, PartialEq)]
pub struct FoundDomain {
    /// The domain.
    pub domain: Domain,
    /// Share of the domain's own prompts that pass.
    pub found: f64,
    /// Share of general prompts that pass and should not.
    pub mistaken: f64,
}

impl FoundDomain {
    /// From the vectors of the domain's prompts, of others of them that are held out, and of general ones, of which every other is held out too. The
    /// threshold is where the shares of held-out prompts that fall on their side add up to most, in the middle of the widest gap. `None` where one kind is
    /// missing.
    pub fn new(own: &[&[f32]], held_out: &[&[f32]], general: &[&[f32]]) -> Option<Self> {
        let middle: Vec<&[f32]> = general.iter().step_by(2).copied().collect();
        let others: Vec<&[f32]> = general.iter().skip(1).step_by(2).copied().collect();
        if own.is_empty() || held_out.is_empty() || others.is_empty() {
            return None;
        }
        let mut domain = Domain::between(&middle, own);
        let own = held_out.iter().map(|vector| (domain.score(vector), true));
        let mut scores: Vec<(f32, bool)> = own.chain(others.iter().map(|v| (domain.score(v), false))).collect();
        scores.sort_by(|a, b| a.0.total_cmp(&b.0));
        domain.threshold = threshold(&scores);
        let passing = |own: bool, all: usize| {
            let passing = scores.iter().filter(|(score, kind)| *kind == own && *score >= domain.threshold);
            passing.count() as f64 / all as f64
        };
        let (found, mistaken) = (passing(true, held_out.len()), passing(false, others.len()));
        Some(Self { domain, found, mistaken })
    }
}

/// Of ascending scores of both kinds.
fn threshold(scores: &[(f32, bool)]) -> f32 {
    let all = |own: bool| scores.iter().filter(|(_, kind)| *kind == own).count().max(1) as f64;
    let (all_own, all_others) = (all(true), all(false));
    // Above the first place everything passes; half of the way to -1 is as good as any other.
    let (mut rest, mut best) = ((all_own, 0.0), (f64::NEG_INFINITY, f32::NEG_INFINITY, 0.0));
    let mut below = -1.0;
    for (score, own) in scores.iter().copied().chain([(1.0, true)]) {
        let right = rest.0 / all_own + rest.1 / all_others;
        let gap = score - below;
        if (right, gap) > (best.0, best.1) {
            best = (right, gap, below + gap / 2.0);
        }
        if own {
            rest.0 -= 1.0
        } else {
            rest.1 += 1.0
        }
        below = score;
    }
    best.2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_stand_where_most_fall_on_their_side() {
        let check = |scores: &[(f32, bool)], want: f32| {
            let got = threshold(scores);
            assert!((got - want).abs() < 1e-6, "{scores:?}: {got}, not {want}");
        };
        check(&[(0.1, false), (0.3, false), (0.7, true), (0.8, true)], 0.5);
        check(&[(0.1, false), (0.6, true), (0.65, false), (0.7, true), (0.8, true)], 0.675);
        check(&[(0.1, false), (0.2, false), (0.6, true), (0.65, false), (0.8, true), (0.9, true)], 0.4);
        check(&[(0.1, false), (0.2, true), (0.4, false), (0.5, false), (0.9, true), (0.95, true)], 0.7);
    }

    #[test]
    fn a_domain_is_told_from_general_prompts() {
        let near = |x: f32, y: f32, n: usize| (0..n).map(|i| vec![x, y + 0.1 * i as f32, 1.0]).collect::<Vec<_>>();
        let (own, held_out, general) = (near(3.0, 0.0, 5), near(2.5, 0.0, 4), near(0.0, -0.5, 12));
        let [own, held_out, general] =
            [&own, &held_out, &general].map(|v| v.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let found = FoundDomain::new(&own, &held_out, &general).unwrap();
        assert_eq!((found.found, found.mistaken), (1.0, 0.0), "{found:?}");
        assert_eq!(FoundDomain::new(&own, &[], &general), None);
    }
}
