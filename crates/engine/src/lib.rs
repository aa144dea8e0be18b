//! Many requests become batches, batches become events.
//!
//! [`Core`] is the engine proper: synchronous, single-threaded, its clock and its model handed in, so that scheduling is
//! tested in virtual time with a fake model. A [`Job`] goes in, events come out of [`Core::step`].
//!
//! Invariant: no HTTP and no wire type is known here, and nothing async inside the core.

mod adapters;
mod answer;
mod calls;
mod chat;
mod clock;
mod config;
mod control;
mod core;
mod embedding;
mod engine;
mod error;
mod executor;
#[cfg(test)]
mod fake;
mod front;
mod job;
mod load;
mod meters;
mod pages;
mod prefix;
mod queue;
mod route;
mod sampler;
mod sequence;

pub use self::core::{Core, Output, Outputs, RequestId};
pub use adapters::Adaptation;
pub use calls::Calls;
pub use clock::{Clock, Monotonic};
pub use config::EngineConfig;
pub use engine::Engine;
pub use error::Error;
pub use executor::{Executor, ModelExecutor};
pub use job::{Answers, Choice, Job, Work};
pub use load::{tokenizer_files, words};
pub use meters::Stats;
pub use route::AUTO;
