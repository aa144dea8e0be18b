//! Asking a service for the log-probabilities of given tokens, and for plain answers.

use futures_util::StreamExt;
use protocol::{Event, EventStream, Generate, GenerateRequest, Prompt, TextOrTokens, TokenLogprob, Usage};

use crate::Error;

/// A service and which of its models to ask.
#[derive(Debug, Clone)]
pub struct Scorer<'a> {
    service: &'a dyn Generate,
    model: String,
}

/// A finished answer.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Answer {
    /// Its text.
    pub text: String,
    /// What it cost.
    pub usage: Usage,
}

impl<'a> Scorer<'a> {
    /// Asks `model` of `service`; an empty name is the service's default.
    #[must_use]
    pub fn new(service: &'a dyn Generate, model: impl Into<String>) -> Self {
        Self { service, model: model.into() }
    }

    /// Longest prompt the model takes, in tokens.
    #[must_use]
    pub fn context_length(&self) -> usize {
        let cards = self.service.models();
        let card = cards.iter().find(|c| c.id == self.model).or(cards.first());
        card.map_or(2048, |c| c.context_length)
    }

    /// The model's name as the service gives it.
    #[must_use]
    pub fn model(&self) -> String {
        if self.model.is_empty() {
            self.service.models().first().map_or_else(String::new, |c| c.id.clone())
        } else {
            self.model.clone()
        }
    }

    /// The prompt's tokens with their scores and the `top` best alternatives. Tokens before `from` may lack a score: that lets
    /// the service take them from its prefix cache.
    ///
    /// # Errors
    /// The service's own, or that it did not send the scores.
    pub async fn score(&self, prompt: TextOrTokens, top: usize, from: usize) -> Result<Vec<TokenLogprob>, Error> {
        let mut request = GenerateRequest::new(Prompt::Raw(prompt), 0);
        request.model.clone_from(&self.model);
        request.echo = true;
        request.logprobs = Some(top);
        request.score_from = from;
        let mut events = self.service.generate(request).await?;
        let mut scores = None;
        while let Some(event) = events.next().await {
            if let Event::PromptLogprobs(found) = event? {
                scores = Some(found);
            }
        }
        scores.ok_or_else(|| {
            Error::unexpected("the prompt's log-probabilities (echo with logprobs)", "a stream without them")
        })
    }

    /// The prompt's tokens without scores: what tokenising costs through a service that has no call for it.
    ///
    /// # Errors
    /// As [`Scorer::score`].
    pub async fn tokens(&self, text: &str) -> Result<Vec<TokenLogprob>, Error> {
        self.score(TextOrTokens::Text(text.to_owned()), 0, usize::MAX).await
    }

    /// A greedy answer of at most `max_tokens`.
    ///
    /// # Errors
    /// The service's own.
    pub async fn answer(&self, prompt: Prompt, max_tokens: usize) -> Result<Answer, Error> {
        let mut request = GenerateRequest::new(prompt, max_tokens);
        request.model.clone_from(&self.model);
        request.sampling.temperature = 0.0;
        collect(self.service.generate(request).await?).await
    }
}

/// The first answer of a stream, whole.
pub(crate) async fn collect(mut events: EventStream) -> Result<Answer, Error> {
    let mut answer = Answer::default();
    while let Some(event) = events.next().await {
        match event? {
            Event::Text { choice: 0, text, .. } => answer.text.push_str(&text),
            Event::Done(usage) => answer.usage = usage,
            _ => {}
        }
    }
    Ok(answer)
}

/// The score of a token that must have one.
pub(crate) fn logprob(token: &TokenLogprob, index: usize) -> Result<f64, Error> {
    token.logprob.map(f64::from).ok_or_else(|| Error::unexpected(format!("a score for token {index}"), "none"))
}
