//! Keeps a caller's text that looks like control tokens apart from a template's own control tokens.
//!
//! On the way in, whatever spells control tokens in a caller's string is put between two marks; on the way out, marks
//! become ranges. A string that ends in the beginning of a control token gets a mark too, so that no following string can
//! complete it. Strings without look-alikes are not touched, so a template sees exactly what `transformers` would show
//! it. The marks are Unicode noncharacters, which no text has; a text that has them nevertheless gets them escaped.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use minijinja::Value as Variable;
use serde_json::Value;

use crate::tokenizer::Specials;

const OPEN: char = '\u{FDD0}';
const CLOSE: char = '\u{FDD1}';
/// No control token may straddle this place.
const CUT: char = '\u{FDD2}';
/// The next character is no mark.
const ESCAPE: char = '\u{FDD3}';

/// One of the characters used as marks.
pub(super) fn is_mark(c: char) -> bool {
    (OPEN..=ESCAPE).contains(&c)
}

/// Puts marks into the values a caller gives.
#[derive(Debug)]
pub(super) struct Marks {
    specials: Arc<Specials>,
    /// Texts of control tokens in order, to find by their beginnings.
    controls: Vec<String>,
    longest: usize,
}

impl Marks {
    pub(super) fn new(specials: Arc<Specials>) -> Self {
        let mut controls: Vec<String> = specials.controls().map(str::to_owned).collect();
        controls.sort_unstable();
        let longest = controls.iter().map(String::len).max().unwrap_or(0);
        Self { specials, controls, longest }
    }

    /// A JSON value as a template sees it, marked. Adds to `values` how many values it is made of.
    pub(super) fn mark(&self, value: &Value, values: &mut u64) -> Variable {
        *values += 1;
        match value {
            Value::Null => Variable::from(()),
            Value::Bool(truth) => Variable::from(*truth),
            Value::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(number), _) => Variable::from(number),
                (None, Some(number)) => Variable::from(number),
                (None, None) => Variable::from(number.as_f64().unwrap_or(f64::NAN)),
            },
            Value::String(text) => Variable::from(&*self.mark_text(text)),
            Value::Array(list) => list.iter().map(|value| self.mark(value, values)).collect(),
            Value::Object(fields) => {
                let marked =
                    fields.iter().map(|(name, value)| (self.mark_text(name).into_owned(), self.mark(value, values)));
                Variable::from_pairs(marked)
            }
        }
    }

    fn mark_text<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let lookalikes = self.specials.control_ranges(text);
        let cut = self.begins_control_at_end(text);
        if lookalikes.is_empty() && !cut && !text.contains(is_mark) {
            return text.into();
        }
        let mut marked = String::with_capacity(text.len() + 16);
        let mut done = 0;
        for range in lookalikes {
            escape(&text[done..range.start], &mut marked);
            marked.push(OPEN);
            escape(&text[range.clone()], &mut marked);
            marked.push(CLOSE);
            done = range.end;
        }
        escape(&text[done..], &mut marked);
        marked.extend(cut.then_some(CUT));
        marked.into()
    }

    /// Some end of the text is the beginning of a control token.
    fn begins_control_at_end(&self, text: &str) -> bool {
        let shortest = text.len().saturating_sub(self.longest.saturating_sub(1));
        (shortest..text.len()).filter_map(|at| text.get(at..)).any(|end| {
            let place = self.controls.partition_point(|control| control.as_str() <= end);
            self.controls.get(place).is_some_and(|control| control.starts_with(end))
        })
    }
}

fn escape(text: &str, marked: &mut String) {
    for c in text.chars() {
        marked.extend(is_mark(c).then_some(ESCAPE));
        marked.push(c);
    }
}

/// The text without marks, and the ranges of it that they stood for. A mark that has lost its partner (templates may
/// split strings) still forbids a control token across its place.
pub(super) fn unmark(marked: &str) -> (String, Vec<Range<usize>>) {
    let mut text = String::with_capacity(marked.len());
    let mut literal: Vec<Range<usize>> = Vec::new();
    let mut opened = None;
    let mut chars = marked.chars();
    while let Some(c) = chars.next() {
        let here = text.len();
        match c {
            OPEN => {
                literal.extend(opened.replace(here).map(|lone| lone..lone));
            }
            CLOSE => literal.push(opened.take().unwrap_or(here)..here),
            CUT => literal.push(here..here),
            ESCAPE => text.extend(chars.next()),
            other => text.push(other),
        }
    }
    literal.extend(opened.map(|lone| lone..lone));
    literal.sort_unstable_by_key(|range| (range.end, range.start));
    (text, literal)
}
