//! The rates by hand, and the whole way with two shell scripts as engines.

use super::*;

const COSTS: Costs = Costs { weight_bytes: 100e6, multiply_adds: 100e6, head_multiply_adds: 20e6, kv_bytes: 20e3 };
const CEILINGS: Ceilings = Ceilings { read_bytes: 10e9, operations: 1e12 };

#[test]
fn bounds_by_hand() {
    let check = |case: Case, want: f64| {
        let found = case.bound(COSTS, CEILINGS).unwrap();
        assert!((found / want - 1.0).abs() < 1e-9, "{case}: {found}, not {want}");
    };
    check(Case::Prefill(1000), 1000.0 / (2.0 * (1000.0 * 100e6 + 20e6) / 1e12));
    check(Case::Decode { depth: 4000, tokens: 2000 }, 1.0 / ((100e6 + 5000.0 * 20e3) / 10e9));
    check(Case::Streams { count: 100, tokens: 0 }, 100.0 / (100.0 * 2.0 * 120e6 / 1e12));
    assert_eq!(Case::Prefill(1).bound(Costs::default(), Ceilings::default()), None);
}

#[test]
fn rates_by_hand() {
    let outcome = Outcome { first_seconds: 0.5, total_seconds: 1.5, tokens: 160 };
    assert_eq!(Case::Prefill(512).rate(&outcome), 1024.0);
    assert_eq!(Case::Decode { depth: 16, tokens: 11 }.rate(&outcome), 10.0);
    assert!((Case::Streams { count: 16, tokens: 10 }.rate(&outcome) - 160.0 / 1.5).abs() < 1e-9);
}

/// A shell script as an engine that is done in no time.
fn script(name: &str, total: f64) -> Entrant {
    let text = format!(
        r#"echo '{{"name":"{name}","settings":"none","load_seconds":0.5}}'
while read -r line; do echo '{{"first_seconds":0.5,"total_seconds":{total},"tokens":128}}'; done"#
    );
    Entrant { name: name.into(), program: "sh".into(), args: vec!["-c".into(), text.into()] }
}

fn plan(peer: Entrant) -> Plan {
    Plan {
        ours: script("a", 1.0),
        peer,
        cases: vec![Case::Decode { depth: 16, tokens: 128 }],
        rounds: 3,
        ids: 300..400,
        costs: COSTS,
        ceilings: CEILINGS,
    }
}

#[test]
fn two_processes_in_turns() {
    let result = compare(&plan(script("b", 1.5)), &|_, _| ()).unwrap();
    let decode = &result.lines[3];
    assert_eq!((decode.name.as_str(), decode.ratio, decode.ours.n), ("decode 128", 2.0, 3));
    assert!(result.lines.iter().any(|l| l.name == "memory at the peak" && l.ours.median > 0.0));
    let text = result.to_string();
    assert!(text.contains("2.00x") && text.contains("ours: a; none"), "{text}");
}

#[test]
fn an_entrant_that_dies_is_named() {
    let dead = Entrant { name: "dead".into(), program: "true".into(), args: Vec::new() };
    assert!(compare(&plan(dead), &|_, _| ()).unwrap_err().to_string().starts_with("dead: ended without an answer"));
    let absent = Entrant { name: "absent".into(), program: "/nowhere/at-all".into(), args: Vec::new() };
    assert!(compare(&plan(absent), &|_, _| ()).unwrap_err().to_string().contains("cannot start"));
}
