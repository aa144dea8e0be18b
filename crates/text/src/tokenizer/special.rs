//! Tokens that are recognised in the text before anything else happens: control tokens and user-defined ones.
//!
//! The reference goes through these tokens from the longest to the shortest and cuts each one out of whatever text is
//! left. With thousands of them (Gemma has 6,400) that is thousands of searches per text, so one automaton first tells
//! which of them occur at all; for those few, the reference's order is followed.

use std::ops::Range;

use aho_corasick::{AhoCorasick, MatchKind};

use crate::Error;

/// One such token.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Special {
    pub(crate) id: u32,
    pub(crate) text: String,
    /// Never recognised in a user's text.
    pub(crate) control: bool,
    /// Swallows blanks before it.
    pub(crate) strip_left: bool,
    /// Swallows blanks behind it.
    pub(crate) strip_right: bool,
}

/// All of them, longest first.
#[derive(Debug)]
pub(crate) struct Specials {
    list: Vec<Special>,
    finder: Option<AhoCorasick>,
}

/// A part of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Part {
    /// Still to be tokenised.
    Text(Range<usize>),
    /// A token of the list.
    Token(u32),
}

impl Specials {
    pub(crate) fn new(mut list: Vec<Special>) -> Result<Self, Error> {
        list.retain(|special| !special.text.is_empty());
        list.sort_by_key(|special| std::cmp::Reverse(special.text.len()));
        let build = |list: &[Special]| {
            AhoCorasick::builder().match_kind(MatchKind::Standard).build(list.iter().map(|special| &special.text))
        };
        let finder = match list.is_empty() {
            true => None,
            false => Some(build(&list).map_err(|error| Error::Tokenizer(error.to_string()))?),
        };
        Ok(Self { list, finder })
    }

    /// The id of the token with this text.
    pub(crate) fn id_of(&self, text: &str) -> Option<u32> {
        self.list.iter().find(|special| special.text == text).map(|special| special.id)
    }

    /// Texts of control tokens.
    pub(crate) fn controls(&self) -> impl Iterator<Item = &str> {
        self.list.iter().filter(|special| special.control).map(|special| special.text.as_str())
    }

    /// A control token's text occurs in the text.
    pub(crate) fn any_control(&self, text: &str) -> bool {
        self.occurring(text).into_iter().any(|i| self.list[i].control)
    }

    /// Where the texts of control tokens stand; what overlaps is one range.
    pub(crate) fn control_ranges(&self, text: &str) -> Vec<Range<usize>> {
        let mut ranges: Vec<Range<usize>> = Vec::new();
        let hits = self.finder.iter().flat_map(|finder| finder.find_overlapping_iter(text));
        for hit in hits.filter(|hit| self.list[hit.pattern().as_usize()].control) {
            // Hits come in the order of their ends.
            let mut range = hit.range();
            while let Some(last) = ranges.pop_if(|last| last.end > range.start) {
                range.start = range.start.min(last.start);
            }
            ranges.push(range);
        }
        ranges
    }

    /// Cuts user-defined tokens out of a user's text.
    pub(crate) fn cut_plain(&self, text: &str) -> Vec<Part> {
        self.cut(text, |special, _| !special.control)
    }

    /// Cuts all tokens out of a text, but control tokens only where none of the given ranges (sorted; an empty one is a
    /// place between characters) says that those characters are a user's.
    pub(crate) fn cut_marked(&self, text: &str, literal: &[Range<usize>]) -> Vec<Part> {
        self.cut(text, |special, at| !special.control || !is_literal(literal, at))
    }

    fn cut(&self, text: &str, allowed: impl Fn(&Special, &Range<usize>) -> bool) -> Vec<Part> {
        let mut parts = vec![Part::Text(0..text.len())];
        for special in self.occurring(text).into_iter().map(|i| &self.list[i]) {
            let mut next = Vec::with_capacity(parts.len() + 2);
            for part in parts {
                match part {
                    Part::Text(range) => special.cut_out(text, range, &allowed, &mut next),
                    token @ Part::Token(_) => next.push(token),
                }
            }
            parts = next;
        }
        parts
    }

