//! What callers say of an answer once they had it: a rating, how it should have been, what came of it.
//!
//! Each is an entry of its own behind the request's two; nothing that was written changes. Rating, conversion and charges stand open in the
//! log, as outcome and cost do; words are sealed under the key of the person whom the request concerned, and go when that person is erased.
//!
//! A conversion (an order, a ticket that was closed) may cost something ([`ValuePrice`]). Its charge is a usage row like those of tokens,
//! written with the entry in one transaction, so bills and budgets count it and reconcile. An entry's id is a hash over request, conversion
//! and the caller's key: what is sent twice is written, and charged, once. Keys are not kept; only their hash is.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    Charge, Content, Error, Item, Ledger, Outcome, Record, Result,
    clock::micros,
    entry::{Body, FeedbackBody, Phase},
    ledger::sensible,
    note::hex,
    read::opened,
    store::{Row, built, placeholders},
    vault::Plain,
};

/// Bytes of a name or a key at most.
const LONGEST: usize = 128;
/// How long, and how often, to wait for a commit of somebody else's.
const LOOK: Duration = Duration::from_millis(10);
const LOOKS: usize = 500;

/// What somebody says of a request.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Feedback {
    /// Who says so: the public part of a key.
    pub given_by: String,
    /// Tells this feedback from others of the request: the same one twice counts once. Empty: every one is another. A conversion needs it.
    pub key: String,
    /// How good the answer was, 0 to 1.
    pub rating: Option<f64>,
    /// How it should have been. Sealed.
    pub correction: Option<String>,
    /// Anything else. Sealed.
    pub comment: Option<String>,
    /// What came of it.
    pub conversion: Option<Conversion>,
}

/// Something of value that came of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Conversion {
    /// What happened, in the word that prices use.
    pub name: String,
    /// What it is worth, in nano-units of the currency.
    pub value: i64,
    /// The currency, as its three letters.
    pub currency: String,
}

/// What a conversion costs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValuePrice {
    /// How much.
    pub take: Take,
    /// How long after its request a conversion counts.
    pub window: Duration,
    /// Nano-units of currency at most; `None` is no limit.
    pub cap: Option<i64>,
    /// The currency of the bill.
    pub currency: String,
}

/// How much of a conversion is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Take {
    /// So many millionths of its value.
    Share(i64),
    /// So many nano-units of currency, whatever its value.
    Amount(i64),
}

/// Why a conversion costs nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Unbilled {
    /// No price is set for it.
    NoPrice,
    /// It came too long after its request.
    OutsideWindow,
    /// It is in another currency than bills.
    OtherCurrency,
    /// The request was not served.
    NotServed,
}

impl Unbilled {
    /// Its name, as it is stored and shown.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoPrice => "no_price",
            Self::OutsideWindow => "outside_window",
            Self::OtherCurrency => "other_currency",
            Self::NotServed => "not_served",
        }
    }
}

/// Feedback as it is read back.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Given {
    /// What it is called.
    pub id: String,
    /// Where it stands in the log.
    pub index: u64,
    /// Microseconds since 1970.
    pub at: i64,
    /// The public part of the key it came with.
    pub given_by: String,
    /// How good the answer was, 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rating: Option<f64>,
    /// How it should have been; `None` once erased.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub correction: Option<String>,
    /// What else was said; `None` once erased.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// What came of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conversion: Option<Conversion>,
    /// What that cost.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub charges: Vec<Charge>,
    /// Why it cost nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unbilled: Option<Unbilled>,
    /// What has become of its words.
    pub content: Content,
}

/// That feedback was taken.
#[derive(Debug, Clone, PartialEq)]
pub struct Receipt {
    /// What was written.
    pub given: Given,
    /// It was written, and charged, before.
    pub repeated: bool,
}

/// The words of feedback, as they are sealed.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
struct Words {
    correction: Option<String>,
    comment: Option<String>,
}

impl ValuePrice {
    /// What a conversion costs, or why nothing, of a request that was accepted then.
    fn charge(&self, conversion: &Conversion, accepted_at: i64, now: i64) -> Result<Charge, Unbilled> {
        if now.saturating_sub(accepted_at) > micros(self.window) {
            return Err(Unbilled::OutsideWindow);
        }
        let whole = match self.take {
            Take::Share(_) if conversion.currency != self.currency => return Err(Unbilled::OtherCurrency),
            Take::Share(share) => Charge::new(Item::Value, u64::try_from(conversion.value).unwrap_or(0), share),
            Take::Amount(amount) => Charge::new(Item::Conversions, 1, amount.saturating_mul(1_000_000)),
        };
        Ok(Charge { amount: self.cap.map_or(whole.amount, |cap| whole.amount.min(cap)), ..whole })
    }
}

