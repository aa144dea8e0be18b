//! Made-up prompts: the same for every entrant, never twice the same, so that no prefix cache helps unless it is meant to.

use std::ops::Range;

use crate::stats::Random;

/// Draws prompts of random token ids.
#[derive(Debug, Clone)]
pub struct Prompts {
    ids: Range<u32>,
    random: Random,
}

impl Prompts {
    /// Ids are drawn from `ids` (ordinary tokens of the model; most vocabularies keep their special ones below 300).
    #[must_use]
    pub fn new(ids: Range<u32>, seed: u64) -> Self {
        Self { ids, random: Random::new(seed) }
    }

    /// The next prompt of `tokens` tokens.
    pub fn draw(&mut self, tokens: usize) -> Vec<u32> {
        let span = u64::from(self.ids.end.saturating_sub(self.ids.start)).max(1);
        (0..tokens).map(|_| self.ids.start + self.random.below(span) as u32).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drawn_from_the_range_and_never_the_same() {
        let mut prompts = Prompts::new(300..400, 7);
        let (a, b) = (prompts.draw(64), prompts.draw(64));
        assert!(a.iter().chain(&b).all(|id| (300..400).contains(id)));
        assert_ne!(a, b);
        assert_eq!(Prompts::new(300..400, 7).draw(64), a);
    }
}
