//! What the users of a service feel under a steady load: so many streams at once, each replaced when it ends.

use std::ops::Range;

use futures_util::{StreamExt, TryStreamExt, stream};
use protocol::{Event, Generate, GenerateRequest, Prompt, TextOrTokens};
use serde::{Deserialize, Serialize};

use crate::{
    Error, Spread,
    bench::{Clock, Prompts},
    report::{figure, table},
};

/// A load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Load {
    /// Tokens of each prompt.
    pub prompt_tokens: usize,
    /// Tokens of each answer.
    pub output_tokens: usize,
    /// Streams at once.
    pub concurrency: usize,
    /// Streams in all.
    pub requests: usize,
    /// Where prompt ids are drawn from.
    pub ids: Range<u32>,
    /// The same seed draws the same prompts.
    pub seed: u64,
}

/// What was felt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Served {
    /// Streams at once.
    pub concurrency: usize,
    /// Tokens of each prompt.
    pub prompt_tokens: usize,
    /// Tokens of each answer.
    pub output_tokens: usize,
    /// Request to first token, in milliseconds.
    pub first_token_ms: Spread,
    /// Mean time between tokens of one stream, in milliseconds, over streams.
    pub inter_token_ms: Spread,
    /// Answer tokens per second over all streams.
    pub tokens_per_second: f64,
    /// Requests per second.
    pub requests_per_second: f64,
    /// First request to last answer.
    pub seconds: f64,
}

/// The times of one stream, in seconds since its request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Timing {
    pub(crate) first: f64,
    pub(crate) last: f64,
    pub(crate) tokens: usize,
}

/// Puts `load` on `service`, each stream on the next of `models` (an empty name is the default one).
///
/// # Errors
/// The service's own: one failed stream ends the measurement, since figures without it would flatter.
pub async fn serve(service: &dyn Generate, models: &[String], load: &Load) -> Result<Served, Error> {
    let mut prompts = Prompts::new(load.ids.clone(), load.seed);
    let drawn: Vec<_> = (0..load.requests).map(|_| prompts.draw(load.prompt_tokens)).collect();
    let clock = Clock::start();
    let timings: Vec<Timing> = stream::iter(drawn.into_iter().zip(models.iter().cycle()))
        .map(|(prompt, model)| timed(service, model, prompt, load.output_tokens))
        .buffer_unordered(load.concurrency.max(1))
        .try_collect()
        .await?;
    Ok(summary(load, &timings, clock.seconds()))
}

/// One stream of exactly `tokens` tokens, greedy and past any end of text.
pub(crate) async fn timed(
    service: &dyn Generate,
    model: &str,
    prompt: Vec<u32>,
    tokens: usize,
) -> Result<Timing, Error> {
    let mut request = GenerateRequest::new(Prompt::Raw(TextOrTokens::Tokens(prompt)), tokens);
    model.clone_into(&mut request.model);
    request.sampling.temperature = 0.0;
    request.stop.ignore_eos = true;
    let clock = Clock::start();
    let mut events = service.generate(request).await?;
    let mut timing = Timing { first: f64::NAN, last: f64::NAN, tokens: 0 };
    while let Some(event) = events.next().await {
        match event? {
            Event::Text { .. } if timing.first.is_nan() => timing.first = clock.seconds(),
            Event::Done(usage) => (timing.last, timing.tokens) = (clock.seconds(), usage.completion_tokens),
            _ => {}
        }
    }
    if timing.first.is_nan() || timing.tokens != tokens {
        return Err(Error::unexpected(format!("a stream of {tokens} tokens"), format!("one of {}", timing.tokens)));
    }
    Ok(timing)
}

fn summary(load: &Load, timings: &[Timing], seconds: f64) -> Served {
    let first: Vec<f64> = timings.iter().map(|t| t.first * 1e3).collect();
    let inter = timings.iter().filter(|t| t.tokens > 1).map(|t| (t.last - t.first) * 1e3 / (t.tokens - 1) as f64);
    Served {
        concurrency: load.concurrency,
        prompt_tokens: load.prompt_tokens,
        output_tokens: load.output_tokens,
        first_token_ms: Spread::of(&first),
        inter_token_ms: Spread::of(&inter.collect::<Vec<_>>()),
        tokens_per_second: timings.iter().map(|t| t.tokens).sum::<usize>() as f64 / seconds,
        requests_per_second: timings.len() as f64 / seconds,
        seconds,
    }
}

impl std::fmt::Display for Served {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let head = ["", "median", "min", "max", "p95", "n"].map(str::to_owned);
        let spread = |name: &str, s: Spread| {
            [name.to_owned(), figure(s.median), figure(s.min), figure(s.max), figure(s.p95), s.n.to_string()]
        };
        let lines =
            [head, spread("first token, ms", self.first_token_ms), spread("between tokens, ms", self.inter_token_ms)];
        writeln!(
            f,
            "{} streams at once, prompts of {}, answers of {}",
            self.concurrency, self.prompt_tokens, self.output_tokens
        )?;
        f.write_str(&table(&lines))?;
        writeln!(
            f,
            "  {} tok/s, {} requests/s in {} s",
            figure(self.tokens_per_second),
            figure(self.requests_per_second),
            figure(self.seconds)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summed_by_hand() {
        let load = Load { prompt_tokens: 8, output_tokens: 5, concurrency: 2, requests: 2, ids: 0..1, seed: 0 };
        let timings = [Timing { first: 0.1, last: 0.5, tokens: 5 }, Timing { first: 0.3, last: 0.5, tokens: 5 }];
        let served = summary(&load, &timings, 0.5);
        assert!((served.first_token_ms.median - 200.0).abs() < 1e-9);
        assert!((served.inter_token_ms.min - 50.0).abs() < 1e-9 && (served.inter_token_ms.max - 100.0).abs() < 1e-9);
        assert!((served.tokens_per_second - 20.0).abs() < 1e-9);
        assert!(served.to_string().contains("first token, ms"));
    }
}
