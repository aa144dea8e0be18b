//! Just enough of a GGUF reader to get at a vocabulary: `text` must not depend on the crate that reads checkpoints.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read};

use serde_json::Value;
use text::{Tokenizer, Vocabulary};

/// The metadata of a model file of the tests.
pub(crate) fn metadata(name: &str) -> HashMap<String, Value> {
    let path = crate::model(name);
    let file = File::open(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut reader = Reader(BufReader::new(file));
    assert_eq!(reader.bytes::<4>(), *b"GGUF");
    reader.u32();
    reader.u64();
    (0..reader.u64()).map(|_| (reader.text(), reader.tagged())).collect()
}

/// The vocabulary in it.
pub(crate) fn vocabulary(name: &str) -> Vocabulary {
    let metadata = metadata(name);
    let get = |key: &str| metadata.get(&format!("tokenizer.ggml.{key}"));
    let kind = get("model").and_then(Value::as_str).unwrap_or_default().to_owned();
    let list = |key: &str| get(key).and_then(Value::as_array).cloned().unwrap_or_default();
    let texts = |key: &str| list(key).iter().filter_map(Value::as_str).map(str::to_owned).collect();
    let id = |key: &str| get(key).and_then(Value::as_u64).map(|id| id as u32);
    let flag = |key: &str| get(key).and_then(Value::as_bool);
    Vocabulary {
        pre: get("pre").and_then(Value::as_str).unwrap_or_default().to_owned(),
        tokens: texts("tokens"),
        merges: texts("merges"),
        scores: list("scores").iter().filter_map(Value::as_f64).map(|score| score as f32).collect(),
        types: list("token_type").iter().filter_map(Value::as_u64).map(|kind| kind as u8).collect(),
        bos: id("bos_token_id"),
        eos: id("eos_token_id"),
        eot: id("eot_token_id"),
        unk: id("unknown_token_id"),
        pad: id("padding_token_id"),
        add_bos: flag("add_bos_token").unwrap_or(kind == "llama"),
        add_eos: flag("add_eos_token").unwrap_or(false),
        add_space_prefix: flag("add_space_prefix").unwrap_or(kind == "llama"),
        kind,
    }
}

/// The tokenizer of it.
pub(crate) fn tokenizer(name: &str) -> Tokenizer {
    Tokenizer::from_vocabulary(&vocabulary(name)).unwrap()
}

struct Reader(BufReader<File>);

impl Reader {
    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.0.read_exact(&mut bytes).unwrap();
        bytes
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.bytes())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.bytes())
    }

    fn text(&mut self) -> String {
        let mut bytes = vec![0; self.u64() as usize];
        self.0.read_exact(&mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    fn tagged(&mut self) -> Value {
        match self.u32() {
            9 => {
                let kind = self.u32();
                (0..self.u64()).map(|_| self.value(kind)).collect()
            }
            kind => self.value(kind),
        }
    }

    fn value(&mut self, kind: u32) -> Value {
        match kind {
            0 => self.bytes::<1>()[0].into(),
            1 => i8::from_le_bytes(self.bytes()).into(),
            2 => u16::from_le_bytes(self.bytes()).into(),
            3 => i16::from_le_bytes(self.bytes()).into(),
            4 => self.u32().into(),
            5 => i32::from_le_bytes(self.bytes()).into(),
            6 => f32::from_le_bytes(self.bytes()).into(),
            7 => (self.bytes::<1>()[0] != 0).into(),
            8 => self.text().into(),
            10 => self.u64().into(),
            11 => i64::from_le_bytes(self.bytes()).into(),
            12 => f64::from_le_bytes(self.bytes()).into(),
            other => panic!("value type {other}"),
        }
    }
}
