//! `POST /v1/feedback`: what became of an answer. It joins the request's record in the ledger, counts for the rollout that the request went
//! through, and a conversion is charged by the prices in the settings.
//!
//! It concerns requests of the caller's own tenant; a user's key only its own. Who only reads records says nothing.

use axum::{Json, routing::post};
use ledger::{Charge, Conversion, Feedback, Given, Ledger, Receipt, Record, Scope, Take, Unbilled, ValuePrice};
use protocol::{Error, ErrorKind};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use services::rollout::Report;

use crate::{
    Caller, Role,
    api::Route,
    app::App,
    ask::Ask,
    body,
    refusal::Refusal,
    settings::{self, Money, Settings},
};

pub(crate) fn routes() -> Vec<Route> {
    vec![
        Route::post::<FeedbackBody>("/v1/feedback", post(feedback))
            .about("feedback", "Say how good an answer was, how it should have been, what came of it")
            .gives::<ReceiptBody>(),
    ]
}

/// The body of `POST /v1/feedback`; at least one of rating, correction, comment and conversion.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FeedbackBody {
    /// The request: the `id` of its answer, or its `x-request-id`.
    request_id: String,
    /// How good the answer was.
    #[serde(default)]
    rating: Option<Rating>,
    /// How it should have been.
    #[serde(default)]
    correction: Option<String>,
    /// Anything else.
    #[serde(default)]
    comment: Option<String>,
    /// What came of it; needs a `key`.
    #[serde(default)]
    conversion: Option<ConversionBody>,
    /// Your name for this feedback: the same one twice is written, and charged, once.
    #[serde(default)]
    key: Option<String>,
}

/// How good an answer was.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(untagged)]
enum Rating {
    /// Good, or not.
    Good(bool),
    /// Between 0 and 1.
    Share(f64),
    /// A thumb.
    Thumb(Thumb),
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Thumb {
    Up,
    Down,
}

/// Something of value that came of an answer.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ConversionBody {
    /// What happened, as `[[conversions]]` of the settings calls it.
    name: String,
    /// What it is worth, as a decimal.
    #[serde(default)]
    value: Money,
    /// In which currency; that of the settings, if it is not said.
    #[serde(default)]
    currency: Option<String>,
}

/// The answer to feedback.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ReceiptBody {
    /// What the feedback is called in the log.
    id: String,
    /// The request's name in the log.
    request_id: String,
    /// Where the feedback stands in the log.
    index: u64,
    /// The same key came before: nothing was written or charged anew.
    repeated: bool,
    /// What the conversion cost; left out without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    billed: Option<BilledBody>,
}

/// What a conversion cost.
#[derive(Debug, Serialize, JsonSchema)]
struct BilledBody {
    /// Charged by this call, as a decimal.
    amount: String,
    /// The currency.
    currency: String,
    /// Why it is nothing: `repeated`, `no_price`, `outside_window`, `other_currency`, `not_served`.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'static str>,
}

impl Rating {
    fn share(self) -> f64 {
        match self {
            Self::Share(share) => share,
            Self::Good(true) | Self::Thumb(Thumb::Up) => 1.0,
            Self::Good(false) | Self::Thumb(Thumb::Down) => 0.0,
        }
    }
}

impl FeedbackBody {
    fn into_feedback(self, caller: &Caller, settings: &Settings) -> Feedback {
        let conversion = |body: ConversionBody| Conversion {
            name: body.name,
            value: i64::try_from(body.value.0).unwrap_or(i64::MAX),
            currency: body.currency.unwrap_or_else(|| settings.ledger.currency.clone()),
        };
        Feedback {
            given_by: caller.key_id.clone(),
            key: self.key.unwrap_or_default(),
            rating: self.rating.map(Rating::share),
            correction: self.correction,
            comment: self.comment,
            conversion: self.conversion.map(conversion),
        }
    }
}

