//! Every amount, duration, percentage and date that stands in a text, as a typed value with the bytes it was read from.
//!
//! A proposal is a reading, not a fact: "20,000 a month" is an amount per month, and what it is the amount of is decided
//! elsewhere. What is read one way and could be read another ("10万一年": a yearly amount, or an amount and a year) is proposed both
//! ways.

use std::{ops::Range, sync::LazyLock};

use regex::{Captures, Regex};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use super::{clause, date::Day, number};

/// A value found in a text.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Proposal {
    /// The bytes it was read from.
    pub(crate) span: Range<usize>,
    /// What it says.
    pub(crate) what: What,
}

/// What a piece of text says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum What {
    /// A number: money where a currency stands beside it, otherwise whatever fits.
    Amount { value: Decimal, currency: Option<&'static str>, per: Option<Period> },
    /// A number of things, which is no money: `two cards`, 2次.
    Count(Decimal),
    /// A share, in percent.
    Percent(Decimal),
    /// A length of time.
    Duration { count: Decimal, unit: Period },
    /// Somebody's age in years.
    Age(Decimal),
    /// A day.
    Date(Day),
    /// Words that stand for a value by themselves: the slot's name and the value.
    Choice { slot: String, value: String },
    /// Words that are a value as they stand: the slot's name and the words.
    Text { slot: String, value: String },
}

/// A length of time that amounts refer to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Period {
    Hour,
    Day,
    Week,
    Month,
    Quarter,
    Year,
}

impl Period {
    /// How many of it a year has. Weeks and days are counted as 52 and 365, hours as those of a working year.
    fn in_a_year(self) -> Decimal {
        Decimal::from(match self {
            Self::Hour => 2080,
            Self::Day => 365,
            Self::Week => 52,
            Self::Month => 12,
            Self::Quarter => 4,
            Self::Year => 1,
        })
    }

    /// An amount per `self` as one per `other`.
    pub(crate) fn rate_to(self, other: Self, amount: Decimal) -> Option<Decimal> {
        amount.checked_mul(self.in_a_year())?.checked_div(other.in_a_year())
    }

    /// So many of `self` as a number of `other`.
    pub(crate) fn length_to(self, other: Self, count: Decimal) -> Option<Decimal> {
        count.checked_mul(other.in_a_year())?.checked_div(self.in_a_year())
    }

    fn read(word: &str) -> Option<Self> {
        let word = word.to_lowercase();
        let starts = |heads: &[&str]| heads.iter().any(|head| word.starts_with(head));
        Some(match () {
            () if starts(&["hour", "hr", "小时"]) => Self::Hour,
            () if starts(&["quarter", "季"]) => Self::Quarter,
            () if starts(&["week", "wk", "周", "星期", "礼拜"]) => Self::Week,
            () if starts(&["month", "mo", "mth", "月", "期", "p.m", "pm", "pcm"]) => Self::Month,
            () if starts(&["year", "yr", "annu", "年", "p.a", "pa"]) => Self::Year,
            () if starts(&["day", "dai", "天", "日"]) => Self::Day,
            () => return None,
        })
    }
}

const NUMERALS: &str = "一二两三四五六七八九十百千万";

/// Patterns of this file; one that did not compile would find nothing, and tests find that.
struct Patterns {
    number: Regex,
    multiplier: Regex,
    smaller: Regex,
    percent: Regex,
    duration: Regex,
    age: Regex,
    currency: Regex,
    period_behind: Regex,
    period_around: Regex,
    full_date: Regex,
    named_date: Regex,
    chinese_date: Regex,
    further: Regex,
    ago: Regex,
    relative: Regex,
    half_year: Regex,
    classifier: Regex,
}

const MONTHS: &str = "jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sep(?:t(?:ember)?)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?";
const CURRENCIES: &str = "us\\$|hk\\$|us dollars?|dollars?|bucks|usd|\\$|euros?|eur|€|pounds?|sterling|gbp|quid|£|人民币|rmb|cny|yuan|kuai|元|块钱|块|圆|¥|￥|美元|美金|欧元|英镑|港币|港元|hkd|日元|yen|jpy";

