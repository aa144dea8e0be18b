//! Multiple choice by log-likelihood, defined as lm-eval's `multiple_choice` so that both give the same figure.
//!
//! The answer is the choice whose tokens are most likely behind the context (`acc`), or most likely per character of the choice
//! (`acc_norm`). Context and choice are joined by one space and tokenised together; trailing spaces of the context belong to the
//! choice. The choices of a question are asked one behind the other: the first one leaves the context in the prefix cache, the
//! others only pay for themselves ([`protocol::GenerateRequest::score_from`]). Questions run side by side.

use futures_util::{StreamExt, TryStreamExt, stream};
use protocol::{TextOrTokens, TokenLogprob};
use serde::{Deserialize, Serialize};

use crate::{Error, Estimate, Progress, Report, Row, Scorer, corpus::prefix, score::logprob, wilson};

/// A question with its possible answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// What stands before the answer.
    pub context: String,
    /// The possible answers.
    pub choices: Vec<String>,
    /// Which one is right.
    pub answer: usize,
}

/// How much to ask, and how fast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChoiceOptions {
    /// Only the first so many questions.
    pub limit: Option<usize>,
    /// Questions in flight at once.
    pub concurrency: usize,
}

/// How often the right answer was the most likely one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChoiceResult {
    /// The task.
    pub task: String,
    /// The model.
    pub model: String,
    /// Share right by log-likelihood.
    pub acc: Estimate,
    /// Share right by log-likelihood per character.
    pub acc_norm: Estimate,
    /// What guessing gives.
    pub chance: f64,
    /// The log-likelihoods of every question's choices, for comparing runs question by question.
    pub log_likelihoods: Vec<Vec<f64>>,
}

/// Asks every question.
///
/// # Errors
/// The service's own, or that its tokens do not spell the question.
pub async fn multiple_choice(
    scorer: &Scorer<'_>,
    task: &str,
    questions: &[Question],
    options: ChoiceOptions,
    progress: Progress<'_>,
) -> Result<ChoiceResult, Error> {
    let asked = &questions[..options.limit.unwrap_or(usize::MAX).min(questions.len())];
    if asked.is_empty() {
        return Err(Error::Invalid(format!("{task}: there are no questions")));
    }
    let done = std::sync::atomic::AtomicUsize::new(0);
    let log_likelihoods: Vec<Vec<f64>> = stream::iter(asked)
        .map(|question| {
            let done = &done;
            async move {
                let found = ask(scorer, question).await?;
                progress(done.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1, asked.len());
                Ok::<_, Error>(found)
            }
        })
        .buffered(options.concurrency.max(1))
        .try_collect()
        .await?;
    Ok(judge(task, scorer.model(), asked, log_likelihoods))
}

async fn ask(scorer: &Scorer<'_>, question: &Question) -> Result<Vec<f64>, Error> {
    let context = question.context.trim_end();
    let spaces = &question.context[context.len()..];
    let mut known = None;
    let mut found = Vec::with_capacity(question.choices.len());
    for choice in &question.choices {
        let text = format!("{context}{spaces} {choice}");
        let scored = scorer.score(TextOrTokens::Text(text.clone()), 0, known.unwrap_or(0)).await?;
        let from = match boundary(&text, context.len(), &scored)? {
            Some(from) => from,
            // A token spans context and choice: lm-eval then counts the tokens of the context alone.
            None => scorer.tokens(context).await?.len(),
        };
        known = Some(from);
        found.push(sum(&scored, from)?);
    }
    Ok(found)
}

/// The index of the first token behind `len` bytes of `text`, if a token starts there.
fn boundary(text: &str, len: usize, scored: &[TokenLogprob]) -> Result<Option<usize>, Error> {
    let skip = prefix(text, scored)?;
    // Counted from the end, where no dummy prefix can disturb.
    let mut left = text.len();
    for (i, token) in scored.iter().enumerate().skip(skip).rev() {
        left = left.saturating_sub(token.bytes.len());
        if left <= len {
            return Ok((left == len).then_some(i));
        }
    }
    Ok(None)
}

fn sum(scored: &[TokenLogprob], from: usize) -> Result<f64, Error> {
    scored.iter().enumerate().skip(from).map(|(i, token)| logprob(token, i)).sum()
}

fn judge(task: &str, model: String, asked: &[Question], log_likelihoods: Vec<Vec<f64>>) -> ChoiceResult {
    let right = |weigh: fn(f64, &str) -> f64| {
        let hits = asked.iter().zip(&log_likelihoods).filter(|(question, found)| {
            let weighed: Vec<f64> =
                found.iter().zip(&question.choices).map(|(&ll, choice)| weigh(ll, choice)).collect();
            first_best(&weighed) == question.answer
        });
        wilson(hits.count(), asked.len())
    };
    ChoiceResult {
        task: task.to_owned(),
        model,
        acc: right(|ll, _| ll),
        acc_norm: right(|ll, choice| ll / choice.chars().count() as f64),
        chance: asked.iter().map(|q| 1.0 / q.choices.len() as f64).sum::<f64>() / asked.len() as f64,
        log_likelihoods,
    }
}

/// The first of the largest, as numpy's `argmax`.
fn first_best(values: &[f64]) -> usize {
    (1..values.len()).fold(0, |best, i| if values[i] > values[best] { i } else { best })
}

impl ChoiceResult {
    /// As a table.
    #[must_use]
    pub fn report(&self) -> Report {
        let percent = |e: Estimate| e.map(|v| v * 100.0);
        let rows = vec![Row::of("acc", percent(self.acc), "%"), Row::of("acc_norm", percent(self.acc_norm), "%")];
        Report::new(format!("{} with {}", self.task, self.model), rows).note(format!(
            "0 examples shown, chance {:.1} %; defined as lm-eval's multiple_choice",
            self.chance * 100.0
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(bytes: &str, p: f32) -> TokenLogprob {
        TokenLogprob { id: 0, bytes: bytes.as_bytes().to_vec(), logprob: Some(p), top: Vec::new() }
    }

    #[test]
    fn boundaries() {
        let check = |text: &str, len, tokens: &[&str], want| {
            let scored: Vec<_> = tokens.iter().map(|t| token(t, 0.0)).collect();
            assert_eq!(boundary(text, len, &scored).unwrap(), want, "{text} {tokens:?}");
        };
        check("a b c", 3, &["a", " b", " c"], Some(2));
        check("a b c", 3, &["<s>", "a", " b", " c"], Some(3));
        check("a b c", 3, &["a", " b c"], None);
        check("ab cd", 2, &[" ab", " c", "d"], Some(1));
    }

    #[test]
    fn judged_by_hand() {
        let question = |answer| Question { context: "q".into(), choices: vec!["é".into(), "four".into()], answer };
        // By likelihood the first wins (-2 > -4); per character (1 and 4, not bytes) the second does (-2 < -1).
        let result = judge("t", "m".into(), &[question(0), question(1)], vec![vec![-2.0, -4.0]; 2]);
        assert_eq!((result.acc.value, result.acc_norm.value, result.chance), (0.5, 0.5, 0.5));
        let result = judge("t", "m".into(), &[question(1)], vec![vec![-2.0, -4.0]]);
        assert_eq!((result.acc.value, result.acc_norm.value), (0.0, 1.0));
        assert_eq!(first_best(&[1.0, 3.0, 3.0]), 1);
    }
}
