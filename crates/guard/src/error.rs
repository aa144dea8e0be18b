//! What can be wrong with a policy.

/// Why a policy cannot be put to use. The place names the field of the policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{place}`: {message}")]
pub struct Error {
    /// The field, such as `patterns.order.regex`.
    pub place: String,
    /// What is wrong with it and what to do.
    pub message: String,
}

impl Error {
    pub(crate) fn new(place: impl Into<String>, message: impl Into<String>) -> Self {
        Self { place: place.into(), message: message.into() }
    }
}
