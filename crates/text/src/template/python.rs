//! What chat templates expect of Python.
//!
//! minijinja knows Jinja and, with its `pycompat` callback, most methods of Python's strings and dictionaries. Here is
//! what `transformers` adds to Jinja, and where templates of real models rely on Python's ways.

use std::fmt::Write;
use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

use minijinja::value::{Kwargs, Rest, ValueKind, from_args};
use minijinja::{Environment, Error, ErrorKind, Output, State, Value, escape_formatter};
use minijinja_contrib::pycompat;
use regex::Regex;

use super::marks::is_mark;

/// Adds all of it to an environment.
pub(super) fn install(environment: &mut Environment<'static>) {
    environment.set_unknown_method_callback(method);
    environment.set_formatter(print);
    environment.add_filter("tojson", to_json);
    environment.add_filter("length", length);
    environment.add_filter("count", length);
    environment.add_test("sequence", is_sequence);
}

/// `{% generation %}` brackets what an assistant wrote, for training; it opens a scope and does nothing else.
pub(super) fn without_generation_tags(source: &str) -> String {
    static TAG: LazyLock<Option<Regex>> =
        LazyLock::new(|| Regex::new(r"\{%([-+]?)\s*(end)?generation\s*([-+]?)%\}").ok());
    let Some(tag) = &*TAG else { return source.to_owned() };
    let scope = |found: &regex::Captures<'_>| match found.get(2) {
        None => format!("{{%{} with _generation = 0 {}%}}", &found[1], &found[3]),
        Some(_) => format!("{{%{} endwith {}%}}", &found[1], &found[3]),
    };
    tag.replace_all(source, scope).into_owned()
}

/// Prints numbers as Python does; the rest already is.
fn print(out: &mut Output<'_>, state: &mut State<'_, '_>, value: &Value) -> Result<(), Error> {
    match float(value) {
        Some(number) => out.write_str(&float_text(number)).map_err(Error::from),
        None => escape_formatter(out, state, value),
    }
}

fn float(value: &Value) -> Option<f64> {
    let is_float = value.kind() == ValueKind::Number && !value.is_integer();
    is_float.then(|| f64::try_from(value.clone()).ok()).flatten()
}

/// Python's `repr` of a float: the shortest digits that read back the same, with an exponent below 1e-4 and from 1e16.
fn float_text(number: f64) -> String {
    if !number.is_finite() {
        return if number.is_nan() { "nan".into() } else { number.to_string() };
    }
    let scientific = format!("{number:e}");
    match scientific.split_once('e').map(|(digits, exponent)| (digits, exponent.parse::<i32>())) {
        Some((digits, Ok(exponent))) if number != 0.0 && !(-4..16).contains(&exponent) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", exponent.abs())
        }
        _ => format!("{number:?}"),
    }
}

/// `length`, which Python answers for an undefined value too. Marks do not count.
fn length(value: &Value) -> Result<usize, Error> {
    let marks = value.as_str().map_or(0, |text| text.chars().filter(|c| is_mark(*c)).count());
    match value.len().map(|length| length - marks) {
        Some(length) => Ok(length),
        None if value.is_undefined() => Ok(0),
        None => Err(invalid(format!("a {} has no length", value.kind()))),
    }
}

/// Whatever has a length and items: in Python that includes strings and dictionaries.
fn is_sequence(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Seq | ValueKind::String | ValueKind::Map | ValueKind::Undefined)
}

/// String methods that `pycompat` lacks.
fn method(state: &mut State<'_, '_>, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    let Some(text) = value.as_str() else { return pycompat::unknown_method_callback(state, value, name, args) };
    match name {
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(args)?;
            Ok(text.strip_prefix(prefix).unwrap_or(text).into())
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(args)?;
            Ok(text.strip_suffix(suffix).unwrap_or(text).into())
        }
        "partition" | "rpartition" => partition(text, name == "rpartition", args),
        "rsplit" if !args.is_empty() => rsplit(text, args),
        "index" | "rindex" => {
            let found = pycompat::unknown_method_callback(state, value, name.replace("index", "find").as_str(), args)?;
            if found.as_i64() == Some(-1) { Err(invalid("substring not found".into())) } else { Ok(found) }
        }
        _ => pycompat::unknown_method_callback(state, value, name, args),
    }
}

fn partition(text: &str, from_right: bool, args: &[Value]) -> Result<Value, Error> {
    let (separator,): (&str,) = from_args(args)?;
    let halves = if from_right { text.rsplit_once(separator) } else { text.split_once(separator) };
    let parts = match halves {
        Some((left, right)) => [left, separator, right],
        None if from_right => ["", "", text],
        None => [text, "", ""],
    };
    Ok(parts.into_iter().map(Value::from).collect())
}

