//! Makes the classifier's numbers. Logistic regression by stochastic gradient descent with AdaGrad's steps, on one thread, in an order
//! that is a function of the number of samples: the same samples give the same bytes on every machine.

use super::{
    features::{BUCKETS, Features},
    weights::{file, sigmoid},
};
use crate::fold::Folded;

/// A labelled text.
#[derive(Debug, Clone)]
pub struct Sample {
    /// The text.
    pub text: String,
    /// It insults, threatens or demeans.
    pub toxic: bool,
    /// It does so to a group of people for what they are.
    pub hate: bool,
    /// How much it counts.
    pub weight: f32,
}

const EPOCHS: usize = 12;
const STEP: f64 = 0.5;
/// Pulls every weight towards 0 whenever its feature is seen.
const DECAY: f64 = 2e-5;

/// The file of a classifier trained on these samples.
pub fn train(samples: &[Sample]) -> Vec<u8> {
    let features: Vec<Vec<u32>> = samples.iter().map(|sample| features(&sample.text)).collect();
    let mut model = Model { weights: vec![[0.0; 2]; BUCKETS], squares: vec![[1.0; 2]; BUCKETS], bias: [0.0; 2] };
    for epoch in 0..EPOCHS {
        for i in order(samples.len(), epoch as u64) {
            model.learn(&samples[i], &features[i]);
        }
    }
    file(&model.weights, model.bias)
}

struct Model {
    weights: Vec<[f64; 2]>,
    /// Sums of squared gradients.
    squares: Vec<[f64; 2]>,
    bias: [f64; 2],
}

impl Model {
    fn learn(&mut self, sample: &Sample, features: &[u32]) {
        if features.is_empty() {
            return;
        }
        let value = 1.0 / (features.len() as f64).sqrt();
        for (head, label) in [sample.toxic, sample.hate].into_iter().enumerate() {
            let sum: f64 = features.iter().map(|f| self.weights[*f as usize][head]).sum();
            let error = sigmoid(sum * value + self.bias[head]) - f64::from(u8::from(label));
            let slope = error * f64::from(sample.weight);
            self.bias[head] -= 0.01 * slope;
            for f in features.iter().map(|f| *f as usize) {
                let gradient = slope * value + DECAY * self.weights[f][head];
                self.squares[f][head] += gradient * gradient;
                self.weights[f][head] -= STEP * gradient / self.squares[f][head].sqrt();
            }
        }
    }
}

fn features(text: &str) -> Vec<u32> {
    let folded = Folded::of(text);
    let (bytes, mut features, mut found, mut from) = (folded.bare.bytes(), Features::default(), Vec::new(), 0);
    while let Some(word) = super::word(bytes, from, true) {
        from = word.end;
        features.each(&bytes[word], |bucket| found.push(bucket as u32));
    }
    found
}

/// The samples in a shuffled order (Fisher and Yates with SplitMix64).
fn order(n: usize, seed: u64) -> Vec<usize> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let mut order: Vec<usize> = (0..n).collect();
    for i in (1..n).rev() {
        order.swap(i, (next() % (i as u64 + 1)) as usize);
    }
    order
}
