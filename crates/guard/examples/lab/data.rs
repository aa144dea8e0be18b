//! The texts: labelled tweets, neutral passages, injections, and the lines written here.
//!
//! Training and test parts are chosen by a hash of the text without its names and links, so that a tweet and its copies stand
//! on one side.

use std::{error::Error, fs, path::Path};

/// Which side of the split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Train,
    /// One text in five.
    Test,
}

/// A labelled tweet of Davidson et al. 2017.
#[derive(Debug, Clone)]
pub(crate) struct Tweet {
    pub(crate) text: String,
    /// 0 hate, 1 offensive, 2 neither.
    pub(crate) class: u8,
    pub(crate) part: Part,
}

/// The labelled tweets, names made anonymous.
pub(crate) fn tweets() -> Result<Vec<Tweet>, Box<dyn Error>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/davidson/labeled_data.csv");
    let rows = csv(&fs::read_to_string(path)?);
    rows.into_iter()
        .skip(1)
        .filter(|row| row.len() == 7)
        .map(|row| {
            let text = clean(&row[6]);
            Ok(Tweet { class: row[5].parse()?, part: part(&text), text })
        })
        .collect()
}

/// Passages of Wikipedia cut to sentences, and questions about them: what most texts are like.
pub(crate) fn neutral(datasets: &Path, wanted: Part) -> Result<Vec<String>, Box<dyn Error>> {
    let path = datasets.join("BoolQ/dev.jsonl");
    let file =
        fs::read_to_string(&path).map_err(|e| format!("{}: {e}; run `cargo xtask test` once", path.display()))?;
    let mut texts = Vec::new();
    for line in file.lines() {
        let row: serde_json::Value = serde_json::from_str(line)?;
        let passage = row["passage"].as_str().unwrap_or_default();
        // One side for a passage, whatever its sentences: they share words.
        if part(passage) == wanted {
            texts.push(row["question"].as_str().unwrap_or_default().to_owned());
            texts.extend(passage.split(". ").map(str::to_owned).filter(|s| s.len() > 20));
        }
    }
    Ok(texts)
}

/// Lines of a JSON file: a text and a label.
pub(crate) fn json_lines(path: &Path) -> Result<Vec<serde_json::Value>, Box<dyn Error>> {
    let file = fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    file.lines().filter(|line| !line.trim().is_empty()).map(|line| Ok(serde_json::from_str(line)?)).collect()
}

/// A line written for this project.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    /// `injection` or `toxic`.
    pub(crate) topic: String,
    /// It is what its topic says; else it only looks so.
    pub(crate) positive: bool,
    pub(crate) language: String,
    pub(crate) text: String,
}

/// The lines of `tests/data/lines.tsv`.
pub(crate) fn lines() -> Result<Vec<Line>, Box<dyn Error>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/lines.tsv");
    let rows = fs::read_to_string(path)?;
    let lines = rows.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
        let [topic, label, language, text] = line.split('\t').collect::<Vec<_>>().try_into().ok()?;
        Some(Line { topic: topic.into(), positive: label == "yes", language: language.into(), text: text.into() })
    });
    Ok(lines.collect())
}

/// Without names, links and HTML's entities.
fn clean(tweet: &str) -> String {
    let plain = tweet.replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"");
    let words = plain.split_whitespace().filter_map(|word| match word {
        word if word.contains("http") => None,
        word if word.contains('@') => Some("@user".to_owned()),
        "RT" => None,
        word => Some(entities(word)),
    });
    words.collect::<Vec<_>>().join(" ")
}

/// Drops numbered entities (`&#8220;`): quotes and emoji.
fn entities(word: &str) -> String {
    let mut rest = word;
    let mut kept = String::new();
    while let Some(at) = rest.find("&#") {
        kept.push_str(&rest[..at]);
        rest = rest[at..].split_once(';').map_or("", |(_, behind)| behind);
    }
    kept + rest
}

/// FNV-1a over the letters, so that copies with other punctuation are the same.
fn part(text: &str) -> Part {
    let letters = text.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase);
    let hash = letters.fold(0xcbf2_9ce4_8422_2325u64, |hash, c| (hash ^ u64::from(c)).wrapping_mul(0x0100_0000_01b3));
    if (hash >> 32).is_multiple_of(5) { Part::Test } else { Part::Train }
}

/// Rows of a CSV file; fields in quotes may hold commas, doubled quotes and line breaks.
pub(crate) fn csv(text: &str) -> Vec<Vec<String>> {
    let (mut rows, mut row, mut field, mut quoted) = (Vec::new(), Vec::new(), String::new(), false);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => row.push(std::mem::take(&mut field)),
            '\n' if !quoted => {
                row.push(std::mem::take(&mut field));
                rows.push(std::mem::take(&mut row));
            }
            '\r' if !quoted => {}
            c => field.push(c),
        }
    }
    rows
}
