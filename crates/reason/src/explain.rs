//! What happened, in words: the action of a step, the rule that decided it, and the sentences of an explanation.
//!
//! Everything said comes from the graph's own cells and values; the schema's `words` give them names in English and Chinese.
//! Nothing here is written by a model.

use std::{
    collections::{BTreeMap, HashMap},
    hash::BuildHasher,
    sync::Arc,
};

use protocol::Step;
use rust_decimal::Decimal;
use serde_json::Value;
use zen_types::decision::{DecisionTableContent, SwitchNodeContent};

use crate::{
    facts::schema::{Language, Words},
    graph::{Kind, Node, Rule},
};

/// Rules named for one step at most; a loop over many elements hits many rows.
const RULES: usize = 8;

/// Speaks one language about one decision.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Speaker<'a> {
    pub(crate) language: Language,
    pub(crate) words: Option<&'a BTreeMap<String, Words>>,
}

impl<'a> Speaker<'a> {
    /// The words for a key, or what stands in for them.
    fn say<'t>(&self, key: &str, otherwise: &'t str) -> &'t str
    where
        'a: 't,
    {
        self.words.and_then(|words| words.get(key)).map_or(otherwise, |words| words.in_language(self.language))
    }

    fn pick(&self, en: &'static str, zh: &'static str) -> &'static str {
        match self.language {
            Language::English => en,
            Language::Chinese => zh,
        }
    }

    /// What a node does.
    pub(crate) fn action(&self, node: &Node) -> String {
        self.say(&node.id, &node.name).to_owned()
    }

    /// Why a node came out as it did.
    pub(crate) fn rule(&self, node: &Node, rules: &[Rule]) -> Option<String> {
        let one = |rule: &Rule| match (rule, &node.kind) {
            (Rule::Row(row), Kind::Table(content)) => self.row(node, content, *row),
            (Rule::Branch(id), Kind::Switch(content)) => self.branch(content, id),
            _ => None,
        };
        let mut said: Vec<String> = rules.iter().take(RULES).filter_map(one).collect();
        if rules.len() > RULES {
            said.push("…".to_owned());
        }
        (!said.is_empty()).then(|| said.join(self.pick("; ", "；")))
    }

    /// A row: its description if somebody wrote one, else its tests.
    fn row(&self, node: &Node, content: &DecisionTableContent, row: usize) -> Option<String> {
        let rule = content.rules.get(row)?;
        let key = rule.get("_id").map(|id| format!("{}.{id}", node.id)).unwrap_or_default();
        if let Some(words) = self.words.and_then(|words| words.get(&key)) {
            return Some(words.in_language(self.language).to_owned());
        }
        if let Some(description) = rule.get("_description").filter(|text| !text.is_empty()) {
            return Some(description.to_string());
        }
        Some(self.tests(content, rule))
    }

    fn tests<S: BuildHasher>(&self, content: &DecisionTableContent, rule: &HashMap<Arc<str>, Arc<str>, S>) -> String {
        let tests: Vec<String> = content
            .inputs
            .iter()
            .filter_map(|input| {
                let cell = rule.get(&input.id).filter(|cell| !cell.is_empty())?;
                let Some(field) = &input.field else { return Some(cell.to_string()) };
                Some(self.test(self.say(field, field), cell))
            })
            .collect();
        match tests.is_empty() {
            true => self.otherwise(),
            false => tests.join(self.pick(" and ", " 且 ")),
        }
    }

    fn test(&self, field: &str, cell: &str) -> String {
        match cell.chars().next() {
            Some('<' | '>' | '!' | '=') => format!("{field} {cell}"),
            Some('[' | '(' | ']') if cell.contains("..") => format!("{field} {} {cell}", self.pick("in", "在")),
            _ if cell.contains('$') => cell.replace('$', field),
            _ => format!("{field} {} {cell}", self.pick("is", "为")),
        }
    }

    fn branch(&self, content: &SwitchNodeContent, id: &Arc<str>) -> Option<String> {
        let statement = content.statements.iter().find(|statement| statement.id == *id)?;
        match statement.condition.is_empty() {
            true => Some(self.otherwise()),
            false => Some(statement.condition.to_string()),
        }
    }

    fn otherwise(&self) -> String {
        self.pick("otherwise", "其他情况").to_owned()
    }

    /// The way to a decision, a sentence for every step.
    pub(crate) fn explanation(&self, steps: &[Step]) -> String {
        let sentences: Vec<String> = steps.iter().filter_map(|step| self.sentence(step)).collect();
        sentences.join(self.pick(" ", ""))
    }

    fn sentence(&self, step: &Step) -> Option<String> {
        let result = self.value(&step.result);
        let result = unnamed(&step.action, &result);
        if result.is_empty() {
            return None;
        }
        let colon = self.pick(": ", "：");
        Some(match &step.rule {
            Some(rule) => {
                let (open, close) = (self.pick(" (because ", "（依据："), self.pick(").", "）。"));
                format!("{}{colon}{result}{open}{rule}{close}", step.action)
            }
            None => format!("{}{colon}{result}{}", step.action, self.pick(".", "。")),
        })
    }

    /// A value in words. Objects in both languages are texts.
    pub(crate) fn value(&self, value: &Value) -> String {
        match value {
            Value::Null => String::new(),
            Value::Bool(true) => self.pick("yes", "是").to_owned(),
            Value::Bool(false) => self.pick("no", "否").to_owned(),
            Value::Number(number) => grouped(&number.to_string()),
            Value::String(text) => self.say(text, text).to_owned(),
            Value::Array(items) => self.list(items.iter().map(|item| self.value(item))),
            Value::Object(fields) => match (fields.get("en"), fields.get("zh")) {
                (Some(Value::String(en)), Some(Value::String(zh))) => match self.language {
                    Language::English => en.trim_end_matches('.').to_owned(),
                    Language::Chinese => zh.trim_end_matches('。').to_owned(),
                },
                _ => self.list(fields.iter().map(|(key, value)| self.field(key, value))),
            },
        }
    }

    fn field(&self, key: &str, value: &Value) -> String {
        let value = self.value(value);
        if value.is_empty() { value } else { format!("{} {value}", self.say(key, key)) }
    }

    fn list(&self, items: impl Iterator<Item = String>) -> String {
        let said: Vec<String> = items.filter(|item| !item.is_empty()).collect();
        said.join(self.pick(", ", "，"))
    }
}

