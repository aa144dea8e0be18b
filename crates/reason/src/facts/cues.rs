//! Words near a span say what it is: where the cues of all slots stand, and how near they are to a proposal.
//!
//! Of cues that overlap the longest counts ("student loan" is not a "loan"). A cue in the same clause weighs 1 beside the span
//! and 1/2 at a distance of [`REACH`] or more; one in the clause before or behind it weighs a quarter of that. A long word that is one
//! slip of the fingers away from a cue is that cue. Words of what is no fact here ("savings", "price") speak against every slot
//! whose own cues are farther off.

use std::ops::Range;

use super::{
    clause,
    propose::{Proposal, What},
    schema::Facts,
};

/// Bytes at which a cue of the same clause weighs half.
const REACH: f64 = 40.0;
/// Letters of a cue that may be misspelt: shorter ones are one slip away from other words.
const LONG: usize = 6;

/// A cue that stands in the text.
#[derive(Debug, Clone, PartialEq)]
struct Cue {
    span: Range<usize>,
    /// Nothing for what is no fact.
    slot: Option<usize>,
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
        let of_slots =
            facts.slots.iter().enumerate().flat_map(|(n, s)| s.reading.cues.iter().map(move |cue| (Some(n), cue)));
        let all: Vec<_> = of_slots.chain(facts.other.iter().map(|cue| (None, cue))).collect();
        let mut found = Vec::new();
        for (slot, cue) in &all {
            found.extend(places(&lower, cue).map(|span| Cue { span, slot: *slot }));
        }
        let exact = found.clone();
        for word in words(&lower).filter(|word| exact.iter().all(|cue| apart(&cue.span, word))) {
            let meant = all.iter().filter(|(_, cue)| is_slip(&lower[word.clone()], cue));
            found.extend(meant.map(|(slot, _)| Cue { span: word.clone(), slot: *slot }));
        }
        Self { found: longest(found, |cue| &cue.span), clauses: clause::split(text) }
    }

    /// Where the first cue of `slot` begins.
    pub(crate) fn first(&self, slot: usize) -> Option<usize> {
        self.found.iter().filter(|cue| cue.slot == Some(slot)).map(|cue| cue.span.start).min()
    }

    /// How strongly the words around `span` speak for `slot`, 0 to 1, or against it, down to -1, where something else stands nearer.
    pub(crate) fn weight(&self, slot: usize, span: &Range<usize>) -> f64 {
        let (own, other) = (self.nearness(Some(slot), span), self.nearness(None, span));
        if other > own { -other } else { own }
    }

    fn nearness(&self, slot: Option<usize>, span: &Range<usize>) -> f64 {
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
pub(super) fn lowered(text: &str) -> String {
    text.to_ascii_lowercase()
}

/// Where a cue stands. Words in letters of the alphabet stand whole, or with any ending behind a `*`.
pub(super) fn places<'a>(lower: &'a str, cue: &'a str) -> impl Iterator<Item = Range<usize>> + 'a {
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
        let here = start..end;
        let free = kept.iter().all(|other| apart(span(other), &here) || *span(other) == here);
        if free {
            kept.push(item);
        }
    }
    kept
}

fn apart(a: &Range<usize>, b: &Range<usize>) -> bool {
    a.end <= b.start || b.end <= a.start
}

/// Where words of letters stand.
fn words(lower: &str) -> impl Iterator<Item = Range<usize>> + '_ {
    let letter = |c: char| c.is_ascii_alphabetic();
    let begins = lower.match_indices(letter).map(|(at, _)| at);
    let begins = begins.filter(move |at| !lower[..*at].ends_with(letter));
    begins.map(move |at| at..lower[at..].find(|c| !letter(c)).map_or(lower.len(), |len| at + len))
}

/// A letter too many, too few or wrong, or two that changed places, behind the first one.
fn is_slip(word: &str, cue: &str) -> bool {
    let cue = cue.trim_end_matches('*');
    if cue.len() < LONG || !cue.bytes().all(|b| b.is_ascii_lowercase()) || word.len().abs_diff(cue.len()) > 1 {
        return false;
    }
    let (word, cue) = (word.as_bytes(), cue.as_bytes());
    let front = word.iter().zip(cue).take_while(|(a, b)| a == b).count();
    let (word, cue) = (&word[front..], &cue[front..]);
    let back = word.iter().rev().zip(cue.iter().rev()).take_while(|(a, b)| a == b).count();
    let (word, cue) = (&word[..word.len() - back], &cue[..cue.len() - back]);
    let swapped = word.len() == 2 && cue.len() == 2 && word[0] == cue[1] && word[1] == cue[0];
    front > 0 && (word.len().max(cue.len()) == 1 || swapped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_words_may_be_one_slip_away() {
        let check = |word: &str, cue: &str, wanted: bool| assert_eq!(is_slip(word, cue), wanted, "{word} {cue}");
        check("salry", "salary", true);
        check("sallary", "salary", true);
        check("salery", "salary", true);
        check("saalry", "salary", true);
        check("borow", "borrow*", true);
        check("salay", "salary", true);
        check("malary", "salary", false);
        check("slry", "salary", false);
        check("lon", "loan", false);
        check("working", "worked", false);
        check("take hone", "take home", false);
    }
}
