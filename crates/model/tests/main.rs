//! One binary of tests: goldens of tiny checkpoints, broken files, and (ignored by default) real models.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "shared functions of tests fail and report as tests do"
)]

mod broken;
mod exits;
mod goldens;
mod real;
mod runner;
