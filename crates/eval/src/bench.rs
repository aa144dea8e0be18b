//! Speed: of a service under load, and side by side with another engine.
//!
//! [`serve`] puts a load on any [`protocol::Generate`] and reports what its users feel; [`first_token`]
//! times the first token of a fresh prompt and of one whose prefix is cached; [`adapters`] says what adapters cost. [`compare`] starts two processes that
//! speak the same few lines of JSON, ours ([`entrant`] answers them over any service) and a peer's ([`LLAMA_CPP`] is a script
//! that drives llama.cpp), gives both the same work in turns, and prints medians, ratios and the floors that the machine sets.

mod adapters;
mod clock;
mod compare;
mod entrant;
mod first_token;
mod prompts;
mod serve;

pub use adapters::{Adapted, adapters};
pub use clock::Clock;
pub use compare::{Case, Ceilings, Comparison, Costs, Entrant, Line, Plan, compare};
pub use entrant::{Job, Outcome, Ready, entrant};
pub use first_token::{FirstToken, first_token};
pub use prompts::Prompts;
pub use serve::{Load, Served, serve};

/// A Python script that drives llama.cpp through `llama_cpp` as an entrant of [`compare`]. Run it as
/// `python -c SCRIPT --model FILE --threads N --context TOKENS --streams N`.
pub const LLAMA_CPP: &str = include_str!("../peers/llama_entrant.py");
