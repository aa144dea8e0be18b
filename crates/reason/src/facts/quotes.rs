//! Free text, copied and never written: the words of a text that fill the slots of [`super::schema::Kind::Text`].
//!
//! Where a slot's property has a `pattern`, code finds all that matches it ([`matching`]) and no model is needed. For other slots the
//! model is asked, one slot at a time, for the words or for "absent". Where the service takes grammars, its answer is held to one whose
//! sentences are the runs of words of the text (a suffix automaton, llguidance's `substring_chunks`) of the length the
//! schema allows. Where it takes none, the answer is free and counts only if it stands in the text as it is. Either way what comes
//! back is looked up in the text, and every place where it stands becomes a proposal, so a value is always its own quote; which
//! proposal is taken, if any, is decided as for all others ([`super::assign`]).

use std::ops::Range;

use protocol::{Chat, Error, Format, GenerateRequest, Message, Prompt, TextOrTokens, Usage};
use serde_json::Value;

use super::{
    clause,
    cues::Cues,
    judge::{Judge, Matter, examples, statement},
    propose::{Proposal, What},
    schema::{Facts, Language, Slot},
};

/// Bytes of a text that are shown: the model's context is small, and a grammar over all of a long text is slow.
const SHOWN: usize = 2000;
/// Clauses shown in front of a slot's first cue, where not all can be shown.
const BEFORE: usize = 2;
/// Tokens for each character that an answer may have: no tokenizer at hand needs more for a letter of any language.
const TOKENS: usize = 4;

const TASK: &str = "Copy the words that are asked for exactly as they stand in the last text, and write nothing else. If the text does \
                    not name them, write";

/// All that the patterns of slots match.
pub(crate) fn matching(text: &str, facts: &Facts) -> Vec<Proposal> {
    let of = |slot: &Slot| {
        let found = slot.form.pattern.iter().flat_map(|pattern| pattern.find_iter(text));
        let proposals = found.filter(|found| !found.is_empty()).map(|found| proposal(slot, found.range(), text));
        proposals.collect::<Vec<_>>()
    };
    facts.slots.iter().flat_map(of).collect()
}

/// Digits inside a longer match are part of a name and no amount.
pub(crate) fn without_parts(mut proposals: Vec<Proposal>, matches: &[Proposal]) -> Vec<Proposal> {
    let inside = |part: &Range<usize>, whole: &Range<usize>| {
        whole.start <= part.start && part.end <= whole.end && part.len() < whole.len()
    };
    proposals.retain(|part| !matches.iter().any(|whole| inside(&part.span, &whole.span)));
    proposals
}

fn proposal(slot: &Slot, span: Range<usize>, text: &str) -> Proposal {
    let what = What::Text { slot: slot.name.clone(), value: text[span.clone()].to_owned() };
    Proposal { span, what }
}

impl Judge {
    /// What the model quotes for the slots of free text.
    pub(crate) async fn quotes(
        &self,
        matter: Matter<'_>,
        cues: &Cues,
        usage: &mut Usage,
    ) -> Result<Vec<Proposal>, Error> {
        let mut found = Vec::new();
        for &place in matter.free {
            let slot = &matter.facts.slots[place];
            let shown = &matter.text[shown(matter.text, cues.first(place))];
            let answer = self.answer(self.asked(matter, slot, shown), usage).await?;
            if let Some(words) = words(&answer, absent(matter.language)) {
                found.extend(places(matter.text, words).map(|span| proposal(slot, span, matter.text)));
            }
        }
        Ok(found)
    }

    fn asked(&self, matter: Matter<'_>, slot: &Slot, shown: &str) -> GenerateRequest {
        let text = prompt(matter, slot, shown);
        let tokens = slot.form.longest.min(shown.len()) * TOKENS + TOKENS;
        if !self.card.capabilities.grammar {
            let content = format!("{TASK} {}.\n\n{text}", absent(matter.language));
            let message = Message { role: "user".to_owned(), content: Some(content), ..Message::default() };
            return self.request(Prompt::Chat(Chat { messages: vec![message], ..Chat::default() }), tokens);
        }
        let mut request = self.request(Prompt::Raw(TextOrTokens::Text(text)), tokens);
        request.format = Format::Lark(grammar(slot, shown, matter.language));
        request
    }
}

fn absent(language: Language) -> &'static str {
    if language == Language::Chinese { "无" } else { "absent" }
}

/// As much of the text as is shown: all of it, or from a little before the slot's first cue on.
fn shown(text: &str, cue: Option<usize>) -> Range<usize> {
    if text.len() <= SHOWN {
        return 0..text.len();
    }
    let clauses = clause::split(text);
    let home = cue.map_or(0, |cue| clause::of(&clauses, cue));
    let start = clauses[home.saturating_sub(BEFORE)].start.min(text.ceil_char_boundary(text.len() - SHOWN));
    start..text.floor_char_boundary(start + SHOWN)
}

