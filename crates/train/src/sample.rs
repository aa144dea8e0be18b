//! What is learned from, and in which order: samples are shuffled anew for every epoch and packed whole into micro-batches.

use model::ModelSpec;

use crate::random::Random;
use crate::{Batch, Error, Teacher};

/// One document.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Sample {
    /// Its tokens.
    pub tokens: Vec<u32>,
    /// How much each of them counts: 0 is not learned, such as a prompt; mostly 1. The first is never learned, as nothing stands before it.
    pub weights: Vec<f32>,
    /// What a teacher said of its rows, which are its tokens but the last.
    pub teacher: Option<Teacher>,
}

impl Sample {
    /// Rows it takes.
    pub fn rows(&self) -> usize {
        self.tokens.len().saturating_sub(1)
    }

    /// What its losses count together.
    pub(crate) fn weight(&self) -> f64 {
        self.weights.iter().skip(1).map(|weight| f64::from(*weight)).sum()
    }

    fn trouble(&self, spec: &ModelSpec, rows: usize) -> Option<String> {
        let Self { tokens, weights, teacher } = self;
        let most = rows.min(spec.context);
        if tokens.len() != weights.len() {
            return Some(format!("has {} tokens and {} weights", tokens.len(), weights.len()));
        }
        if self.rows() > most {
            return Some(format!("has {} tokens; {} fit", tokens.len(), most + 1));
        }
        if let Some(token) = tokens.iter().find(|token| **token as usize >= spec.vocab) {
            return Some(format!("token {token} is none of the model's {}", spec.vocab));
        }
        if let Some(weight) = weights.iter().find(|weight| !weight.is_finite() || **weight < 0.0) {
            return Some(format!("a weight of {weight}"));
        }
        if self.weight() == 0.0 {
            return Some("has no token that is learned".to_owned());
        }
        teacher.as_ref().and_then(|teacher| teacher.trouble(self.rows(), spec.vocab))
    }
}

/// Whether every sample can be learned from by this model in micro-batches of so many rows.
///
/// # Errors
/// The index of the first that cannot, and why.
pub fn check(samples: &[Sample], spec: &ModelSpec, rows: usize) -> Result<(), Error> {
    if samples.is_empty() {
        return Err(Error::NoSamples);
    }
    let troubles = samples.iter().enumerate().map(|(index, sample)| (index, sample.trouble(spec, rows)));
    let mut wrong = troubles.filter_map(|(index, what)| Some(Error::Sample { index, what: what? }));
    wrong.next().map_or(Ok(()), Err)
}

/// Micro-batches of whole samples, in their order, of at most so many rows each, all else like `like`. Their losses add up to a mean over all learned
/// tokens.
pub(crate) fn pack<'a>(samples: impl Iterator<Item = &'a Sample> + Clone, rows: usize, like: &Batch) -> Vec<Batch> {
    let total: f64 = samples.clone().map(Sample::weight).sum();
    let (mut batches, mut first): (Vec<Batch>, u64) = (Vec::new(), like.first);
    for sample in samples {
        match batches.last_mut().filter(|batch| batch.tokens.len() + sample.rows() <= rows) {
            Some(batch) => batch.add(sample, total),
            None => {
                let mut batch = Batch { first, ..like.clone() };
                batch.add(sample, total);
                batches.push(batch);
            }
        }
        first += sample.rows() as u64;
    }
    batches
}

/// The samples' order, drawn anew for every epoch from seed and epoch alone.
#[derive(Debug)]
pub(crate) struct Order {
    seed: u64,
    epoch: Option<u64>,
    order: Vec<usize>,
}

impl Order {
    pub(crate) fn new(seed: u64, samples: usize) -> Self {
        Self { seed, epoch: None, order: (0..samples).collect() }
    }

    /// The sample that is taken after so many others, all epochs counted.
    pub(crate) fn at(&mut self, taken: u64) -> usize {
        let samples = self.order.len() as u64;
        let epoch = taken / samples;
        if self.epoch != Some(epoch) {
            self.shuffle(epoch);
        }
        self.order[(taken % samples) as usize]
    }

    /// Fisher & Yates.
    fn shuffle(&mut self, epoch: u64) {
        let mut random = Random::new(self.seed, &format!("epoch {epoch}"));
        self.order.iter_mut().enumerate().for_each(|(i, at)| *at = i);
        for last in (1..self.order.len()).rev() {
            self.order.swap(last, random.below(last + 1));
        }
        self.epoch = Some(epoch);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_has_every_sample_once_in_an_order_of_its_own() {
        let epoch = |seed, epoch: u64| {
            let mut order = Order::new(seed, 50);
            (0..50).map(|i| order.at(epoch * 50 + i)).collect::<Vec<usize>>()
        };
        let (first, second) = (epoch(3, 0), epoch(3, 1));
        for order in [&first, &second] {
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..50).collect::<Vec<usize>>());
        }
        assert!(first != second && first != epoch(4, 0) && first == epoch(3, 0));
        let mut order = Order::new(3, 50);
        order.at(70);
        assert_eq!(order.at(0), first[0], "going back gives the same");
    }

    #[test]
    fn samples_are_packed_whole() {
        let sample = |len: usize| Sample { tokens: vec![1; len], weights: vec![1.0; len], teacher: None };
        let samples = [5, 3, 4, 9, 2].map(sample);
        let batches = pack(samples.iter(), 8, &Batch::default());
        assert_eq!(batches.iter().map(|batch| batch.first).collect::<Vec<_>>(), [0, 6, 9, 17]);
        assert_eq!(
            batches.iter().map(|batch| batch.lens.clone()).collect::<Vec<_>>(),
            [vec![4, 2], vec![3], vec![8], vec![1]]
        );
        let weight: f32 = batches.iter().flat_map(|batch| &batch.weights).sum();
        assert!((weight - 1.0).abs() < 1e-6, "a mean over the whole step, not over a micro-batch: {weight}");
    }
}
