//! What texts say, as proposals; every quote is the text's own.

use proptest::prelude::*;
use rust_decimal::Decimal;

use super::{
    clause,
    date::Day,
    number,
    propose::{Period, What, propose},
    quotes::{matching, without_parts},
    schema::{Facts, Language},
};

fn today() -> Day {
    Day::of_date(2026, 3, 15).unwrap()
}

/// A proposal in short: `20,000 a month = 20000/month`.
fn said(text: &str) -> Vec<String> {
    let show = |what: &What| match what {
        What::Amount { value, currency, per } => {
            let per = per.map(|per| format!("/{}", format!("{per:?}").to_lowercase())).unwrap_or_default();
            let currency = currency.map(|currency| format!(" {currency}")).unwrap_or_default();
            format!("{}{currency}{per}", value.normalize())
        }
        What::Count(value) => format!("{} things", value.normalize()),
        What::Percent(value) => format!("{}%", value.normalize()),
        What::Duration { count, unit } => format!("{} {unit:?}", count.normalize()).to_lowercase(),
        What::Age(value) => format!("age {value}"),
        What::Date(day) => day.to_string(),
        What::Choice { value, .. } | What::Text { value, .. } => value.clone(),
    };
    let found = propose(text, today());
    found.iter().map(|p| format!("{} = {}", text[p.span.clone()].trim(), show(&p.what))).collect()
}

#[test]
fn amounts() {
    let check = |text: &str, wanted: &[&str]| assert_eq!(said(text), wanted, "{text}");
    check(
        "I earn 20,000 a month, owe 5,000 on my card, and ask for a loan of 100,000",
        &["20,000 a month = 20000/month", "5,000 = 5000", "100,000 = 100000"],
    );
    check("$1.2k/month", &["$1.2k/month = 1200 USD/month"]);
    check("USD 4,500.50 per month", &["USD 4,500.50 per month = 4500.5 USD/month"]);
    check("60k a year", &["60k a year = 60000/year"]);
    check("my annual salary is £52,000", &["£52,000 = 52000 GBP/year"]);
    check("1,5 Mio. Euro", &["1,5 Mio. Euro = 1500000 EUR"]);
    check("two hundred and fifty thousand dollars", &["two hundred and fifty thousand dollars = 250000 USD"]);
    check("a hundred thousand", &["a hundred thousand = 100000"]);
    check("fifteen hundred bucks", &["fifteen hundred bucks = 1500 USD"]);
    check("10万元", &["10万元 = 100000 CNY"]);
    check("2万一个月", &["2万一个月 = 20000/month", "一个月 = 1 month"]);
    check("两万五", &["两万五 = 25000"]);
    check("三千五", &["三千五 = 3500"]);
    check("2万5", &["2万5 = 25000"]);
    check("1万2千元", &["1万2千元 = 12000 CNY"]);
    check("3万5百", &["3万5百 = 30500"]);
    check("十五万", &["十五万 = 150000"]);
    check("一百二十万", &["一百二十万 = 1200000"]);
    check("1亿", &["1亿 = 100000000"]);
    check("月薪两万元", &["两万元 = 20000 CNY/month"]);
    check("每月收入20000元", &["20000元 = 20000 CNY/month"]);
    check("年薪30万", &["30万 = 300000/year"]);
    check("一千万", &["一千万 = 10000000"]);
    check("1,500 on two cards", &["1,500 = 1500", "two = 2 things"]);
    check("逾期3次", &["3 = 3 things"]);
    check("工资一个月1万2", &["1万2 = 12000/month"]);
    check("借10万周转", &["10万 = 100000"]);
    check("$500 weekly", &["$500 weekly = 500 USD/week"]);
    check("nothing here, only one of them, mp3 and A4", &[]);
    check("万一一样千万别十分", &[]);
    check("99999999999999999999999999999999999999999", &[]);
}

