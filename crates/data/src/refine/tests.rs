//! Every pass with what it drops, and what holds for all input: nothing is lost, order decides nothing, groups are whole.

use proptest::prelude::*;

use super::*;
use crate::{Form, Place};

fn options() -> Options {
    Options {
        held_out: 0.2,
        seed: 0,
        near: Some(0.8),
        languages: Vec::new(),
        longest: 4000,
        personal: Personal::Mask,
        quality: true,
        toxicity: true,
    }
}

fn row(source: &str, at: usize, form: Form, group: Option<&str>) -> Row {
    let place = Place { source: source.to_owned(), at: format!("line {at}") };
    Row { form, group: group.map(str::to_owned), place }
}

fn pair(prompt: &str, completion: &str) -> Form {
    Form::Completion { prompt: prompt.to_owned(), completion: completion.to_owned() }
}

fn refined(rows: Vec<Row>, options: &Options) -> Refined {
    refine(rows.into_iter().map(Ok).collect(), options, &|_, _, _| {}).unwrap()
}

/// One row beside an innocent one: what became of it.
fn check([prompt, completion]: [&str; 2], change: impl Fn(&mut Options), expected: &str) {
    let form = pair(prompt, completion);
    let mut options = Options { held_out: 0.0, ..options() };
    change(&mut options);
    let innocent = row("b", 1, pair("What is the capital of France?", "Paris"), None);
    let found = refined(vec![row("a", 1, form, None), innocent], &options);
    let told = match &found.dropped[..] {
        [] => found.train.iter().find(|row| row.place.source == "a").unwrap().form.to_json().to_string(),
        dropped => dropped.iter().map(|row| format!("{}: {}", row.pass.name(), row.reason)).collect(),
    };
    assert!(told.contains(expected), "{prompt}: {told}");
}

const GERMAN: &str = "Die Miete ist am ersten Tag jedes Monats im Voraus auf das im Vertrag genannte Konto zu zahlen.";
const CHINESE: &str = "租金应当在每个月的第一天之前支付到合同中写明的银行账户,逾期支付的,承租人应当承担相应的违约责任,并赔偿由此造成的损失。";

