//! The one place of this crate that reads the real time.

use std::time::Instant;

/// A stopwatch.
#[derive(Debug, Clone, Copy)]
pub struct Clock(Instant);

impl Clock {
    /// Starts now.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "measuring real time is what this module is for")]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Seconds since the start.
    #[must_use]
    pub fn seconds(self) -> f64 {
        self.0.elapsed().as_secs_f64()
    }
}
