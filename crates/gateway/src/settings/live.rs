//! Settings in force, and how they change while the server runs: whole or not at all.
//!
//! The file is looked at every second (which works on every file system, and when a file is replaced through a link), and at
//! once on SIGHUP. New settings are checked, then every part that depends on them prepares its change; only if all of them
//! can, all of them change. Else the last good settings stay, and log and metrics say so.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use arc_swap::{ArcSwap, ArcSwapOption};
use metrics::{counter, gauge};
use parking_lot::Mutex;

use super::{Settings, SettingsError};

const PERIOD: Duration = Duration::from_secs(1);

/// A change that is prepared and cannot fail any more.
type Commit = Box<dyn FnOnce() + Send>;
type Prepare = Box<dyn Fn(&Settings) -> Result<Commit, String> + Send + Sync>;

/// Settings in force.
#[derive(Debug)]
pub struct InForce {
    /// The settings.
    pub settings: Settings,
    /// Their name, on every record.
    pub digest: String,
}

/// Settings that may change.
#[derive(Default)]
pub struct Live {
    in_force: ArcSwap<InForce>,
    /// Why the file's last change was not taken over, until one is.
    refused: ArcSwapOption<Refused>,
    parts: Mutex<Vec<Prepare>>,
}

impl Default for InForce {
    fn default() -> Self {
        Self::from(Settings::default())
    }
}

impl From<Settings> for InForce {
    fn from(settings: Settings) -> Self {
        let digest = settings.digest();
        Self { settings, digest }
    }
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live").field("digest", &self.in_force.load().digest).finish_non_exhaustive()
    }
}

/// Why new settings are not taken over.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// The file is wrong.
    #[error(transparent)]
    Wrong(#[from] SettingsError),
    /// A part of the server cannot change so.
    #[error("{0}")]
    Cannot(String),
}

impl Live {
    /// These settings are in force.
    pub fn new(settings: Settings) -> Arc<Self> {
        let in_force = InForce::from(settings);
        gauge!("tessera_config_info", "hash" => in_force.digest.clone()).set(1.0);
        Arc::new(Self { in_force: ArcSwap::from_pointee(in_force), ..Self::default() })
    }

    /// What is in force now.
    pub fn get(&self) -> Arc<InForce> {
        self.in_force.load_full()
    }

    /// Why the file as it stands is not in force, if it is not.
    pub fn refused(&self) -> Option<Arc<Refused>> {
        self.refused.load_full()
    }

    /// Lets a part of the server follow: `prepare` looks at new settings and returns what makes them true, or why it cannot.
    pub fn follow(&self, prepare: impl Fn(&Settings) -> Result<Commit, String> + Send + Sync + 'static) {
        self.parts.lock().push(Box::new(prepare));
    }

    /// Takes new settings over, if every part can; says whether anything changed.
    pub fn change(&self, settings: Settings) -> Result<bool, Refused> {
        let next = InForce::from(settings);
        let now = self.get();
        if now.settings == next.settings {
            return Ok(false);
        }
        fixed(&now.settings, &next.settings).map_err(Refused::Cannot)?;
        let parts = self.parts.lock();
        let commits: Result<Vec<Commit>, String> = parts.iter().map(|prepare| prepare(&next.settings)).collect();
        commits.map_err(Refused::Cannot)?.into_iter().for_each(|commit| commit());
        gauge!("tessera_config_info", "hash" => now.digest.clone()).set(0.0);
        gauge!("tessera_config_info", "hash" => next.digest.clone()).set(1.0);
        self.in_force.store(Arc::new(next));
        Ok(true)
    }
}

/// Sections that are read once, when the server starts.
fn fixed(now: &Settings, next: &Settings) -> Result<(), String> {
    let sections = [
        ("server", now.server == next.server),
        ("models", (&now.models.chat, &now.models.embed) == (&next.models.chat, &next.models.embed)),
        ("engine", now.engine == next.engine),
        ("ledger", now.ledger == next.ledger),
        ("tracing", now.tracing == next.tracing),
    ];
    let changed: Vec<_> = sections.iter().filter(|(_, same)| !same).map(|(name, _)| format!("[{name}]")).collect();
    if changed.is_empty() {
        return Ok(());
    }
    Err(format!("{} cannot change while the server runs: restart it, or take that change back", changed.join(", ")))
}

/// A settings file that is watched.
pub struct Watch {
    path: PathBuf,
    live: Arc<Live>,
    over: Over,
}

