//! What can be wrong with a tokenizer, a template or a grammar.

/// Why text could not be handled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The vocabulary or `tokenizer.json` is broken or of a kind unknown here.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// The chat template is broken or refused the messages (its `raise_exception` message, verbatim).
    #[error("chat template: {0}")]
    Template(String),
    /// The grammar or schema is broken or not supported.
    #[error("{0}")]
    Grammar(String),
    /// What the grammar takes is more than its limits allow; that shows as late as in the middle of a text.
    #[error("{0}")]
    Limit(String),
}
