//! One way to ask for metadata, whether GGUF or `config.json` answers.
//!
//! Both become a flat map from dotted keys to [`Value`]s (`rope_scaling.factor`), and a [`Key`] names a field in both
//! languages, so a family is written once.

use std::collections::BTreeMap;

use crate::Problem;
use crate::value::Value;

/// Whole numbers beyond this are no dimensions: products of two still fit 64 bits.
const MAX_DIMENSION: i64 = 1 << 31;

/// Who wrote the metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Gguf,
    HuggingFace,
}

/// A field's name in both languages; an empty one is never found.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Key {
    /// Without the architecture in front of it.
    pub(crate) gguf: &'static str,
    pub(crate) hf: &'static str,
}

pub(crate) const fn key(gguf: &'static str, hf: &'static str) -> Key {
    Key { gguf, hf }
}

/// The metadata of a checkpoint.
#[derive(Debug)]
pub(crate) struct Fields {
    pub(crate) format: Format,
    /// What stands in front of a model's own keys: `llama.`, or `text_config.` where there is more than text.
    prefix: String,
    values: BTreeMap<String, Value>,
}

impl Fields {
    pub(crate) fn gguf(values: BTreeMap<String, Value>) -> Self {
        let prefix = match values.get("general.architecture") {
            Some(Value::Text(architecture)) => format!("{architecture}."),
            _ => String::new(),
        };
        Self { format: Format::Gguf, prefix, values }
    }

    pub(crate) fn hugging_face(config: &serde_json::Value) -> Self {
        let mut values = BTreeMap::new();
        flatten(String::new(), config, &mut values);
        let prefix = if values.contains_key("text_config.model_type") { "text_config." } else { "" };
        Self { format: Format::HuggingFace, prefix: prefix.into(), values }
    }

    /// By its full name, as the file spells it.
    pub(crate) fn raw(&self, name: &str) -> Option<&Value> {
        self.values.get(name)
    }

    /// The text of a field by its full name.
    pub(crate) fn raw_text(&self, name: &str) -> Option<&str> {
        match self.raw(name) {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// Moves a value out: vocabularies are large.
    pub(crate) fn take(&mut self, name: &str) -> Option<Value> {
        self.values.remove(name)
    }

    /// What the checkpoint calls its architecture.
    pub(crate) fn architecture(&self) -> &str {
        match self.format {
            Format::Gguf => self.raw_text("general.architecture"),
            Format::HuggingFace => self.raw_text(&format!("{}model_type", self.prefix)),
        }
        .unwrap_or_default()
    }

    /// The model's own fields.
    pub(crate) fn model(&self) -> View<'_> {
        View { fields: self, prefix: self.prefix.clone() }
    }
}

/// A part of the fields: those of the model, or of a group inside it.
#[derive(Debug, Clone)]
pub(crate) struct View<'a> {
    fields: &'a Fields,
    prefix: String,
}

impl<'a> View<'a> {
    pub(crate) fn format(&self) -> Format {
        self.fields.format
    }

    /// The fields of a group, if it has any.
    pub(crate) fn group(&self, name: &str) -> Option<Self> {
        let prefix = format!("{}{name}.", self.prefix);
        let mut from = self.fields.values.range(prefix.clone()..);
        let there = from.next().is_some_and(|(name, _)| name.starts_with(&prefix));
        there.then_some(Self { fields: self.fields, prefix })
    }

    fn name(&self, key: Key) -> String {
        let own = if self.format() == Format::Gguf { key.gguf } else { key.hf };
        format!("{}{own}", self.prefix)
    }

