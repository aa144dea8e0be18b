//! The one place that reads the date. Durations are measured with tokio's clock, which tests can pause.

use std::time::{SystemTime, UNIX_EPOCH};

/// The date, for spans and for canaries, whose steps outlast the process.
#[expect(clippy::disallowed_methods, reason = "spans and moves of canaries carry the date")]
pub(crate) fn now() -> SystemTime {
    SystemTime::now()
}

/// Seconds since 1970.
#[expect(clippy::disallowed_methods, reason = "replies carry the date; no decision depends on it")]
pub(crate) fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
