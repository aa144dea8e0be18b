//! The only place that writes to the terminal: results to stdout, everything else to stderr.

use std::{
    fmt::Display,
    io::{self, IsTerminal, Write},
    sync::{
        LazyLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde::Serialize;

/// All bars: two that are drawn at the same time, each for itself, would leave one behind.
static BARS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// Another process of the same run says it all.
static HUSHED: AtomicBool = AtomicBool::new(false);

/// Shows neither notes nor bars from now on.
pub(crate) fn hush() {
    HUSHED.store(true, Ordering::Relaxed);
}

/// A line of the result.
pub(crate) fn line(text: impl Display) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{text}")
}

/// A piece of the result that shows at once.
pub(crate) fn piece(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// The result for a script, indented for the person who wrote it.
pub(crate) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    Ok(line(serde_json::to_string_pretty(value)?)?)
}

/// The result in the form the user asked for.
pub(crate) fn show(as_json: bool, value: &impl Serialize, text: impl Display) -> anyhow::Result<()> {
    if as_json { json(value) } else { Ok(line(text)?) }
}

/// A line beside the result. A terminal that is gone is no reason to stop.
pub(crate) fn note(text: impl Display) {
    if !HUSHED.load(Ordering::Relaxed) {
        let _ = writeln!(io::stderr().lock(), "{text}");
    }
}

/// Somebody watches stderr.
pub(crate) fn watched() -> bool {
    io::stderr().is_terminal()
}

/// A bar that counts bytes; nothing is drawn where nobody watches.
pub(crate) fn byte_bar() -> ProgressBar {
    bar("{msg:<28} {bar:28} {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec}, {eta} left")
}

/// A bar that counts pieces of work.
pub(crate) fn count_bar() -> ProgressBar {
    bar("{msg:<28} {bar:28} {pos}/{len}, {eta} left")
}

/// A bar that counts steps and says what they give.
pub(crate) fn step_bar() -> ProgressBar {
    bar("{bar:28} step {pos}/{len}, {msg}, {eta} left")
}

/// Bytes of memory that this process holds, where the system says.
pub(crate) fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

fn bar(template: &str) -> ProgressBar {
    if HUSHED.load(Ordering::Relaxed) {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = BARS.add(ProgressBar::new(0).with_style(style.progress_chars("=> ")));
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// A table with aligned columns; the first row is the head.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let cell = |row: &Vec<String>, i: usize| row.get(i).map_or(0, |cell| cell.chars().count());
    let widths: Vec<usize> = (0..columns).map(|i| rows.iter().map(|row| cell(row, i)).max().unwrap_or(0)).collect();
    let shown = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(text, &width)| format!("{text:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(shown).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_aligned() {
        let rows = [["a", "bb", "c"], ["aaa", "b", "cc"]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(table(&rows), "a    bb  c\naaa  b   cc");
    }
}