impl Patterns {
    fn new() -> Result<Self, regex::Error> {
        let words = number::WORDS.map(|(word, _)| word).join("|");
        let spoken = format!(
            "\\b(?:(?:{words})|an?[\\s-]+(?:hundred|thousand|million))(?:[\\s-]+(?:and[\\s-]+)?(?:{words}|hundred|thousand|grand|million))*\\b"
        );
        let pattern = |text: &str| Regex::new(&format!("(?i){text}"));
        Ok(Self {
            number: pattern(&format!(
                "(?P<pre>(?:us\\$|hk\\$|\\$|€|£|¥|￥|(?:rmb|cny|usd|eur|gbp|hkd|人民币|美元)\\s?)\\s?)?(?P<num>\\d{{1,3}}(?:[,，]\\d{{3}})+(?:\\.\\d+)?|\\d+(?:[.,]\\d+)?|{spoken}|[零〇一二两兩三四五六七八九十百千万萬亿億]+)"
            ))?,
            multiplier: pattern(
                "^(?:(?:k|w|m|mn|bn|mil)\\b|\\s?(?:百万|千万|万|萬|千|百|亿|億)|\\s(?:hundred|thousand|grand|million|billion)\\b|\\s?(?:mio|tsd|mrd)\\b\\.?)(?P<tail>[一二三四五六七八九1-9])?",
            )?,
            smaller: pattern("^(?P<num>\\d{1,3}|[一二两三四五六七八九])(?P<unit>千|百)")?,
            percent: pattern("^\\s?(?:%|％|percent\\b|per cent\\b|pct\\b)")?,
            duration: pattern(
                "^[\\s-]?(?:full |more )?(?P<unit>days?|weeks?|wks?|months?|mos?|quarters?|years?|yrs?|hours?|天|日|周|个?星期|个?礼拜|个月|期|年|小时)(?P<half>半)?(?P<edge>\\b|$|[^a-z])",
            )?,
            age: pattern("^[\\s-]?(?:years?[\\s-]old|yrs? old|y/o|岁)")?,
            currency: pattern(&format!("^\\s?(?:{CURRENCIES})"))?,
            period_behind: pattern(
                "^\\s?(?P<spoken>一)?(?:(?P<word>monthly|yearly|annually|weekly|daily|hourly|quarterly|p\\.?a\\b\\.?|p\\.?m\\b\\.?|pcm\\b)|(?:/|per\\s|an?\\s|each\\s|every\\s|(?:in|for) an?\\s|每|一|的?)\\s?(?P<unit>months?|mo\\b|mth|years?|yrs?\\b|annum|weeks?|wk\\b|days?|hours?|hr\\b|quarters?|个?月|年|个?星期|周|天|日|小时|季度))(?P<ago>\\s+(?:ago|later|back)|前|后)?",
            )?,
            period_around: pattern(
                "(?P<month>monthly|(?:per|each|every|a)\\smonth|/\\s?month|月薪|月收入|月工资|月入|每个?月|一个月|月供|月租|按月)|(?P<year>annual(?:ly)?|yearly|(?:per|each|every|a)\\syear|年薪|年收入|年入|每年|一年|全年)|(?P<week>weekly|(?:per|each|every|a)\\sweek|周薪|每周)|(?P<day>daily|(?:per|each|every|a)\\sday|日薪|每天)|(?P<hour>hourly|(?:per|an|every)\\shour|时薪|每小时)",
            )?,
            full_date: pattern("\\b(?P<y>\\d{4})[-/.](?P<m>\\d{1,2})[-/.](?P<d>\\d{1,2})\\b")?,
            named_date: pattern(&format!(
                "\\b(?:(?P<d1>\\d{{1,2}})(?:st|nd|rd|th)?\\s(?:of\\s)?(?P<m1>{MONTHS})\\b\\.?(?:,?\\s(?P<y1>\\d{{4}}))?|(?P<m2>{MONTHS})\\b\\.?\\s(?P<d2>\\d{{1,2}})(?:st|nd|rd|th)?\\b(?:,?\\s(?P<y2>\\d{{4}}))?)"
            ))?,
            chinese_date: pattern("(?:(?P<y>\\d{4})年)?(?P<m>\\d{1,2})月(?P<d>\\d{1,2})[日号]")?,
            further: pattern(&format!(
                "^(?:,?\\s+(?:and\\s+)?|又|零|，)?(?P<num>\\d{{1,3}}|(?:{words})|[一二两三四五六七八九十]+)[\\s-]?(?P<unit>months?|mos?\\b|weeks?|days?|个月|天)"
            ))?,
            ago: pattern("^\\s?(?:ago|earlier|back|(?:之|以)?前)")?,
            relative: pattern("\\b(?:today|yesterday|the day before yesterday)\\b|今天|昨天|前天")?,
            half_year: pattern("half a year|半年")?,
            classifier: pattern("^\\s?[次笔张家份名]")?,
        })
    }
}

