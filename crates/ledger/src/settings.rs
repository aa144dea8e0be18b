//! Where the ledger lives and how often it makes sure.

use std::{env, path::PathBuf, time::Duration};

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
    /// A SQLite file in this user's data directory, and the key file in the configuration directory (`$XDG_DATA_HOME/tessera/ledger.db` and
    /// `$XDG_CONFIG_HOME/tessera/ledger.key`, by default below `~/.local/share` and `~/.config`).
    pub fn of_user() -> Self {
        let data = directory("XDG_DATA_HOME", ".local/share").join("ledger.db");
        Self::new(format!("sqlite:{}", data.display()), directory("XDG_CONFIG_HOME", ".config").join("ledger.key"))
    }

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

/// This program's part of a directory that the environment names, or of the usual one.
fn directory(variable: &str, usual: &str) -> PathBuf {
    let named = env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || env::var_os("HOME").map(PathBuf::from).unwrap_or_default().join(usual);
    named.unwrap_or_else(home).join("tessera")
}
