//! JSON that comes in pieces, judged as the text it means: `alice\u0040example.com` is an address.
//!
//! What the rules read is the text with the escapes in its strings decoded, so a verdict's place counts bytes of that. What leaves is the
//! text as it came, escapes and all, but for its masks, and those keep it JSON: inside a string a mask stands in place of
//! what was found, a number or a word outside of strings becomes a string, and marks between values stay. Text that is no JSON loses nothing
//! but what is masked.

use std::collections::VecDeque;

use crate::{
    filter::Filter,
    mask,
    policy::Action,
    report::{Release, Verdict},
};

/// A run of characters outside of strings that is longer than this is no number; it is not held until it ends.
const LONGEST_SCALAR: usize = 256;

/// Judges JSON while it comes: the arguments of a call of a tool.
#[derive(Debug)]
pub struct JsonFilter {
    inner: Filter,
    /// What came and has not left, as it came; behind its `units` the beginning of an escape.
    raw: String,
    units: VecDeque<Unit>,
    /// How much of `raw` the units are.
    read: usize,
    /// Where in the decoded text the units begin.
    from: usize,
    in_string: bool,
    /// The last unit that left was part of a number or a word.
    in_scalar: bool,
    masks: Vec<Verdict>,
}

/// A character of the decoded text.
#[derive(Debug, Clone, Copy)]
struct Unit {
    /// Bytes as it came.
    raw: usize,
    /// Bytes decoded.
    plain: usize,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Quotes, brackets, commas, colons, white space.
    Mark,
    /// In a string.
    Inside,
    /// Of a number, of `true`, or of what is no JSON.
    Scalar,
}

impl JsonFilter {
    pub(crate) fn new(inner: Filter) -> Self {
        Self {
            inner,
            raw: String::new(),
            units: VecDeque::new(),
            read: 0,
            from: 0,
            in_string: false,
            in_scalar: false,
            masks: Vec::new(),
        }
    }

    /// More text; returns what may leave.
    pub fn push(&mut self, text: &str) -> Release {
        self.raw.push_str(text);
        let plain = self.read(false);
        let release = self.inner.push(&plain);
        self.leave(release, false)
    }

    /// The text is complete; returns the rest. Nothing more may be pushed.
    pub fn finish(&mut self) -> Release {
        let plain = self.read(true);
        let mut release = self.inner.push(&plain);
        let rest = self.inner.finish();
        release.verdicts.extend(rest.verdicts);
        release.blocked |= rest.blocked;
        self.leave(release, true)
    }

    /// Bytes that came and have not left.
    pub fn held(&self) -> usize {
        self.raw.len()
    }

    /// Makes units of what came, as far as it is decided; returns what they mean.
    fn read(&mut self, last: bool) -> String {
        let mut plain = String::new();
        while let Some((raw, meaning, kind)) = next(&self.raw[self.read..], self.in_string, last) {
            if kind == Kind::Mark && meaning == '"' {
                self.in_string = !self.in_string;
            }
            plain.push(meaning);
            self.units.push_back(Unit { raw, plain: meaning.len_utf8(), kind });
            self.read += raw;
        }
        plain
    }

    fn leave(&mut self, release: Release, last: bool) -> Release {
        let Release { verdicts, blocked, .. } = release;
        if blocked {
            (self.raw, self.units, self.read) = (String::new(), VecDeque::new(), 0);
            return Release { text: String::new(), verdicts, blocked };
        }
        self.masks.extend(verdicts.iter().filter(|verdict| verdict.action == Action::Mask).cloned());
        self.masks.sort_by(Verdict::order);
        let free = self.free(last);
        let text = self.write(free);
        self.masks.retain(|mask| mask.span.end > self.from);
        Release { text, verdicts, blocked }
    }

    /// How many units may leave: those that the rules have decided, but for a number that goes on, which is masked whole or not at all.
    fn free(&self, last: bool) -> usize {
        let (mut at, mut n) = (self.from, 0);
        while let Some(unit) = self.units.get(n).filter(|_| at < self.inner.left()) {
            at += unit.plain;
            n += 1;
        }
        let scalar = |n: usize| self.units.get(n).is_some_and(|unit| unit.kind == Kind::Scalar);
        let goes_on = if n == self.units.len() { !last } else { scalar(n) };
        if !goes_on {
            return n;
        }
        let run = (0..n).rev().take(LONGEST_SCALAR).take_while(|n| scalar(*n)).count();
        if run == LONGEST_SCALAR { n } else { n - run }
    }

