//! Numbers as people write them: digits with marks, Chinese numerals, English words.

use rust_decimal::Decimal;
use serde_json::{Number, Value};

/// A number as JSON: whole ones without a point.
pub(crate) fn json(value: Decimal) -> Value {
    let text = value.normalize().to_string();
    let whole = text.parse::<i64>().ok().map(Number::from);
    whole.or_else(|| text.parse::<f64>().ok().and_then(Number::from_f64)).map_or(Value::Null, Value::Number)
}

/// Digits, with commas between thousands. A comma in front of one or two digits is a decimal mark (`1,5 Mio.`).
pub(super) fn digits(text: &str) -> Option<Decimal> {
    let plain = text.replace('，', ",");
    let decimal_comma = plain.rsplit_once(',').is_some_and(|(_, tail)| tail.len() < 3 && !tail.contains('.'));
    let plain = if decimal_comma { plain.replacen(',', ".", 1) } else { plain.replace(',', "") };
    plain.parse().ok()
}

/// What a unit behind a number multiplies it by.
pub(super) fn multiplier(text: &str) -> Option<Decimal> {
    let power = match text.trim().trim_end_matches('.').to_lowercase().as_str() {
        "hundred" | "百" => 2,
        "k" | "thousand" | "grand" | "千" | "tsd" => 3,
        "w" | "万" | "萬" => 4,
        "m" | "mn" | "mio" | "mil" | "million" | "百万" => 6,
        "千万" => 7,
        "亿" | "億" => 8,
        "bn" | "billion" | "mrd" => 9,
        _ => return None,
    };
    Some(Decimal::from(10_i64.pow(power)))
}

/// Chinese numerals, the colloquial tail included: 三千五 is 3,500, 两万五 is 25,000.
pub(super) fn chinese(text: &str) -> Option<Decimal> {
    let (mut total, mut section, mut digit, mut last) = (0_i64, 0_i64, None, 1_i64);
    for c in text.chars() {
        match c {
            '零' | '〇' => last = 1,
            '十' | '百' | '千' => {
                let unit = unit(c)?;
                section += digit.take().unwrap_or(1) * unit;
                last = unit;
            }
            '万' | '萬' => {
                total = total.checked_add((section + digit.take().unwrap_or(0)).checked_mul(10_000)?)?;
                (section, last) = (0, 10_000);
            }
            '亿' | '億' => {
                total = (total + section + digit.take().unwrap_or(0)).checked_mul(100_000_000)?;
                (section, last) = (0, 100_000_000);
            }
            _ if digit.is_some() => return None,
            _ => digit = Some(figure(c)?),
        }
    }
    let tail = digit.map_or(0, |digit| if last >= 100 { digit * last / 10 } else { digit });
    Some(Decimal::from(total.checked_add(section)?.checked_add(tail)?))
}

fn figure(c: char) -> Option<i64> {
    Some(match c {
        '一' => 1,
        '二' | '两' | '兩' => 2,
        '三' => 3,
        '四' => 4,
        '五' => 5,
        '六' => 6,
        '七' => 7,
        '八' => 8,
        '九' => 9,
        _ => return None,
    })
}

fn unit(c: char) -> Option<i64> {
    Some(match c {
        '十' => 10,
        '百' => 100,
        '千' => 1000,
        _ => return None,
    })
}

/// English words from `one` to millions, such as `two hundred and fifty thousand` or `a hundred`.
pub(super) fn english(text: &str) -> Option<Decimal> {
    let (mut total, mut section, mut any) = (0_i64, 0_i64, false);
    let lower = text.to_lowercase();
    for word in lower.split([' ', '-', '\t', '\n']).filter(|word| !word.is_empty() && *word != "and") {
        if let Some(value) = WORDS.iter().find(|(name, _)| *name == word).map(|(_, value)| *value) {
            section += value;
            any = true;
            continue;
        }
        let unit = match word {
            "a" | "an" => continue,
            "hundred" => 100,
            "thousand" | "grand" => 1000,
            "million" => 1_000_000,
            _ => return None,
        };
        any = true;
        let scaled = section.max(1).checked_mul(unit)?;
        if unit == 100 {
            section = scaled;
        } else {
            total = total.checked_add(scaled)?;
            section = 0;
        }
    }
    any.then(|| Decimal::from(total + section))
}

/// The words that are numbers by themselves.
pub(super) const WORDS: [(&str, i64); 27] = [
    ("one", 1),
    ("two", 2),
    ("three", 3),
    ("four", 4),
    ("five", 5),
    ("six", 6),
    ("seven", 7),
    ("eight", 8),
    ("nine", 9),
    ("ten", 10),
    ("eleven", 11),
    ("twelve", 12),
    ("thirteen", 13),
    ("fourteen", 14),
    ("fifteen", 15),
    ("sixteen", 16),
    ("seventeen", 17),
    ("eighteen", 18),
    ("nineteen", 19),
    ("twenty", 20),
    ("thirty", 30),
    ("forty", 40),
    ("fifty", 50),
    ("sixty", 60),
    ("seventy", 70),
    ("eighty", 80),
    ("ninety", 90),
];
