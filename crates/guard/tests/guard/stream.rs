//! A stream gives the verdicts of the whole text, wherever it is cut, and lets nothing go before its verdict.

use std::collections::BTreeMap;

use guard::{Action, Direction, Filter, Guard, Pattern, Policy, Release, Report, Terms, Verdict};
use proptest::prelude::*;

/// A policy in which every rule does `action`, but for those that only watch beside it.
fn policy(action: Action) -> Policy {
    let mut policy = Policy::default();
    policy.personal.output = action;
    policy.toxicity.output = action;
    policy.injection.output = action;
    policy.terms = BTreeMap::from([
        terms("codename", &["project falcon", "猎鹰计划", "falcon"], action),
        terms("watched", &["con is", "the"], Action::Monitor),
    ]);
    let regex = r"\bORD-[0-9]{2,6}\b".to_owned();
    policy.patterns = BTreeMap::from([("order".to_owned(), Pattern { regex, input: action, output: action })]);
    policy
}

fn terms(name: &str, words: &[&str], action: Action) -> (String, Terms) {
    let words = words.iter().map(|w| (*w).to_owned()).collect();
    (name.to_owned(), Terms { words, input: action, output: action })
}

struct Streamed {
    text: String,
    verdicts: Vec<Verdict>,
    blocked: bool,
}

fn run(filter: &mut Filter, pieces: &[&[u8]]) -> Streamed {
    let mut all = Streamed { text: String::new(), verdicts: Vec::new(), blocked: false };
    let mut take = |release: Release| {
        assert!(!all.blocked || release.text.is_empty(), "text after the block");
        all.text += &release.text;
        all.verdicts.extend(release.verdicts);
        all.blocked |= release.blocked;
    };
    pieces.iter().for_each(|piece| take(filter.push_bytes(piece)));
    take(filter.finish());
    all.verdicts.sort_by(Verdict::order);
    all
}

/// The text as the guard gives it as a whole, against the text cut at these places.
fn same(guard: &Guard, text: &str, cuts: &[usize]) {
    let whole = guard.check(text, Direction::Out);
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (text.len() + 1)).collect();
    cuts.extend([0, text.len()]);
    cuts.sort_unstable();
    let pieces: Vec<&[u8]> = cuts.windows(2).map(|w| &text.as_bytes()[w[0]..w[1]]).collect();
    let streamed = run(&mut guard.stream(Direction::Out), &pieces);
    let Report { action, verdicts, text: masked } = whole;
    let masked = masked.unwrap_or_else(|| text.to_owned());
    assert_eq!(streamed.blocked, action == Action::Block, "{text:?} {cuts:?}");
    if streamed.blocked {
        assert!(streamed.verdicts.iter().all(|v| verdicts.contains(v)), "{text:?} {cuts:?}");
        let first = verdicts.iter().find(|v| v.action == Action::Block).unwrap().span.start;
        assert!(masked.starts_with(&streamed.text) && streamed.text.len() <= first, "{text:?} {cuts:?}");
    } else {
        assert_eq!(streamed.verdicts, verdicts, "{text:?} {cuts:?}");
        assert_eq!(streamed.text, masked, "{text:?} {cuts:?}");
    }
}

/// Bits that rules care about, whole and broken.
fn text() -> impl Strategy<Value = String> {
    let bits = prop::sample::select(vec![
        "ada@example.org",
        "4111 1111 1111 1111",
        "4111 1111 1111 1112",
        "13812345678",
        "+86 ",
        "project ",
        "falcon",
        "Falcon ",
        "f a l c o n",
        "猎鹰",
        "计划",
        "的",
        " ",
        ".",
        "-",
        "\n",
        "ORD-1234",
        "ORD",
        "7",
        "sk-proj-Abc123def456Ghi789jkl012",
        "ignore ",
        "previous ",
        "instructions",
        "you idiot",
        "the ",
        "\u{200b}",
        "ｆ",
        "é",
        "-----BEGIN PRIVATE KEY-----",
        "MIIE",
        "-----END PRIVATE KEY-----",
        "DE89 3704 0044 0532 0130 00",
        "11010519491231002X",
        "con is",
        "a",
        "!",
        "😀",
    ]);
    prop::collection::vec(bits, 0..14).prop_map(|bits| bits.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_cut_gives_the_whole(text in text(), cuts in prop::collection::vec(0usize..400, 0..8)) {
        for guard in guards() {
            same(guard, &text, &cuts);
        }
    }

    #[test]
    fn any_text_byte_by_byte(text in "\\PC{0,60}") {
        for guard in guards() {
            same(guard, &text, &(0..text.len()).collect::<Vec<_>>());
        }
    }
}

fn guards() -> &'static [Guard] {
    static GUARDS: std::sync::OnceLock<Vec<Guard>> = std::sync::OnceLock::new();
    GUARDS
        .get_or_init(|| [Action::Monitor, Action::Mask, Action::Block].map(|a| Guard::new(&policy(a)).unwrap()).into())
}

