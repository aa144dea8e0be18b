//! What learns, in one flat vector: values, gradients and the optimizer's means lie side by side in the same order, so that a step, a norm, a
//! checkpoint or a shard is a pass over ranges.

use std::ops::Range;

/// What an entry is, which decides how it steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A matrix of a layer, or half of its adapter.
    Matrix,
    /// A row for every token: the embedding and the head.
    Table,
    /// A gain or a bias, which weight decay leaves alone.
    Vector,
}

/// Numbers that learn together, such as a matrix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// `layers.3.attention.query.a`.
    pub name: String,
    /// Outputs and inputs; of a vector the first is 1.
    pub shape: [usize; 2],
    /// Where they stand.
    pub range: Range<usize>,
    /// What it is.
    pub kind: Kind,
}

/// All that learns.
#[derive(Debug, Default)]
pub struct Params {
    pub(crate) entries: Vec<Entry>,
    /// The numbers.
    pub values: Vec<f32>,
    /// What the loss changes by, as each of them does.
    pub gradient: Vec<f32>,
}

impl Params {
    /// Takes these numbers, and says where they stand.
    pub(crate) fn add(&mut self, name: String, kind: Kind, shape: [usize; 2], values: &[f32]) -> Range<usize> {
        assert_eq!(values.len(), shape[0] * shape[1], "{name} of {shape:?}");
        let range = self.values.len()..self.values.len() + values.len();
        self.values.extend_from_slice(values);
        self.gradient.resize(self.values.len(), 0.0);
        self.entries.push(Entry { name, shape, range: range.clone(), kind });
        range
    }

    /// What there is, in order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }
}
