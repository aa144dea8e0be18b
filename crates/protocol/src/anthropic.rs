//! Anthropic's wire types beside explicit conversions to and from the plain values, both ways.
//!
//! [`parse`] turns a body of `POST /v1/messages` into plain requests (what a gateway needs), [`MessagesRequest::show`] a plain
//! request into a body (what a client needs). Answers go the other way: plain events enter a [`Stream`] or a [`Collector`] and
//! wire events or one message come out; wire events enter a [`Reader`] and plain events come out. Every field is accounted for
//! in [`fields`], as with OpenAI's.
//!
//! What the two worlds call differently: a system prompt stands beside the turns and not among them; results of tools are blocks
//! in a user's turn and not turns of their own; the arguments of a call are an object and not its text; prompt tokens are counted
//! without those that were cached.

mod content;
mod count;
mod error;
pub mod fields;
mod read;
mod reply;
mod request;
mod tools;
mod turns;

pub use content::{Block, Content};
pub use count::{CountRequest, TokenCount, parse_count};
pub use error::{ErrorBody, ErrorDetail};
pub use read::Reader;
pub use reply::{BlockDelta, Collector, MessageBody, MessageChange, Stream, StreamEvent, UsageBody};
pub use request::{DEFAULT_MAX_TOKENS, MessagesRequest, Metadata, OutputConfig, OutputFormat, Thinking, parse};
pub use tools::{ToolBody, ToolChoiceBody};
pub use turns::Turn;
