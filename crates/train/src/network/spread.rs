//! A network whose parameters are spread over ranks: units of weights come when they are needed and go afterwards, gradients go as soon as they are whole.
//!
//! Micro-batches are dealt out in rounds, one to every rank. Each rank takes the gradients of a round in the order of its micro-batches, so that a step has
//! the same bits on any number of ranks.

use kernels::{Device, square_sum};
use serde::Serialize;

use super::Network;
use crate::linear::{Linear, Math};
use crate::shards::Shards;
use crate::{Batch, Group, Params, Stage};

/// Unit of the embedding; a layer's is its number and 1.
const EMBEDDING: usize = 0;

/// Bytes that are held at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Held {
    /// Of weights, in every form in which they are held.
    pub weights: usize,
    /// Of gradients.
    pub gradients: usize,
    /// Of what a run remembers beside them: the optimizer's means, an average, and what it would go back to.
    pub states: usize,
}

impl Network {
    /// The unit is whole whose entries came last. Where weights are spread only this rank's part of it stays.
    pub(super) fn end_unit(&mut self) {
        let Params { entries, values, .. } = &mut self.params;
        let start = self.units.last().map_or(0, |unit| unit.end);
        let end = entries.last().map_or(0, |last| last.range.end);
        self.units.push(start..end);
        if let Some(shards) = &mut self.shards {
            let first = entries.partition_point(|entry| entry.range.start < start);
            shards.push(&entries[first..], &values[values.len() - (end - start)..]);
        }
        if self.comes_and_goes() {
            self.params.values = Vec::new();
            self.linears.iter_mut().chain([&mut self.head]).for_each(Linear::release);
            self.leave_embedding();
        }
    }

    /// All units are there.
    pub(super) fn begin(&mut self, dev: &Device) {
        self.shards.iter_mut().for_each(|shards| shards.begin());
        if self.shards.as_ref().is_none_or(|shards| shards.stage() < Stage::Gradients) {
            self.params.begin();
        }
        if !self.comes_and_goes() {
            self.refresh(dev);
        }
        self.note();
    }

    /// Brings everything back to every rank.
    pub(crate) fn unite(&mut self, dev: &Device) {
        let Some(shards) = self.shards.take() else { return };
        self.params.values = (0..shards.units()).flat_map(|unit| shards.whole(unit, &shards.own.values)).collect();
        self.params.begin();
        self.refresh(dev);
    }

    /// Who computes together, if it is not one process.
    pub fn group(&self) -> Option<&Group> {
        self.shards.as_ref().map(|shards| shards.group())
    }

    pub(crate) fn shards(&self) -> Option<&Shards> {
        self.shards.as_deref()
    }

    /// What this process steps.
    pub(crate) fn own(&self) -> &Params {
        self.shards.as_ref().map_or(&self.params, |shards| &shards.own)
    }

    pub(crate) fn own_mut(&mut self) -> &mut Params {
        self.shards.as_mut().map_or(&mut self.params, |shards| &mut shards.own)
    }

    /// How long the gradient is, without [`Network::loss_scale`].
    pub(crate) fn length(&self, dev: &Device) -> f64 {
        let whole = || square_sum(dev, &self.params.gradient).sqrt();
        self.shards.as_ref().map_or_else(whole, |shards| shards.length(dev)) / f64::from(self.loss_scale())
    }

    /// Takes in what an optimizer changed in [`Network::own_mut`].
    pub(crate) fn update(&mut self, dev: &Device) {
        if let Some(shards) = &mut self.shards {
            if shards.stage() == Stage::Weights {
                return;
            }
            for unit in 0..shards.units() {
                let weights = shards.weights(unit, Some(unit + 1).filter(|next| *next < shards.units()));
                self.params.values[shards.range(unit)].copy_from_slice(&weights);
            }
        }
        self.refresh(dev);
    }

    /// Learns from the micro-batches of a step; the sum of their losses.
    pub(crate) fn learn_all(&mut self, dev: &Device, batches: &[Batch]) -> f64 {
        self.deal(batches, |network, batch| network.learn(dev, batch).total)
    }

    /// The sum of micro-batches' losses.
    pub(crate) fn losses_all(&mut self, dev: &Device, batches: &[Batch]) -> f64 {
        self.deal(batches, |network, batch| network.losses(dev, batch).total)
    }

    fn deal(&mut self, batches: &[Batch], mut each: impl FnMut(&mut Self, &Batch) -> f64) -> f64 {
        let Some((rank, ranks)) = self.group().map(|group| (group.rank(), group.ranks())) else {
            return batches.iter().map(|batch| each(self, batch)).sum();
        };
        let mut ours = Vec::new();
        for round in batches.chunks(ranks) {
            self.shards.iter_mut().for_each(|shards| shards.count(round.len()));
            // Whoever has none left computes another's again: the others need its weights.
            ours.push(each(self, &round[rank.min(round.len() - 1)]));
        }
        let rounds = ours.len();
        let all = self.group().map(|group| group.gather_f64(ours)).unwrap_or_default();
        (0..batches.len()).map(|number| all[number % ranks * rounds + number / ranks]).sum()
    }