static PATTERNS: LazyLock<Option<Patterns>> = LazyLock::new(|| Patterns::new().ok());

/// What stands in `text`, in its order. Days without a year are the last ones that were so called, seen from `today`.
pub(crate) fn propose(text: &str, today: Day) -> Vec<Proposal> {
    let Some(patterns) = PATTERNS.as_ref() else { return Vec::new() };
    let mut reader =
        Reader { text, today, patterns, clauses: clause::split(text), found: Vec::new(), void: Vec::new() };
    reader.dates();
    reader.numbers();
    reader.found.sort_by_key(|proposal| (proposal.span.start, proposal.span.end));
    reader.found
}

struct Reader<'a> {
    text: &'a str,
    today: Day,
    patterns: &'a Patterns,
    clauses: Vec<Range<usize>>,
    found: Vec<Proposal>,
    /// Where dates stand that no calendar has.
    void: Vec<Range<usize>>,
}

impl<'a> Reader<'a> {
    fn add(&mut self, span: Range<usize>, what: What) {
        self.found.push(Proposal { span, what });
    }

    fn dates(&mut self) {
        let patterns = self.patterns;
        for found in patterns.full_date.captures_iter(self.text) {
            self.date(&found, "y", "m", "d");
        }
        for found in patterns.named_date.captures_iter(self.text) {
            let first = found.name("m1").is_some();
            let (y, m, d) = if first { ("y1", "m1", "d1") } else { ("y2", "m2", "d2") };
            self.date(&found, y, m, d);
        }
        for found in patterns.chinese_date.captures_iter(self.text) {
            self.date(&found, "y", "m", "d");
        }
        for found in patterns.relative.find_iter(self.text) {
            let days = match found.as_str().to_lowercase().as_str() {
                "today" | "今天" => 0,
                "yesterday" | "昨天" => 1,
                _ => 2,
            };
            self.add(found.range(), What::Date(self.today.before(days)));
        }
        for found in patterns.half_year.find_iter(self.text) {
            self.add(found.range(), What::Duration { count: Decimal::from(6), unit: Period::Month });
        }
    }

    fn date(&mut self, found: &Captures<'_>, year: &str, month: &str, day: &str) {
        let text = |name: &str| found.name(name).map(|part| part.as_str());
        let number = |name: &str| text(name)?.parse::<u32>().ok();
        let named = |name: &str| {
            let head: String = text(name)?.to_lowercase().chars().take(3).collect();
            let place = "jan feb mar apr may jun jul aug sep oct nov dec".split(' ').position(|month| month == head)?;
            u32::try_from(place + 1).ok()
        };
        let month = number(month).or_else(|| named(month));
        let (Some(month), Some(day), Some(whole)) = (month, number(day), found.get(0)) else { return };
        let date = match number(year) {
            Some(year) => Day::of_date(i64::from(year), month, day),
            None => self.last(month, day),
        };
        match date {
            _ if self.taken(&whole.range()) => {}
            Some(date) => self.add(whole.range(), What::Date(date)),
            None => self.void.push(whole.range()),
        }
    }

