//! Make weights better and save them.
//!
//! A [`Network`] is a [`model::Model`]'s spec and weights as something that learns: a tape of block-level operations, each with its gradient
//! beside the kernels, over buffers that are made once. What learns lies in one flat vector, [`Params`]: everything, or low-rank adapters beside
//! frozen weights, which may be quantised.
//!
//! Invariant: the same spec as inference, and the same loss; a step depends on its seed and data only, never on threads.

mod batch;
mod linear;
mod network;
mod optimizer;
mod params;
mod random;
mod tape;

pub use batch::Batch;
pub use linear::{Learned, Lora};
pub use network::{Losses, Network};
pub use optimizer::{Optimizer, Rule};
pub use params::{Entry, Params};
