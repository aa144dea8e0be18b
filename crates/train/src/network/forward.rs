//! Operations forwards.

use kernels::{
    Activation, Attended, AttentionSpec, Vectors, activate, add, attention_forward, copy, dropout, gated_forward,
    rms_norm_forward, rope,
};

use super::{Network, Pass};
use crate::linear::Input;
use crate::tape::{Op, Slot, Weight};

impl Network {
    /// One operation.
    pub(super) fn on(&mut self, pass: Pass<'_>, op: usize) {
        match self.tape.ops[op].clone() {
            Op::Norm { x, weight, y } => self.norm(pass, op, (x, weight, y)),
            Op::Linear { x, outs } => {
                self.pack(pass, x, outs[0].0);
                outs.into_iter().for_each(|(weight, y)| self.linear(pass, x, weight, y));
            }
            Op::Onto { x, weight, from, y } => self.onto(pass, op, (x, weight), (from, y)),
            Op::Add { x, from, y } => self.add(pass, op, x, (from, y)),
            Op::Rope { x, layer } => self.rotate(pass, x, layer),
            Op::Attention { spec, q, k, v, y } => self.attend(pass, op, &spec, [q, k, v], y),
            Op::Gated { f, gate, up, y } => self.gate(pass, f, [gate, up], y),
            Op::Activate { f, x, y } => self.activate(pass, f, x, y),
        }
    }

    fn norm(&mut self, pass: Pass<'_>, op: usize, (x, weight, y): (Slot, Weight, Slot)) {
        let norm = &self.norms[weight].weight;
        let mut out = self.room.lend(y, self.tape.slots[y].0);
        let mut inverse = self.room.lend_kept(op, out.len() / norm.len());
        rms_norm_forward(pass.math.dev, self.room.value(x), norm, self.spec.norm_eps, &mut out, &mut inverse);
        self.room.put(y, out);
        self.room.put_kept(op, inverse);
    }

    /// Packs what the next products read.
    fn pack(&mut self, pass: Pass<'_>, x: Slot, weight: Weight) {
        let mut left = std::mem::take(&mut self.room.scratch.left);
        let vectors = Vectors::rows(self.room.value(x), self.linears[weight].inputs());
        left.pack(pass.math.dev, pass.math.precision, vectors);
        self.room.scratch.left = left;
    }

    /// `out (+)= x Wᵀ` of what was packed.
    fn product(&mut self, pass: Pass<'_>, (x, weight): (Slot, Weight), out: &mut [f32], onto: bool) {
        let linear = &self.linears[weight];
        let mut low = self.room.lend_low(weight, linear.waist());
        let mut scratch = std::mem::take(&mut self.room.scratch);
        let drop = pass.drop_adapter(weight);
        let input = Input { x: self.room.value(x), drop: drop.as_ref() };
        linear.forward(pass.math, &input, &mut scratch, &mut low, onto, out);
        self.room.scratch = scratch;
        self.room.put_low(weight, low);
    }

    fn linear(&mut self, pass: Pass<'_>, x: Slot, weight: Weight, y: Slot) {
        let mut out = self.room.lend(y, self.tape.slots[y].0);
        self.product(pass, (x, weight), &mut out, false);
        self.room.put(y, out);
    }

    fn onto(&mut self, pass: Pass<'_>, op: usize, (x, weight): (Slot, Weight), (from, y): (Slot, Slot)) {
        self.pack(pass, x, weight);
        let cols = self.tape.slots[y].0;
        let mut out = self.room.lend(y, cols);
        copy(pass.math.dev, &mut out, self.room.value(from));
        if let Some(drop) = pass.drop_residual(op) {
            let mut block = std::mem::take(&mut self.room.block);
            block.resize(out.len());
            self.product(pass, (x, weight), &mut block, false);
            dropout(pass.math.dev, &drop, cols, &mut block);
            add(pass.math.dev, &mut out, &block);
            self.room.block = block;
        } else {
            self.product(pass, (x, weight), &mut out, true);
        }
        self.room.put(y, out);
    }

    fn add(&mut self, pass: Pass<'_>, op: usize, x: Slot, (from, y): (Slot, Slot)) {
        let cols = self.tape.slots[y].0;
        let mut out = self.room.lend(y, cols);
        copy(pass.math.dev, &mut out, self.room.value(x));
        if let Some(drop) = pass.drop_residual(op) {
            dropout(pass.math.dev, &drop, cols, &mut out);
        }
        add(pass.math.dev, &mut out, self.room.value(from));
        self.room.put(y, out);
    }

    fn rotate(&mut self, pass: Pass<'_>, x: Slot, layer: usize) {
        let Some(table) = &self.tables[layer] else { return };
        let positions = std::mem::take(&mut self.room.positions);
        rope(pass.math.dev, table, self.room.value_mut(x), self.spec.layers[layer].attention.head_dim, &positions);
        self.room.positions = positions;
    }

    fn attend(&mut self, pass: Pass<'_>, op: usize, spec: &AttentionSpec, reads: [Slot; 3], y: Slot) {
        let mut out = self.room.lend(y, self.tape.slots[y].0);
        let mut log_sums = self.room.lend_kept(op, self.room.rows() * spec.heads);
        let branches = &pass.batch.branches;
        attention_forward(pass.math.dev, spec, branches, self.attended(reads), &mut out, &mut log_sums);
        self.room.put(y, out);
        self.room.put_kept(op, log_sums);
    }

    pub(super) fn attended(&self, reads: [Slot; 3]) -> Attended<'_> {
        let [q, k, v] = reads.map(|slot| self.room.value(slot));
        Attended { q, k, v }
    }

    fn gate(&mut self, pass: Pass<'_>, f: Activation, [gate, up]: [Slot; 2], y: Slot) {
        let mut out = self.room.lend(y, self.tape.slots[y].0);
        gated_forward(pass.math.dev, f, self.room.value(gate), self.room.value(up), &mut out);
        self.room.put(y, out);
    }

    fn activate(&mut self, pass: Pass<'_>, f: Activation, x: Slot, y: Slot) {
        let mut out = self.room.lend(y, self.tape.slots[y].0);
        copy(pass.math.dev, &mut out, self.room.value(x));
        activate(pass.math.dev, f, &mut out);
        self.room.put(y, out);
    }
}
