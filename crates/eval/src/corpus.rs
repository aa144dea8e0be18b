//! A text as a model's tokens, and the windows a long one is read through.
//!
//! A service has no call that only tokenises, and a text may be longer than the model's context. So the text is cut where no
//! tokenizer joins across (before a space between two words), each piece is echoed without scores, and the ids are put together
//! again; the bytes that come back are compared with the text, so a tokenizer for which this does not hold is noticed.

use futures_util::{StreamExt, TryStreamExt, stream};
use protocol::TokenLogprob;

use crate::{Error, Scorer};

/// Long enough that cuts are rare, short enough to be fair to other users of the service.
const PIECE_BYTES: usize = 4096;
/// Pieces in flight at once.
const IN_FLIGHT: usize = 4;

/// A text as the tokens of one model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Corpus {
    /// Token ids, without the one below.
    pub tokens: Vec<u32>,
    /// Bytes of text behind each token.
    pub bytes: Vec<u32>,
    /// The token the model puts in front of every text, if it does.
    pub bos: Option<u32>,
}

/// How a long text is read: windows of `length` tokens start every `stride` tokens, and the first `context` tokens of each only
/// serve as context. A last window that would be shorter is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Windows {
    /// Tokens per window.
    pub length: usize,
    /// Tokens at its start that are not scored, at least 1.
    pub context: usize,
    /// From the start of one window to the start of the next.
    pub stride: usize,
}

impl Windows {
    /// llama.cpp's: windows side by side, the second half of each scored (to the token: its first half holds one token more).
    #[must_use]
    pub fn halves(length: usize) -> Self {
        Self { length, context: length / 2 + 1, stride: length }
    }

    /// `transformers`' strided form: every token is scored once, with at least `length - stride` tokens before it.
    #[must_use]
    pub fn strided(length: usize, stride: usize) -> Self {
        Self { length, context: length.saturating_sub(stride), stride }
    }

    pub(crate) fn check(self, tokens: usize) -> Result<(), Error> {
        if self.context == 0 || self.stride == 0 || self.context >= self.length {
            return Err(Error::Invalid(format!("windows need 0 < context < length and 0 < stride, not {self:?}")));
        }
        if tokens < self.length {
            return Err(Error::Invalid(format!(
                "the text has {tokens} tokens, fewer than one window of {}: give a longer text or a shorter window",
                self.length
            )));
        }
        Ok(())
    }
}

impl Corpus {
    /// `text` as the tokens of the scorer's model.
    ///
    /// # Errors
    /// The service's own, or that the tokens it sends do not spell the text.
    pub async fn read(scorer: &Scorer<'_>, text: &str) -> Result<Self, Error> {
        let size = PIECE_BYTES.min(scorer.context_length().saturating_sub(8)).max(16);
        let parts: Vec<Self> = stream::iter(pieces(text, size))
            .map(|piece| async move { Self::of_piece(piece, &scorer.tokens(piece).await?) })
            .buffered(IN_FLIGHT)
            .try_collect()
            .await?;
        let mut whole = Self { tokens: Vec::new(), bytes: Vec::new(), bos: parts.first().and_then(|p| p.bos) };
        for part in parts {
            whole.tokens.extend(part.tokens);
            whole.bytes.extend(part.bytes);
        }
        Ok(whole)
    }

    /// Keeps the first `tokens` tokens.
    pub fn truncate(&mut self, tokens: usize) {
        self.tokens.truncate(tokens);
        self.bytes.truncate(tokens);
    }

    fn of_piece(piece: &str, scored: &[TokenLogprob]) -> Result<Self, Error> {
        let skip = prefix(piece, scored)?;
        Ok(Self {
            tokens: scored[skip..].iter().map(|t| t.id).collect(),
            bytes: scored[skip..].iter().map(|t| t.bytes.len() as u32).collect(),
            bos: scored[..skip].first().map(|t| t.id),
        })
    }

    /// The windows' tokens, each with the index of its first scored token in the corpus. Where the model wants a first token,
    /// it takes the place of the window's own first, as llama.cpp does, so windows stay equally long.
    pub(crate) fn windows(&self, shape: Windows) -> Result<Vec<(Vec<u32>, usize)>, Error> {
        shape.check(self.tokens.len())?;
        let starts = (0..=self.tokens.len() - shape.length).step_by(shape.stride);
        Ok(starts
            .map(|start| {
                let mut tokens = self.tokens[start..start + shape.length].to_vec();
                if let Some(bos) = self.bos {
                    tokens[0] = bos;
                }
                (tokens, start + shape.context)
            })
            .collect())
    }
}

