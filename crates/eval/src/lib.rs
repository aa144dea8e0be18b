//! Measures a service, and says how sure it is.
//!
//! Everything here holds a [`protocol::Generate`] or [`protocol::Embed`] and nothing else, so one task scores the engine in this
//! process, a gateway elsewhere or a provider. [`Scorer`] is the one way to ask for log-probabilities; [`perplexity()`],
//! [`divergence()`], [`multiple_choice`] and [`retrieval()`] are built on it ([`search()`] measures vectors), with the definitions of lm-eval and llama.cpp where
//! they have one, so that figures compare; [`facts()`] measures what a decision reads out of texts, [`solve()`] what chains of
//! steps add to an answer, [`cascade()`] what a student takes over from its teacher. Every figure is an [`Estimate`]: a value, its 95 % interval and how many observations
//! it stands on. Results are plain serde values, and each becomes a [`Report`] that prints as a table. [`bench`] measures speed.
//!
//! Nothing is spawned: the futures run wherever the caller polls them.
//!
//! Invariant: no engine, no model and no runtime is known here; a figure never travels without its interval and its n.

mod answers;
pub mod bench;
mod cascade;
mod choice;
mod corpus;
mod dataset;
mod divergence;
mod error;
mod facts;
mod perplexity;
mod report;
mod retrieval;
mod same;
mod score;
mod search;
mod solve;
mod stats;

pub use answers::{AnswersResult, answers};
pub use cascade::{Attempt, CascadeResult, Rival, Rivals, attempt, cascade};
pub use choice::{ChoiceOptions, ChoiceResult, Question, multiple_choice};
pub use corpus::{Corpus, Windows};
pub use dataset::Task;
pub use divergence::{Divergence, divergence};
pub use error::Error;
pub use facts::{FactCase, FactsResult, Mistake, Reader, facts};
pub use perplexity::{Perplexity, perplexity};
pub use report::{Report, Row};
pub use retrieval::{Cell, Retrieval, RetrievalOptions, RetrievalResult, retrieval};
pub use same::same;
pub use score::{Answer, Scorer};
pub use search::{SearchResult, search};
pub use solve::{Outcome, Problem, Run, SolveOptions, SolveResult, Way, solve};
pub use stats::{Estimate, Spread, bootstrap, wilson};

/// Told after each piece of work: how many are done, out of how many.
pub type Progress<'a> = &'a (dyn Fn(usize, usize) + Sync);