/// What wins over the file, such as options of the command line.
type Over = Box<dyn Fn(&mut Settings) + Send + Sync>;

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Watch {
    /// `live` follows the file at `path`; `over` is what wins over the file.
    pub fn new(path: PathBuf, live: Arc<Live>, over: impl Fn(&mut Settings) + Send + Sync + 'static) -> Self {
        Self { path, live, over: Box::new(over) }
    }

    /// Never ends.
    pub async fn run(self) {
        // Nothing is seen yet: the file may have changed since the server read it.
        let mut seen = None;
        let mut hang_up = hang_up();
        let watch = Arc::new(self);
        loop {
            let asked = tokio::select! {
                () = tokio::time::sleep(PERIOD) => false,
                () = hang_up.next() => true,
            };
            let text = watch.text().await;
            if asked || text != seen {
                // Preparing may compute, as loading a model does.
                let watch = watch.clone();
                if let Err(error) = tokio::task::spawn_blocking(move || watch.reload()).await {
                    tracing::error!(%error, "the settings in force stay: taking over the new ones broke off");
                }
            }
            seen = text;
        }
    }

    async fn text(&self) -> Option<Vec<u8>> {
        let path = self.path.clone();
        tokio::task::spawn_blocking(move || std::fs::read(path).ok()).await.ok().flatten()
    }

    /// Reads the file and takes it over, or says why not; both show in the metrics and in the console.
    pub fn reload(&self) {
        let read = Settings::load(&self.path).map_err(Refused::from);
        let result = read.and_then(|mut settings| {
            (self.over)(&mut settings);
            self.live.change(settings)
        });
        gauge!("tessera_config_last_reload_ok").set(if result.is_ok() { 1.0 } else { 0.0 });
        match &result {
            Ok(false) => {}
            Ok(true) => {
                tracing::info!(hash = %self.live.get().digest, "new settings are in force");
                counter!("tessera_config_reloads_total", "result" => "applied").increment(1);
            }
            Err(error) => {
                tracing::error!(%error, "the settings in force stay: the new ones are refused");
                counter!("tessera_config_reloads_total", "result" => "refused").increment(1);
            }
        }
        self.live.refused.store(result.err().map(Arc::new));
    }
}

/// SIGHUP, where there is such a thing.
struct HangUp(#[cfg(unix)] Option<tokio::signal::unix::Signal>);

#[cfg(unix)]
fn hang_up() -> HangUp {
    HangUp(tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup()).ok())
}

#[cfg(not(unix))]
fn hang_up() -> HangUp {
    HangUp()
}

impl HangUp {
    async fn next(&mut self) {
        #[cfg(unix)]
        if let Some(signal) = &mut self.0
            && signal.recv().await.is_some()
        {
            return;
        }
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn parse(text: &str) -> Settings {
        Settings::parse(text).unwrap()
    }

    #[test]
    fn all_parts_change_or_none_does() {
        let live = Live::new(Settings::default());
        let changed = Arc::new(AtomicUsize::new(0));
        let count = changed.clone();
        live.follow(move |_| {
            let count = count.clone();
            Ok(Box::new(move || {
                count.fetch_add(1, Ordering::SeqCst);
            }))
        });
        live.follow(|settings| match settings.limits.requests_per_minute {
            13 => Err("thirteen is unlucky".to_owned()),
            _ => Ok(Box::new(|| {})),
        });
        let before = live.get().digest.clone();
        let unlucky = live.change(parse("[limits]\nrequests_per_minute = 13")).unwrap_err();
        assert!(unlucky.to_string().contains("unlucky"));
        assert_eq!((changed.load(Ordering::SeqCst), &live.get().digest), (0, &before));
        assert!(live.change(parse("[limits]\nrequests_per_minute = 14")).unwrap());
        assert!(!live.change(parse("[limits]\nrequests_per_minute = 14")).unwrap());
        assert_eq!(changed.load(Ordering::SeqCst), 1);
        assert_ne!(live.get().digest, before);
    }

    #[test]
    fn what_needs_a_restart_is_refused_by_name() {
        let live = Live::new(Settings::default());
        let error = live.change(parse("[server]\nmax_body = \"1MiB\"")).unwrap_err();
        assert!(error.to_string().contains("[server]"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_changed_before_the_first_look_is_seen() {
        let path = std::env::temp_dir().join(format!("tessera-first-look-{}.toml", std::process::id()));
        let live = Live::new(Settings::default());
        std::fs::write(&path, "[limits]\nrequests_per_minute = 5").unwrap();
        let watching = Watch::new(path.clone(), live.clone(), |_| {}).run();
        tokio::time::timeout(20 * PERIOD, watching).await.unwrap_err();
        assert_eq!(live.get().settings.limits.requests_per_minute, 5);
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_broken_file_changes_nothing() {
        let path = std::env::temp_dir().join(format!("tessera-live-{}.toml", std::process::id()));
        let live = Live::new(Settings::default());
        let watch = Watch::new(path.clone(), live.clone(), |settings| settings.limits.in_flight = 7);
        std::fs::write(&path, "[limits]\nrequests_per_minute = 5").unwrap();
        watch.reload();
        let limits = live.get().settings.limits.clone();
        assert_eq!((limits.requests_per_minute, limits.in_flight), (5, 7));
        std::fs::write(&path, "[limits]\nrequests_per_minute = \"many\"").unwrap();
        watch.reload();
        assert_eq!(live.get().settings.limits.requests_per_minute, 5);
        let refused = live.refused().unwrap().to_string();
        assert!(refused.contains("line 2"), "{refused}");
        std::fs::write(&path, "[limits]\nrequests_per_minute = 5").unwrap();
        watch.reload();
        assert!(live.refused().is_none(), "what is in force again is no longer refused");
        std::fs::remove_file(&path).unwrap();
        watch.reload();
        assert_eq!(live.get().settings.limits.requests_per_minute, 5);
    }
}
