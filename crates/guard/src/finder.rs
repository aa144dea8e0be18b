//! All rules of one direction, compiled, and how far each of them has read a text.
//!
//! Rules that only watch are kept apart from those that change or stop a text: a stream waits for the latter alone, and one
//! automaton for both would make it wait for what it never touches.

use std::{ops::Range, sync::Arc};

use crate::{
    error::Error,
    fold::{Folded, View},
    injection,
    patterns::{self, Judge, Patterns},
    personal::{Kind, PersonalData},
    policy::{Action, Direction, Injection, Policy, Sides, Toxicity},
    report::Verdict,
    sequences::Rulebook,
    toxicity::{self, chinese},
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
    Personal(Arc<PersonalData>, Vec<(Kind, Action)>),
    /// Expressions of the operator's, a rule for each.
    Custom(Box<Patterns>, Vec<Rule>),
    /// Terms of the operator's, and the rule of each.
    Terms(Words, Vec<Rule>, Vec<usize>),
    /// Words of the rules against injection.
    Injection(Words, Rulebook, Threshold),
    /// Blocks of English.
    Toxicity(Threshold),
    /// Terms of Chinese and their weights.
    Chinese(Words, Vec<f32>, Threshold),
}

/// What is done from which score on.
#[derive(Debug, Clone, Copy)]
struct Threshold {
    least: f32,
    action: Action,
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
    Injection(words::Place, injection::Tally),
    Toxicity(toxicity::Place),
    Chinese(words::Place, chinese::Tally),
}

impl Finders {
    /// Compiles the rules of this direction; what is `known` from the other one is shared.
    pub(crate) fn new(
        policy: &Policy,
        direction: Direction,
        known: &mut Vec<Arc<PersonalData>>,
    ) -> Result<Self, Error> {
        let mut finders = Vec::new();
        for enforces in [true, false] {
            let wanted = |action: Action| action != Action::Allow && (action >= Action::Mask) == enforces;
            let mut sorts = vec![personal(policy, direction, wanted, known)?, custom(policy, direction, wanted)?];
            sorts.extend([terms(policy, direction, wanted)?, injection(policy, direction, wanted)?]);
            sorts.extend(toxicity(policy, direction, wanted)?);
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
                Place::Words(place) | Place::Injection(place, _) | Place::Chinese(place, _) => {
                    bare = bare.min(place.needs())
                }
                Place::Toxicity(place) => bare = bare.min(place.needs()),
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
            Self::Injection(words, ..) => Place::Injection(words.start(), injection::Tally::default()),
            Self::Toxicity(_) => Place::Toxicity(toxicity::Place::default()),
            Self::Chinese(words, ..) => Place::Chinese(words.start(), chinese::Tally::default()),
        }
    }