    /// The next `n` units with masks in place; they leave.
    fn write(&mut self, n: usize) -> String {
        let regions = mask::regions(&self.masks);
        let (mut text, mut left, mut rest) = (String::new(), 0, n);
        let (mut region, mut masked) = (0, None);
        while rest > 0 {
            let (count, raw, plain, kind) = self.token(rest);
            while regions.get(region).is_some_and(|(_, span)| span.end <= self.from) {
                region += 1;
            }
            let found = regions.get(region).filter(|(_, span)| span.start < self.from + plain).map(|_| region);
            match found.filter(|_| kind != Kind::Mark) {
                None => text.push_str(&self.raw[left..left + raw]),
                Some(i) if kind == Kind::Inside && masked == Some(i) => {}
                Some(i) if kind == Kind::Scalar && !self.in_scalar => text.extend(["\"", regions[i].0.as_str(), "\""]),
                Some(i) => text.push_str(&regions[i].0),
            }
            masked = found.filter(|_| kind == Kind::Inside);
            self.in_scalar = kind == Kind::Scalar;
            self.units.drain(..count);
            (self.from, left, rest) = (self.from + plain, left + raw, rest - count);
        }
        self.raw.drain(..left);
        self.read -= left;
        text
    }

    /// The next of at most `most` units that are masked as one, a whole number or one character of a string: how many they are,
    /// their bytes as they came and decoded, and what they are part of.
    fn token(&self, most: usize) -> (usize, usize, usize, Kind) {
        let kind = self.units.front().map_or(Kind::Mark, |unit| unit.kind);
        let units = self.units.iter().take(if kind == Kind::Scalar { most } else { 1 });
        let (mut count, mut raw, mut plain) = (0, 0, 0);
        for unit in units.take_while(|unit| unit.kind == kind) {
            (count, raw, plain) = (count + 1, raw + unit.raw, plain + unit.plain);
        }
        (count, raw, plain, kind)
    }
}

/// The first character of a text: its bytes as it came, what it means, and what it is part of. None where more must come.
fn next(rest: &str, in_string: bool, last: bool) -> Option<(usize, char, Kind)> {
    let first = rest.chars().next()?;
    let kind = match first {
        '"' => Kind::Mark,
        _ if in_string => Kind::Inside,
        '{' | '}' | '[' | ']' | ':' | ',' => Kind::Mark,
        _ if first.is_whitespace() => Kind::Mark,
        _ => Kind::Scalar,
    };
    let (raw, meaning) = if in_string && first == '\\' { escape(rest, last)? } else { (first.len_utf8(), first) };
    Some((raw, meaning, kind))
}

/// An escape at the beginning of a text. One that JSON does not know is a backslash.
fn escape(rest: &str, last: bool) -> Option<(usize, char)> {
    let plain = match rest.as_bytes().get(1) {
        None => return last.then_some((1, '\\')),
        Some(b'u') => return unicode(rest, last),
        Some(b'n') => '\n',
        Some(b't') => '\t',
        Some(b'r') => '\r',
        Some(b'b') => '\u{8}',
        Some(b'f') => '\u{c}',
        Some(same @ (b'"' | b'\\' | b'/')) => char::from(*same),
        Some(_) => return Some((1, '\\')),
    };
    Some((2, plain))
}

/// `\uXXXX`, or two of them that are one character.
fn unicode(rest: &str, last: bool) -> Option<(usize, char)> {
    let Some(first) = code(rest) else { return (last || !torn(rest)).then_some((1, '\\')) };
    if !(0xd800..0xdc00).contains(&first) {
        return Some((6, char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER)));
    }
    match code(&rest[6..]) {
        Some(second @ 0xdc00..0xe000) => {
            let both = char::from_u32(0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00));
            Some((12, both.unwrap_or(char::REPLACEMENT_CHARACTER)))
        }
        None if !last && torn(&rest[6..]) => None,
        _ => Some((6, char::REPLACEMENT_CHARACTER)),
    }
}

fn code(text: &str) -> Option<u32> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    digits.bytes().all(|byte| byte.is_ascii_hexdigit()).then(|| u32::from_str_radix(digits, 16).ok())?
}

/// It may become `\uXXXX` with more behind it.
fn torn(text: &str) -> bool {
    let fits = |(i, byte): (usize, u8)| match i {
        0 => byte == b'\\',
        1 => byte == b'u',
        _ => byte.is_ascii_hexdigit(),
    };
    text.len() < 6 && text.bytes().enumerate().all(fits)
}
