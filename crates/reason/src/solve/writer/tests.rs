//! Which wrong steps a check catches, on the labelled steps of 200 GSM8K items: slips in arithmetic all, wrong reasoning none.

use super::*;

/// Expression and value of every step.
fn labelled() -> Vec<(String, String)> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/gsm8k/test-200.jsonl");
    let mut steps = Vec::new();
    for line in std::fs::read_to_string(path).unwrap().lines() {
        let item: Value = serde_json::from_str(line).unwrap();
        for mark in item["solution"].as_str().unwrap().split("<<").skip(1) {
            let (expression, value) = mark.split(">>").next().unwrap().rsplit_once('=').unwrap();
            steps.push((expression.to_owned(), value.to_owned()));
        }
    }
    steps
}

/// How many of these steps a check calls wrong.
fn caught(steps: &[(String, String)]) -> usize {
    let caught = |(expression, claimed): &&(String, String)| {
        let step = ChainStep { expression: expression.clone(), claimed: claimed.clone(), ..ChainStep::default() };
        !judge(step, Check::Resample, &[]).holds
    };
    steps.iter().filter(caught).count()
}

/// The expression with its first operator changed into another.
fn other_operator(expression: &str) -> Option<String> {
    let at = expression.char_indices().skip(1).find(|(_, c)| "+-*/".contains(*c))?.0;
    let other = if &expression[at..=at] == "+" { "-" } else { "+" };
    Some(format!("{}{other}{}", &expression[..at], &expression[at + 1..]))
}

#[test]
fn slips_are_caught_and_wrong_reasoning_is_not() {
    let steps = labelled();
    assert_eq!((steps.len(), caught(&steps)), (667, 0), "no step that is right may be called wrong");
    let slip = |by: &str| -> Vec<_> { steps.iter().map(|(e, v)| (e.clone(), format!("({v}){by}"))).collect() };
    let zero = |(e, _): &&(String, String)| compute(e, &[]).unwrap().to_string() == "0";
    for by in ["+1", "-1", "*10", "/10"] {
        // Ten times nothing is no slip.
        let harmless = if by.ends_with("10") { steps.iter().filter(zero).count() } else { 0 };
        assert_eq!(caught(&slip(by)), steps.len() - harmless, "{by}");
    }
    // Another operator: with the old value it is a slip like any other, with its own value it is true, only beside the point.
    let changed = steps.iter().filter_map(|(e, v)| Some((other_operator(e)?, v.clone())));
    let changed: Vec<_> = changed.filter(|(e, v)| compute(e, &[]).ok() != Number::parse(v)).collect();
    assert!(changed.len() > 600);
    assert_eq!(caught(&changed), changed.len());
    let own = changed.into_iter().map(|(e, _)| (e.clone(), compute(&e, &[]).unwrap().to_string()));
    assert_eq!(caught(&own.collect::<Vec<_>>()), 0);
}
