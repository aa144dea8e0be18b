//! Byte-level BPE (`gpt2`): words of bytes, merged by a list of rules.
//!
//! Vocabularies of this kind spell bytes as printable characters (a space is `Ġ`); that spelling is undone while loading,
//! so that everything afterwards works on bytes. Rules and results are numbers: a rule whose result is no token still
//! gets a number past the vocabulary, as the reference follows such rules too and falls back to bytes at the end.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, Ordering};

use super::merge::Merger;
use super::split::Splitter;
use super::table::{Index, Kind, Merge, Pairs, Tokens};
use crate::{Error, Vocabulary};

/// The rules of one vocabulary.
#[derive(Debug)]
pub(crate) struct ByteLevel {
    splitter: Splitter,
    index: Index,
    pairs: Pairs,
    /// The symbol of each byte; past the vocabulary where a byte is no token.
    bytes: [u32; 256],
    /// By token: not known yet, whether the merges arrive at it when its text is a word of its own. Most words are such
    /// tokens, and then no merge has to run.
    whole: Vec<AtomicU8>,
}

const UNKNOWN: u8 = 0;
const YES: u8 = 1;
const NO: u8 = 2;

thread_local! {
    static MERGER: RefCell<Merger> = RefCell::default();
}

impl ByteLevel {
    /// Decodes the tokens and numbers the merges.
    pub(crate) fn new(vocabulary: &Vocabulary) -> Result<(Tokens, Self), Error> {
        let splitter = Splitter::named(&vocabulary.pre)?;
        let mut tokens = Tokens::with_capacity(vocabulary.tokens.len());
        for (id, text) in vocabulary.tokens.iter().enumerate() {
            let kind = vocabulary.kind_of(id);
            match decode(text) {
                Some(bytes) if !kind.is_special() => tokens.push(bytes, kind),
                _ => tokens.push(text.bytes(), kind),
            }
        }
        tokens.shrink();
        let index = index(&tokens, vocabulary);
        let mut symbols = Symbols { tokens: &tokens, index: &index, extra: HashMap::new() };
        let bytes = std::array::from_fn(|byte| symbols.number(&[byte as u8]));
        let pairs = symbols.pairs(&vocabulary.merges)?;
        let whole = (0..tokens.len()).map(|_| AtomicU8::new(UNKNOWN)).collect();
        Ok((tokens, Self { splitter, index, pairs, bytes, whole }))
    }

    /// The token of a text.
    pub(crate) fn id_of(&self, tokens: &Tokens, text: &[u8]) -> Option<u32> {
        self.index.get(tokens, text)
    }

    /// Appends the ids of a text.
    pub(crate) fn encode(&self, tokens: &Tokens, text: &str, ids: &mut Vec<u32>) {
        MERGER.with_borrow_mut(|merger| {
            self.splitter.split(text, &mut |word| self.encode_word(tokens, word.as_bytes(), merger, ids));
        });
    }

    fn encode_word(&self, tokens: &Tokens, word: &[u8], merger: &mut Merger, ids: &mut Vec<u32>) {
        match self.index.get(tokens, word) {
            Some(id) if self.splitter.whole_words || self.is_whole(tokens, id, word, merger) => ids.push(id),
            _ => self.merge(tokens, word, merger, ids),
        }
    }

    fn is_whole(&self, tokens: &Tokens, id: u32, word: &[u8], merger: &mut Merger) -> bool {
        let state = &self.whole[id as usize];
        if state.load(Ordering::Relaxed) == UNKNOWN {
            let mut ids = Vec::new();
            self.merge(tokens, word, merger, &mut ids);
            state.store(if ids == [id] { YES } else { NO }, Ordering::Relaxed);
        }
        state.load(Ordering::Relaxed) == YES
    }

    fn merge(&self, tokens: &Tokens, word: &[u8], merger: &mut Merger, ids: &mut Vec<u32>) {
        merger.clear();
        word.iter().for_each(|byte| merger.push(self.bytes[usize::from(*byte)], 1));
        merger.run(|left, right, _| self.pairs.get(left, right));
        let is_token = |symbol: &u32| (*symbol as usize) < tokens.len();
        for (symbol, span) in merger.symbols() {
            if is_token(&symbol) {
                ids.push(symbol);
            } else {
                // Bytes that are no tokens either are dropped, as the reference does.
                ids.extend(word[span].iter().map(|byte| self.bytes[usize::from(*byte)]).filter(is_token));
            }
        }
    }
}

