//! The field tables beside Anthropic's own list of fields, and beside what the wire types read.

use protocol::{
    Error,
    anthropic::{self, fields},
    openai::fields::{Fate, Object},
};
use serde_json::{Value, json};

const LISTED: &str = include_str!("../data/anthropic_fields.txt");

/// A field that Anthropic adds fails this test (after the list is renewed) until somebody decides what happens to it.
#[test]
fn every_listed_field_is_in_a_table() {
    for line in LISTED.lines().filter(|line| !line.starts_with('#')) {
        let (schema, name) = line.split_once(' ').unwrap();
        let object = fields::OBJECTS.iter().find(|object| object.schema == schema);
        assert!(object.is_some_and(|object| object.field(name).is_some()), "no table decides about {schema}.{name}");
    }
}

type Parse = fn(&Value) -> Result<(), Error>;

/// Each body's table, its smallest form and its parser.
fn objects() -> [(&'static Object, Value, Parse); 2] {
    let turns = json!([{"role": "user", "content": "x"}]);
    let messages: Parse = |body| anthropic::parse(body.to_string().as_bytes()).map(drop);
    let count: Parse = |body| anthropic::parse_count(body.to_string().as_bytes()).map(drop);
    [
        (&fields::MESSAGES, json!({"model": "m", "max_tokens": 9, "messages": turns}), messages),
        (&fields::COUNT, json!({"model": "m", "messages": turns}), count),
    ]
}

/// Nothing in a request fits `[[{}]]`, so a field that is read complains about it, by name; null is absence.
#[test]
fn fields_meet_the_fate_of_their_table() {
    for (object, least, parse) in objects() {
        parse(&least).unwrap();
        for field in object.fields {
            let mut body = least.clone();
            body[field.name] = json!([[{}]]);
            match (field.fate, parse(&body)) {
                (Fate::Recorded, result) => result.unwrap(),
                (_, result) => {
                    let error = result.expect_err(field.name);
                    assert!(error.param.as_ref().unwrap().starts_with(field.name), "{error:?}");
                }
            }
            if least.get(field.name).is_none() {
                body[field.name] = Value::Null;
                parse(&body).unwrap();
            }
        }
        let mut body = least.clone();
        body["surprise"] = json!(1);
        assert_eq!(parse(&body).unwrap_err().param.as_deref(), Some("surprise"));
    }
}
