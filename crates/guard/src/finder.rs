//! All rules of one direction, compiled, and how far each of them has read a text.
//!
//! Rules that only watch are kept apart from those that change or stop a text: a stream waits for the latter alone, and one
//! automaton for both would make it wait for what it never touches.

use std::ops::Range;

use crate::{
    error::Error,
    fold::{Folded, View},
    patterns::{Judge, Patterns},
    personal::{Kind, PersonalData},
    policy::{Action, Direction, Policy},
    report::Verdict,
    words::{self, Words},
};

/// The rules of one direction.
#[derive(Debug)]
pub(crate) struct Finders {
    finders: Vec<Finder>,
}

/// A compiled group of rules of one sort.
#[derive(Debug)]
struct Finder {
    /// It may change or stop a text.
    enforces: bool,
    sort: Sort,
}

#[derive(Debug)]
enum Sort {
    /// Kinds with what is done about each.
    Personal(PersonalData, Vec<(Kind, Action)>),
    /// Expressions of the operator's, a rule for each.
    Custom(Patterns, Vec<Rule>),
    /// Terms of the operator's, and the rule of each.
    Terms(Words, Vec<Rule>, Vec<usize>),
}

/// A name and what is done.
#[derive(Debug, Clone)]
struct Rule {
    name: String,
    action: Action,
}

/// How far a finder has read.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    Plain(usize),
    Words(words::Place),
}

impl Finders {
    /// Compiles the rules of this direction.
    pub(crate) fn new(policy: &Policy, direction: Direction) -> Result<Self, Error> {
        let mut finders = Vec::new();
        for enforces in [true, false] {
            let wanted = |action: Action| action != Action::Allow && (action >= Action::Mask) == enforces;
            let sorts = [
                personal(policy, direction, wanted)?,
                custom(policy, direction, wanted)?,
                terms(policy, direction, wanted)?,
            ];
            finders.extend(sorts.into_iter().flatten().map(|sort| Finder { enforces, sort }));
        }
        Ok(Self { finders })
    }

    /// Where every finder begins.
    pub(crate) fn start(&self) -> Vec<Place> {
        self.finders.iter().map(|finder| finder.sort.start()).collect()
    }

    /// Finds what is decided, forgets what no finder needs any more, and returns up to where the text may leave: behind it an
    /// enforcing rule may still find something.
    pub(crate) fn scan(&self, places: &mut [Place], text: &mut Folded, last: bool, found: &mut Vec<Verdict>) -> usize {
        let mut free = text.seen;
        let (mut plain, mut bare) = (text.plain.end(), text.bare.end());
        for (finder, place) in self.finders.iter().zip(places) {
            let decided = finder.sort.scan(place, text, last, found);
            if finder.enforces {
                free = free.min(decided);
            }
            match place {
                Place::Plain(from) => plain = plain.min(*from),
                Place::Words(place) => bare = bare.min(place.needs()),
            }
        }
        text.plain.forget(plain);
        text.bare.forget(bare);
        free
    }
}

impl Sort {
    fn start(&self) -> Place {
        match self {
            Self::Personal(..) | Self::Custom(..) => Place::Plain(0),
            Self::Terms(words, ..) => Place::Words(words.start()),
        }
    }

    /// Up to where in the text this finder has decided.
    fn scan(&self, place: &mut Place, text: &Folded, last: bool, found: &mut Vec<Verdict>) -> usize {
        let mut note = |rule: &str, action: Action, span: Range<usize>| {
            found.push(Verdict { rule: rule.to_owned(), action, span, score: 1.0 });
        };
        match (self, place) {
            (Self::Personal(data, kinds), Place::Plain(from)) => {
                data.patterns.scan(from, &text.plain, last, data, |pattern, range| {
                    let kind = data.kind(pattern);
                    let action = kinds.iter().find(|(k, _)| *k == kind).map_or(Action::Monitor, |(_, action)| *action);
                    note(kind.rule(), action, text.plain.origin(range));
                });
                text.plain.origin_of(*from, text.seen)
            }
            (Self::Custom(patterns, rules), Place::Plain(from)) => {
                patterns.scan(from, &text.plain, last, &Anything, |pattern, range| {
                    note(&rules[pattern].name, rules[pattern].action, text.plain.origin(range));
                });
                text.plain.origin_of(*from, text.seen)
            }
            (Self::Terms(words, rules, owners), Place::Words(place)) => {
                let undecided = words.scan(place, &text.bare, last, |term, range| {
                    let rule = &rules[owners[term]];
                    note(&rule.name, rule.action, text.bare.origin(range));
                });
                text.bare.origin_of(undecided, text.seen)
            }
            (_, Place::Plain(_) | Place::Words(_)) => text.seen,
        }
    }
}

/// Takes whatever an expression matched.
struct Anything;

impl Judge for Anything {
    fn judge(&self, _: usize, _: &View, found: Range<usize>) -> Option<Range<usize>> {
        Some(found)
    }
}

fn personal(policy: &Policy, direction: Direction, wanted: impl Fn(Action) -> bool) -> Result<Option<Sort>, Error> {
    let action = |kind: Kind| policy.personal.action(kind, direction);
    let Some(data) = PersonalData::new(|kind| wanted(action(kind)))? else { return Ok(None) };
    let kinds = data.kinds().map(|kind| (kind, action(kind))).collect();
    Ok(Some(Sort::Personal(data, kinds)))
}

fn custom(policy: &Policy, direction: Direction, wanted: impl Fn(Action) -> bool) -> Result<Option<Sort>, Error> {
    let chosen: Vec<_> = policy
        .patterns
        .iter()
        .map(|(name, pattern)| (name, pattern, if direction == Direction::In { pattern.input } else { pattern.output }))
        .filter(|(_, _, action)| wanted(*action))
        .collect();
    if chosen.is_empty() {
        return Ok(None);
    }
    let expressions: Vec<_> = chosen.iter().map(|(_, pattern, _)| pattern.regex.as_str()).collect();
    let patterns = Patterns::new(&expressions, |i| format!("patterns.{}.regex", chosen[i].0))?;
    let rules = chosen.iter().map(|(name, _, action)| Rule { name: format!("patterns.{name}"), action: *action });
    Ok(Some(Sort::Custom(patterns, rules.collect())))
}

fn terms(policy: &Policy, direction: Direction, wanted: impl Fn(Action) -> bool) -> Result<Option<Sort>, Error> {
    let (mut rules, mut words, mut owners) = (Vec::new(), Vec::new(), Vec::new());
    for (name, terms) in &policy.terms {
        let action = if direction == Direction::In { terms.input } else { terms.output };
        if wanted(action) {
            owners.extend(terms.words.iter().map(|_| rules.len()));
            words.extend(terms.words.iter().map(String::as_str));
            rules.push(Rule { name: format!("terms.{name}"), action });
        }
    }
    if words.is_empty() {
        return Ok(None);
    }
    Ok(Some(Sort::Terms(Words::new(words.into_iter())?, rules, owners)))
}