#[test]
fn durations_percentages_and_ages() {
    let check = |text: &str, wanted: &[&str]| assert_eq!(said(text), wanted, "{text}");
    check("over 36 months at 4.5 %", &["36 months = 36 month", "4.5 % = 4.5%"]);
    check("a 24-month term", &["24-month = 24 month"]);
    check("for two years", &["two years = 2 year"]);
    check("分三年还清", &["三年 = 3 year"]);
    check("一年半", &["一年半 = 1.5 year"]);
    check("半年", &["半年 = 6 month"]);
    check("2 years 4 months", &["2 years 4 months = 28 month"]);
    check("two years and six months", &["two years and six months = 30 month"]);
    check("1 yr, 3 mos", &["1 yr, 3 mos = 15 month"]);
    check("两年零三个月", &["两年零三个月 = 27 month"]);
    check("2年6个月", &["2年6个月 = 30 month"]);
    check("6 months and 2 years", &["6 months = 6 month", "2 years = 2 year"]);
    check("36期", &["36期 = 36 month"]);
    check("利率百分之五", &["百分之五 = 5%"]);
    check("I'm 35 years old", &["35 years old = age 35"]);
    check("今年35岁", &["35岁 = age 35"]);
}

#[test]
fn dates() {
    let check = |text: &str, wanted: &[&str]| assert_eq!(said(text), wanted, "{text}");
    check("on 2026-03-01", &["2026-03-01 = 2026-03-01"]);
    check("2026/3/1", &["2026/3/1 = 2026-03-01"]);
    check("March 3rd, 2025", &["March 3rd, 2025 = 2025-03-03"]);
    check("3 March", &["3 March = 2026-03-03"]);
    check("Dec 24", &["Dec 24 = 2025-12-24"]);
    check("2025年12月1日", &["2025年12月1日 = 2025-12-01"]);
    check("3月20日", &["3月20日 = 2025-03-20"]);
    check("yesterday", &["yesterday = 2026-03-14"]);
    check("昨天", &["昨天 = 2026-03-14"]);
    check("10 days ago", &["10 days = 10 day", "10 days ago = 2026-03-05"]);
    check("3天前", &["3天 = 3 day", "3天前 = 2026-03-12"]);
    check("2026-02-30", &[]);
    check("in 2023年", &[]);
}

#[test]
fn days_and_dates_are_one_to_one() {
    let mut day = Day::of_date(1899, 12, 31).unwrap();
    for _ in 0..100_000 {
        let (year, month, date) = day.date();
        assert_eq!(Day::of_date(year, month, date), Some(day));
        day = day.before(-1);
    }
    assert_eq!(Day::of_date(2025, 2, 29), None);
    assert_eq!(Day::of_unix_seconds(86_400 * 59).to_string(), "1970-03-01");
}

#[test]
fn numerals() {
    let check =
        |text: &str, wanted: Option<i64>| assert_eq!(number::chinese(text), wanted.map(Decimal::from), "{text}");
    check("零", Some(0));
    check("十", Some(10));
    check("十二", Some(12));
    check("二十", Some(20));
    check("一百零五", Some(105));
    check("一百五", Some(150));
    check("一万零五百", Some(10_500));
    check("三亿五千万", Some(350_000_000));
    check("一二三", None);
    let english =
        |text: &str, wanted: Option<i64>| assert_eq!(number::english(text), wanted.map(Decimal::from), "{text}");
    english("twenty five thousand", Some(25_000));
    english("two million three hundred", Some(2_000_300));
    english("a", None);
    english("hello", None);
}

#[test]
fn periods_convert() {
    let month = |from: Period, amount: i64| from.rate_to(Period::Month, Decimal::from(amount)).unwrap().round_dp(2);
    assert_eq!(month(Period::Year, 60_000), Decimal::from(5000));
    assert_eq!(month(Period::Week, 600), Decimal::from(2600));
    assert_eq!(Period::Year.length_to(Period::Month, Decimal::new(15, 1)), Some(Decimal::from(18)));
}

#[test]
fn clauses_cover_the_text() {
    let text = "I earn 20,000. My card, and the rest; done";
    let clauses = clause::split(text);
    assert_eq!(clauses.iter().map(|c| &text[c.clone()]).collect::<String>(), text);
    assert!(clauses.len() > 3);
}

#[test]
fn languages() {
    assert_eq!(Language::of_text("I earn 20,000"), Language::English);
    assert_eq!(Language::of_text("我月薪2万"), Language::Chinese);
    assert_eq!(Language::of_tag("zh-CN"), Language::Chinese);
    assert_eq!(Language::of_tag("de"), Language::English);
}

