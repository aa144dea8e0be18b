//! What a step learns from: documents behind each other, each on its own.
//!
//! Documents of a domain mostly begin with the same prompt. Rows of it from which nothing is learned are there once and every document behind it looks
//! at them ([`Branch`]): the loss is the same, its gradients are added up where they meet, and a step has a fraction of the rows.

use std::ops::Range;

use kernels::{Branch, Distil, Divergence, TEACHER_TOKENS, Teaching};
use model::ModelSpec;

use crate::{Dropout, Exits, Sample};

/// By how much a teacher's probabilities may be more than 1 in a row: they were rounded.
const MASS: f64 = 1e-3;

/// Fewer rows than this are not worth sharing: sequences that share are attended to by one thread for each key head.
const WORTH: usize = 16;

/// Rows of tokens. Documents do not see each other, and each begins at position 0.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Batch {
    /// Token ids of all rows.
    pub tokens: Vec<u32>,
    /// The token that should follow each of them; it does not matter where the weight is 0.
    pub targets: Vec<u32>,
    /// What a row's loss counts: for a mean over `n` rows, `1 / n` each; 0 for what is not to be learned, such as a prompt.
    pub weights: Vec<f32>,
    /// The rows of each document.
    pub branches: Vec<Branch>,
    /// What a teacher said of its rows; empty where there is none.
    pub teacher: Teacher,
    /// How a teacher's word counts.
    pub distil: Distil,
    /// Which rows are of texts that the student wrote itself; empty where none is.
    pub own: Vec<bool>,
    /// What is left out while it is learned.
    pub dropout: Dropout,
    /// Losses behind exits, and layers that are left out for them, while it is learned.
    pub exits: Exits,
    /// Of what is left out.
    pub seed: u64,
    /// The number of its first row among those of its step: what is left out does not depend on how a step is spread over batches.
    pub first: u64,
}

/// What a teacher said of rows: tokens, different ones in each row, with the logarithms of their probabilities. What is missing to 1 is the rest's.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Teacher {
    /// Where each row's tokens end; a row without tokens has no teacher.
    pub ends: Vec<usize>,
    /// Tokens of all rows.
    pub ids: Vec<u32>,
    /// One for each token.
    pub logprobs: Vec<f32>,
}

impl Teacher {
    /// Nothing was said of any row.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// What was said of a row.
    pub fn row(&self, row: usize) -> (&[u32], &[f32]) {
        let start = if row == 0 { 0 } else { self.ends[row - 1] };
        (&self.ids[start..self.ends[row]], &self.logprobs[start..self.ends[row]])
    }

    /// One more row.
    pub fn push(&mut self, ids: &[u32], logprobs: &[f32]) {
        self.ids.extend(ids);
        self.logprobs.extend(logprobs);
        self.ends.push(self.ids.len());
    }

    /// Rows of which nothing is said, up to this one.
    pub(crate) fn skip_to(&mut self, row: usize) {
        self.ends.resize(row, self.ids.len());
    }

    /// Some of its rows.
    pub(crate) fn of(&self, rows: &[usize]) -> Self {
        let mut some = Self::default();
        rows.iter().map(|row| self.row(*row)).for_each(|(ids, logprobs)| some.push(ids, logprobs));
        some
    }

    pub(crate) fn teaching(&self) -> Teaching<'_> {
        Teaching { ends: &self.ends, ids: &self.ids, logprobs: &self.logprobs }
    }

    /// What is wrong with what was said of so many rows of a model with such a vocabulary.
    pub(crate) fn trouble(&self, rows: usize, vocab: usize) -> Option<String> {
        let Self { ends, ids, logprobs } = self;
        let ordered = ends.is_sorted() && ends.last().copied().unwrap_or(0) == ids.len();
        if ends.len() != rows || !ordered || ids.len() != logprobs.len() {
            return Some(format!("its teacher has not said something of each of {rows} rows"));
        }
        (0..rows).find_map(|row| self.trouble_of(row, vocab))
    }

    fn trouble_of(&self, row: usize, vocab: usize) -> Option<String> {
        let (ids, logprobs) = self.row(row);
        if ids.len() > TEACHER_TOKENS {
            return Some(format!("its teacher names {} tokens in row {row}; {TEACHER_TOKENS} is the most", ids.len()));
        }
        let mut sorted = ids.to_vec();
        sorted.sort_unstable();
        let known = sorted.last().is_none_or(|last| (*last as usize) < vocab);
        if !known || sorted.windows(2).any(|two| two[0] == two[1]) {
            return Some(format!("its teacher names a token twice, or one beyond {vocab}, in row {row}"));
        }
        let mass: f64 = logprobs.iter().map(|x| f64::from(*x).exp()).sum();
        let fine = logprobs.iter().all(|x| x.is_finite()) && mass < 1.0 + MASS;
        (!fine).then(|| format!("its teacher's probabilities in row {row} add up to {mass}"))
    }
}

