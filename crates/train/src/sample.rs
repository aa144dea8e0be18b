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
    /// The student wrote it: what follows is no truth, and only what the teacher says of it is learned.
    pub own: bool,
}

impl Sample {
    /// Rows it takes.
    pub fn rows(&self) -> usize {
        self.tokens.len().saturating_sub(1)
    }

    /// Rows that it begins with and nothing is learned from.
    pub(crate) fn unlearned(&self) -> usize {
        self.weights.iter().skip(1).take_while(|weight| **weight == 0.0).count()
    }

    /// What its losses count together.
    pub(crate) fn weight(&self) -> f64 {
        self.weights.iter().skip(1).map(|weight| f64::from(*weight)).sum()
    }

    fn trouble(&self, spec: &ModelSpec, rows: usize) -> Option<String> {
        let Self { tokens, weights, teacher, own } = self;
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
        let trouble = teacher.as_ref().and_then(|teacher| teacher.trouble(self.rows(), spec.vocab));
        trouble.or_else(|| if *own { self.untaught() } else { None })
    }

    /// Without a teacher's word a row would learn what followed, which here is nothing to learn.
    fn untaught(&self) -> Option<String> {
        let taught = |row: usize| self.teacher.as_ref().is_some_and(|teacher| !teacher.row(row).0.is_empty());
        let untaught = (0..self.rows()).find(|row| self.weights[row + 1] != 0.0 && !taught(*row));
        untaught.map(|row| format!("is the student's own, and its teacher says nothing of row {row}"))
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
/// tokens. Samples of one micro-batch share the rows that they begin with.
pub(crate) fn pack<'a>(samples: impl Iterator<Item = &'a Sample> + Clone, rows: usize, like: &Batch) -> Vec<Batch> {
    let total: f64 = samples.clone().map(Sample::weight).sum();
    let (mut batches, mut first): (Vec<Batch>, u64) = (Vec::new(), like.first);
    for sample in samples {
        let shared = batches.last().map_or(0..0, |batch| batch.shared(sample));
        match batches.last_mut().filter(|batch| batch.tokens.len() + sample.rows() - shared.len() <= rows) {
            Some(batch) => batch.add(sample, shared, total),
            None => {
                let mut batch = Batch { first, ..like.clone() };
                batch.add(sample, 0..0, total);
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
    use std::ops::Range;

    use kernels::{Branch, Distil, Divergence};

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
        let sample = |len: usize| Sample { tokens: vec![1; len], weights: vec![1.0; len], ..Sample::default() };
        let samples = [5, 3, 4, 9, 2].map(sample);
        let batches = pack(samples.iter(), 8, &Batch::default());
        assert_eq!(batches.iter().map(|batch| batch.first).collect::<Vec<_>>(), [0, 6, 9, 17]);
        assert_eq!(
            batches.iter().map(|batch| batch.branches.iter().map(Branch::len).collect()).collect::<Vec<Vec<usize>>>(),
            [vec![4, 2], vec![3], vec![8], vec![1]]
        );
        let weight: f32 = batches.iter().flat_map(|batch| &batch.weights).sum();
        assert!((weight - 1.0).abs() < 1e-6, "a mean over the whole step, not over a micro-batch: {weight}");
    }

    #[test]
    fn what_the_student_wrote_is_compared_the_other_way_round_among_documents() {
        let sample = |own: bool, tokens: &[u32]| Sample {
            tokens: [&[1; 20][..], tokens].concat(),
            weights: (0..20 + tokens.len()).map(|i| f32::from(u8::from(i >= 20))).collect(),
            own,
            ..Sample::default()
        };
        let samples = [sample(false, &[2, 3]), sample(true, &[4, 5, 6]), sample(false, &[7])];
        let batches = pack(samples.iter(), 100, &Batch::default());
        let learned = (0..batches[0].tokens.len()).filter(|row| batches[0].weights[*row] > 0.0);
        let rules: Vec<_> = learned.map(|row| batches[0].rule(row)).collect();
        let forward = Distil::default();
        let reverse = Distil { share: 1.0, divergence: Divergence::Reverse, ..forward };
        assert_eq!((batches.len(), rules), (1, vec![forward, forward, reverse, reverse, reverse, forward]));
    }

    #[test]
    fn samples_share_what_they_begin_with_and_do_not_learn() {
        let sample = |prompt: usize, tokens: &[u32]| {
            let tokens = [&vec![1; prompt][..], tokens].concat();
            Sample {
                weights: (0..tokens.len()).map(|i| f32::from(u8::from(i > prompt))).collect(),
                tokens,
                ..Sample::default()
            }
        };
        let check = |samples: &[Sample], like: &Batch, want: &[(Range<usize>, Range<usize>)]| {
            let batches = pack(samples.iter(), 100, like);
            let got: Vec<_> = batches[0].branches.iter().map(|b| (b.shared.clone(), b.own.clone())).collect();
            assert_eq!((batches.len(), &got[..]), (1, want));
        };
        let like = Batch::default();
        let alike = [sample(20, &[2, 3]), sample(20, &[2, 4]), sample(5, &[2]), sample(20, &[5, 5, 5])];
        check(&alike, &like, &[(0..0, 0..21), (0..20, 21..22), (0..0, 22..27), (0..20, 27..29)]);
        // What is learned stays its document's own, and so do short beginnings, and rows that leave something out.
        let learned = Sample { weights: vec![1.0; 22], ..sample(20, &[2, 3]) };
        check(&[sample(20, &[2, 3]), learned], &like, &[(0..0, 0..21), (0..0, 21..42)]);
        check(&[sample(15, &[2]), sample(15, &[3])], &like, &[(0..0, 0..15), (0..0, 15..30)]);
        let like = Batch { dropout: crate::Dropout { adapters: 0.1, residuals: 0.0 }, ..like };
        check(&alike[..2], &like, &[(0..0, 0..21), (0..0, 21..42)]);
    }
}
