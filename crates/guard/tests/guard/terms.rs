//! Terms and patterns of the operator's, in honest and disguised spelling.

use std::collections::BTreeMap;

use guard::{Action, Direction, Guard, Pattern, Policy, Terms};

fn guard(words: &[&str]) -> Guard {
    let words = words.iter().map(|w| (*w).to_owned()).collect();
    let terms = BTreeMap::from([("t".to_owned(), Terms { words, input: Action::Mask, output: Action::Block })]);
    Guard::new(&Policy { terms, ..Policy::default() }).unwrap()
}

#[test]
fn spellings() {
    let guard = guard(&["project falcon", "rapist", "the rapist", "secret*", "猎鹰计划", "лес", "ass"]);
    let check = |text: &str, want: &str| {
        let report = guard.check(text, Direction::In);
        assert_eq!(report.text.as_deref().unwrap_or(text), want);
    };
    check("Project Falcon is on", "[t] is on");
    check("PROJECT-FALCON", "[t]");
    check("pr0ject f4lc0n", "[t]");
    check("рrоjесt fаlсоn", "[t]");
    check("p r o j e c t  f a l c o n", "[t]");
    check("p.r.o.j.e.c.t f.a.l.c.o.n!", "[t]!");
    check("projectfalcon", "[t]");
    check("pro\u{200b}ject\u{2060} falcon", "[t]");
    check("ｐｒｏｊｅｃｔ ｆａｌｃｏｎ", "[t]");
    check("secrets and secretive", "[t]s and [t]ive");
    check("therapist, glass, assume, pass it", "therapist, glass, assume, pass it");
    check("a s s", "[t]");
    check("the rapist", "[t]");
    check("关于猎鹰计划的事", "关于[t]的事");
    check("猎 鹰 计 划", "[t]");
    check("请问project falcon吗", "请问[t]吗");
    check("полесье лес", "полесье [t]");
}

#[test]
fn patterns() {
    let pattern = |regex: &str| Pattern { regex: regex.to_owned(), input: Action::Mask, output: Action::Allow };
    let policy =
        |regex: &str| Policy { patterns: BTreeMap::from([("order".to_owned(), pattern(regex))]), ..Policy::default() };
    let guard = Guard::new(&policy(r"\bORD-[0-9]{6}\b")).unwrap();
    assert_eq!(guard.check("see ORD-123456.", Direction::In).text.as_deref(), Some("see [order]."));
    assert_eq!(guard.check("see ORD-123456.", Direction::Out).verdicts, []);
    for (regex, part) in [("a*", "empty text"), ("a+", "any length"), ("a{5000}", "5000"), ("(", "unclosed")] {
        let error = Guard::new(&policy(regex)).unwrap_err();
        assert_eq!(error.place, "patterns.order.regex");
        assert!(error.message.contains(part), "{error}");
    }
}
