//! A model that learns: its weights, its tape, and the two ways over it.

use std::mem::take;

use kernels::{
    Attended, Attention, AttentionGradient, Device, Precision, RopeTable, Vectors, add, attention_backward,
    attention_forward, cross_entropy, embed, embed_backward, gated_backward, gated_forward, rms_norm_backward,
    rms_norm_forward, rope, rope_backward,
};
use model::{Model, ModelSpec, Weights};

use crate::linear::{HEAD, Learned, Linear, Math, Scratch};
use crate::tape::{Op, ROLES, Slot, Tape};
use crate::{Batch, Kind, Params};

/// Logits in memory at the same time: the loss takes rows in portions of so many numbers.
const LOGITS: usize = 4 << 20;

/// A gain that every row is multiplied by.
#[derive(Debug)]
struct Norm {
    weight: Vec<f32>,
    learned: Option<std::ops::Range<usize>>,
}

/// A decoder with its parameters, and room for a batch.
#[derive(Debug)]
pub struct Network {
    spec: ModelSpec,
    tape: Tape,
    tables: Vec<Option<RopeTable>>,
    norms: Vec<Norm>,
    linears: Vec<Linear>,
    embedding: Vec<f32>,
    learned_embedding: Option<std::ops::Range<usize>>,
    head: Linear,
    precision: Precision,
    learned: Learned,
    /// What learns.
    pub params: Params,
    room: Room,
}

/// Buffers, kept from step to step.
#[derive(Debug, Default)]
struct Room {
    positions: Vec<u32>,
    values: Vec<Vec<f32>>,
    gradients: Vec<Vec<f32>>,
    /// Of every norm, a scale for each of its rows; of every attention, a logarithm for each row and head; by operation.
    kept: Vec<Vec<f32>>,
    /// Waists of adapters, by linear layer.
    low: Vec<Vec<f32>>,
    scratch: Scratch,
    hidden: Vec<f32>,
    logits: Vec<f32>,
}

/// What a batch told.
#[derive(Debug, Clone, PartialEq)]
pub struct Losses {
    /// The cross-entropy of every row, in nats; 0 where its weight is 0.
    pub rows: Vec<f32>,
    /// The sum of weights times losses.
    pub total: f64,
}

impl Network {
    /// Takes a model's weights as they are.
    ///
    /// # Panics
    /// When the model is an encoder.
    pub fn new(dev: &Device, model: &Model, learned: Learned, precision: Precision) -> Self {
        let (spec, weights) = (model.spec().clone(), model.weights());
        assert!(!spec.encoder, "decoders learn here");
        let math = Math { dev, precision };
        let mut params = Params::default();
        let embedding = dense(weights);
        let all = learned == Learned::All;
        let learned_embedding =
            all.then(|| params.add("embedding".to_owned(), Kind::Table, [spec.vocab, spec.width], &embedding));
        let (mut norms, mut linears) = (Vec::new(), Vec::new());
        for (i, layer) in weights.layers.iter().enumerate() {
            let mut parts =
                Parts { math, learned, params: &mut params, norms: &mut norms, linears: &mut linears, layer: i };
            parts.collect(layer, &spec);
        }
        let mut parts =
            Parts { math, learned, params: &mut params, norms: &mut norms, linears: &mut linears, layer: 0 };
        parts.push("output_norm".to_owned(), &weights.output_norm.weight);
        let head = match &weights.output {
            Some(own) => Linear::new(math, own, HEAD, if all { learned } else { Learned::Nothing }, &mut params),
            None => Linear::shared(math, learned_embedding.clone(), &embedding, spec.width),
        };
        let table = |layer: &model::LayerSpec| layer.rope.as_ref().map(|rope| RopeTable::new(rope, spec.context));
        let (tables, tape) = (spec.layers.iter().map(table).collect(), Tape::new(&spec));
        let room = Room::new(&tape, linears.len());
        let mut network = Self {
            spec,
            tape,
            tables,
            norms,
            linears,
            embedding,
            learned_embedding,
            head,
            precision,
            learned,
            params,
            room,
        };
        network.refresh(dev);
        network
    }

    /// The model's description.
    pub fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    /// What of it learns.
    pub fn learned(&self) -> Learned {
        self.learned
    }

    /// In what its products are computed.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Takes in what an optimizer changed in [`Network::params`].
    pub fn refresh(&mut self, dev: &Device) {
        let math = Math { dev, precision: self.precision };
        for linear in self.linears.iter_mut().chain([&mut self.head]) {
            linear.refresh(math, &self.params);
        }
        for norm in &mut self.norms {
            if let Some(range) = &norm.learned {
                norm.weight.copy_from_slice(&self.params.values[range.clone()]);
            }
        }
        if let Some(range) = &self.learned_embedding {
            self.embedding.copy_from_slice(&self.params.values[range.clone()]);
        }
    }