/// Texts that words can merge into. A user-defined token with a raw blank is not one of them: in the vocabulary's own
/// spelling no merge can produce it.
fn index(tokens: &Tokens, vocabulary: &Vocabulary) -> Index {
    let mergeable = |id: &u32| !tokens.kind(*id).is_special() && !vocabulary.tokens[*id as usize].contains([' ', '\n']);
    Index::new(tokens, (0..tokens.len() as u32).filter(mergeable))
}

/// Numbers for texts while the rules are read.
struct Symbols<'a> {
    tokens: &'a Tokens,
    index: &'a Index,
    /// Texts that are no tokens.
    extra: HashMap<Vec<u8>, u32>,
}

impl Symbols<'_> {
    fn number(&mut self, text: &[u8]) -> u32 {
        if let Some(id) = self.index.get(self.tokens, text) {
            return id;
        }
        let next = (self.tokens.len() + self.extra.len()) as u32;
        *self.extra.entry(text.to_vec()).or_insert(next)
    }

    fn pairs(&mut self, merges: &[String]) -> Result<Pairs, Error> {
        let mut pairs = Pairs::with_capacity(merges.len());
        let mut text = Vec::new();
        for (rank, rule) in merges.iter().enumerate() {
            text.clear();
            let (left, right) = halves(rule).ok_or_else(|| broken_rule(rank, rule))?;
            text.extend(spelled(left));
            let cut = text.len();
            text.extend(spelled(right));
            let symbol = self.number(&text);
            let (left, right) = (self.number(&text[..cut]), self.number(&text[cut..]));
            pairs.insert(left, right, Merge { rank: rank as u32, symbol });
        }
        Ok(pairs)
    }
}

/// A rule is two texts with a space between; neither is empty, and the right one may not hold a space.
fn halves(rule: &str) -> Option<(&str, &str)> {
    let space = rule.char_indices().skip(1).find(|(_, c)| *c == ' ')?.0;
    let (left, right) = (&rule[..space], &rule[space + 1..]);
    (!right.is_empty()).then_some((left, right))
}

fn broken_rule(rank: usize, rule: &str) -> Error {
    Error::Tokenizer(format!("merge {rank} is {rule:?}, not two texts with a space between; the file is damaged"))
}

/// The bytes a text spells, or its own if it is not in that spelling.
fn spelled(text: &str) -> impl Iterator<Item = u8> {
    let decoded = decode(text);
    let raw = decoded.is_none().then(|| text.bytes());
    decoded.into_iter().flatten().chain(raw.into_iter().flatten())
}

/// Undoes the printable spelling of bytes; `None` if the text is not in it.
pub(crate) fn decode(text: &str) -> Option<impl Iterator<Item = u8>> {
    text.chars().all(|c| byte_of(c).is_some()).then(|| text.chars().filter_map(byte_of))
}

/// Printable Latin-1 characters stand for themselves; the other 68 bytes follow in order from U+0100.
fn byte_of(c: char) -> Option<u8> {
    match u32::from(c) {
        code @ (0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF) => Some(code as u8),
        code @ 0x100..=0x120 => Some((code - 0x100) as u8),
        code @ 0x121..=0x142 => Some((code - 0x121 + 0x7F) as u8),
        0x143 => Some(0xAD),
        _ => None,
    }
}

impl Vocabulary {
    /// What the token is for; without types all tokens are text.
    pub(crate) fn kind_of(&self, id: usize) -> Kind {
        self.types.get(id).map_or(Kind::Normal, |number| Kind::from_number(*number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spelling_of_bytes_is_a_bijection() {
        let mut bytes: Vec<u8> = (0..0x144).filter_map(char::from_u32).filter_map(byte_of).collect();
        bytes.sort_unstable();
        assert_eq!(bytes, (0..=255).collect::<Vec<u8>>());
        assert_eq!(byte_of('Ġ'), Some(b' '));
        assert_eq!(byte_of('Ċ'), Some(b'\n'));
        assert!(decode("a b").is_none());
    }
}
