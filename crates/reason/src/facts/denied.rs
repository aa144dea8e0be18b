//! That there is none of something: "zero debts", "I owe nobody a penny", "负债为零".
//!
//! A schema lists under `none` the words that, denied, make a slot 0. A denial stands directly in front of such a word, with nothing
//! between them but words that carry no sense of their own ("do not have any loans"), or directly behind it ("debts: none"), or answers a question ("Any debts? No."). Words
//! farther off deny something else: "no late payments on my debts" says nothing about debts.

use regex::Regex;

use super::{
    propose::{Proposal, What},
    schema::Facts,
};

const NO: &str = "no|not|never|zero|nil|nothing|nobody|no one|without(?: an?y?)?|(?:do|does|did|have|has|is|am|are|was)(?:n['’]?t| not)|free (?:of|from)|clear of";
const BETWEEN: &str = "any|other|outstanding|existing|current|an?|single|in|of|on|got|have|has|had|been|is|are|longer|more|really|actually|currently|further";
const NONE: &str = "nobody|no[ -]one|nothing|none|nil|zero|not (?:a|one)|no (?:money|cent|penny)|n/?a\\b";
const BETWEEN_ZH: &str = "任何|其他|其它|别的|什么|外部|半点|一点|多余的?|的";
/// Between a question and its answer.
const SPEAKER: &str = r"\s*(?:\w{1,12}\s?[:：]\s*|[-–—]\s*)?";

/// Finds what denies one of `words`; a `*` behind a word takes its endings too.
pub(super) fn finder(words: &[String]) -> Option<Regex> {
    let joined = |ascii: bool| {
        let words = words.iter().filter(|word| word.is_ascii() == ascii);
        let one = |word: &String| match word.strip_suffix('*') {
            Some(head) => format!("{}[a-z]*", regex::escape(head)),
            None => regex::escape(word),
        };
        words.map(one).collect::<Vec<_>>().join("|")
    };
    let (en, zh) = (joined(true), joined(false));
    let mut ways = Vec::new();
    if !en.is_empty() {
        ways.push(format!(r"\b(?:{NO})\s+(?:(?:{BETWEEN})\s+){{0,4}}(?:{en})\b"));
        ways.push(format!(r"\b(?:{en})\b[\s:=–-]{{1,3}}(?:(?:is|are|stands? at|to|at|of)\s+)?(?:{NONE})\b"));
        ways.push(format!(r"\b(?:{en})(?: \w+){{0,3}}\s?\?{SPEAKER}(?:no|nope|nah|{NONE})\b"));
    }
    if !zh.is_empty() {
        ways.push(format!("(?:没有?|无|不|零|从未)(?:{BETWEEN_ZH})*(?:{zh})"));
        ways.push(format!(r"(?:{zh})\w{{0,3}}[?？]{SPEAKER}(?:没有|没|无|不欠)"));
        ways.push(format!("(?:{zh})(?:情况)?(?:：|:|为|是)?(?:零|无|没有)(?:[，。；、,.;\\s]|$)"));
    }
    (!ways.is_empty()).then(|| Regex::new(&format!("(?i){}", ways.join("|"))).ok()).flatten()
}

/// Zero, for every slot whose words are denied.
pub(crate) fn denied(text: &str, facts: &Facts) -> Vec<Proposal> {
    let slots = facts.slots.iter().filter_map(|slot| Some((slot, slot.none.as_ref()?)));
    let of = |(slot, finder): (&super::schema::Slot, &Regex)| {
        let what = || What::Choice { slot: slot.name.clone(), value: "0".to_owned() };
        let trim = |found: regex::Match<'_>| {
            let said = found.as_str().trim_end_matches(|c: char| c.is_whitespace() || "，。；、,.;".contains(c));
            found.start()..found.start() + said.len()
        };
        finder.find_iter(text).map(|found| Proposal { span: trim(found), what: what() }).collect::<Vec<_>>()
    };
    slots.flat_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_denied() {
        let words = ["debt*", "owe*", "loans", "负债", "欠"].map(str::to_owned);
        let finder = finder(&words).unwrap();
        let check = |text: &str, wanted: bool| assert_eq!(finder.is_match(text), wanted, "{text}");
        check("zero debts", true);
        check("I do not have any other loans", true);
        check("I owe nobody a penny", true);
        check("Debts: none", true);
        check("nothing is owed", true);
        check("Never been in debt", true);
        check("没有任何负债", true);
        check("目前负债为零。", true);
        check("谁都不欠", true);
        check("Clerk: any debts? Customer: none.", true);
        check("Do you owe anything? - No", true);
        check("Any debts? I have 300", false);
        check("有负债吗？没有。", true);
        check("I owe 300", false);
        check("no late payments on my debts", false);
        check("there is no way I owe it", false);
        check("负债没有还清", false);
        check("没还清负债", false);
    }

    #[test]
    fn nothing_is_denied_without_words() {
        assert!(finder(&[]).is_none());
    }
}