/// An entry's charges and why there are none, for a conversion at this price.
fn billed(
    record: &Record,
    conversion: Option<&Conversion>,
    price: Option<&ValuePrice>,
    now: i64,
) -> (Vec<Charge>, Option<Unbilled>) {
    let Some(conversion) = conversion else { return (vec![], None) };
    let charge = match price {
        _ if record.outcome != Some(Outcome::Served) => Err(Unbilled::NotServed),
        None => Err(Unbilled::NoPrice),
        Some(price) => price.charge(conversion, record.accepted_at, now),
    };
    charge.map_or_else(|why| (vec![], Some(why)), |charge| (vec![charge], None))
}

/// The name of feedback: the same for the same request, conversion and key.
fn named(request_id: &str, feedback: &Feedback) -> String {
    let mut hash = Sha256::new();
    let kind = feedback.conversion.as_ref().map_or("", |conversion| &conversion.name);
    for word in [request_id, kind, &feedback.key] {
        // With their lengths, so that no two lists of words are the same bytes.
        hash.update((word.len() as u64).to_le_bytes());
        hash.update(word);
    }
    if feedback.key.is_empty() {
        hash.update(rand::random::<[u8; 16]>());
    }
    format!("feedback-{}", hex(&hash.finalize()[..16]))
}

fn check(feedback: &Feedback) -> Result<()> {
    let Feedback { key, rating, correction, comment, conversion, .. } = feedback;
    let malformed = |what: &str| Err(Error::Malformed(what.to_owned()));
    let names = conversion.iter().flat_map(|c| [&c.name, &c.currency]).chain([key]);
    if names.into_iter().any(|name| name.len() > LONGEST || name.contains('\0')) {
        return malformed("names and keys are at most 128 bytes, none of them zero");
    }
    if rating.is_none() && correction.is_none() && comment.is_none() && conversion.is_none() {
        return malformed("feedback says something: a rating, a correction, a comment or a conversion");
    }
    if rating.is_some_and(|rating| !(0.0..=1.0).contains(&rating)) {
        return malformed("a rating is between 0 and 1");
    }
    match conversion {
        Some(conversion) if conversion.name.is_empty() => malformed("a conversion needs a name"),
        Some(_) if key.is_empty() => malformed("a conversion needs a key, so that it is never charged twice"),
        Some(conversion) if !sensible(conversion.value) => malformed("the value of a conversion is too large"),
        _ => Ok(()),
    }
}

impl Ledger {
    /// Writes what somebody says of a request; a conversion is charged to the key that asked, at this price. Budgets count that and do not
    /// refuse it. Returns once it reached the operating system (PostgreSQL: the disk).
    ///
    /// # Errors
    /// [`Error::Malformed`] if it says nothing or not what it must; [`Error::NotFound`] for words on a request whose person was erased or
    /// whose content expired: nobody could erase them any more.
    pub async fn give(&self, record: &Record, feedback: Feedback, price: Option<&ValuePrice>) -> Result<Receipt> {
        check(&feedback)?;
        let id = named(&record.request_id, &feedback);
        if let Some(given) = self.feedback_called(&id).await? {
            return Ok(Receipt { given, repeated: true });
        }
        let repeated = match self.write_feedback(record, &id, feedback, price).await {
            Ok(_) => false,
            // The same came at the same moment, and first.
            Err(Error::Duplicate(_)) => true,
            Err(error) => return Err(error),
        };
        Ok(Receipt { given: self.written(&id).await?, repeated })
    }

    /// Feedback that was written. One that came first at the same moment may be in a commit that is not over yet.
    async fn written(&self, id: &str) -> Result<Given> {
        for _ in 0..LOOKS {
            if let Some(given) = self.feedback_called(id).await? {
                return Ok(given);
            }
            tokio::time::sleep(LOOK).await;
        }
        Err(Error::Store(format!("{id} was written and is not there")))
    }

    async fn write_feedback(
        &self,
        record: &Record,
        id: &str,
        feedback: Feedback,
        price: Option<&ValuePrice>,
    ) -> Result<u64> {
        let Feedback { given_by, rating, correction, comment, conversion, .. } = feedback;
        let words = Words { correction, comment };
        let content = match words == Words::default() {
            true => None,
            false => Some((self.subject(&record.request_id).await?, Plain::new(&words)?)),
        };
        let at = self.clock().now();
        let (charges, unbilled) = billed(record, conversion.as_ref(), price, at);
        let body = Body::Feedback(FeedbackBody {
            id: id.to_owned(),
            request_id: record.request_id.clone(),
            tenant: record.tenant.clone(),
            key_id: record.key_id.clone(),
            at,
            given_by,
            rating,
            conversion,
            charges: charges.clone(),
            unbilled,
            content: content.as_ref().map(|(_, plain)| plain.hash()).unwrap_or_default(),
        });
        let join = "INSERT INTO feedback (id, request_id) VALUES ($1, $2)";
        let join = (join, vec![id.into(), record.request_id.as_str().into()]);
        self.write(&body, content, charges, vec![join]).await
    }