#[test]
fn passes_drop_with_their_reason() {
    let same = |_: &mut Options| {};
    check(["Who?", "Ada"], same, r#"{"prompt":"Who?","completion":"Ada"}"#);
    check(["Who?", " "], same, "length: what is to be learned of it is empty");
    check(["Who?", &"a".repeat(4000)], same, "length: it has 4004 characters; 4000 may be");
    check(["Mail?", "ada@example.org"], same, r#""completion":"[email]""#);
    check(["Mail?", "ada@example.org"], |o| o.personal = Personal::Drop, "personal: it holds email");
    check(["Mail?", "ada@example.org"], |o| o.personal = Personal::Keep, "ada@example.org");
    check(["As JSON", r#"{"mail":"ada\u0040example.org"}"#], same, r#"{\"mail\":\"[email]\"}"#);
    check(["Rent?", GERMAN], |o| o.languages = vec!["eng".to_owned()], "language: its language is deu");
    check(["租金?", CHINESE], |o| o.languages = vec!["eng".to_owned()], "language: its language is cmn");
    check(["租金?", CHINESE], |o| o.languages = vec!["cmn".to_owned()], CHINESE);
    check(["Who?", "Ja"], |o| o.languages = vec!["eng".to_owned()], "Ja");
    check(["Write", &"spam ".repeat(60)], same, "quality: gopher.repeated_2_grams");
    check(["Write", &"spam ".repeat(60)], |o| o.quality = false, "spam");
    check(["Reply", "you are a fucking idiot and i hate you"], same, "toxicity: the guard scores it");
    check(["Reply", "you are a fucking idiot and i hate you"], |o| o.toxicity = false, "idiot");
    check(["What is the capital of France?", "Paris"], same, "duplicate: the same as a, line 1");
}

/// The library that tells languages, on sentences whose language is known.
#[test]
fn languages_are_told() {
    let check = |text: &str, expected: &str| assert_eq!(language(text), expected, "{text}");
    check(GERMAN, "deu");
    check(CHINESE, "cmn");
    check("The rent is due on the first day of every month and is paid to the account that the contract names.", "eng");
    check("Le loyer est dû le premier jour de chaque mois et se paie sur le compte indiqué dans le contrat.", "fra");
    check("El alquiler vence el primer día de cada mes y se paga en la cuenta que se indica en el contrato.", "spa");
    check("Арендная плата вносится в первый день каждого месяца на счёт, указанный в договоре аренды.", "rus");
    check(
        "家賃は毎月一日までに契約書に記載された銀行口座に振り込まなければなりません。遅れた場合は違約金が発生します。",
        "jpn",
    );
    check("Yes, of course.", UNDETERMINED);
}

#[test]
fn mistakes_are_named() {
    let check = |rows: Vec<Row>, change: fn(&mut Options), expected: &str| {
        let mut options = options();
        change(&mut options);
        let error = refine(rows.into_iter().map(Ok).collect(), &options, &|_, _, _| {}).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    check(vec![], |_| {}, "no row is left");
    check(vec![row("a", 3, pair("p", ""), None)], |_| {}, "no row is left: 1 were dropped, the first at a, line 3: ");
    check(vec![row("a", 1, pair("p", "c"), None)], |_| {}, "all rows belong together");
    check(vec![], |o| o.languages = vec!["english".to_owned()], "no language \"english\" is known");
}

#[test]
fn groups_are_whole() {
    let rows: Vec<Row> = (0..300)
        .map(|i| row("a", i, pair(&format!("question {i} {}", i * 7919), "yes"), Some(&format!("g{}", i % 30))))
        .collect();
    let found = refined(rows, &Options { near: None, ..options() });
    assert_eq!((found.train.len() + found.held.len(), found.dropped.len()), (300, 0));
    let groups =
        |rows: &[Row]| rows.iter().filter_map(|row| row.group.clone()).collect::<std::collections::BTreeSet<_>>();
    let (train, held) = (groups(&found.train), groups(&found.held));
    assert!(train.is_disjoint(&held) && !held.is_empty());
}

/// Few groups, none of which is below the share.
#[test]
fn something_is_held_out() {
    let rows = |n: usize| (0..n).map(|i| row("a", i, pair(&format!("q{i}"), &format!("{i}")), Some(&format!("g{i}"))));
    for n in 2..6 {
        let found = refined(rows(n).collect(), &Options { held_out: 0.01, ..options() });
        assert!(!found.held.is_empty() && !found.train.is_empty(), "{n}");
        assert!(refined(rows(n).collect(), &Options { held_out: 0.0, ..options() }).held.is_empty());
    }
}

/// Words that are told apart from all others.
fn sentence(seed: usize, edit: usize) -> String {
    let word = |at: usize| format!("{:05x}", (seed * 7_368_787 + at * 1_299_709 + 65_537) % 1_048_573);
    (0..24).map(|at| if at < edit { format!("edit{at}{edit}") } else { word(at) }).collect::<Vec<_>>().join(" ")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// Files in any order give the same set; nothing is lost without a reason; a row and its changed copy are on one side.
    #[test]
    fn order_does_not_matter(n in 20usize..60, edit in 1usize..4, turn in 0usize..50, seed in 0u64..9) {
        let form = |seed, edit| Form::Text(sentence(seed, edit));
        let first: Vec<Row> = (0..n).map(|i| row("a", i, form(i, 0), None)).collect();
        let second: Vec<Row> = (0..n).step_by(2).map(|i| row("b", i, form(i, edit), None)).collect();
        let third: Vec<Row> = (0..n).step_by(5).map(|i| row("c", i, form(i, 0), None)).collect();
        let options = Options { seed, quality: false, ..options() };
        let mut rows = [first, second, third].concat();
        let all = rows.len();
        let found = refined(rows.clone(), &options);
        let turn = turn % all;
        rows.rotate_left(turn);
        rows.reverse();
        prop_assert_eq!(&refined(rows, &options), &found);
        prop_assert_eq!(found.train.len() + found.held.len() + found.dropped.len(), all);
        let number = |row: &Row| row.place.at.clone();
        for held in &found.held {
            prop_assert!(!found.train.iter().any(|row| number(row) == number(held)), "{} is on both sides", number(held));
        }
    }
}
