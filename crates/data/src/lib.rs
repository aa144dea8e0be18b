//! What is learned from: files in, versioned sets of documents, and token by token what is to be learned of them.
//!
//! [`read`] takes JSON lines in the forms that people have (chats as OpenAI's fine-tuning files write them, pairs of prompt and completion, plain
//! texts) and names line and reason of whatever it cannot take. [`Encoder`] lays a document out exactly as the engine lays out a request of the
//! same words, so that what was learned is what is asked for later.
//!
//! A set is made in three steps: [`read_rows`] (or whoever hands in rows of other origin) gives candidates, [`refine`] takes away what
//! should not be learned, each time with the reason, and splits the rest; [`Sets::write`] puts it where [`Sets::open`] finds it, under a digest
//! of what it holds and where that comes from.
//!
//! Invariant: the same files give the same tokens and the same set, in whatever order they come; no line is dropped without its reason, and what
//! was dropped is not quoted.

mod chunk;
mod document;
mod encode;
mod error;
mod near;
mod quality;
mod read;
mod refine;
mod row;
mod set;
mod split;

pub use chunk::{Chunk, DOCUMENTS, chunks, chunks_of_html, read_chunks};
pub use document::{Document, Form, parse, parse_value, read, read_open};
pub use encode::{Encoded, Encoder};
pub use error::Error;
pub use read::{Candidate, Fields, Layout, ReadFile, read_rows, rows};
pub use refine::{Options, Personal, Progress, Refined, refine};
pub use row::{Dropped, Pass, Place, Row, sum};
pub use set::{Change, Difference, Made, Manifest, Reference, Set, Sets, Source};