impl ReceiptBody {
    fn new(request_id: String, receipt: Receipt, currency: &str) -> Self {
        let Receipt { given, repeated } = receipt;
        let Given { id, index, conversion, charges, unbilled, .. } = given;
        let fresh = charges.iter().map(|charge: &Charge| charge.amount).filter(|_| !repeated);
        let amount = Money(u64::try_from(fresh.sum::<i64>()).unwrap_or(0)).to_string();
        let why = if repeated { Some("repeated") } else { unbilled.map(Unbilled::name) };
        let billed = conversion.map(|_| BilledBody { amount, currency: currency.to_owned(), why });
        Self { id, request_id, index, repeated, billed }
    }
}

/// Takes feedback in.
async fn feedback(ask: Ask) -> Result<Json<ReceiptBody>, Refusal> {
    let wanted: FeedbackBody = body::object(&ask.body)?;
    let app = &ask.app;
    let in_force = app.gateway.settings.get();
    let (ledger, record) = record(app, &ask.caller, &wanted.request_id).await?;
    let price = wanted.conversion.as_ref().and_then(|wanted| price(&in_force.settings, &wanted.name));
    let feedback = wanted.into_feedback(&ask.caller, &in_force.settings);
    let rating = feedback.rating;
    let receipt = ledger.give(&record, feedback, price.as_ref()).await.map_err(Error::from)?;
    // The first rating of an answer counts; whoever rates it often has one voice.
    let rated = record.feedback.iter().any(|given| given.rating.is_some());
    if let Some(rating) = rating.filter(|_| !rated && !receipt.repeated) {
        app.services().report(&record.route.hops, |_| Report::Rated(rating));
    }
    Ok(Json(ReceiptBody::new(record.request_id, receipt, &in_force.settings.ledger.currency)))
}

/// The record that the caller may speak of.
async fn record<'a>(app: &'a App, caller: &Caller, named: &str) -> Result<(&'a Ledger, Record), Error> {
    if caller.role == Role::Auditor {
        let message = "This key is an auditor's: it reads records and says nothing of them.";
        return Err(Error::new(ErrorKind::Forbidden, message).with_code("insufficient_permissions"));
    }
    let nothing = || Error::new(ErrorKind::NotFound, "This server keeps no records.").with_code("no_ledger");
    let ledger = app.gateway.ledger.as_ref().ok_or_else(nothing)?;
    let scope = Scope::Tenant(caller.tenant.clone());
    let found = ledger.record(&scope, &request_id(named)).await?;
    let own = |record: &Record| caller.role == Role::Admin || record.key_id == caller.key_id;
    let missing = || {
        let message = format!("There is no request `{named}` that this key may speak of.");
        Error::new(ErrorKind::NotFound, message).with_param("request_id").with_code("no_record")
    };
    Ok((ledger, found.filter(own).ok_or_else(missing)?))
}

/// The request that an answer's id names: behind the prefix of its dialect stands what stands behind `req_`.
fn request_id(named: &str) -> String {
    let bare = named.rsplit(['-', '_']).next().unwrap_or(named);
    format!("req_{bare}")
}

/// What a conversion of this name costs.
fn price(settings: &Settings, name: &str) -> Option<ValuePrice> {
    let rule = settings.conversions.iter().find(|rule| rule.name == name)?;
    let nano = |money: Money| i64::try_from(money.0).unwrap_or(i64::MAX);
    let settings::Conversion { share, amount, window, cap, .. } = rule;
    Some(ValuePrice {
        // A share is money of every unit of value: its billionths are thousandths of millionths.
        take: if amount.0 > 0 { Take::Amount(nano(*amount)) } else { Take::Share(nano(*share) / 1000) },
        window: window.0,
        cap: (cap.0 > 0).then_some(nano(*cap)),
        currency: settings.ledger.currency.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_name_their_requests() {
        for named in ["req_0a1b", "chatcmpl-0a1b", "cmpl-0a1b", "resp_0a1b", "msg_0a1b", "modr-0a1b", "0a1b"] {
            assert_eq!(request_id(named), "req_0a1b", "{named}");
        }
    }
}
