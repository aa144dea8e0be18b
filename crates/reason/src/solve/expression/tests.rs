//! By hand, and against fractions of `i128`.

use proptest::prelude::*;

use super::*;

fn check(expression: &str, want: Result<&str, Flaw>) {
    let earlier = [Number::parse("7"), None];
    let found = compute(expression, &earlier).map(|value| value.to_string());
    assert_eq!(found, want.map(str::to_owned), "{expression}");
}

#[test]
fn values_by_hand() {
    check("48/2", Ok("24"));
    check(" 2 + 3 * 4 ", Ok("14"));
    check("(2+3)*4", Ok("20"));
    check("10/4", Ok("2.5"));
    check("10/3", Ok("10/3"));
    check("10/3*3", Ok("10"));
    check("0.1+0.2", Ok("0.3"));
    check("-0.05", Ok("-0.05"));
    check(".5", Ok("0.5"));
    check("5.", Ok("5"));
    check("2^3^2", Ok("512"));
    check("-2^2", Ok("-4"));
    check("2**-2", Ok("0.25"));
    check("(-1)^1000001", Ok("-1"));
    check("0^0", Ok("1"));
    check("$1,234.50*2", Ok("2469"));
    check("50%*80", Ok("40"));
    check("(20+5)%", Ok("0.25"));
    check("6 ÷ 2 × 3 − 1 · 1", Ok("8"));
    check("3 x 4", Ok("12"));
    check("#1*2", Ok("14"));
    check("--3", Ok("3"));
    check("1/1024", Ok("0.0009765625"));
    check("1/2^13", Ok("1/8192"));
    check("100000000000000000000000000000*10", Ok("1000000000000000000000000000000"));
}

#[test]
fn what_has_no_value_says_why() {
    check("", Err(Flaw::Syntax(0)));
    check("2 apples", Err(Flaw::Syntax(2)));
    check("(2", Err(Flaw::Syntax(2)));
    check("2)", Err(Flaw::Syntax(1)));
    check("1,2", Err(Flaw::Syntax(1)));
    check("1,2345", Err(Flaw::Syntax(1)));
    check("2(3)", Err(Flaw::Syntax(1)));
    check("5 % 3", Err(Flaw::Syntax(4)));
    check("1/(3-3)", Err(Flaw::DivisionByZero));
    check("0^-1", Err(Flaw::DivisionByZero));
    check("2^(1/2)", Err(Flaw::Exponent));
    check("#2", Err(Flaw::NoStep(2)));
    check("#0", Err(Flaw::NoStep(0)));
    check("#9", Err(Flaw::NoStep(9)));
}

/// Each of these would take memory or time without bound if it were computed.
#[test]
fn hostile_sizes_are_refused() {
    check("10^10^10", Err(Flaw::TooLarge));
    check("9^9^9^9^9", Err(Flaw::TooLarge));
    check("2^-99999999999999999999", Err(Flaw::TooLarge));
    check("(((9^999)^999)^999)", Err(Flaw::TooLarge));
    check(&"(".repeat(100), Err(Flaw::TooLarge));
    check(&"-".repeat(100), Err(Flaw::TooLarge));
    check(&"2^".repeat(100), Err(Flaw::TooLarge));
    check(&"9".repeat(513), Err(Flaw::TooLarge));
    check(&format!("1{}", "*9^999".repeat(20)), Err(Flaw::TooLarge));
}

/// The second implementation: a tree with its value in fractions of `i128` (`None`: divides by zero).
fn trees() -> impl Strategy<Value = (String, Option<(i128, i128)>)> {
    let leaf = prop_oneof![
        (0..100i128).prop_map(|n| (n.to_string(), Some((n, 1)))),
        (0..1000i128).prop_map(|n| (format!("{}.{:02}", n / 100, n % 100), Some((n, 100)))),
        (1..100i128).prop_map(|n| (format!("{n}%"), Some((n, 100)))),
    ];
    leaf.prop_recursive(3, 12, 2, |inner| {
        let sides = (inner.clone(), inner, prop::sample::select(vec!['+', '-', '*', '/']));
        sides.prop_map(|((left, a), (right, b), sign)| {
            let value = a.zip(b).and_then(|((a, b), (c, d))| match sign {
                '+' => Some((a * d + c * b, b * d)),
                '-' => Some((a * d - c * b, b * d)),
                '*' => Some((a * c, b * d)),
                _ => (c != 0).then_some((a * d, b * c)),
            });
            (format!("({left}) {sign} ({right})"), value)
        })
    })
}

proptest! {
    #[test]
    fn equals_fractions_of_small_numbers((text, want) in trees()) {
        let found = compute(&text, &[]).ok();
        let want = want.map(|(a, b)| Number(Ratio::new(BigInt::from(a), BigInt::from(b))));
        prop_assert_eq!(found, want, "{}", text);
    }

    #[test]
    fn what_is_shown_is_read_as_the_same(numer in any::<i64>(), denom in 1..100_000i64) {
        let value = Number(Ratio::new(numer.into(), denom.into()));
        prop_assert_eq!(Number::parse(&value.to_string()), Some(value));
    }

    #[test]
    fn nothing_panics(text in "[-0-9+*/^().,%$#x ×]{0,40}") {
        let _ = compute(&text, &[None]);
    }
}
