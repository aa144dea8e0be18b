//! Toxic language in English: a linear classifier over hashed n-grams of characters and words.
//!
//! A text is judged in blocks of a few words, each by itself and together with the block before it, so that an insult is found in a
//! long text and across a block's edge, and a stream waits for a block and no longer. A feature's share of the score is a number
//! from a table, so the score of two blocks is the sum of theirs; it is divided by the root of the number of features, which
//! keeps long and short texts comparable.
//!
//! There are two heads: toxic at all, and hate against groups. The table holds bytes, made by [`train`] on the tweets of Davidson
//! et al. and neutral texts (see `data/toxicity.md`, with its limits). Only words in Latin letters are read; Chinese has
//! weighted terms (`chinese`).

use std::ops::Range;

use crate::fold::View;

pub(crate) mod chinese;
mod features;
mod train;
mod weights;

pub use train::{Sample, train};
pub(crate) use weights::Weights;

use features::{Features, Sum};

/// Words of a block: an insult is short, and a block is what a stream is held for.
const BLOCK: usize = 10;
/// Bytes after which a block ends whatever its words are, so that a text without spaces is held no longer either.
const BLOCK_BYTES: usize = 160;

/// Probabilities of a stretch of text.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Score {
    pub(crate) toxic: f32,
    pub(crate) hate: f32,
}

impl Score {
    /// The higher of both, head by head.
    pub(crate) fn max(self, other: Self) -> Self {
        Self { toxic: self.toxic.max(other.toxic), hate: self.hate.max(other.hate) }
    }
}

/// How far a stream was read.
#[derive(Debug, Clone, Default)]
pub(crate) struct Place {
    /// The first byte that was not read.
    next: usize,
    features: Features,
    /// The block before, and this one.
    before: Sum,
    block: Sum,
    /// Words of this block, and where it begins and ends.
    words: usize,
    span: Option<Range<usize>>,
}

impl Place {
    /// The first offset that is still needed: where the open block begins.
    pub(crate) fn needs(&self) -> usize {
        self.span.as_ref().map_or(self.next, |span| span.start)
    }
}

/// Judges every block that is complete; with `last` the rest too. Returns where the first open block begins.
pub(crate) fn scan(place: &mut Place, view: &View, last: bool, mut judged: impl FnMut(Range<usize>, Score)) -> usize {
    let weights = Weights::shipped();
    let bytes = view.bytes();
    while let Some(word) = word(bytes, place.next - view.base(), last) {
        let (start, end) = (word.start + view.base(), word.end + view.base());
        place.next = end;
        place.block = place.block.plus(place.features.word(&bytes[word], weights));
        place.words += 1;
        let span = place.span.get_or_insert(start..end);
        span.end = end;
        if place.words == BLOCK || span.len() >= BLOCK_BYTES {
            place.close(weights, &mut judged);
        }
    }
    if last {
        place.close(weights, &mut judged);
        place.next = view.end();
    }
    place.needs()
}

impl Place {
    fn close(&mut self, weights: &Weights, judged: &mut impl FnMut(Range<usize>, Score)) {
        if let Some(span) = self.span.take() {
            let score = weights.score(self.block).max(weights.score(self.block.plus(self.before)));
            judged(span, score);
            self.before = std::mem::take(&mut self.block);
            self.words = 0;
        }
    }
}

/// The next word from `from` on, if its end is known. Single letters with spaces between are one word: they are a word's
/// disguise more often than words.
fn word(bytes: &[u8], from: usize, last: bool) -> Option<Range<usize>> {
    let start = (from..bytes.len()).find(|i| bytes[*i] != b' ')?;
    let token = |start: usize| {
        let end = bytes[start..].iter().position(|b| *b == b' ').map(|n| start + n);
        end.or(last.then_some(bytes.len())).filter(|end| *end > start)
    };
    // A token that never ends is cut.
    let mut end = match token(start) {
        Some(end) if end - start < BLOCK_BYTES => end,
        _ if bytes.len() - start >= BLOCK_BYTES => return Some(start..start + BLOCK_BYTES),
        end => end?,
    };
    while end - start < BLOCK_BYTES && single(bytes, end) && end < bytes.len() {
        match token(end + 1) {
            Some(next) if next == end + 2 => end = next,
            // Whether the next token is a single letter too is not known yet.
            None if !last && bytes.len() <= end + 2 => return None,
            _ => break,
        }
    }
    Some(start..end)
}

/// Whether the token that ends here is a single letter.
fn single(bytes: &[u8], end: usize) -> bool {
    bytes[end - 1].is_ascii() && end.checked_sub(2).is_none_or(|i| bytes[i] == b' ')
}
