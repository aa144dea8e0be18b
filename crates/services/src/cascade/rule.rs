//! What an answer must fulfil beside being likely.

use std::sync::Arc;

use futures_util::StreamExt;
use protocol::{Conclusion, Decide, DecideRequest, JsonSchema, StepEvent};
use serde_json::{Map, Value};

/// A check of a student's answer. An answer that is no JSON passes none.
#[derive(Debug)]
pub enum Rule {
    /// It is valid under this schema.
    Schema(JsonSchema),
    /// Its members are the facts of a decision whose output says `accepted`: true.
    Decision {
        /// Who decides.
        service: Arc<dyn Decide>,
        /// The decision's name there.
        decision: String,
    },
}

impl Rule {
    pub(super) async fn holds(&self, answer: &str) -> bool {
        let Ok(value) = serde_json::from_str::<Value>(answer) else { return false };
        match (self, value) {
            (Self::Schema(schema), value) => schema.fits(&value),
            (Self::Decision { service, decision }, Value::Object(facts)) => {
                decided(service.as_ref(), decision, facts).await["accepted"] == true
            }
            _ => false,
        }
    }
}

/// The decision's output; null where there is none.
async fn decided(service: &dyn Decide, decision: &str, facts: Map<String, Value>) -> Value {
    let request = DecideRequest {
        id: String::new(),
        decision: decision.to_owned(),
        facts,
        text: None,
        model: String::new(),
        language: None,
        tenant: String::new(),
        deadline: None,
    };
    let Ok(mut steps) = service.decide(request).await else { return Value::Null };
    while let Some(Ok(step)) = steps.next().await {
        if let StepEvent::Done(conclusion) = step
            && let Conclusion::Decision(decision) = *conclusion
        {
            return decision.output.unwrap_or_default();
        }
    }
    Value::Null
}
