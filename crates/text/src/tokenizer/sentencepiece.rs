//! SentencePiece BPE (`llama`): characters merged by the score of what they merge into, bytes where that fails.
//!
//! There are no merge rules: two neighbours may merge if their text is a token, the highest score first. Vocabularies
//! spell a space as `▁`; it is undone while loading, and a `▁` in a text is a space, as in the reference.

use std::borrow::Cow;
use std::cell::RefCell;

use super::merge::Merger;
use super::table::{Index, Kind, Merge, Tokens};
use crate::{Error, Vocabulary};

/// How this spelling writes a space.
pub(crate) const SPACE: char = '▁';

/// The tokens of one vocabulary, by text and by byte.
#[derive(Debug)]
pub(crate) struct SentencePiece {
    index: Index,
    /// By token: its score, turned so that the best is the lowest number and equal scores are equal numbers.
    ranks: Vec<u32>,
    bytes: [Option<u32>; 256],
    unknown: Option<u32>,
    /// Every text begins with a space that is not in it.
    pub(crate) space_prefix: bool,
}

thread_local! {
    static MERGER: RefCell<Merger> = RefCell::default();
}

impl SentencePiece {
    /// Decodes the tokens and orders the scores.
    pub(crate) fn new(vocabulary: &Vocabulary) -> Result<(Tokens, Self), Error> {
        let n = vocabulary.tokens.len();
        if vocabulary.scores.len() != n {
            let scores = vocabulary.scores.len();
            let problem = format!("{n} tokens but {scores} scores; the file is damaged, fetch it again");
            return Err(Error::Tokenizer(problem));
        }
        let mut tokens = Tokens::with_capacity(n);
        let mut bytes = [None; 256];
        for (id, text) in vocabulary.tokens.iter().enumerate() {
            let kind = vocabulary.kind_of(id);
            match byte_named(text).filter(|_| kind == Kind::Byte) {
                Some(byte) => {
                    bytes[usize::from(byte)] = Some(id as u32);
                    tokens.push([byte], kind);
                }
                None if matches!(kind, Kind::Normal | Kind::Unused) => tokens.push(spaced(text).bytes(), kind),
                None => tokens.push(text.bytes(), kind),
            }
        }
        tokens.shrink();
        let index = index(&tokens, vocabulary);
        for (byte, id) in bytes.iter_mut().enumerate() {
            *id = id.or_else(|| index.get(&tokens, &[byte as u8]));
        }
        let ranks = vocabulary.scores.iter().map(|score| rank(*score)).collect();
        Ok((tokens, Self { index, ranks, bytes, unknown: vocabulary.unk, space_prefix: vocabulary.add_space_prefix }))
    }

    /// The token of a text.
    pub(crate) fn id_of(&self, tokens: &Tokens, text: &[u8]) -> Option<u32> {
        self.index.get(tokens, text)
    }

    /// Appends the ids of a text; `begins` if nothing or a special token stands before it.
    pub(crate) fn encode(&self, tokens: &Tokens, text: &str, begins: bool, ids: &mut Vec<u32>) {
        let mut text = spaced(text);
        if begins && self.space_prefix {
            text.to_mut().insert(0, ' ');
        }
        MERGER.with_borrow_mut(|merger| self.merge(tokens, &text, merger, ids));
    }

    fn merge(&self, tokens: &Tokens, text: &str, merger: &mut Merger, ids: &mut Vec<u32>) {
        const NO_TOKEN: u32 = u32::MAX;
        let bytes = text.as_bytes();
        merger.clear();
        for (at, c) in text.char_indices() {
            let id = self.index.get(tokens, &bytes[at..at + c.len_utf8()]);
            merger.push(id.unwrap_or(NO_TOKEN), c.len_utf8());
        }
        merger.run(|_, _, span| {
            let symbol = self.index.get(tokens, &bytes[span])?;
            Some(Merge { rank: self.ranks[symbol as usize], symbol })
        });
        for (symbol, span) in merger.symbols() {
            match symbol {
                NO_TOKEN => self.spell(&bytes[span], ids),
                id => ids.push(id),
            }
        }
    }

    /// A character that is no token, byte by byte.
    fn spell(&self, character: &[u8], ids: &mut Vec<u32>) {
        let spelled: Option<Vec<u32>> = character.iter().map(|byte| self.bytes[usize::from(*byte)]).collect();
        match spelled {
            Some(spelled) => ids.extend(spelled),
            None => ids.extend(self.unknown),
        }
    }
}

/// Texts that characters can merge into. Tokens with a raw space are not among them: in the vocabulary's own spelling no
/// text has one.
fn index(tokens: &Tokens, vocabulary: &Vocabulary) -> Index {
    let mergeable = |id: &u32| match tokens.kind(*id) {
        Kind::Normal | Kind::Unused | Kind::UserDefined => !vocabulary.tokens[*id as usize].contains(' '),
        Kind::Unknown | Kind::Control | Kind::Byte => false,
    };
    Index::new(tokens, (0..tokens.len() as u32).filter(mergeable))
}

/// Numbers in the opposite order of the scores. Not-a-number comes last.
fn rank(score: f32) -> u32 {
    let bits = if score.is_nan() { f32::NEG_INFINITY.to_bits() } else { (score + 0.0).to_bits() };
    // Flipping the sign bit of positive numbers and all bits of negative ones orders floats as integers.
    !(if bits >> 31 == 0 { bits | 1 << 31 } else { !bits })
}

fn spaced(text: &str) -> Cow<'_, str> {
    if text.contains(SPACE) { text.replace(SPACE, " ").into() } else { text.into() }
}

/// The byte of a token like `<0x0A>`.
pub(crate) fn byte_named(text: &str) -> Option<u8> {
    let digits = text.strip_prefix("<0x")?.strip_suffix('>')?;
    let named = digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    named.then(|| u8::from_str_radix(digits, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_order_scores_from_high_to_low() {
        let scores = [f32::INFINITY, 2.5, 0.0, -0.0, -1e-9, -1.0, -31740.0, f32::NAN];
        let ranks = scores.map(rank);
        assert!(ranks.is_sorted(), "{ranks:?}");
        assert_eq!(ranks[2], ranks[3]);
        assert!(ranks[5] < ranks[6]);
    }

    #[test]
    fn bytes_by_name() {
        assert_eq!(byte_named("<0x0A>"), Some(10));
        assert_eq!(byte_named("<0xZZ>"), None);
        assert_eq!(byte_named("<0x+1>"), None);
    }
}
