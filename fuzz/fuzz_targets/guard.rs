//! Any text, cut anywhere: the stream gives the verdicts of the whole, and what left is the whole with its masks.

#![no_main]

use std::{collections::BTreeMap, sync::LazyLock};

use guard::{Action, Direction, Guard, Policy, Terms, Verdict};
use libfuzzer_sys::fuzz_target;

static GUARD: LazyLock<Guard> = LazyLock::new(|| {
    let mut policy = Policy::default();
    policy.personal.output = Action::Mask;
    policy.injection.output = Action::Mask;
    policy.toxicity.output = Action::Mask;
    let words = vec!["project falcon".to_owned(), "猎鹰".to_owned(), "fal*".to_owned()];
    policy.terms = BTreeMap::from([("t".to_owned(), Terms { words, input: Action::Mask, output: Action::Mask })]);
    Guard::new(&policy).expect("a sound policy")
});

fuzz_target!(|data: (Vec<u8>, &str)| {
    let (cuts, text) = data;
    let whole = GUARD.check(text, Direction::Out);
    let mut filter = GUARD.stream(Direction::Out);
    let (mut left, mut verdicts, mut rest) = (String::new(), Vec::new(), text.as_bytes());
    for cut in cuts {
        let (piece, behind) = rest.split_at(usize::from(cut).min(rest.len()));
        let release = filter.push_bytes(piece);
        left += &release.text;
        verdicts.extend(release.verdicts);
        rest = behind;
    }
    for release in [filter.push_bytes(rest), filter.finish()] {
        left += &release.text;
        verdicts.extend(release.verdicts);
    }
    verdicts.sort_by(Verdict::order);
    assert_eq!(verdicts, whole.verdicts);
    assert_eq!(left, whole.text.as_deref().unwrap_or(text));
    let _ = GUARD.moderate(text);
});
