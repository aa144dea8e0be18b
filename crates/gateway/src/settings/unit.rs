//! Values as people write them in a settings file: sizes, times, money, secrets. Each is a string with its unit, so that no
//! reader has to guess, and a mistake is found where the file is read.

use std::{borrow::Cow, fmt, str::FromStr, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Bytes: `"8MiB"`, `"1GiB"`, `"512kB"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size(pub u64);

/// A time: `"500ms"`, `"30s"`, `"5m"`, `"24h"`, `"90d"`; `"0s"` where it means none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span(pub Duration);

/// Money in billionths of the currency's unit, written as a decimal: `"12.50"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Money(pub u64);

impl Span {
    /// The time, unless it is zero.
    pub fn unless_zero(self) -> Option<Duration> {
        (!self.0.is_zero()).then_some(self.0)
    }
}

/// The number in front and the unit behind.
fn split(text: &str) -> (&str, &str) {
    let at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    (&text[..at], text[at..].trim())
}

const SIZES: [(&str, u64); 8] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("kiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1000),
    ("B", 1),
];
const SPANS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (number, unit) = split(text.trim());
        let factor = SIZES.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor);
        let number = number.parse::<f64>().ok().filter(|n| n.is_finite());
        match (number, factor) {
            (Some(number), Some(factor)) => Ok(Self((number * factor as f64) as u64)),
            _ => {
                Err(format!("`{text}` is not a size: write a number and B, kB, MB, GB, KiB, MiB or GiB, such as 8MiB"))
            }
        }
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (number, unit) = split(text.trim());
        let factor = SPANS.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor);
        match (number.parse::<u64>(), factor) {
            (Ok(number), Some(factor)) => Ok(Self(Duration::from_millis(number.saturating_mul(factor)))),
            _ => Err(format!("`{text}` is not a time: write a whole number and ms, s, m, h or d, such as 30s")),
        }
    }
}

const NANO: u64 = 1_000_000_000;

impl FromStr for Money {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not an amount: write a decimal with at most nine places, such as 12.50");
        let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(part) || part.len() > 9 {
            return Err(wrong());
        }
        let nano = |s: &str| s.parse::<u64>().map_err(|_| wrong());
        let whole = nano(whole)?.checked_mul(NANO).ok_or_else(wrong)?;
        whole.checked_add(nano(&format!("{part:0<9}"))?).map(Self).ok_or_else(wrong)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = |(_, factor): &&(&str, u64)| self.0 > 0 && self.0.is_multiple_of(*factor);
        let (unit, factor) = SIZES.iter().find(exact).copied().unwrap_or(("B", 1));
        write!(f, "{}{unit}", self.0 / factor)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        let exact = |(_, factor): &&(&str, u64)| ms > 0 && ms % factor == 0;
        let (unit, factor) = SPANS.iter().find(exact).copied().unwrap_or(("s", 1000));
        write!(f, "{}{unit}", ms / factor)
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = format!("{:09}", self.0 % NANO);
        let part = part.trim_end_matches('0');
        write!(f, "{}.{part:0<2}", self.0 / NANO)
    }
}

/// How a value stands in the file: a string of this form.
macro_rules! written {
    ($kind:ty, $name:literal, $pattern:literal) => {
        impl<'de> Deserialize<'de> for $kind {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }

        impl Serialize for $kind {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl JsonSchema for $kind {
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "pattern": $pattern })
            }

            fn inline_schema() -> bool {
                true
            }
        }
    };
}

written!(Size, "Size", r"^[0-9]+(\.[0-9]+)? *(B|kB|MB|GB|KiB|kiB|MiB|GiB)$");
written!(Span, "Span", r"^[0-9]+ *(ms|s|m|h|d)$");
written!(Money, "Money", r"^[0-9]+(\.[0-9]{1,9})?$");

/// A secret, or a text with secrets in it: `${NAME}` stands for an environment variable, so that the file holds none.
#[derive(Clone, Default)]
pub struct Secret {
    source: String,
    value: SecretString,
}

