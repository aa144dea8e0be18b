//! What a running pull tells its caller.

/// What a pull is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stage {
    /// Another process pulls the same name.
    Waiting,
    /// Asking the source what there is.
    Resolving,
    /// Bytes arrive.
    Downloading,
    /// Members of an archive are written and checked.
    Unpacking,
}

/// How far a pull is. Counts are over all files of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress<'a> {
    /// What it is doing.
    pub stage: Stage,
    /// With which file or name.
    pub item: &'a str,
    /// Bytes done in this stage.
    pub done: u64,
    /// Bytes of this stage, where they are known.
    pub total: Option<u64>,
}

/// Where progress goes.
pub(crate) type Report<'a> = dyn Fn(Progress<'_>) + Send + Sync + 'a;

impl<'a> Progress<'a> {
    pub(crate) fn at(stage: Stage, item: &'a str) -> Self {
        Self { stage, item, done: 0, total: None }
    }
}
