//! What learns, spread over ranks (ZeRO, Rajbhandari et al. 2020).
//!
//! A unit is what is in memory together: the embedding, a layer, or what stands behind the last one. Every rank owns one part of each unit: all its
//! parts together are parameters of their own, which the optimizer steps as it steps whole ones. A part is a whole number of blocks, so that sums over
//! blocks are the same whoever owns them; the last ranks' parts of a small unit are empty but for zeros.

use std::ops::Range;

use kernels::{Device, add, square_sums};

use crate::group::Pending;
use crate::{Entry, Group, Kind, Params};

/// Numbers of a block.
const BLOCK: usize = 256;
/// Numbers of every rank's block when gradients are exchanged: what that needs beside them stays small.
const SLICE: usize = 256 * BLOCK;

/// Of what every rank has only its part; each stage goes beyond the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// The optimizer's means.
    States = 1,
    /// Gradients too: a layer's are spread as soon as they are there.
    Gradients = 2,
    /// Weights too: a layer's are gathered when they are needed, one layer ahead.
    Weights = 3,
}

/// Numbers that are in memory together.
#[derive(Debug)]
struct Unit {
    /// In the flat vector.
    range: Range<usize>,
    /// Numbers of every rank's part, zeros at the end included.
    part: usize,
    /// Where this rank's part begins among its own numbers.
    at: usize,
}

impl Unit {
    /// What a rank owns of it in the flat vector.
    fn of(&self, rank: usize) -> Range<usize> {
        let start = self.range.end.min(self.range.start + rank * self.part);
        start..self.range.end.min(start + self.part)
    }
}

/// This rank's part of everything.
#[derive(Debug)]
pub(crate) struct Shards {
    group: Group,
    stage: Stage,
    units: Vec<Unit>,
    /// This rank's parts, one behind the other.
    pub(crate) own: Params,
    /// The unit that is being gathered ahead.
    coming: Option<(usize, Pending<Vec<f32>>)>,
    /// How many ranks' gradients count: in the last round of a step there may be fewer micro-batches than ranks.
    counted: usize,
}

impl Shards {
    /// Nothing yet; units follow one after the other.
    pub(crate) fn new(group: Group, stage: Stage) -> Self {
        let counted = group.ranks();
        Self { group, stage, units: Vec::new(), own: Params::default(), coming: None, counted }
    }

    /// The next unit: takes this rank's part out of these entries, whose numbers lie side by side in `values`.
    pub(crate) fn push(&mut self, entries: &[Entry], values: &[f32]) {
        let start = self.len();
        let range = start..start + values.len();
        let part = range.len().div_ceil(BLOCK).div_ceil(self.group.ranks()) * BLOCK;
        let at = self.own.values.len();
        let unit = Unit { range, part, at };
        let ours = unit.of(self.group.rank());
        for Entry { name, range, kind, .. } in entries {
            let piece = range.start.max(ours.start)..range.end.min(ours.end);
            if !piece.is_empty() {
                let values = &values[piece.start - start..piece.end - start];
                self.own.add(name.clone(), *kind, [1, values.len()], values);
            }
        }
        let rest = part - ours.len();
        if rest > 0 {
            self.own.add(String::new(), Kind::Vector, [1, rest], &vec![0.0; rest]);
        }
        self.units.push(unit);
    }

    /// All units are there.
    pub(crate) fn begin(&mut self) {
        self.own.begin();
    }

    pub(crate) fn group(&self) -> &Group {
        &self.group
    }

    pub(crate) fn stage(&self) -> Stage {
        self.stage
    }

    pub(crate) fn units(&self) -> usize {
        self.units.len()
    }

    /// The length of the flat vector.
    pub(crate) fn len(&self) -> usize {
        self.units.last().map_or(0, |unit| unit.range.end)
    }

    /// Where a unit stands in the flat vector.
    pub(crate) fn range(&self, unit: usize) -> Range<usize> {
        self.units[unit].range.clone()
    }

    /// Bytes of what is gathered ahead.
    pub(crate) fn coming(&self) -> usize {
        self.coming.as_ref().map_or(0, |(unit, _)| size_of::<f32>() * self.units[*unit].part * self.group.ranks())
    }

    /// So many ranks' gradients count from now on.
    pub(crate) fn count(&mut self, ranks: usize) {
        self.counted = ranks;
    }

    /// A unit's weights. While they are used those of the `next` are gathered.
    pub(crate) fn weights(&mut self, unit: usize, next: Option<usize>) -> Vec<f32> {
        let coming = self.coming.take().filter(|(coming, _)| *coming == unit);
        let pending = coming.map_or_else(|| self.gather(unit, &self.own.values), |(_, pending)| pending);
        let mut whole = pending.wait();
        self.coming = next.map(|next| (next, self.gather(next, &self.own.values)));
        whole.truncate(self.units[unit].range.len());
        whole
    }

    fn gather(&self, unit: usize, numbers: &[f32]) -> Pending<Vec<f32>> {
        let Unit { part, at, .. } = self.units[unit];
        self.group.gather(numbers[at..at + part].to_vec())
    }

    /// A unit of numbers that lie as this rank's own do, such as a mean of gradients.
    pub(crate) fn whole(&self, unit: usize, numbers: &[f32]) -> Vec<f32> {
        let mut whole = self.gather(unit, numbers).wait();
        whole.truncate(self.units[unit].range.len());
        whole
    }

    /// Adds everyone's gradients of a unit, in the order of ranks, to those of this rank's part.
    pub(crate) fn spread(&mut self, dev: &Device, unit: usize, gradient: &[f32]) {
        let Unit { part, at, .. } = self.units[unit];
        for from in (0..part).step_by(SLICE) {
            let slice = SLICE.min(part - from);
            let mut blocks = vec![0.0; slice * self.group.ranks()];
            for (rank, block) in blocks.chunks_exact_mut(slice).enumerate() {
                let start = gradient.len().min(rank * part + from);
                let piece = &gradient[start..gradient.len().min(start + slice)];
                block[..piece.len()].copy_from_slice(piece);
            }
            let blocks = self.group.exchange(blocks).wait();
            let own = &mut self.own.gradient[at + from..][..slice];
            blocks.chunks_exact(slice).take(self.counted).for_each(|block| add(dev, own, block));
        }
    }

    /// How long the whole gradient is.
    pub(crate) fn length(&self, dev: &Device) -> f64 {
        let ours = square_sums(dev, &self.own.gradient, BLOCK);
        let (each, all) = (ours.len(), self.group.gather_f64(ours));
        let of = |unit: &Unit| {
            let blocks = unit.at / BLOCK..(unit.at + unit.part) / BLOCK;
            all.chunks(each).flat_map(|rank| &rank[blocks.clone()]).sum::<f64>()
        };
        self.units.iter().map(of).sum::<f64>().sqrt()
    }

    /// Takes what is this rank's of a stretch of the flat vector that begins at `first`.
    pub(crate) fn take(&self, first: usize, stretch: &[f32], own: &mut [f32]) {
        for unit in &self.units {
            let ours = unit.of(self.group.rank());
            let common = ours.start.max(first)..ours.end.min(first + stretch.len());
            if !common.is_empty() {
                let to = &mut own[unit.at + common.start - ours.start..][..common.len()];
                to.copy_from_slice(&stretch[common.start - first..common.end - first]);
            }
        }
    }
}
