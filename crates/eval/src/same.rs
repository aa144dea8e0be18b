//! When two answers say the same.

use serde_json::{Number, Value};

/// Both are JSON and mean the same (members in any order, numbers by their value), or their texts are equal but for blanks around them.
#[must_use]
pub fn same(a: &str, b: &str) -> bool {
    let json = |text: &str| serde_json::from_str::<Value>(text).ok();
    a.trim() == b.trim() || json(a).zip(json(b)).is_some_and(|(a, b)| equal(&a, &b))
}

fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || equal_numbers(a, b),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| equal(a, b)))
        }
        _ => a == b,
    }
}

/// `2` is `2.0`. Two whole numbers are compared as such, so that none is rounded.
fn equal_numbers(a: &Number, b: &Number) -> bool {
    (a.is_f64() || b.is_f64()) && a.as_f64() == b.as_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_says_the_same() {
        fn check(a: &str, b: &str, expected: bool) {
            assert_eq!((same(a, b), same(b, a)), (expected, expected), "{a} {b}");
        }
        check("Paris", " Paris\n", true);
        check("Paris", "paris", false);
        check("", "", true);
        check(r#"{"a": 1, "b": [2, null]}"#, r#"{"b":[2.0,null],"a":1}"#, true);
        check(r#"{"a": 1}"#, r#"{"a": 1, "b": null}"#, false);
        check("[1, 2]", "[2, 1]", false);
        check(r#"{"a": "1"}"#, r#"{"a": 1}"#, false);
        check("1e2", "100", true);
        check("9007199254740993", "9007199254740992", false);
        check("{\"a\": 1", "{\"a\":1", false);
    }
}
