//! A text in OpenAI's moderation categories.
//!
//! Harassment and hate come from the classifier and the Chinese terms that `toxicity` uses; the other categories from rules over
//! word lists (`data/categories.txt`), whose weights are combined as if they were independent signs: 1 minus the product of what
//! each leaves open. These rules know what is said outright and nothing between the lines; `docs/guard.md` gives their measure.

use std::ops::Range;

use crate::{
    error::Error,
    fold::Folded,
    sequences::{Begun, Rulebook},
    toxicity::{self, chinese},
    words::Words,
};

/// The words and rules of the categories.
pub(crate) const LIST: &str = include_str!("../data/categories.txt");

/// A score from which on a category counts, but for harassment, which has the policy's threshold of toxicity.
const FLAGGED: f32 = 0.5;

/// What a text may be flagged for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the categories are OpenAI's, as their names say")]
pub enum Category {
    Harassment,
    HarassmentThreatening,
    Hate,
    HateThreatening,
    Illicit,
    IllicitViolent,
    SelfHarm,
    SelfHarmIntent,
    SelfHarmInstructions,
    Sexual,
    SexualMinors,
    Violence,
    ViolenceGraphic,
}

impl Category {
    /// Every category with its name on the wire.
    pub const ALL: [(Self, &'static str); 13] = [
        (Self::Harassment, "harassment"),
        (Self::HarassmentThreatening, "harassment/threatening"),
        (Self::Hate, "hate"),
        (Self::HateThreatening, "hate/threatening"),
        (Self::Illicit, "illicit"),
        (Self::IllicitViolent, "illicit/violent"),
        (Self::SelfHarm, "self-harm"),
        (Self::SelfHarmIntent, "self-harm/intent"),
        (Self::SelfHarmInstructions, "self-harm/instructions"),
        (Self::Sexual, "sexual"),
        (Self::SexualMinors, "sexual/minors"),
        (Self::Violence, "violence"),
        (Self::ViolenceGraphic, "violence/graphic"),
    ];
}

/// Scores in every category, 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Moderation {
    scores: [f32; 13],
    harassing: f32,
}

impl Moderation {
    /// How strongly the text is of this category.
    pub fn score(&self, category: Category) -> f32 {
        self.scores[category as usize]
    }

    /// Whether it counts as one.
    pub fn flags(&self, category: Category) -> bool {
        self.score(category) >= if category == Category::Harassment { self.harassing } else { FLAGGED }
    }

    /// Whether any category counts.
    pub fn flagged(&self) -> bool {
        Category::ALL.iter().any(|(category, _)| self.flags(*category))
    }
}

/// The compiled lists.
#[derive(Debug)]
pub(crate) struct Moderator {
    words: Words,
    book: Rulebook,
    chinese: (Words, Vec<f32>),
    harassing: f32,
}

impl Moderator {
    /// One that flags harassment from this score on.
    pub(crate) fn new(harassing: f32) -> Result<Self, Error> {
        let (words, book) = Rulebook::read(LIST)?;
        Ok(Self { words, book, chinese: chinese::shipped()?, harassing })
    }

    pub(crate) fn moderate(&self, text: &str) -> Moderation {
        let folded = Folded::of(text);
        let mut scores = self.by_rules(&folded);
        let (harassment, hate) = self.toxic(&folded);
        for (category, score) in [(Category::Harassment, harassment), (Category::Hate, hate)] {
            scores[category as usize] = scores[category as usize].max(score);
        }
        Moderation { scores, harassing: self.harassing }
    }

    /// Every rule once, whatever how often it is fulfilled.
    fn by_rules(&self, text: &Folded) -> [f32; 13] {
        let mut seen = vec![false; self.book.rules.len()];
        let mut begun = Begun::default();
        self.words.scan(&mut self.words.start(), &text.bare, true, |word, hit| {
            begun.hit(&self.book, word, &hit, |rule, _| seen[rule] = true);
        });
        let weight = |rule: usize| self.book.rules[rule].weight;
        Category::ALL.map(|(_, name)| {
            let rules = (0..seen.len()).filter(|rule| seen[*rule] && self.book.rules[*rule].label == name);
            1.0 - rules.map(|rule| 1.0 - weight(rule)).product::<f32>()
        })
    }

    fn toxic(&self, text: &Folded) -> (f32, f32) {
        let mut worst = toxicity::Score::default();
        toxicity::scan(&mut toxicity::Place::default(), &text.bare, true, |_: Range<usize>, score| {
            worst = worst.max(score)
        });
        let (words, weights) = &self.chinese;
        let (mut tally, mut insult) = (chinese::Tally::default(), 0.0f32);
        words.scan(&mut words.start(), &text.bare, true, |term, hit| {
            insult = insult.max(tally.hit(&hit, weights[term]))
        });
        (worst.toxic.max(insult), worst.hate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_speak_for_categories_that_exist() {
        let (_, book) = Rulebook::read(LIST).unwrap();
        for rule in &book.rules {
            assert!(Category::ALL.iter().any(|(_, name)| *name == rule.label), "{rule:?}");
        }
        assert!(Category::ALL.iter().enumerate().all(|(i, (category, _))| *category as usize == i));
    }
}
