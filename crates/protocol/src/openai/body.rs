//! From bytes to a wire type, with the place of every mistake; and what becomes of the fields no wire type holds.
//!
//! A wire type declares the fields it honours and collects the others in a flattened [`Rest`]. `settle` then looks each
//! of those up in the object's field table: advisory ones are kept for the record, the others are refused by name. A
//! field that nobody thought of is therefore an error, never a silence.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value, error::Category};

use super::fields::{Fate, Field, Object};
use crate::{Error, ErrorKind};

/// The fields of an object that its wire type does not declare.
pub type Rest = Map<String, Value>;

/// Bytes of a request body as a wire type. Broken JSON names line and column; a wrong value names its path.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|e| {
        let path = e.path().to_string();
        misfit(&path, e.inner())
    })?;
    json.end().map_err(|e| malformed(&e))?;
    Ok(value)
}

/// The same for a type without a flattened [`Rest`]: serde would take its fields from an array, too, in their order.
pub(crate) fn decode_object<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    let object: Rest = decode(bytes)?;
    let value = serde_path_to_error::deserialize(Value::Object(object));
    value.map_err(|e| misfit(&e.path().to_string(), e.inner()))
}

/// An object at `path` as a wire type, once it is known which one it is. A wrong value names its path.
pub(super) fn decode_at<T: DeserializeOwned>(path: &str, object: Rest) -> Result<T, Error> {
    serde_path_to_error::deserialize(Value::Object(object)).map_err(|e| {
        let below = e.path().to_string();
        misfit(&at(path, &below), e.inner())
    })
}

/// The error for JSON that is broken, or that does not fit the type at `path`.
fn misfit(path: &str, error: &serde_json::Error) -> Error {
    if error.classify() != Category::Data {
        return malformed(error);
    }
    let what = in_words(&error.to_string());
    // The root, or a place that the path cannot name.
    if path == "." || path == "?" {
        return Error::new(ErrorKind::Invalid, format!("The request body does not fit: {what}."));
    }
    Error::invalid(path, format!("`{path}`: {what}."))
}

fn malformed(error: &serde_json::Error) -> Error {
    let message = format!("The request body is not valid JSON: {error}.");
    Error::new(ErrorKind::Invalid, message).with_code("invalid_json")
}

/// A serde message without its position (the path says more) and with JSON's words for Rust's types.
fn in_words(message: &str) -> String {
    let message = message.split(" at line ").next().unwrap_or(message);
    let Some((found, expected)) = message.rsplit_once(", expected ") else { return message.to_owned() };
    let word = match expected {
        "usize" | "u64" | "u32" => "a whole number, 0 or more",
        "i64" | "i32" => "a whole number",
        "f32" | "f64" => "a number",
        "a boolean" => "true or false",
        "a sequence" => "an array",
        "a map" => "an object",
        other if other.starts_with("struct ") => "an object",
        other => other,
    };
    let found = found.replace("type: sequence", "type: array").replace("type: map", "type: object");
    format!("{found}, expected {word}")
}

/// Decides about the fields in `rest` of an object at `path` (empty for the body itself): recorded ones are returned.
pub(crate) fn settle(object: &Object, path: &str, rest: Rest) -> Result<Rest, Error> {
    let mut recorded = Rest::new();
    for (name, value) in rest {
        match object.field(&name) {
            Some(field) if field.fate == Fate::Refused => refuse(path, field, &value)?,
            Some(field) if field.fate == Fate::Honoured => return Err(unread(&at(path, &name))),
            Some(_) if value.is_null() => {}
            Some(_) => drop(recorded.insert(name, value)),
            None => return Err(unknown(object, &at(path, &name))),
        }
    }
    Ok(recorded)
}

/// `null` is the documented way to say "not set", so it is as good as absent.
fn refuse(path: &str, field: &Field, value: &Value) -> Result<(), Error> {
    if value.is_null() {
        return Ok(());
    }
    let place = at(path, field.name);
    let message = format!("`{place}` is not supported: {}.", field.note);
    Err(Error::invalid(place, message).with_code("unsupported_parameter"))
}

fn unknown(object: &Object, place: &str) -> Error {
    let message = format!("Unknown field `{place}`: {} has no such field; remove it.", object.name);
    Error::invalid(place, message).with_code("unknown_parameter")
}

/// The table promises more than the wire type holds: a fault of ours, but still not a silence.
fn unread(place: &str) -> Error {
    Error::internal(format!("`{place}` should be honoured, but nothing reads it.")).with_param(place)
}

/// The path of a field of the object at `path`.
pub(crate) fn at(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// Refuses a number outside its documented range.
pub(crate) fn within<T: PartialOrd + Copy + std::fmt::Display>(
    place: &str,
    value: Option<T>,
    low: T,
    high: T,
) -> Result<Option<T>, Error> {
    match value {
        Some(v) if !(v >= low && v <= high) => {
            Err(Error::invalid(place, format!("`{place}` is {v}, but must be between {low} and {high}.")))
        }
        other => Ok(other),
    }
}