    /// A unit's weights come, if they are not here, and those of the next after them.
    fn lend(&mut self, unit: usize, next: Option<usize>) -> bool {
        let Some(shards) = self.shards.as_mut().filter(|shards| shards.stage() == Stage::Weights) else { return false };
        let range = shards.range(unit);
        if range.is_empty() {
            return false;
        }
        self.params.lent.open(range.start, shards.weights(unit, next));
        true
    }

    pub(super) fn enter_embedding(&mut self) {
        if self.lend(EMBEDDING, Some(1)) {
            self.embedding = self.params.lent.close();
            self.note();
        }
    }

    pub(super) fn leave_embedding(&mut self) {
        if self.learned_embedding.is_some() && self.comes_and_goes() {
            self.embedding = Vec::new();
        }
    }

    /// A layer's weights come, and those of the unit `next` after them.
    pub(super) fn enter_layer(&mut self, math: Math<'_>, layer: usize, next: Option<usize>) {
        if self.lend(layer + 1, next) {
            for linear in &mut self.linears[self.tape.layers[layer].linears.clone()] {
                linear.refresh(math, &self.params);
            }
            self.refresh_norms(self.units[layer + 1].clone());
            self.note();
            self.params.lent.close();
        }
    }

    pub(super) fn leave_layer(&mut self, layer: usize) {
        if self.comes_and_goes() {
            self.linears[self.tape.layers[layer].linears.clone()].iter_mut().for_each(Linear::release);
        }
    }

    /// What stands behind the last layer comes; on a way that leads back that layer is needed next.
    pub(super) fn enter_end(&mut self, math: Math<'_>, learning: bool) {
        let (end, tied) = (self.units.len() - 1, self.tied());
        let back = learning.then(|| end - 1);
        if self.lend(end, if tied { Some(EMBEDDING) } else { back }) {
            self.refresh_norms(self.units[end].clone());
            if !tied {
                self.head.refresh(math, &self.params);
                self.note();
            }
            self.params.lent.close();
        }
        if tied && self.lend(EMBEDDING, back) {
            self.head.refresh(math, &self.params);
            self.note();
            self.params.lent.close();
        }
    }

    pub(super) fn leave_head(&mut self) {
        if self.comes_and_goes() {
            self.head.release();
        }
    }

    fn comes_and_goes(&self) -> bool {
        self.shards.as_ref().is_some_and(|shards| shards.stage() == Stage::Weights)
    }

    /// Whether the embedding learns as the head, too: then its gradient is whole when both have added theirs.
    pub(super) fn tied(&self) -> bool {
        self.learned_embedding.is_some() && self.units[self.units.len() - 1].len() == self.spec.width
    }

    /// Room for the gradients of the embedding and of what stands behind the last layer.
    pub(super) fn open_ends(&mut self) {
        if self.tied() {
            self.open(EMBEDDING);
        }
        self.open(self.units.len() - 1);
    }

    pub(super) fn give_end(&mut self, dev: &Device) {
        self.give(dev, self.units.len() - 1);
    }

    pub(super) fn open_embedding(&mut self) {
        if !self.tied() {
            self.open(EMBEDDING);
        }
    }

    pub(super) fn give_embedding(&mut self, dev: &Device) {
        self.give(dev, EMBEDDING);
    }

    pub(super) fn open_layer(&mut self, layer: usize) {
        self.open(layer + 1);
    }

    pub(super) fn give_layer(&mut self, dev: &Device, layer: usize) {
        self.give(dev, layer + 1);
    }

    fn open(&mut self, unit: usize) {
        if self.shards.as_ref().is_some_and(|shards| shards.stage() >= Stage::Gradients) {
            let range = self.units[unit].clone();
            self.params.lent_gradient.open(range.start, vec![0.0; range.len()]);
            self.note();
        }
    }

    /// A unit's gradient goes to whom it belongs to.
    fn give(&mut self, dev: &Device, unit: usize) {
        let Some(shards) = &mut self.shards else { return };
        if shards.stage() >= Stage::Gradients {
            let gradient = self.params.lent_gradient.close();
            return shards.spread(dev, unit, &gradient);
        }
        let gradient = &mut self.params.gradient[self.units[unit].clone()];
        shards.spread(dev, unit, gradient);
        gradient.fill(0.0);
    }

    /// Bytes that it held at most at the same time, beside what a batch takes.
    pub(crate) fn held(&self) -> Held {
        if self.shards.is_some() { self.most } else { self.now() }
    }

    fn now(&self) -> Held {
        let bytes = |numbers: &[f32]| size_of_val(numbers);
        let Params { values, gradient, lent, lent_gradient, .. } = &self.params;
        let linears = self.linears.iter().chain([&self.head]).map(Linear::bytes).sum::<usize>();
        let norms = self.norms.iter().map(|norm| bytes(&norm.weight)).sum::<usize>();
        let own = self
            .shards
            .as_ref()
            .map(|shards| (bytes(&shards.own.values) + shards.coming(), bytes(&shards.own.gradient)));
        let (own, own_gradient) = own.unwrap_or_default();
        Held {
            weights: bytes(values) + lent.bytes() + own + linears + norms + bytes(&self.embedding),
            gradients: bytes(gradient) + lent_gradient.bytes() + own_gradient,
            states: 0,
        }
    }

    /// Remembers the most of what was held.
    fn note(&mut self) {
        let now = self.now();
        if now.weights + now.gradients > self.most.weights + self.most.gradients {
            self.most = now;
        }
    }
}