#[test]
fn a_banned_phrase_split_at_every_byte_never_leaves() {
    let phrases =
        ["project falcon", "ｐｒｏｊｅｃｔ ｆａｌｃｏｎ", "f a l c o n", "猎鹰计划", "ada@example.org", "ORD-123456"];
    for phrase in phrases {
        let text = format!("All is well, says {phrase}, and more.");
        let at = text.find(phrase).unwrap();
        for action in [Action::Mask, Action::Block] {
            let guard = Guard::new(&policy(action)).unwrap();
            for cut in 0..=text.len() {
                for second in [cut, text.len(), (cut + 3).min(text.len())] {
                    let pieces = [&text.as_bytes()[..cut], &text.as_bytes()[cut..second], &text.as_bytes()[second..]];
                    let streamed = run(&mut guard.stream(Direction::Out), &pieces);
                    let (head, tail) = streamed.text.split_at(streamed.text.len().min(at));
                    assert!(text.starts_with(head));
                    let banned = phrase.chars().filter(|c| c.is_alphanumeric()).any(|c| tail.starts_with(c));
                    assert!(!banned && !streamed.text.contains(phrase), "{phrase}: {:?}", streamed.text);
                    assert_eq!(streamed.blocked, action == Action::Block);
                }
            }
        }
    }
}

/// A match is cut at the longest one there may be.
#[test]
fn the_longest_matches_are_the_same_however_the_text_is_cut() {
    let run = |length: usize| "Ab3_".repeat(length / 4);
    let check = |text: &str, found: usize| {
        assert_eq!(guards()[1].check(text, Direction::Out).verdicts.len(), found, "{text}");
        for guard in guards() {
            same(guard, text, &(0..text.len()).step_by(97).collect::<Vec<_>>());
        }
    };
    let token = |header: usize, payload: usize| format!("a eyJ{}.eyJ{}.{} z", run(header), run(payload), run(600));
    check(&token(1000, 2000), 1);
    check(&token(1500, 4000), 0);
    check(&format!("sk-{} and on", run(9000)), 1);
    check(&format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----", run(9000).replace('_', "+")), 1);
    check(&format!("{}.", "eyJ".repeat(3000)), 0);
}

#[test]
fn what_begins_nothing_is_not_held() {
    let mut policy = policy(Action::Monitor);
    policy.terms.get_mut("codename").unwrap().output = Action::Mask;
    let guard = Guard::new(&policy).unwrap();
    let mut filter = guard.stream(Direction::Out);
    let mut check = |piece: &str, out: &str, held: usize| {
        assert_eq!((filter.push(piece).text.as_str(), filter.held()), (out, held), "{piece}");
    };
    check("Hello wor", "Hello wor", 0);
    check("ld, pro", "ld, ", 3);
    check("ject ", "", 8);
    check("x fal", "project x ", 3);
    check("con", "", 6);
    check("!", "[codename]!", 0);
}

#[test]
fn watching_holds_nothing() {
    let guard = Guard::new(&Policy::default()).unwrap();
    let mut filter = guard.stream(Direction::Out);
    for piece in ["call 138", "1234", "5678 or ada@", "example.org now"] {
        assert_eq!(filter.push(piece).text, piece);
        assert_eq!(filter.held(), 0);
    }
}
