//! Settings as a file that explains itself: every key with the comment, the default and the order of its type.

use schemars::Schema;
use serde_json::{Map, Value};

use super::Settings;

/// A table of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// Its header, such as `[server.tls]` or `[[upstreams]]`.
    pub header: String,
    /// What it is for.
    pub about: String,
    /// Its keys.
    pub keys: Vec<Key>,
    /// It only shows what could stand there.
    pub example: bool,
}

/// A key of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Its name.
    pub name: String,
    /// Its value, as TOML.
    pub value: String,
    /// What it means.
    pub about: String,
}

impl Settings {
    /// The file that `config init` writes: every key with its default, switched off.
    pub fn sample() -> String {
        let head =
            "# Settings of Tessera. Every key may be left out; a key that is switched off with # shows its default.\n";
        head.to_owned() + &laid_out(&Self::default().sections(true), "#")
    }

    /// These settings as a file, secrets redacted.
    pub fn written(&self) -> String {
        laid_out(&self.sections(false), "").trim_start().to_owned()
    }

    /// Only what differs from the defaults, as a file.
    pub fn written_changes(&self) -> String {
        let mut sections = self.sections(false);
        let defaults = Self::default().sections(true);
        for section in &mut sections {
            let kind = |header: &str| header.split(['.', ']']).next().unwrap_or_default().to_owned();
            let same = |default: &&Section| {
                default.header == section.header || default.example && kind(&default.header) == kind(&section.header)
            };
            let default = defaults.iter().find(same);
            section.keys.retain(|key| {
                default
                    .is_none_or(|default| !default.keys.iter().any(|d| (&d.name, &d.value) == (&key.name, &key.value)))
            });
        }
        sections.retain(|section| !section.keys.is_empty());
        laid_out(&sections, "").trim_start().to_owned()
    }

    /// The tables and keys of the file; with `examples` also one of every table that there may be several of.
    pub fn sections(&self, examples: bool) -> Vec<Section> {
        let schema = Self::schema();
        let values = serde_json::to_value(self).unwrap_or_default();
        let mut walk = Walk { schema: &schema, sections: Vec::new(), examples };
        walk.root(&values);
        walk.sections
    }
}

fn laid_out(sections: &[Section], off: &str) -> String {
    let comment = |text: &str| text.lines().map(|line| format!("# {line}\n")).collect::<String>();
    let key = |key: &Key| format!("{}{off}{} = {}\n", comment(&key.about), key.name, key.value);
    let section = |(i, section): (usize, &Section)| {
        let off = if section.example { off } else { "" };
        let keys: String = section.keys.iter().map(key).collect();
        // Of several tables of one kind the first is explained.
        let again = i > 0 && sections[i - 1].about == section.about;
        let about = if again { String::new() } else { comment(&section.about) };
        format!("\n{about}{off}{}\n{keys}", section.header)
    };
    sections.iter().enumerate().map(section).collect()
}

struct Walk<'a> {
    schema: &'a Schema,
    sections: Vec<Section>,
    examples: bool,
}

impl<'a> Walk<'a> {
    fn root(&mut self, values: &Value) {
        let schema = self.schema;
        for (name, about) in properties(schema.as_value()) {
            self.member(name, about, &values[name]);
        }
    }

    /// A top-level member: a table, a table of named tables, or an array of tables.
    fn member(&mut self, name: &str, schema: &'a Value, value: &Value) {
        match value {
            Value::Array(items) => {
                let each = self.inner(&schema["items"]);
                items.iter().for_each(|item| self.table(&format!("[[{name}]]"), schema, each, item));
                self.example(&format!("[[{name}]]"), schema, each, items.is_empty());
            }
            Value::Object(tables) if !schema["additionalProperties"].is_null() => {
                let each = self.inner(&schema["additionalProperties"]);
                tables.iter().for_each(|(key, table)| self.table(&named(name, key), schema, each, table));
                self.example(&named(name, "NAME"), schema, each, tables.is_empty());
            }
            _ => {
                let inner = self.inner(schema);
                self.table(&format!("[{name}]"), schema, inner, value);
            }
        }
    }

    fn example(&mut self, header: &str, about: &'a Value, schema: &'a Value, wanted: bool) {
        if self.examples && wanted {
            let defaults: Map<String, Value> =
                properties(schema).map(|(name, schema)| (name.to_owned(), schema["default"].clone())).collect();
            self.table(header, about, schema, &Value::Object(defaults));
            self.sections.iter_mut().rev().take(1).for_each(|section| section.example = true);
        }
    }

    fn table(&mut self, header: &str, about: &'a Value, schema: &'a Value, value: &Value) {
        let (mut keys, mut tables) = (Vec::new(), Vec::new());
        for (name, schema) in properties(schema) {
            let inner = self.inner(schema);
            if inner["properties"].is_object() {
                tables.push((format!("{}.{name}]", header.trim_end_matches(']')), schema, inner, &value[name]));
            } else {
                keys.push(Key { name: name.to_owned(), value: toml(&value[name]), about: text(schema, inner) });
            }
        }
        self.sections.push(Section { header: header.to_owned(), about: text(about, schema), keys, example: false });
        tables.into_iter().for_each(|(header, about, schema, value)| self.table(&header, about, schema, value));
    }

