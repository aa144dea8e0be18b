//! The one place that reads the date.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::facts::date::Day;

/// The day it is, in UTC.
#[expect(
    clippy::disallowed_methods,
    reason = "texts say yesterday, and rules ask how long ago; the day used is a fact of the decision"
)]
pub(crate) fn today() -> Day {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    Day::of_unix_seconds(seconds)
}
