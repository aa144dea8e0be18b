//! A reasoning service that plays a script.

use std::time::Duration;

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream};
use protocol::{
    Chain, Conclusion, Decide, DecideRequest, Decision, DecisionCard, Error, Fact, Question, Quote, Solution,
    SolveRequest, Step, StepEvent, StepStream, Verdict,
};
use serde_json::{Value, json};
use tokio::time::sleep;

/// Decides by the name of the decision: `small` decides, `asks` asks, `fails` fails behind a step, `slow` waits before its end,
/// `refuses` refuses.
#[derive(Debug)]
pub(crate) struct Scripted;

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
