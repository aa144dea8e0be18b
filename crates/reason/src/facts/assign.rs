//! Proposals go to slots.
//!
//! The weight of a proposal for a slot is
//!
//! `CUE · cue + MODEL · model + sole + required + currency - doubt`
//!
//! where `cue` is how near the slot's words stand ([`super::cues`]), `model` is the model's calibrated probability ([`super::judge`]),
//! `sole` is given to the only day, share or length of time in the text where only one slot wants one,
//! `required` is a little for a slot without which nothing is decided, since people who ask for a decision mostly say what it needs,
//! `currency` is a little for an amount of money that names one, and `doubt` is subtracted where the reading has to assume
//! something, such as a period that was not said. Of all ways to give every slot at most one proposal, and every piece of text to at
//! most one slot, the one with the highest sum of `weight - NEEDED` is taken; what stays below [`NEEDED`] is absent.

use std::{collections::BTreeMap, ops::Range};

use protocol::{Fact, Quote};
use rust_decimal::Decimal;
use serde_json::{Map, Value};

use super::{
    cues::{Cues, lowered, places},
    date::Day,
    judge::Judgement,
    number,
    propose::{Proposal, What},
    schema::{Facts, Kind, Slot},
};

/// How much the words near a span count.
const CUE: f64 = 1.0;
/// How much the model's opinion counts.
const MODEL: f64 = 0.6;
/// What a proposal must weigh to be taken.
const NEEDED: f64 = 0.4;
/// For the only proposal of a kind that only one slot wants.
const SOLE: f64 = 0.5;
/// For a slot that must be filled.
const REQUIRED: f64 = 0.2;
/// For an amount with a currency where money is wanted.
const CURRENCY: f64 = 0.1;
/// Against an amount whose period was not said, where one is wanted.
const NO_PERIOD: f64 = 0.1;
/// Against an amount per time, where a plain one is wanted.
const ODD_PERIOD: f64 = 0.5;
/// Cues this near to a further amount make it part of a sum.
const PART: f64 = 0.5;
/// Words beside the whole of a sum whose parts are named too.
const WHOLE: [&str; 10] =
    ["total", "altogether", "in all", "combined", "all told", "一共", "总共", "合计", "共计", "总计"];
/// Bytes between such a word and the whole.
const BESIDE: usize = 12;
/// Proposals considered for one slot, the heaviest.
const CANDIDATES: usize = 5;

/// What a slot gets.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Assigned {
    pub(crate) facts: BTreeMap<String, Fact>,
    /// The currencies named, where amounts that were taken disagree.
    pub(crate) currencies: Vec<&'static str>,
}

/// A proposal for a slot.
#[derive(Debug, Clone)]
struct Candidate {
    proposal: usize,
    value: Value,
    weight: f64,
}

/// The value `proposal` has in `slot`, and the doubt about it; nothing if it does not fit.
pub(crate) fn reading(facts: &Facts, slot: &Slot, proposal: &Proposal) -> Option<(Value, f64)> {
    let wanted = slot.reading.per;
    let (value, doubt) = match (&proposal.what, slot.reading.kind) {
        (What::Amount { value, per, currency }, Kind::Money) => {
            let (value, doubt) = match (wanted, per) {
                (Some(wanted), Some(per)) => (per.rate_to(wanted, *value)?, 0.0),
                (Some(_), None) => (*value, NO_PERIOD),
                (None, Some(_)) => (*value, ODD_PERIOD),
                (None, None) => (*value, 0.0),
            };
            let doubt = if currency.is_some() { doubt - CURRENCY } else { doubt };
            (number::json(value.round_dp(2)), doubt)
        }
        (What::Amount { value, currency: None, per: None } | What::Count(value), Kind::Number) => {
            (number::json(*value), 0.0)
        }
        (What::Percent(value), Kind::Percent) => (number::json(*value), 0.0),
        (What::Duration { count, unit }, Kind::Duration) => {
            let length: Decimal = unit.length_to(wanted?, *count)?;
            (number::json(length.round_dp(2)), 0.0)
        }
        (What::Date(day), Kind::Date) => (Value::String(day.to_string()), 0.0),
        // The words themselves say which value it is.
        (What::Choice { slot: of, value }, _) if *of == slot.name => (typed(value), -1.0),
        (What::Text { slot: of, value }, Kind::Text) if *of == slot.name => (Value::from(value.as_str()), 0.0),
        _ => return None,
    };
    let alone: Map<String, Value> = [(slot.name.clone(), value.clone())].into_iter().collect();
    facts.check(&alone).is_ok().then_some((value, doubt))
}

