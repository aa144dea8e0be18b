//! `/v1/reasoning`: whole answers, streams, replays and followers, over a scripted service.

use std::{sync::Arc, time::Duration};

use axum::Router;
use expect_test::{Expect, expect};
use futures_util::{FutureExt, future::BoxFuture};
use gateway::Services;
use protocol::{Decide, DecideRequest, DecisionCard, Error, SolveRequest, StepStream};
use serde_json::Value;
use tokio::{task::JoinSet, time::sleep};

use crate::{fake::Fake, get, named, post, scripted::Scripted, send, shown, text, unnamed};

const PATH: &str = "/v1/reasoning/decisions";

/// A worker without decisions: whatever is asked of it is a mistake.
#[derive(Debug)]
struct Idle;

impl Decide for Idle {
    fn decisions(&self) -> Vec<DecisionCard> {
        Vec::new()
    }

    fn decide(&self, _: DecideRequest) -> BoxFuture<'_, Result<StepStream, Error>> {
        async { Err(Error::internal("Asked of the idle one.")) }.boxed()
    }

    fn solve(&self, _: SolveRequest) -> BoxFuture<'_, Result<StepStream, Error>> {
        async { Err(Error::internal("Asked of the idle one.")) }.boxed()
    }
}

fn app() -> Router {
    let fake = Fake::parrot();
    gateway::router(fake.gateway_of(Services { decide: vec![Arc::new(Idle), Arc::new(Scripted)], ..fake.services() }))
}

/// The answer, and the name of the path.
async fn answered(app: &Router, body: &str) -> (String, String) {
    let response = send(app, post(PATH, body)).await;
    let id = named(&response);
    (shown(response).await, id)
}

/// What there is about the path of this name.
async fn again(app: &Router, id: &str, what: &str) -> String {
    unnamed(&shown(send(app, get(&format!("/v1/reasoning/{id}{what}"))).await).await, id)
}

async fn check(app: &Router, body: &str, expected: Expect) {
    expected.assert_eq(&shown(send(app, post(PATH, body)).await).await);
}

