//! Files as candidates: JSON lines, CSV and Parquet. Whatever is no document is named with its place and its reason, and the others are read.
//!
//! All three become JSON objects first, so that a chat means the same in each of them.

use std::{fs, path::Path};

use bytes::Bytes;
use parquet::file::reader::{FileReader, SerializedFileReader};
use serde_json::{Map, Value};

use crate::{
    Error, Form,
    document::parse_value,
    row::{Dropped, Pass, Place, Row, sha256},
};

/// A candidate, or why it is none.
pub type Candidate = Result<Row, Dropped>;

/// Which fields of a file mean what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fields {
    /// What is given, and what is learned of it: fields that are not called `prompt` and `completion`.
    pub pair: Option<[String; 2]>,
    /// What tells the groups apart.
    pub group: String,
}

/// A file that was read.
#[derive(Debug)]
pub struct ReadFile {
    /// Its rows, in the order in which they stand there.
    pub rows: Vec<Candidate>,
    /// The sum of its bytes.
    pub sha256: String,
}

/// How a file is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// A JSON object a line.
    Jsonl,
    /// Fields between commas, below a head.
    Csv,
    /// Fields between tabs, below a head.
    Tsv,
    /// Columns.
    Parquet,
}

impl Layout {
    /// By the end of a file's name; JSON lines if it says nothing else.
    pub fn of(path: &Path) -> Self {
        match path.extension().unwrap_or_default().to_string_lossy().to_lowercase().as_str() {
            "csv" => Self::Csv,
            "tsv" => Self::Tsv,
            "parquet" => Self::Parquet,
            _ => Self::Jsonl,
        }
    }

    /// Its name, as manifests have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Jsonl => "jsonl",
            Self::Csv => "csv",
            Self::Tsv => "tsv",
            Self::Parquet => "parquet",
        }
    }
}

/// The rows of a file, by the end of its name.
///
/// # Errors
/// A file that cannot be read, or a table that is none.
pub fn read_rows(path: &Path, name: &str, fields: &Fields) -> Result<ReadFile, Error> {
    let bytes = fs::read(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
    let sum = sha256(&bytes);
    let rows = rows(bytes, Layout::of(path), name, fields);
    let rows = rows.map_err(|message| Error::Table { path: path.to_owned(), message })?;
    Ok(ReadFile { rows, sha256: sum })
}

/// The rows in what a file of this name holds.
///
/// # Errors
/// What is wrong with a table that is none, for a person.
pub fn rows(bytes: Vec<u8>, layout: Layout, name: &str, fields: &Fields) -> Result<Vec<Candidate>, String> {
    let objects = match layout {
        Layout::Jsonl => lines(&bytes),
        Layout::Csv => table(&bytes, b',')?,
        Layout::Tsv => table(&bytes, b'\t')?,
        Layout::Parquet => parquet(bytes)?,
    };
    let place = |at| Place { source: name.to_owned(), at };
    Ok(objects.into_iter().map(|(at, object)| candidate(object, place(at), fields)).collect())
}

/// An object of a file, or what is wrong with what stands there, with its place.
type Object = (String, Result<Map<String, Value>, String>);

fn candidate(object: Result<Map<String, Value>, String>, place: Place, fields: &Fields) -> Candidate {
    let read = object.and_then(|object| {
        let group = group(&object, &fields.group);
        Ok((form(object, fields)?, group))
    });
    match read {
        Ok((form, group)) => Ok(Row { form, group, place }),
        Err(reason) => Err(Dropped { place, pass: Pass::Validation, reason }),
    }
}

fn form(mut object: Map<String, Value>, fields: &Fields) -> Result<Form, String> {
    let Some(pair) = &fields.pair else { return parse_value(object.into()) };
    let mut text = |name: &String| match object.remove(name) {
        Some(Value::String(text)) => Ok(Value::String(text)),
        Some(other) if !other.is_null() => Ok(other.to_string().into()),
        _ => Err(format!("it has no `{name}`")),
    };
    let [prompt, completion] = [text(&pair[0])?, text(&pair[1])?];
    parse_value(Map::from_iter([("prompt".to_owned(), prompt), ("completion".to_owned(), completion)]).into())
}

fn group(object: &Map<String, Value>, field: &str) -> Option<String> {
    match object.get(field)? {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

/// JSON lines. Empty ones are nobody's mistake.
fn lines(bytes: &[u8]) -> Vec<Object> {
    let lines = bytes.split(|byte| *byte == b'\n').enumerate();
    let lines = lines.filter(|(_, line)| !line.trim_ascii().is_empty());
    let object = |line: &[u8]| match serde_json::from_slice(line) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err("it is no JSON object".to_owned()),
        Err(error) => Err(format!("it is no JSON object ({error})")),
    };
    lines.map(|(at, line)| (format!("line {}", at + 1), object(line))).collect()
}

/// A table with a head. What a row has too many or too few of is told.
fn table(bytes: &[u8], delimiter: u8) -> Result<Vec<Object>, String> {
    let mut reader = csv::ReaderBuilder::new().delimiter(delimiter).flexible(true).from_reader(bytes);
    let head = reader.headers().map_err(|error| format!("its head cannot be read ({error})"))?.clone();
    let object = |record: csv::StringRecord| {
        if record.len() != head.len() {
            return Err(format!("it has {} fields, the head {}", record.len(), head.len()));
        }
        let field = |(name, text): (&str, &str)| (name.to_owned(), Value::from(text));
        Ok(head.iter().zip(&record).filter(|(_, text)| !text.is_empty()).map(field).collect())
    };
    let mut rows = Vec::new();
    for record in reader.records() {
        match record {
            Ok(record) => {
                let line = record.position().map_or(0, csv::Position::line);
                rows.push((format!("line {line}"), object(record)));
            }
            Err(error) => {
                let line = error.position().map_or(0, csv::Position::line);
                rows.push((format!("line {line}"), Err(format!("it cannot be read ({error})"))));
            }
        }
    }
    Ok(rows)
}

/// Columns of texts, numbers, lists and structures. The library panics over some damaged files: for whoever reads one that is an error, too.
fn parquet(bytes: Vec<u8>) -> Result<Vec<Object>, String> {
    let read = std::panic::catch_unwind(|| parquet_rows(bytes));
    read.unwrap_or_else(|_| Err("it is no Parquet file that can be read here: it is damaged".to_owned()))
}

fn parquet_rows(bytes: Vec<u8>) -> Result<Vec<Object>, String> {
    let told = |error| format!("it is no Parquet file that can be read here: {error}");
    let reader = SerializedFileReader::new(Bytes::from(bytes)).map_err(told)?;
    let rows = reader.get_row_iter(None).map_err(told)?.enumerate().map(|(at, row)| {
        let object = match row.map_err(told)?.to_json_value() {
            Value::Object(object) => Ok(object),
            _ => Err("it is no row of named columns".to_owned()),
        };
        Ok((format!("row {}", at + 1), object))
    });
    rows.collect()
}

#[cfg(test)]
mod tests;
