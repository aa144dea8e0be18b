//! Tokenizers, templates and constraints against the references' answers in `tests/data` (made by `tests/goldens/make.py`).
//!
//! One binary for all, so that the crate is linked once. What needs a real vocabulary is ignored by default and run by
//! `cargo xtask test`, which provides the models.

#![expect(clippy::unwrap_used, clippy::panic, reason = "shared test functions fail by panicking, as tests do")]

mod constraint;
mod gguf;
mod template;
mod tokenizer;

use std::path::{Path, PathBuf};

use serde_json::Value;

/// A file of this crate's test data.
fn data(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The same, as JSON.
fn json(name: &str) -> Value {
    serde_json::from_str(&data(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// A model file of the tests.
fn model(name: &str) -> PathBuf {
    let directory = std::env::var_os("TESSERA_TEST_MODELS")
        .unwrap_or_else(|| panic!("TESSERA_TEST_MODELS is not set; run `cargo xtask test`, which fetches the models"));
    Path::new(&directory).join(name)
}
