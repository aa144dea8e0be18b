//! Masks in place of what was found.
//!
//! Findings that overlap become one mask, named after the one that begins first (the longest of those), so that no rest of any
//! of them stays behind.

use std::ops::Range;

use crate::report::Verdict;

/// The text, which begins at offset `from`, with masks in place, up to the last place at or before `until` that is not inside a
/// mask. Returns it with that place. `masks` are sorted by [`Verdict::order`] and hold all that begin before `until`.
pub(crate) fn write(text: &str, from: usize, masks: &[Verdict], until: usize) -> (String, usize) {
    let mut written = String::with_capacity(until - from);
    let (mut done, mut rest) = (from, masks);
    while let Some((name, span, n)) = region(rest).filter(|(_, span, _)| span.start < until) {
        written.push_str(&text[done - from..span.start - from]);
        if span.end > until {
            return (written, span.start);
        }
        written.push_str(&name.mask());
        (done, rest) = (span.end, &rest[n..]);
    }
    written.push_str(&text[done - from..until - from]);
    (written, until)
}

/// What masks replace, in order, each with what stands there instead. `masks` are sorted by [`Verdict::order`].
pub(crate) fn regions(mut masks: &[Verdict]) -> Vec<(String, Range<usize>)> {
    let mut regions = Vec::new();
    while let Some((name, span, n)) = region(masks) {
        // The name of a rule is its writer's; in JSON it may not end the string that it stands in.
        regions.push((name.mask().replace(['"', '\\'], "'"), span));
        masks = &masks[n..];
    }
    regions
}

/// The findings at the beginning of `masks` that overlap: the one that names them, what they cover, and how many they are.
fn region(masks: &[Verdict]) -> Option<(&Verdict, Range<usize>, usize)> {
    let (mut name, mut span) = (masks.first()?, masks.first()?.span.clone());
    let mut n = 0;
    while let Some(mask) = masks.get(n).filter(|mask| n == 0 || mask.span.start < span.end) {
        if mask.span.start == span.start && mask.span.end > name.span.end {
            name = mask;
        }
        span.end = span.end.max(mask.span.end);
        n += 1;
    }
    Some((name, span, n))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Action;

    #[test]
    fn overlaps_are_one_mask() {
        let check = |spans: &[(&str, Range<usize>)], until: usize, want: (&str, usize)| {
            let verdict = |(rule, span): &(&str, Range<usize>)| Verdict {
                rule: format!("terms.{rule}"),
                action: Action::Mask,
                span: span.clone(),
                score: 1.0,
            };
            let masks: Vec<_> = spans.iter().map(verdict).collect();
            let (text, end) = write("0123456789", 0, &masks, until);
            assert_eq!((text.as_str(), end), want);
        };
        check(&[], 10, ("0123456789", 10));
        check(&[("a", 2..4), ("b", 4..6)], 10, ("01[a][b]6789", 10));
        check(&[("a", 2..4), ("b", 3..6), ("c", 5..7)], 10, ("01[a]789", 10));
        check(&[("a", 2..4), ("b", 2..6)], 10, ("01[b]6789", 10));
        check(&[("a", 2..8)], 6, ("01", 2));
        check(&[("a", 2..4), ("b", 6..8)], 6, ("01[a]45", 6));
    }
}
