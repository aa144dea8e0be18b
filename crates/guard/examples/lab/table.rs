//! Counts become rows of a Markdown table, with Wilson's intervals.

/// Right and wrong verdicts.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    pub(crate) hit: usize,
    pub(crate) missed: usize,
    pub(crate) false_alarm: usize,
    pub(crate) quiet: usize,
}

impl Counts {
    pub(crate) fn add(&mut self, positive: bool, found: bool) {
        *match (positive, found) {
            (true, true) => &mut self.hit,
            (true, false) => &mut self.missed,
            (false, true) => &mut self.false_alarm,
            (false, false) => &mut self.quiet,
        } += 1;
    }

    pub(crate) fn of(verdicts: impl IntoIterator<Item = (bool, bool)>) -> Self {
        let mut counts = Self::default();
        verdicts.into_iter().for_each(|(positive, found)| counts.add(positive, found));
        counts
    }
}

/// The head of the table that [`row`] fills.
pub(crate) const HEAD: &str =
    "| what | n (positive) | precision | recall | F1 | false alarms |\n|---|---|---|---|---|---|";

/// One row.
pub(crate) fn row(name: &str, counts: Counts) -> String {
    let Counts { hit, missed, false_alarm, quiet } = counts;
    let (positive, negative) = (hit + missed, false_alarm + quiet);
    let f1 = 2.0 * hit as f64 / (2 * hit + false_alarm + missed).max(1) as f64;
    let f1 = if positive == 0 { "-".to_owned() } else { format!("{f1:.3}") };
    format!(
        "| {name} | {} ({positive}) | {} | {} | {f1} | {} |",
        positive + negative,
        share(hit, hit + false_alarm),
        share(hit, positive),
        share(false_alarm, negative)
    )
}

/// A share with Wilson's 95 % interval.
pub(crate) fn share(hits: usize, n: usize) -> String {
    if n == 0 {
        return "-".to_owned();
    }
    let (z2, total) = (1.959_963_984_540_054f64.powi(2), n as f64);
    let p = hits as f64 / total;
    let centre = (p + z2 / (2.0 * total)) / (1.0 + z2 / total);
    let half = z2.sqrt() / (1.0 + z2 / total) * (p * (1.0 - p) / total + z2 / (4.0 * total * total)).sqrt();
    format!("{p:.3} [{:.3}, {:.3}]", (centre - half).max(0.0), (centre + half).min(1.0))
}
