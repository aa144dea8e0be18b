//! Prompt injection: rules whose weights add up.
//!
//! A rule may be innocent by itself, so rules have weights, and a finding is a stretch of text in which the weights of different
//! rules add up to the threshold. Weights are set by hand: a rule that no honest text fulfils has 1.

use std::ops::Range;

use crate::sequences::{Begun, Rulebook};

/// The words and rules; its head explains them.
pub(crate) const LIST: &str = include_str!("../data/injection.txt");

/// Rules further apart than this many bytes of bare text do not add up.
const STRETCH: usize = 600;

/// What was seen of the rules.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally {
    begun: Begun,
    /// Rules that were fulfilled lately, with where.
    fulfilled: Vec<(usize, Range<usize>)>,
}

impl Tally {
    /// A word was found. Calls `found` with the place of the rule that made the sum reach the threshold, and the sum.
    pub(crate) fn hit(
        &mut self,
        book: &Rulebook,
        (word, hit): (usize, &Range<usize>),
        threshold: f32,
        mut found: impl FnMut(Range<usize>, f32),
    ) {
        let fulfilled = &mut self.fulfilled;
        self.begun.hit(book, word, hit, |rule, whole| {
            fulfilled.retain(|(other, range)| *other != rule && range.end + STRETCH >= whole.start);
            fulfilled.push((rule, whole.clone()));
            let sum = fulfilled.iter().map(|(rule, _)| book.rules[*rule].weight).sum();
            if sum >= threshold {
                // The count begins anew.
                fulfilled.clear();
                found(whole, sum);
            }
        });
    }

    /// The first place where a sequence begins that words from `undecided` on could still complete.
    pub(crate) fn open(&self, book: &Rulebook, undecided: usize) -> usize {
        self.begun.open(book, undecided)
    }
}
