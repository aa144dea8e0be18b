//! Words and phrases in the bare form of a text that may still grow.
//!
//! All of them are one Aho-Corasick automaton over letters; it is stepped by hand and skips spaces, so `i g n o r e` and
//! `ignoreprevious` come to the same states as the plain spelling. Whether the spaces may stand as they do is asked afterwards:
//! a space inside a word counts as a disguise only if single letters stand on both its sides, or the phrase is so long that no
//! honest text spells it by chance. So `therapist` never reads as `the rapist`.
//!
//! A term matches whole words. Its neighbour must be known to say so, hence the automaton stays one byte behind a text that
//! may grow. What may still begin a term is as long as the automaton's state is deep.

use std::{collections::HashMap, ops::Range};

use aho_corasick::{
    Anchored,
    automaton::{Automaton, StateID},
    nfa::contiguous::NFA,
};

use crate::{
    error::Error,
    fold::{self, View},
};

/// Phrases with this many bytes of letters are not spelt by chance across words.
const LONG: usize = 12;

/// Compiled words and phrases.
#[derive(Debug)]
pub(crate) struct Words {
    automaton: NFA,
    start: StateID,
    depths: HashMap<StateID, Depth>,
    terms: Vec<Term>,
}

#[derive(Debug)]
struct Term {
    /// Bare, with spaces.
    text: Vec<u8>,
    /// Bytes of it that are letters.
    letters: usize,
    /// Longer words that begin so count too.
    stem: bool,
}

/// How many of the last letters a state remembers. Small, for there are tens of thousands.
#[derive(Debug, Clone, Copy, Default)]
struct Depth {
    /// As the longest beginning of a term, or the whole of one.
    known: u32,
    /// As the longest beginning of a term that is not the whole of it.
    open: u32,
}

/// How far a stream was read.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    state: StateID,
    next: usize,
    /// Where a term may still begin.
    undecided: usize,
}

impl Place {
    /// The first offset that is still read.
    pub(crate) fn needs(&self) -> usize {
        self.next.min(self.undecided)
    }

    /// Whoever adds terms up may need what stands before.
    pub(crate) fn keep(&mut self, offset: usize) {
        self.undecided = self.undecided.min(offset);
    }
}

impl Words {
    /// Compiles terms; `word*` is a stem.
    pub(crate) fn new<'a>(terms: impl Iterator<Item = &'a str>) -> Result<Self, Error> {
        let terms: Vec<Term> = terms.map(Term::new).collect::<Result<_, _>>()?;
        let letters: Vec<Vec<u8>> =
            terms.iter().map(|term| term.text.iter().copied().filter(|b| *b != b' ').collect()).collect();
        let failed = |e: &dyn std::fmt::Display| Error::new("terms", format!("the words do not compile: {e}"));
        let automaton = NFA::builder().prefilter(false).build(&letters).map_err(|e| failed(&e))?;
        let start = automaton.start_state(Anchored::No).map_err(|e| failed(&e))?;
        let depths = depths(&automaton, start, &letters);
        Ok(Self { automaton, start, depths, terms })
    }

    /// Where a stream begins.
    pub(crate) fn start(&self) -> Place {
        Place { state: self.start, next: 0, undecided: 0 }
    }

    /// Finds terms as far as they are decided; returns the first place where one may still begin.
    pub(crate) fn scan(
        &self,
        place: &mut Place,
        view: &View,
        last: bool,
        mut found: impl FnMut(usize, Range<usize>),
    ) -> usize {
        let bytes = view.bytes();
        let first = place.next - view.base();
        let until = if last { bytes.len() } else { bytes.len().saturating_sub(1).max(first) };
        for (i, byte) in bytes.iter().enumerate().take(until).skip(first) {
            if *byte == b' ' {
                continue;
            }
            place.state = self.automaton.next_state(Anchored::No, place.state, *byte);
            if self.automaton.is_special(place.state) && self.automaton.is_match(place.state) {
                self.matches(place.state, view, i + 1, &mut found);
            }
        }
        place.next = until + view.base();
        place.undecided = if last { view.end() } else { self.undecided(place, bytes) + view.base() };
        place.undecided
    }

    /// Terms that end at this index of the known bytes.
    fn matches(&self, state: StateID, view: &View, end: usize, found: &mut impl FnMut(usize, Range<usize>)) {
        let bytes = view.bytes();
        for n in 0..self.automaton.match_len(state) {
            let index = self.automaton.match_pattern(state, n).as_usize();
            let term = &self.terms[index];
            if let Some(start) = back(bytes, end, term.letters)
                && term.stands(bytes, start, end)
            {
                found(index, start + view.base()..end + view.base());
            }
        }
    }

    /// The index where the longest beginning of a term stands that the known bytes end in.
    fn undecided(&self, place: &Place, bytes: &[u8]) -> usize {
        let of = |state: StateID| self.depths.get(&state).copied().unwrap_or_default();
        let depth = match bytes.last() {
            // A term that ends in a letter whose neighbour is unknown has not been found yet.
            Some(byte) if *byte != b' ' => {
                let state = self.automaton.next_state(Anchored::No, place.state, *byte);
                if self.automaton.is_match(state) { of(state).known } else { of(state).open }
            }
            _ => of(place.state).open,
        };
        if depth == 0 { bytes.len() } else { back(bytes, bytes.len(), depth as usize).unwrap_or(0) }
    }
}

