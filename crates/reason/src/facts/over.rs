//! What was and is not any more: "I used to make 7,000", "the 20,000 for the boat, cleared by 2014", "以前月薪一万".
//!
//! A schema lists under `x-decision` words of the past, which stand in front of what they take back, and words of what is settled,
//! which stand in the same clause or begin the next one. Amounts they take back are no candidates. A schema that lists none
//! keeps everything: a price that was paid is a price.

use std::ops::Range;

use super::{
    clause,
    cues::{lowered, places},
    propose::{Proposal, What},
    schema::Facts,
};

/// Bytes from the beginning of a clause within which it begins with a word: "which was cleared".
const BEGINNING: usize = 16;
/// Bytes between an amount and a word of the past behind it: "3,000 previously".
const BEHIND: usize = 2;

/// The proposals that are not taken back.
pub(crate) fn without_past(mut proposals: Vec<Proposal>, text: &str, facts: &Facts) -> Vec<Proposal> {
    let lower = lowered(text);
    let all = |words: &[String]| words.iter().flat_map(|word| places(&lower, word)).collect();
    let words =
        Words { text: &lower, clauses: clause::split(text), past: all(&facts.past), settled: all(&facts.settled) };
    proposals.retain(|proposal| !matches!(proposal.what, What::Amount { .. }) || !words.take_back(&proposal.span));
    proposals
}

struct Words<'a> {
    text: &'a str,
    clauses: Vec<Range<usize>>,
    past: Vec<Range<usize>>,
    settled: Vec<Range<usize>>,
}

impl Words<'_> {
    fn take_back(&self, span: &Range<usize>) -> bool {
        let home = clause::of(&self.clauses, span.start);
        self.past.iter().any(|word| self.is_past(word, span, home))
            || self.settled.iter().any(|word| self.is_settled(word, home))
    }

    fn is_past(&self, word: &Range<usize>, span: &Range<usize>, home: usize) -> bool {
        // "to" ends a clause: what "used to" speaks of is in the next one.
        let at = if self.text[word.clone()].ends_with(" to") { word.end + 1 } else { word.start };
        let behind = word.start.checked_sub(span.end).is_some_and(|gap| gap <= BEHIND);
        clause::of(&self.clauses, at) == home && (word.end <= span.start || behind)
    }

    /// "cleared by 2014" speaks of the amount before it, "cleared my card" of another one.
    fn is_settled(&self, word: &Range<usize>, home: usize) -> bool {
        let clause = clause::of(&self.clauses, word.start);
        let begins = word.start - self.clauses[clause].start <= BEGINNING;
        let of_another = [" my ", " the ", " a ", " our "].iter().any(|next| self.text[word.end..].starts_with(next));
        clause == home || (clause == home + 1 && begins && !of_another)
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{date::Day, propose::propose},
        *,
    };

    #[test]
    fn what_is_over_is_left_out() {
        let schema = serde_json::json!({"properties": {}, "x-decision": {
            "past": ["used to", "previously", "以前"], "settled": ["cleared", "paid off", "还清了"],
        }});
        let facts = Facts::parse(&schema.to_string()).unwrap();
        let check = |text: &str, wanted: &[&str]| {
            let left = without_past(propose(text, Day::of_unix_seconds(0)), text, &facts);
            assert_eq!(left.iter().map(|left| &text[left.span.clone()]).collect::<Vec<_>>(), wanted, "{text}");
        };
        check("I used to make 7,000, now it is 4,000", &["4,000"]);
        check("3,000 previously, 4,000 now", &["4,000"]);
        check("20,000 for the boat, cleared in May; 300 left", &["300"]);
        check("I owe 20,000, paid off my car", &["20,000"]);
        check("以前月薪9千，现在8千", &["8千"]);
        check("车贷4万还清了，还欠3万", &["3万"]);
        check("20,000 for the boat", &["20,000"]);
    }
}
