//! Tool calls in an answer's text: found by `text`, given ids here.

use std::hash::{BuildHasher, RandomState};

use text::{ToolEvent, ToolParser};

/// Letters of ids.
const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
/// Letters of an id behind `call_`, as many as OpenAI's have.
const ID_LETTERS: usize = 24;

/// Tells the calls of one answer from its content.
#[derive(Debug)]
pub struct Calls {
    parser: ToolParser,
    /// Ids are drawn, not counted: they must differ between the turns of a conversation, which nobody here remembers.
    ids: RandomState,
}

/// A part of the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Content.
    Text(String),
    /// A call begins.
    Call { index: usize, id: String, name: String },
    /// More of its arguments.
    Arguments { index: usize, text: String },
}

impl Calls {
    /// For an answer that `parser` reads.
    pub fn new(parser: ToolParser) -> Self {
        Self { parser, ids: RandomState::new() }
    }

    pub(crate) fn push(&mut self, text: &str) -> Vec<Piece> {
        let events = self.parser.push(text);
        self.pieces(events)
    }

    pub(crate) fn finish(&mut self) -> Vec<Piece> {
        let events = self.parser.finish();
        self.pieces(events)
    }

    /// The answer called something, and nothing was cut off.
    pub(crate) fn called(&self) -> bool {
        self.parser.called()
    }

    fn pieces(&self, events: Vec<ToolEvent>) -> Vec<Piece> {
        let piece = |event| match event {
            ToolEvent::Text(text) => Piece::Text(text),
            ToolEvent::Call { index, name } => Piece::Call { index, id: self.id(index), name },
            ToolEvent::Arguments { index, text } => Piece::Arguments { index, text },
        };
        events.into_iter().map(piece).collect()
    }

    fn id(&self, index: usize) -> String {
        let letter = |place: usize| char::from(ALPHABET[(self.ids.hash_one((index, place)) % 62) as usize]);
        "call_".chars().chain((0..ID_LETTERS).map(letter)).collect()
    }
}
