//! What may come in and go out: personal data, prompt injection, toxicity, terms and patterns of the operator's.
//!
//! A [`Policy`] is plain data; a [`Guard`] is a policy put to use. [`Guard::check`] judges a whole text, [`Guard::stream`] gives a
//! [`Filter`] for a text that comes in pieces, and both come to the same verdicts. What is found is named with its place and
//! never quoted.
//!
//! ```
//! use guard::{Action, Direction, Guard, Policy};
//!
//! let mut policy = Policy::default();
//! policy.personal.output = Action::Mask;
//! let guard = Guard::new(&policy)?;
//! let report = guard.check("Write to ada@example.org.", Direction::Out);
//! assert_eq!(report.text.as_deref(), Some("Write to [email]."));
//! # Ok::<(), guard::Error>(())
//! ```
//!
//! Every text is read in two forms without disguises (`fold`): numbers and addresses are looked for in the one (`personal`,
//! `patterns`), words in the other (`words`).
//!
//! `asked` alone waits for somebody: models as judges, beside the pure core.
//!
//! Invariant: the core knows no service, no clock and no I/O; a verdict on a stream equals that on the whole text wherever it was cut, and nothing that
//! an enforcing rule may still find leaves before its verdict.

mod asked;
mod error;
mod filter;
mod finder;
mod fold;
mod guard;
mod injection;
mod json;
mod label;
mod lists;
mod mask;
mod moderation;
mod patterns;
mod personal;
mod policy;
mod report;
mod sequences;
mod toxicity;
mod words;

pub use asked::{ByEmbed, ByGenerate, Classify, Panel};
pub use error::Error;
pub use filter::Filter;
pub use guard::Guard;
pub use json::JsonFilter;
pub use label::Provenance;
pub use moderation::{Category, Moderation};
pub use personal::Kind;
pub use policy::{
    Action, Asked, Direction, Fail, Injection, Labels, Pattern, Personal, Policy, Sides, Terms, Toxicity,
};
pub use report::{Release, Report, Verdict};
pub use toxicity::{Sample, train};
