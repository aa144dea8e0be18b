//! Tool calls in the answer's text, as they stream.

/// Tells calls from content.
#[derive(Debug, Clone)]
pub struct Calls {}

/// A part of the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Content.
    Text(String),
    /// More of a call; the first piece of an `index` carries id and name.
    Call { index: usize, id: Option<String>, name: Option<String>, arguments: String },
}

impl Calls {
    pub(crate) fn push(&mut self, text: &str) -> Vec<Piece> {
        vec![Piece::Text(text.to_owned())]
    }

    pub(crate) fn finish(&mut self) -> Vec<Piece> {
        Vec::new()
    }

    pub(crate) fn called(&self) -> bool {
        false
    }
}
