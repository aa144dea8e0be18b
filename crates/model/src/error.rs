//! Why a checkpoint could not become a model.
//!
//! [`Problem`] says what is wrong, without knowing where the bytes came from (so that headers can be read from memory and
//! fuzzed); [`Error`] puts the file's name in front of it.

use std::path::{Path, PathBuf};

use kernels::BlockType;

/// Why a model could not be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[error("file {}: {problem}", path.display())]
pub struct Error {
    /// The file (or directory) that is at fault.
    pub path: PathBuf,
    /// What is wrong with it.
    #[source]
    pub problem: Problem,
}

/// What is wrong with a checkpoint.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The operating system refused.
    #[error("cannot be read ({0})")]
    Io(#[from] std::io::Error),
    /// Neither GGUF nor a directory with `config.json` and safetensors.
    #[error("is no checkpoint: {0}; give a .gguf file, or a directory with config.json and model.safetensors")]
    NotACheckpoint(String),
    /// The header does not follow its format.
    #[error("broken header at byte {at}: {what}; the file is damaged or not fully downloaded: fetch it again")]
    Header {
        /// Where reading stopped.
        at: u64,
        /// What was found.
        what: String,
    },
    /// A tensor lies outside of the file.
    #[error(
        "tensor {tensor} needs {needs} bytes at offset {offset}, the file ends at {end}; it is cut short: fetch it again"
    )]
    Bounds {
        /// The tensor.
        tensor: String,
        /// Its length in bytes.
        needs: u64,
        /// Where it starts.
        offset: u64,
        /// Length of the file.
        end: u64,
    },
    /// Two tensors claim the same bytes.
    #[error("tensors {first} and {second} overlap at offset {offset}; the file is damaged: fetch it again")]
    Overlap {
        /// The one that starts first.
        first: String,
        /// The one that starts inside it.
        second: String,
        /// Where the second starts.
        offset: u64,
    },
    /// A shape, length or alignment of a tensor is impossible.
    #[error("tensor {tensor}: {what}")]
    Tensor {
        /// The tensor.
        tensor: String,
        /// What is wrong.
        what: String,
    },
    /// The numbers are stored in a way that is not supported.
    #[error(
        "tensor {tensor} is stored as {kind}, which is not supported; convert the model to one of {}",
        supported_types()
    )]
    Type {
        /// The tensor.
        tensor: String,
        /// Name or number of its type.
        kind: String,
    },
    /// A tensor that the family needs is not there.
    #[error("tensor {tensor} is missing: the checkpoint is incomplete, or not of the family {family}")]
    MissingTensor {
        /// The tensor.
        tensor: String,
        /// The family.
        family: String,
    },
    /// The checkpoint has weights that the family does not use: results would be wrong without them.
    #[error("tensor {tensor} has no place in the family {family}: the model has parts that are not supported")]
    UnusedTensor {
        /// The tensor.
        tensor: String,
        /// The family.
        family: String,
    },
    /// A field of the metadata is missing or senseless.
    #[error("metadata {field} {what}")]
    Field {
        /// Its key.
        field: String,
        /// What is wrong.
        what: String,
    },
    /// An architecture that nobody taught us.
    #[error("architecture {found:?} is not supported; supported are {}", crate::arch::supported())]
    Family {
        /// What the checkpoint calls itself.
        found: String,
    },
    /// Numbers did not pack.
    #[error("tensor {tensor}: {source}")]
    Pack {
        /// The tensor.
        tensor: String,
        /// Why.
        source: kernels::Error,
    },
}

impl Problem {
    pub(crate) fn field(field: impl Into<String>, what: impl Into<String>) -> Self {
        Self::Field { field: field.into(), what: what.into() }
    }

    pub(crate) fn tensor(tensor: impl Into<String>, what: impl Into<String>) -> Self {
        Self::Tensor { tensor: tensor.into(), what: what.into() }
    }

    /// Says which file has this problem.
    pub fn in_file(self, path: &Path) -> Error {
        Error { path: path.to_owned(), problem: self }
    }
}

fn supported_types() -> String {
    use BlockType::{BF16, F16, F32, Q4_0, Q4_1, Q4_K, Q5_0, Q5_1, Q5_K, Q6_K, Q8_0};
    let all = [F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K, Q6_K];
    all.map(|kind| format!("{kind:?}")).join(", ")
}
