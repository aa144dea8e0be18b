//! Operations backwards. What adds to the residual stream's gradient adds; every other slot has one reader, which overwrites.

use kernels::{
    Activation, Aligned, Attention, AttentionGradient, AttentionSpec, activate_backward, attention_backward, copy,
    dropout, gated_backward, rms_norm_backward, rope_backward, zero,
};

use super::{Network, Pass};
use crate::linear::{Back, Input};
use crate::tape::{Op, Slot, Weight};

impl Network {
    /// One operation.
    pub(super) fn back(&mut self, pass: Pass<'_>, op: usize) {
        match self.tape.ops[op].clone() {
            Op::Norm { x, weight, y } => self.norm_back(pass, op, (x, weight, y)),
            Op::Linear { x, outs } => self.linear_back(pass, x, &outs),
            Op::Onto { x, weight, y, .. } => self.onto_back(pass, op, (x, weight), y),
            Op::Add { x, y, .. } => self.add_back(pass, op, x, y),
            Op::Rope { x, layer } => self.rotate_back(pass, x, layer),
            Op::Attention { spec, q, k, v, y } => self.attend_back(pass, op, &spec, [q, k, v], y),
            Op::Gated { f, gate, up, y } => self.gate_back(pass, f, [gate, up], y),
            Op::Activate { f, x, y } => self.activate_back(pass, f, x, y),
        }
    }

    fn lend_back(&mut self, slot: Slot) -> Aligned {
        self.room.lend_gradient(self.tape.role(slot), self.tape.slots[slot].0)
    }

    fn put_back(&mut self, slot: Slot, gradient: Aligned) {
        self.room.put_gradient(self.tape.role(slot), gradient);
    }

    fn norm_back(&mut self, pass: Pass<'_>, op: usize, (x, weight, y): (Slot, Weight, Slot)) {
        let mut dx = self.lend_back(x);
        if self.tape.role(x) != self.tape.role(0) {
            zero(pass.math.dev, &mut dx);
        }
        let (norm, room) = (&self.norms[weight], &self.room);
        let dweight = norm.learned.as_ref().map(|range| self.params.slope(range));
        let dy = room.gradient(self.tape.role(y));
        rms_norm_backward(pass.math.dev, room.value(x), &norm.weight, room.kept(op), dy, &mut dx, dweight);
        self.put_back(x, dx);
    }

    /// Packs what the gradients of the next products read.
    fn see(&mut self, pass: Pass<'_>, x: Slot, weight: Weight) {
        let mut scratch = std::mem::take(&mut self.room.scratch);
        let drop = pass.drop_adapter(weight);
        let input = Input { x: self.room.value(x), drop: drop.as_ref() };
        self.linears[weight].see(pass.math, &input, &mut scratch);
        self.room.scratch = scratch;
    }

    /// `dx (+)= dy W`, and the gradients of the weight.
    fn product_back(&mut self, pass: Pass<'_>, (x, weight): (Slot, Weight), dy: &[f32], dx: &mut [f32], onto: bool) {
        let linear = &self.linears[weight];
        let low = self.room.lend_low(weight, linear.waist());
        let mut scratch = std::mem::take(&mut self.room.scratch);
        let drop = pass.drop_adapter(weight);
        let input = Input { x: self.room.value(x), drop: drop.as_ref() };
        let back = Back { dy, dx, onto, params: &mut self.params };
        linear.backward(pass.math, &input, &low, back, &mut scratch);
        self.room.scratch = scratch;
        self.room.put_low(weight, low);
    }

    fn linear_back(&mut self, pass: Pass<'_>, x: Slot, outs: &[(Weight, Slot)]) {
        let mut dx = self.lend_back(x);
        self.see(pass, x, outs[0].0);
        for (i, &(weight, y)) in outs.iter().enumerate() {
            let dy = self.lend_back(y);
            self.product_back(pass, (x, weight), &dy, &mut dx, i > 0);
            self.put_back(y, dy);
        }
        self.put_back(x, dx);
    }

    fn onto_back(&mut self, pass: Pass<'_>, op: usize, (x, weight): (Slot, Weight), y: Slot) {
        let (mut dx, dy) = (self.lend_back(x), self.lend_back(y));
        self.see(pass, x, weight);
        if let Some(drop) = pass.drop_residual(op) {
            let mut block = std::mem::take(&mut self.room.block);
            block.resize(dy.len());
            copy(pass.math.dev, &mut block, &dy);
            dropout(pass.math.dev, &drop, self.tape.slots[y].0, &mut block);
            self.product_back(pass, (x, weight), &block, &mut dx, false);
            self.room.block = block;
        } else {
            self.product_back(pass, (x, weight), &dy, &mut dx, false);
        }
        self.put_back(x, dx);
        self.put_back(y, dy);
    }

    fn add_back(&mut self, pass: Pass<'_>, op: usize, x: Slot, y: Slot) {
        let mut dx = self.lend_back(x);
        copy(pass.math.dev, &mut dx, self.room.gradient(self.tape.role(y)));
        if let Some(drop) = pass.drop_residual(op) {
            dropout(pass.math.dev, &drop, self.tape.slots[x].0, &mut dx);
        }
        self.put_back(x, dx);
    }

    fn rotate_back(&mut self, pass: Pass<'_>, x: Slot, layer: usize) {
        let Some(table) = &self.tables[layer] else { return };
        let positions = std::mem::take(&mut self.room.positions);
        let dx = self.room.gradient_mut(self.tape.role(x));
        rope_backward(pass.math.dev, table, dx, self.spec.layers[layer].attention.head_dim, &positions);
        self.room.positions = positions;
    }

    fn attend_back(&mut self, pass: Pass<'_>, op: usize, spec: &AttentionSpec, reads: [Slot; 3], y: Slot) {
        let [mut q, mut k, mut v] = reads.map(|slot| self.lend_back(slot));
        let done = Attention { out: self.room.value(y), log_sums: self.room.kept(op) };
        let out = self.room.gradient(self.tape.role(y));
        let gradient = AttentionGradient { out, q: &mut q, k: &mut k, v: &mut v };
        attention_backward(pass.math.dev, spec, &pass.batch.branches, self.attended(reads), done, gradient);
        reads.into_iter().zip([q, k, v]).for_each(|(slot, gradient)| self.put_back(slot, gradient));
    }

    fn gate_back(&mut self, pass: Pass<'_>, f: Activation, reads: [Slot; 2], y: Slot) {
        let [mut gate, mut up] = reads.map(|slot| self.room.lend(slot, self.tape.slots[slot].0));
        gated_backward(pass.math.dev, f, &mut gate, &mut up, self.room.gradient(self.tape.role(y)));
        reads
            .into_iter()
            .zip([gate, up])
            .for_each(|(slot, gradient)| self.room.turn(slot, self.tape.role(slot), gradient));
    }

    fn activate_back(&mut self, pass: Pass<'_>, f: Activation, x: Slot, y: Slot) {
        let mut dx = self.room.lend(x, self.tape.slots[x].0);
        activate_backward(pass.math.dev, f, &mut dx, self.room.gradient(self.tape.role(y)));
        self.room.turn(x, self.tape.role(x), dx);
    }
}