/// What each state remembers: states are met by feeding every word.
fn depths(automaton: &NFA, start: StateID, words: &[Vec<u8>]) -> HashMap<StateID, Depth> {
    let step = |state: StateID, byte: &u8| automaton.next_state(Anchored::No, state, *byte);
    let mut depths: HashMap<StateID, Depth> = HashMap::new();
    for word in words {
        let mut state = start;
        let mut left = word.len();
        for (read, byte) in (1..).zip(word) {
            (state, left) = (step(state, byte), left - 1);
            let depth = depths.entry(state).or_default();
            depth.known = read;
            if left > 0 {
                depth.open = read;
            }
        }
    }
    // A whole word that begins no longer one goes on as what its ending begins.
    let mut by_length: Vec<&Vec<u8>> = words.iter().collect();
    by_length.sort_by_key(|word| word.len());
    for word in by_length {
        let state = word.iter().fold(start, step);
        let ending = word[1..].iter().fold(start, step);
        let open = depths.get(&ending).copied().unwrap_or_default().open;
        if let Some(depth) = depths.get_mut(&state).filter(|depth| depth.open == 0) {
            depth.open = open;
        }
    }
    depths
}

/// The index of the letter that is the `letters`-th before `end`.
fn back(bytes: &[u8], end: usize, letters: usize) -> Option<usize> {
    let mut left = letters;
    (0..end).rev().find(|i| {
        left -= usize::from(bytes[*i] != b' ');
        left == 0
    })
}

impl Term {
    fn new(text: &str) -> Result<Self, Error> {
        let (text, stem) = text.strip_suffix('*').map_or((text, false), |text| (text, true));
        let bare = fold::term(text).into_bytes();
        let letters = bare.iter().filter(|b| **b != b' ').count();
        if letters == 0 {
            return Err(Error::new("terms", format!("\"{text}\" has no letters or digits; remove it")));
        }
        Ok(Self { text: bare, letters, stem })
    }

    /// Whether these letters, which are the term's, stand as the term would.
    fn stands(&self, bytes: &[u8], start: usize, end: usize) -> bool {
        begins(bytes, start) && (self.stem || ends(bytes, end)) && self.spaced(bytes, start, end)
    }

    /// Whether spaces stand where the term has them, or where a disguise would put them.
    fn spaced(&self, bytes: &[u8], start: usize, end: usize) -> bool {
        if self.letters >= LONG {
            return true;
        }
        let mut wanted = self.text.iter().copied().peekable();
        for i in start..end {
            match (bytes[i] == b' ', wanted.peek() == Some(&b' ')) {
                (true, false) if !single(bytes, i, start, end) => return false,
                (true, false) => continue,
                (false, true) if bytes[i].is_ascii() || bytes[i - 1].is_ascii() => return false,
                (false, true) => _ = wanted.next(),
                _ => {}
            }
            wanted.next();
        }
        true
    }
}

/// Whether a word begins here: behind a space, where scripts meet, and anywhere in scripts without spaces.
fn begins(bytes: &[u8], start: usize) -> bool {
    let Some(before) = start.checked_sub(1).map(|i| bytes[i]) else { return true };
    before == b' ' || before.is_ascii() != bytes[start].is_ascii() || unspaced(bytes[start])
}

/// Whether a word ends before this index.
fn ends(bytes: &[u8], end: usize) -> bool {
    let Some(next) = bytes.get(end) else { return true };
    let lead = bytes[..end].iter().rev().find(|b| !(0x80..0xc0).contains(*b));
    *next == b' ' || next.is_ascii() != bytes[end - 1].is_ascii() || lead.is_some_and(|lead| unspaced(*lead))
}

/// Whether the character that begins with this byte belongs to a script without spaces: U+3000 and beyond.
fn unspaced(lead: u8) -> bool {
    lead >= 0xe3
}

/// Whether single letters stand on both sides of the space at `i`, or another script does.
fn single(bytes: &[u8], i: usize, start: usize, end: usize) -> bool {
    let alone_before = i - 1 == start || bytes[i - 2] == b' ';
    let alone_behind = i + 2 >= end || bytes[i + 2] == b' ';
    (alone_before || !bytes[i - 1].is_ascii()) && (alone_behind || !bytes[i + 1].is_ascii())
}
