//! What was decided, as a record tells it: the outcome first, then what goes with it, in the decision's own words.

use maud::{Markup, html};
use protocol::DecisionCard;
use serde_json::{Map, Value};

use super::{decide, frame::number, view::View};

/// The output of a decision; `card` is that of the decision, if it is still on offer.
pub(super) fn output(view: &View, card: Option<&DecisionCard>, output: &Map<String, Value>) -> Markup {
    let words = Words { view, card };
    let main = ["decision", "route"].into_iter().find_map(|key| output.get_key_value(key)).or(output.iter().next());
    let rest = output.iter().filter(|(name, value)| !value.is_null() && main.is_none_or(|(main, _)| main != *name));
    html! {
        @if let Some((_, value)) = main { p.verdict.(tone(value)) { (words.told(value)) } }
        dl.pairs { @for (name, value) in rest { dt { (words.word(name)) } dd { (words.told(value)) } } }
    }
}

/// Good and bad news of the decisions that are shipped; `decide.mjs` tells them in the same way.
fn tone(value: &Value) -> &'static str {
    let word = value.as_str().unwrap_or_default();
    let begins = |starts: &[&str]| starts.iter().any(|start| word.starts_with(start));
    if begins(&["approved", "full", "fast"]) {
        "good"
    } else if begins(&["refused", "investigation", "rejected", "denied"]) {
        "bad"
    } else {
        "open"
    }
}

struct Words<'a> {
    view: &'a View,
    card: Option<&'a DecisionCard>,
}

impl Words<'_> {
    fn word<'a>(&'a self, key: &'a str) -> &'a str {
        // Words are written for sentences: a name in a table needs no colon.
        let word = self.card.and_then(|card| decide::word(self.view, card, key)).unwrap_or(key);
        word.trim_end_matches([':', '：'])
    }

    fn told(&self, value: &Value) -> String {
        match value {
            Value::Null => "–".to_owned(),
            Value::Bool(yes) => self.view.t(if *yes { "decide.yes" } else { "decide.no" }).to_owned(),
            Value::Number(value) => value.as_u64().map_or_else(|| value.to_string(), number),
            Value::String(text) => self.word(text).to_owned(),
            Value::Array(items) => items.iter().map(|item| self.told(item)).collect::<Vec<_>>().join(", "),
            Value::Object(fields) => match fields.get(self.view.lang.code()).and_then(Value::as_str) {
                Some(text) => text.to_owned(),
                None => {
                    let field = |(name, value): (&String, &Value)| format!("{} {}", self.word(name), self.told(value));
                    fields.iter().map(field).collect::<Vec<_>>().join(", ")
                }
            },
        }
    }
}
