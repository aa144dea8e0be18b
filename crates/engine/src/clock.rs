//! Time as a value: the scheduler reads the clock it was given, so tests run in virtual time.

use std::time::Duration;

/// Tells how long the engine has been running.
pub trait Clock: Send {
    /// Time since some fixed start; never goes back.
    fn now(&self) -> Duration;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy)]
pub struct Monotonic(std::time::Instant);

impl Monotonic {
    /// Starts at zero now.
    #[expect(clippy::disallowed_methods, reason = "the one place of this crate that reads the real clock")]
    pub fn start() -> Self {
        Self(std::time::Instant::now())
    }
}

impl Clock for Monotonic {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}
