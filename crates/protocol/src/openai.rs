//! OpenAI's wire types beside explicit conversions to and from the plain values.
//!
//! Every request goes the same way: `decode` turns bytes into a wire type and names the place of a mistake
//! (`messages[2].content`); the type's conversion checks values and makes plain requests; whatever field is left over is
//! looked up in [`fields`] and recorded or refused by name, so none is ignored in silence. Answers go the other way:
//! plain events enter a [`Streamed`] or a [`Collected`] reply and wire chunks or one wire body come out.
//!
//! Wire types stop here. Nothing but the edge (the gateway, a client of a foreign endpoint) names them.

pub mod chat;
pub mod completion;
pub mod embedding;
pub mod fields;
pub mod image;
pub mod models;
pub mod moderation;
pub mod responses;

pub(crate) mod body;
pub(crate) mod call;
mod error;
mod format;
mod input;
mod knobs;
mod logprobs;
mod read;
mod reply;
pub(crate) mod schema;
mod text_or;

pub use body::Rest;
pub use call::{Call, Recorded, StreamOptions};
pub use error::{ErrorBody, ErrorDetail};
pub use format::{Grammar, JsonSchema, ResponseFormat};
pub use input::Input;
pub use knobs::{LogitBias, StopStrings};
pub use logprobs::{ChatLogprob, ChatLogprobs, ChatTopLogprob, CompletionLogprobs, TopLogprobs};
pub use read::{Reader, error_of, kind_of_status};
pub use reply::{Chunk, Collected, Envelope, PromptTokensDetails, Streamed, UsageBody};
pub use text_or::{Shape, TextOr};
