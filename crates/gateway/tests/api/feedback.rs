//! Feedback through its HTTP surface: whose it may be, what it costs, and what auditors read.

use ledger::Role;
use serde_json::{Value, json};

use crate::{
    fake::Fake,
    govern::{Place, hello},
    text,
};

const SETTINGS: &str = r#"
[prices.talker]
input = "1.00"

[ledger]
currency = "EUR"

[[conversions]]
name = "order"
share = "0.02"
cap = "1.00"

[[conversions]]
name = "ticket closed"
amount = "0.30"

[[conversions]]
name = "late"
share = "1.00"
window = "0s"
"#;

/// The answer's id, and the request's.
async fn asked(place: &Place, key: &str) -> (String, String) {
    let response = place.chat(key, hello(json!({}))).await;
    let request = response.headers()["x-request-id"].to_str().unwrap().to_owned();
    let body: Value = serde_json::from_str(&text(response).await).unwrap();
    (body["id"].as_str().unwrap().to_owned(), request)
}

fn of(id: &str, extra: &Value) -> Value {
    let mut body = json!({ "request_id": id });
    body.as_object_mut().unwrap().extend(extra.as_object().cloned().unwrap());
    body
}

#[tokio::test]
async fn only_whose_request_it_is_may_speak_of_it() {
    let place = Place::new(&Fake::parrot(), SETTINGS).await;
    let own = place.key("acme", Role::User, |_| ()).await;
    let (answer, request) = asked(&place, &own).await;
    let colleague = place.key("acme", Role::User, |_| ()).await;
    let admin = place.key("acme", Role::Admin, |_| ()).await;
    let stranger = place.key("other", Role::Admin, |_| ()).await;
    let auditor = place.key("acme", Role::Auditor, |_| ()).await;
    for (key, status) in [(&own, 200), (&admin, 200), (&colleague, 404), (&stranger, 404), (&auditor, 403)] {
        for id in [&answer, &request] {
            let (found, body) = place.post(key, "/v1/feedback", of(id, &json!({ "rating": true }))).await;
            assert_eq!(found, status, "{body}");
            assert!(status != 200 || body["request_id"] == request, "{body}");
        }
    }
}

#[tokio::test]
async fn what_is_said_is_read_with_the_record() {
    let place = Place::new(&Fake::parrot(), SETTINGS).await;
    let (answer, request) = asked(&place, "").await;
    let rate = async |rating: Value| {
        let (status, body) = place.post("", "/v1/feedback", of(&answer, &json!({ "rating": rating }))).await;
        assert!(status == 200 || body["error"]["type"] == "invalid_request_error", "{body}");
        status
    };
    for (rating, status) in [
        (json!(true), 200),
        (json!(false), 200),
        (json!(0.75), 200),
        (json!("up"), 200),
        (json!("down"), 200),
        (json!(1.5), 400),
        (json!("great"), 400),
    ] {
        assert_eq!(rate(rating.clone()).await, status, "{rating}");
    }
    let words = json!({ "correction": "Hi", "comment": "too long", "key": "k" });
    for repeated in [false, true] {
        let (_, body) = place.post("", "/v1/feedback", of(&answer, &words)).await;
        assert_eq!((&body["repeated"], body["index"].is_u64()), (&json!(repeated), true), "{body}");
    }
    for wrong in [json!({}), json!({ "ratings": 1 }), json!({ "rating": 1, "conversion": { "name": "order" } })] {
        assert_eq!(place.post("", "/v1/feedback", of(&answer, &wrong)).await.0, 400, "{wrong}");
    }
    let listed = place.get("", "/v1/audit/records?with_feedback=true").await.1;
    let said = listed["records"][0]["feedback"].as_array().unwrap();
    let ratings: Vec<_> = said.iter().map(|given| given["rating"].as_f64()).collect();
    assert_eq!(ratings, [Some(1.0), Some(0.0), Some(0.75), Some(1.0), Some(0.0), None]);
    assert_eq!((&said[5]["correction"], &said[5]["comment"]), (&json!("Hi"), &json!("too long")));
    let (_, record) = place.get("", &format!("/v1/audit/records/{request}")).await;
    assert_eq!(record["feedback"].as_array().map(Vec::len), Some(6), "{record}");
    assert_eq!(place.ledger.verify(None).await.unwrap().problems, []);
}

#[tokio::test]
async fn conversions_are_charged_by_the_settings() {
    let place = Place::new(&Fake::parrot(), SETTINGS).await;
    let (answer, request) = asked(&place, "").await;
    let check = async |conversion: Value, key: &str, amount: &str, why: Option<&str>| {
        let body = json!({ "conversion": conversion, "key": key });
        let (status, body) = place.post("", "/v1/feedback", of(&answer, &body)).await;
        assert_eq!(status, 200, "{body}");
        let billed = &body["billed"];
        assert_eq!((billed["amount"].as_str(), billed["why"].as_str()), (Some(amount), why), "{conversion} {key}");
        assert_eq!(billed["currency"], "EUR");
    };
    let order = |value: &str| json!({ "name": "order", "value": value });
    check(order("12.50"), "a", "0.25", None).await;
    check(order("12.50"), "a", "0.00", Some("repeated")).await;
    check(order("999.00"), "b", "1.00", None).await;
    check(json!({ "name": "order", "value": "1.00", "currency": "USD" }), "c", "0.00", Some("other_currency")).await;
    check(json!({ "name": "ticket closed" }), "a", "0.30", None).await;
    check(json!({ "name": "smile", "value": "1.00" }), "a", "0.00", Some("no_price")).await;
    check(json!({ "name": "late", "value": "1.00" }), "a", "0.00", Some("outside_window")).await;
    let wrong = json!({ "conversion": { "name": "order", "value": "1,5" }, "key": "d" });
    assert_eq!(place.post("", "/v1/feedback", of(&answer, &wrong)).await.0, 400);
    let (_, record) = place.get("", &format!("/v1/audit/records/{request}")).await;
    let charged =
        record["feedback"].as_array().unwrap().iter().filter_map(|given| given["charges"][0]["amount"].as_i64());
    assert_eq!(charged.sum::<i64>(), 1_550_000_000, "{record}");
    let bill = place.ledger.usage().bill("default", ledger::Period { starts: 0, ends: i64::MAX }).await.unwrap();
    let tokens = record["cost"].as_i64().unwrap();
    assert_eq!(bill.iter().map(|line| line.amount).sum::<i64>(), 1_550_000_000 + tokens);
    assert_eq!(place.ledger.verify(None).await.unwrap().problems, []);
}