/// Words may stand for yes or no, for a number or for a text.
fn typed(value: &str) -> Value {
    match value {
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        _ => value.parse().map_or_else(|_| Value::String(value.to_owned()), number::json),
    }
}

/// Everything known about a text before slots are filled.
#[derive(Debug)]
pub(crate) struct Read<'a> {
    pub(crate) text: &'a str,
    pub(crate) facts: &'a Facts,
    pub(crate) proposals: &'a [Proposal],
    pub(crate) cues: &'a Cues,
    pub(crate) judgement: &'a Judgement,
    pub(crate) today: Day,
}

impl Read<'_> {
    /// Fills the slots that `given` does not name.
    pub(crate) fn assign(&self, given: &Map<String, Value>) -> Assigned {
        let open: Vec<usize> =
            (0..self.facts.slots.len()).filter(|slot| !given.contains_key(&self.facts.slots[*slot].name)).collect();
        let candidates: Vec<Vec<Candidate>> = open.iter().map(|slot| self.candidates(*slot)).collect();
        let mut search = Search { read: self, candidates: &candidates, best: (0.0, vec![None; open.len()]) };
        search.from(0, 0.0, &mut Vec::new());
        let (_, chosen) = search.best;
        let mut taken: Vec<usize> =
            chosen.iter().zip(&candidates).filter_map(|(c, all)| Some(all[(*c)?].proposal)).collect();
        let mut filled = BTreeMap::new();
        for ((slot, chosen), candidates) in open.iter().zip(&chosen).zip(&candidates) {
            let Some(chosen) = chosen.map(|chosen| &candidates[chosen]) else { continue };
            let slot = &self.facts.slots[*slot];
            let fact = if slot.reading.sum { self.sum(candidates, chosen, &mut taken) } else { self.fact(chosen) };
            filled.insert(slot.name.clone(), fact);
        }
        let currencies = self.derived(given, &taken, &mut filled);
        Assigned { facts: filled, currencies }
    }

    fn candidates(&self, slot: usize) -> Vec<Candidate> {
        let known = &self.facts.slots[slot];
        let one = |(place, proposal): (usize, &Proposal)| {
            let (value, doubt) = reading(self.facts, known, proposal)?;
            let cue = self.cues.weight(slot, &proposal.span);
            let sole = if self.is_sole(slot) { SOLE } else { 0.0 };
            let required = if known.required { REQUIRED } else { 0.0 };
            let weight = CUE * cue + MODEL * self.judgement.weights[place][slot] + sole + required - doubt;
            (weight > NEEDED).then_some(Candidate { proposal: place, value, weight })
        };
        let mut found: Vec<Candidate> = self.proposals.iter().enumerate().filter_map(one).collect();
        found.sort_by(|a, b| b.weight.total_cmp(&a.weight));
        found.truncate(CANDIDATES);
        found
    }

    /// Whether a slot is the only one of its kind, and one proposal the only one that fits it. Any number may be money or not, so
    /// there nothing follows from that.
    fn is_sole(&self, slot: usize) -> bool {
        let slot = &self.facts.slots[slot];
        let kind = slot.reading.kind;
        matches!(kind, Kind::Date | Kind::Percent | Kind::Duration)
            && self.facts.slots.iter().filter(|other| other.reading.kind == kind).count() == 1
            && self.proposals.iter().filter(|proposal| reading(self.facts, slot, proposal).is_some()).count() == 1
    }

    fn fact(&self, chosen: &Candidate) -> Fact {
        let span = &self.proposals[chosen.proposal].span;
        Fact { value: chosen.value.clone(), quote: Some(self.quote(span.start, span.end)) }
    }

    fn quote(&self, start: usize, end: usize) -> Quote {
        Quote { text: self.text[start..end].to_owned(), start, end }
    }

    /// The amount chosen and the others that the slot's words stand beside; the quote reaches from the first to the last. Where one
    /// of them is the whole, that one alone.
    fn sum(&self, candidates: &[Candidate], chosen: &Candidate, taken: &mut Vec<usize>) -> Fact {
        let mut fact = self.fact(chosen);
        let span = |candidate: &Candidate| self.proposals[candidate.proposal].span.clone();
        let apart = |place: usize, taken: &[usize]| taken.iter().all(|other| !self.overlap(*other, place));
        let mut parts = vec![chosen];
        for candidate in candidates.iter().filter(|candidate| candidate.weight >= CUE * PART + NEEDED) {
            if apart(candidate.proposal, taken) {
                taken.push(candidate.proposal);
                parts.push(candidate);
            }
        }
        if let Some(whole) = self.whole(&parts) {
            return self.fact(whole);
        }
        if parts.len() > 1 {
            fact.value = number::json(parts.iter().filter_map(|part| amount(part)).sum());
            let (start, end) = (parts.iter().map(|p| span(p).start).min(), parts.iter().map(|p| span(p).end).max());
            fact.quote = start.zip(end).map(|(start, end)| self.quote(start, end));
        }
        fact
    }

    /// The one that is as much as all others together, or that is called the total and is not less than they are.
    fn whole<'c>(&self, parts: &[&'c Candidate]) -> Option<&'c Candidate> {
        let largest = *parts.iter().max_by_key(|part| amount(part))?;
        let all: Decimal = parts.iter().filter_map(|part| amount(part)).sum();
        let twice = amount(largest)? * Decimal::TWO;
        let called = || self.is_called_total(&self.proposals[largest.proposal].span);
        ((parts.len() > 2 && twice == all) || (parts.len() > 1 && twice >= all && called())).then_some(largest)
    }

    fn is_called_total(&self, span: &Range<usize>) -> bool {
        let lower = lowered(self.text);
        let beside = |word: Range<usize>| {
            let gap = if word.end <= span.start { span.start - word.end } else { word.start.saturating_sub(span.end) };
            gap <= BESIDE
        };
        WHOLE.iter().any(|word| places(&lower, word).any(beside))
    }

    fn overlap(&self, a: usize, b: usize) -> bool {
        let (a, b) = (&self.proposals[a].span, &self.proposals[b].span);
        a.start < b.end && b.start < a.end
    }

    /// Facts that follow from the day and from the amounts taken. Returns the currencies if they disagree.
    fn derived(
        &self,
        given: &Map<String, Value>,
        taken: &[usize],
        filled: &mut BTreeMap<String, Fact>,
    ) -> Vec<&'static str> {
        let mut named: Vec<(&'static str, usize)> = Vec::new();
        for &place in taken {
            if let What::Amount { currency: Some(currency), .. } = self.proposals[place].what
                && !named.iter().any(|(known, _)| *known == currency)
            {
                named.push((currency, place));
            }
        }
        for slot in self.facts.slots.iter().filter(|slot| !given.contains_key(&slot.name)) {
            let fact = match (slot.reading.kind, named.as_slice()) {
                (Kind::Today, _) => Fact { value: Value::String(self.today.to_string()), quote: None },
                (Kind::Currency, [(currency, place)]) => {
                    let span = &self.proposals[*place].span;
                    Fact { value: Value::from(*currency), quote: Some(self.quote(span.start, span.end)) }
                }
                _ => continue,
            };
            filled.insert(slot.name.clone(), fact);
        }
        if named.len() > 1 { named.into_iter().map(|(currency, _)| currency).collect() } else { Vec::new() }
    }
}

fn amount(candidate: &Candidate) -> Option<Decimal> {
    candidate.value.to_string().parse().ok()
}

/// All ways to fill the slots, the best kept.
struct Search<'a> {
    read: &'a Read<'a>,
    candidates: &'a [Vec<Candidate>],
    best: (f64, Vec<Option<usize>>),
}

impl Search<'_> {
    fn from(&mut self, slot: usize, sum: f64, path: &mut Vec<Option<usize>>) {
        let Some(candidates) = self.candidates.get(slot) else {
            if sum > self.best.0 {
                self.best = (sum, path.clone());
            }
            return;
        };
        for (place, candidate) in candidates.iter().enumerate() {
            let used = path.iter().zip(self.candidates).filter_map(|(chosen, all)| Some(all[(*chosen)?].proposal));
            if used.into_iter().any(|used| self.read.overlap(used, candidate.proposal)) {
                continue;
            }
            path.push(Some(place));
            self.from(slot + 1, sum + candidate.weight - NEEDED, path);
            path.pop();
        }
        path.push(None);
        self.from(slot + 1, sum, path);
        path.pop();
    }
}
