//! How many questions a model answers as it should, and how much more than another one does.

use futures_util::{StreamExt, TryStreamExt, stream};
use protocol::{Generate, GenerateRequest};
use serde::{Deserialize, Serialize};

use crate::{Error, Estimate, Progress, Report, Row, attempt, bootstrap, wilson};

/// What one model made of the questions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AnswersResult {
    /// The model.
    pub model: String,
    /// The share of right answers.
    pub right: Estimate,
    /// Whether each question was answered rightly, in their order.
    pub each: Vec<bool>,
    /// The share by which it is right more often than the first model, question by question; `None` for that one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gain: Option<Estimate>,
}

/// Asks all questions with the answers that are wanted ([`crate::same`]), so many at the same time.
///
/// # Errors
/// No question, or the service's own.
pub async fn answers(
    service: &dyn Generate,
    model: &str,
    questions: &[(GenerateRequest, String)],
    at_once: usize,
    progress: Progress<'_>,
) -> Result<AnswersResult, Error> {
    if questions.is_empty() {
        return Err(Error::Invalid("there is no question to ask".to_owned()));
    }
    let asked = questions.iter().map(|(request, wanted)| {
        attempt(service, GenerateRequest { model: model.to_owned(), ..request.clone() }, wanted)
    });
    let (mut asked, mut each) = (stream::iter(asked).buffered(at_once.max(1)), Vec::new());
    while let Some(attempt) = asked.try_next().await? {
        each.push(attempt.right);
        progress(each.len(), questions.len());
    }
    let right = wilson(each.iter().filter(|right| **right).count(), each.len());
    Ok(AnswersResult { model: model.to_owned(), right, each, gain: None })
}

impl AnswersResult {
    /// The same beside another model that was asked the same questions.
    #[must_use]
    pub fn beside(self, first: &Self) -> Self {
        let number = |right: &bool| f64::from(u8::from(*right));
        let pairs = self.each.iter().zip(&first.each);
        let gains: Vec<_> = pairs.map(|(ours, theirs)| (number(ours) - number(theirs), 1.0)).collect();
        Self { gain: Some(bootstrap(&gains)), ..self }
    }

    /// Models as a table.
    #[must_use]
    pub fn report(results: &[Self]) -> Report {
        let percent = |name: String, share: Estimate| Row::of(name, share.map(|share| share * 100.0), "%");
        let mut rows = Vec::new();
        for result in results {
            rows.push(percent(format!("{}: right", result.model), result.right));
            rows.extend(result.gain.map(|gain| percent("  more than the first".to_owned(), gain)));
        }
        Report::new("answers", rows)
            .note("right: the same JSON, else the same text; differences are of the same questions")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gain_is_of_the_same_questions() {
        let result = |each: [bool; 4]| {
            let right = wilson(each.iter().filter(|right| **right).count(), 4);
            AnswersResult { model: "m".to_owned(), right, each: each.to_vec(), gain: None }
        };
        let first = result([true, false, false, false]);
        let second = result([true, true, true, false]).beside(&first);
        assert_eq!(second.gain.map(|gain| (gain.value, gain.n)), Some((0.5, 4)));
        assert_eq!(
            result([true, false, false, false]).beside(&first).gain.map(|gain| (gain.low, gain.high)),
            Some((0.0, 0.0))
        );
        assert!(AnswersResult::report(&[first, second]).to_string().contains("75.0"));
    }
}
