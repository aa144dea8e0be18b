//! How parameters step: AdamW, or Muon for the matrices of hidden layers and AdamW for the rest, with a clipped gradient.

use std::ops::Range;

use kernels::{AdamW, Device, Muon, MuonRoom, Precision, square_sum, zero};
use serde::{Deserialize, Serialize};

use crate::{Entry, Kind, Params};

/// Which rule steps the matrices of layers; all else steps by AdamW.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// AdamW (Loshchilov & Hutter 2019).
    #[default]
    AdamW,
    /// Muon (Jordan et al. 2024), with steps as long as AdamW's: the same rates and decays serve.
    Muon,
}

/// A rule and its numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rule {
    /// What steps matrices.
    pub method: Method,
    /// Decay of the mean of gradients.
    pub beta1: f32,
    /// Decay of the mean of their squares.
    pub beta2: f32,
    /// Added to the root of the squares.
    pub eps: f32,
    /// Muon's decay of the mean of gradients.
    pub momentum: f32,
    /// In what Muon multiplies.
    pub precision: Precision,
    /// Weight decay of matrices and tables.
    pub decay: f32,
    /// A gradient longer than this is cut to it; 0 leaves it.
    pub clip: f32,
}

impl Default for Rule {
    fn default() -> Self {
        Self {
            method: Method::AdamW,
            beta1: 0.9,
            beta2: 0.95,
            eps: 1e-8,
            momentum: 0.95,
            precision: Precision::Bf16,
            decay: 0.1,
            clip: 1.0,
        }
    }
}

/// What an optimizer remembers.
#[derive(Debug)]
pub struct Optimizer {
    rule: Rule,
    step: u32,
    runs: Vec<Run>,
    mean: Vec<f32>,
    /// Of what steps by AdamW, in order.
    square: Vec<f32>,
    room: MuonRoom,
}

/// Neighbours that step alike, together: there are hundreds of small matrices in a set of adapters.
#[derive(Debug)]
enum Run {
    Adam { decays: bool, range: Range<usize>, square: Range<usize> },
    Muon { shape: [usize; 2], range: Range<usize> },
}

/// One step's rate, and what gradients are multiplied by.
#[derive(Debug, Clone, Copy)]
struct Stride {
    rate: f32,
    scale: f32,
}

impl Optimizer {
    /// Begins with means of zero.
    pub fn new(rule: Rule, params: &Params) -> Self {
        let (runs, squares) = runs(rule.method, &params.entries);
        let mean = vec![0.0; params.values.len()];
        Self { rule, step: 0, runs, mean, square: vec![0.0; squares], room: MuonRoom::default() }
    }

    /// How long a gradient is.
    pub fn length(dev: &Device, params: &Params) -> f64 {
        square_sum(dev, &params.gradient).sqrt()
    }

    /// One step at this rate; the gradient is zero afterwards. Returns how long it was before it was cut. A gradient that is no number changes
    /// nothing but is returned, so that the caller can say so.
    pub fn step(&mut self, dev: &Device, params: &mut Params, rate: f32) -> f64 {
        let length = Self::length(dev, params);
        if length.is_finite() {
            self.apply(dev, params, rate, (length, 1.0));
        }
        zero(dev, &mut params.gradient);
        length
    }

    /// One step at this rate with a gradient of this length, which stands there `times` as long and is zero afterwards.
    pub(crate) fn apply(&mut self, dev: &Device, params: &mut Params, rate: f32, (length, times): (f64, f32)) {
        self.step += 1;
        let clip = f64::from(self.rule.clip);
        let scale = if clip > 0.0 { (clip / length).min(1.0) as f32 } else { 1.0 } / times;
        for run in 0..self.runs.len() {
            self.run(dev, run, Stride { rate, scale }, params);
        }
        zero(dev, &mut params.gradient);
    }

    fn run(&mut self, dev: &Device, run: usize, Stride { rate, scale }: Stride, params: &mut Params) {
        let Self { rule, step, runs, mean, square, room } = self;
        let Rule { beta1, beta2, eps, momentum, precision, decay, .. } = *rule;
        let Params { values, gradient, .. } = params;
        match &runs[run] {
            Run::Adam { decays, range, square: squares } => {
                let decay = if *decays { decay } else { 0.0 };
                let rule = AdamW { rate, beta1, beta2, eps, decay, step: *step, scale };
                let (mean, square) = (&mut mean[range.clone()], &mut square[squares.clone()]);
                rule.step(dev, &mut values[range.clone()], mean, square, &gradient[range.clone()]);
            }
            Run::Muon { shape, range } => {
                let rule = Muon { rate, momentum, decay, scale, precision };
                let (values, mean) = (&mut values[range.clone()], &mut mean[range.clone()]);
                rule.step(dev, room, *shape, values, mean, &gradient[range.clone()]);
            }
        }
    }

    /// Means of gradients and of their squares.
    pub(crate) fn means(&self) -> (&[f32], &[f32]) {
        (&self.mean, &self.square)
    }

    /// Takes means that another of the same parameters had after so many steps.
    pub(crate) fn restore(&mut self, step: u32, mean: &[f32], square: &[f32]) {
        self.step = step;
        self.mean.copy_from_slice(mean);
        self.square.copy_from_slice(square);
    }
}

/// Runs of all entries, and the squares they need.
fn runs(method: Method, entries: &[Entry]) -> (Vec<Run>, usize) {
    let muon = |entry: &Entry| method == Method::Muon && entry.kind == Kind::Matrix;
    let decays = |entry: &Entry| entry.kind != Kind::Vector;
    let alike = entries.chunk_by(|a, b| !muon(a) && !muon(b) && decays(a) == decays(b));
    let mut squares = 0;
    let run = |run: &[Entry]| {
        let range = run.first()?.range.start..run.last()?.range.end;
        if muon(&run[0]) {
            return Some(Run::Muon { shape: run[0].shape, range });
        }
        let square = squares..squares + range.len();
        squares = square.end;
        Some(Run::Adam { decays: decays(&run[0]), range, square })
    };
    (alike.filter_map(run).collect(), squares)
}
