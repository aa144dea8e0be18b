//! Facts and rules become a decision with its steps; problems become checked chains of thought.
//!
//! [`Reason`] is the local form of [`protocol::Decide`]. It holds text services, because a model finds the facts in a text and
//! writes the chains; what is decided and what is true is computed here. Both kinds of work are a future that sends its
//! steps while it runs ([`flow`]): what the caller watches is what the log keeps.
//!
//! Invariant: a model only chooses among what code found or computes again; no value that a decision is made from, and no
//! step that is called verified, is a model's word. Nothing is spawned: the work goes on while its stream is polled.

mod cases;
mod clock;
mod decide;
mod explain;
mod facts;
mod flow;
mod graph;
mod library;
mod models;
mod reason;
mod solve;

pub use cases::{CaseReport, check};
pub use graph::{Broken, Graph};
pub use library::Library;
pub use reason::Reason;
pub use solve::expression::{Flaw, Number, compute};
