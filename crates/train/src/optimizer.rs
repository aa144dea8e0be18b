//! How parameters step: AdamW with a clipped gradient.

use kernels::{AdamW, Device, square_sum};

use crate::Params;

/// The rule of AdamW (Loshchilov & Hutter 2019) and its numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rule {
    /// Decay of the mean of gradients.
    pub beta1: f32,
    /// Decay of the mean of their squares.
    pub beta2: f32,
    /// Added to the root of the squares.
    pub eps: f32,
    /// Weight decay of matrices.
    pub decay: f32,
    /// A gradient longer than this is cut to it; 0 leaves it.
    pub clip: f32,
}

impl Default for Rule {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.95, eps: 1e-8, decay: 0.1, clip: 1.0 }
    }
}

/// What an optimizer remembers.
#[derive(Debug, Clone)]
pub struct Optimizer {
    rule: Rule,
    step: u32,
    mean: Vec<f32>,
    square: Vec<f32>,
}

impl Optimizer {
    /// Begins with means of zero.
    pub fn new(rule: Rule, params: &Params) -> Self {
        let n = params.values.len();
        Self { rule, step: 0, mean: vec![0.0; n], square: vec![0.0; n] }
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
            self.apply(dev, params, rate, length);
        }
        params.gradient.fill(0.0);
        length
    }

    /// One step at this rate with a gradient of this length, which is zero afterwards.
    pub(crate) fn apply(&mut self, dev: &Device, params: &mut Params, rate: f32, length: f64) {
        let Self { rule, step, mean, square } = self;
        *step += 1;
        let cut = if rule.clip > 0.0 { (f64::from(rule.clip) / length).min(1.0) } else { 1.0 };
        let Rule { beta1, beta2, eps, decay, .. } = *rule;
        let with = AdamW { rate, beta1, beta2, eps, decay, step: *step, scale: cut as f32 };
        let without = AdamW { decay: 0.0, ..with };
        let Params { values, gradient, .. } = params;
        for (decays, range) in runs(&params.entries) {
            let rule = if decays { with } else { without };
            let (mean, square) = (&mut mean[range.clone()], &mut square[range.clone()]);
            rule.step(dev, &mut values[range.clone()], mean, square, &gradient[range]);
        }
        gradient.fill(0.0);
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

/// Neighbours that decay alike, together: there are hundreds of small matrices in a set of adapters.
fn runs(entries: &[crate::Entry]) -> Vec<(bool, std::ops::Range<usize>)> {
    let alike = entries.chunk_by(|a, b| a.decays == b.decays);
    alike.filter_map(|run| Some((run.first()?.decays, run.first()?.range.start..run.last()?.range.end))).collect()
}
