//! Token ids to text while they arrive, never cutting a character.
//!
//! A token may end in the middle of a character. Its bytes are held back until the character is complete, or until
//! it is clear that it never will be; then it becomes U+FFFD, just as decoding all bytes at once would do it.

use crate::Tokenizer;

/// Turns a stream of ids into a stream of valid UTF-8.
#[derive(Debug, Clone)]
pub struct Decoder {
    /// The beginning of a character: at most three bytes.
    pending: Vec<u8>,
    /// Nothing has been decoded yet, and a space here belongs to the tokenizer, not to the text.
    at_start: bool,
}

impl Decoder {
    /// A decoder of answers (a SentencePiece leading space is kept unless `at_start`).
    pub fn new(at_start: bool) -> Self {
        Self { pending: Vec::new(), at_start }
    }

    /// The text that became certain with this token; empty while a character is incomplete, and for control tokens.
    pub fn push(&mut self, tokenizer: &Tokenizer, id: u32) -> String {
        if tokenizer.is_special(id) {
            return String::new();
        }
        let mut bytes = tokenizer.bytes(id);
        if self.at_start && !bytes.is_empty() {
            self.at_start = false;
            if tokenizer.leads_with_space() {
                bytes = bytes.strip_prefix(b" ").unwrap_or(bytes);
            }
        }
        self.pending.extend_from_slice(bytes);
        let (text, rest) = complete(&self.pending);
        self.pending.drain(..self.pending.len() - rest);
        text
    }

    /// What is left at the end; an incomplete character becomes U+FFFD.
    pub fn finish(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.pending)).into_owned()
    }
}

/// The text of all complete characters, and how many bytes at the end may still become one.
fn complete(bytes: &[u8]) -> (String, usize) {
    let mut text = String::with_capacity(bytes.len());
    let mut rest = bytes;
    loop {
        match std::str::from_utf8(rest) {
            Ok(valid) => {
                text.push_str(valid);
                return (text, 0);
            }
            Err(error) => {
                let (valid, behind) = rest.split_at(error.valid_up_to());
                text.push_str(std::str::from_utf8(valid).unwrap_or_default());
                let Some(broken) = error.error_len() else { return (text, behind.len()) };
                text.push(char::REPLACEMENT_CHARACTER);
                rest = &behind[broken..];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Vocabulary;

    /// All bytes, a few longer tokens, and a control token in between.
    fn tokenizer() -> Tokenizer {
        let mut tokens: Vec<String> = (0..=255u8).map(|byte| format!("<0x{byte:02X}>")).collect();
        let mut types = vec![6; 256];
        for (text, kind) in [("<s>", 3), ("▁世", 1), ("é▁", 1), ("▁", 1)] {
            tokens.push(text.into());
            types.push(kind);
        }
        let scores = vec![0.0; tokens.len()];
        let vocabulary =
            Vocabulary { kind: "llama".into(), tokens, scores, types, add_space_prefix: true, ..Default::default() };
        Tokenizer::from_vocabulary(&vocabulary).unwrap()
    }

    #[test]
    fn holds_back_half_a_character_and_drops_the_first_space() {
        let (tokenizer, mut decoder) = (tokenizer(), Decoder::new(true));
        let mut push = |id| decoder.push(&tokenizer, id);
        assert_eq!(push(257), "世");
        assert_eq!([push(0xF0), push(0x9F), push(256), push(0x98)].concat(), "");
        assert_eq!(push(0x80), "😀");
        assert_eq!(push(0xE4), "");
        assert_eq!(push(b'x'.into()), "\u{FFFD}x");
        assert_eq!(push(259), " ");
        assert_eq!(push(0xE4), "");
        assert_eq!(decoder.finish(), "\u{FFFD}");
        assert_eq!(Decoder::new(false).push(&tokenizer, 257), " 世");
    }

    proptest! {
        #[test]
        fn streaming_equals_decoding_all_bytes_at_once(ids in proptest::collection::vec(0u32..262, 0..40)) {
            let tokenizer = tokenizer();
            let bytes: Vec<u8> =
                ids.iter().filter(|id| **id != 256).flat_map(|id| tokenizer.bytes(*id)).copied().collect();
            let bytes = bytes.strip_prefix(b" ").unwrap_or(&bytes);
            prop_assert_eq!(tokenizer.decode(&ids), String::from_utf8_lossy(bytes));
        }
    }
}
