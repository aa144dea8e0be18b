//! Arithmetic on slices, as fast as the machine allows.
//!
//! Every operation is a function whose first argument is a [`Device`]: the instruction set and the thread pool it runs on.
//! Weights are [`Matrix`] values, packed once from a checkpoint's block types into a few layouts; rows of activations are
//! [`Activations`], prepared once and multiplied by several matrices; keys and values live in a paged [`KvCache`].
//!
//! # One arithmetic
//! The same row gives the same bits whatever runs beside it: at any batch size and thread count, whether it was prefilled,
//! chunked or decoded. Each output is a chain of operations in one fixed order, and threads share out outputs, never the
//! terms of a sum. Quantised products are exact integers inside a block, so instruction sets agree to the bit as well.
//!
//! Invariant: no model, token or async runtime is known here, `unsafe` is nowhere else, and no operation allocates in the steady state.

mod activation;
mod attention;
mod block;
mod buffer;
pub mod conformance;
mod device;
mod error;
mod linear;
pub mod machine;
mod math;
mod matrix;
mod norm;
mod parallel;
mod rope;
mod sample;
mod simd;
#[cfg(test)]
mod testing;
#[cfg(target_arch = "x86_64")]
mod tiles;

pub use activation::{Activation, activate, gated};
pub use attention::{
    AttentionSpec, KvCache, KvShape, PAGE_TOKENS, Span, attention, encoder_attention, read_keys, store_kv,
};
pub use block::BlockType;
pub use device::{Device, Isa};
pub use error::Error;
pub use linear::{Activations, Form, Linear, linear, linear_rows};
pub use matrix::Matrix;
pub use norm::{layer_norm, rms_norm, rms_norm_add, rms_norm_in_place, rms_norm_to};
pub use rope::{RopeScaling, RopeSpec, RopeStyle, RopeTable, rope, unrope};
pub use sample::{argmax, gumbel, gumbel_argmax, log_sum_exp, top_k};