impl Secret {
    /// The secret behind `source`, whose `${NAME}`s are looked up with `environment`.
    pub fn resolve(source: &str, environment: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let (mut value, mut rest) = (String::new(), source);
        while let Some((before, behind)) = rest.split_once("${") {
            let (name, after) = behind.split_once('}').ok_or("`${` without its `}`")?;
            let found = environment(name).ok_or_else(|| {
                format!("the environment variable {name} is not set: set it, or write the value in its place")
            })?;
            value += before;
            value += &found;
            rest = after;
        }
        value += rest;
        Ok(Self { source: source.to_owned(), value: value.into() })
    }

    /// The text as it stands in a file, whether or not its variables are set here.
    pub(super) fn reference(source: &str) -> Self {
        Self { source: source.to_owned(), value: source.to_owned().into() }
    }

    /// Its text, for the one who needs it.
    pub fn expose(&self) -> &str {
        self.value.expose_secret()
    }

    /// Nothing is set.
    pub fn is_empty(&self) -> bool {
        self.expose().is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.expose() == other.expose()
    }
}

impl Eq for Secret {}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let source = String::deserialize(deserializer)?;
        Self::resolve(&source, |name| std::env::var(name).ok()).map_err(de::Error::custom)
    }
}

impl Serialize for Secret {
    /// What `config show` prints: references as they stand, anything else as a word.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let only_reference = self.source.starts_with("${") && self.source.ends_with('}');
        serializer.serialize_str(if only_reference || self.source.is_empty() { &self.source } else { "[redacted]" })
    }
}

impl JsonSchema for Secret {
    fn schema_name() -> Cow<'static, str> {
        "Secret".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string" })
    }

    fn inline_schema() -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_times_and_money_are_read_and_shown() {
        fn check<T: FromStr<Err = String> + fmt::Display + PartialEq + fmt::Debug>(text: &str, value: T, shown: &str) {
            assert_eq!(value.to_string(), shown);
            assert_eq!(text.parse(), Ok(value), "{text}");
        }
        check("8MiB", Size(8 << 20), "8MiB");
        check("1.5 GB", Size(1_500_000_000), "1500MB");
        check("0B", Size(0), "0B");
        check("90s", Span(Duration::from_secs(90)), "90s");
        check("24h", Span(Duration::from_secs(86_400)), "1d");
        check("1500ms", Span(Duration::from_millis(1500)), "1500ms");
        check("0s", Span(Duration::ZERO), "0s");
        check("12.5", Money(12_500_000_000), "12.50");
        check("0.0000125", Money(12_500), "0.0000125");
        check("7", Money(7_000_000_000), "7.00");
    }

    #[test]
    fn what_is_neither_is_refused() {
        for text in ["", "8", "8 parsecs", "MiB", "-1MiB"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
        for text in ["", "1,5", "-1", "1.0000000001", "99999999999999", ".5", "1."] {
            assert!(text.parse::<Money>().is_err(), "{text}");
        }
    }

    #[test]
    fn secrets_come_from_the_environment_and_never_print() {
        let environment = |name: &str| (name == "KEY").then(|| "sk-1".to_owned());
        let check = |source: &str, value: &str, shown: &str| {
            let secret = Secret::resolve(source, environment).unwrap();
            assert_eq!(secret.expose(), value);
            assert_eq!(serde_json::to_value(&secret).unwrap(), shown);
            assert!(!format!("{secret:?}").contains("sk-1"));
        };
        check("${KEY}", "sk-1", "${KEY}");
        check("postgres://u:${KEY}@h/d", "postgres://u:sk-1@h/d", "[redacted]");
        check("plain", "plain", "[redacted]");
        check("", "", "");
        assert!(Secret::resolve("${NONE}", environment).unwrap_err().contains("NONE"));
        assert!(Secret::resolve("${KEY", environment).is_err());
    }
}
