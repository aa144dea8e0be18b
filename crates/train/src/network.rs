//! A model that learns: its weights, its tape, and the two ways over it.

mod backward;
mod forward;
mod judge;
mod room;
mod spread;
mod teach;

use std::mem::take;
use std::ops::Range;

use kernels::{
    Device, Distil, Dropout, Precision, RopeTable, Vectors, copy, cross_entropy, distil, embed, embed_backward, zero,
};
use model::{Model, ModelSpec, Weights};

use crate::linear::{Back, HEAD, Input, Learned, Linear, Math};
use crate::random::Random;
use crate::shards::Shards;
use crate::tape::{Op, Part, Tape};
use crate::{Batch, Group, Kind, Params, Stage};
use room::Room;
pub use spread::Held;

/// Logits in memory at the same time: the loss takes rows in portions of so many numbers.
const LOGITS: usize = 4 << 20;

/// A gain that every row is multiplied by.
#[derive(Debug)]
struct Norm {
    weight: Vec<f32>,
    learned: Option<Range<usize>>,
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
    learned_embedding: Option<Range<usize>>,
    head: Linear,
    precision: Precision,
    /// How many times too long gradients are while they are added up.
    loss_scale: f32,
    learned: Learned,
    /// What learns; nothing is in it that is spread over ranks.
    pub params: Params,
    /// What of it is in memory together: the embedding, every layer, the rest.
    units: Vec<Range<usize>>,
    shards: Option<Box<Shards>>,
    /// The most that was held at the same time.
    most: Held,
    recomputes: bool,
    room: Room,
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
        Self::build(Math { dev, precision }, model, learned, None)
    }

    /// The same, keeping only this rank's part of what learns. Every rank must do so with the same model, and go on alike.
    ///
    /// # Panics
    /// As [`Network::new`], and when a rank is gone.
    pub fn spread(math: (&Device, Precision), model: &Model, learned: Learned, group: Group, stage: Stage) -> Self {
        Self::build(Math { dev: math.0, precision: math.1 }, model, learned, Some(Shards::new(group, stage)))
    }

    fn build(math: Math<'_>, model: &Model, learned: Learned, shards: Option<Shards>) -> Self {
        let (spec, weights) = (model.spec().clone(), model.weights());
        assert!(!spec.encoder, "decoders learn here");
        let table = |layer: &model::LayerSpec| layer.rope.as_ref().map(|rope| RopeTable::new(rope, spec.context));
        let (tables, tape) = (spec.layers.iter().map(table).collect(), Tape::new(&spec));
        let room = Room::new(&tape, false);
        let (norms, linears) = Default::default();
        let mut network = Self {
            spec,
            tape,
            tables,
            norms,
            linears,
            embedding: dense(weights),
            learned_embedding: None,
            head: Linear::default(),
            precision: math.precision,
            loss_scale: 1.0,
            learned,
            params: Params::default(),
            units: Vec::new(),
            shards: shards.map(Box::new),
            most: Held::default(),
            recomputes: false,
            room,
        };
        network.collect(math, weights);
        network
    }

    /// Takes weights in, unit by unit.
    fn collect(&mut self, math: Math<'_>, weights: &Weights) {
        let (all, width) = (self.learned == Learned::All, self.spec.width);
        if all {
            let (shape, params) = ([self.spec.vocab, width], &mut self.params);
            self.learned_embedding = Some(params.add("embedding".to_owned(), Kind::Table, shape, &self.embedding));
        }
        // A head that is the embedding is packed from it.
        if weights.output.is_none() {
            self.head = Linear::shared(math, self.learned_embedding.clone(), &self.embedding, width);
        }
        self.end_unit();
        for (i, layer) in weights.layers.iter().enumerate() {
            Parts { math, network: self, layer: i }.collect(layer);
            self.end_unit();
        }
        let mut parts = Parts { math, network: self, layer: 0 };
        parts.push("output_norm".to_owned(), &weights.output_norm.weight);
        if let Some(own) = &weights.output {
            let learned = if all { self.learned } else { Learned::Nothing };
            self.head = Linear::new(math, own, HEAD, learned, &mut self.params);
        }
        self.end_unit();
        self.begin(math.dev);
    }
    /// The model's description.
    pub fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    /// What of it learns.
    pub fn learned(&self) -> Learned {
        self.learned
    }

    /// Adds its adapters `alpha / rank` times from now on. What was learned at one strength is mostly more than a domain needs: less keeps more of the
    /// model (WiSE-FT, Wortsman et al. 2022, along the line from the base to what was learned).
    pub fn set_alpha(&mut self, alpha: f32) {
        if let Learned::Adapters(lora) = &mut self.learned {
            lora.alpha = alpha;
            let lora = *lora;
            self.linears.iter_mut().for_each(|linear| linear.strengthen(lora));
        }
    }

    /// In what its products are computed.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Makes gradients so many times as long from now on, while they are computed and in [`Network::params`]; losses stay as they are.
    ///
    /// In f16 what is shorter than 6e-8 is zero, as most of the gradients of a mean over many tokens would be.
    pub fn scale_loss(&mut self, times: f32) {
        self.loss_scale = times;
    }

    /// How many times too long gradients are.
    pub fn loss_scale(&self) -> f32 {
        self.loss_scale
    }

    /// Takes in what an optimizer changed in [`Network::params`].
    pub fn refresh(&mut self, dev: &Device) {
        let math = Math { dev, precision: self.precision };
        for linear in self.linears.iter_mut().chain([&mut self.head]) {
            linear.refresh(math, &self.params);
        }
        self.refresh_norms(0..self.params.values.len());
        if let Some(range) = &self.learned_embedding {
            // It is gone where it was spread.
            self.embedding.resize(range.len(), 0.0);
            copy(dev, &mut self.embedding, &self.params.values[range.clone()]);
        }
    }

    /// Takes in the gains that stand in a range of the parameters.
    fn refresh_norms(&mut self, among: Range<usize>) {
        let learned = |norm: &Norm| norm.learned.clone().filter(|range| among.contains(&range.start));
        for norm in &mut self.norms {
            if let Some(range) = learned(norm) {
                norm.weight.copy_from_slice(self.params.value(&range));
            }
        }
    }

    /// The losses of a batch; nothing learns.
    pub fn losses(&mut self, dev: &Device, batch: &Batch) -> Losses {
        let pass = self.pass(dev, batch, false);
        self.forward(pass);
        let losses = self.head(pass, self.spec.layers.len(), 1.0);
        self.leave_head();
        losses
    }

    /// The losses of a batch; its gradients are added to those of [`Network::params`], [`Network::loss_scale`] times. The losses behind exits are in the total, the rows' are those
    /// behind all layers.
    pub fn learn(&mut self, dev: &Device, batch: &Batch) -> Losses {
        let pass = self.pass(dev, batch, true);
        self.forward(pass);
        self.open_ends();
        let layers = self.spec.layers.len();
        let (shares, whole) = batch.exits.shares(layers);
        let behind: f64 = shares.into_iter().enumerate().map(|(exit, share)| self.learn_exit(pass, exit, share)).sum();
        let mut losses = self.head(pass, layers, whole);
        losses.total += behind;
        self.leave_head();
        self.backward(pass);
        losses
    }

    fn pass<'a>(&self, dev: &'a Device, batch: &'a Batch, learning: bool) -> Pass<'a> {
        Pass { math: Math { dev, precision: self.precision }, batch, learning }
    }

    /// Recomputes layers on the way back instead of keeping all they need: less memory for a third more work, and the same bits.
    pub fn recompute(&mut self, on: bool) {
        (self.recomputes, self.room) = (on, Room::new(&self.tape, on));
    }

    /// Bytes that the largest batch so far took beside the parameters.
    pub fn bytes(&self) -> usize {
        self.room.bytes()
    }

    fn forward(&mut self, pass: Pass<'_>) {
        let batch = pass.batch;
        batch.check(&self.spec);
        self.room.begin(&batch.branches);
        self.enter_embedding();
        let mut x = self.room.lend(0, self.spec.width);
        embed(pass.math.dev, &self.embedding, &batch.tokens, self.spec.embedding_scale, &mut x);
        self.room.put(0, x);
        self.leave_embedding();
        for layer in 0..self.tape.layers.len() {
            // Units are counted from the embedding on.
            self.enter_layer(pass.math, layer, Some(layer + 2));
            if pass.skips(layer, self.spec.layers.len()) {
                self.pass_by(layer);
            } else {
                self.tape.layers[layer].ops.clone().for_each(|op| self.on(pass, op));
            }
            self.leave_layer(layer);
        }
        self.enter_end(pass.math, pass.learning);
    }

    /// A layer that is left out gives what it got.
    fn pass_by(&mut self, layer: usize) {
        let slots = self.tape.layers[layer].slots.clone();
        let mut out = self.room.lend(slots.end - 1, self.spec.width);
        out.copy_from_slice(self.room.value(slots.start - 1));
        self.room.put(slots.end - 1, out);
    }

    /// The loss behind an exit, by its share; its gradient waits until the way back comes by.
    fn learn_exit(&mut self, pass: Pass<'_>, exit: usize, share: f32) -> f64 {
        let after = pass.batch.exits.after[exit];
        let loss = self.head(pass, after, share).total;
        self.clear_stream(pass.math.dev);
        self.back(pass, self.tape.end(after));
        self.room.set_aside(exit, self.tape.role(0));
        loss
    }

    /// Losses behind so many layers, times `share`, of the rows that have a weight, portion by portion; with `learning` the gradient of the hidden
    /// states stands in their slot's.
    fn head(&mut self, pass: Pass<'_>, after: usize, share: f32) -> Losses {
        self.on(pass, self.tape.end(after));
        let (batch, slot, width) = (pass.batch, self.tape.hidden(), self.spec.width);
        let rows = batch.tokens.len();
        let mut dhidden = self.room.lend_gradient(self.tape.role(slot), width);
        zero(pass.math.dev, &mut dhidden);
        let mut losses = Losses { rows: vec![0.0; rows], total: 0.0 };
        for portion in self.portions(batch) {
            self.logits(pass, &portion);
            self.compare(pass, &portion, share, &mut losses);
            if pass.learning {
                self.head_back(pass, &portion, &mut dhidden);
            }
        }
        self.room.put_gradient(self.tape.role(slot), dhidden);
        losses
    }

    /// The rows that have a weight, as many at a time as there is room for logits.
    fn portions(&self, batch: &Batch) -> Vec<Vec<usize>> {
        let weighed: Vec<usize> = (0..batch.tokens.len()).filter(|row| batch.weights[*row] != 0.0).collect();
        weighed.chunks((LOGITS / self.spec.vocab).max(1)).map(<[usize]>::to_vec).collect()
    }

    /// Logits of some rows.
    fn logits(&mut self, pass: Pass<'_>, portion: &[usize]) {
        let (slot, width) = (self.tape.hidden(), self.spec.width);
        let mut hidden = take(&mut self.room.hidden);
        hidden.resize(portion.len() * width);
        let rows = hidden.chunks_exact_mut(width).zip(portion);
        rows.for_each(|(to, row)| to.copy_from_slice(&self.room.value(slot)[row * width..][..width]));
        let Room { scratch, logits, .. } = &mut self.room;
        logits.resize(portion.len() * self.spec.vocab);
        scratch.left.pack(pass.math.dev, pass.math.precision, Vectors::rows(&hidden, width));
        self.head.forward(pass.math, &Input { x: &hidden, drop: None }, scratch, &mut [], false, logits);
        self.room.hidden = hidden;
    }

    /// Losses of some rows, whose logits become their gradient.
    fn compare(&mut self, pass: Pass<'_>, portion: &[usize], share: f32, losses: &mut Losses) {
        let (batch, dev, softcap) = (pass.batch, pass.math.dev, self.spec.logit_softcap);
        let targets: Vec<u32> = portion.iter().map(|row| batch.targets[*row]).collect();
        let weights: Vec<f32> = portion.iter().map(|row| share * batch.weights[*row]).collect();
        let slopes: Vec<f32> = weights.iter().map(|weight| weight * self.loss_scale).collect();
        let (mut rows, logits) = (vec![0.0; portion.len()], &mut self.room.logits);
        if batch.teacher.is_empty() {
            cross_entropy(dev, logits, &targets, &slopes, softcap, &mut rows);
        } else {
            let teacher = batch.teacher.of(portion);
            let rules: Vec<Distil> = portion.iter().map(|row| batch.rule(*row)).collect();
            distil(dev, logits, (&targets, teacher.teaching()), &slopes, &rules, softcap, &mut rows);
        }
        losses.total += rows.iter().zip(&weights).map(|(loss, weight)| f64::from(loss * weight)).sum::<f64>();
        portion.iter().zip(&rows).for_each(|(row, loss)| losses.rows[*row] = *loss);
    }

    fn head_back(&mut self, pass: Pass<'_>, portion: &[usize], dhidden: &mut [f32]) {
        let Room { scratch, hidden, logits, .. } = &mut self.room;
        let mut dx = vec![0.0; hidden.len()];
        let back = Back { dy: logits, dx: &mut dx, onto: false, params: &mut self.params };
        let input = Input { x: hidden, drop: None };
        self.head.see(pass.math, &input, scratch);
        self.head.backward(pass.math, &input, &[], back, scratch);
        let width = self.spec.width;
        portion.iter().zip(dx.chunks_exact(width)).for_each(|(row, dx)| {
            dhidden[row * width..][..width].copy_from_slice(dx);
        });
    }

    fn backward(&mut self, pass: Pass<'_>) {
        let (residual, layers) = (self.tape.role(0), self.tape.layers.len());
        self.clear_stream(pass.math.dev);
        self.back(pass, self.tape.end(layers));
        self.give_end(pass.math.dev);
        for layer in (0..layers).rev() {
            if let Some(exit) = pass.batch.exits.after.iter().position(|after| *after == layer + 1) {
                self.room.join(pass.math.dev, exit, residual);
            }
            self.enter_layer(pass.math, layer, (layer > 0).then_some(layer));
            self.open_layer(layer);
            if !pass.skips(layer, layers) {
                self.layer_back(pass, layer);
            }
            self.leave_layer(layer);
            self.give_layer(pass.math.dev, layer);
        }
        self.open_embedding();
        if let Some(range) = self.learned_embedding.clone() {
            let (table, dy) = (self.params.slope(&range), self.room.gradient(residual));
            embed_backward(pass.math.dev, table, &pass.batch.tokens, self.spec.embedding_scale, dy);
        }
        self.give_embedding(pass.math.dev);
    }

    /// Nothing has come back yet.
    fn clear_stream(&mut self, dev: &Device) {
        let residual = self.tape.role(0);
        let mut stream = self.room.lend_gradient(residual, self.spec.width);
        zero(dev, &mut stream);
        self.room.put_gradient(residual, stream);
    }

    /// A layer back, recomputed first where that is due; the last one is there still.
    fn layer_back(&mut self, pass: Pass<'_>, layer: usize) {
        let part = self.tape.layers[layer].clone();
        if self.recomputes && layer + 1 < self.tape.layers.len() {
            for op in part.ops.clone() {
                if self.lost(&part, op) {
                    self.on(pass, op);
                }
            }
        }
        part.ops.rev().for_each(|op| self.back(pass, op));
    }

    /// Whether the way back needs what an operation of a layer left in shared buffers: its last one leaves its result to the next layer, and at most a waist.
    fn lost(&self, layer: &Part, op: usize) -> bool {
        let waist = |op: &Op| matches!(op, Op::Onto { weight, .. } if self.linears[*weight].waist() > 0);
        op + 1 < layer.ops.end || waist(&self.tape.ops[op])
    }
}