    /// The losses of a batch; nothing learns.
    pub fn losses(&mut self, dev: &Device, batch: &Batch) -> Losses {
        self.forward(dev, batch);
        self.head(dev, batch, false)
    }

    /// The losses of a batch; its gradients are added to those of [`Network::params`].
    pub fn learn(&mut self, dev: &Device, batch: &Batch) -> Losses {
        self.forward(dev, batch);
        let losses = self.head(dev, batch, true);
        self.backward(dev, batch);
        losses
    }

    fn forward(&mut self, dev: &Device, batch: &Batch) {
        batch.check(&self.spec);
        self.room.make(&self.tape, (&self.norms, &self.linears), batch);
        embed(dev, &self.embedding, &batch.tokens, self.spec.embedding_scale, &mut self.room.values[0]);
        for op in 0..self.tape.ops.len() {
            self.on(Math { dev, precision: self.precision }, op, &batch.lens);
        }
    }

    /// One operation forwards.
    fn on(&mut self, math: Math<'_>, op: usize, lens: &[usize]) {
        let Self { tape, room, spec, .. } = self;
        let Room { values, kept, low, scratch, positions, .. } = room;
        let dev = math.dev;
        match &tape.ops[op] {
            &Op::Norm { x, weight, y } => {
                let mut out = take(&mut values[y]);
                rms_norm_forward(dev, &values[x], &self.norms[weight].weight, spec.norm_eps, &mut out, &mut kept[op]);
                values[y] = out;
            }
            Op::Linear { x, outs } => {
                scratch.left.pack(dev, math.precision, Vectors::rows(&values[*x], self.linears[outs[0].0].inputs()));
                for &(weight, y) in outs {
                    self.linears[weight].forward(math, scratch, &mut low[weight], false, &mut values[y]);
                }
            }
            &Op::Onto { x, weight, from, y } => {
                let mut out = take(&mut values[y]);
                out.copy_from_slice(&values[from]);
                scratch.left.pack(dev, math.precision, Vectors::rows(&values[x], self.linears[weight].inputs()));
                self.linears[weight].forward(math, scratch, &mut low[weight], true, &mut out);
                values[y] = out;
            }
            &Op::Add { x, from, y } => {
                let mut out = take(&mut values[y]);
                out.copy_from_slice(&values[from]);
                add(dev, &mut out, &values[x]);
                values[y] = out;
            }
            &Op::Rope { x, layer } => {
                if let Some(table) = &self.tables[layer] {
                    rope(dev, table, &mut values[x], spec.layers[layer].attention.head_dim, positions);
                }
            }
            Op::Attention { spec, q, k, v, y } => {
                let mut out = take(&mut values[*y]);
                attention_forward(dev, spec, lens, attended(values, *q, *k, *v), &mut out, &mut kept[op]);
                values[*y] = out;
            }
            &Op::Gated { f, gate, up, y } => {
                let mut out = take(&mut values[y]);
                gated_forward(dev, f, &values[gate], &values[up], &mut out);
                values[y] = out;
            }
            &Op::Activate { f, x, y } => {
                let mut out = take(&mut values[y]);
                out.copy_from_slice(&values[x]);
                kernels::activate(dev, f, &mut out);
                values[y] = out;
            }
        }
    }

    /// Losses of the rows that have a weight, portion by portion; with `learn` the gradient of the hidden states stands in their slot's.
    fn head(&mut self, dev: &Device, batch: &Batch, learn: bool) -> Losses {
        let (width, vocab) = (self.spec.width, self.spec.vocab);
        let math = Math { dev, precision: self.precision };
        let Room { values, gradients, scratch, hidden, logits, .. } = &mut self.room;
        let slot = self.tape.hidden();
        let dhidden = &mut gradients[self.tape.slots[slot].1 as usize][..batch.tokens.len() * width];
        dhidden.fill(0.0);
        let mut losses = Losses { rows: vec![0.0; batch.tokens.len()], total: 0.0 };
        let weighed: Vec<usize> = (0..batch.tokens.len()).filter(|row| batch.weights[*row] != 0.0).collect();
        for portion in weighed.chunks((LOGITS / vocab).max(1)) {
            hidden.clear();
            portion.iter().for_each(|row| hidden.extend_from_slice(&values[slot][row * width..][..width]));
            logits.resize(portion.len() * vocab, 0.0);
            scratch.left.pack(dev, math.precision, Vectors::rows(hidden, width));
            self.head.forward(math, scratch, &mut [], false, logits);
            let of = |x: &[f32]| portion.iter().map(|row| x[*row]).collect::<Vec<f32>>();
            let targets: Vec<u32> = portion.iter().map(|row| batch.targets[*row]).collect();
            let (weights, mut rows) = (of(&batch.weights), vec![0.0; portion.len()]);
            cross_entropy(dev, logits, &targets, &weights, self.spec.logit_softcap, &mut rows);
            losses.total += rows.iter().zip(&weights).map(|(loss, weight)| f64::from(loss * weight)).sum::<f64>();
            portion.iter().zip(&rows).for_each(|(row, loss)| losses.rows[*row] = *loss);
            if learn {
                let mut back = vec![0.0; hidden.len()];
                let gradient = &mut self.params.gradient;
                self.head.backward(math, (hidden, logits), &[], (&mut back, false), gradient, scratch);
                portion.iter().zip(back.chunks_exact(width)).for_each(|(row, back)| {
                    dhidden[row * width..][..width].copy_from_slice(back);
                });
            }
        }
        losses
    }

