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
    /// The operating system gave no thread.
    #[error("the engine's thread could not be started: {0}")]
    Thread(std::io::Error),
}
