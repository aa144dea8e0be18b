//! JSON schemas of wire types, for the OpenAPI document: what serde knows of a type, and what the field tables say about it.

use schemars::{JsonSchema, Schema, SchemaGenerator, transform::Transform};
use serde_json::{Map, Value, json};

use super::fields::{Fate, Object};

/// Completes the schema of an object by its field table: recorded fields take anything, refused ones nothing, others do not exist.
#[derive(Debug, Clone)]
pub(crate) struct Described(pub(crate) &'static Object);

impl Transform for Described {
    fn transform(&mut self, schema: &mut Schema) {
        closed(schema);
        let Object { fields, .. } = self.0;
        let required: Vec<Value> =
            fields.iter().filter(|field| field.is_required()).map(|field| field.name.into()).collect();
        let object = schema.ensure_object();
        if let Some(properties) = object.entry("properties").or_insert(json!({})).as_object_mut() {
            for field in *fields {
                let property = properties.entry(field.name).or_insert(Value::Bool(true));
                match field.fate {
                    Fate::Honoured => {}
                    Fate::Recorded => *property = json!({}),
                    Fate::Refused => *property = json!({"type": "null"}),
                }
                annotate(property, field.note);
            }
        }
        object.insert("required".to_owned(), required.into());
    }
}

/// Only the fields of the type.
pub(crate) fn closed(schema: &mut Schema) {
    let object = schema.ensure_object();
    object.insert("additionalProperties".to_owned(), false.into());
    object.remove("default");
    if let Some(properties) = object.get_mut("properties").and_then(Value::as_object_mut) {
        // Rust's defaults are how absence is told apart, not what an absent field means.
        properties.values_mut().filter_map(Value::as_object_mut).for_each(|property| drop(property.remove("default")));
    }
}

fn annotate(property: &mut Value, note: &str) {
    if !property.is_object() {
        *property = Value::Object(Map::new());
    }
    property["description"] = note.into();
}

/// The schema of a value that has one of several shapes.
pub(crate) fn any_of(shapes: Vec<Schema>) -> Schema {
    let mut schema = Schema::default();
    schema.insert("anyOf".to_owned(), shapes.into_iter().map(Value::from).collect());
    schema
}

/// Implements [`JsonSchema`] for a type whose own (de)serialisation takes several shapes.
macro_rules! shapes {
    ($name:ty, $word:literal: $($shape:ty),+) => {
        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                $word.into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
                $crate::openai::schema::any_of(vec![$(generator.subschema_for::<$shape>()),+])
            }
        }
    };
}
pub(crate) use shapes;

/// The schema of `T` as an item of a list whose items say their `type`; `optional` says that one may be left out.
pub(crate) fn typed<T: JsonSchema>(generator: &mut SchemaGenerator, kind: &str, optional: bool) -> Schema {
    let mut schema = T::json_schema(generator);
    let object = schema.ensure_object();
    let shape = if optional { json!({"enum": [kind, null]}) } else { json!({"const": kind}) };
    if let Some(properties) = object.get_mut("properties").and_then(Value::as_object_mut) {
        properties.insert("type".to_owned(), shape);
    }
    if let Some(required) = object.get_mut("required").and_then(Value::as_array_mut)
        && !optional
    {
        required.push("type".into());
    }
    schema
}