    fn backward(&mut self, dev: &Device, batch: &Batch) {
        let residual = self.tape.slots[0].1 as usize;
        self.room.gradients[residual].fill(0.0);
        for op in (0..self.tape.ops.len()).rev() {
            self.back(Math { dev, precision: self.precision }, op, &batch.lens);
        }
        if let Some(range) = self.learned_embedding.clone() {
            let (table, dy) = (&mut self.params.gradient[range], &self.room.gradients[residual]);
            embed_backward(dev, table, &batch.tokens, self.spec.embedding_scale, dy);
        }
    }

    /// One operation backwards. What adds to the residual stream's gradient adds; every other slot has one reader, which overwrites.
    fn back(&mut self, math: Math<'_>, op: usize, lens: &[usize]) {
        let Self { tape, room, spec, .. } = self;
        let Room { values, gradients, kept, low, scratch, positions, .. } = room;
        let (dev, role) = (math.dev, |slot: Slot| tape.slots[slot].1 as usize);
        // Layers may differ in width, and share gradients all the same.
        let rows = positions.len();
        let lend = |gradients: &mut [Vec<f32>], slot: Slot| {
            let mut gradient = take(&mut gradients[role(slot)]);
            gradient.resize(rows * tape.slots[slot].0, 0.0);
            gradient
        };
        match &tape.ops[op] {
            &Op::Norm { x, weight, y } => {
                let norm = &self.norms[weight];
                let mut dx = lend(gradients, x);
                if role(x) != role(0) {
                    dx.fill(0.0);
                }
                let dweight = norm.learned.clone().map(|range| &mut self.params.gradient[range]);
                rms_norm_backward(dev, &values[x], &norm.weight, &kept[op], &gradients[role(y)], &mut dx, dweight);
                gradients[role(x)] = dx;
            }
            Op::Linear { x, outs } => {
                let mut dx = lend(gradients, *x);
                for (i, &(weight, y)) in outs.iter().enumerate() {
                    let (ends, gradient) = ((&values[*x][..], &gradients[role(y)][..]), &mut self.params.gradient);
                    self.linears[weight].backward(math, ends, &low[weight], (&mut dx, i > 0), gradient, scratch);
                }
                gradients[role(*x)] = dx;
            }
            &Op::Onto { x, weight, y, .. } => {
                let mut dx = lend(gradients, x);
                let (ends, gradient) = ((&values[x][..], &gradients[role(y)][..]), &mut self.params.gradient);
                self.linears[weight].backward(math, ends, &low[weight], (&mut dx, false), gradient, scratch);
                gradients[role(x)] = dx;
            }
            &Op::Add { x, y, .. } => {
                let mut dx = lend(gradients, x);
                dx.copy_from_slice(&gradients[role(y)]);
                gradients[role(x)] = dx;
            }
            &Op::Rope { x, layer } => {
                if let Some(table) = &self.tables[layer] {
                    let dim = spec.layers[layer].attention.head_dim;
                    rope_backward(dev, table, &mut gradients[role(x)], dim, positions);
                }
            }
            Op::Attention { spec, q, k, v, y } => {
                let [mut dq, mut dk, mut dv] = [*q, *k, *v].map(|slot| lend(gradients, slot));
                let done = Attention { out: &values[*y], log_sums: &kept[op] };
                let gradient = AttentionGradient { out: &gradients[role(*y)], q: &mut dq, k: &mut dk, v: &mut dv };
                attention_backward(dev, spec, lens, attended(values, *q, *k, *v), done, gradient);
                [(*q, dq), (*k, dk), (*v, dv)].into_iter().for_each(|(slot, d)| gradients[role(slot)] = d);
            }
            &Op::Gated { f, gate, up, y } => {
                let [mut dgate, mut dup] = [gate, up].map(|slot| take(&mut values[slot]));
                gated_backward(dev, f, &mut dgate, &mut dup, &gradients[role(y)]);
                // They became their own gradients: the buffers change places.
                values[gate] = std::mem::replace(&mut gradients[role(gate)], dgate);
                values[up] = std::mem::replace(&mut gradients[role(up)], dup);
            }
            &Op::Activate { f, x, y } => {
                let mut dx = take(&mut values[x]);
                kernels::activate_backward(dev, f, &mut dx, &gradients[role(y)]);
                values[x] = std::mem::replace(&mut gradients[role(x)], dx);
            }
        }
    }
}

