//! The lines of a chain: the grammar that a model is held to while it writes one, and how what it wrote is read.
//!
//! `unknown: WHAT`, then `step: WHAT | EXPRESSION = VALUE`, then `answer: VALUE`. Under a grammar a line is cut apart at its
//! signs. Text that was written freely is read leniently: whatever stands around a `=` and computes is a step, and the last
//! number behind the word "answer" is the answer.

use std::collections::BTreeSet;

use protocol::{Chain, ChainStep};

use super::expression::Number;

/// What a line may hold. A text ends in a word, so that the sign behind it follows a single space.
const WORDS: &str = r#"
STEP: "step: " WHAT " | "
WHAT: /[^|=\n ]([^|=\n]{0,238}[^|=\n ])?/
sum: operand (SIGN operand)+
operand: "-"? (NUMBER | REFERENCE | OPEN operand (SIGN operand)* CLOSE)
OPEN: /\( ?/
CLOSE: / ?\)%?/
SIGN: / ?[-+*\/^] ?/
NUMBER: /[0-9]{1,15}(\.[0-9]{1,8})?%?/
REFERENCE: /#[1-9][0-9]?/
VALUE: /-?[0-9]{1,18}(\.[0-9]{1,8}|\/[0-9]{1,9})?/
"#;

/// The first line, behind its word.
pub(crate) const UNKNOWN: &str = "start: \" \" WHAT \"\\n\"\nWHAT: /[^|=\\n ][^|=\\n]{0,238}/\n";
/// The word of the first line.
pub(crate) const UNKNOWN_WORD: &str = "unknown:";

/// What the next line may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Next<'a> {
    /// Another step may follow.
    pub(crate) step: bool,
    /// The model writes the step's value; else the line ends at the `=`.
    pub(crate) value: bool,
    /// What the answer may be.
    pub(crate) answer: Answers<'a>,
}

/// What the answer may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answers<'a> {
    /// It is not time yet.
    None,
    /// Any number.
    Any,
    /// One of these values.
    Among(&'a [Number]),
}

