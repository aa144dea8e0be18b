//! Arithmetic on slices, as fast as the machine allows.
//!
//! Every operation is a function whose first argument is a [`Device`]: the instruction set and the thread pool it runs on.
//! Weights are [`Matrix`] values, packed once from a checkpoint's block types into a few layouts; rows of activations are
//! [`Activations`], prepared once and multiplied by several matrices; keys and values live in a paged [`KvCache`].
//!
//! What learns has its gradient beside it: [`gemm()`] multiplies for both directions, [`attention_backward`], [`rms_norm_backward`] and their
//! like lead back. Training is its own arithmetic (no quantised products), with the same promise: fixed orders, the same bits at any thread
//! count.
//!
//! # One arithmetic
//! The same row gives the same bits whatever runs beside it: at any batch size and thread count, whether it was prefilled,
//! chunked or decoded. Each output is a chain of operations in one fixed order, and threads share out outputs, never the
//! terms of a sum. Quantised products are exact integers inside a block, so instruction sets agree to the bit as well.
//!
//! Invariant: no model, token or async runtime is known here, `unsafe` is nowhere else, and no operation allocates in the steady state.

mod activation;
mod aligned;
mod attention;
mod block;
mod buffer;
pub mod conformance;
mod device;
mod error;
mod gemm;
mod learn;
mod linear;
mod low_rank;
pub mod machine;
mod math;
mod matrix;
mod norm;
mod optimize;
mod parallel;
mod rope;
mod sample;
mod simd;
#[cfg(test)]
mod testing;
#[cfg(target_arch = "x86_64")]
mod tiles;

pub use activation::{Activation, activate, gated};
pub use aligned::Aligned;
pub use attention::{
    Attended, Attention, AttentionGradient, AttentionSpec, Branch, KvCache, KvShape, PAGE_TOKENS, Span, attention,
    attention_backward, attention_forward, encoder_attention, read_keys, store_kv,
};
pub use block::BlockType;
pub use device::{Device, Isa};
pub use error::Error;
pub use gemm::{LeftPanels, Panels, Precision, RightPanels, Vectors, gemm};
pub use learn::{
    Distil, Divergence, Dropout, TEACHER_TOKENS, Teaching, activate_backward, add, copy, cross_entropy, distil,
    dropout, embed, embed_backward, gated_backward, gated_forward, rms_norm_backward, rms_norm_forward, zero,
};
pub use linear::{Activations, Form, Linear, linear, linear_beside, linear_rows};
pub use low_rank::{Beside, Factors, LowRank, MOST_RANKS};
pub use matrix::Matrix;
pub use norm::{layer_norm, rms_norm, rms_norm_add, rms_norm_in_place, rms_norm_to};
pub use optimize::{AdamW, Muon, MuonRoom, blend, square_sum, square_sums};
pub use rope::{RopeScaling, RopeSpec, RopeStyle, RopeTable, rope, rope_backward, unrope};
pub use sample::{argmax, gumbel, gumbel_argmax, log_sum_exp, top_k};
