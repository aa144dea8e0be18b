//! Where the ledger lives and how often it makes sure.

use std::{path::PathBuf, time::Duration};

use crate::Clock;

/// How a ledger is opened.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `sqlite:PATH` (created if missing) or `postgres://USER:PASSWORD@HOST/DATABASE`.
    pub url: String,
    /// The file with the signing key and the key that wraps people's keys; created with mode 0600 if missing. It must lie outside the
    /// directory of the database: whoever gets hold of one must not have the other. Gateways on one PostgreSQL share it.
    pub keys: PathBuf,
    /// Written records are forced to disk, and a checkpoint over them signed, this often. What lies under a checkpoint survives a loss
    /// of power. 100 ms unless set.
    pub flush: Duration,
    /// A gateway that was not heard of for this long is taken for dead: what it left open is closed as `lost` and its holds are given
    /// back. 30 s unless set.
    pub lost_after: Duration,
    /// API keys are read again this often, so a revocation by another gateway is seen after this long at most. 2 s unless set.
    pub refresh: Duration,
    /// Tells the date.
    pub clock: Clock,
}

impl Settings {
    /// The defaults.
    pub fn new(url: impl Into<String>, keys: impl Into<PathBuf>) -> Self {
        Self {
            url: url.into(),
            keys: keys.into(),
            flush: Duration::from_millis(100),
            lost_after: Duration::from_secs(30),
            refresh: Duration::from_secs(2),
            clock: Clock::system(),
        }
    }
}
