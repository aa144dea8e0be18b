//! A student, its teacher and the cascade of both, asked the same: who is right how often, how much the student takes over, and what that saves.
//!
//! Whether a cascade's student answered stands in the answer's own stream. Times are those of one question at a time; each question goes to all three
//! in turns, so that whatever else the machine does meets them alike, and to the cascade first: where prompts are kept, the
//! others profit by that and not it.

use futures_util::StreamExt;
use protocol::{Event, Generate, GenerateRequest, Reason, Usage};
use serde::{Deserialize, Serialize};

use crate::{Error, Estimate, Progress, Report, Row, bench::Clock, bootstrap, same, wilson};

/// What came of asking once.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Attempt {
    /// The answer is the one wanted ([`same`]).
    pub right: bool,
    /// A cascade on the way took its student's answer.
    pub accepted: bool,
    /// What it cost.
    pub usage: Usage,
    /// From the request to the end of the answer.
    pub seconds: f64,
}

/// The three that are compared, each with the name of its model there.
#[derive(Debug, Clone, Copy)]
pub struct Rivals<'a> {
    /// Answers first.
    pub student: (&'a dyn Generate, &'a str),
    /// Answers where the student will not do.
    pub teacher: (&'a dyn Generate, &'a str),
    /// Both.
    pub cascade: (&'a dyn Generate, &'a str),
}

/// One of the three.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rival {
    /// The share of right answers.
    pub accuracy: Estimate,
    /// Tokens delivered in a second.
    pub tokens_per_second: Estimate,
    /// Seconds from a question to the end of its answer.
    pub seconds: Estimate,
}

/// How a cascade does beside those it is made of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CascadeResult {
    /// The student alone.
    pub student: Rival,
    /// The teacher alone.
    pub teacher: Rival,
    /// The cascade.
    pub cascade: Rival,
    /// The share of questions that the student answered.
    pub accepted: Estimate,
    /// The share of questions that got the student's wrong answer where the teacher's is right: what the calibration bounds.
    pub lost: Estimate,
    /// The cascade's share of right answers by the teacher's.
    pub kept: Estimate,
    /// The cascade's time by the teacher's.
    pub cost: Estimate,
}

/// Asks once, and compares with what is wanted.
///
/// # Errors
/// The service's own.
pub async fn attempt(service: &dyn Generate, request: GenerateRequest, wanted: &str) -> Result<Attempt, Error> {
    let clock = Clock::start();
    let mut events = service.generate(request).await?;
    let (mut text, mut attempt) = (String::new(), Attempt::default());
    while let Some(event) = events.next().await {
        match event? {
            Event::Text { choice: 0, text: piece, .. } => text += &piece,
            Event::Routed(hop) => attempt.accepted |= hop.reason == Reason::Accepted,
            Event::Done(usage) => attempt.usage = usage,
            _ => {}
        }
    }
    Ok(Attempt { right: same(&text, wanted), seconds: clock.seconds(), ..attempt })
}

/// Asks all three every question, with the answer that is wanted.
///
/// # Errors
/// No question, or a service's own.
pub async fn cascade(
    rivals: Rivals<'_>,
    questions: &[(GenerateRequest, String)],
    progress: Progress<'_>,
) -> Result<CascadeResult, Error> {
    if questions.is_empty() {
        return Err(Error::Invalid("there is no question to ask".to_owned()));
    }
    let mut rounds = Vec::new();
    for question in questions {
        let cascade = ask(rivals.cascade, question).await?;
        rounds.push([ask(rivals.student, question).await?, ask(rivals.teacher, question).await?, cascade]);
        progress(rounds.len(), questions.len());
    }
    Ok(CascadeResult::of(&rounds))
}

async fn ask(
    (service, model): (&dyn Generate, &str),
    (request, wanted): &(GenerateRequest, String),
) -> Result<Attempt, Error> {
    attempt(service, GenerateRequest { model: model.to_owned(), ..request.clone() }, wanted).await
}

