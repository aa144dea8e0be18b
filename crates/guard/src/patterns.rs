//! Several regular expressions over a text that may still grow.
//!
//! One automaton finds the leftmost place where any expression matches. There each expression is tried by itself, in order of
//! preference, and a judge says whether what it matched is what it looks for (a checksum holds, a word stands before it). The
//! first that passes is a finding and the search goes on behind it; if none passes it goes on one byte further.
//!
//! While the text may grow, a place is decided once no expression that begins there could still go on. That is asked of a second
//! automaton, anchored at the place and following all expressions at once: if it dies before the end of the text, more text
//! changes nothing. So the undecided rest begins at the first place where it lives, and is no longer than the longest match, which is
//! [`LONGEST`] bytes where an expression sets no end: what would be longer is matched within that, or not at all.
//! Findings in the decided part are those of the whole text, whatever it will be: nothing undecided can overlap them.

use std::ops::Range;

use regex_automata::{
    Anchored, Input, MatchKind, PatternID,
    hybrid::dfa::{Cache, DFA},
    meta,
    nfa::thompson,
    util::{pool::Pool, syntax},
};

use crate::{error::Error, fold::View};

/// The longest match in bytes of whatever expression: what a stream may have to hold back.
pub(crate) const LONGEST: usize = 4300;

/// Room for the states of a lazy automaton.
const LAZY_BYTES: usize = 1 << 20;

type Caches = Pool<Cache, Box<dyn Fn() -> Cache + Send + Sync>>;

/// Compiled expressions.
pub(crate) struct Patterns {
    search: meta::Regex,
    alive: DFA,
    caches: Caches,
    /// No match is longer.
    longest: usize,
}

impl std::fmt::Debug for Patterns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Patterns").field("n", &self.search.pattern_len()).field("longest", &self.longest).finish()
    }
}

/// What was matched, if it is what the expression looks for.
pub(crate) trait Judge {
    /// The part of the match that counts, or `None` if it is a false alarm. A match may be cut at its end, never at its start.
    fn judge(&self, pattern: usize, view: &View, found: Range<usize>) -> Option<Range<usize>>;
}

impl Patterns {
    /// Compiles expressions, the preferred ones first. `place` names the field an expression came from.
    pub(crate) fn new(expressions: &[&str], place: impl Fn(usize) -> String) -> Result<Self, Error> {
        let mut longest = 0;
        for (i, expression) in expressions.iter().enumerate() {
            longest = longest.max(longest_match(expression).map_err(|message| Error::new(place(i), message))?);
        }
        let whole = |e: &dyn std::fmt::Display| Error::new(place(0), format!("the expressions do not compile: {e}"));
        let syntax = syntax::Config::new().utf8(false);
        let search = meta::Regex::builder()
            .configure(meta::Config::new().utf8_empty(false))
            .syntax(syntax)
            .build_many(expressions)
            .map_err(|e| whole(&e))?;
        let alive = DFA::builder()
            .configure(
                DFA::config()
                    .match_kind(MatchKind::All)
                    .unicode_word_boundary(true)
                    .cache_capacity(LAZY_BYTES)
                    .skip_cache_capacity_check(true),
            )
            .syntax(syntax)
            .thompson(thompson::Config::new().utf8(false))
            .build_many(expressions)
            .map_err(|e| whole(&e))?;
        let caches = {
            let alive = alive.clone();
            Pool::new(Box::new(move || alive.create_cache()) as Box<dyn Fn() -> Cache + Send + Sync>)
        };
        Ok(Self { search, alive, caches, longest })
    }

    /// Finds what is decided from `from` on and moves `from` to the first place that is not. With `last` all is decided.
    pub(crate) fn scan(
        &self,
        from: &mut usize,
        view: &View,
        last: bool,
        judge: &impl Judge,
        mut found: impl FnMut(usize, Range<usize>),
    ) {
        let undecided = if last { view.end() } else { self.undecided(view, *from) };
        while let Some((start, pattern)) = self.next(view, *from..undecided) {
            *from = start + 1;
            if let Some((pattern, range)) = self.first(view, start, pattern, judge) {
                *from = range.end;
                found(pattern, range);
            }
        }
        *from = undecided.max(*from);
    }

