//! Token ids to text while they arrive, never cutting a character.

/// Turns a stream of ids into a stream of valid UTF-8.
#[derive(Debug)]
pub struct Decoder {}

impl Decoder {
    /// A decoder of answers (a SentencePiece leading space is kept unless `at_start`).
    pub fn new(_at_start: bool) -> Self { unimplemented!() }
    /// The text that became certain with this token; empty while a character is incomplete.
    pub fn push(&mut self, _tokenizer: &crate::Tokenizer, _id: u32) -> String { unimplemented!() }
    /// What is left at the end; an incomplete character becomes U+FFFD.
    pub fn finish(&mut self) -> String { unimplemented!() }
}