impl Rival {
    fn of(rounds: &[[Attempt; 3]], place: usize) -> Self {
        let attempts = || rounds.iter().map(|round| &round[place]);
        let timed = |value: fn(&Attempt) -> (f64, f64)| bootstrap(&attempts().map(value).collect::<Vec<_>>());
        Self {
            accuracy: wilson(attempts().filter(|attempt| attempt.right).count(), rounds.len()),
            tokens_per_second: timed(|attempt| (attempt.usage.completion_tokens as f64, attempt.seconds)),
            seconds: timed(|attempt| (attempt.seconds, 1.0)),
        }
    }
}

impl CascadeResult {
    /// Of rounds of student, teacher and cascade.
    fn of(rounds: &[[Attempt; 3]]) -> Self {
        let share =
            |of: fn(&[Attempt; 3]) -> bool| wilson(rounds.iter().filter(|round| of(round)).count(), rounds.len());
        let ratio = |of: fn(&Attempt) -> f64| {
            bootstrap(&rounds.iter().map(|[_, teacher, cascade]| (of(cascade), of(teacher))).collect::<Vec<_>>())
        };
        Self {
            student: Rival::of(rounds, 0),
            teacher: Rival::of(rounds, 1),
            cascade: Rival::of(rounds, 2),
            accepted: share(|[_, _, cascade]| cascade.accepted),
            lost: share(|[_, teacher, cascade]| cascade.accepted && teacher.right && !cascade.right),
            kept: ratio(|attempt| f64::from(u8::from(attempt.right))),
            cost: ratio(|attempt| attempt.seconds),
        }
    }

    /// The figures as a table.
    #[must_use]
    pub fn report(&self) -> Report {
        let percent = |name: &str, share: Estimate| Row::of(name, share.map(|share| share * 100.0), "%");
        let mut rows = vec![
            percent("answered by the student", self.accepted),
            percent("lost by that", self.lost),
            percent("right, cascade by teacher", self.kept),
            percent("time, cascade by teacher", self.cost),
        ];
        for (name, rival) in [("student", &self.student), ("teacher", &self.teacher), ("cascade", &self.cascade)] {
            rows.push(percent(&format!("{name}: right"), rival.accuracy));
            rows.push(Row::of(format!("{name}: speed"), rival.tokens_per_second, "tokens/s"));
            rows.push(Row::of(format!("{name}: an answer"), rival.seconds, "s"));
        }
        Report::new("cascade", rows)
            .note("lost: the student's wrong answer was taken and the teacher's is right; the calibration bounds its expectation")
            .note("one question at a time, to each in turns; right: the same JSON, else the same text")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_those_of_the_rounds() {
        let attempt = |right, accepted, tokens, seconds| Attempt {
            right,
            accepted,
            usage: Usage { completion_tokens: tokens, ..Usage::default() },
            seconds,
        };
        let rounds = [
            // The student is right and taken, wrong and taken, wrong and not taken, and right where it does not matter.
            [attempt(true, false, 10, 1.0), attempt(true, false, 10, 4.0), attempt(true, true, 10, 1.0)],
            [attempt(false, false, 10, 1.0), attempt(true, false, 10, 4.0), attempt(false, true, 10, 1.0)],
            [attempt(false, false, 10, 1.0), attempt(true, false, 10, 4.0), attempt(true, false, 10, 5.0)],
            [attempt(true, false, 10, 1.0), attempt(false, false, 10, 4.0), attempt(true, true, 10, 1.0)],
        ];
        let found = CascadeResult::of(&rounds);
        let values = [found.accepted, found.lost, found.kept, found.cost].map(|estimate| estimate.value);
        assert_eq!(values, [0.75, 0.25, 1.0, 0.5]);
        let accuracies = [&found.student, &found.teacher, &found.cascade].map(|rival| rival.accuracy.value);
        assert_eq!(accuracies, [0.5, 0.75, 0.75]);
        assert_eq!((found.teacher.tokens_per_second.value, found.cascade.seconds.value), (2.5, 2.0));
        assert!(found.report().to_string().contains("75.00"), "{}", found.report());
    }
}
