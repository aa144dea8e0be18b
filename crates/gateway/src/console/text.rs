//! Every sentence of the console, in every language it speaks, in one table.
//!
//! A key that a page uses and the table lacks, or the other way round, fails a test: pages and table are compared as text.

mod settings;
mod table;

use std::{collections::HashMap, sync::LazyLock};

pub(super) use settings::about;
use table::TEXTS;

/// A language of the console.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lang {
    En,
    Zh,
}

impl Lang {
    pub(super) fn code(self) -> &'static str {
        match self {
            Self::En => "en",
            Self::Zh => "zh",
        }
    }

    pub(super) fn of_code(code: &str) -> Option<Self> {
        match code {
            "en" => Some(Self::En),
            "zh" => Some(Self::Zh),
            _ => None,
        }
    }

    /// For the `lang` attribute: which glyphs a font should take.
    pub(super) fn tag(self) -> &'static str {
        match self {
            Self::En => "en",
            Self::Zh => "zh-CN",
        }
    }

    /// What a browser likes best of what there is (RFC 9110, 12.5.4).
    pub(super) fn accepted(header: &str) -> Self {
        let wishes = header.split(',').filter_map(|wish| {
            let (tag, weight) = wish.split_once(";q=").unwrap_or((wish, "1"));
            let lang = Self::of_code(tag.trim().split('-').next()?)?;
            Some((lang, weight.trim().parse::<f32>().ok()?))
        });
        // The first of equals wins, and `max_by` takes the last.
        let best = wishes.collect::<Vec<_>>().into_iter().rev().max_by(|a, b| a.1.total_cmp(&b.1));
        best.map_or(Self::En, |(lang, _)| lang)
    }
}

/// The text called `key`. One that is missing shows its key; a test sees to it that none is.
pub(super) fn text(lang: Lang, key: &str) -> &'static str {
    static BY_KEY: LazyLock<HashMap<&str, usize>> =
        LazyLock::new(|| TEXTS.iter().enumerate().map(|(i, (key, ..))| (*key, i)).collect());
    let found = BY_KEY.get(key).map(|&i| &TEXTS[i]);
    found.map_or("?", |(_, en, zh)| match lang {
        Lang::En => en,
        Lang::Zh => zh,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_text_is_there_once_in_both_languages() {
        let mut seen = BTreeSet::new();
        for (key, en, zh) in TEXTS {
            assert!(seen.insert(key), "{key} stands twice");
            assert!(!en.is_empty() && !zh.is_empty(), "{key} lacks a language");
            let holes = |text: &str| text.matches("{}").count();
            assert_eq!(holes(en), holes(zh), "{key}: other gaps to fill");
        }
    }

    /// Keys as pages write them: a string literal that begins with one of the table's families and a dot.
    #[test]
    fn pages_and_table_name_the_same_texts() {
        let families: BTreeSet<_> = TEXTS.iter().filter_map(|(key, ..)| key.split('.').next()).collect();
        let here = concat!(env!("CARGO_MANIFEST_DIR"), "/src/console");
        let pages = std::fs::read_dir(here).unwrap().map(|entry| entry.unwrap().path());
        let pages = pages.filter(|path| path.extension().is_some_and(|ext| ext == "rs") && !path.ends_with("text.rs"));
        let mut used = BTreeSet::new();
        for page in pages {
            let source = std::fs::read_to_string(&page).unwrap();
            let plain = |word: &&str| word.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
            let literals = source.split('"').filter(plain).filter(|word| !word.ends_with(".mjs"));
            let family = |word: &str| word.split_once('.').is_some_and(|(family, _)| families.contains(family));
            let keys = literals.filter(|word| family(word));
            used.extend(keys.map(str::to_owned));
        }
        let there: BTreeSet<_> = TEXTS.iter().map(|(key, ..)| (*key).to_owned()).collect();
        assert_eq!(used.difference(&there).collect::<Vec<_>>(), Vec::<&String>::new(), "not in the table");
        assert_eq!(there.difference(&used).collect::<Vec<_>>(), Vec::<&String>::new(), "not used by any page");
    }
}
