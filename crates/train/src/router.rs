//! The router of a module of experts, learned from what the frozen base makes of their documents.
//!
//! Experts are learned apart, each beside the base alone, and put together later (Branch-Train-Merge, Li et al. 2022; FlexOlmo, Shi et al. 2025): all that is
//! learned here is which state of the base is whose, a multinomial logistic regression over states in front of one layer. Every choice counts alike,
//! however many tokens it has. Nothing of base or experts changes, so an expert is added or taken away by learning the router anew, which takes seconds.

use kernels::{Device, PAGE_TOKENS, Span};
use model::{Batch, Model, Router, Workspace};

use crate::random::Random;
use crate::{Kind, Optimizer, Params, Rule};

/// Steps of the regression, and tokens of each choice in one of them.
const STEPS: usize = 1000;
const TOKENS: usize = 64;
/// Its first step's rate, which falls evenly to nothing.
const RATE: f32 = 1e-2;

/// What enters a layer of the base for some tokens, and which choice each token belongs to: 0 is the base alone, 1 the first expert.
#[derive(Debug)]
pub struct States {
    layer: usize,
    width: usize,
    /// `[tokens][width]`, as long as a router sees them.
    numbers: Vec<f32>,
    choices: Vec<usize>,
}

impl States {
    /// None yet.
    pub fn new(model: &Model, layer: usize) -> Self {
        Self { layer, width: model.spec().width, numbers: Vec::new(), choices: Vec::new() }
    }

    /// Reads a document whose parts, one behind the other, belong to these choices.
    ///
    /// # Panics
    /// When it is longer than the model's context, or of unknown tokens.
    pub fn read(&mut self, dev: &Device, model: &Model, parts: &[(usize, &[u32])]) {
        let tokens: Vec<u32> = parts.iter().flat_map(|(_, tokens)| tokens.iter().copied()).collect();
        let pages: Vec<u32> = (0..tokens.len().div_ceil(PAGE_TOKENS) as u32).collect();
        let (mut cache, mut work) = (model.new_cache(pages.len()), Workspace::default());
        let spans = [Span { start: 0, len: tokens.len(), position: 0, pages: &pages }];
        let batch = Batch { tokens: &tokens, spans: &spans, outputs: &[], adapters: &[], leaving: &[] };
        for state in model.states(dev, &mut cache, &batch, self.layer, &mut work).chunks_exact(self.width) {
            let unit = Router::unit(state);
            self.numbers.extend(state.iter().map(|x| x * unit));
        }
        self.choices.extend(parts.iter().flat_map(|(choice, tokens)| std::iter::repeat_n(*choice, tokens.len())));
    }

    /// The states with their choices, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&[f32], usize)> {
        self.numbers.chunks_exact(self.width).zip(self.choices.iter().copied())
    }

    /// Learns to tell `choices` choices apart; the same for the same states and seed, whatever computes it.
    ///
    /// # Panics
    /// When a choice has no state.
    pub fn learn(&self, dev: &Device, choices: usize, seed: u64) -> Router {
        let own: Vec<Vec<usize>> = (0..choices)
            .map(|choice| (0..self.choices.len()).filter(|at| self.choices[*at] == choice).collect())
            .collect();
        assert!(own.iter().all(|own| !own.is_empty()), "states of every choice");
        let mut params = Params::default();
        let weights =
            params.add("weights".to_owned(), Kind::Matrix, [choices, self.width], &vec![0.0; choices * self.width]);
        let bias = params.add("bias".to_owned(), Kind::Vector, [1, choices], &vec![0.0; choices]);
        params.begin();
        let mut optimizer = Optimizer::new(Rule::default(), &params);
        let mut random = Random::new(seed, "router");
        for step in 0..STEPS {
            params.gradient.fill(0.0);
            for (choice, own) in own.iter().enumerate() {
                for _ in 0..TOKENS {
                    let at = own[random.below(own.len())];
                    self.slope(&mut params, &self.numbers[at * self.width..(at + 1) * self.width], choice, choices);
                }
            }
            optimizer.step(dev, &mut params, RATE * (1.0 - step as f32 / STEPS as f32));
        }
        Router { layer: self.layer, weights: params.values[weights].to_vec(), bias: params.values[bias].to_vec() }
    }

    /// Adds the gradient of one token's loss, `-log softmax(score)[choice]`, as a mean over a step.
    fn slope(&self, params: &mut Params, state: &[f32], choice: usize, choices: usize) {
        let (values, gradient) = (&params.values, &mut params.gradient);
        let (weights, bias) = values.split_at(choices * self.width);
        let (weight_slopes, bias_slopes) = gradient.split_at_mut(choices * self.width);
        let scores = weights.chunks_exact(self.width).zip(bias);
        let scores: Vec<f32> =
            scores.map(|(row, b)| row.iter().zip(state).map(|(w, x)| w * x).sum::<f32>() + b).collect();
        let most = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f32 = scores.iter().map(|score| (score - most).exp()).sum();
        for (at, score) in scores.iter().enumerate() {
            let share = (score - most).exp() / sum - f32::from(u8::from(at == choice));
            let slope = share / (TOKENS * choices) as f32;
            bias_slopes[at] += slope;
            let row = &mut weight_slopes[at * self.width..(at + 1) * self.width];
            row.iter_mut().zip(state).for_each(|(row, x)| *row += slope * x);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two kinds that lie apart in one direction of many, one of them ten times as often, are told apart as well as they can be.
    #[test]
    fn states_find_their_choice() {
        let width = 24;
        let mut random = Random::new(1, "states");
        let mut some = |n: usize, choices: &[(usize, f32)]| {
            let (mut numbers, mut of) = (Vec::new(), Vec::new());
            for at in 0..n {
                let (choice, middle) = choices[at % choices.len()];
                let state = (0..width).map(|i| random.even() + if i == 3 { middle } else { 0.0 }).collect::<Vec<f32>>();
                numbers.extend(state.iter().map(|x| x * Router::unit(&state)));
                of.push(choice);
            }
            States { layer: 2, width, numbers, choices: of }
        };
        let kinds = [(0, 0.0), (0, 0.0), (0, 0.0), (0, 0.0), (0, 0.0), (1, 2.5), (2, -2.5)];
        let (learned, others) = (some(2000, &kinds), some(1000, &kinds));
        let dev = Device::new(1);
        let router = learned.learn(&dev, 3, 0);
        assert_eq!((router.layer, router.experts()), (2, 2));
        assert_eq!(learned.learn(&Device::new(2), 3, 0), router);
        let right =
            others.iter().filter(|(state, choice)| router.pick(state).map_or(0, |expert| expert + 1) == *choice);
        let right = right.count();
        assert!(right > 980, "{right} of 1000");
    }
}