    /// The last such day, today included.
    fn last(&self, month: u32, day: u32) -> Option<Day> {
        let (year, ..) = self.today.date();
        let this = Day::of_date(year, month, day).filter(|date| *date <= self.today);
        this.or_else(|| Day::of_date(year - 1, month, day))
    }

    /// Whether something was read from these bytes already.
    fn taken(&self, span: &Range<usize>) -> bool {
        self.found
            .iter()
            .map(|other| &other.span)
            .chain(&self.void)
            .any(|other| other.start < span.end && span.start < other.end)
    }

    fn numbers(&mut self) {
        let mut at = 0;
        while let Some(found) = self.patterns.number.captures_at(self.text, at) {
            let (Some(whole), Some(num)) = (found.get(0), found.name("num")) else { return };
            at = whole.end();
            if self.taken(&whole.range()) || self.inside_a_word(num.start()) {
                continue;
            }
            if let Some(value) = value(num.as_str()) {
                let pre = found.name("pre").and_then(|pre| currency(pre.as_str()));
                at = self.number(whole.start()..whole.end(), num.as_str(), value, pre).max(at);
            }
        }
    }

    /// `mp3`, `A4`: digits behind a letter are a name.
    fn inside_a_word(&self, start: usize) -> bool {
        self.text[..start].chars().next_back().is_some_and(|c| c.is_ascii_alphabetic() || c == '_' || c == '#')
            && self.text[start..].starts_with(|c: char| c.is_ascii_digit())
    }

