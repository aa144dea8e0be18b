//! Buffers, kept from step to step.
//!
//! A slot's value, what an operation keeps for its gradient and an adapter's waist stay until the way back has used them: all at the same time, or,
//! where layers are recomputed, those of one layer only, with the residual stream between layers. Gradients are shared by role in either case.

use std::mem::take;

use kernels::{Aligned, Branch, Device, add};

use crate::linear::Scratch;
use crate::tape::{ROLES, Slot, Tape, Weight};

/// Where things lie, and they themselves.
#[derive(Debug, Default)]
pub(super) struct Room {
    rows: usize,
    /// Of every row, in its document.
    pub(super) positions: Vec<u32>,
    values: Buffers,
    kept: Buffers,
    low: Buffers,
    gradients: Vec<Aligned>,
    /// Gradients of the residual stream from exits, which wait for it.
    exits: Vec<Aligned>,
    pub(super) scratch: Scratch,
    /// A block's result before it joins the residual stream, or the gradient behind it.
    pub(super) block: Aligned,
    pub(super) hidden: Aligned,
    pub(super) logits: Aligned,
}

/// Buffers by number, some of which share one.
#[derive(Debug, Default)]
struct Buffers {
    at: Vec<usize>,
    buffers: Vec<Aligned>,
}

impl Buffers {
    /// Those of a group share with those of other groups, place by place; all others are on their own.
    fn new(n: usize, groups: &[std::ops::Range<usize>]) -> Self {
        let widest = groups.iter().map(ExactSizeIterator::len).max().unwrap_or(0);
        let (mut at, mut next) = (Vec::with_capacity(n), widest);
        for number in 0..n {
            let group = groups.iter().find(|group| group.contains(&number));
            at.push(group.map_or(next, |group| number - group.start));
            next += usize::from(group.is_none());
        }
        Self { at, buffers: (0..next).map(|_| Aligned::default()).collect() }
    }

    fn get(&self, number: usize) -> &[f32] {
        &self.buffers[self.at[number]]
    }

    fn get_mut(&mut self, number: usize) -> &mut Aligned {
        &mut self.buffers[self.at[number]]
    }
}

impl Room {
    /// Room for a tape's buffers; with `recompute` its layers share theirs.
    pub(super) fn new(tape: &Tape, recompute: bool) -> Self {
        let linears = tape.layers.last().map_or(0, |layer| layer.linears.end);
        let layers = if recompute { &tape.layers[..] } else { &[] };
        // A layer's result is read by the next one.
        let inner: Vec<_> = layers.iter().map(|layer| layer.slots.start..layer.slots.end - 1).collect();
        let ops: Vec<_> = layers.iter().map(|layer| layer.ops.clone()).collect();
        let weights: Vec<_> = layers.iter().map(|layer| layer.linears.clone()).collect();
        Self {
            values: Buffers::new(tape.slots.len(), &inner),
            kept: Buffers::new(tape.ops.len(), &ops),
            low: Buffers::new(linears, &weights),
            gradients: (0..ROLES).map(|_| Aligned::default()).collect(),
            ..Self::default()
        }
    }

    /// A batch of these documents comes.
    pub(super) fn begin(&mut self, branches: &[Branch]) {
        self.positions.clear();
        self.positions.extend(branches.iter().flat_map(Branch::positions).map(|position| position as u32));
        self.rows = self.positions.len();
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    pub(super) fn value(&self, slot: Slot) -> &[f32] {
        self.values.get(slot)
    }

    pub(super) fn value_mut(&mut self, slot: Slot) -> &mut [f32] {
        self.values.get_mut(slot)
    }

    /// Lends a value to be written, with this many columns, whatever stands in it; [`Room::put`] gives it back.
    pub(super) fn lend(&mut self, slot: Slot, cols: usize) -> Aligned {
        sized(take(self.values.get_mut(slot)), self.rows * cols)
    }

    pub(super) fn put(&mut self, slot: Slot, value: Aligned) {
        *self.values.get_mut(slot) = value;
    }

    /// The gradient of a role.
    pub(super) fn gradient(&self, role: usize) -> &[f32] {
        &self.gradients[role]
    }

    pub(super) fn gradient_mut(&mut self, role: usize) -> &mut [f32] {
        &mut self.gradients[role]
    }

    /// Lends a gradient to be written; layers may differ in width and share it all the same.
    pub(super) fn lend_gradient(&mut self, role: usize, cols: usize) -> Aligned {
        sized(take(&mut self.gradients[role]), self.rows * cols)
    }

    pub(super) fn put_gradient(&mut self, role: usize, gradient: Aligned) {
        self.gradients[role] = gradient;
    }

    /// A gradient waits at an exit; its role gets another buffer.
    pub(super) fn set_aside(&mut self, exit: usize, role: usize) {
        if self.exits.len() <= exit {
            self.exits.resize_with(exit + 1, Aligned::default);
        }
        std::mem::swap(&mut self.exits[exit], &mut self.gradients[role]);
    }

    /// What waits at an exit is added.
    pub(super) fn join(&mut self, dev: &Device, exit: usize, role: usize) {
        add(dev, &mut self.gradients[role], &self.exits[exit]);
    }

    /// A value became its slot's gradient: the buffers change places.
    pub(super) fn turn(&mut self, slot: Slot, role: usize, gradient: Aligned) {
        let before = std::mem::replace(&mut self.gradients[role], gradient);
        self.put(slot, before);
    }

    /// What an operation keeps for its gradient.
    pub(super) fn kept(&self, op: usize) -> &[f32] {
        self.kept.get(op)
    }

    pub(super) fn lend_kept(&mut self, op: usize, len: usize) -> Aligned {
        sized(take(self.kept.get_mut(op)), len)
    }

    pub(super) fn put_kept(&mut self, op: usize, kept: Aligned) {
        *self.kept.get_mut(op) = kept;
    }

    /// The waist of a layer's adapter, this many columns wide.
    pub(super) fn lend_low(&mut self, weight: Weight, cols: usize) -> Aligned {
        sized(take(self.low.get_mut(weight)), self.rows * cols)
    }

    pub(super) fn put_low(&mut self, weight: Weight, low: Aligned) {
        *self.low.get_mut(weight) = low;
    }

    /// Bytes of what stays between the way on and the way back.
    pub(super) fn bytes(&self) -> usize {
        let all = [&self.values.buffers, &self.kept.buffers, &self.low.buffers, &self.gradients, &self.exits];
        all.into_iter().flatten().map(Aligned::bytes).sum()
    }
}

fn sized(mut buffer: Aligned, len: usize) -> Aligned {
    buffer.resize(len);
    buffer
}
