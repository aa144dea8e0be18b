//! The wire of `/v1/reasoning`: ours, since nobody has a standard for it. Field names are stable.
//!
//! A request that holds a field nobody knows is refused by name, as everywhere else. What goes out is built from the plain values
//! by [`Answer`], in one shape for streams, whole answers and replays.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{
    Check, Conclusion, DecideRequest, Decision, DecisionCard, Effort, Error, ErrorKind, Solution, SolveRequest, Step,
    openai::{ErrorBody, body::decode_object},
};

/// The body of `POST /v1/reasoning/decisions`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("anyOf" = [
    {"required": ["text"], "properties": {"text": {"type": "string"}}},
    {"required": ["facts"], "properties": {"facts": {"minProperties": 1}}},
]))]
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
    /// The end user whom it is about, by your name for them: whom to erase erases what this request leaves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Send every step as it is done.
    #[serde(default)]
    pub stream: bool,
}

impl DecisionBody {
    /// Decodes a request's body.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let body: Self = decode_object(bytes)?;
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
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
    /// The end user whom it is about, by your name for them: whom to erase erases what this request leaves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Send every step as it is done.
    #[serde(default)]
    pub stream: bool,
}

impl SolveBody {
    /// Decodes a request's body.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        decode_object(bytes)
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
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct DecisionList {
    /// Always `list`.
    pub object: &'static str,
    /// What can be decided.
    pub data: Vec<CardBody>,
}

/// What can be decided, and from what.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct CardBody {
    /// The name requests use.
    pub id: String,
    /// Always `decision`.
    pub object: &'static str,
    /// What it decides, for a person to read.
    pub title: String,
    /// The content hash of its graph and schema.
    pub version: String,
    /// What is wrong with its files as they are now; the last good version, if there is one, decides meanwhile.
    pub problem: Option<String>,
    /// JSON schema of the facts it needs.
    pub schema: Value,
    /// The graph to draw: `{"nodes": [{"id", "name", "kind", "x", "y"}], "edges": [{"from", "to"}]}`.
    pub graph: Value,
}

impl From<DecisionCard> for CardBody {
    fn from(card: DecisionCard) -> Self {
        let DecisionCard { id, title, version, schema, graph, problem } = card;
        Self { id, object: "decision", title, version, problem, schema, graph }
    }
}

impl FromIterator<DecisionCard> for DecisionList {
    fn from_iter<I: IntoIterator<Item = DecisionCard>>(cards: I) -> Self {
        Self { object: "list", data: cards.into_iter().map(CardBody::from).collect() }
    }
}

/// What is sent when a path begins.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct HeadBody {
    /// The request's id.
    pub request_id: String,
    /// The decision; nothing for a problem.
    pub decision: Option<String>,
    /// The content hash of the graph that decides; empty for a problem.
    pub version: Option<String>,
}

/// A path of reasoning: what a request without `stream` is answered with, what ends a stream, and what a replay shows.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum PathBody {
    /// Of a decision.
    Decision(Box<DecisionPath>),
    /// Of a problem.
    Solution(Box<SolutionPath>),
}

/// The path of a decision. Output, facts, questions and explanation are there once it is decided or incomplete, the error once it failed.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct DecisionPath {
    /// The request's id, by which the path is found again.
    pub request_id: String,
    /// Always `decision`.
    pub object: &'static str,
    /// How far it is.
    pub status: Status,
    /// Which decision.
    pub decision: String,
    /// The content hash of the graph that decides, once the work began.
    pub version: Option<String>,
    /// What it came to.
    #[serde(flatten)]
    pub outcome: Option<Decision>,
    /// What went wrong.
    #[serde(flatten)]
    pub failure: Option<ErrorBody>,
    /// Steps so far.
    pub steps: Vec<Step>,
}

/// The path of a problem. Answer, vote and chains are there once it is solved, the error once it failed.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct SolutionPath {
    /// The request's id, by which the path is found again.
    pub request_id: String,
    /// Always `solution`.
    pub object: &'static str,
    /// How far it is.
    pub status: Status,
    /// What it came to.
    #[serde(flatten)]
    pub outcome: Option<Solution>,
    /// What went wrong.
    #[serde(flatten)]
    pub failure: Option<ErrorBody>,
    /// Steps so far.
    pub steps: Vec<Step>,
}

/// How far a path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It grows.
    Running,
    /// There is a decision.
    Decided,
    /// Facts are missing.
    Incomplete,
    /// There is an answer, or no chain came to one.
    Solved,
    /// Something went wrong.
    Failed,
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

    /// How far it is.
    pub fn status(&self) -> Status {
        match &self.end {
            None => Status::Running,
            Some(Err(_)) => Status::Failed,
            Some(Ok(Conclusion::Decision(decision))) if decision.output.is_none() => Status::Incomplete,
            Some(Ok(Conclusion::Decision(_))) => Status::Decided,
            Some(Ok(Conclusion::Solution(_))) => Status::Solved,
        }
    }

    /// What is sent when the path begins.
    pub fn head(&self) -> HeadBody {
        let Self { request_id, decision, version, .. } = self.clone();
        HeadBody { request_id, decision, version }
    }

    /// The whole path as it stands.
    pub fn body(&self) -> PathBody {
        let (object, status) = (self.name(), self.status());
        let failure = self.end.as_ref().and_then(|end| end.as_ref().err()).map(ErrorBody::from);
        let Self { request_id, decision, version, steps, end, .. } = self.clone();
        let (decided, solved) = match end {
            Some(Ok(Conclusion::Decision(decision))) => (Some(decision), None),
            Some(Ok(Conclusion::Solution(solution))) => (None, Some(solution)),
            Some(Err(_)) | None => (None, None),
        };
        match decision {
            Some(decision) => {
                let outcome = decided;
                let path = DecisionPath { request_id, object, status, decision, version, outcome, failure, steps };
                PathBody::Decision(Box::new(path))
            }
            None => PathBody::Solution(Box::new(SolutionPath {
                request_id,
                object,
                status,
                outcome: solved,
                failure,
                steps,
            })),
        }
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
        check(r#"["a", "t"]"#, "expected");
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
        assert_eq!(json!(answer.body())["status"], "running");
        let quote = Quote { text: "5".to_owned(), start: 7, end: 8 };
        let fact = Fact { value: json!(5), quote: Some(quote) };
        let decision = Decision {
            output: Some(json!({"decision": "approved"})),
            facts: [("income".to_owned(), fact)].into(),
            ..Decision::default()
        };
        answer.end = Some(Ok(Conclusion::Decision(decision)));
        let body = json!(answer.body());
        assert_eq!(body["status"], "decided");
        assert_eq!(body["facts"]["income"], json!({"value": 5, "quote": {"text": "5", "start": 7, "end": 8}}));
        assert_eq!(body["output"]["decision"], "approved");
        assert_eq!(answer.record()["output_decision"], json!({"decision": "approved"}));
        assert_eq!(answer.record()["input_text"], "I earn 5");
        answer.end = Some(Err(Error::internal("broken")));
        assert_eq!(json!(answer.body())["status"], "failed");
        assert_eq!(json!(answer.body())["error"]["message"], "broken");
    }
}
