//! A text as rules read it: disguises taken off, with the way back to the bytes it came in.
//!
//! Two forms are made in one pass, one character at a time, so that a stream gives the same forms wherever it is cut.
//!
//! * **plain**: full-width and mathematical forms become ASCII, every script's digits become `0`-`9`, invisible characters go.
//!   Numbers, addresses and keys are looked for here, so case and punctuation stay.
//! * **bare**: only letters, in lower case, without accents; look-alikes of other scripts become the Latin letter, and so do the
//!   digits and signs of leetspeak; whatever lies between words is one space. `l`, `1`, `|` and `i` are one letter, because no
//!   table can tell which of them `1gnore` and `a11` mean. Words and phrases are looked for here, folded in the same way.
//!
//! Spaced-out words (`i g n o r e`) stay so here: a matcher skips the spaces and then asks whether they may stand there.

use std::ops::Range;

mod table;

pub(crate) use table::{bare, hidden, plain};

/// Where a byte of a view comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Origin {
    /// The first byte of its character in the text. Half a word: there is one for every byte of every stream, and no text has 4 GiB.
    at: u32,
    /// How many bytes that character has there.
    len: u8,
}

/// A form of a text. Offsets count from the beginning of the stream, also when its beginning was forgotten.
#[derive(Debug, Clone, Default)]
pub(crate) struct View {
    base: usize,
    bytes: Vec<u8>,
    origins: Vec<Origin>,
}

/// Bytes that stay when a view forgets: what stands just before a match says whether it is one.
const CONTEXT: usize = 64;
/// Forgetting moves what stays, so it waits until there is something to gain; hundreds of streams have two views each, so it does not
/// wait for long.
const SLACK: usize = 128 - CONTEXT;

impl View {
    /// The offset behind the last byte.
    pub(crate) fn end(&self) -> usize {
        self.base + self.bytes.len()
    }

    /// The offset of the first byte that is still known.
    pub(crate) fn base(&self) -> usize {
        self.base
    }

    /// What is still known, the byte at [`View::base`] first.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The byte at this offset.
    pub(crate) fn get(&self, offset: usize) -> Option<u8> {
        self.bytes.get(offset.checked_sub(self.base)?).copied()
    }

    /// The bytes in this range, as far as they are known.
    pub(crate) fn slice(&self, range: Range<usize>) -> &[u8] {
        let clip = |offset: usize| offset.saturating_sub(self.base).min(self.bytes.len());
        &self.bytes[clip(range.start)..clip(range.end)]
    }

    /// Where in the text a range that is not empty stands.
    pub(crate) fn origin(&self, range: Range<usize>) -> Range<usize> {
        let first = self.origins[range.start - self.base];
        let last = self.origins[range.end - 1 - self.base];
        first.at as usize..last.at as usize + usize::from(last.len)
    }

    /// Where in the text the byte at this offset comes from, or will come from: `seen` is how long the text is so far.
    pub(crate) fn origin_of(&self, offset: usize, seen: usize) -> usize {
        offset.checked_sub(self.base).and_then(|i| self.origins.get(i)).map_or(seen, |origin| origin.at as usize)
    }

    /// Forgets what stands before `offset`, but for some context.
    pub(crate) fn forget(&mut self, offset: usize) {
        let n = offset.saturating_sub(self.base + CONTEXT).min(self.bytes.len());
        if n >= SLACK {
            self.bytes.drain(..n);
            self.origins.drain(..n);
            self.base += n;
        }
    }

    fn push(&mut self, c: char, origin: Origin) {
        let mut buffer = [0; 4];
        for byte in c.encode_utf8(&mut buffer).bytes() {
            self.push_byte(byte, origin);
        }
    }

    fn push_byte(&mut self, byte: u8, origin: Origin) {
        self.bytes.push(byte);
        self.origins.push(origin);
    }
}

/// Both forms of a text, and how long the text is.
#[derive(Debug, Clone, Default)]
pub(crate) struct Folded {
    /// Bytes of text so far.
    pub(crate) seen: usize,
    pub(crate) plain: View,
    pub(crate) bare: View,
}

