//! What a step learns from: documents behind each other, each on its own.

use model::ModelSpec;

use crate::Sample;

/// Rows of tokens. Documents do not see each other, and each begins at position 0.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Batch {
    /// Token ids of all rows.
    pub tokens: Vec<u32>,
    /// The token that should follow each of them; it does not matter where the weight is 0.
    pub targets: Vec<u32>,
    /// What a row's loss counts: for a mean over `n` rows, `1 / n` each; 0 for what is not to be learned, such as a prompt.
    pub weights: Vec<f32>,
    /// Lengths of the documents.
    pub lens: Vec<usize>,
}

impl Batch {
    /// One more document: every token but the last is a row, the next its target. `learned[i]` says whether token `i` is to be learned.
    pub fn push(&mut self, document: &[u32], learned: impl Fn(usize) -> bool) {
        self.extend(document, |i| f32::from(u8::from(learned(i))));
    }

    /// One more sample of those whose weights are `total` together.
    pub(crate) fn add(&mut self, sample: &Sample, total: f64) {
        let weight = |i: usize| (f64::from(sample.weights[i]) / total) as f32;
        self.extend(&sample.tokens, weight);
    }

    fn extend(&mut self, document: &[u32], weight: impl Fn(usize) -> f32) {
        let rows = document.len().saturating_sub(1);
        if rows == 0 {
            return;
        }
        self.tokens.extend(&document[..rows]);
        self.targets.extend(&document[1..]);
        self.weights.extend((1..=rows).map(weight));
        self.lens.push(rows);
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
        assert_eq!(self.lens.iter().sum::<usize>(), rows, "lengths and tokens differ");
        assert!(self.lens.iter().all(|len| *len <= spec.context), "a document is longer than {}", spec.context);
        let known = |token: &u32| (*token as usize) < spec.vocab;
        assert!(self.tokens.iter().chain(&self.targets).all(known), "a token beyond {}", spec.vocab);
    }
}
