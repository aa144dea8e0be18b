//! Services that are not in this process, and services made of other services.
//!
//! Everything here is one of the protocol's traits on the outside and, but for the first two, holds some on the inside, so that a
//! composition root stacks them as it likes and whoever asks sees no difference:
//!
//! - [`upstream::Upstream`]: a server elsewhere that speaks OpenAI's or Anthropic's API.
//! - [`remote::Remote`]: a worker, that is another Tessera.
//! - [`Capable`]: what a model cannot do is refused by name, or done in another way where one is defined.
//! - [`Fallback`]: the next one answers where one fails.
//! - [`Breaker`]: one that keeps failing is left alone for a while.
//! - [`Balanced`]: the less busy of two alike ones answers.
//! - [`Rotating`]: the same for vectors, in turn.
//! - [`Migrating`]: a stream that breaks goes on elsewhere.
//! - [`Guarded`]: what goes in and comes out is checked by a policy.
//! - [`rollout::Rollout`]: versions under one name, each for its share of the callers.
//! - [`cascade::Cascade`]: a small model answers where it is sure enough, a large one else.
//! - [`Named`]: several services of text as one, by the names of their models.
//!
//! One line divides every request in two: its **first byte**, the first piece of an answer. Before it nothing was delivered, so a
//! failure may be tried again or elsewhere, and nobody sees. After it nothing is ever sent twice.
//!
//! Time is tokio's, which tests pause; nothing here reads a clock of its own.
//!
//! Invariant: no server and no engine is known here; nothing is sent again once its first byte was delivered; a key is sent to the
//! server it belongs to and never logged; dropping a stream cancels the work behind it.

mod balanced;
mod breaker;
mod capable;
pub mod cascade;
mod fallback;
mod first;
mod guarded;
mod migrating;
mod named;
pub mod remote;
mod retry;
pub mod rollout;
mod rotating;
pub mod upstream;

pub use balanced::{Balanced, Limits};
pub use breaker::{Breaker, Trip};
pub use capable::Capable;
pub use fallback::{Fallback, Target};
pub use guarded::{Guarded, judge, judge_tokens};
pub use migrating::Migrating;
pub use named::Named;
pub use retry::Retry;
pub use rotating::Rotating;
