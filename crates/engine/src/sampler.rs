//! One token out of a row of logits.
//!
//! The order is the protocol's: penalties and bias, the grammar's mask, temperature, top-k, top-p, min-p, then a draw by
//! Gumbel-max: `argmax(logit / temperature + g)` where the noise `g` is a pure function of (seed, position, token id). A
//! draw therefore depends on nothing else that runs, and removing tokens leaves the noise of the others as it was.
//!
//! Greedy rows without further wishes cost one argmax; plain sampling costs one fused pass. Only top-k and top-p gather
//! candidates, and nothing is ever sorted.

use std::{
    cmp::Ordering,
    collections::{HashMap, HashSet},
};

use kernels::{Device, argmax, gumbel, gumbel_argmax, log_sum_exp, top_k};
use protocol::Sampling;

/// Up to so many allowed tokens are handled one by one instead of as a row of the whole vocabulary.
pub(crate) const SMALL_SET: usize = 4096;
/// A bias at or beyond this bans (negative) or forces (positive).
const ABSOLUTE_BIAS: f32 = 100.0;

/// Which tokens a grammar allows: bit `id % 32` of word `id / 32`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mask {
    words: Vec<u32>,
    allowed: usize,
}

impl Mask {
    pub(crate) fn new(words: Vec<u32>) -> Self {
        let allowed = words.iter().map(|word| word.count_ones() as usize).sum();
        Self { words, allowed }
    }

    /// How many tokens are allowed.
    pub(crate) fn allowed(&self) -> usize {
        self.allowed
    }

    pub(crate) fn allows(&self, id: u32) -> bool {
        self.words.get(id as usize / 32).is_some_and(|word| word >> (id % 32) & 1 == 1)
    }

    /// The allowed ids below `vocab`, ascending.
    pub(crate) fn ids(&self, vocab: usize) -> Vec<u32> {
        let mut ids = Vec::with_capacity(self.allowed);
        for (at, &word) in self.words.iter().enumerate() {
            let mut rest = word;
            while rest != 0 {
                ids.push(at as u32 * 32 + rest.trailing_zeros());
                rest &= rest - 1;
            }
        }
        ids.retain(|&id| (id as usize) < vocab);
        ids
    }

    /// Takes the others out of a row.
    fn apply(&self, logits: &mut [f32]) {
        for (at, chunk) in logits.chunks_mut(32).enumerate() {
            let word = self.words.get(at).copied().unwrap_or(0);
            if word != u32::MAX {
                let banned = chunk.iter_mut().enumerate().filter(|(bit, _)| word >> bit & 1 == 0);
                banned.for_each(|(_, logit)| *logit = f32::NEG_INFINITY);
            }
        }
    }
}

/// The choice of one answer's tokens.
#[derive(Debug)]
pub(crate) struct Sampler {
    sampling: Sampling,
    seed: u64,
    /// Tokens with a bias that forces, ascending; usually none.
    forced: Vec<u32>,
    /// How often the answer contains a token; kept only for the penalties that need it.
    counts: HashMap<u32, u32>,
    /// Tokens of prompt and answer; kept only for the repetition penalty.
    seen: HashSet<u32>,
    scratch: Vec<(u32, f32)>,
}

