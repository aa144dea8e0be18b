//! The field tables beside OpenAI's own list of fields, and beside what the wire types read.

use protocol::{
    Error, ErrorKind,
    openai::{
        Recorded, chat, completion, embedding,
        fields::{self, Fate, Object},
    },
};
use serde_json::{Value, json};

const LISTED: &str = include_str!("../data/openai_fields.txt");

/// A field that OpenAI adds fails this test (after the list is renewed) until somebody decides what happens to it.
#[test]
fn every_listed_field_is_in_a_table() {
    for line in LISTED.lines().filter(|line| !line.starts_with('#')) {
        let (schema, name) = line.split_once(' ').unwrap();
        let object = fields::OBJECTS.iter().find(|object| object.schema == schema);
        let field = object.and_then(|object| object.field(name));
        let field = field.unwrap_or_else(|| panic!("{schema} has a field {name} that no table decides about"));
        assert!(!field.extension, "{schema}.{name} is OpenAI's, not an extension");
    }
}

/// And the other way round: what a table says is OpenAI's, is.
#[test]
fn every_other_field_is_called_an_extension() {
    for object in fields::OBJECTS.iter().filter(|object| LISTED.contains(&format!("\n{} ", object.schema))) {
        for field in object.fields.iter().filter(|field| !field.extension) {
            let line = format!("\n{} {}\n", object.schema, field.name);
            assert!(LISTED.contains(&line), "{} is not in OpenAI's list", line.trim());
        }
    }
}

type Parse = fn(&Value) -> Result<Recorded, Error>;

/// Each body's table, its smallest form and its parser.
fn objects() -> [(&'static Object, Value, Parse); 3] {
    let chat: Parse = |body| chat::parse(body.to_string().as_bytes()).map(|call| call.recorded);
    let completion: Parse = |body| completion::parse(body.to_string().as_bytes()).map(|call| call.recorded);
    let embedding: Parse = |body| embedding::parse(body.to_string().as_bytes()).map(|call| call.recorded);
    [
        (&fields::CHAT, json!({"model": "m", "messages": [{"role": "user", "content": "x"}]}), chat),
        (&fields::COMPLETION, json!({"model": "m", "prompt": "x"}), completion),
        (&fields::EMBEDDING, json!({"model": "m", "input": "x"}), embedding),
    ]
}

/// Nothing in a request fits `[[{}]]`, so a field that is read complains about it, by name.
#[test]
fn fields_meet_the_fate_of_their_table() {
    for (object, body, parse) in objects() {
        for field in object.fields {
            let mut body = body.clone();
            body[field.name] = json!([[{}]]);
            let result = parse(&body);
            match field.fate {
                Fate::Recorded => assert_eq!(result.unwrap()[field.name], json!([[{}]])),
                Fate::Honoured | Fate::Refused => {
                    let error = result.expect_err(field.name);
                    assert_eq!(error.kind, ErrorKind::Invalid, "{error}");
                    assert!(error.param.as_ref().unwrap().starts_with(field.name), "{error:?}");
                }
            }
            if field.fate == Fate::Refused {
                let error = parse(&body).unwrap_err();
                assert!(error.message.contains(field.note), "{error}");
                assert_eq!(error.code.as_deref(), Some("unsupported_parameter"));
            }
        }
    }
}

/// `null` is absence for every field that may be absent.
#[test]
fn null_is_absence() {
    for (object, body, parse) in objects() {
        let optional = object.fields.iter().filter(|field| body.get(field.name).is_none());
        for field in optional {
            let mut body = body.clone();
            body[field.name] = Value::Null;
            let recorded = parse(&body).unwrap_or_else(|e| panic!("{}: {e}", field.name));
            assert!(recorded.is_empty());
        }
    }
}

#[test]
fn nested_tables_hold_too() {
    let with = |message: Value| {
        let body = json!({"model": "m", "messages": [{"role": "user", "content": "x"}, message]});
        chat::parse(body.to_string().as_bytes())
    };
    for field in fields::MESSAGE.fields {
        let mut message = json!({"role": "assistant", "content": "x"});
        message[field.name] = json!([[{}]]);
        match (field.fate, with(message)) {
            (Fate::Recorded, result) => drop(result.unwrap()),
            (_, result) => {
                let param = result.unwrap_err().param.unwrap();
                assert!(param.starts_with(&format!("messages[1].{}", field.name)), "{param}");
            }
        }
    }
}