    /// Where in `starts` the next match begins, and the first expression that matches there. Looks at one stretch after the other that has room for
    /// every match which begins in its first half, so that no expression runs on through the whole text.
    fn next(&self, view: &View, starts: Range<usize>) -> Option<(usize, usize)> {
        starts.clone().step_by(self.longest).find_map(|from| {
            let begins = from..starts.end.min(from + self.longest);
            let found = self.search.search(&self.input(view, from, 2 * self.longest))?;
            let start = found.start() + view.base();
            begins.contains(&start).then(|| (start, found.pattern().as_usize()))
        })
    }

    /// The first expression, from `pattern` on, whose match at `start` passes.
    fn first(&self, view: &View, start: usize, pattern: usize, judge: &impl Judge) -> Option<(usize, Range<usize>)> {
        (pattern..self.search.pattern_len()).find_map(|pattern| {
            let anchored = Anchored::Pattern(PatternID::new(pattern).ok()?);
            let found = self.search.search(&self.input(view, start, self.longest).anchored(anchored))?;
            let range = found.start() + view.base()..found.end() + view.base();
            Some((pattern, judge.judge(pattern, view, range)?))
        })
    }

    /// So many bytes from `from` on. What stands beside them is seen by a boundary.
    fn input<'v>(&self, view: &'v View, from: usize, length: usize) -> Input<'v> {
        let from = from.min(view.end());
        let until = (from + length).min(view.end());
        Input::new(view.bytes()).range(from - view.base()..until - view.base())
    }

    /// The first place from `from` on where a match could still grow. What a match stands before is one character of it.
    fn undecided(&self, view: &View, from: usize) -> usize {
        let bytes = view.bytes();
        let first = (from - view.base()).max(bytes.len().saturating_sub(self.longest + 4));
        let mut cache = self.caches.get();
        let place = (first..bytes.len()).find(|start| self.lives(&mut cache, bytes, *start)).unwrap_or(bytes.len());
        place + view.base()
    }

    /// Whether an expression that begins at `start` could go on behind the last byte. An automaton that gives up, as
    /// it does at a Unicode word boundary beside other scripts, is taken for a yes: such a text is held for the longest match.
    fn lives(&self, cache: &mut Cache, bytes: &[u8], start: usize) -> bool {
        let input = Input::new(bytes).range(start..).anchored(Anchored::Yes);
        let Ok(mut state) = self.alive.start_state_forward(cache, &input) else { return true };
        for byte in &bytes[start..] {
            match self.alive.next_state(cache, state, *byte) {
                Ok(next) if next.is_dead() => return false,
                Ok(next) if next.is_quit() => return true,
                Ok(next) => state = next,
                Err(_) => return true,
            }
        }
        true
    }
}

/// The longest match of an expression, or why it has no place here.
fn longest_match(expression: &str) -> Result<usize, String> {
    let (shortest, longest) = lengths(expression)?;
    if shortest == Some(0) {
        return Err("it matches the empty text; require at least one character".into());
    }
    Ok(longest.map_or(LONGEST, |longest| longest.min(LONGEST)))
}

/// That an expression says itself for how long it may hold a stream back.
pub(crate) fn ends(expression: &str) -> Result<(), String> {
    match lengths(expression)?.1 {
        Some(longest) if longest <= LONGEST => Ok(()),
        Some(longest) => Err(format!("a match may be {longest} bytes long; make it at most {LONGEST}")),
        None => Err("a match may be of any length; give repetitions an end, such as {0,64}".into()),
    }
}

/// The bytes of the shortest match and of the longest.
fn lengths(expression: &str) -> Result<(Option<usize>, Option<usize>), String> {
    let syntax = syntax::Config::new().utf8(false);
    let parsed = syntax::parse_with(expression, &syntax).map_err(|e| e.to_string())?;
    Ok((parsed.properties().minimum_len(), parsed.properties().maximum_len()))
}
