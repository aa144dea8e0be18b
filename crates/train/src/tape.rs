//! The tape: a model as a list of operations over slots, written once from its spec, run forwards and backwards.
//!
//! Operations are blocks (a norm, products that share an input, attention), not arithmetic on single numbers: about a dozen a layer. A *slot* is
//! a matrix of rows; its value stays until the way back has used it. Gradients need less room: those of one layer are done before those of the
//! layer below begin, so slots that play the same part share a gradient ([`Role`]), and the residual stream has one that runs through all
//! layers and is only ever added to.
//!
//! Behind every layer stands the final norm, which all of them leave in the same slot: that behind the last is the network's end, the others are
//! exits, which run only where a batch has a loss for them.
//!
//! The list holds numbers of slots and weights only, no buffers; `network` runs it.

use std::ops::Range;

use kernels::{Activation, AttentionSpec};
use model::{LayerSpec, ModelSpec, Norms};

/// A matrix of rows.
pub(crate) type Slot = usize;

/// What a slot is for: slots of one role share their gradient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Role {
    Residual,
    Normed,
    Query,
    NormedQuery,
    Key,
    NormedKey,
    Value,
    Mixed,
    Block,
    NormedBlock,
    Gate,
    Up,
    Inner,
}

/// Roles there are.
pub(crate) const ROLES: usize = Role::Inner as usize + 1;

/// A number into the network's norms or linear layers.
pub(crate) type Weight = usize;

/// One operation.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Op {
    /// `y = norm(x)`, over rows as wide as the weight.
    Norm { x: Slot, weight: Weight, y: Slot },
    /// Products of one input.
    Linear { x: Slot, outs: Vec<(Weight, Slot)> },
    /// `y = from + x Wᵀ`: the residual stream goes on.
    Onto { x: Slot, weight: Weight, from: Slot, y: Slot },
    /// `y = from + x`.
    Add { x: Slot, from: Slot, y: Slot },
    /// In place.
    Rope { x: Slot, layer: usize },
    /// Attention of rotated queries and keys.
    Attention { spec: AttentionSpec, q: Slot, k: Slot, v: Slot, y: Slot },
    /// `y = f(gate) * up`.
    Gated { f: Activation, gate: Slot, up: Slot, y: Slot },
    /// `y = f(x)`.
    Activate { f: Activation, x: Slot, y: Slot },
}

/// What belongs to a layer, which reads the slot in front of its own and leaves its result in its last one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) ops: Range<usize>,
    pub(crate) slots: Range<Slot>,
    pub(crate) linears: Range<Weight>,
}

/// The list.
#[derive(Debug, Default)]
pub(crate) struct Tape {
    pub(crate) ops: Vec<Op>,
    /// Columns and role of every slot; the first is the embedding.
    pub(crate) slots: Vec<(usize, Role)>,
    /// Layers, in order.
    pub(crate) layers: Vec<Part>,
    norms: Weight,
    linears: Weight,
}

impl Tape {
    /// The operations of a decoder. Norms and linear layers are numbered in the order in which `network` collects them.
    pub(crate) fn new(spec: &ModelSpec) -> Self {
        let mut tape = Self::default();
        let mut x = tape.slot(spec.width, Role::Residual);
        for (number, layer) in spec.layers.iter().enumerate() {
            let (op, slot, linear) = (tape.ops.len(), tape.slots.len(), tape.linears);
            x = tape.layer(spec.width, number, layer, x);
            let (ops, slots) = (op..tape.ops.len(), slot..tape.slots.len());
            tape.layers.push(Part { ops, slots, linears: linear..tape.linears });
        }
        let y = tape.slot(spec.width, Role::Normed);
        let ends = tape.layers.iter().map(|layer| Op::Norm { x: layer.slots.end - 1, weight: tape.norms, y });
        tape.ops.extend(ends.collect::<Vec<_>>());
        tape
    }

    /// The final norm behind so many layers.
    pub(crate) fn end(&self, after: usize) -> usize {
        self.layers.last().map_or(0, |layer| layer.ops.end) + after - 1
    }

    /// The slot in front of the head.
    pub(crate) fn hidden(&self) -> Slot {
        self.slots.len() - 1
    }

    /// The number of a slot's gradient.
    pub(crate) fn role(&self, slot: Slot) -> usize {
        self.slots[slot].1 as usize
    }

    fn slot(&mut self, cols: usize, role: Role) -> Slot {
        self.slots.push((cols, role));
        self.slots.len() - 1
    }

    fn norm(&mut self, x: Slot, cols: usize, role: Role) -> Slot {
        let y = self.slot(cols, role);
        self.ops.push(Op::Norm { x, weight: self.norms, y });
        self.norms += 1;
        y
    }

    fn linear(&mut self, x: Slot, outs: &[(usize, Role)]) -> Vec<Slot> {
        let slots: Vec<Slot> = outs.iter().map(|&(cols, role)| self.slot(cols, role)).collect();
        let outs = (self.linears..).zip(slots.iter().copied()).collect();
        self.linears += slots.len();
        self.ops.push(Op::Linear { x, outs });
        slots
    }

    fn layer(&mut self, width: usize, number: usize, layer: &LayerSpec, x: Slot) -> Slot {
        let spec = layer.attention;
        let (query, key) = (spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim);
        let normed = self.norm(x, width, Role::Normed);
        let outs = self.linear(normed, &[(query, Role::Query), (key, Role::Key), (key, Role::Value)]);
        let (mut q, mut k, v) = (outs[0], outs[1], outs[2]);
        if layer.qk_norm {
            (q, k) = (self.norm(q, query, Role::NormedQuery), self.norm(k, key, Role::NormedKey));
        }
        if layer.rope.is_some() {
            self.ops.extend([q, k].map(|x| Op::Rope { x, layer: number }));
        }
        let y = self.slot(query, Role::Mixed);
        self.ops.push(Op::Attention { spec, q, k, v, y });
        let x = self.onto(y, width, layer.norms, x);
        self.feed_forward(width, layer, x)
    }

    fn feed_forward(&mut self, width: usize, layer: &LayerSpec, x: Slot) -> Slot {
        let (f, wide) = (layer.activation, layer.ffn);
        let normed = self.norm(x, width, Role::Normed);
        let inner = if layer.gated {
            let outs = self.linear(normed, &[(wide, Role::Gate), (wide, Role::Up)]);
            let y = self.slot(wide, Role::Inner);
            self.ops.push(Op::Gated { f, gate: outs[0], up: outs[1], y });
            y
        } else {
            let up = self.linear(normed, &[(wide, Role::Up)])[0];
            let y = self.slot(wide, Role::Inner);
            self.ops.push(Op::Activate { f, x: up, y });
            y
        };
        self.onto(inner, width, layer.norms, x)
    }

    /// A block's product joins the residual stream, with a norm between where the family has one.
    fn onto(&mut self, x: Slot, width: usize, norms: Norms, from: Slot) -> Slot {
        if norms == Norms::Before {
            let y = self.slot(width, Role::Residual);
            self.ops.push(Op::Onto { x, weight: self.linears, from, y });
            self.linears += 1;
            return y;
        }
        let block = self.linear(x, &[(width, Role::Block)])[0];
        let normed = self.norm(block, width, Role::NormedBlock);
        let y = self.slot(width, Role::Residual);
        self.ops.push(Op::Add { x: normed, from, y });
        y
    }
}
