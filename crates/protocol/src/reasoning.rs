//! The wire of `/v1/reasoning`: ours, since nobody has a standard for it. Field names are stable.
//!
//! A request that holds a field nobody knows is refused by name, as everywhere else. What goes out is built from the plain values
//! by [`Answer`], in one shape for streams, whole answers and replays.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{
    Check, Conclusion, DecideRequest, DecisionCard, Effort, Error, ErrorKind, SolveRequest, Step,
    openai::{ErrorBody, body::decode},
};

/// The body of `POST /v1/reasoning/decisions`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecisionBody {
    /// The decision's id.
    pub decision: String,
    /// A text to find facts in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Facts that are known.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub facts: Map<String, Value>,
    /// The model that reads the text; the first one there is, if it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Language of reasons and explanation; the text's own, if it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// Send every step as it is done.
    #[serde(default)]
    pub stream: bool,
}

impl DecisionBody {
    /// Decodes a request's body.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let body: Self = decode(bytes)?;
        if body.text.is_none() && body.facts.is_empty() {
            return Err(Error::invalid("text", "Neither `text` nor `facts` is given; send one of them, or both."));
        }
        Ok(body)
    }

    /// The plain request.
    pub fn request(self, id: String, tenant: String, deadline: Option<Duration>) -> DecideRequest {
        DecideRequest {
            id,
            decision: self.decision,
            facts: self.facts,
            text: self.text,
            model: self.model.unwrap_or_default(),
            language: self.language,
            tenant,
            deadline,
        }
    }
}

/// The body of `POST /v1/reasoning/solve`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SolveBody {
    /// The problem, in words.
    pub problem: String,
    /// The model that writes the chains; the first one there is, if it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Chains at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chains: Option<usize>,
    /// Times a wrong step may be written again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<usize>,
    /// What is done about the values of steps.
    #[serde(default)]
    pub check: Check,
    /// The same seed gives the same answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Send every step as it is done.
    #[serde(default)]
    pub stream: bool,
}

impl SolveBody {
    /// Decodes a request's body.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        decode(bytes)
    }

    /// The plain request.
    pub fn request(self, id: String, tenant: String, deadline: Option<Duration>) -> SolveRequest {
        let usual = Effort::default();
        let effort = Effort {
            chains: self.chains.unwrap_or(usual.chains),
            retries: self.retries.unwrap_or(usual.retries),
            check: self.check,
        };
        let model = self.model.unwrap_or_default();
        SolveRequest { id, problem: self.problem, model, effort, seed: self.seed, tenant, deadline }
    }
}

/// `GET /v1/reasoning/decisions`.
pub fn list(cards: &[DecisionCard]) -> Value {
    let card = |card: &DecisionCard| {
        json!({
            "id": card.id, "object": "decision", "title": card.title, "version": card.version,
            "problem": card.problem, "schema": card.schema, "graph": card.graph,
        })
    };
    json!({"object": "list", "data": cards.iter().map(card).collect::<Vec<_>>()})
}

/// A path of reasoning as it grows.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The request's id, by which the path is found again.
    pub request_id: String,
    /// The decision, or nothing for a problem to solve.
    pub decision: Option<String>,
    /// The text or the problem as it came in.
    pub input: String,
    /// The content hash of the graph that decides, once the work began; empty for a solution.
    pub version: Option<String>,
    /// Steps so far.
    pub steps: Vec<Step>,
    /// What it came to.
    pub end: Option<Result<Conclusion, Error>>,
}

impl Answer {
    /// A path that begins.
    pub fn new(request_id: impl Into<String>, decision: Option<String>, input: impl Into<String>) -> Self {
        let (request_id, input) = (request_id.into(), input.into());
        Self { request_id, decision, input, version: None, steps: Vec::new(), end: None }
    }

