//! Results as a table for people; the serde values themselves are for programs.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Estimate;

/// A titled table of estimates with notes on how they were made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// What was measured.
    pub title: String,
    /// The figures.
    pub rows: Vec<Row>,
    /// How they were made and what they mean.
    pub notes: Vec<String>,
}

/// One figure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// What it is.
    pub name: String,
    /// Value, interval and n.
    pub estimate: Estimate,
    /// Its unit; empty for none.
    pub unit: String,
}

impl Row {
    /// A row.
    #[must_use]
    pub fn of(name: impl Into<String>, estimate: Estimate, unit: impl Into<String>) -> Self {
        Self { name: name.into(), estimate, unit: unit.into() }
    }
}

impl Report {
    /// A table without notes.
    #[must_use]
    pub fn new(title: impl Into<String>, rows: Vec<Row>) -> Self {
        Self { title: title.into(), rows, notes: Vec::new() }
    }

    /// The same with one more note.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = ["", "value", "95 % interval", "n", ""].map(str::to_owned);
        let cells = self.rows.iter().map(|row| {
            let e = row.estimate;
            [row.name.clone(), figure(e.value), interval(e), e.n.to_string(), row.unit.clone()]
        });
        let lines: Vec<_> = std::iter::once(head).chain(cells).collect();
        writeln!(f, "{}", self.title)?;
        f.write_str(&table(&lines))?;
        self.notes.iter().try_for_each(|note| writeln!(f, "  {note}"))
    }
}

fn interval(e: Estimate) -> String {
    if e.low.is_finite() && e.high.is_finite() {
        format!("{} .. {}", figure(e.low), figure(e.high))
    } else {
        "unknown".to_owned()
    }
}

/// Four significant digits, never an exponent.
pub(crate) fn figure(value: f64) -> String {
    if !value.is_finite() {
        return "-".to_owned();
    }
    let digits = if value == 0.0 { 1 } else { value.abs().log10().floor() as i32 + 1 };
    format!("{value:.*}", (4 - digits).clamp(0, 8) as usize)
}

/// Lines of cells as aligned columns: the first column to the left, the others to the right.
pub(crate) fn table<const N: usize>(lines: &[[String; N]]) -> String {
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let mut text = String::new();
    for line in lines {
        let cells = line.iter().zip(widths).enumerate();
        let cells: Vec<_> =
            cells.map(|(i, (cell, w))| if i == 0 { format!("{cell:<w$}") } else { format!("{cell:>w$}") }).collect();
        text.push_str("  ");
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures() {
        for (value, want) in [
            (24.142_36, "24.14"),
            (0.001_234_56, "0.001235"),
            (4200.4, "4200"),
            (98_362_432.0, "98362432"),
            (0.0, "0.000"),
            (-3.0, "-3.000"),
            (f64::NAN, "-"),
        ] {
            assert_eq!(figure(value), want);
        }
    }

    #[test]
    fn tables_align() {
        let report = Report::new("T", vec![Row::of("acc", Estimate { value: 0.5, low: 0.25, high: 0.75, n: 8 }, "%")])
            .note("why");
        assert_eq!(
            report.to_string(),
            "T\n        value     95 % interval  n\n  acc  0.5000  0.2500 .. 0.7500  8  %\n  why\n"
        );
    }

    #[test]
    fn json_round_trip() {
        let report = Report::new("T", vec![Row::of("a", Estimate { value: 1.0, low: 0.5, high: 2.0, n: 3 }, "ms")]);
        let text = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
    }
}