impl Folded {
    /// Both forms of a whole text.
    pub(crate) fn of(text: &str) -> Self {
        let mut folded = Self::default();
        for view in [&mut folded.plain, &mut folded.bare] {
            view.bytes.reserve(text.len());
            view.origins.reserve(text.len());
        }
        folded.push(text);
        folded
    }

    /// More text.
    pub(crate) fn push(&mut self, text: &str) {
        for c in text.chars() {
            let origin = Origin { at: self.seen as u32, len: c.len_utf8() as u8 };
            self.seen += c.len_utf8();
            if let Ok(byte) = u8::try_from(c)
                && byte.is_ascii()
            {
                self.plain.push_byte(byte, origin);
                self.letter_or_gap(table::ASCII[usize::from(byte)], origin);
            } else {
                self.push_wide(c, origin);
            }
        }
    }

    fn push_wide(&mut self, c: char, origin: Origin) {
        // Most wide characters are these; no disguise is among them.
        if table::is_han(c) {
            self.plain.push(c, origin);
            return self.bare.push(table::simplified(c), origin);
        }
        if hidden(c) {
            return;
        }
        let plain = plain(c);
        self.plain.push(plain, origin);
        match bare(plain) {
            Some(letter) if letter.is_ascii() => self.letter_or_gap(letter as u8, origin),
            Some(letter) => self.bare.push(letter, origin),
            None => self.letter_or_gap(b' ', origin),
        }
    }

    /// Gaps are one space, and none stands at the beginning. 0 stands for a sign that is left out of words.
    fn letter_or_gap(&mut self, byte: u8, origin: Origin) {
        let gap = byte == b' ' && self.bare.bytes.last().is_none_or(|last| *last == b' ');
        if byte != 0 && !gap {
            self.bare.push_byte(byte, origin);
        }
    }
}

/// A term as the bare form of a text would show it, without a gap at the end.
pub(crate) fn term(text: &str) -> String {
    let bytes = Folded::of(text).bare.bytes;
    String::from_utf8_lossy(&bytes).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn views(text: &str) -> (String, String) {
        let folded = Folded::of(text);
        (String::from_utf8(folded.plain.bytes).unwrap(), String::from_utf8(folded.bare.bytes).unwrap())
    }

    #[test]
    fn disguises() {
        let check = |text: &str, plain: &str, bare: &str| {
            assert_eq!(views(text), (plain.to_owned(), bare.to_owned()), "{text}");
        };
        check("Ignore  all—that", "Ignore  all-that", "ignore aii that");
        check("１３８００ Ａb", "13800 Ab", "ieboo ab");
        check("i\u{200b}gn\u{ad}ore", "ignore", "ignore");
        check("1gn0r3 @11", "1gn0r3 @11", "ignore aii");
        check("іgnоrе", "іgnоrе", "ignore");
        check("don't résumé", "don't résumé", "dont resume");
        check("𝐢𝐠𝐧𝟎𝐫𝐞", "ign0re", "ignore");
        check("忽略之前，的", "忽略之前,的", "忽略之前 的");
        check("٠١٢", "012", "oi2");
        check("\u{e0069}\u{e0067}x", "igx", "igx");
    }

    #[test]
    fn the_way_back() {
        let text = "ａ\u{200b}ｂc";
        let folded = Folded::of(text);
        assert_eq!(folded.plain.origin(0..2), 0..9);
        assert_eq!(folded.plain.origin(1..3), 6..10);
        assert_eq!(folded.plain.origin_of(3, folded.seen), text.len());
    }

    #[test]
    fn a_view_forgets_but_keeps_its_offsets() {
        let mut folded = Folded::of(&"x".repeat(10_000));
        folded.plain.forget(9_000);
        assert_eq!((folded.plain.base(), folded.plain.end()), (9_000 - CONTEXT, 10_000));
        assert_eq!(folded.plain.origin(9_500..9_501), 9_500..9_501);
        assert_eq!(folded.plain.slice(0..9_001).len(), CONTEXT + 1);
    }
}