/// The grammar of the next line.
pub(crate) fn grammar(next: Next<'_>) -> String {
    let mut starts = Vec::new();
    if next.step {
        starts.push(if next.value { r#"STEP sum " = " VALUE "\n""# } else { r#"STEP sum " =""# }.to_owned());
    }
    match next.answer {
        Answers::None => {}
        Answers::Any => starts.push(r#""answer: " VALUE "\n""#.to_owned()),
        Answers::Among(values) => {
            let shown: BTreeSet<String> = values.iter().map(|value| format!("\"{value}\"")).collect();
            let shown = Vec::from_iter(shown).join(" | ");
            starts.push(format!(r#""answer: " ({shown}) "\n""#));
        }
    }
    format!("start: {}{WORDS}", starts.join(" | "))
}

/// A line written under [`grammar`].
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Line {
    /// A step; its claim is empty where its value was not for the model to write.
    Step(ChainStep),
    /// The answer.
    Answer(String),
}

impl Line {
    /// `None` for what no grammar of ours lets through.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        if let Some(answer) = line.strip_prefix("answer: ") {
            return Some(Self::Answer(answer.trim().to_owned()));
        }
        let (text, rest) = line.strip_prefix("step: ")?.split_once(" | ")?;
        let (expression, claimed) = rest.split_once('=')?;
        let [text, expression, claimed] = [text, expression, claimed].map(|part| part.trim().to_owned());
        Some(Self::Step(ChainStep { text, expression, claimed, ..ChainStep::default() }))
    }
}

/// A chain from text that nothing held to a form. A step of which there is no telling what it computes has no expression.
pub(crate) fn read(text: &str) -> Chain {
    let mut chain = Chain { weight: 1.0, ..Chain::default() };
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let lower = line.to_ascii_lowercase();
        if let Some(at) = lower.rfind("answer") {
            chain.answer = numbers(&line[at..]).pop().or(chain.answer);
        } else if let Some(rest) = lower.strip_prefix("unknown:") {
            chain.unknowns.push(line[line.len() - rest.len()..].trim().to_owned());
        } else if let Some(rest) = lower.strip_prefix("step:") {
            chain.steps.extend(steps(line[line.len() - rest.len()..].trim()));
        } else if line.contains('=') {
            chain.steps.extend(steps(line));
        }
    }
    chain.answer = chain.answer.or_else(|| numbers(text).pop());
    chain
}

/// Every `expression = value` in a line; the line as it stands if there is none.
fn steps(line: &str) -> Vec<ChainStep> {
    let mut found = Vec::new();
    let mut from = 0;
    for (at, _) in line.match_indices('=') {
        let (left, right) = (&line[from..at], &line[at + 1..]);
        if let (Some(expression), Some(claimed)) = (last_expression(left), first_number(right)) {
            let text = left[..left.len() - expression.len()].trim_end_matches([' ', '|', ':', '(']).to_owned();
            found.push(ChainStep { text, expression: expression.trim().into(), claimed, ..ChainStep::default() });
        }
        from = at + 1;
    }
    if found.is_empty() {
        found.push(ChainStep { text: line.to_owned(), ..ChainStep::default() });
    }
    found
}

/// The longest end of a text that is arithmetic and more than a number.
fn last_expression(text: &str) -> Option<&str> {
    // No expression is longer than this many bytes, so no earlier start can be one.
    let least = text.len().saturating_sub(super::expression::LONGEST);
    let starts = text.char_indices().filter(|(at, c)| *at >= least && begins_number(*c));
    let mut ends = starts.map(|(at, _)| &text[at..]);
    ends.find(|end| Number::parse(end).is_some() && end.trim().contains(['+', '-', '*', '/', '^', '×', '÷', 'x', '−']))
}

fn begins_number(c: char) -> bool {
    c.is_ascii_digit() || matches!(c, '(' | '$' | '€' | '£' | '¥' | '-' | '.')
}

/// The number that a text begins with.
fn first_number(text: &str) -> Option<String> {
    let text = text.trim_start();
    let len = text.find(|c: char| !(begins_number(c) || matches!(c, ',' | '%' | '/'))).unwrap_or(text.len());
    let ends = (1..=len.min(64)).rev().filter_map(|end| text.get(..end));
    // A sentence may end in a number.
    let mut ends = ends.map(|end| end.trim_end_matches([' ', '.', ',']));
    ends.find(|number| Number::parse(number).is_some()).map(str::to_owned)
}

/// All numbers in a text.
fn numbers(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(begins_number) {
        match first_number(&rest[at..]) {
            Some(number) => {
                rest = &rest[at + number.len()..];
                found.push(number);
            }
            None => rest = &rest[at + rest[at..].chars().next().map_or(1, char::len_utf8)..],
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str, unknowns: &[&str], steps: &[(&str, &str, &str)], answer: Option<&str>) {
        let chain = read(text);
        let found: Vec<_> =
            chain.steps.iter().map(|s| (s.text.as_str(), s.expression.as_str(), s.claimed.as_str())).collect();
        assert_eq!(
            (chain.unknowns, found, chain.answer.as_deref()),
            (unknowns.iter().map(ToString::to_string).collect(), steps.to_vec(), answer),
            "{text}"
        );
    }

    #[test]
    fn free_text_is_read_leniently() {
        let strict = "unknown: clips\nstep: in May | 48/2 = 24\nstep: both | 48 + 24 = 72\nanswer: 72\n";
        check(strict, &["clips"], &[("in May", "48/2", "24"), ("both", "48 + 24", "72")], Some("72"));
        let prose = "In May she sold 48/2 = $24 worth.\nTogether that makes 48 + 24 = 72.\nSo the answer is $72.00.";
        let steps = [("In May she sold", "48/2", "$24"), ("Together that makes", "48 + 24", "72")];
        check(prose, &[], &steps, Some("$72.00"));
        check("so 3 * 4 = 12 = 10 + 2 = 12", &[], &[("so", "3 * 4", "12"), ("", "10 + 2", "12")], Some("12"));
        check("step: nobody knows", &[], &[("nobody knows", "", "")], None);
        check("x = 5", &[], &[("x = 5", "", "")], Some("5"));
        check("**Answer:** 1,234", &[], &[], Some("1,234"));
        check("The answer is a secret", &[], &[], None);
        check("a hundred", &[], &[], None);
        check("", &[], &[], None);
    }

    #[test]
    fn lines_under_the_grammar_are_cut_apart() {
        let step = |text: &str, expression: &str, claimed: &str| {
            let (text, expression, claimed) = (text.into(), expression.into(), claimed.into());
            Some(Line::Step(ChainStep { text, expression, claimed, ..ChainStep::default() }))
        };
        assert_eq!(Line::parse("step: in May | 48/2 = 24\n"), step("in May", "48/2", "24"));
        assert_eq!(Line::parse("step: in May | 48/2 ="), step("in May", "48/2", ""));
        assert_eq!(Line::parse("answer: 3/4\n"), Some(Line::Answer("3/4".into())));
        for broken in ["", "step: a = b", "answer 3", "stop"] {
            assert_eq!(Line::parse(broken), None, "{broken}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(text in r"(step|answer|unknown|[-0-9+*/=.,$%() |:\néü]){0,60}") {
            let chain = read(&text);
            prop_assert!(chain.steps.iter().all(|step| step.expression.is_empty() || Number::parse(&step.expression).is_some()));
        }
    }
}
