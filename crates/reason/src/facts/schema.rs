//! What a decision needs to know: a JSON schema whose properties say how a text speaks of them.
//!
//! The file is a JSON schema like any other. What only reading needs stands in it under `x-fact` (one per property) and
//! `x-decision` (one for the whole), and every error there names the property.

use std::{collections::BTreeMap, fmt};

use protocol::JsonSchema;
use regex::Regex;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{denied, propose::Period};

/// The language of questions and explanations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Language {
    #[default]
    English,
    Chinese,
}

impl Language {
    /// Of a BCP 47 tag; whatever is not Chinese is answered in English.
    pub(crate) fn of_tag(tag: &str) -> Self {
        if tag.to_ascii_lowercase().starts_with("zh") { Self::Chinese } else { Self::English }
    }

    /// Of a text: Chinese if a tenth of its letters are.
    pub(crate) fn of_text(text: &str) -> Self {
        let letters = text.chars().filter(|c| c.is_alphabetic()).count();
        let han = text.chars().filter(|c| ('\u{4e00}'..='\u{9fff}').contains(c)).count();
        if han > 0 && han * 10 >= letters { Self::Chinese } else { Self::English }
    }
}

/// A text in English and, where somebody wrote it, in Chinese.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Words {
    pub(crate) en: String,
    #[serde(default)]
    pub(crate) zh: Option<String>,
}

impl Words {
    pub(crate) fn in_language(&self, language: Language) -> &str {
        match (language, &self.zh) {
            (Language::Chinese, Some(zh)) => zh,
            _ => &self.en,
        }
    }
}

/// The facts of one decision.
pub(crate) struct Facts {
    /// The schema as it stands in the file, for cards.
    pub(crate) json: Value,
    pub(crate) title: String,
    pub(crate) slots: Vec<Slot>,
    /// Nodes, fields and values in words, for explanations.
    pub(crate) words: BTreeMap<String, Words>,
    pub(crate) examples: Vec<Example>,
    /// Words beside amounts that are no facts here, such as prices and savings where a loan is asked for.
    pub(crate) other: Vec<String>,
    /// Words in front of what was and is not any more.
    pub(crate) past: Vec<String>,
    /// Words about what is paid and done.
    pub(crate) settled: Vec<String>,
    checked: JsonSchema,
}

impl fmt::Debug for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Facts").field("title", &self.title).field("slots", &self.slots).finish_non_exhaustive()
    }
}

/// A fact a decision can use.
#[derive(Debug, Clone)]
pub(crate) struct Slot {
    pub(crate) name: String,
    pub(crate) title: Words,
    pub(crate) required: bool,
    pub(crate) reading: Reading,
    pub(crate) form: Form,
    /// Finds what says that there is none of it.
    pub(crate) none: Option<Regex>,
}

/// What words of a text a slot of [`Kind::Text`] takes: `pattern`, `minLength` and `maxLength` of its property.
#[derive(Debug, Clone)]
pub(crate) struct Form {
    /// Finds the property's pattern in a text, where the property has one.
    pub(crate) pattern: Option<Regex>,
    /// In characters, at least 1.
    pub(crate) shortest: usize,
    /// In characters.
    pub(crate) longest: usize,
}

/// Characters of a text whose property has no `maxLength`: enough for a name or a product, too few for a story.
const LONGEST_WORDS: usize = 80;

/// How a text speaks of a fact.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Reading {
    pub(crate) kind: Kind,
    /// For amounts per time: the period the graph counts in. For durations: the unit.
    #[serde(default)]
    pub(crate) per: Option<Period>,
    /// The property's title in Chinese.
    #[serde(default)]
    zh: Option<String>,
    /// Words that stand near it, one list for all languages. A `*` behind a word takes its endings too.
    #[serde(default)]
    pub(crate) cues: Vec<String>,
    /// The words that stand for a value by themselves, such as those of a choice, or `0` for "no debts".
    #[serde(default)]
    pub(crate) words: BTreeMap<String, Vec<String>>,
    /// Words that, denied, make it 0: "debt" for "no debt".
    #[serde(default)]
    none: Vec<String>,
    /// Several amounts that its cues stand beside are added up.
    #[serde(default)]
    pub(crate) sum: bool,
    /// What to ask where it is absent.
    #[serde(default)]
    pub(crate) ask: Option<Words>,
}

/// What may fill a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// An amount of money, per [`Reading::per`] if that is given.
    Money,
    /// A plain number.
    Number,
    /// A share, in percent.
    Percent,
    /// A length of time, in [`Reading::per`].
    Duration,
    /// A day, as `YYYY-MM-DD`.
    Date,
    /// One of the values in [`Reading::words`].
    Choice,
    /// The currency of the amounts, as an ISO 4217 code, where they have one and the same.
    Currency,
    /// The day on which is decided.
    Today,
    /// Words of the text itself, such as an order number, a name or a product.
    Text,
}

/// A text with its facts, to show a model what is wanted.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Example {
    pub(crate) text: String,
    /// The quote for each slot.
    pub(crate) quotes: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Extras {
    words: BTreeMap<String, Words>,
    examples: Vec<Example>,
    other: Vec<String>,
    past: Vec<String>,
    settled: Vec<String>,
}