/// How many tokens at the front are not part of the text (0, or 1 for a beginning-of-text token).
pub(crate) fn prefix(text: &str, scored: &[TokenLogprob]) -> Result<usize, Error> {
    let spells = |tokens: &[TokenLogprob]| {
        let mut rest = text.as_bytes();
        tokens.iter().enumerate().all(|(i, token)| {
            // SentencePiece may put a space in front of the first word.
            let bytes = if i == 0 && !rest.starts_with(&token.bytes) {
                token.bytes.strip_prefix(b" ")
            } else {
                Some(&token.bytes[..])
            };
            bytes.and_then(|b| rest.strip_prefix(b)).map(|left| rest = left).is_some()
        }) && rest.is_empty()
    };
    // A first token without bytes spells nothing, so it is not text either.
    let least = usize::from(scored.first().is_some_and(|t| t.bytes.is_empty()));
    (least..=1.min(scored.len())).find(|&skip| spells(&scored[skip..])).ok_or_else(|| {
        let found: Vec<u8> = scored.iter().take(8).flat_map(|t| t.bytes.clone()).collect();
        Error::unexpected(
            format!("tokens that spell {:?}", text.chars().take(32).collect::<String>()),
            format!("{:?}", String::from_utf8_lossy(&found)),
        )
    })
}

/// Cuts a text into pieces of at most `size` bytes, before a space between two letters or digits wherever there is one.
fn pieces(text: &str, size: usize) -> Vec<&str> {
    let (mut rest, mut found) = (text, Vec::new());
    while rest.len() > size {
        let (piece, left) = rest.split_at(cut(rest, size));
        found.push(piece);
        rest = left;
    }
    if !rest.is_empty() {
        found.push(rest);
    }
    found
}

fn cut(text: &str, size: usize) -> usize {
    let limit = text.floor_char_boundary(size);
    let bytes = text.as_bytes();
    let clean =
        |i: &usize| bytes[*i] == b' ' && bytes[i - 1].is_ascii_alphanumeric() && bytes[i + 1].is_ascii_alphanumeric();
    (1..limit).rev().find(clean).unwrap_or(limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(id: u32, bytes: &str) -> TokenLogprob {
        TokenLogprob { id, bytes: bytes.as_bytes().to_vec(), logprob: None, top: Vec::new() }
    }

    #[test]
    fn pieces_join_to_the_text_and_cut_before_words() {
        let text = "one two  three, four\nfive sechs 七八九 zehn elf".repeat(20);
        for size in [16, 20, 33, 64] {
            let found = pieces(&text, size);
            assert_eq!(found.concat(), text);
            assert!(found.iter().all(|p| p.len() <= size));
        }
        assert_eq!(pieces("one two three", 9), ["one two", " three"]);
        assert_eq!(pieces("七八九十", 7), ["七八", "九十"], "never inside a character");
    }

    #[test]
    fn prefixes() {
        let check = |text: &str, tokens: &[TokenLogprob], want: Option<usize>| {
            assert_eq!(prefix(text, tokens).ok(), want, "{text}")
        };
        check("ab c", &[token(1, "ab"), token(2, " c")], Some(0));
        check("ab c", &[token(9, "<s>"), token(1, "ab"), token(2, " c")], Some(1));
        check("ab c", &[token(9, ""), token(1, " ab"), token(2, " c")], Some(1));
        check("ab c", &[token(1, " ab"), token(2, " c")], Some(0));
        check("ab c", &[token(1, "ab"), token(2, " d")], None);
    }

    #[test]
    fn windows_by_hand() {
        let corpus = Corpus { tokens: (0..10).collect(), bytes: vec![1; 10], bos: Some(99) };
        assert_eq!(corpus.windows(Windows::halves(4)).unwrap(), [(vec![99, 1, 2, 3], 3), (vec![99, 5, 6, 7], 7)]);
        assert_eq!(corpus.windows(Windows::strided(6, 2)).unwrap().iter().map(|w| w.1).collect::<Vec<_>>(), [4, 6, 8]);
        assert!(corpus.windows(Windows::halves(11)).unwrap_err().to_string().contains("10 tokens"));
        assert!(corpus.windows(Windows { length: 4, context: 4, stride: 1 }).is_err());
    }
}