impl Batch {
    /// One more document: every token but the last is a row, the next its target. `learned[i]` says whether token `i` is to be learned.
    pub fn push(&mut self, document: &[u32], learned: impl Fn(usize) -> bool) {
        self.extend(document, 0..0, |i| f32::from(u8::from(learned(i))));
        self.own.resize(self.tokens.len(), false);
    }

    /// One more sample of those whose weights are `total` together, behind rows that are there already.
    pub(crate) fn add(&mut self, sample: &Sample, shared: Range<usize>, total: f64) {
        let (weight, own) = (|i: usize| (f64::from(sample.weights[i]) / total) as f32, shared.len()..sample.rows());
        self.extend(&sample.tokens, shared, weight);
        self.own.resize(self.tokens.len(), sample.own);
        own.map(|row| sample.teacher.as_ref().map_or((&[][..], &[][..]), |teacher| teacher.row(row)))
            .for_each(|(ids, logprobs)| self.teacher.push(ids, logprobs));
    }

    /// How a teacher's word counts in a row. What the student wrote is no truth: nothing but the teacher's word counts there, and what the student
    /// likes is held against it, so that it unlearns what only it would say (DistiLLM-2, Ko et al. 2025).
    pub(crate) fn rule(&self, row: usize) -> Distil {
        match self.own.get(row) {
            Some(true) => Distil { share: 1.0, divergence: Divergence::Reverse, ..self.distil },
            _ => self.distil,
        }
    }

    fn extend(&mut self, document: &[u32], shared: Range<usize>, weight: impl Fn(usize) -> f32) {
        let own = shared.len()..document.len().saturating_sub(1);
        if own.is_empty() {
            return;
        }
        let first = self.tokens.len();
        self.tokens.extend(&document[own.clone()]);
        self.targets.extend(&document[own.start + 1..]);
        self.weights.extend(own.map(|row| weight(row + 1)));
        self.branches.push(Branch { shared, own: first..self.tokens.len() });
    }

    /// The rows that a sample begins with and need not be there again: the most of any document that shares none itself.
    pub(crate) fn shared(&self, sample: &Sample) -> Range<usize> {
        if self.dropout != Dropout::default() {
            // What is left out differs from row to row.
            return 0..0;
        }
        let most = sample.unlearned().min(sample.rows().saturating_sub(1));
        let roots = self.branches.iter().filter(|branch| branch.shared.is_empty());
        let alike = |branch: &Branch| {
            let both = self.tokens[branch.own.clone()].iter().zip(&sample.tokens[..most]);
            branch.own.start..branch.own.start + both.take_while(|(a, b)| a == b).count()
        };
        let longest = roots.map(alike).rev().max_by_key(ExactSizeIterator::len);
        longest.filter(|rows| rows.len() >= WORTH).unwrap_or(0..0)
    }

    /// Tokens of its documents, those that share rows counted each.
    pub(crate) fn seen(&self) -> usize {
        self.branches.iter().map(Branch::len).sum()
    }

    /// Makes the loss a mean over the rows that count.
    pub fn average(&mut self) {
        let total: f32 = self.weights.iter().sum();
        if total > 0.0 {
            self.weights.iter_mut().for_each(|weight| *weight /= total);
        }
    }

    pub(crate) fn check(&self, spec: &ModelSpec) {
        let rows = self.tokens.len();
        assert!(
            self.targets.len() == rows && self.weights.len() == rows,
            "a target and a weight for each of {rows} tokens"
        );
        assert_eq!(
            self.branches.iter().map(|branch| branch.own.len()).sum::<usize>(),
            rows,
            "documents and tokens differ"
        );
        assert_eq!(self.exits.trouble(spec.layers.len()), None, "exits");
        assert!(
            self.branches.iter().all(|branch| branch.len() <= spec.context),
            "a document is longer than {}",
            spec.context
        );
        let trouble = if self.teacher.is_empty() { None } else { self.teacher.trouble(rows, spec.vocab) };
        assert_eq!(trouble, None);
        let known = |token: &u32| (*token as usize) < spec.vocab;
        assert!(self.tokens.iter().chain(&self.targets).all(known), "a token beyond {}", spec.vocab);
    }
}
