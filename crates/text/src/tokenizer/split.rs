//! Pre-tokenizers: text is cut into words before any merge, and merges never cross a cut.
//!
//! A pre-tokenizer is data: regular expressions applied one after the other, each to the pieces the ones before it left;
//! what an expression does not match is a piece too. The table holds them as the models' own `tokenizer.json` files do.
//! All of them use look-ahead for one thing only, `\s+(?!\S)`: of a run of blanks before a word, the last one belongs to
//! the word. The engine used here has no look-ahead, so [`Stage`] leaves that part out and takes the last blank back
//! after the match. In exchange the time is linear in the text.

use regex::Regex;

use crate::Error;

/// The expressions of GPT-2.
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
/// Those of Llama 3: digits by three.
const LLAMA3: &str = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Those of Qwen 2: digits one by one.
const QWEN2: &str = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const GPT4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const DEEPSEEK3: &str = r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##;
const SEED_CODER: &str = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+";
const BLOOM: &str = r" ?[^(\s|.,!?…。，、।۔،)]+";

/// Names as `tokenizer.ggml.pre` gives them, the expressions, and whether a word that is a token is taken whole without
/// looking at the merges.
const TABLE: &[(&[&str], &[&str], bool)] = &[
    (&["", "default"], &[r"[\p{P}$+<=>^~|]+", GPT2, r"\p{N}+", r"[0-9][0-9][0-9]"], false),
    (
        &["gpt-2", "phi-2", "mpt", "olmo", "jais", "trillion", "granite-docling", "gigachat", "exaone4", "mellum"],
        &[GPT2],
        false,
    ),
    (&["jina-es", "jina-de", "jina-v1-en", "jina-v2-es", "jina-v2-de", "jina-v2-code", "roberta-bpe"], &[GPT2], false),
    (&["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"], &[r"\p{N}", GPT2], false),
    (&["llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"], &[LLAMA3], true),
    (&["dbrx", "smaug-bpe", "glm4", "chatglm-bpe"], &[LLAMA3], false),
    (&["qwen2", "stablelm2", "deepseek-r1-qwen", "megrez", "hunyuan", "grok-2"], &[QWEN2], false),
    (&["tekken"], &[TEKKEN], true),
    (&["gpt-4o", "llama4", "minimax-m2"], &[GPT4O], false),
    (&["deepseek-v3", "hunyuan-dense"], &[r"\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+", DEEPSEEK3], false),
    (&["deepseek-coder"], &[r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+", r"\p{N}"], false),
    (&["falcon"], &[r"[\p{P}$+<=>^~|`]+", GPT2, r"[0-9][0-9][0-9]"], false),
    (&["seed-coder"], &[SEED_CODER], false),
    (&["bloom", "poro-chat", "gpt3-finnish"], &[BLOOM], false),
    (&["viking"], &[BLOOM, r"\p{N}"], false),
];

/// How one model cuts text into words.
#[derive(Debug)]
pub(crate) struct Splitter {
    stages: Vec<Stage>,
    /// A word that is a token is that token, whatever the merges would make of it.
    pub(crate) whole_words: bool,
}

impl Splitter {
    /// By the name in a GGUF file.
    pub(crate) fn named(name: &str) -> Result<Self, Error> {
        let (expressions, whole_words) = expressions(name)?;
        let stages = expressions.iter().map(|expression| Stage::new(expression)).collect::<Result<_, _>>()?;
        Ok(Self { stages, whole_words })
    }

    /// Calls `word` with the words of the text, in order.
    pub(crate) fn split<'t>(&self, text: &'t str, word: &mut dyn FnMut(&'t str)) {
        split_by(&self.stages, text, word);
    }
}

/// The expressions behind a name in a GGUF file, and whether words that are tokens are taken whole.
pub(crate) fn expressions(name: &str) -> Result<(&'static [&'static str], bool), Error> {
    let row = TABLE.iter().find(|(names, ..)| names.contains(&name));
    row.map(|(_, expressions, whole_words)| (*expressions, *whole_words)).ok_or_else(|| unknown(name))
}

fn split_by<'t>(stages: &[Stage], text: &'t str, word: &mut dyn FnMut(&'t str)) {
    let Some((stage, rest)) = stages.split_first() else { return word(text) };
    if rest.is_empty() {
        return stage.split(text, word);
    }
    stage.split(text, &mut |piece| split_by(rest, piece, word));
}

fn unknown(name: &str) -> Error {
    let known: Vec<&str> =
        TABLE.iter().flat_map(|(names, ..)| *names).copied().filter(|name| !name.is_empty()).collect();
    Error::Tokenizer(format!(
        "the pre-tokenizer `{name}` is not known; use a model with one of: {}, or its tokenizer.json",
        known.join(", ")
    ))
}

/// One expression.
#[derive(Debug)]
struct Stage {
    expression: Regex,
    /// Characters that end a match of `\s+` and of no other branch; `None` without the look-ahead.
    blanks: Option<fn(char) -> bool>,
}

const LOOK_AHEAD: &str = r"|\s+(?!\S)";

impl Stage {
    fn new(source: &str) -> Result<Self, Error> {
        let expression =
            Regex::new(&source.replace(LOOK_AHEAD, "")).map_err(|error| Error::Tokenizer(error.to_string()))?;
        let lines: fn(char) -> bool = |c| c.is_whitespace() && c != '\r' && c != '\n';
        // A branch of its own for line ends takes them before `\s+` can; otherwise `\s+` ends in any blank.
        let blanks = match (source.contains(LOOK_AHEAD), source.contains(r"\s*[\r\n]")) {
            (false, _) => None,
            (true, true) => Some(lines),
            (true, false) => Some(char::is_whitespace as fn(char) -> bool),
        };
        Ok(Self { expression, blanks })
    }

    /// Calls `piece` with every match and with what lies between matches.
    fn split<'t>(&self, text: &'t str, piece: &mut dyn FnMut(&'t str)) {
        let mut start = 0;
        let mut at = 0;
        while let Some(found) = self.expression.find_at(text, at) {
            let end = found.end() - self.taken_back(text, found.as_str(), found.end());
            if start < found.start() {
                piece(&text[start..found.start()]);
            }
            if found.start() < end {
                piece(&text[found.start()..end]);
            }
            start = end;
            // No expression of the table matches nothing; if one did, go on behind the next character.
            at = if end > at { end } else { end + text[end..].chars().next().map_or(1, char::len_utf8) };
            if at > text.len() {
                break;
            }
        }
        if start < text.len() {
            piece(&text[start..]);
        }
    }

    /// Bytes of the last blank of a run, if a word follows it.
    fn taken_back(&self, text: &str, found: &str, end: usize) -> usize {
        let (Some(blank), true) = (self.blanks, end < text.len()) else { return 0 };
        match found.chars().next_back() {
            Some(last) if blank(last) && last.len_utf8() < found.len() => last.len_utf8(),
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pre: &str, text: &str, expected: &[&str]) {
        let mut words = Vec::new();
        Splitter::named(pre).unwrap().split(text, &mut |word| words.push(word));
        assert_eq!(words, expected, "{pre}: {text:?}");
    }

    #[test]
    fn cuts_as_the_reference() {
        check("gpt-2", "Hello  world\n\n  x", &["Hello", " ", " world", "\n\n ", " x"]);
        check("gpt-2", "it's 2024!  ", &["it", "'s", " 2024", "!", "  "]);
        check("gpt-2", "a\t\tb", &["a", "\t", "\t", "b"]);
        check("smollm", "a  12 b", &["a", "  ", "1", "2", " b"]);
        check("qwen2", "x  \n\n  y 12", &["x", "  \n\n", " ", " y", " ", "1", "2"]);
        check("llama-bpe", "12345 I'LL", &["123", "45", " I", "'LL"]);
        check("llama-bpe", "a.\n\n b", &["a", ".\n\n", " b"]);
        check("default", "a<=b 1234", &["a", "<=", "b", " ", "123", "4"]);
        check("gpt-4o", "HelloWorld's", &["Hello", "World's"]);
        check("bloom", "(a) b", &["(", "a", ")", " b"]);
        check("qwen2", "", &[]);
    }

    #[test]
    fn every_row_compiles_and_loses_nothing() {
        let text = "Zürich 二〇二四年 12345\r\n\t\t it's  'LL\u{3000}\u{a0}x\0 🏳️‍🌈 नमस्ते ...\n\n\n  fin  ";
        for (names, ..) in TABLE {
            let splitter = Splitter::named(names[0]).unwrap();
            let mut whole = String::new();
            splitter.split(text, &mut |word| {
                assert!(!word.is_empty(), "{names:?}");
                whole.push_str(word);
            });
            assert_eq!(whole, text, "{names:?}");
        }
    }

    #[test]
    fn an_unknown_name_is_an_error_that_names_it() {
        let error = Splitter::named("klingon").unwrap_err().to_string();
        assert!(error.contains("klingon") && error.contains("qwen2"), "{error}");
    }
}
