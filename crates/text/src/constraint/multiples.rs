//! `multipleOf` in bounds.
//!
//! llguidance makes an automaton of remainders, with a state for each of them, before its own limits look: a schema that wants multiples of ten
//! million takes gigabytes and minutes, and nothing can stop it. Several of them may meet in one number (`allOf`, `$ref`), so what is bounded
//! is the least common multiple of all that a schema names.

use crate::{Constraint, Error};

/// A hundred thousand states are a second of work and some ten megabytes.
const MOST: u64 = 100_000;
const KEY: &str = "\"multipleOf\"";

/// That a constraint asks for no automaton beyond bounds.
pub(super) fn check(constraint: &Constraint) -> Result<(), Error> {
    match constraint {
        Constraint::JsonSchema(schema) => within(&schema.to_string()),
        Constraint::Lark(grammar) if grammar.contains("%json") => {
            if grammar.contains("\\u") {
                let message = "a schema inside a grammar has no \\u escapes: write the characters themselves";
                return Err(Error::Grammar(message.to_owned()));
            }
            within(grammar)
        }
        _ => Ok(()),
    }
}

fn within(text: &str) -> Result<(), Error> {
    let mut common = 1_u64;
    for behind in text.split(KEY).skip(1) {
        let Some(value) = behind.trim_start().strip_prefix(':').map(str::trim_start) else { continue };
        let end = value.find(|c: char| !matches!(c, '0'..='9' | '.' | 'e' | 'E' | '+' | '-')).unwrap_or(value.len());
        if end == 0 {
            // A property that is called so.
            continue;
        }
        let states = states(&value[..end]).unwrap_or(MOST + 1);
        common = (common / gcd(common, states)).saturating_mul(states);
        if common > MOST {
            let message =
                format!("`multipleOf` {} is too fine: at most {MOST} steps together are supported", &value[..end]);
            return Err(Error::Grammar(message));
        }
    }
    Ok(())
}

/// The number without its decimal point: `0.25` has 25 remainders. Nothing for what is no positive number, or has too many digits.
fn states(number: &str) -> Option<u64> {
    let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let exponent: i64 = exponent.parse().ok()?;
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mut digits: u64 = format!("{whole}{}", fraction.trim_end_matches('0')).parse().ok()?;
    let scale = exponent - fraction.trim_end_matches('0').len() as i64;
    for _ in 0..scale.clamp(0, 20) {
        digits = digits.checked_mul(10)?;
    }
    (digits > 0).then_some(digits)
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check_schema(schema: serde_json::Value, fits: bool) {
        let constraint = Constraint::JsonSchema(schema);
        assert_eq!(check(&constraint).is_ok(), fits, "{constraint:?}");
    }

    #[test]
    fn automata_stay_small() {
        check_schema(json!({"type": "integer", "multipleOf": 5}), true);
        check_schema(json!({"type": "number", "multipleOf": 0.01}), true);
        check_schema(json!({"properties": {"a": {"multipleOf": 100}, "b": {"multipleOf": 0.25}}}), true);
        check_schema(json!({"properties": {"multipleOf": {"type": "string"}}}), true);
        check_schema(json!({"multipleOf": 10_000_019}), false);
        check_schema(json!({"multipleOf": 1e9}), false);
        check_schema(json!({"multipleOf": 0.000_100_003}), false);
        check_schema(json!({"allOf": [{"multipleOf": 997}, {"multipleOf": 991}]}), false);
    }

    #[test]
    fn schemas_inside_grammars_are_seen() {
        let grammar = |schema: &str| Constraint::Lark(format!("start: %json {schema}"));
        assert!(check(&grammar(r#"{"multipleOf": 10}"#)).is_ok());
        assert!(check(&grammar(r#"{ "multipleOf" : 10000019}"#)).is_err());
        assert!(check(&grammar(r#"{"multiple\u004ff": 10000019}"#)).is_err());
    }
}
