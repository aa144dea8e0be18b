//! OpenAI's wire format: recorded bodies, every mistake by name, every field accounted for, and conversions that lose
//! nothing.
#![expect(clippy::unwrap_used, clippy::panic, reason = "shared functions of a test binary")]
#![expect(clippy::needless_pass_by_value, reason = "expectations are written where they are handed over")]

mod bodies;
mod documentation;
mod fields;
mod mistakes;
mod replies;
mod round_trips;
