//! Many requests become batches, batches become events.
//!
//! Invariant: no HTTP and no wire type is known here.

mod pages;
mod prefix;
