//! Rules over word lists: groups of words that follow each other in a text.
//!
//! A rule is a sequence of groups, such as *to ignore*, *earlier*, *instructions*, whose words follow each other within a reach.
//! One word says nothing; the order and the nearness do. Words are looked for in the bare form, so leetspeak, look-alikes,
//! spaced-out letters and invisible characters change nothing. Rules fold over hits in the order of the text, which a cut of the
//! stream does not change.

use std::{collections::BTreeMap, ops::Range};

use crate::{error::Error, lists::sections, words::Words};

/// The rules of a list, and the groups whose words they wait for.
#[derive(Debug)]
pub(crate) struct Rulebook {
    pub(crate) rules: Vec<Rule>,
    /// For every word: the rules that its group is in, and at which place, the last place first, so that one hit is not taken
    /// for two groups.
    steps: Vec<Vec<(usize, usize)>>,
}

/// Groups that follow each other.
#[derive(Debug)]
pub(crate) struct Rule {
    /// What it speaks for: behind `rules` in its section's name.
    pub(crate) label: &'static str,
    pub(crate) weight: f32,
    /// How many bytes of bare text may lie between two groups.
    reach: usize,
    groups: Vec<&'static str>,
}

impl Rulebook {
    /// The rules of a list, and the automaton of their words.
    pub(crate) fn read(list: &'static str) -> Result<(Words, Self), Error> {
        let (rules, groups): (Vec<_>, Vec<_>) = sections(list).into_iter().partition(|s| s.name.starts_with("rules"));
        let lines =
            rules.iter().flat_map(|s| s.lines.iter().map(|line| (s.name.trim_start_matches("rules").trim(), *line)));
        let rules: Option<Vec<Rule>> = lines.map(|(label, line)| Rule::read(label, line)).collect();
        let wrong =
            || Error::new("guard", "a rule of a shipped list is no weight, reach and groups: a fault of the program");
        let rules = rules.ok_or_else(wrong)?;
        let places = |name: &str| -> Vec<(usize, usize)> {
            let all = rules.iter().enumerate().flat_map(|(i, rule)| (0..rule.groups.len()).rev().map(move |k| (i, k)));
            all.filter(|(i, k)| rules[*i].groups[*k] == name).collect()
        };
        let steps = groups.iter().flat_map(|group| group.words().map(|_| places(group.name))).collect();
        let words = Words::new(groups.iter().flat_map(|group| group.words()))?;
        Ok((words, Self { rules, steps }))
    }
}

impl Rule {
    /// `weight reach group > group`.
    fn read(label: &'static str, line: &'static str) -> Option<Self> {
        let (weight, rest) = line.split_once(' ')?;
        let (reach, groups) = rest.trim_start().split_once(' ')?;
        let groups = groups.split('>').map(str::trim).collect();
        Some(Self { label, groups, reach: reach.parse().ok()?, weight: weight.parse().ok()? })
    }
}

/// For rules of which groups were seen, by the last of these: where the latest such sequence stands. Most texts begin few of them, so
/// that what is not begun takes no room.
#[derive(Debug, Clone, Default)]
pub(crate) struct Begun(BTreeMap<(usize, usize), Range<usize>>);

impl Begun {
    /// A word was found. Calls `fulfilled` with every rule that this completes and the place of its sequence.
    pub(crate) fn hit(
        &mut self,
        book: &Rulebook,
        word: usize,
        hit: &Range<usize>,
        mut fulfilled: impl FnMut(usize, Range<usize>),
    ) {
        for (rule, k) in &book.steps[word] {
            if let Some(whole) = self.advance(book, *rule, *k, hit) {
                fulfilled(*rule, whole);
            }
        }
    }

    /// Takes a hit as the `k`-th group of a rule; returns the place of the whole if that completes it.
    fn advance(&mut self, book: &Rulebook, rule: usize, k: usize, hit: &Range<usize>) -> Option<Range<usize>> {
        let Rule { reach, groups, .. } = &book.rules[rule];
        let start = match k.checked_sub(1).map(|before| self.0.get(&(rule, before))) {
            None => hit.start,
            Some(Some(before)) if before.end <= hit.start && hit.start - before.end <= *reach => before.start,
            Some(_) => return None,
        };
        if k + 1 == groups.len() {
            return Some(start..hit.end);
        }
        self.0.insert((rule, k), start..hit.end);
        None
    }

    /// The first place where a sequence begins that words from `undecided` on could still complete.
    pub(crate) fn open(&self, book: &Rulebook, undecided: usize) -> usize {
        let alive = self.0.iter().filter(|((rule, _), range)| range.end + book.rules[*rule].reach >= undecided);
        alive.map(|(_, range)| range.start).fold(undecided, usize::min)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_name_groups_that_are_there_and_groups_are_used() {
        for list in [crate::injection::LIST, crate::moderation::LIST] {
            let (_, book) = Rulebook::read(list).unwrap();
            let sections = sections(list);
            for rule in &book.rules {
                assert!(rule.groups.iter().all(|name| sections.iter().any(|s| s.name == *name)), "{rule:?}");
            }
            for group in sections.iter().filter(|s| !s.name.starts_with("rules")) {
                assert!(book.rules.iter().any(|rule| rule.groups.contains(&group.name)), "{}", group.name);
            }
        }
    }
}
