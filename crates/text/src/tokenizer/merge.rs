//! The merge loop that byte-level BPE and SentencePiece share.
//!
//! A text starts as a row of symbols. The best pair of neighbours (lowest rank, then leftmost) becomes one symbol, and
//! so on until no rule applies. A heap of candidate pairs makes that n log n: a pair is pushed when it becomes neighbours
//! and dropped when it is popped after one of its halves has been merged away, which its recorded length betrays.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Range;

use super::table::Merge;

/// A piece of the text that is one symbol by now.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Symbol {
    /// Its number; what numbers mean is the caller's affair.
    pub(crate) id: u32,
    start: u32,
    /// In bytes; 0 once it has been merged into its left neighbour.
    len: u32,
    prev: u32,
    next: u32,
}

const NONE: u32 = u32::MAX;

/// A pair that may be merged: ordered by rank, then by place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    rank: u32,
    left: u32,
    right: u32,
    len: u32,
    symbol: u32,
}

/// Working memory, kept between pieces so that tokenising does not allocate.
#[derive(Debug, Default)]
pub(crate) struct Merger {
    symbols: Vec<Symbol>,
    heap: BinaryHeap<Reverse<Candidate>>,
}

impl Merger {
    /// Forgets the last text.
    pub(crate) fn clear(&mut self) {
        self.symbols.clear();
        self.heap.clear();
    }

    /// Appends a symbol of `len` bytes to the row. A text of 4 GiB or more is the caller's to split.
    pub(crate) fn push(&mut self, id: u32, len: usize) {
        let here = self.symbols.len() as u32;
        let start = self.symbols.last_mut().map_or(0, |last| {
            last.next = here;
            last.start + last.len
        });
        let prev = here.checked_sub(1).unwrap_or(NONE);
        self.symbols.push(Symbol { id, start, len: len as u32, prev, next: NONE });
    }

    /// Merges until no rule applies. `rule` sees two neighbours and the bytes they cover together.
    pub(crate) fn run(&mut self, rule: impl Fn(u32, u32, Range<usize>) -> Option<Merge>) {
        for right in 1..self.symbols.len() as u32 {
            self.consider(right - 1, right, &rule);
        }
        while let Some(Reverse(pair)) = self.heap.pop() {
            if self.is_current(&pair) {
                self.join(&pair);
                let Symbol { prev, next, .. } = self.symbols[pair.left as usize];
                self.consider(prev, pair.left, &rule);
                self.consider(pair.left, next, &rule);
            }
        }
    }

    /// What is left, with the bytes each symbol covers.
    pub(crate) fn symbols(&self) -> impl Iterator<Item = (u32, Range<usize>)> {
        self.symbols.iter().filter(|symbol| symbol.len > 0).map(|symbol| (symbol.id, symbol.span()))
    }

    fn consider(&mut self, left: u32, right: u32, rule: &impl Fn(u32, u32, Range<usize>) -> Option<Merge>) {
        if left == NONE || right == NONE {
            return;
        }
        let (a, b) = (&self.symbols[left as usize], &self.symbols[right as usize]);
        if let Some(Merge { rank, symbol }) = rule(a.id, b.id, a.span().start..b.span().end) {
            self.heap.push(Reverse(Candidate { rank, left, right, len: a.len + b.len, symbol }));
        }
    }

    fn is_current(&self, pair: &Candidate) -> bool {
        let (left, right) = (&self.symbols[pair.left as usize], &self.symbols[pair.right as usize]);
        left.len > 0 && right.len > 0 && left.len + right.len == pair.len
    }

    fn join(&mut self, pair: &Candidate) {
        let next = self.symbols[pair.right as usize].next;
        self.symbols[pair.right as usize].len = 0;
        let left = &mut self.symbols[pair.left as usize];
        (left.id, left.len, left.next) = (pair.symbol, pair.len, next);
        if next != NONE {
            self.symbols[next as usize].prev = pair.left;
        }
    }
}

impl Symbol {
    fn span(&self) -> Range<usize> {
        self.start as usize..(self.start + self.len) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition, word for word: find the best pair in the whole row, merge it, start again.
    fn naive(mut row: Vec<u32>, rule: impl Fn(u32, u32) -> Option<Merge>) -> Vec<u32> {
        loop {
            let best =
                (1..row.len()).filter_map(|i| Some((rule(row[i - 1], row[i])?, i))).min_by_key(|(m, i)| (m.rank, *i));
            let Some((merge, i)) = best else { return row };
            row[i - 1] = merge.symbol;
            row.remove(i);
        }
    }

    proptest::proptest! {
        #[test]
        fn equals_the_definition(
            row in proptest::collection::vec(0u32..4, 0..60),
            rules in proptest::collection::vec((0u32..12, 0u32..12), 0..40),
        ) {
            let rule = |left, right| {
                let rank = rules.iter().position(|pair| *pair == (left, right))? as u32;
                Some(Merge { rank, symbol: 4 + rank % 8 })
            };
            let mut merger = Merger::default();
            row.iter().for_each(|id| merger.push(*id, 1));
            merger.run(|left, right, _| rule(left, right));
            let fast: Vec<u32> = merger.symbols().map(|(id, _)| id).collect();
            proptest::prop_assert_eq!(fast, naive(row, rule));
        }
    }
}