    /// The name of the event that ends the stream of a path that went well.
    pub fn name(&self) -> &'static str {
        if self.decision.is_some() { "decision" } else { "solution" }
    }

    /// `running`, `decided`, `incomplete` (facts are missing), `solved` or `failed`.
    pub fn status(&self) -> &'static str {
        match &self.end {
            None => "running",
            Some(Err(_)) => "failed",
            Some(Ok(Conclusion::Decision(decision))) if decision.output.is_none() => "incomplete",
            Some(Ok(Conclusion::Decision(_))) => "decided",
            Some(Ok(Conclusion::Solution(_))) => "solved",
        }
    }

    /// What is sent when the path begins.
    pub fn head(&self) -> Value {
        json!({"request_id": self.request_id, "decision": self.decision, "version": self.version})
    }

    /// The whole path: what a request without `stream` is answered with, what ends a stream, and what a replay shows.
    pub fn body(&self) -> Value {
        let mut body = Map::new();
        body.insert("request_id".to_owned(), json!(self.request_id));
        body.insert("object".to_owned(), json!(self.name()));
        body.insert("status".to_owned(), json!(self.status()));
        if let Some(decision) = &self.decision {
            body.insert("decision".to_owned(), json!(decision));
            body.insert("version".to_owned(), json!(self.version));
        }
        match &self.end {
            Some(Ok(Conclusion::Decision(decision))) => body.extend(fields(decision)),
            Some(Ok(Conclusion::Solution(solution))) => body.extend(fields(solution)),
            Some(Err(error)) => body.extend(fields(&ErrorBody::from(error))),
            None => {}
        }
        body.insert("steps".to_owned(), json!(self.steps));
        Value::Object(body)
    }

    /// The record of it for the audit log.
    pub fn record(&self) -> Value {
        let step = |step: &Step| json!({"step": step.step, "action": step.action, "result": step.result});
        let output = match &self.end {
            Some(Ok(Conclusion::Decision(decision))) => json!(decision.output),
            Some(Ok(Conclusion::Solution(solution))) => json!(solution.answer),
            _ => Value::Null,
        };
        json!({
            "request_id": self.request_id,
            "input_text": self.input,
            "inference_steps": self.steps.iter().map(step).collect::<Vec<_>>(),
            "output_decision": output,
        })
    }
}

/// The fields of a plain value on the wire.
fn fields(value: &impl Serialize) -> Map<String, Value> {
    match serde_json::to_value(value) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    }
}

/// The error for a path that is not there, or is somebody else's.
pub fn no_such_path(id: &str) -> Error {
    let message = format!("There is no path of reasoning `{id}` here, or not any more.");
    Error::new(ErrorKind::NotFound, message).with_code("path_not_found")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Decision, Fact, Quote};

    #[test]
    fn bodies_are_checked() {
        let check = |body: &str, wanted: &str| {
            let found = DecisionBody::parse(body.as_bytes()).map_or_else(|error| error.message, |body| body.decision);
            assert!(found.contains(wanted), "{body}: {found}");
        };
        check(r#"{"decision": "a", "text": "t"}"#, "a");
        check(r#"{"decision": "a", "facts": {"x": 1}, "stream": true, "model": "m", "language": "zh"}"#, "a");
        check(r#"{"decision": "a"}"#, "Neither `text` nor `facts`");
        check(r#"{"text": "a"}"#, "missing field `decision`");
        check(r#"{"decision": "a", "text": "t", "temperature": 1}"#, "unknown field `temperature`");
        check(r#"{"decision": 1}"#, "`decision`");
    }

    #[test]
    fn problems_are_checked() {
        let check = |body: &str, wanted: &str| {
            let found = SolveBody::parse(body.as_bytes()).map(|body| body.request("r".into(), "t".into(), None));
            let found = found.map_or_else(|error| error.message, |request| format!("{:?}", request.effort));
            assert!(found.contains(wanted), "{body}: {found}");
        };
        check(r#"{"problem": "p"}"#, "Effort { chains: 5, retries: 2, check: Compute }");
        check(
            r#"{"problem": "p", "chains": 1, "retries": 0, "check": "off", "seed": 1, "model": "m"}"#,
            "1, retries: 0, check: Off",
        );
        check(r#"{"problem": "p", "check": "resample", "stream": true}"#, "check: Resample");
        check(r#"{"chains": 1}"#, "missing field `problem`");
        check(r#"{"problem": "p", "temperature": 1}"#, "unknown field `temperature`");
        check(r#"{"problem": "p", "chains": -1}"#, "`chains`");
        check(r#"{"problem": "p", "check": "maybe"}"#, "`check`");
    }

    #[test]
    fn a_path_shows_itself_in_every_state() {
        let mut answer = Answer::new("req_1", Some("credit".to_owned()), "I earn 5");
        assert_eq!(answer.body()["status"], "running");
        let quote = Quote { text: "5".to_owned(), start: 7, end: 8 };
        let fact = Fact { value: json!(5), quote: Some(quote) };
        let decision = Decision {
            output: Some(json!({"decision": "approved"})),
            facts: [("income".to_owned(), fact)].into(),
            ..Decision::default()
        };
        answer.end = Some(Ok(Conclusion::Decision(decision)));
        let body = answer.body();
        assert_eq!(body["status"], "decided");
        assert_eq!(body["facts"]["income"], json!({"value": 5, "quote": {"text": "5", "start": 7, "end": 8}}));
        assert_eq!(body["output"]["decision"], "approved");
        assert_eq!(answer.record()["output_decision"], json!({"decision": "approved"}));
        assert_eq!(answer.record()["input_text"], "I earn 5");
        answer.end = Some(Err(Error::internal("broken")));
        assert_eq!(answer.body()["status"], "failed");
        assert_eq!(answer.body()["error"]["message"], "broken");
    }
}
