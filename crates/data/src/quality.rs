//! Whether something reads like text: rules of Gopher (Rae et al. 2021, appendix A.1) and C4 (Raffel et al. 2020, section 2.2), by name.
//!
//! They were made for pages of the web. Here they judge only what is learned, and only from [`LEAST_WORDS`] words on, Gopher's own lower bound:
//! "yes" is a fine answer, and says nothing about quality. C4's rules about braces and about lines without a full stop are left
//! out, since answers are JSON and lists; so is its list of bad words: the guard's classifier knows more. Rules about words ask for a script
//! with spaces between them.

use std::collections::HashMap;

/// Words from which on a text is judged.
const LEAST_WORDS: usize = 50;
/// Shares of characters that repetitions of 2, 3 and 4 words may cover, for the one that covers most (Gopher, table A1).
const REPEATED_RUNS: [(usize, f64, &str); 3] =
    [(2, 0.20, "gopher.repeated_2_grams"), (3, 0.18, "gopher.repeated_3_grams"), (4, 0.16, "gopher.repeated_4_grams")];
/// English has at least two of these in any text of fifty words.
const STOP_WORDS: [&str; 8] = ["the", "be", "to", "of", "and", "that", "have", "with"];

/// What is measured of a text.
struct Page<'a> {
    text: &'a str,
    words: Vec<&'a str>,
    lines: Vec<&'a str>,
    english: bool,
}

type Rule = (&'static str, fn(&Page<'_>) -> bool);

/// Each says yes to what is no text.
const RULES: [Rule; 8] = [
    ("gopher.mean_word_length", |page| {
        let letters: usize = page.words.iter().map(|word| word.chars().count()).sum();
        !(3.0..=10.0).contains(&share(letters, page.words.len()))
    }),
    ("gopher.symbols", |page| {
        share(page.text.matches(['#', '…']).count() + page.text.matches("...").count(), page.words.len()) > 0.1
    }),
    ("gopher.alphabetic_words", |page| {
        share(page.words.iter().filter(|word| word.contains(char::is_alphabetic)).count(), page.words.len()) < 0.8
    }),
    ("gopher.bullets", |page| share(lines(page, |line| line.starts_with(['•', '-', '*'])), page.lines.len()) > 0.9),
    ("gopher.ellipses", |page| {
        share(lines(page, |line| line.ends_with('…') || line.ends_with("...")), page.lines.len()) > 0.3
    }),
    ("gopher.stop_words", |page| {
        let has = |stop: &&&str| page.words.iter().any(|word| word.eq_ignore_ascii_case(stop));
        page.english && STOP_WORDS.iter().filter(has).count() < 2
    }),
    ("gopher.repeated_lines", |page| {
        let mut seen: HashMap<&str, usize> = HashMap::new();
        page.lines.iter().for_each(|line| *seen.entry(line).or_default() += 1);
        share(page.lines.len() - seen.len(), page.lines.len()) > 0.3
    }),
    ("c4.lorem_ipsum", |page| page.text.to_lowercase().contains("lorem ipsum")),
];

/// The first rule that a text breaks; `english` says that it is in English.
pub(crate) fn broken(text: &str, english: bool) -> Option<&'static str> {
    let words: Vec<&str> = text.split_whitespace().collect();
    if words.len() < LEAST_WORDS {
        return None;
    }
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let page = Page { text, words, lines, english };
    let rule = RULES.iter().find(|(_, breaks)| breaks(&page)).map(|(name, _)| *name);
    rule.or_else(|| {
        REPEATED_RUNS.iter().find(|(n, most, _)| repeated(&page.words, *n) > *most).map(|(_, _, name)| *name)
    })
}

fn lines(page: &Page<'_>, is: impl Fn(&str) -> bool) -> usize {
    page.lines.iter().filter(|line| is(line)).count()
}

fn share(part: usize, whole: usize) -> f64 {
    part as f64 / whole.max(1) as f64
}

/// The share of characters that stand in the run of `n` words that covers most of them, where it comes more than once.
fn repeated(words: &[&str], n: usize) -> f64 {
    let mut seen: HashMap<&[&str], usize> = HashMap::new();
    words.windows(n).for_each(|run| *seen.entry(run).or_default() += 1);
    let length = |run: &[&str]| run.iter().map(|word| word.chars().count()).sum::<usize>();
    let covered = seen.into_iter().filter(|(_, times)| *times > 1).map(|(run, times)| length(run) * times);
    share(covered.max().unwrap_or(0), length(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_by_name() {
        let check = |text: &str, rule: Option<&str>| assert_eq!(broken(text, true), rule, "{text}");
        let prose = "The house at the end of the lane had stood empty since the spring, and nobody in the village could say to \
                     whom it belonged. Children told that lights were seen behind its shutters, but they have told such things \
                     about every empty house, and with the same certainty. In autumn a stranger came and bought it.";
        check(prose, None);
        check("yes", None);
        check(&"spam ".repeat(60), Some("gopher.stop_words"));
        check(&prose.replace(' ', " # "), Some("gopher.mean_word_length"));
        check(&(prose.to_owned() + &" ####".repeat(5)), Some("gopher.symbols"));
        check(&(prose.to_owned() + &" 1234".repeat(30)), Some("gopher.alphabetic_words"));
        check(&prose.split(' ').map(|word| format!("- {word}\n")).collect::<String>(), Some("gopher.mean_word_length"));
        check(&prose.split(", ").map(|part| format!("- {part}\n")).collect::<String>(), Some("gopher.bullets"));
        check(&prose.split(", ").map(|part| format!("{part} …\n")).collect::<String>(), Some("gopher.ellipses"));
        check(&format!("{}\n{prose}", "so …\n".repeat(2)), Some("gopher.ellipses"));
        check(&format!("{prose}\n{prose}\n{prose}"), Some("gopher.repeated_lines"));
        check(&format!("{prose} Lorem ipsum dolor."), Some("c4.lorem_ipsum"));
        check(&format!("{prose} {}", "once upon a time ".repeat(6)), Some("gopher.repeated_3_grams"));
        assert_eq!(broken(&"und aber doch nicht heute ".repeat(3), false), None, "too short to be judged");
    }
}
