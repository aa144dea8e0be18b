//! Why an engine could not be made. Requests fail with [`protocol::Error`] instead.

use std::path::PathBuf;

/// Why an engine could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The weights or their description.
    #[error("{path}: {source}")]
    Model {
        /// What was to be loaded.
        path: PathBuf,
        /// What is wrong with it.
        source: model::Error,
    },
    /// The tokenizer or the chat template.
    #[error("{path}: {source}")]
    Text {
        /// What was to be loaded.
        path: PathBuf,
        /// What is wrong with it.
        source: text::Error,
    },
    /// The tokenizer knows more tokens than the model.
    #[error("{path}: the tokenizer has {tokens} tokens, the model only {vocab}: they do not belong together")]
    Mismatch {
        /// What was to be loaded.
        path: PathBuf,
        /// Tokens of the tokenizer.
        tokens: usize,
        /// Tokens of the model.
        vocab: usize,
    },
    /// An adapter's file.
    #[error("{0}")]
    Adapter(model::Error),
    /// The adapter was learned over another model.
    #[error(
        "{path}: it was learned over {learned_over}, but {name} is {found}: an adapter fits the very file that it was learned over"
    )]
    OtherBase {
        /// The adapter's file.
        path: PathBuf,
        /// The digest that it names.
        learned_over: String,
        /// The model.
        name: String,
        /// Its digest.
        found: String,
    },
    /// The model takes no adapters.
    #[error("{name} is an embedding model: it takes no adapters")]
    NoAdapters {
        /// The model.
        name: String,
    },
    /// The operating system gave no thread.
    #[error("the engine's thread could not be started: {0}")]
    Thread(std::io::Error),
}