    fn get(&self, key: Key) -> Option<&'a Value> {
        self.fields.values.get(&self.name(key))
    }

    fn wrong<T>(&self, key: Key, value: &Value, expected: &str) -> Result<T, Problem> {
        Err(Problem::field(self.name(key), format!("is {value:?}, expected {expected}")))
    }

    fn required<T>(&self, key: Key, value: Option<T>) -> Result<T, Problem> {
        value.ok_or_else(|| Problem::field(self.name(key), "is missing: the checkpoint is incomplete"))
    }

    /// A size: a whole number from 1 on.
    pub(crate) fn size(&self, key: Key) -> Result<Option<usize>, Problem> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Integer(n)) if (1..MAX_DIMENSION).contains(n) => Ok(usize::try_from(*n).ok()),
            Some(other) => self.wrong(key, other, "a whole number from 1 to 2147483647"),
        }
    }

    /// A size that must be there.
    pub(crate) fn need_size(&self, key: Key) -> Result<usize, Problem> {
        self.required(key, self.size(key)?)
    }

    /// A finite number.
    pub(crate) fn number(&self, key: Key) -> Result<Option<f32>, Problem> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Integer(n)) => Ok(Some(*n as f32)),
            Some(Value::Float(x)) if x.is_finite() => Ok(Some(*x as f32)),
            Some(other) => self.wrong(key, other, "a finite number"),
        }
    }

    /// A finite number that must be there.
    pub(crate) fn need_number(&self, key: Key) -> Result<f32, Problem> {
        self.required(key, self.number(key)?)
    }

    /// Names and finite numbers of a group, if it is there.
    pub(crate) fn numbers(&self, name: &str) -> Result<Vec<(&'a str, f32)>, Problem> {
        let (alone, prefix) = (format!("{}{name}", self.prefix), format!("{}{name}.", self.prefix));
        let inside = self.fields.values.range(prefix.clone()..);
        let inside = inside.map_while(|(full, value)| Some((full.strip_prefix(&prefix)?, value)));
        let group = self.fields.values.get(&alone).map(|value| ("", value)).into_iter().chain(inside);
        let number = |(own, value): (&'a str, &Value)| match value {
            Value::Integer(n) if !own.is_empty() => Ok((own, *n as f32)),
            Value::Float(x) if !own.is_empty() && x.is_finite() => Ok((own, *x as f32)),
            other => Err(Problem::field(&alone, format!("has {other:?}, expected names with finite numbers"))),
        };
        group.map(number).collect()
    }

    /// A truth.
    pub(crate) fn truth(&self, key: Key) -> Result<Option<bool>, Problem> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Bool(b)) => Ok(Some(*b)),
            Some(other) => self.wrong(key, other, "true or false"),
        }
    }

    /// A text.
    pub(crate) fn text(&self, key: Key) -> Result<Option<&'a str>, Problem> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(other) => self.wrong(key, other, "a text"),
        }
    }

    /// A list of texts.
    pub(crate) fn texts(&self, key: Key) -> Result<Option<&'a [String]>, Problem> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Texts(texts)) => Ok(Some(texts)),
            Some(other) => self.wrong(key, other, "a list of texts"),
        }
    }
}

/// `null` says nothing, lists keep their type if it is one, objects become dotted names.
fn flatten(name: String, json: &serde_json::Value, into: &mut BTreeMap<String, Value>) {
    use serde_json::Value as Json;
    let value = match json {
        Json::Null => return,
        Json::Object(map) => {
            for (key, inner) in map {
                flatten(if name.is_empty() { key.clone() } else { format!("{name}.{key}") }, inner, into);
            }
            return;
        }
        Json::Bool(b) => Value::Bool(*b),
        Json::Number(n) => n.as_i64().map_or_else(|| Value::Float(n.as_f64().unwrap_or(f64::NAN)), Value::Integer),
        Json::String(text) => Value::Text(text.clone()),
        Json::Array(list) => flat_list(list),
    };
    into.insert(name, value);
}

fn flat_list(list: &[serde_json::Value]) -> Value {
    let texts: Option<Vec<_>> = list.iter().map(|v| v.as_str().map(str::to_owned)).collect();
    let integers = || list.iter().map(serde_json::Value::as_i64).collect::<Option<Vec<_>>>();
    let floats = || list.iter().map(|v| v.as_f64().map(|x| x as f32)).collect::<Option<Vec<_>>>();
    match texts {
        Some(texts) => Value::Texts(texts),
        None => {
            integers().map(Value::Integers).or_else(|| floats().map(Value::Floats)).unwrap_or(Value::Lists(Vec::new()))
        }
    }
}