#[test]
fn schemas_that_say_too_little_are_refused_by_property() {
    let check = |schema: serde_json::Value, message: &str| {
        let error = Facts::parse(&schema.to_string()).unwrap_err();
        assert!(error.contains(message), "{error}");
    };
    let with = |property: serde_json::Value| serde_json::json!({"properties": {"a": property}});
    check(serde_json::json!({}), "no `properties`");
    check(serde_json::json!({"properties": {}, "required": ["b"]}), "`b` is required");
    check(with(serde_json::json!({})), "property `a`: it has no `title`");
    check(with(serde_json::json!({"title": "A"})), "property `a`: it has no `x-fact`");
    check(
        with(serde_json::json!({"title": "A", "x-fact": {"kind": "magic"}})),
        "property `a`: x-fact: unknown variant",
    );
    check(with(serde_json::json!({"title": "A", "x-fact": {"kind": "money", "cue": []}})), "unknown field `cue`");
    check(with(serde_json::json!({"title": "A", "x-fact": {"kind": "duration"}})), "a duration needs `per`");
    check(with(serde_json::json!({"title": "A", "x-fact": {"kind": "choice"}})), "a choice needs `words`");
    let text = |more: serde_json::Value| {
        let mut property = serde_json::json!({"title": "A", "type": "string", "x-fact": {"kind": "text"}});
        property.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        with(property)
    };
    check(text(serde_json::json!({"type": "number"})), "a text needs `\"type\": \"string\"`");
    check(text(serde_json::json!({"x-fact": {"kind": "text", "sum": true}})), "remove `sum` and `words`");
    check(text(serde_json::json!({"x-fact": {"kind": "text", "words": {"a": ["b"]}}})), "remove `sum` and `words`");
    check(text(serde_json::json!({"minLength": 9, "maxLength": 3})), "no text has at least 9 and at most 3");
    check(text(serde_json::json!({"pattern": "^(?=a)b$"})), "is not valid regex");
}

/// The words that a property with `pattern` finds.
fn matched(pattern: &str, text: &str) -> Vec<String> {
    let schema = serde_json::json!({"properties": {"a": {
        "title": "A", "type": "string", "pattern": pattern, "x-fact": {"kind": "text"},
    }}});
    let facts = Facts::parse(&schema.to_string()).unwrap();
    matching(text, &facts).into_iter().map(|found| text[found.span].to_owned()).collect()
}

#[test]
fn patterns_find_whole_words() {
    let check = |pattern: &str, text: &str, wanted: &[&str]| assert_eq!(matched(pattern, text), wanted, "{text}");
    check(r"^[A-Z]{2}-\d+$", "AB-12, XAB-13 and (CD-14)", &["AB-12", "CD-14"]);
    check(r"^\d{4,}$", "订单12345号，12345x and 123", &["12345"]);
    check("a|b", "a ab b", &["a", "b"]);
    check(r"^#\d+$", "no.#12", &["#12"]);
    check("x*", "yy", &[]);
}

#[test]
fn digits_of_a_name_are_no_amount() {
    let text = "AB-20931 for 80";
    let facts = serde_json::json!({"properties": {"a": {
        "title": "A", "type": "string", "pattern": r"^[A-Z]+-\d+$", "x-fact": {"kind": "text"},
    }}});
    let matches = matching(text, &Facts::parse(&facts.to_string()).unwrap());
    let left = without_parts(propose(text, today()), &matches);
    assert_eq!(left.iter().map(|found| &text[found.span.clone()]).collect::<Vec<_>>(), ["80"]);
}

proptest! {
    /// Whatever a text is made of, quotes are its own, and amounts are read from characters that are there.
    #[test]
    fn quotes_are_the_texts_own(pieces in prop::collection::vec(
        prop::sample::select(vec![
            "20,000", "1.2k", " a month", "/year", "$", "元", "万", "2万5", "三千五", "一年半", "半年", "百分之", "5%", "%", " ", ", ", "。",
            "March 3", "3月", "日", "2026-02-30", "ago", "前", "yesterday", "two hundred", "and", "é", "👍", "99999999999999999999999999999",
            "0", ".", ",", "owe", "loan", "岁", "per", "一", "个月", "年", "hundred", "a", "-", "1,5", "Mio.", "期", "ſ", "İ",
        ]), 0..24)) {
        let text: String = pieces.concat();
        for proposal in propose(&text, today()) {
            let quote = text.get(proposal.span.clone());
            prop_assert!(quote.is_some_and(|quote| !quote.is_empty()), "{:?} of {text:?}", proposal);
        }
        let clauses = clause::split(&text);
        prop_assert_eq!(clauses.iter().map(|c| &text[c.clone()]).collect::<String>(), text);
    }
}