#[tokio::test]
async fn whole_and_replayed() {
    let app = app();
    let answer = expect![[r#"
        200 OK
        content-type: application/json

        {"request_id":"t1","object":"decision","status":"decided","decision":"small","version":"v1","output":{"decision":"yes"},"facts":{"x":{"value":2,"quote":{"text":"2","start":2,"end":3}}},"missing":[],"explanation":"Sum: 3.","usage":{"prompt_tokens":0,"cached_tokens":0,"completion_tokens":0},"steps":[{"step":1,"action":"Sum","result":{"y":3},"rule":"x > 1","inputs":{"x":2},"duration_us":7,"node":"n"}]}
    "#]];
    let (found, id) = answered(&app, r#"{"decision": "small", "text": "a 2"}"#).await;
    answer.assert_eq(&found);
    assert_eq!(again(&app, &id, "").await, found);
    let missing = expect![[r#"
        404 Not Found
        content-type: application/json

        {"error":{"message":"There is no path of reasoning `t2` here, or not any more.","type":"invalid_request_error","param":null,"code":"path_not_found"}}
    "#]];
    missing.assert_eq(&shown(send(&app, get("/v1/reasoning/t2")).await).await);
}

#[tokio::test]
async fn what_is_missing_is_asked_for() {
    check(&app(), r#"{"decision": "asks", "facts": {"y": 1}}"#, expect![[r#"
        200 OK
        content-type: application/json

        {"request_id":"t1","object":"decision","status":"incomplete","decision":"asks","version":"v1","output":null,"facts":{},"missing":[{"fact":"x","question":"What is x?"}],"explanation":"","usage":{"prompt_tokens":0,"cached_tokens":0,"completion_tokens":0},"steps":[]}
    "#]])
    .await;
}

#[tokio::test]
async fn streamed_and_followed_afterwards() {
    let app = app();
    let events = expect![[r#"
        200 OK
        content-type: text/event-stream

        event: started
        data: {"request_id":"t1","decision":"small","version":"v1"}

        event: step
        data: {"step":1,"action":"Sum","result":{"y":3},"rule":"x > 1","inputs":{"x":2},"duration_us":7,"node":"n"}

        event: decision
        data: {"request_id":"t1","object":"decision","status":"decided","decision":"small","version":"v1","output":{"decision":"yes"},"facts":{"x":{"value":2,"quote":{"text":"2","start":2,"end":3}}},"missing":[],"explanation":"Sum: 3.","usage":{"prompt_tokens":0,"cached_tokens":0,"completion_tokens":0},"steps":[{"step":1,"action":"Sum","result":{"y":3},"rule":"x > 1","inputs":{"x":2},"duration_us":7,"node":"n"}]}


    "#]];
    let (found, id) = answered(&app, r#"{"decision": "small", "text": "a 2", "stream": true}"#).await;
    events.assert_eq(&found);
    assert_eq!(again(&app, &id, "/events").await, found);
}

#[tokio::test]
async fn problems_are_solved() {
    let app = app();
    let solve = async |body: &str| shown(send(&app, post("/v1/reasoning/solve", body)).await).await;
    let whole = solve(r#"{"problem": "6 times 7?", "chains": 1}"#).await;
    expect![[r#"
        200 OK
        content-type: application/json

        {"request_id":"t1","object":"solution","status":"solved","answer":"42","confidence":1.0,"chains":[{"unknowns":[],"steps":[],"answer":"42","weight":1.0,"verdict":"verified"}],"verdict":"verified","usage":{"prompt_tokens":0,"cached_tokens":0,"completion_tokens":0},"steps":[{"step":1,"action":"the product","result":"42","rule":"x > 1","inputs":{"expression":"6 * 7"},"duration_us":7,"node":"n"}]}
    "#]].assert_eq(&whole);
    expect![[r#"
        200 OK
        content-type: text/event-stream

        event: started
        data: {"request_id":"t1","decision":null,"version":""}

        event: step
        data: {"step":1,"action":"the product","result":"42","rule":"x > 1","inputs":{"expression":"6 * 7"},"duration_us":7,"node":"n"}

        event: solution
        data: {"request_id":"t1","object":"solution","status":"solved","answer":"42","confidence":1.0,"chains":[{"unknowns":[],"steps":[],"answer":"42","weight":1.0,"verdict":"verified"}],"verdict":"verified","usage":{"prompt_tokens":0,"cached_tokens":0,"completion_tokens":0},"steps":[{"step":1,"action":"the product","result":"42","rule":"x > 1","inputs":{"expression":"6 * 7"},"duration_us":7,"node":"n"}]}


    "#]].assert_eq(&solve(r#"{"problem": "6 times 7?", "chains": 1, "stream": true}"#).await);
    expect![[r#"
        400 Bad Request
        content-type: application/json

        {"error":{"message":"Effort { chains: 5, retries: 2, check: Off } for default as talker.","type":"invalid_request_error","param":"chains","code":null}}
    "#]].assert_eq(&solve(r#"{"problem": "6 times 7?", "check": "off"}"#).await);
    assert!(solve(r#"{"problem": "p", "model": "nobody"}"#).await.contains("nobody"));
    let without = send(&Fake::parrot().router(), post("/v1/reasoning/solve", r#"{"problem": "p"}"#)).await;
    assert!(shown(without).await.contains("Nothing is solved here"));
}

#[tokio::test]
async fn failures() {
    let app = app();
    check(
        &app,
        r#"{"decision": "fails", "facts": {"x": 1}, "stream": true}"#,
        expect![[r#"
        200 OK
        content-type: text/event-stream

        event: started
        data: {"request_id":"t1","decision":"fails","version":"v1"}

        event: step
        data: {"step":1,"action":"Sum","result":null,"rule":"x > 1","inputs":{"x":2},"duration_us":7,"node":"n"}

        event: error
        data: {"error":{"message":"It broke.","type":"server_error","param":null,"code":null}}


    "#]],
    )
    .await;
    let (found, id) = answered(&app, r#"{"decision": "fails", "facts": {"x": 1}}"#).await;
    expect![[r#"
        500 Internal Server Error
        content-type: application/json

        {"error":{"message":"It broke.","type":"server_error","param":null,"code":null}}
    "#]]
    .assert_eq(&found);
    // A path that failed is there to be looked at.
    assert!(again(&app, &id, "").await.contains(r#""status":"failed""#));
    check(
        &app,
        r#"{"decision": "refuses", "facts": {"x": 1}, "stream": true}"#,
        expect![[r#"
        400 Bad Request
        content-type: application/json

        {"error":{"message":"No such fact.","type":"invalid_request_error","param":"facts.x","code":null}}
    "#]],
    )
    .await;
    check(&app, r#"{"decision": "small", "text": "2", "temperature": 1}"#, expect![[r#"
        400 Bad Request
        content-type: application/json

        {"error":{"message":"`temperature`: unknown field `temperature`, expected one of `decision`, `text`, `facts`, `model`, `language`, `user`, `stream`.","type":"invalid_request_error","param":"temperature","code":null}}
    "#]])
    .await;
    let without = Fake::parrot().router();
    check(&without, r#"{"decision": "small", "facts": {"x": 1}}"#, expect![[r#"
        400 Bad Request
        content-type: application/json

        {"error":{"message":"No decisions are made here: the server runs without that service.","type":"invalid_request_error","param":null,"code":null}}
    "#]])
    .await;
}

#[tokio::test]
async fn decisions_are_listed() {
    let list: Value = serde_json::from_str(&text(send(&app(), get(PATH)).await).await).unwrap();
    assert_eq!(list["data"].as_array().unwrap().len(), 5);
    assert_eq!(list["data"][0]["id"], "small");
    assert_eq!(list["data"][0]["problem"], Value::Null);
}

/// Whoever follows gets the steps so far at once, and the end when it comes.
#[tokio::test(start_paused = true)]
async fn followed_while_it_runs() {
    let app = app();
    let asked = send(&app, post(PATH, r#"{"decision": "slow", "facts": {"x": 1}, "stream": true}"#)).await;
    let id = named(&asked);
    let mut task = JoinSet::new();
    task.spawn(shown(asked));
    sleep(Duration::from_secs(1)).await;
    assert!(again(&app, &id, "").await.contains(r#""status":"running""#));
    let followed = again(&app, &id, "/events").await;
    assert_eq!(task.join_next().await.unwrap().unwrap(), followed);
    assert!(followed.contains("event: decision"));
}

/// Hanging up cancels the work, and the path says so.
#[tokio::test(start_paused = true)]
async fn a_caller_who_leaves() {
    let app = app();
    let asked = send(&app, post(PATH, r#"{"decision": "slow", "facts": {"x": 1}, "stream": true}"#)).await;
    let id = named(&asked);
    drop(asked);
    let left = again(&app, &id, "").await;
    assert!(left.contains(r#""status":"failed""#) && left.contains("cancelled"), "{left}");
}
