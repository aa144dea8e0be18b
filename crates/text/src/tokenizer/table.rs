//! Token texts in one buffer, and the way back from a text to its id.
//!
//! A vocabulary of a quarter of a million tokens as `Vec<String>` and `HashMap<String, u32>` costs some 30 MB and most of
//! the loading time in allocations. Here the texts lie end to end, and the index is one array of ids probed linearly:
//! it compares with the buffer, so it stores no key twice.

use std::ops::Range;

/// What a token is for, as GGUF files tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Text.
    Normal,
    /// Stands for what the vocabulary cannot express.
    Unknown,
    /// Says something about the text; has no text itself.
    Control,
    /// Text that is recognised before anything else is tokenised.
    UserDefined,
    /// Text, never seen in training.
    Unused,
    /// One byte.
    Byte,
}

impl Kind {
    /// From the number in a GGUF file.
    pub(crate) fn from_number(number: u8) -> Self {
        match number {
            2 => Self::Unknown,
            3 => Self::Control,
            4 => Self::UserDefined,
            5 => Self::Unused,
            6 => Self::Byte,
            _ => Self::Normal,
        }
    }

    /// Left out of decoded text, and never made from a user's text.
    pub(crate) fn is_special(self) -> bool {
        matches!(self, Self::Control | Self::Unknown)
    }
}

/// Texts and kinds by id.
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    bytes: Vec<u8>,
    ends: Vec<u32>,
    kinds: Vec<Kind>,
}

impl Tokens {
    /// Room for `n` tokens.
    pub(crate) fn with_capacity(n: usize) -> Self {
        Self { bytes: Vec::with_capacity(n * 8), ends: Vec::with_capacity(n), kinds: Vec::with_capacity(n) }
    }

    /// Appends a token; its id is the number of tokens before it.
    pub(crate) fn push(&mut self, text: impl IntoIterator<Item = u8>, kind: Kind) {
        self.bytes.extend(text);
        self.ends.push(u32::try_from(self.bytes.len()).unwrap_or(u32::MAX));
        self.kinds.push(kind);
    }

    /// Gives back what `with_capacity` guessed too much.
    pub(crate) fn shrink(&mut self) {
        self.bytes.shrink_to_fit();
    }

    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(crate) fn kind(&self, id: u32) -> Kind {
        self.kinds.get(id as usize).copied().unwrap_or(Kind::Unused)
    }

    /// The text of a token; empty if out of range.
    pub(crate) fn get(&self, id: u32) -> &[u8] {
        self.range(id).and_then(|range| self.bytes.get(range)).unwrap_or_default()
    }

    fn range(&self, id: u32) -> Option<Range<usize>> {
        let end = *self.ends.get(id as usize)? as usize;
        let start = if id == 0 { 0 } else { self.ends[id as usize - 1] as usize };
        Some(start..end)
    }
}

const EMPTY: u32 = u32::MAX;

/// From a text to the id of the token that has it.
#[derive(Debug)]
pub(crate) struct Index {
    slots: Vec<u32>,
}

impl Index {
    /// Of the given tokens; where two have the same text the later one wins, as in the reference.
    pub(crate) fn new(tokens: &Tokens, ids: impl Iterator<Item = u32>) -> Self {
        let mut index = Self { slots: vec![EMPTY; (tokens.len().max(4) * 3 / 2).next_power_of_two()] };
        for id in ids {
            let slot = index.slot(tokens, tokens.get(id));
            index.slots[slot] = id;
        }
        index
    }

    /// The token with this text.
    pub(crate) fn get(&self, tokens: &Tokens, text: &[u8]) -> Option<u32> {
        let id = self.slots[self.slot(tokens, text)];
        (id != EMPTY).then_some(id)
    }