/// A result without the action's own name in front, where a field is called like its node.
fn unnamed<'t>(action: &str, result: &'t str) -> &'t str {
    let named = result.get(..action.len()).is_some_and(|head| head.eq_ignore_ascii_case(action));
    if named { result[action.len()..].trim_start_matches([':', '：', ' ']) } else { result }
}

/// A number with commas between thousands, and at most four places: an explanation is read, the step has them all.
fn grouped(number: &str) -> String {
    let rounded = number.parse::<Decimal>().map(|number| number.round_dp(4).normalize().to_string());
    let number = rounded.as_deref().unwrap_or(number);
    let (sign, digits) = number.strip_prefix('-').map_or(("", number), |digits| ("-", digits));
    let (whole, part) = digits.split_once('.').map_or((digits, None), |(whole, part)| (whole, Some(part)));
    if !whole.bytes().all(|b| b.is_ascii_digit()) {
        return number.to_owned();
    }
    let mut said = String::new();
    for (place, digit) in whole.chars().enumerate() {
        if place > 0 && (whole.len() - place).is_multiple_of(3) {
            said.push(',');
        }
        said.push(digit);
    }
    let part = part.map(|part| format!(".{part}")).unwrap_or_default();
    format!("{sign}{said}{part}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        let check = |number, wanted| assert_eq!(grouped(number), wanted);
        check("0", "0");
        check("999", "999");
        check("1000", "1,000");
        check("-1234567.5", "-1,234,567.5");
        check("20000.0", "20,000");
        check("1.2702370516206536", "1.2702");
        check("1e30", "1e30");
    }
}