fn attended(values: &[Vec<f32>], q: Slot, k: Slot, v: Slot) -> Attended<'_> {
    Attended { q: &values[q], k: &values[k], v: &values[v] }
}

/// The embedding as f32.
fn dense(weights: &Weights) -> Vec<f32> {
    let matrix = weights.embedding.matrix();
    let mut table = vec![0.0; matrix.rows() * matrix.cols()];
    table.chunks_exact_mut(matrix.cols()).enumerate().for_each(|(row, to)| matrix.row(row, to));
    table
}

/// Collects weights in the order in which the tape counts them.
struct Parts<'a> {
    math: Math<'a>,
    learned: Learned,
    params: &'a mut Params,
    norms: &'a mut Vec<Norm>,
    linears: &'a mut Vec<Linear>,
    layer: usize,
}

impl Parts<'_> {
    fn collect(&mut self, layer: &model::Layer, spec: &ModelSpec) {
        let (attention, ffn) = (&layer.attention, &layer.ffn);
        let around = spec.layers[self.layer].norms == model::Norms::Around;
        self.norm("attention_norm", &layer.attention_norm.weight);
        let products = [("query", &attention.query), ("key", &attention.key), ("value", &attention.value)];
        products.into_iter().for_each(|(name, linear)| self.linear(name, linear));
        for (name, norm) in [("query_norm", &attention.query_norm), ("key_norm", &attention.key_norm)] {
            norm.iter().for_each(|norm| self.norm(name, norm));
        }
        self.linear("out", &attention.out);
        if around {
            self.norm("post_attention_norm", &layer.post_attention_norm.weight);
        }
        self.norm("ffn_norm", &layer.ffn_norm.weight);
        ffn.gate.iter().for_each(|gate| self.linear("gate", gate));
        self.linear("up", &ffn.up);
        self.linear("down", &ffn.down);
        if around {
            self.norm("post_ffn_norm", &layer.post_ffn_norm.weight);
        }
    }

    fn norm(&mut self, name: &str, weight: &[f32]) {
        self.push(format!("layers.{}.{name}", self.layer), weight);
    }

    fn push(&mut self, name: String, weight: &[f32]) {
        let learned =
            (self.learned == Learned::All).then(|| self.params.add(name, Kind::Vector, [1, weight.len()], weight));
        self.norms.push(Norm { weight: weight.to_vec(), learned });
    }

    fn linear(&mut self, name: &str, layer: &model::LinearLayer) {
        let name = format!("layers.{}.{name}", self.layer);
        self.linears.push(Linear::new(self.math, layer, &name, self.learned, self.params));
    }
}

impl Room {
    fn new(tape: &Tape, linears: usize) -> Self {
        let buffers = |n: usize| vec![Vec::new(); n];
        let (values, gradients, kept) = (buffers(tape.slots.len()), buffers(ROLES), buffers(tape.ops.len()));
        Self { values, gradients, kept, low: buffers(linears), ..Self::default() }
    }

    /// Buffers of this batch's size.
    fn make(&mut self, tape: &Tape, (norms, linears): (&[Norm], &[Linear]), batch: &Batch) {
        let rows = batch.tokens.len();
        self.positions.clear();
        self.positions.extend(batch.lens.iter().flat_map(|&len| 0..len as u32));
        for (value, &(cols, role)) in self.values.iter_mut().zip(&tape.slots) {
            value.resize(rows * cols, 0.0);
            self.gradients[role as usize].resize(rows * cols, 0.0);
        }
        for (kept, op) in self.kept.iter_mut().zip(&tape.ops) {
            match op {
                Op::Norm { x, weight, .. } => kept.resize(rows * tape.slots[*x].0 / norms[*weight].weight.len(), 0.0),
                Op::Attention { spec, .. } => kept.resize(rows * spec.heads, 0.0),
                _ => {}
            }
        }
        for (low, linear) in self.low.iter_mut().zip(linears) {
            low.resize(rows * linear.waist(), 0.0);
        }
    }
}
