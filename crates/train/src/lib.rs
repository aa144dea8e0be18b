//! Make weights better and save them.
//!
//! A [`Network`] is a [`model::Model`]'s spec and weights as something that learns: a tape of block-level operations, each with its gradient
//! beside the kernels, over buffers that are made once. What learns lies in one flat vector, [`Params`]: everything, or low-rank adapters beside
//! frozen weights, which may be quantised.
//!
//! A [`Student`] is a smaller network cut out of another, and a checkpoint that everybody reads.
//!
//! What learns may be spread over the ranks of a [`Group`], which are processes or machines; how they are connected is a [`Collective`]'s matter.
//!
//! A [`Trainer`] is a run: it takes a network over [`Sample`]s by a [`Plan`], step by step, and is saved and taken up again to the bit.
//!
//! Invariant: the same spec as inference, and the same loss; a step depends on its seed and data only, never on threads, and a
//! spread one not on the number of ranks.

mod adapter;
mod batch;
mod checkpoint;
mod domain;
mod error;
mod exits;
mod file;
mod group;
mod linear;
#[cfg(feature = "mpi")]
mod mpi;
mod network;
mod optimizer;
mod params;
mod plan;
mod random;
mod replay;
mod router;
mod sample;
mod scale;
mod shards;
mod student;
mod tape;
mod trainer;
mod watch;

pub use adapter::{Part, merge_adapter, save_adapter, save_experts};
pub use batch::{Batch, Teacher};
pub use domain::FoundDomain;
pub use error::Error;
pub use exits::{Calibrated, Written};
pub use group::{Collective, Group};
pub use linear::{Learned, Lora};
#[cfg(feature = "mpi")]
pub use mpi::Mpi;
pub use network::{Held, Losses, Network};
pub use optimizer::{Method, Optimizer, Rule};
pub use params::{Entry, Kind, Params};
pub use plan::{Distillation, Dropout, Exits, Length, Plan, Replay, Schedule};
pub use router::States;
pub use sample::{Sample, check};
pub use shards::Stage;
pub use student::{Bits, Cut, Files, Size, Student};
pub use trainer::{Drift, Outcome, Step, Trainer};
pub use watch::Trouble;
