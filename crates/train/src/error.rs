//! Why a run cannot begin, go on or be taken up again.

use std::path::PathBuf;

/// What stands in the way of training.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A number of the plan makes no sense.
    #[error("plan: `{field}` {what}")]
    Plan {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        what: String,
    },
    /// A sample cannot be learned from.
    #[error("sample {index}: {what}")]
    Sample {
        /// Its place among the samples, from 0 on.
        index: usize,
        /// What is wrong with it.
        what: String,
    },
    /// There are no samples.
    #[error("no samples: there is nothing to learn from")]
    NoSamples,
    /// The network has no adapters.
    #[error("no adapters learned: there is nothing to save")]
    NoAdapters,
    /// A student of these sizes cannot be cut out of the network.
    #[error("student: {0}")]
    Student(String),
    /// A model of this kind cannot be written down.
    #[error(transparent)]
    Model(#[from] model::Problem),
    /// An adapter's file could not be read.
    #[error(transparent)]
    Adapter(#[from] model::Error),
    /// What went wrong before went wrong again after going back.
    #[error(
        "step {step}: {why}, as before the run went back to step {from}: \
         the same data lead there again; lower `rate` or look at the samples of this step"
    )]
    Again {
        /// Where it stopped.
        step: u64,
        /// Where it had gone back to.
        from: u64,
        /// What happened.
        why: crate::Trouble,
    },
    /// Ranks are connected once in a process.
    #[error("MPI was begun before in this process")]
    Ranks,
    /// The rank that writes could not.
    #[error("the first rank could not write the checkpoint; it says why")]
    Unsaved,
    /// Matrices are not spread.
    #[error("muon steps whole matrices, which are not spread over ranks: take adamw")]
    Spread,
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file is no checkpoint, or not of this run.
    #[error("checkpoint {}: {what}", path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
}
