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
    /// These students. Whoever was `known` before is loaded anew if its folder is another by now, and kept where that fails: a broken student must not
    /// stand in the way of other changes.
    pub(crate) fn open(names: &[String], args: &EngineArgs, known: &Self) -> anyhow::Result<Self> {
        let student = |name: &String| {
            let before = known.0.iter().find(|(before, _)| before == name).map(|(_, engine)| engine);
            let engine = match (load(name, args, before), before) {
                (Err(error), Some(before)) => {
                    tracing::warn!(student = %name, "stays as it was: {error:#}");
                    before.clone()
                }
                (loaded, _) => loaded?,
            };
            Ok((name.clone(), engine))
        };
        Ok(Self(names.iter().map(student).collect::<anyhow::Result<_>>()?))
    }

    /// Their engines.
    pub(crate) fn engines(&self) -> impl Iterator<Item = &Arc<Engine>> {
        self.0.iter().map(|(_, engine)| engine)
    }
}

/// The student as it lies there, which may be the engine `before`.
fn load(name: &str, args: &EngineArgs, before: Option<&Arc<Engine>>) -> anyhow::Result<Arc<Engine>> {
    let folder = folder(name)?;
    ensure!(
        folder.exists(),
        "models.students names {name}, and {} is not there: `tessera distill` makes students",
        folder.display()
    );
    let digest = model::digest(folder.clone())?;
    if let Some(engine) = before.filter(|engine| engine.card().digest == digest) {
        return Ok(engine.clone());
    }
    let engine = Engine::load(&folder, args.config(name.to_owned()), &|_, _| {});
    let engine = engine.with_context(|| format!("cannot load the student {name}"))?;
    Ok(Arc::new(engine.with_digest(digest)))
}
