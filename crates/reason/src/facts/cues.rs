//! Words near a span say what it is: where the cues of all slots stand, and how near they are to a proposal.
//!
//! Of cues that overlap the longest counts ("student loan" is not a "loan"). A cue in the same clause weighs 1 beside the span
//! and 1/2 at a distance of [`REACH`] or more; one in the clause before or behind it weighs a quarter of that.

use std::ops::Range;

use super::{
    clause,
    propose::{Proposal, What},
    schema::Facts,
};

/// Bytes at which a cue of the same clause weighs half.
const REACH: f64 = 40.0;

/// A cue that stands in the text.
#[derive(Debug, Clone, PartialEq)]
struct Cue {
    span: Range<usize>,
    slot: usize,
}

/// The cues of all slots, found in one text.
#[derive(Debug)]
pub(crate) struct Cues {
    found: Vec<Cue>,
    clauses: Vec<Range<usize>>,
}

impl Cues {
    pub(crate) fn find(text: &str, facts: &Facts) -> Self {
        let lower = lowered(text);
        let mut found = Vec::new();
        for (slot, cue) in
            facts.slots.iter().enumerate().flat_map(|(n, s)| s.reading.cues.iter().map(move |cue| (n, cue)))
        {
            found.extend(places(&lower, cue).map(|span| Cue { span, slot }));
        }
        Self { found: longest(found, |cue| &cue.span), clauses: clause::split(text) }
    }

    /// Where the first cue of `slot` begins.
    pub(crate) fn first(&self, slot: usize) -> Option<usize> {
        self.found.iter().filter(|cue| cue.slot == slot).map(|cue| cue.span.start).min()
    }

    /// How strongly the words around `span` speak for `slot`, 0 to 1.
    pub(crate) fn weight(&self, slot: usize, span: &Range<usize>) -> f64 {
        let home = clause::of(&self.clauses, span.start);
        let one = |cue: &Cue| {
            let distance = if cue.span.end <= span.start {
                span.start - cue.span.end
            } else {
                cue.span.start.saturating_sub(span.end)
            };
            let near = 1.0 - 0.5 * (distance as f64 / REACH).min(1.0);
            match clause::of(&self.clauses, cue.span.start).abs_diff(home) {
                0 => near,
                1 => near / 4.0,
                _ => 0.0,
            }
        };
        self.found.iter().filter(|cue| cue.slot == slot).map(one).fold(0.0, f64::max)
    }
}

/// Words that stand for a value by themselves, as proposals; of words that overlap the longest counts.
pub(crate) fn choices(text: &str, facts: &Facts) -> Vec<Proposal> {
    let lower = lowered(text);
    let mut found = Vec::new();
    for slot in &facts.slots {
        let mut of_slot = Vec::new();
        for (value, word) in
            slot.reading.words.iter().flat_map(|(value, words)| words.iter().map(move |word| (value, word)))
        {
            let what = || What::Choice { slot: slot.name.clone(), value: value.clone() };
            of_slot.extend(places(&lower, word).map(|span| Proposal { span, what: what() }));
        }
        found.extend(longest(of_slot, |proposal| &proposal.span));
    }
    found
}

/// Lower case, byte for byte as long as the text.
fn lowered(text: &str) -> String {
    text.to_ascii_lowercase()
}

/// Where a cue stands. Words in letters of the alphabet stand whole, or with any ending behind a `*`.
fn places<'a>(lower: &'a str, cue: &'a str) -> impl Iterator<Item = Range<usize>> + 'a {
    let (word, open) = cue.strip_suffix('*').map_or((cue, false), |word| (word, true));
    let letter = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let bounded = move |span: &Range<usize>| {
        !word.is_ascii()
            || (!letter(lower[..span.start].chars().next_back()) && (open || !letter(lower[span.end..].chars().next())))
    };
    let all = (!word.is_empty()).then(|| lower.match_indices(word)).into_iter().flatten();
    all.map(|(at, found)| at..at + found.len()).filter(bounded)
}

/// The longest of those that overlap.
fn longest<T>(mut all: Vec<T>, span: impl Fn(&T) -> &Range<usize>) -> Vec<T> {
    all.sort_by_key(|item| std::cmp::Reverse(span(item).len()));
    let mut kept: Vec<T> = Vec::new();
    for item in all {
        let (start, end) = (span(&item).start, span(&item).end);
        let free = kept.iter().all(|other| {
            let other = span(other);
            end <= other.start || other.end <= start || *other == (start..end)
        });
        if free {
            kept.push(item);
        }
    }
    kept
}