    fn rest(&self, at: usize) -> &'a str {
        &self.text[at..]
    }

    /// Reads on behind a number, and says where reading goes on.
    fn number(&mut self, span: Range<usize>, written: &str, value: Decimal, pre: Option<&'static str>) -> usize {
        let (value, mut end) = self.multiplied(value, span.end);
        let percent_prefix = self.text[..span.start].ends_with("百分之");
        if percent_prefix {
            self.add(span.start - "百分之".len()..end, What::Percent(value));
            return end;
        }
        if let Some(found) = self.patterns.percent.find(self.rest(end)) {
            end += found.end();
            self.add(span.start..end, What::Percent(value));
            return end;
        }
        if pre.is_none() {
            if let Some(found) = self.patterns.age.find(self.rest(end)) {
                end += found.end();
                self.add(span.start..end, What::Age(value));
                return end;
            }
            if let Some(after) = self.duration(span.start, end, written, value) {
                return after;
            }
        }
        let behind = self.patterns.currency.find(self.rest(end)).map(|found| (end + found.end(), found.as_str()));
        let currency = pre.or(behind.and_then(|(_, word)| currency(word)));
        end = behind.map_or(end, |(after, _)| after);
        if currency.is_none() && self.is_only_a_word(written, end) {
            return end;
        }
        if currency.is_none() && self.is_count(written, end) {
            self.add(span.start..end, What::Count(value));
            return end;
        }
        self.amount(span.start, end, value, currency)
    }

    /// With the unit behind it, and the colloquial tail of that (2万5 is 25,000).
    fn multiplied(&self, value: Decimal, end: usize) -> (Decimal, usize) {
        let none = (value, end);
        let Some(found) = self.patterns.multiplier.captures(self.rest(end)) else { return none };
        let (Some(whole), tail) = (found.get(0), found.name("tail")) else { return none };
        let unit = &whole.as_str()[..whole.len() - tail.map_or(0, |tail| tail.len())];
        let Some(factor) = number::multiplier(unit) else { return none };
        let Some(product) = value.checked_mul(factor) else { return none };
        let after = end + whole.end();
        let alone = |after: usize| {
            !self.rest(after).starts_with(|c: char| c.is_ascii_digit() || "个十百千万次年月".contains(c))
        };
        match tail.and_then(|tail| self::value(tail.as_str())).filter(|_| alone(after)) {
            Some(digit) => (product + digit * factor / Decimal::from(10), after),
            None => self.smaller(product, factor, end + unit.len()),
        }
    }

    /// With further digits and a smaller unit behind it: 1万2千 is 12,000.
    fn smaller(&self, value: Decimal, factor: Decimal, end: usize) -> (Decimal, usize) {
        let none = (value, end);
        let Some(found) = self.patterns.smaller.captures(self.rest(end)) else { return none };
        let (Some(whole), Some(digits), Some(unit)) = (found.get(0), found.name("num"), found.name("unit")) else {
            return none;
        };
        let part = self::value(digits.as_str()).zip(number::multiplier(unit.as_str()));
        match part.map(|(digits, unit)| (digits * unit, unit)) {
            Some((part, unit)) if unit < factor && part < factor => self.smaller(value + part, unit, end + whole.end()),
            _ => none,
        }
    }

    /// A length of time behind a number: where reading goes on, if there is one.
    fn duration(&mut self, start: usize, end: usize, written: &str, value: Decimal) -> Option<usize> {
        let found = self.patterns.duration.captures(self.rest(end))?;
        let (unit, half) = (found.name("unit")?, found.name("half"));
        let period = Period::read(unit.as_str().trim_start_matches('个'))?;
        let calendar = unit.as_str() == "年" && written.len() == 4 && written.bytes().all(|b| b.is_ascii_digit());
        if calendar {
            return Some(end + unit.end());
        }
        let after = end + half.map_or(unit.end(), |half| half.end());
        if half.is_none() && self.is_inside_a_word(after) {
            return None;
        }
        let next = self.rest(after).chars().next();
        // 一个月1万 says what the amount is per.
        if written == "一" && next.is_some_and(|next| next.is_ascii_digit() || NUMERALS.contains(next)) {
            return Some(after);
        }
        let count = if half.is_some() { value + Decimal::new(5, 1) } else { value };
        let (count, period, after) = self.with_smaller(count, period, after);
        if let Some(ago) = self.patterns.ago.find(self.rest(after)) {
            let days = period.length_to(Period::Day, count)?.round();
            self.add(start..after + ago.end(), What::Date(self.today.before(days.try_into().ok()?)));
        }
        self.add(start..after, What::Duration { count, unit: period });
        Some(after)
    }

    /// With a number of smaller units behind it: "2 years and 4 months" is 28 months.
    fn with_smaller(&self, count: Decimal, unit: Period, after: usize) -> (Decimal, Period, usize) {
        let further = || {
            let found = self.patterns.further.captures(self.rest(after))?;
            let (whole, number, smaller) = (found.get(0)?, found.name("num")?, found.name("unit")?);
            let smaller = Period::read(smaller.as_str().trim_start_matches('个')).filter(|smaller| *smaller < unit)?;
            let sum = unit.length_to(smaller, count)?.checked_add(self::value(number.as_str())?)?;
            Some((sum, smaller, after + whole.end()))
        };
        further().unwrap_or((count, unit, after))
    }

    /// 周转 and 年薪 are words of their own, no units.
    fn is_inside_a_word(&self, at: usize) -> bool {
        self.rest(at).starts_with(|next: char| "转薪收末初底级".contains(next))
    }

    /// Single numerals are words (`one of them`, 一样) unless a unit or a classifier makes them numbers.
    fn is_only_a_word(&self, written: &str, end: usize) -> bool {
        let digits = written.starts_with(|c: char| c.is_ascii_digit());
        if digits || written.chars().count() > 3 {
            return false;
        }
        let scaled = self.text[..end].ends_with(['万', '千', '百', '亿']) || written.chars().count() > 1;
        let spoken = written.is_ascii() && !written.eq_ignore_ascii_case("one");
        !(spoken || (scaled && !written.is_ascii()) || self.patterns.classifier.is_match(self.rest(end)))
    }

    /// Small numbers in words, and numbers with a classifier behind them.
    fn is_count(&self, written: &str, end: usize) -> bool {
        let small = number::WORDS.iter().any(|(word, _)| written.eq_ignore_ascii_case(word));
        small && self.text[..end].ends_with(written) || self.patterns.classifier.is_match(self.rest(end))
    }

    fn amount(&mut self, start: usize, end: usize, value: Decimal, currency: Option<&'static str>) -> usize {
        let behind = self.patterns.period_behind.captures(self.rest(end));
        let is_period = |found: &Captures<'_>| {
            let read = found.get(0).map_or(end, |whole| end + whole.end());
            found.name("ago").is_none() && !self.is_inside_a_word(read)
        };
        let behind = behind.filter(is_period);
        let Some(found) = behind else {
            let per = self.period_around(start, end);
            self.add(start..end, What::Amount { value, currency, per });
            return end;
        };
        let word = found.name("unit").or(found.name("word"));
        let per = word.and_then(|word| Period::read(word.as_str().trim_start_matches('个')));
        let after = end + word.map_or(0, |word| word.end());
        self.add(start..after, What::Amount { value, currency, per });
        // "10万一年" may be an amount and a year.
        if let (Some(one), Some(unit)) = (found.name("spoken"), per) {
            self.add(end + one.start()..after, What::Duration { count: Decimal::ONE, unit });
        }
        after
    }

    /// The period that a clause names elsewhere: "my monthly salary is 5,000", "月薪两万".
    fn period_around(&self, start: usize, end: usize) -> Option<Period> {
        let clause = self.clauses[clause::of(&self.clauses, start)].clone();
        let nearest = self.patterns.period_around.captures_iter(&self.text[clause.clone()]).filter_map(|found| {
            let span = found.get(0)?.range();
            let (from, to) = (clause.start + span.start, clause.start + span.end);
            let distance = if to <= start { start - to } else { from.checked_sub(end)? };
            let names = [
                ("month", Period::Month),
                ("year", Period::Year),
                ("week", Period::Week),
                ("day", Period::Day),
                ("hour", Period::Hour),
            ];
            let (_, period) = names.into_iter().find(|(name, _)| found.name(name).is_some())?;
            Some((distance, period))
        });
        nearest.min_by_key(|(distance, _)| *distance).filter(|(distance, _)| *distance <= 40).map(|(_, period)| period)
    }
}

/// What a number's text stands for.
fn value(text: &str) -> Option<Decimal> {
    match text.chars().next()? {
        c if c.is_ascii_digit() => number::digits(text),
        c if c.is_ascii_alphabetic() => number::english(text),
        // 万一, 千万: words that begin with a unit are no numbers; 十 is one.
        c if "百千万萬亿億零〇".contains(c) => None,
        _ => number::chinese(text),
    }
}

fn currency(word: &str) -> Option<&'static str> {
    Some(match word.trim().to_lowercase().trim_end_matches('s') {
        "u$" | "us$" | "us dollar" | "dollar" | "buck" | "usd" | "$" | "美元" | "美金" => "USD",
        "euro" | "eur" | "€" | "欧元" => "EUR",
        "pound" | "sterling" | "gbp" | "quid" | "£" | "英镑" => "GBP",
        "人民币" | "rmb" | "cny" | "yuan" | "kuai" | "元" | "块钱" | "块" | "圆" | "¥" | "￥" => "CNY",
        "hk$" | "hkd" | "港币" | "港元" => "HKD",
        "日元" | "yen" | "jpy" => "JPY",
        _ => return None,
    })
}
