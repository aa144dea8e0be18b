//! What a caller asks and what comes back.
//!
//! The service traits ([`Generate`], [`Embed`], [`Draw`], [`Decide`]) with their requests, events, usage and errors, as plain values. Whoever
//! offers a model (the engine in this process, a worker elsewhere, a provider's API) is a `dyn Generate`; whoever wants
//! one (the gateway, the evaluation, a cascade) holds an `Arc<dyn Generate>` and knows nothing else about it. OpenAI's
//! wire types live in [`openai`], beside explicit conversions to and from the plain values: the compute tower never
//! sees a wire type.
//!
//! Invariant: this crate depends on no runtime, no tensor and no HTTP library; its traits stay dyn-compatible.

pub mod anthropic;
mod decide;
mod draw;
mod embed;
mod error;
mod generate;
mod hop;
pub mod openai;
pub mod reasoning;
mod schema;
mod service;
pub mod sse;

pub use decide::*;
pub use draw::*;
pub use embed::*;
pub use error::*;
pub use generate::*;
pub use hop::*;
pub use schema::*;
pub use service::*;
