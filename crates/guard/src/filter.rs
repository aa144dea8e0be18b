//! Text that comes in pieces: each piece is held until no rule can find anything in it that begins there.
//!
//! The verdict on a stream is that on the whole text, wherever it is cut, because rules read one character at a time and say
//! what they have decided. What an enforcing rule has not decided does not leave. That is bounded: a match has a longest
//! length, and so has every stretch of text that is judged as one.

use std::sync::Arc;

use crate::{
    finder::Place,
    fold::Folded,
    guard::Compiled,
    mask,
    policy::{Action, Direction},
    report::{Release, Verdict},
};

/// Judges a text while it comes. One filter for every text: an answer's choice, the arguments of a tool call.
#[derive(Debug)]
pub struct Filter {
    compiled: Arc<Compiled>,
    direction: Direction,
    folded: Folded,
    places: Vec<Place>,
    /// What came and has not left.
    held: String,
    /// Where in the stream it begins.
    from: usize,
    /// Findings in it that are to be masked.
    masks: Vec<Verdict>,
    /// The beginning of a character whose other bytes have not come.
    torn: Vec<u8>,
    blocked: bool,
}

impl Filter {
    pub(crate) fn new(compiled: Arc<Compiled>, direction: Direction) -> Self {
        let places = compiled.finders(direction).start();
        Self {
            compiled,
            direction,
            folded: Folded::default(),
            places,
            held: String::new(),
            from: 0,
            masks: Vec::new(),
            torn: Vec::new(),
            blocked: false,
        }
    }

    /// More text; returns what may leave.
    pub fn push(&mut self, text: &str) -> Release {
        if self.blocked {
            return Release { blocked: true, ..Release::default() };
        }
        self.held.push_str(text);
        self.folded.push(text);
        self.advance(false)
    }

    /// More bytes of UTF-8, cut anywhere. Bytes that are none become U+FFFD.
    pub fn push_bytes(&mut self, bytes: &[u8]) -> Release {
        self.torn.extend_from_slice(bytes);
        let torn = std::mem::take(&mut self.torn);
        let mut text = String::with_capacity(torn.len());
        for chunk in torn.utf8_chunks() {
            text.push_str(chunk.valid());
            let at_end = chunk.invalid().as_ptr_range().end == torn.as_ptr_range().end;
            if at_end && may_continue(chunk.invalid()) {
                self.torn = chunk.invalid().to_vec();
            } else if !chunk.invalid().is_empty() {
                text.push(char::REPLACEMENT_CHARACTER);
            }
        }
        self.push(&text)
    }

    /// The text is complete; returns the rest. Nothing more may be pushed.
    pub fn finish(&mut self) -> Release {
        if self.blocked {
            return Release { blocked: true, ..Release::default() };
        }
        if !std::mem::take(&mut self.torn).is_empty() {
            self.held.push(char::REPLACEMENT_CHARACTER);
            self.folded.push("\u{fffd}");
        }
        self.advance(true)
    }

    /// Bytes that came and have not left.
    pub fn held(&self) -> usize {
        self.held.len() + self.torn.len()
    }

    /// How much of the text has left, in bytes as it came.
    pub(crate) fn left(&self) -> usize {
        self.from
    }

    fn advance(&mut self, last: bool) -> Release {
        let mut verdicts = Vec::new();
        let free = self.compiled.finders(self.direction).scan(&mut self.places, &mut self.folded, last, &mut verdicts);
        verdicts.sort_by(Verdict::order);
        if verdicts.iter().any(|v| v.action == Action::Block) {
            self.blocked = true;
            self.held.clear();
            return Release { text: String::new(), verdicts, blocked: true };
        }
        self.masks.extend(verdicts.iter().filter(|v| v.action == Action::Mask).cloned());
        self.masks.sort_by(Verdict::order);
        let (text, left) = mask::write(&self.held, self.from, &self.masks, free);
        self.held.drain(..left - self.from);
        self.from = left;
        self.masks.retain(|mask| mask.span.start >= left);
        Release { text, verdicts, blocked: false }
    }
}

/// Whether these bytes, which are not UTF-8, would be with more bytes behind them.
fn may_continue(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|e| e.error_len().is_none())
}