    /// Up to where in the text this finder has decided.
    fn scan(&self, place: &mut Place, text: &Folded, last: bool, found: &mut Vec<Verdict>) -> usize {
        let mut note = |rule: &str, action: Action, span: Range<usize>, score: f32| {
            found.push(Verdict { rule: rule.to_owned(), action, span, score });
        };
        match (self, place) {
            (Self::Personal(data, kinds), Place::Plain(from)) => {
                data.patterns.scan(from, &text.plain, last, &**data, |pattern, range| {
                    let kind = data.kind(pattern);
                    let action = kinds.iter().find(|(k, _)| *k == kind).map_or(Action::Monitor, |(_, action)| *action);
                    note(kind.rule(), action, text.plain.origin(range), 1.0);
                });
                text.plain.origin_of(*from, text.seen)
            }
            (Self::Custom(patterns, rules), Place::Plain(from)) => {
                patterns.scan(from, &text.plain, last, &Anything, |pattern, range| {
                    note(&rules[pattern].name, rules[pattern].action, text.plain.origin(range), 1.0);
                });
                text.plain.origin_of(*from, text.seen)
            }
            (Self::Terms(words, rules, owners), Place::Words(place)) => {
                let undecided = words.scan(place, &text.bare, last, |term, range| {
                    let rule = &rules[owners[term]];
                    note(&rule.name, rule.action, text.bare.origin(range), 1.0);
                });
                text.bare.origin_of(undecided, text.seen)
            }
            (Self::Injection(words, book, Threshold { least, action }), Place::Injection(place, tally)) => {
                let undecided = words.scan(place, &text.bare, last, |word, hit| {
                    tally.hit(book, (word, &hit), *least, |range, sum| {
                        note("injection", *action, text.bare.origin(range), sum);
                    });
                });
                let open = if last { undecided } else { tally.open(book, undecided) };
                place.keep(open);
                text.bare.origin_of(open, text.seen)
            }
            (Self::Toxicity(Threshold { least, action }), Place::Toxicity(place)) => {
                let open = toxicity::scan(place, &text.bare, last, |range, score| {
                    if score.toxic >= *least {
                        note("toxicity", *action, text.bare.origin(range), score.toxic);
                    }
                });
                text.bare.origin_of(open, text.seen)
            }
            (Self::Chinese(words, weights, Threshold { least, action }), Place::Chinese(place, tally)) => {
                let undecided = words.scan(place, &text.bare, last, |word, hit| {
                    let score = tally.hit(&hit, weights[word]);
                    if score >= *least {
                        note("toxicity", *action, text.bare.origin(hit), score);
                    }
                });
                text.bare.origin_of(undecided, text.seen)
            }
            // Places are made by `start`, each for its sort.
            _ => text.seen,
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

fn personal(
    policy: &Policy,
    direction: Direction,
    wanted: impl Fn(Action) -> bool,
    known: &mut Vec<Arc<PersonalData>>,
) -> Result<Option<Sort>, Error> {
    let action = |kind: Kind| policy.personal.action(kind, direction);
    let Some(data) = PersonalData::shared(known, |kind| wanted(action(kind)))? else { return Ok(None) };
    let kinds = data.kinds().map(|kind| (kind, action(kind))).collect();
    Ok(Some(Sort::Personal(data, kinds)))
}

fn custom(policy: &Policy, direction: Direction, wanted: impl Fn(Action) -> bool) -> Result<Option<Sort>, Error> {
    let chosen: Vec<_> = policy
        .patterns
        .iter()
        .map(|(name, pattern)| (name, pattern, Sides { input: pattern.input, output: pattern.output }.of(direction)))
        .filter(|(_, _, action)| wanted(*action))
        .collect();
    if chosen.is_empty() {
        return Ok(None);
    }
    let expressions: Vec<_> = chosen.iter().map(|(_, pattern, _)| pattern.regex.as_str()).collect();
    let field = |i: usize| format!("patterns.{}.regex", chosen[i].0);
    let patterns = Patterns::new(&expressions, field)?;
    for (i, expression) in expressions.iter().enumerate() {
        patterns::ends(expression).map_err(|message| Error::new(field(i), message))?;
    }
    let rules = chosen.iter().map(|(name, _, action)| Rule { name: format!("patterns.{name}"), action: *action });
    Ok(Some(Sort::Custom(Box::new(patterns), rules.collect())))
}

fn terms(policy: &Policy, direction: Direction, wanted: impl Fn(Action) -> bool) -> Result<Option<Sort>, Error> {
    let (mut rules, mut words, mut owners) = (Vec::new(), Vec::new(), Vec::new());
    for (name, terms) in &policy.terms {
        let action = Sides { input: terms.input, output: terms.output }.of(direction);
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

fn injection(policy: &Policy, direction: Direction, wanted: impl Fn(Action) -> bool) -> Result<Option<Sort>, Error> {
    let Injection { input, output, threshold } = policy.injection;
    let action = Sides { input, output }.of(direction);
    if !wanted(action) {
        return Ok(None);
    }
    let (words, book) = Rulebook::read(injection::LIST)?;
    Ok(Some(Sort::Injection(words, book, Threshold { least: threshold, action })))
}

fn toxicity(
    policy: &Policy,
    direction: Direction,
    wanted: impl Fn(Action) -> bool,
) -> Result<[Option<Sort>; 2], Error> {
    let Toxicity { input, output, threshold } = policy.toxicity;
    let action = Sides { input, output }.of(direction);
    if !wanted(action) {
        return Ok([None, None]);
    }
    let threshold = Threshold { least: threshold, action };
    let (words, weights) = chinese::shipped()?;
    Ok([Some(Sort::Toxicity(threshold)), Some(Sort::Chinese(words, weights, threshold))])
}
