//! A checkpoint becomes a function from tokens and cache to logits.
//!
//! [`ModelSpec`] is data: what the layers are. A file of at most 150 lines per family fills one in, from GGUF metadata or from a
//! Hugging Face `config.json`. [`Model`] is a spec with its weights; [`Model::forward`] is the one decoder for all families.
//!
//! Invariant: no request, no scheduler and no tokenizer is known here; a family is data, never a second decoder.

mod model;
mod vocabulary;

pub use model::*;
pub use vocabulary::*;
mod error;
mod spec;
pub use error::Error;
pub use spec::*;
