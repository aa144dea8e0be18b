//! What is learned from: documents and chats in, token by token what is to be learned of them.
//!
//! [`read`] takes JSON lines in the forms that people have (chats as OpenAI's fine-tuning files write them, pairs of prompt and completion, plain
//! texts) and names line and reason of whatever it cannot take. [`Encoder`] lays a document out exactly as the engine lays out a request of the
//! same words, so that what was learned is what is asked for later.
//!
//! Invariant: the same files give the same tokens; no line is dropped without its reason.

mod document;
mod encode;
mod error;

pub use document::{Document, Form, parse, read, read_open};
pub use encode::{Encoded, Encoder};
pub use error::Error;