/// The seed of one of several choices; the first has the request's own.
pub(crate) fn choice_seed(seed: u64, choice: usize) -> u64 {
    if choice == 0 {
        return seed;
    }
    // The finaliser of SplitMix64 (Steele et al. 2014): neighbouring choices get unrelated seeds.
    let mut z = seed.wrapping_add((choice as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

impl Sampler {
    pub(crate) fn new(sampling: &Sampling, seed: u64, prompt: &[u32]) -> Self {
        let sampling = sampling.clone();
        let repeats = sampling.repetition_penalty != 1.0;
        let seen = if repeats { prompt.iter().copied().collect() } else { HashSet::new() };
        let forcing = sampling.logit_bias.iter().filter(|(_, bias)| **bias >= ABSOLUTE_BIAS);
        let forced = forcing.map(|(&id, _)| id).collect();
        Self { sampling, seed, forced, counts: HashMap::new(), seen, scratch: Vec::new() }
    }

    /// Tells it what the answer now contains as well.
    pub(crate) fn note(&mut self, id: u32) {
        if self.sampling.presence_penalty != 0.0 || self.sampling.frequency_penalty != 0.0 {
            *self.counts.entry(id).or_default() += 1;
        }
        if self.sampling.repetition_penalty != 1.0 {
            self.seen.insert(id);
        }
    }

    /// The token at `position` from a row over the whole vocabulary, which it uses up.
    pub(crate) fn choose(&mut self, dev: &Device, logits: &mut [f32], mask: Option<&Mask>, position: usize) -> u32 {
        let forced = self.forced_within(mask);
        if !forced.is_empty() {
            return self.choose_among(&forced, logits, position);
        }
        match mask {
            Some(mask) if mask.allowed() <= SMALL_SET => self.choose_among(&mask.ids(logits.len()), logits, position),
            mask => {
                self.adjust(logits);
                if let Some(mask) = mask {
                    mask.apply(logits);
                }
                self.draw(dev, logits, position)
            }
        }
    }

    /// The token at `position` from the logits of a small set of tokens, ascending by id.
    pub(crate) fn choose_of(&mut self, ids: &[u32], logits: &[f32], position: usize) -> u32 {
        let mut set = std::mem::take(&mut self.scratch);
        set.clear();
        let forced: Vec<u32> = self.forced.iter().copied().filter(|id| ids.binary_search(id).is_ok()).collect();
        let wanted = |id: &u32| forced.is_empty() || forced.binary_search(id).is_ok();
        let kept = ids.iter().zip(logits).filter(|(id, _)| wanted(id));
        set.extend(kept.map(|(&id, &logit)| (id, self.adjusted(id, logit))));
        let chosen = self.draw_from_set(&mut set, position);
        self.scratch = set;
        chosen
    }

    /// Tokens that a bias forces, as far as the grammar allows them.
    fn forced_within(&self, mask: Option<&Mask>) -> Vec<u32> {
        let allowed = |id: &u32| mask.is_none_or(|mask| mask.allows(*id));
        self.forced.iter().copied().filter(allowed).collect()
    }

    fn choose_among(&mut self, ids: &[u32], logits: &[f32], position: usize) -> u32 {
        let among: Vec<f32> =
            ids.iter().map(|&id| logits.get(id as usize).copied().unwrap_or(f32::NEG_INFINITY)).collect();
        self.choose_of(ids, &among, position)
    }

    /// One logit after penalties and bias.
    fn adjusted(&self, id: u32, logit: f32) -> f32 {
        let mut value = logit;
        let repetition = self.sampling.repetition_penalty;
        if repetition != 1.0 && self.seen.contains(&id) {
            value = if value > 0.0 { value / repetition } else { value * repetition };
        }
        if let Some(&count) = self.counts.get(&id) {
            value -= self.sampling.presence_penalty + self.sampling.frequency_penalty * count as f32;
        }
        match self.sampling.logit_bias.get(&id) {
            Some(&bias) if bias <= -ABSOLUTE_BIAS => f32::NEG_INFINITY,
            Some(&bias) => value + bias,
            None => value,
        }
    }

    /// A whole row after penalties and bias: only the tokens concerned are touched.
    fn adjust(&mut self, logits: &mut [f32]) {
        let mut touched = std::mem::take(&mut self.scratch);
        touched.clear();
        let ids = self.counts.keys().chain(self.seen.iter()).chain(self.sampling.logit_bias.keys());
        for &id in ids {
            if let Some(&logit) = logits.get(id as usize) {
                touched.push((id, self.adjusted(id, logit)));
            }
        }
        touched.iter().for_each(|&(id, value)| logits[id as usize] = value);
        self.scratch = touched;
    }

    fn inverse_temperature(&self) -> f32 {
        (1.0 / self.sampling.temperature).min(1e6)
    }

    /// The distance below the best scaled logit at which min-p cuts.
    fn min_p_distance(&self) -> f32 {
        if self.sampling.min_p > 0.0 { self.sampling.min_p.ln() } else { f32::NEG_INFINITY }
    }

    fn draw(&mut self, dev: &Device, logits: &mut [f32], position: usize) -> u32 {
        if self.sampling.temperature == 0.0 {
            return argmax(dev, logits) as u32;
        }
        let inverse = self.inverse_temperature();
        if self.sampling.top_k == 0 && self.sampling.top_p >= 1.0 {
            let best = logits[argmax_if(self.sampling.min_p > 0.0, dev, logits)];
            let floor = (best + self.min_p_distance() / inverse).max(f32::MIN);
            return gumbel_argmax(dev, logits, inverse, floor, self.seed, position as u64) as u32;
        }
        let mut set = std::mem::take(&mut self.scratch);
        let mass = self.leading(dev, logits, inverse, &mut set);
        let chosen = self.draw_within(&mut set, mass, position);
        self.scratch = set;
        chosen
    }

    /// The scaled logits that top-k and top-p can leave, and the logarithm of the mass that top-p shares out.
    fn leading(&self, dev: &Device, logits: &mut [f32], inverse: f32, set: &mut Vec<(u32, f32)>) -> f32 {
        logits.iter_mut().for_each(|logit| *logit *= inverse);
        if self.sampling.top_k > 0 {
            top_k(dev, logits, self.sampling.top_k.min(logits.len()), set);
            return log_mass(set);
        }
        let mass = log_sum_exp(dev, logits);
        // All tokens below this share together hold less than what top-p leaves out.
        let floor = mass + ((1.0 - self.sampling.top_p) / logits.len() as f32).ln();
        gather(logits, floor, set);
        mass
    }

    /// The same draw over a small set of unscaled logits.
    fn draw_from_set(&mut self, set: &mut Vec<(u32, f32)>, position: usize) -> u32 {
        if self.sampling.temperature == 0.0 {
            return best_of(set);
        }
        let inverse = self.inverse_temperature();
        set.iter_mut().for_each(|(_, value)| *value *= inverse);
        let k = self.sampling.top_k;
        if k > 0 && k < set.len() {
            set.select_nth_unstable_by(k - 1, better);
            set.truncate(k);
        }
        let mass = log_mass(set);
        self.draw_within(set, mass, position)
    }

    /// Cuts scaled logits by top-p and min-p, then draws.
    fn draw_within(&self, set: &mut Vec<(u32, f32)>, mass: f32, position: usize) -> u32 {
        if self.sampling.top_p < 1.0 {
            cut_nucleus(set, mass, self.sampling.top_p);
        }
        if self.sampling.min_p > 0.0 {
            let best = set.iter().map(|(_, value)| *value).fold(f32::NEG_INFINITY, f32::max);
            let floor = best + self.min_p_distance();
            set.retain(|(_, value)| *value >= floor);
        }
        set.iter_mut().for_each(|(id, value)| *value += gumbel(self.seed, position as u64, *id));
        best_of(set)
    }
}

/// Collects the logits that reach `floor`. Few do, so whole stretches are passed over with one comparison each.
fn gather(logits: &[f32], floor: f32, set: &mut Vec<(u32, f32)>) {
    const STRETCH: usize = 32;
    set.clear();
    for (at, stretch) in logits.chunks(STRETCH).enumerate() {
        if stretch.iter().fold(false, |any, logit| any | (*logit >= floor)) {
            let ids = (at * STRETCH) as u32..;
            set.extend(ids.zip(stretch.iter().copied()).filter(|(_, logit)| *logit >= floor));
        }
    }
}

/// Larger first, then the lower id.
fn better(a: &(u32, f32), b: &(u32, f32)) -> Ordering {
    b.1.total_cmp(&a.1).then(a.0.cmp(&b.0))
}

/// Keeps the best tokens whose shares reach `top_p`. Halving by rank finds the cut without sorting: which tokens stay
/// matters, their order does not.
fn cut_nucleus(set: &mut Vec<(u32, f32)>, mass: f32, top_p: f32) {
    let (mut kept, mut end, mut reached) = (0, set.len(), 0.0);
    while end - kept > 1 {
        let half = (end - kept) / 2;
        set[kept..end].select_nth_unstable_by(half, better);
        let share: f32 = set[kept..kept + half].iter().map(|(_, value)| (value - mass).exp()).sum();
        if reached + share >= top_p {
            end = kept + half;
        } else {
            reached += share;
            kept += half;
        }
    }
    set.truncate(end);
}

/// `ln(sum(exp(value)))` of a small set.
fn log_mass(set: &[(u32, f32)]) -> f32 {
    let best = set.iter().map(|(_, value)| *value).fold(f32::NEG_INFINITY, f32::max);
    best + set.iter().map(|(_, value)| (value - best).exp()).sum::<f32>().ln()
}

/// The argmax where it is needed; any index where not.
fn argmax_if(needed: bool, dev: &Device, logits: &[f32]) -> usize {
    if needed { argmax(dev, logits) } else { 0 }
}

/// The id with the largest value; the lowest id wins ties. Sets are small, so a plain pass will do.
fn best_of(set: &[(u32, f32)]) -> u32 {
    let better = |a: (u32, f32), b: (u32, f32)| if b.1 > a.1 || (b.1 == a.1 && b.0 < a.0) { b } else { a };
    set.iter().copied().reduce(better).map_or(0, |(id, _)| id)
}

#[cfg(test)]
mod tests;