    /// Places in the list of the tokens that occur in the text, in the list's order.
    fn occurring(&self, text: &str) -> Vec<usize> {
        let Some(finder) = &self.finder else { return Vec::new() };
        let mut found: Vec<usize> = Vec::new();
        for hit in finder.find_overlapping_iter(text) {
            let place = hit.pattern().as_usize();
            if let Err(at) = found.binary_search(&place) {
                found.insert(at, place);
            }
        }
        found
    }
}

impl Special {
    fn cut_out(
        &self,
        text: &str,
        range: Range<usize>,
        allowed: &impl Fn(&Self, &Range<usize>) -> bool,
        parts: &mut Vec<Part>,
    ) {
        let mut rest = range.clone();
        let mut from = range.start;
        while let Some(hit) = text[from..range.end].find(&self.text) {
            let at = from + hit..from + hit + self.text.len();
            if !allowed(self, &at) {
                // Look again one character further: what overlaps a forbidden place may be allowed.
                from = at.start + text[at.start..].chars().next().map_or(1, char::len_utf8);
                continue;
            }
            let before = &text[rest.start..at.start];
            let before = if self.strip_left { before.trim_end() } else { before };
            if !before.is_empty() {
                parts.push(Part::Text(rest.start..rest.start + before.len()));
            }
            parts.push(Part::Token(self.id));
            let behind = &text[at.end..range.end];
            rest.start = if self.strip_right { range.end - behind.trim_start().len() } else { at.end };
            from = rest.start;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest));
        }
    }
}

fn is_literal(literal: &[Range<usize>], at: &Range<usize>) -> bool {
    let first = literal.partition_point(|range| range.end <= at.start);
    literal[first..].iter().take_while(|range| range.start < at.end).any(|range| {
        let inside = range.start.max(at.start)..range.end.min(at.end);
        // An empty range lies between two characters: it forbids what straddles it.
        if range.is_empty() { at.start < range.start } else { !inside.is_empty() }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn specials() -> Specials {
        let row = |id, text: &str, control| Special { id, text: text.into(), control, ..Default::default() };
        let mut list = vec![row(1, "<|a|>", true), row(2, "\n\n", false), row(3, "\n\n\n", false), row(4, "\n", false)];
        list.push(Special { strip_left: true, strip_right: true, ..row(5, "<m>", true) });
        Specials::new(list).unwrap()
    }

    fn show(text: &str, parts: &[Part]) -> String {
        let show = |part: &Part| match part {
            Part::Text(range) => text[range.clone()].to_owned(),
            Part::Token(id) => format!("#{id}"),
        };
        parts.iter().map(show).collect::<Vec<_>>().join(" ")
    }

    #[test]
    #[expect(clippy::single_range_in_vec_init, reason = "one range is what is meant")]
    fn longest_first_and_control_tokens_only_where_allowed() {
        let specials = specials();
        let plain = |text: &str| show(text, &specials.cut_plain(text));
        let marked = |text: &str, literal: &[Range<usize>]| show(text, &specials.cut_marked(text, literal));
        assert_eq!(plain("x<|a|>\n\n\n\n\ny"), "x<|a|> #3 #2 y");
        assert_eq!(plain(""), "");
        assert_eq!(marked("<|a|>x<|a|>", &[]), "#1 x #1");
        assert_eq!(marked("<|a|>x<|a|>", &[0..5]), "<|a|>x #1");
        assert_eq!(marked("<|a|>x<|a|>", &[5..6]), "#1 x #1");
        assert_eq!(marked("<|a|>x", &[2..2]), "<|a|>x");
        assert_eq!(marked("<|a|>x", &[0..0, 5..5]), "#1 x");
        assert_eq!(marked("a  <m> b", &[]), "a #5 b");
        assert_eq!(specials.control_ranges("<|a|><|a|>\n<m>"), [0..5, 5..10, 11..14]);
        assert!(specials.any_control("<<|a|>") && !specials.any_control("\n<|a|"));
    }
}