    /// Whom the content of a request concerns.
    async fn subject(&self, request_id: &str) -> Result<String> {
        let sql =
            "SELECT u.subject FROM entries e JOIN contents c ON c.idx = e.idx JOIN subjects u ON u.id = c.subject_id
                   WHERE e.request_id = $1 AND e.phase = 0";
        let rows = self.shared.store.rows(sql, vec![request_id.into()]).await?;
        let gone = || Error::NotFound(format!("the content of {request_id:?} was erased: no words are kept about it"));
        rows.first().ok_or_else(gone)?.text(0)
    }

    async fn feedback_called(&self, id: &str) -> Result<Option<Given>> {
        let rows = self.shared.store.rows(built(format!("{GIVEN} f.id = $1")), vec![id.into()]).await?;
        rows.first().map(|row| self.given(row)).transpose()
    }

    /// Puts beside each record what was said of it, in the order in which it came.
    pub(crate) async fn add_feedback(&self, records: &mut [Record]) -> Result<()> {
        if records.is_empty() {
            return Ok(());
        }
        let ids = placeholders(1, records.len());
        let args = records.iter().map(|record| record.request_id.as_str().into()).collect();
        let sql = format!("{GIVEN} f.request_id IN {ids} ORDER BY e.idx");
        for row in self.shared.store.rows(built(sql), args).await? {
            let of = row.text(0)?;
            if let Some(record) = records.iter_mut().find(|record| record.request_id == of) {
                record.feedback.push(self.given(&row)?);
            }
        }
        Ok(())
    }

    fn given(&self, row: &Row) -> Result<Given> {
        let index = row.count(1)?;
        let Body::Feedback(body) = Body::decode(&row.blob(2)?)? else {
            return Err(Error::Altered(format!("entry {index} is no feedback")));
        };
        let (plain, content) = opened(&self.shared.keyring, row, 3, &body.id, Phase::Feedback, &body.content)?;
        let words = plain.and_then(|plain| serde_json::from_slice::<Words>(plain.content()).ok()).unwrap_or_default();
        let FeedbackBody { id, at, given_by, rating, conversion, charges, unbilled, .. } = body;
        let Words { correction, comment } = words;
        Ok(Given { id, index, at, given_by, rating, correction, comment, conversion, charges, unbilled, content })
    }
}

/// Feedback, with its sealed words and the key for them.
const GIVEN: &str = "SELECT f.request_id, e.idx, e.body, c.sealed, COALESCE(u.id, ''), u.wrapped
     FROM feedback f JOIN entries e ON e.request_id = f.id AND e.phase = 3
     LEFT JOIN contents c ON c.idx = e.idx LEFT JOIN subjects u ON u.id = c.subject_id WHERE";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conversion_costs_what_its_price_says() {
        const UNIT: i64 = 1_000_000_000;
        let check = |take: Take, cap: Option<i64>, value: i64, currency: &str, expected: Result<i64, Unbilled>| {
            let price = ValuePrice { take, window: Duration::from_secs(60), cap, currency: "EUR".to_owned() };
            let conversion = Conversion { name: "order".to_owned(), value, currency: currency.to_owned() };
            let charge = price.charge(&conversion, 5, 60_000_005).map(|charge| charge.amount);
            assert_eq!(charge, expected, "{take:?} {cap:?} {value} {currency}");
            assert_eq!(price.charge(&conversion, 5, 60_000_006), Err(Unbilled::OutsideWindow));
        };
        let (share, amount) = (Take::Share(20_000), Take::Amount(3 * UNIT / 2));
        check(share, None, 12 * UNIT, "EUR", Ok(240_000_000));
        check(share, None, 25, "EUR", Ok(0)); // 0.5
        check(share, None, 75, "EUR", Ok(2)); // 1.5
        check(share, Some(UNIT), 1000 * UNIT, "EUR", Ok(UNIT));
        check(share, None, 12 * UNIT, "USD", Err(Unbilled::OtherCurrency));
        check(amount, None, 0, "USD", Ok(3 * UNIT / 2));
        check(amount, Some(UNIT), 7, "EUR", Ok(UNIT));
    }

    #[test]
    fn the_same_key_is_the_same_feedback() {
        let of = |key: &str, conversion: &str| Feedback {
            key: key.to_owned(),
            conversion: (!conversion.is_empty()).then(|| Conversion {
                name: conversion.to_owned(),
                value: 1,
                currency: String::new(),
            }),
            ..Feedback::default()
        };
        let first = named("r", &of("k", "order"));
        assert_eq!(first, named("r", &of("k", "order")));
        for other in [named("s", &of("k", "order")), named("r", &of("l", "order")), named("r", &of("k", ""))] {
            assert_ne!(first, other);
        }
        assert_ne!(named("r", &of("", "")), named("r", &of("", "")));
    }
}
