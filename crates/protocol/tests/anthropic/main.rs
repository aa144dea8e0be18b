//! Anthropic's wire format: conversions both ways lose nothing, every mistake is named, streams read as they are written.
#![expect(clippy::unwrap_used, reason = "shared functions of a test binary")]

mod fields;
mod mistakes;
mod replies;
mod round_trips;