fn rsplit(text: &str, args: &[Value]) -> Result<Value, Error> {
    let (separator, limit): (&str, Option<i64>) = from_args(args)?;
    let pieces =
        limit.and_then(|limit| usize::try_from(limit).ok()).map_or(usize::MAX, |limit| limit.saturating_add(1));
    if separator.is_empty() {
        return Err(invalid("empty separator".into()));
    }
    let mut parts: Vec<&str> = text.rsplitn(pieces, separator).collect();
    parts.reverse();
    Ok(parts.into_iter().map(Value::from).collect())
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}

/// How JSON is laid out.
#[derive(Debug)]
struct Layout {
    ascii: bool,
    sorted: bool,
    /// What one level is indented by.
    indent: Option<String>,
    item: String,
    key: String,
}

/// `json.dumps` as `transformers` calls it: no HTML escapes, other scripts as they are, keys in their order.
#[expect(clippy::needless_pass_by_value, reason = "filters take their arguments by value")]
fn to_json(value: &Value, positional: Rest<Value>, options: Kwargs) -> Result<String, Error> {
    // Positionally: ensure_ascii, indent, separators, sort_keys.
    let get = |place: usize, name: &str| -> Result<Option<Value>, Error> {
        let value: Option<Value> = options.get(name)?;
        Ok(value.or_else(|| positional.get(place).cloned()).filter(|value| !value.is_none()))
    };
    let indent = get(1, "indent")?.map(|indent| match indent.as_usize() {
        Some(width) => " ".repeat(width.min(64)),
        None => indent.to_string(),
    });
    let separators = get(2, "separators")?.map(|pair| (pair.get_item_by_index(0), pair.get_item_by_index(1)));
    let (item, key) = match separators {
        Some((item, key)) => (item?.to_string(), key?.to_string()),
        None => (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned()),
    };
    let ascii = get(0, "ensure_ascii")?.is_some_and(|value| value.is_true());
    let sorted = get(3, "sort_keys")?.is_some_and(|value| value.is_true());
    options.assert_all_used()?;
    let mut text = String::new();
    Layout { ascii, sorted, indent, item, key }.write(value, 0, &mut text)?;
    Ok(text)
}

/// Deeper values than any request can hold; a template that builds them is broken.
const DEEPEST: usize = 200;

impl Layout {
    fn write(&self, value: &Value, depth: usize, out: &mut String) -> Result<(), Error> {
        if depth > DEEPEST {
            return Err(invalid("the value is nested too deeply for JSON".into()));
        }
        match value.kind() {
            ValueKind::None => out.push_str("null"),
            ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => self.write_number(value, out),
            ValueKind::String => self.write_text(value.as_str().unwrap_or_default(), out),
            ValueKind::Seq | ValueKind::Iterable => {
                let items: Vec<Value> = value.try_iter()?.collect();
                self.write_all(('[', ']'), &items, depth, out, |item, out| self.write(item, depth + 1, out))?;
            }
            ValueKind::Map => {
                let mut keys: Vec<Value> = value.try_iter()?.collect();
                if self.sorted {
                    keys.sort();
                }
                self.write_all(('{', '}'), &keys, depth, out, |key, out| {
                    self.write_key(key, out)?;
                    self.write(&value.get_item(key)?, depth + 1, out)
                })?;
            }
            other => return Err(invalid(format!("a value of kind {other} cannot be written as JSON"))),
        }
        Ok(())
    }

    fn write_all(
        &self,
        (open, close): (char, char),
        items: &[Value],
        depth: usize,
        out: &mut String,
        write: impl Fn(&Value, &mut String) -> Result<(), Error>,
    ) -> Result<(), Error> {
        out.push(open);
        for (i, item) in items.iter().enumerate() {
            if i > 0 {
                out.push_str(&self.item);
            }
            self.new_line(depth + 1, out);
            write(item, out)?;
        }
        if !items.is_empty() {
            self.new_line(depth, out);
        }
        out.push(close);
        Ok(())
    }

    fn new_line(&self, depth: usize, out: &mut String) {
        if let Some(indent) = &self.indent {
            out.push('\n');
            (0..depth).for_each(|_| out.push_str(indent));
        }
    }

    /// Keys are strings; Python turns numbers, truth values and None into strings too.
    fn write_key(&self, key: &Value, out: &mut String) -> Result<(), Error> {
        match key.as_str() {
            Some(text) => self.write_text(text, out),
            None => {
                let mut text = String::new();
                self.write(key, DEEPEST, &mut text)?;
                self.write_text(&text, out);
            }
        }
        out.push_str(&self.key);
        Ok(())
    }

