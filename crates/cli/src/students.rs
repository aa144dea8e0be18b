//! Students that `tessera distill` made, served beside the models. Which of them, the settings say, and may say otherwise while the server runs: they
//! are small enough to be loaded in between. One that is made anew under its name is loaded anew; if it cannot be, the last good one stays.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use anyhow::{Context, ensure};
use engine::Engine;
use gateway::settings::Live;

use crate::{
    adapters::{self, Stamp},
    compose,
    model::{self, EngineArgs},
};

/// Where a student lies.
pub(crate) fn folder(name: &str) -> anyhow::Result<PathBuf> {
    Ok(compose::home("XDG_DATA_HOME", ".local/share")?.join("students").join(name))
}

/// Those that are loaded, in the order of the settings.
#[derive(Debug, Clone, Default)]
pub(crate) struct Students(Vec<(String, Arc<Engine>)>);

impl Students {
    /// These students; whoever was `known` before is kept, if its folder is the same.
    pub(crate) fn open(names: &[String], args: &EngineArgs, known: &Self) -> anyhow::Result<Self> {
        let student = |name: &String| {
            let digest = digest(name)?;
            let same = |(before, engine): &&(String, Arc<Engine>)| before == name && engine.card().digest == digest;
            let same = known.0.iter().find(same).cloned();
            same.map_or_else(|| Ok((name.clone(), load(name, digest, args)?)), Ok)
        };
        Ok(Self(names.iter().map(student).collect::<anyhow::Result<_>>()?))
    }

    /// Their engines.
    pub(crate) fn engines(&self) -> impl Iterator<Item = &Arc<Engine>> {
        self.0.iter().map(|(_, engine)| engine)
    }
}

fn digest(name: &str) -> anyhow::Result<String> {
    let folder = folder(name)?;
    ensure!(
        folder.exists(),
        "models.students names {name}, and {} is not there: `tessera distill` makes students",
        folder.display()
    );
    model::digest(folder)
}

fn load(name: &str, digest: String, args: &EngineArgs) -> anyhow::Result<Arc<Engine>> {
    let engine = Engine::load(&folder(name)?, args.config(name.to_owned()), &|_, _| {});
    let engine = engine.with_context(|| format!("cannot load the student {name}"))?;
    Ok(Arc::new(engine.with_digest(digest)))
}

/// The weights of the students that the settings name.
type Seen = BTreeMap<String, BTreeMap<PathBuf, Stamp>>;

/// Looks again and again whether one of them has other weights. Never ends.
pub(crate) async fn watch(live: Arc<Live>) {
    let mut seen = Seen::new();
    loop {
        let live = live.clone();
        match tokio::task::spawn_blocking(move || look(&live, &seen)).await {
            Ok(now) => seen = now,
            Err(error) => {
                tracing::error!(%error, "students are not followed any more");
                return std::future::pending().await;
            }
        }
        tokio::time::sleep(adapters::EVERY).await;
    }
}

fn look(live: &Live, seen: &Seen) -> Seen {
    let weights = |name: &String| Some((name.clone(), adapters::files(&folder(name).ok()?).unwrap_or_default()));
    let now: Seen = live.get().settings.models.students.iter().filter_map(weights).collect();
    // One that was not there before may have been made anew since it was loaded.
    if now != *seen
        && let Err(error) = live.again()
    {
        tracing::warn!(%error, "students stay as they are");
    }
    now
}