    /// Where the text is, or would go. Ends because at most two thirds of the slots are taken.
    fn slot(&self, tokens: &Tokens, text: &[u8]) -> usize {
        let mask = self.slots.len() - 1;
        let mut slot = hash(text) as usize & mask;
        while self.slots[slot] != EMPTY && tokens.get(self.slots[slot]) != text {
            slot = (slot + 1) & mask;
        }
        slot
    }
}

/// From a pair of symbols to what they merge into.
#[derive(Debug)]
pub(crate) struct Pairs {
    keys: Vec<u64>,
    values: Vec<Merge>,
}

/// A merge rule's place in the order of rules, and its result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Merge {
    pub(crate) rank: u32,
    pub(crate) symbol: u32,
}

const NO_PAIR: u64 = u64::MAX;

impl Pairs {
    /// Room for `n` rules.
    pub(crate) fn with_capacity(n: usize) -> Self {
        let slots = (n.max(4) * 4 / 3).next_power_of_two();
        Self { keys: vec![NO_PAIR; slots], values: vec![Merge { rank: 0, symbol: 0 }; slots] }
    }

    /// Adds a rule; the first rule for a pair stays.
    pub(crate) fn insert(&mut self, left: u32, right: u32, merge: Merge) {
        let slot = self.slot(left, right);
        if self.keys[slot] == NO_PAIR {
            self.keys[slot] = key(left, right);
            self.values[slot] = merge;
        }
    }

    /// The rule for a pair.
    pub(crate) fn get(&self, left: u32, right: u32) -> Option<Merge> {
        let slot = self.slot(left, right);
        (self.keys[slot] != NO_PAIR).then(|| self.values[slot])
    }

    fn slot(&self, left: u32, right: u32) -> usize {
        let key = key(left, right);
        let mask = self.keys.len() - 1;
        let mut slot = mix(key) as usize & mask;
        while self.keys[slot] != NO_PAIR && self.keys[slot] != key {
            slot = (slot + 1) & mask;
        }
        slot
    }
}

fn key(left: u32, right: u32) -> u64 {
    u64::from(left) << 32 | u64::from(right)
}

/// Spreads a number over all bits (multiply, fold the high half down).
fn mix(value: u64) -> u64 {
    let product = value.wrapping_add(0x9E37_79B9_7F4A_7C15).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    (product ^ product >> 32).wrapping_mul(0xD6E8_FEB8_6659_FD93) >> 16
}

fn hash(text: &[u8]) -> u64 {
    let (words, rest) = text.as_chunks::<8>();
    let mut state = text.len() as u64;
    for word in words {
        state = mix(state.rotate_left(29) ^ u64::from_le_bytes(*word));
    }
    let tail = rest.iter().fold(0u64, |tail, byte| tail << 8 | u64::from(*byte));
    mix(state.rotate_left(29) ^ tail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_was_put_in_and_the_later_of_two() {
        let mut tokens = Tokens::default();
        let words: Vec<String> = (0..5000).map(|n| "word".repeat(n % 9) + &n.to_string()).collect();
        words.iter().for_each(|word| tokens.push(word.bytes(), Kind::Normal));
        tokens.push("word1".bytes(), Kind::Normal);
        let index = Index::new(&tokens, 0..tokens.len() as u32);
        for (id, word) in words.iter().enumerate().skip(2) {
            assert_eq!(index.get(&tokens, word.as_bytes()), Some(id as u32));
        }
        assert_eq!(index.get(&tokens, b"word1"), Some(5000));
        assert_eq!(index.get(&tokens, b"absent"), None);
        assert_eq!(tokens.get(9999), b"");
    }

    #[test]
    fn the_first_rule_for_a_pair_stays() {
        let mut pairs = Pairs::with_capacity(0);
        pairs.insert(1, 2, Merge { rank: 0, symbol: 7 });
        pairs.insert(1, 2, Merge { rank: 1, symbol: 8 });
        assert_eq!(pairs.get(1, 2), Some(Merge { rank: 0, symbol: 7 }));
        assert_eq!(pairs.get(2, 1), None);
    }
}