    /// The schema behind a reference.
    fn inner(&self, schema: &'a Value) -> &'a Value {
        let pointer = schema["$ref"].as_str().and_then(|reference| reference.strip_prefix('#'));
        pointer.and_then(|pointer| self.schema.pointer(pointer)).unwrap_or(schema)
    }
}

fn named(table: &str, key: &str) -> String {
    let bare = key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if bare { format!("[{table}.{key}]") } else { format!("[{table}.{}]", Value::from(key)) }
}

fn properties(schema: &Value) -> impl Iterator<Item = (&str, &Value)> + Clone {
    schema["properties"].as_object().into_iter().flatten().map(|(name, schema)| (name.as_str(), schema))
}

/// A member's own description, or that of its type; words that a value may be are added.
fn text(member: &Value, kind: &Value) -> String {
    let about = [member, kind].iter().find_map(|schema| schema["description"].as_str()).unwrap_or_default();
    let about = about.lines().map(str::trim).collect::<Vec<_>>().join(" ");
    let words: Vec<String> =
        kind["oneOf"].as_array().into_iter().flatten().map(|one| one["const"].to_string()).collect();
    if words.is_empty() { about } else { format!("{} One of {}.", about, words.join(", ")) }
}

/// A value as TOML; JSON's strings, numbers and truth values are TOML's too.
fn toml(value: &Value) -> String {
    match value {
        Value::Null => "\"\"".to_owned(),
        Value::Array(items) => format!("[{}]", items.iter().map(toml).collect::<Vec<_>>().join(", ")),
        Value::Object(map) if map.is_empty() => "{}".to_owned(),
        Value::Object(map) => {
            let pairs = map.iter().map(|(key, value)| format!("{} = {}", Value::from(key.as_str()), toml(value)));
            format!("{{ {} }}", pairs.collect::<Vec<_>>().join(", "))
        }
        Value::Number(number) if number.is_f64() => decimal(number.as_f64().unwrap_or_default()),
        scalar => scalar.to_string(),
    }
}

/// A number as it was written: JSON holds all in 64 bits, and the tail of a shorter one is noise. TOML wants the point.
fn decimal(number: f64) -> String {
    let short = number as f32;
    if f64::from(short) == number { format!("{short:?}") } else { format!("{number:?}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Switches every key on.
    fn on(sample: &str) -> String {
        let line = |line: &str| match line.strip_prefix('#') {
            Some(rest) if rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '[') => format!("{rest}\n"),
            _ => format!("{line}\n"),
        };
        sample.lines().map(line).collect()
    }

    #[test]
    fn the_sample_changes_nothing_and_shows_the_defaults() {
        let sample = Settings::sample();
        assert_eq!(Settings::parse(&sample).unwrap(), Settings::default());
        let all: Settings = toml::from_str(&on(&sample)).unwrap();
        let [tenant] = all.tenants.values().collect::<Vec<_>>()[..] else { panic!("one tenant") };
        assert_eq!(*tenant, super::super::Tenant::default());
        assert_eq!(all.upstreams, [super::super::Upstream::default()]);
        assert_eq!(all.rollouts, [super::super::Rollout::default()]);
        assert_eq!(all.cascades, [super::super::Cascade::default()]);
        assert_eq!(all.loops, [super::super::Loop::default()]);
        assert_eq!(all.conversions, [super::super::Conversion::default()]);
        let plain = Settings { tenants: [].into(), prices: [].into(), upstreams: vec![], workers: vec![], ..all };
        let plain = Settings { routes: vec![], rollouts: vec![], cascades: vec![], ..plain };
        assert_eq!(Settings { loops: vec![], conversions: vec![], ..plain }, Settings::default());
    }

    #[test]
    fn every_key_is_explained() {
        for section in Settings::default().sections(true) {
            assert!(!section.about.is_empty(), "{}", section.header);
            section.keys.iter().for_each(|key| assert!(!key.about.is_empty(), "{} {}", section.header, key.name));
        }
    }

    #[test]
    fn what_is_shown_means_the_same_and_tells_no_secret() {
        let text = "[server]\nlisten = \"localhost:1\"\n[tenants.\"a b\"]\nbudget = \"1.50\"\nmodels = [\"m\"]\n\
                    [[upstreams]]\nname = \"gpu\"\nurl = \"http://g\"\nkey = \"sk-very\"\nmodels = { a = \"b\" }\n";
        let settings = Settings::parse(text).unwrap();
        let written = settings.written();
        assert!(!written.contains("sk-very") && written.contains("[redacted]"), "{written}");
        let read = Settings::parse(&written).unwrap();
        assert_eq!(read.digest(), settings.digest());
    }

    const REFERENCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md");
    const MARK: &str =
        "<!-- Generated from the settings' types by `TESSERA_UPDATE=1 cargo test -p gateway reference`. -->\n";

    fn reference() -> String {
        let row = |key: &Key| format!("| `{}` | `{}` | {} |\n", key.name, key.value, key.about.replace('|', "\\|"));
        let section = |section: &Section| {
            let rows: String = section.keys.iter().map(row).collect();
            let table = if rows.is_empty() {
                String::new()
            } else {
                format!("\n| key | default | what |\n|---|---|---|\n{rows}")
            };
            format!("\n### `{}`\n\n{}\n{table}", section.header, section.about)
        };
        Settings::default().sections(true).iter().map(section).collect()
    }

    #[test]
    fn the_reference_equals_its_committed_copy() {
        let committed = std::fs::read_to_string(REFERENCE).unwrap();
        let (head, _) = committed.split_once(MARK).unwrap();
        let current = format!("{head}{MARK}{}", reference());
        if std::env::var_os("TESSERA_UPDATE").is_some() {
            std::fs::write(REFERENCE, &current).unwrap();
        }
        assert!(
            committed == current,
            "docs/configuration.md is old: run TESSERA_UPDATE=1 cargo test -p gateway reference"
        );
    }
}
