//! JSON is judged as what it means, wherever it is cut, and stays JSON.

use std::sync::LazyLock;

use guard::{Action, Direction, Guard, Policy, Terms};
use proptest::{collection::vec, prelude::*};

static GUARD: LazyLock<Guard> = LazyLock::new(|| {
    let mut policy = Policy::default();
    policy.personal.output = Action::Mask;
    let words = vec!["tulip".to_owned(), "say \"rose\"".to_owned(), "𠮷".to_owned()];
    policy.terms.insert("a\"b".to_owned(), Terms { words, input: Action::Allow, output: Action::Mask });
    Guard::new(&policy).unwrap()
});

/// What leaves of a text cut at these places.
fn cut(text: &str, cuts: &[usize]) -> String {
    let places = text.char_indices().map(|(at, _)| at).filter(|at| cuts.contains(at));
    let ends: Vec<usize> = [0].into_iter().chain(places).chain([text.len()]).collect();
    let mut filter = GUARD.stream_json(Direction::Out);
    let mut all: String = ends.windows(2).map(|ends| filter.push(&text[ends[0]..ends[1]]).text).collect();
    all += &filter.finish().text;
    assert_eq!(filter.held(), 0);
    all
}

#[test]
fn escapes_are_read_and_masks_are_json() {
    let check = |text: &str, expected: &str| {
        let report = GUARD.check_json(text, Direction::Out);
        assert_eq!(report.text.unwrap_or_else(|| text.to_owned()), expected, "{text}");
        for piece in [1, 2, 5] {
            assert_eq!(cut(text, &(0..text.len()).step_by(piece).collect::<Vec<_>>()), expected, "{text} by {piece}");
        }
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(text).is_ok(),
            serde_json::from_str::<serde_json::Value>(expected).is_ok(),
            "{expected}"
        );
    };
    check(r#"{"to": "ada@example.org"}"#, r#"{"to": "[email]"}"#);
    check(r#"{"to":"alice\u0040example.com, \"she\"\n"}"#, r#"{"to":"[email], \"she\"\n"}"#);
    check(r#"{"to":"\u0061lice@example.com","ada@example.org":1}"#, r#"{"to":"[email]","[email]":1}"#);
    check(r#"{"card":4111111111111111}"#, r#"{"card":"[card]"}"#);
    check(r#"[4111111111111111,"4111 1111\u00201111 1111",17, null]"#, r#"["[card]","[card]",17, null]"#);
    check(r#"{"a":"\ud842\udfb7 \ud842 \ud842","b":"𠮷"}"#, r#"{"a":"[a'b] \ud842 \ud842","b":"[a'b]"}"#);
    check(r#"{"a":"x say \"rose\" y"}"#, r#"{"a":"x [a'b]\" y"}"#);
    check(r#"{"a":"\\u0040 \x \u00"#, r#"{"a":"\\u0040 \x \u00"#);
    check("mail ada@example.org now", "mail \"[email]\" now");
    check("", "");
}

proptest! {
    #[test]
    fn cuts_do_not_matter(
        parts in vec(prop::sample::select(vec![
            "{", "}", "\"", "\\", "\\u0040", "\\ud842", "\\udfb7", "ada", "@", "example.org", " ", "4111111111111111", "tulip", ",", "é", "say", "\\\"rose\\\"",
        ]), 0..16),
        cuts in vec(0_usize..80, 0..8),
    ) {
        let text = parts.concat();
        let whole = cut(&text, &[]);
        prop_assert_eq!(&cut(&text, &cuts), &whole, "{}", text);
        let report = GUARD.check_json(&text, Direction::Out);
        prop_assert_eq!(report.text.unwrap_or(text), whole);
    }
}
