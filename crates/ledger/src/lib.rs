//! Append-only truth: who asked what, what came of it and why, what it cost, who may ask.
//!
//! # What is promised
//! - A request is recorded before its work begins ([`Ledger::accept`]) and when it ended ([`Pending::settle`]). When either returns, the record
//!   has reached the operating system (SQLite) or the disk (PostgreSQL): a killed process loses nothing acknowledged. Every flush interval the
//!   log is synced and a checkpoint signed: what lies under a checkpoint survives a loss of power.
//! - The records are the entries of a transparency log (c2sp.org/tlog-tiles). A changed, dropped or swapped entry is found and named by
//!   verification, a cut-off end by comparison with a checkpoint kept elsewhere, and any entry can be proven to somebody without access.
//! - What was said in words lies apart, sealed per person; erasing a person destroys a key, and the log still verifies.
//! - What is said of an answer later, and what came of it, are entries of their own ([`Ledger::give`]).
//! - Money is integers. A request's charges are written with its record in one transaction, so bills reconcile whatever crashes. Budgets are
//!   checked and held where spending is counted.
//!
//! # How
//! One task writes (`writer`): it puts what waits into one transaction. Another one (`keeper`) syncs, signs and sweeps up behind dead
//! gateways. On one PostgreSQL several gateways share log, budgets and keys: places in the log are given under a lock of the database.
//!
//! Invariant: entries are written once and never changed; nobody is answered before the commit; no amount of money is ever a float; no read of
//! records is without a [`Scope`].

mod anchor;
mod clock;
mod copy;
mod counters;
mod date;
mod entry;
mod erase;
mod error;
mod excerpt;
mod export;
mod feedback;
mod keeper;
mod keyring;
mod keys;
mod known;
mod ledger;
mod money;
mod moves;
mod note;
mod proof;
mod read;
mod record;
mod rows;
mod schema;
mod settings;
mod sqlite;
mod store;
mod tree;
mod usage;
mod vault;
mod verify;
mod writer;

pub use clock::Clock;
pub use date::{parse_timestamp, timestamp};
pub use error::{Error, Result};
pub use excerpt::beginnings;
pub use feedback::{Conversion, Feedback, Given, Receipt, Take, Unbilled, ValuePrice};
pub use keys::{ApiKey, Grant, Keys, Limits, PREFIX, Role};
pub use ledger::{Ledger, Pending, Settling};
pub use money::{Account, Balance, Budget, Charge, Hold, Item, Period, Window, amount};
pub use moves::{Course, Move};
pub use note::{Checkpoint, Root, Verifier};
pub use proof::{Consistency, Proof, Proven};
pub use read::{Filter, Page, Records, Scope};
pub use record::{Accepted, Answered, Content, Kind, Latency, Outcome, Place, Record, Route, Settled};
pub use settings::Settings;
pub use usage::{Line, Usage};
pub use verify::{Problem, Verification};
