//! The tests that stand beside a decision: facts or a text, and what should come of them.

use protocol::{DecideRequest, Error};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{decide::Decider, library::Library, models::Models};

/// One test.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    name: String,
    #[serde(default)]
    facts: Map<String, Value>,
    #[serde(default)]
    text: Option<String>,
    /// Fields the output must have; it may have more.
    #[serde(default)]
    output: Option<Value>,
    /// Facts that must be asked for.
    #[serde(default)]
    missing: Vec<String>,
}

impl Case {
    pub(crate) fn parse_all(text: &str) -> Result<Vec<Self>, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }
}

/// How a test of a decision went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaseReport {
    /// The decision.
    pub decision: String,
    /// The test; empty where the decision itself is broken.
    pub case: String,
    /// What is wrong; nothing if it passed.
    pub failure: Option<String>,
}

/// Runs the tests of all decisions of `library`. Texts are read without a model, by cues alone, so that tests are quick and come out
/// the same everywhere.
pub async fn check(library: &Library) -> Vec<CaseReport> {
    let set = library.current();
    let mut reports = Vec::new();
    for (name, entry) in &set.entries {
        let report = |case: &str, failure| CaseReport { decision: name.clone(), case: case.to_owned(), failure };
        if let Some(problem) = &entry.problem {
            reports.push(report("", Some(problem.clone())));
        }
        for case in entry.decision.iter().flat_map(|decision| &decision.cases) {
            let failure = run(library, name, case).await.unwrap_or_else(|error| Some(error.to_string()));
            reports.push(report(&case.name, failure));
        }
    }
    reports
}

async fn run(library: &Library, decision: &str, case: &Case) -> Result<Option<String>, Error> {
    let request = DecideRequest {
        id: String::new(),
        decision: decision.to_owned(),
        facts: case.facts.clone(),
        text: case.text.clone(),
        model: String::new(),
        language: None,
        tenant: String::new(),
        deadline: None,
    };
    let decider = Decider::new(library, &Models::default(), crate::clock::today(), request)?;
    let found = decider.conclude().await?;
    let asked: Vec<&str> = found.missing.iter().map(|question| question.fact.as_str()).collect();
    if asked != case.missing {
        return Ok(Some(format!("asked for {asked:?} and not for {:?}", case.missing)));
    }
    let output = found.output.unwrap_or_default();
    let wanted = case.output.clone().unwrap_or_default();
    Ok(differs(&output, &wanted).map(|at| format!("output{at} in {output}, where {wanted} was wanted")))
}

/// Where `found` lacks what is `wanted`.
fn differs(found: &Value, wanted: &Value) -> Option<String> {
    match (found, wanted) {
        (Value::Object(found), Value::Object(wanted)) => wanted.iter().find_map(|(key, wanted)| {
            let found = found.get(key).unwrap_or(&Value::Null);
            differs(found, wanted).map(|at| format!(".{key}{at}"))
        }),
        (Value::Number(found), Value::Number(wanted)) if found.as_f64() == wanted.as_f64() => None,
        _ => (found != wanted).then(String::new),
    }
}