    fn write_number(&self, value: &Value, out: &mut String) {
        match float(value) {
            Some(number) if number.is_nan() => out.push_str("NaN"),
            Some(number) if number.is_infinite() => out.push_str(if number > 0.0 { "Infinity" } else { "-Infinity" }),
            Some(number) => out.push_str(&float_text(number)),
            None => out.push_str(&value.to_string()),
        }
    }

    fn write_text(&self, text: &str, out: &mut String) {
        out.push('"');
        for c in text.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{C}' => out.push_str("\\f"),
                c if c < ' ' || self.ascii && !(' '..='~').contains(&c) => write_escaped(c, out),
                c => out.push(c),
            }
        }
        out.push('"');
    }
}

fn write_escaped(c: char, out: &mut String) {
    for unit in c.encode_utf16(&mut [0; 2]) {
        // Writing to a string cannot fail.
        let _ = write!(out, "\\u{unit:04x}");
    }
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];

/// `datetime.now().strftime(format)` in UTC. What is no known directive stays as it is, as in C.
pub(super) fn strftime(format: &str, now: SystemTime) -> String {
    let moment = Moment(now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()));
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut directive = chars.next();
        let padded = directive != Some('-');
        if !padded {
            directive = chars.next();
        }
        out.push_str(&directive.map_or_else(|| "%".into(), |directive| moment.show(directive, padded)));
    }
    out
}

/// Seconds since 1970 in UTC.
#[derive(Debug, Clone, Copy)]
struct Moment(u64);

impl Moment {
    fn show(self, directive: char, padded: bool) -> String {
        let two = |number: u64| if padded { format!("{number:02}") } else { number.to_string() };
        let known = self.day(directive, two).or_else(|| self.time(directive, two));
        known.unwrap_or_else(|| if directive == '%' { "%".into() } else { format!("%{directive}") })
    }

    fn day(self, directive: char, two: impl Fn(u64) -> String) -> Option<String> {
        let days = self.0 / 86_400;
        let (year, month, day) = date(days);
        let month_name = MONTHS[month as usize - 1];
        let day_name = DAYS[(days % 7) as usize];
        let day_of_year = || 1 + (0..days).rev().take_while(|earlier| date(*earlier).0 == year).count();
        Some(match directive {
            'Y' => year.to_string(),
            'y' => two(year % 100),
            'm' => two(month),
            'd' => two(day),
            'e' => format!("{day:2}"),
            'B' => month_name.into(),
            'b' | 'h' => month_name[..3].into(),
            'A' => day_name.into(),
            'a' => day_name[..3].into(),
            'j' => format!("{:03}", day_of_year()),
            'F' => format!("{year}-{month:02}-{day:02}"),
            _ => return None,
        })
    }

    fn time(self, directive: char, two: impl Fn(u64) -> String) -> Option<String> {
        let (hour, minute, second) = (self.0 / 3600 % 24, self.0 / 60 % 60, self.0 % 60);
        Some(match directive {
            'H' => two(hour),
            'I' => two((hour + 11) % 12 + 1),
            'M' => two(minute),
            'S' => two(second),
            'p' => if hour < 12 { "AM" } else { "PM" }.into(),
            'T' => format!("{hour:02}:{minute:02}:{second:02}"),
            'Z' => "UTC".into(),
            'z' => "+0000".into(),
            _ => return None,
        })
    }
}

/// Year, month and day of a day since 1970, by counting in eras of 400 years that begin in March.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn dates_as_python_prints_them() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let check = |seconds, expected: &str| {
            assert_eq!(strftime("%d %b %Y|%A, %-d %B %y|%H:%M:%S %I %p|%j %F %%%q%", at(seconds)), expected);
        };
        check(0, "01 Jan 1970|Thursday, 1 January 70|00:00:00 12 AM|001 1970-01-01 %%q%");
        check(1_709_210_096, "29 Feb 2024|Thursday, 29 February 24|12:34:56 12 PM|060 2024-02-29 %%q%");
        check(4_102_444_799, "31 Dec 2099|Thursday, 31 December 99|23:59:59 11 PM|365 2099-12-31 %%q%");
    }

    #[test]
    fn floats_as_python_prints_them() {
        let numbers = [1.0, 0.1, 1e22, 1.5e-7, 1e16, 1e15, 123456789.125, -0.0, 0.0001, 1.25e300];
        let texts = [
            "1.0",
            "0.1",
            "1e+22",
            "1.5e-07",
            "1e+16",
            "1000000000000000.0",
            "123456789.125",
            "-0.0",
            "0.0001",
            "1.25e+300",
        ];
        assert_eq!(numbers.map(float_text), texts);
    }
}
