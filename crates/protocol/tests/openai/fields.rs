//! The field tables beside OpenAI's own list of fields, and beside what the wire types read.

use protocol::{
    Error, ErrorKind,
    openai::{
        Recorded, chat, completion, embedding,
        fields::{self, Fate, Object},
        image, moderation, responses,
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
fn objects() -> [(&'static Object, Value, Parse); 6] {
    let chat: Parse = |body| chat::parse(body.to_string().as_bytes()).map(|call| call.recorded);
    let completion: Parse = |body| completion::parse(body.to_string().as_bytes()).map(|call| call.recorded);
    let embedding: Parse = |body| embedding::parse(body.to_string().as_bytes()).map(|call| call.recorded);
    let moderation: Parse = |body| moderation::parse(body.to_string().as_bytes()).map(|call| call.recorded);
    let response: Parse = |body| responses::parse(body.to_string().as_bytes()).map(|call| call.call.recorded);
    let image: Parse = |body| image::parse(body.to_string().as_bytes()).map(|call| call.recorded);
    [
        (&fields::CHAT, json!({"model": "m", "messages": [{"role": "user", "content": "x"}]}), chat),
        (&fields::COMPLETION, json!({"model": "m", "prompt": "x"}), completion),
        (&fields::EMBEDDING, json!({"model": "m", "input": "x"}), embedding),
        (&fields::MODERATION, json!({"input": "x"}), moderation),
        (&fields::RESPONSE, json!({"model": "m", "input": "x"}), response),
        (&fields::IMAGE, json!({"model": "m", "prompt": "x"}), image),
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

/// What a note calls required, a request cannot be without; and the smallest form of a request has nothing else.
#[test]
fn required_fields_are_required() {
    for (object, body, parse) in objects() {
        let required = |name: &str| object.field(name).is_some_and(|field| field.is_required());
        for name in body.as_object().unwrap().keys() {
            let mut less = body.clone();
            less.as_object_mut().unwrap().remove(name);
            assert_eq!(parse(&less).is_err(), required(name), "{name}");
        }
        assert!(object.fields.iter().all(|field| !field.is_required() || body.get(field.name).is_some()));
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

/// The tables of objects inside a response request: where each stands, and an object that holds nothing wrong.
fn nested() -> [(&'static Object, &'static str, Value); 11] {
    let call = json!({"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"});
    let output = json!({"type": "function_call_output", "call_id": "c", "output": "x"});
    let schema = json!({"type": "json_schema", "name": "n", "schema": {}});
    let choice = json!({"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}]});
    [
        (&fields::RESPONSE_MESSAGE, "input[0]", json!({"role": "user", "content": "x"})),
        (&fields::RESPONSE_PART, "input[1].content[0]", json!({"type": "output_text", "text": "x"})),
        (&fields::RESPONSE_CALL, "input[2]", call),
        (&fields::RESPONSE_CALL_OUTPUT, "input[3]", output),
        (&fields::RESPONSE_TOOL, "tools[0]", json!({"type": "function", "name": "f"})),
        (&fields::RESPONSE_TOOL_CHOICE, "tool_choice", choice),
        (&fields::RESPONSE_ALLOWED_TOOL, "tool_choice.tools[0]", json!({"type": "function", "name": "f"})),
        (&fields::RESPONSE_TEXT, "text", json!({"format": schema})),
        (&fields::RESPONSE_FORMAT, "text.format", schema),
        (&fields::REASONING, "reasoning", json!({"effort": "low"})),
        (&fields::RESPONSE_STREAM_OPTIONS, "stream_options", json!({})),
    ]
}

/// A request that holds an object of every kind.
fn with_all() -> Value {
    let part = json!({"role": "assistant", "content": [{"type": "output_text", "text": "x"}]});
    let mut body = json!({"model": "m", "stream": true, "input": [{}, part, {}, {}], "tools": [{}], "text": {}});
    for (_, path, object) in nested() {
        *place(&mut body, path) = object;
    }
    body
}

/// The place that a path such as `a[0].b` names.
fn place<'a>(value: &'a mut Value, path: &str) -> &'a mut Value {
    path.split(['.', '[']).fold(value, |value, step| match step.strip_suffix(']') {
        Some(index) => &mut value[index.parse::<usize>().unwrap()],
        None => &mut value[step],
    })
}

#[test]
fn tables_inside_a_response_request_hold_too() {
    let parse = |body: &Value| responses::parse(body.to_string().as_bytes()).map(drop);
    parse(&with_all()).unwrap();
    for (object, path, _) in nested() {
        for field in object.fields {
            let mut body = with_all();
            place(&mut body, path)[field.name] = json!([[{}]]);
            match (field.fate, parse(&body)) {
                (Fate::Recorded, result) => result.unwrap(),
                // A schema may be any object or true, a name any text: what does not fit is told about the type.
                (_, result) => {
                    let param = result.expect_err(field.name).param.unwrap();
                    assert!(param.starts_with(&format!("{path}.{}", field.name)), "{param}");
                }
            }
        }
        let mut body = with_all();
        place(&mut body, path)["surprise"] = json!(1);
        assert_eq!(parse(&body).unwrap_err().param.unwrap(), format!("{path}.surprise"));
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