/// Examples with the slot's words or "absent", then the text, then the slot's title for the model to go on from.
fn prompt(matter: Matter<'_>, slot: &Slot, shown: &str) -> String {
    let chinese = matter.language == Language::Chinese;
    let (title, colon) = (slot.title.in_language(matter.language), if chinese { "：" } else { ":" });
    let space = if chinese { "" } else { " " };
    let mut prompt = String::new();
    for example in examples(matter.facts, matter.language) {
        statement(&mut prompt, chinese, &example.text);
        let quote = example.quotes.get(&slot.name).map_or(absent(matter.language), String::as_str);
        prompt.push_str(&format!("{title}{colon}{space}{quote}\n\n"));
    }
    statement(&mut prompt, chinese, shown);
    format!("{prompt}{title}{colon}")
}

/// A line with words of `shown`, or "absent".
fn grammar(slot: &Slot, shown: &str, language: Language) -> String {
    let space = if language == Language::Chinese { "" } else { "\" \" " };
    let (absent, chunks) = (absent(language), Value::from(chunks(shown)));
    let (shortest, longest) = (slot.form.shortest, slot.form.longest);
    format!(
        "start: {space}(WORDS | \"{absent}\") \"\\n\"\n\
         RUN: %regex {{ \"substring_chunks\": {chunks} }}\n\
         WORDS: RUN & /\\S(.*\\S)?/ & /.{{{shortest},{longest}}}/\n"
    )
}

/// A text in pieces that are not cut: words, and every other character by itself. Chinese is written without spaces, so there each
/// character is a piece.
fn chunks(text: &str) -> Vec<&str> {
    let is_of_a_word = |c: char| c.is_alphanumeric() && !is_han(c);
    let mut rest = text;
    let mut chunks = Vec::new();
    while let Some(first) = rest.chars().next() {
        let end = match is_of_a_word(first) {
            true => rest.find(|c| !is_of_a_word(c)).unwrap_or(rest.len()),
            false => first.len_utf8(),
        };
        let (chunk, behind) = rest.split_at(end);
        chunks.push(chunk);
        rest = behind;
    }
    chunks
}

fn is_han(c: char) -> bool {
    ('\u{2e80}'..='\u{9fff}').contains(&c) || ('\u{f900}'..='\u{faff}').contains(&c)
}

/// The words of an answer, without the marks around them; none if they are "absent".
fn words<'a>(answer: &'a str, absent: &str) -> Option<&'a str> {
    let around = |c: char| c.is_whitespace() || "\"'“”‘’`.,;:!?。，；：！？、".contains(c);
    let words = answer.trim_matches(around);
    (!words.is_empty() && !words.eq_ignore_ascii_case(absent)).then_some(words)
}

/// Where words stand in a text and are not parts of longer ones.
fn places<'a>(text: &'a str, words: &'a str) -> impl Iterator<Item = Range<usize>> + 'a {
    let of_a_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() && !is_han(c));
    let begins = of_a_word(words.chars().next());
    let ends = of_a_word(words.chars().next_back());
    text.match_indices(words).map(|(at, found)| at..at + found.len()).filter(move |span| {
        let cut_before = begins && of_a_word(text[..span.start].chars().next_back());
        let cut_behind = ends && of_a_word(text[span.end..].chars().next());
        !cut_before && !cut_behind
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_into_words_and_marks() {
        let check = |text: &str, wanted: &[&str]| assert_eq!(chunks(text), wanted);
        check("A blue-ish café, 3x", &["A", " ", "blue", "-", "ish", " ", "café", ",", " ", "3x"]);
        check("买了USB耳机", &["买", "了", "USB", "耳", "机"]);
        check("", &[]);
    }

    #[test]
    fn only_a_part_of_a_long_text_is_shown_and_it_holds_the_cue() {
        let long = "Ein Satz über nichts. ".repeat(300) + "I bought a kettle." + &" é.".repeat(2000);
        let at = long.find("bought").unwrap();
        let part = shown(&long, Some(at));
        assert!(part.len() <= SHOWN && long[part].contains("bought a kettle"));
        assert!(long[shown(&long, None)].starts_with("Ein"));
        assert!(long[shown(&long, Some(long.len() - 1))].ends_with('.'));
        assert_eq!(shown("short", Some(3)), 0..5);
    }

    #[test]
    fn words_are_looked_up_whole() {
        let check = |text: &str, words: &str, wanted: &[usize]| {
            assert_eq!(places(text, words).map(|span| span.start).collect::<Vec<_>>(), wanted, "{words}");
        };
        check("cat scatter cat's", "cat", &[0, 12]);
        check("买耳机，耳机坏了", "耳机", &[3, 12]);
        check("a-b", "-b", &[1]);
        check("a", "b", &[]);
    }
}
