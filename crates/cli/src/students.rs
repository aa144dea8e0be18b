//! Students that `tessera distill` made, served beside the models. Which of them, the settings say, and may say otherwise while the server runs: they
//! are small enough to be loaded in between.

use std::{path::PathBuf, sync::Arc};

use anyhow::{Context, ensure};
use engine::Engine;

use crate::{
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
    /// These students; whoever was `known` before is kept.
    pub(crate) fn open(names: &[String], args: &EngineArgs, known: &Self) -> anyhow::Result<Self> {
        let student = |name: &String| {
            let same = known.0.iter().find(|(before, _)| before == name).cloned();
            same.map_or_else(|| Ok((name.clone(), load(name, args)?)), Ok)
        };
        Ok(Self(names.iter().map(student).collect::<anyhow::Result<_>>()?))
    }

    /// Their engines.
    pub(crate) fn engines(&self) -> impl Iterator<Item = &Arc<Engine>> {
        self.0.iter().map(|(_, engine)| engine)
    }
}

fn load(name: &str, args: &EngineArgs) -> anyhow::Result<Arc<Engine>> {
    let folder = folder(name)?;
    ensure!(
        folder.exists(),
        "models.students names {name}, and {} is not there: `tessera distill` makes students",
        folder.display()
    );
    let digest = model::digest(folder.clone())?;
    let engine = Engine::load(&folder, args.config(name.to_owned()), &|_, _| {});
    let engine = engine.with_context(|| format!("cannot load the student {name}"))?;
    Ok(Arc::new(engine.with_digest(digest)))
}
