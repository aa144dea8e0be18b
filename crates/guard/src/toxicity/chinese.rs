//! Toxic terms of Chinese, with weights that add up.

use std::ops::Range;

use crate::{error::Error, lists::sections, words::Words};

/// The terms; its head explains them.
const LIST: &str = include_str!("../../data/chinese.txt");

/// Terms further apart than this many bytes of bare text (forty characters) do not add up.
const STRETCH: usize = 120;

/// The automaton of all terms, and the weight of each.
pub(crate) fn shipped() -> Result<(Words, Vec<f32>), Error> {
    let sections = sections(LIST);
    let weight = |name: &str| name.parse::<f32>().unwrap_or(0.0);
    let weights = sections.iter().flat_map(|s| s.words().map(|_| weight(s.name))).collect();
    Ok((Words::new(sections.iter().flat_map(|s| s.words()))?, weights))
}

/// Terms that were found lately, with their weights.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally {
    lately: Vec<(Range<usize>, f32)>,
}

impl Tally {
    /// A term was found; returns the sum of weights around it, at most 1.
    pub(crate) fn hit(&mut self, range: &Range<usize>, weight: f32) -> f32 {
        self.lately.retain(|(other, _)| other.end + STRETCH >= range.start);
        match self.lately.last_mut().filter(|(other, _)| other.end > range.start) {
            // One term inside another says nothing more.
            Some((other, said)) => {
                *said = said.max(weight);
                other.end = other.end.max(range.end);
            }
            None => self.lately.push((range.clone(), weight)),
        }
        self.lately.iter().map(|(_, weight)| weight).sum::<f32>().min(1.0)
    }
}
