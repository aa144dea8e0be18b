//! Learning without forgetting: a run is held to its beginning on texts of its own.
//!
//! Beside what is learned, every step takes some samples whose teacher is the network as it was when the run began ([`crate::Network::teach`]), and
//! adds `KL(beginning | now)` of their rows to the loss. What a model forgets is foretold by how far it drifts there (RL's Razor, Shenfeld et al. 2025),
//! and a budget in nats a token says how far it may. The divergence's weight follows what a step measured, as in Ziegler et al. (2019): it grows
//! while the run drifts further than half of its budget, and falls while it drifts less, so that learning is held no tighter than it must be.
//!
//! The few texts of a step measure the divergence roughly, and its gradient more roughly still. So however far the run is, that gradient
//! never pulls harder than what the samples ask for: beyond that its noise would be the direction, under which nothing is learned and the
//! drift grows all the same.

use kernels::{Distil, Divergence};

use crate::sample::{Order, pack};
use crate::{Batch, Replay, Sample};

/// How far a run shall drift, as a share of its budget: a step measures few texts, and what it measures varies.
const TARGET: f64 = 0.5;
/// By how much the logarithm of the weight falls and grows in a step at most: a run has few steps, and what it drifted too far is hard to get back.
const CHANGES: [f64; 2] = [-0.3, 1.0];
/// Bounds of the weight.
const WEIGHTS: [f64; 2] = [0.01, 1000.0];
/// The weight in the first step.
pub(crate) const FIRST: f64 = 10.0;
/// The divergence and nothing else, as it is defined.
pub(crate) const DIVERGENCE: Distil = Distil { share: 1.0, skew: 0.0, divergence: Divergence::Forward };

/// What is said again.
#[derive(Debug)]
pub(crate) struct Replayed {
    samples: Vec<Sample>,
    order: Order,
}

impl Replayed {
    pub(crate) fn new(samples: Vec<Sample>, seed: u64) -> Self {
        Self { order: Order::new(seed, samples.len()), samples }
    }

    pub(crate) fn samples(&self) -> &[Sample] {
        &self.samples
    }

    /// Micro-batches of a step, of at most so many rows each, all else like `like`; they add the weighted mean divergence to the loss.
    pub(crate) fn batches(&mut self, plan: Replay, step: u64, (rows, weight): (usize, f64), like: Batch) -> Vec<Batch> {
        if self.samples.is_empty() {
            return Vec::new();
        }
        let first = step.saturating_mul(plan.samples as u64);
        let taken: Vec<&Sample> = (first..first.saturating_add(plan.samples as u64))
            .map(|taken| &self.samples[self.order.at(taken)])
            .collect();
        let mut batches = pack(taken.iter().copied(), rows, &Batch { distil: DIVERGENCE, ..like });
        let weights = batches.iter_mut().flat_map(|batch| &mut batch.weights);
        weights.for_each(|row| *row = (f64::from(*row) * weight) as f32);
        batches
    }
}

/// The weight for the step behind one that measured this divergence, and gradients of this length: of the samples alone, and with the weighted divergence.
pub(crate) fn next_weight(weight: f64, measured: f64, budget: f32, [asked, whole]: [f64; 2]) -> f64 {
    let over = (measured / (TARGET * f64::from(budget)) - 1.0).clamp(CHANGES[0], CHANGES[1]);
    // The two point nowhere in common, nearly.
    let pulled = (whole * whole - asked * asked).max(0.0).sqrt() / weight;
    let most = if pulled > 0.0 { asked / pulled } else { WEIGHTS[1] };
    (weight * over.exp()).min(most).clamp(WEIGHTS[0], WEIGHTS[1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_weight_follows_the_divergence() {
        let check = |measured: f64, want: f64| {
            let got = next_weight(2.0, measured, 0.1, [1.0, 1.0]) / 2.0;
            assert!((got - want).abs() < 1e-6, "{measured}: {got}, not {want}");
        };
        check(0.05, 1.0);
        check(0.0, CHANGES[0].exp());
        check(0.0625, 0.25_f64.exp());
        check(7.0, CHANGES[1].exp());
        assert_eq!(next_weight(1000.0, 7.0, 0.1, [1.0, 1.0]), 1000.0);
    }

    #[test]
    fn what_holds_back_pulls_no_harder_than_what_is_learned() {
        // At a weight of 2 the divergence's gradient is four times as long as the samples'.
        let lengths = [1.0, 17.0_f64.sqrt()];
        let got = next_weight(2.0, 7.0, 0.1, lengths);
        assert!((got - 0.5).abs() < 1e-9, "{got}");
        assert!(next_weight(2.0, 0.0, 0.1, [100.0, 100.1]) < 2.0, "a weight that may be lower is lower");
    }
}
