//! Services under scripts of faults, in paused time; upstreams over real sockets.
#![expect(clippy::unwrap_used, clippy::panic, reason = "shared functions of a test binary")]

mod balanced;
mod breaker;
mod canary;
mod capable;
mod cascade;
mod fake;
mod fallback;
mod guarded;
mod guarded_calls;
mod migrating;
mod recordings;
mod rollout;
mod server;
mod sockets;
