//! `/v1/reasoning`: whole answers, streams, replays and followers, over a scripted service.

use std::{sync::Arc, time::Duration};

use axum::Router;
use expect_test::{Expect, expect};
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream};
use gateway::Services;
use protocol::{
    Chain, Conclusion, Decide, DecideRequest, Decision, DecisionCard, Error, Fact, Question, Quote, Solution,
    SolveRequest, Step, StepEvent, StepStream, Verdict,
};
use serde_json::{Value, json};
use tokio::{task::JoinSet, time::sleep};

use crate::{fake::Fake, get, named, post, send, shown, text, unnamed};

const PATH: &str = "/v1/reasoning/decisions";

/// Decides by the name of the decision: `small` decides, `asks` asks, `fails` fails behind a step, `slow` waits before its end,
/// `refuses` refuses.
#[derive(Debug)]
struct Scripted;

fn step(action: &str, result: Value) -> StepEvent {
    StepEvent::Step(line(action, result))
}

fn line(action: &str, result: Value) -> Step {
    Step {
        step: 1,
        action: action.to_owned(),
        result,
        rule: Some("x > 1".to_owned()),
        inputs: json!({"x": 2}),
        duration_us: 7,
        node: Some("n".to_owned()),
    }
}

fn done(decision: Decision) -> StepEvent {
    StepEvent::Done(Box::new(Conclusion::Decision(decision)))
}

fn decided() -> Decision {
    let quote = Quote { text: "2".to_owned(), start: 2, end: 3 };
    Decision {
        output: Some(json!({"decision": "yes"})),
        facts: [("x".to_owned(), Fact { value: json!(2), quote: Some(quote) })].into(),
        explanation: "Sum: 3.".to_owned(),
        ..Decision::default()
    }
}

impl Decide for Scripted {
    fn decisions(&self) -> Vec<DecisionCard> {
        let card = |id: &str| DecisionCard {
            id: id.to_owned(),
            title: "A title".to_owned(),
            version: "v1".to_owned(),
            schema: json!({"type": "object"}),
            graph: json!({"nodes": [], "edges": []}),
            problem: None,
        };
        ["small", "asks", "fails", "slow", "refuses"].map(card).into()
    }

    fn decide(&self, request: DecideRequest) -> BoxFuture<'_, Result<StepStream, Error>> {
        let started = StepEvent::Started { version: "v1".to_owned() };
        let question = Question { fact: "x".to_owned(), question: "What is x?".to_owned() };
        let events = match request.decision.as_str() {
            "small" => vec![Ok(started), Ok(step("Sum", json!({"y": 3}))), Ok(done(decided()))],
            "slow" => vec![Ok(started), Ok(step("Sum", json!({"y": 3}))), Ok(done(decided()))],
            "asks" => vec![Ok(started), Ok(done(Decision { missing: vec![question], ..Decision::default() }))],
            "fails" => vec![Ok(started), Ok(step("Sum", json!(null))), Err(Error::internal("It broke."))],
            _ => return async { Err(Error::invalid("facts.x", "No such fact.")) }.boxed(),
        };
        let wait = if request.decision == "slow" { Duration::from_secs(3) } else { Duration::ZERO };
        let paced = stream::iter(events).then(move |event| async move {
            if matches!(event, Ok(StepEvent::Done(_))) {
                sleep(wait).await;
            }
            event
        });
        async move { Ok(paced.boxed()) }.boxed()
    }

    /// Takes a problem with one chain, and says no to any other.
    fn solve(&self, request: SolveRequest) -> BoxFuture<'_, Result<StepStream, Error>> {
        let effort = request.effort;
        if effort.chains != 1 {
            let error = Error::invalid("chains", format!("{effort:?} for {} as {}.", request.tenant, request.model));
            return async { Err(error) }.boxed();
        }
        let step = Step { inputs: json!({"expression": "6 * 7"}), ..line("the product", json!("42")) };
        let chain =
            Chain { answer: Some("42".to_owned()), weight: 1.0, verdict: Verdict::Verified, ..Chain::default() };
        let (answer, chains) = (chain.answer.clone(), vec![chain]);
        let solution = Solution { answer, confidence: 1.0, chains, verdict: Verdict::Verified, ..Solution::default() };
        let end = StepEvent::Done(Box::new(Conclusion::Solution(solution)));
        let events = [StepEvent::Started { version: String::new() }, StepEvent::Step(step), end].map(Ok);
        async move { Ok(stream::iter(events).boxed()) }.boxed()
    }
}

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

        {"error":{"message":"`temperature`: unknown field `temperature`, expected one of `decision`, `text`, `facts`, `model`, `language`, `stream`.","type":"invalid_request_error","param":"temperature","code":null}}
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
