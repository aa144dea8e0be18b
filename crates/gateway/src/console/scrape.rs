//! The metrics page, read by ourselves: the recorder gives its values as text only.

/// A sample of the metrics page.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Line<'a> {
    pub(super) name: &'a str,
    pub(super) value: f64,
    /// What stands between the braces.
    labels: &'a str,
}

/// Every sample of a page in Prometheus' text format; comments and what is no sample are passed over.
pub(super) fn lines(page: &str) -> impl Iterator<Item = Line<'_>> {
    page.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        Some(Line { name, value: value.parse().ok()?, labels: labels.trim_end_matches('}') })
    })
}

impl<'a> Line<'a> {
    /// The value of a label, escapes as they stand.
    pub(super) fn label(&self, name: &str) -> Option<&'a str> {
        let mut rest = self.labels;
        loop {
            let (key, tail) = rest.split_once("=\"")?;
            let end = closing_quote(tail)?;
            if key.trim_start_matches(',') == name {
                return Some(&tail[..end]);
            }
            rest = &tail[end + 1..];
        }
    }

    /// That every one of these labels begins so.
    pub(super) fn fits(&self, labels: &[(&str, &str)]) -> bool {
        labels.iter().all(|(name, start)| self.label(name).is_some_and(|value| value.starts_with(start)))
    }
}

fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes().position(|byte| {
        let closes = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        closes
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_and_their_labels() {
        let page =
            "# HELP a b\n# TYPE a counter\na 3\n\nb{x=\"1\",y=\"q\\\"u, o=\\\\\",le=\"+Inf\"} 2.5\nbroken\nc{ NaNs\n";
        let found: Vec<_> = lines(page).collect();
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!((found[0].name, found[0].value, found[0].label("x")), ("a", 3.0, None));
        let b = found[1];
        assert_eq!((b.name, b.value), ("b", 2.5));
        assert_eq!(
            [b.label("x"), b.label("y"), b.label("le"), b.label("o")],
            [Some("1"), Some("q\\\"u, o=\\\\"), Some("+Inf"), None]
        );
        assert!(b.fits(&[("x", "1"), ("le", "+")]) && !b.fits(&[("x", "2")]) && !b.fits(&[("z", "")]));
    }
}
