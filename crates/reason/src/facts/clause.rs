//! Where one statement of a text ends and the next begins, as far as marks and joining words show it.

use std::{ops::Range, sync::LazyLock};

use regex::Regex;

/// Marks that are not part of a number, and words that join clauses. A colon joins a name and its value.
static BREAK: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(r"(?i)[;!?。；！？，、\n]|[,.](?:\s|$)|\s(?:and|but|while|plus|whereas|with|to)\s|\s[-–—]\s|而且|并且|但是|但|另外|还有").ok()
});

/// The clauses of `text`, in order; together they cover it.
pub(super) fn split(text: &str) -> Vec<Range<usize>> {
    let mut clauses = Vec::new();
    let mut start = 0;
    for found in BREAK.iter().flat_map(|pattern| pattern.find_iter(text)) {
        clauses.push(start..found.end());
        start = found.end();
    }
    clauses.push(start..text.len());
    clauses
}

/// The clause that byte `at` lies in.
pub(super) fn of(clauses: &[Range<usize>], at: usize) -> usize {
    clauses.iter().position(|clause| at < clause.end).unwrap_or(clauses.len().saturating_sub(1))
}
