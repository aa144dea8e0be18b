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
    /// Of a network that is spread over ranks, the weights that are here now.
    pub(crate) lent: Windows,
    /// And the gradients.
    pub(crate) lent_gradient: Windows,
}

/// Stretches of a flat vector.
#[derive(Debug, Default)]
pub(crate) struct Windows(Vec<(usize, Vec<f32>)>);

impl Windows {
    /// These numbers, which begin at `first`, are here until [`Windows::close`].
    pub(crate) fn open(&mut self, first: usize, numbers: Vec<f32>) {
        self.0.push((first, numbers));
    }

    /// Takes the stretch away that was opened last.
    pub(crate) fn close(&mut self) -> Vec<f32> {
        self.0.pop().map(|(_, numbers)| numbers).unwrap_or_default()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.0.iter().map(|(_, numbers)| size_of_val(numbers.as_slice())).sum()
    }

    /// Which stretch holds a range, and where in it.
    fn find(&self, range: &Range<usize>) -> Option<(usize, Range<usize>)> {
        let holds = |(first, numbers): &(usize, Vec<f32>)| *first <= range.start && range.end <= first + numbers.len();
        let at = self.0.iter().position(holds)?;
        let first = self.0[at].0;
        Some((at, range.start - first..range.end - first))
    }
}

impl Params {
    /// Numbers that are here.
    pub(crate) fn value(&self, range: &Range<usize>) -> &[f32] {
        match self.lent.find(range) {
            Some((at, range)) => &self.lent.0[at].1[range],
            None => &self.values[range.clone()],
        }
    }

    /// Their gradients.
    pub(crate) fn slope(&mut self, range: &Range<usize>) -> &mut [f32] {
        match self.lent_gradient.find(range) {
            Some((at, range)) => &mut self.lent_gradient.0[at].1[range],
            None => &mut self.gradient[range.clone()],
        }
    }

    /// Takes these numbers, and says where they stand. Their gradients have room after [`Params::begin`].
    pub(crate) fn add(&mut self, name: String, kind: Kind, shape: [usize; 2], values: &[f32]) -> Range<usize> {
        assert_eq!(values.len(), shape[0] * shape[1], "{name} of {shape:?}");
        let first = self.entries.last().map_or(0, |last| last.range.end);
        let range = first..first + values.len();
        self.values.extend_from_slice(values);
        self.entries.push(Entry { name, shape, range: range.clone(), kind });
        range
    }

    /// All of it is there: gradients begin at zero.
    pub(crate) fn begin(&mut self) {
        self.gradient = vec![0.0; self.values.len()];
    }

    /// What there is, in order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }
}
