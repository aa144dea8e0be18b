//! OpenAI's wire format: recorded bodies, every mistake by name, every field accounted for, and conversions that lose
//! nothing.
#![expect(clippy::unwrap_used, clippy::panic, reason = "shared functions of a test binary")]

mod bodies;
mod fields;
mod mistakes;
mod replies;
mod round_trips;