/// One way over the tape and back.
#[derive(Debug, Clone, Copy)]
struct Pass<'a> {
    math: Math<'a>,
    batch: &'a Batch,
    /// There is a way back, and dropout.
    learning: bool,
}

impl Pass<'_> {
    fn drop_adapter(&self, weight: usize) -> Option<Dropout> {
        self.drop(self.batch.dropout.adapters, "adapter", weight)
    }

    fn drop_residual(&self, op: usize) -> Option<Dropout> {
        self.drop(self.batch.dropout.residuals, "residual", op)
    }

    /// Whether a layer of so many is left out of the whole step: in every micro-batch alike, as a step must not depend on how it is cut.
    fn skips(&self, layer: usize, layers: usize) -> bool {
        let share = self.batch.exits.skipped(layer, layers);
        // Even numbers lie between -1 and 1.
        self.learning && Random::new(self.batch.seed, &format!("layer {layer}")).even() < 2.0 * share - 1.0
    }

    /// What is left out in one place of the tape.
    fn drop(&self, share: f32, what: &str, number: usize) -> Option<Dropout> {
        let Batch { seed, first, .. } = *self.batch;
        let seed = || Random::new(seed, &format!("{what} {number}")).bits();
        (self.learning && share > 0.0).then(|| Dropout { share, seed: seed(), first })
    }
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
    network: &'a mut Network,
    layer: usize,
}

impl Parts<'_> {
    fn collect(&mut self, layer: &model::Layer) {
        let (attention, ffn) = (&layer.attention, &layer.ffn);
        let around = self.network.spec.layers[self.layer].norms == model::Norms::Around;
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
        let Network { learned, params, norms, .. } = &mut *self.network;
        let learned = (*learned == Learned::All).then(|| params.add(name, Kind::Vector, [1, weight.len()], weight));
        norms.push(Norm { weight: weight.to_vec(), learned });
    }

    fn linear(&mut self, name: &str, layer: &model::LinearLayer) {
        let name = format!("layers.{}.{name}", self.layer);
        let Network { learned, params, linears, .. } = &mut *self.network;
        linears.push(Linear::new(self.math, layer, &name, *learned, params));
    }
}
