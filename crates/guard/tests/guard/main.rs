//! The guard against hand-labelled cases and against itself.

#![expect(clippy::unwrap_used, reason = "shared functions of tests are not seen as tests")]

mod asked;
mod json;
mod measured;
mod personal;
mod stream;
mod terms;
