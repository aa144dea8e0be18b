//! JSON schemas, ready to check values with: answers that must fit one, facts, the input and output of decisions.
//!
//! A schema is taken as it stands (drafts 4 to 2020-12, the last one unless it says otherwise); nothing it refers to is fetched.

use std::{error::Error, fmt};

use boon::{CompileError, Compiler, Draft, SchemaIndex, Schemas, UrlLoader, ValidationError};
use serde_json::Value;

/// What the schema itself is called while it is compiled; one that has an `$id` keeps it.
const PLACE: &str = "schema:///";

/// A compiled JSON schema.
pub struct JsonSchema {
    schemas: Schemas,
    index: SchemaIndex,
}

/// Something about a value that does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Where in the value, as a JSON pointer; empty for the whole.
    pub at: String,
    /// Which rule of the schema, as a JSON pointer into it.
    pub rule: String,
    /// What is wrong, in words that may quote the value.
    pub message: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.at.is_empty() { f.write_str(&self.message) } else { write!(f, "{}: {}", self.at, self.message) }
    }
}

impl fmt::Debug for JsonSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JsonSchema(..)")
    }
}

impl JsonSchema {
    /// Compiles a schema; the error says what is wrong with it.
    pub fn new(schema: &Value) -> Result<Self, String> {
        let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
        compiler.set_default_draft(Draft::V2020_12);
        compiler.use_loader(Box::new(Nowhere));
        compiler.add_resource(PLACE, schema.clone()).map_err(|error| reason(&error))?;
        let index = compiler.compile(PLACE, &mut schemas).map_err(|error| reason(&error))?;
        Ok(Self { schemas, index })
    }

    /// What does not fit, the places deepest inside the value.
    pub fn mistakes(&self, value: &Value) -> Vec<Mistake> {
        let mut found = Vec::new();
        if let Err(error) = self.schemas.validate(value, self.index) {
            leaves(&error, &mut found);
        }
        found
    }

    /// The value fits.
    pub fn fits(&self, value: &Value) -> bool {
        self.schemas.validate(value, self.index).is_ok()
    }
}

fn leaves(error: &ValidationError<'_, '_>, found: &mut Vec<Mistake>) {
    if error.causes.is_empty() {
        let rule = error.schema_url.split_once('#').map_or("", |(_, pointer)| pointer);
        let keyword = error.kind.keyword_path().map_or_else(String::new, |path| format!("/{path}"));
        let (at, message) = (error.instance_location.to_string(), error.kind.to_string());
        found.push(Mistake { at, rule: format!("{rule}{keyword}"), message });
    }
    error.causes.iter().for_each(|cause| leaves(cause, found));
}

fn reason(error: &CompileError) -> String {
    let CompileError::ValidationError { src, .. } = error else { return error.to_string().replace(PLACE, "it") };
    let mut mistakes = Vec::new();
    leaves(src, &mut mistakes);
    mistakes.first().map_or_else(|| error.to_string(), ToString::to_string)
}

/// Refers to nothing outside.
struct Nowhere;

impl UrlLoader for Nowhere {
    fn load(&self, url: &str) -> Result<Value, Box<dyn Error>> {
        Err(format!("{url} is not part of the schema, and nothing is fetched").into())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn mistakes_have_place_and_rule() {
        let schema = json!({
            "type": "object", "required": ["n"], "additionalProperties": false,
            "properties": { "n": { "type": "integer", "minimum": 1 }, "list": { "items": { "$ref": "#/$defs/word" } } },
            "$defs": { "word": { "enum": ["a", "b"] } },
        });
        let schema = JsonSchema::new(&schema).unwrap();
        let check = |value: Value, wanted: &[(&str, &str)]| {
            let found = schema.mistakes(&value);
            let found: Vec<_> = found.iter().map(|mistake| (&*mistake.at, &*mistake.rule)).collect();
            assert_eq!(found, wanted, "{value}");
            assert_eq!(schema.fits(&value), wanted.is_empty());
        };
        check(json!({ "n": 1, "list": ["a"] }), &[]);
        check(json!({ "n": "one" }), &[("/n", "/properties/n/type")]);
        check(json!({ "n": 0 }), &[("/n", "/properties/n/minimum")]);
        check(json!({}), &[("", "/required")]);
        check(json!({ "n": 2, "m": 1 }), &[("", "/additionalProperty")]);
        check(json!({ "n": 2, "list": ["a", "c"] }), &[("/list/1", "/$defs/word/enum")]);
        check(json!([1]), &[("", "/type")]);
    }

    #[test]
    fn what_is_no_schema_is_refused_with_the_reason() {
        let check = |schema: Value, word: &str| {
            let error = JsonSchema::new(&schema).unwrap_err();
            assert!(error.contains(word), "{schema}: {error}");
        };
        check(json!({ "type": "nothing" }), "/type");
        check(json!({ "$ref": "#/$defs/absent" }), "absent");
        check(json!({ "$ref": "https://example.com/s.json" }), "example.com");
        check(json!({ "$ref": "file:///etc/passwd" }), "passwd");
        check(json!({ "pattern": "(" }), "pattern");
    }
}