impl Facts {
    /// Reads a schema. The error says which property is at fault.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let json: Value = serde_json::from_str(text).map_err(|error| format!("this is not JSON: {error}"))?;
        let checked = JsonSchema::new(&json).map_err(|error| format!("this is not a JSON schema: {error}"))?;
        let properties = json["properties"].as_object().ok_or("the schema has no `properties`")?;
        let required: Vec<&str> = json["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        if let Some(unknown) = required.iter().find(|name| !properties.contains_key(**name)) {
            return Err(format!("`{unknown}` is required and not among the properties"));
        }
        let slot = |(name, property): (&String, &Value)| {
            slot(name, property, required.contains(&name.as_str()))
                .map_err(|error| format!("property `{name}`: {error}"))
        };
        let slots = properties.iter().map(slot).collect::<Result<Vec<_>, _>>()?;
        let extras = json.get("x-decision").map(Extras::deserialize).transpose();
        let Extras { mut words, examples, other, past, settled } =
            extras.map_err(|error| format!("x-decision: {error}"))?.unwrap_or_default();
        for slot in &slots {
            words.entry(slot.name.clone()).or_insert_with(|| slot.title.clone());
        }
        let title = json["title"].as_str().unwrap_or_default().to_owned();
        Ok(Self { title, slots, words, examples, other, past, settled, checked, json })
    }

    pub(crate) fn slot(&self, name: &str) -> Option<&Slot> {
        self.slots.iter().find(|slot| slot.name == name)
    }

    /// That these facts fit the schema as far as they go: what is missing is not an error here, it is asked for.
    pub(crate) fn check(&self, facts: &Map<String, Value>) -> Result<(), (String, String)> {
        for name in facts.keys() {
            if self.slot(name).is_none() {
                let known: Vec<String> = self.slots.iter().map(|slot| format!("`{}`", slot.name)).collect();
                return Err((
                    name.clone(),
                    format!("This decision knows no such fact; it knows {}.", known.join(", ")),
                ));
            }
        }
        let value = Value::Object(facts.clone());
        for mistake in self.checked.mistakes(&value) {
            let name = mistake.at.trim_start_matches('/').split('/').next().unwrap_or_default().to_owned();
            if !name.is_empty() {
                return Err((name, format!("It does not fit the schema: {}.", mistake.message)));
            }
        }
        Ok(())
    }
}

fn slot(name: &str, property: &Value, required: bool) -> Result<Slot, String> {
    let en = property["title"].as_str().ok_or("it has no `title`")?.to_owned();
    let reading = property.get("x-fact").ok_or("it has no `x-fact`, which says how a text speaks of it")?;
    let reading = Reading::deserialize(reading).map_err(|error| format!("x-fact: {error}"))?;
    if reading.kind == Kind::Duration && reading.per.is_none() {
        return Err("x-fact: a duration needs `per`, the unit it is counted in".to_owned());
    }
    if reading.kind == Kind::Choice && reading.words.is_empty() {
        return Err("x-fact: a choice needs `words`, a list for each of its values".to_owned());
    }
    let form = Form::of(property)?;
    if reading.kind == Kind::Text && (reading.sum || !reading.words.is_empty()) {
        return Err("x-fact: a text is copied from the text as it stands; remove `sum` and `words`".to_owned());
    }
    if reading.kind == Kind::Text && property["type"] != "string" {
        return Err("x-fact: a text needs `\"type\": \"string\"`".to_owned());
    }
    let title = Words { en, zh: reading.zh.clone() };
    let none = denied::finder(&reading.none);
    Ok(Slot { name: name.to_owned(), title, required, reading, form, none })
}

impl Form {
    fn of(property: &Value) -> Result<Self, String> {
        let length = |key: &str| property[key].as_u64().and_then(|length| usize::try_from(length).ok());
        let is_text = property["x-fact"]["kind"] == "text";
        let pattern = property["pattern"].as_str().filter(|_| is_text).map(finder).transpose()?;
        let shortest = length("minLength").unwrap_or(1).max(1);
        let longest = length("maxLength").unwrap_or(LONGEST_WORDS.max(shortest));
        if longest < shortest {
            return Err(format!("no text has at least {shortest} and at most {longest} characters"));
        }
        Ok(Self { pattern, shortest, longest })
    }
}

/// Finds what the pattern of a property describes inside a text, where a schema describes the whole value: without its anchors, and
/// not in the middle of a longer word or number.
fn finder(pattern: &str) -> Result<Regex, String> {
    let inner = pattern.strip_prefix('^').unwrap_or(pattern);
    let inner = inner.strip_suffix('$').filter(|head| !head.ends_with('\\')).unwrap_or(inner);
    let whole = format!(r"(?-u:\b{{start-half}})(?:{inner})(?-u:\b{{end-half}})");
    let trouble = |error| format!("a text cannot be searched for its `pattern`, write it without look-around: {error}");
    Regex::new(&whole).map_err(trouble)
}

impl Slot {
    /// Only a model can say which words of a text it is.
    pub(crate) fn is_free(&self) -> bool {
        self.reading.kind == Kind::Text && self.form.pattern.is_none()
    }

    /// What to ask where the fact is absent.
    pub(crate) fn question(&self, language: Language) -> String {
        match (&self.reading.ask, language) {
            (Some(ask), _) => ask.in_language(language).to_owned(),
            (None, Language::English) => format!("What is the {}?", self.title.en.to_lowercase()),
            (None, Language::Chinese) => format!("请问{}是多少？", self.title.in_language(language)),
        }
    }
}
