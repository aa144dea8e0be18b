//! The first token of a prompt: fresh, and again when its prefix is in the cache.

use std::ops::Range;

use protocol::Generate;
use serde::{Deserialize, Serialize};

use crate::{
    Error, Spread,
    bench::{Prompts, serve::timed},
    report::{figure, table},
};

/// Request to first token of one stream, in milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FirstToken {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Of prompts never seen before.
    pub fresh_ms: Spread,
    /// Of the same prompts, asked again at once.
    pub cached_ms: Spread,
}

/// Asks `rounds` fresh prompts of `prompt_tokens` tokens, each twice, one at a time. A round before them does not count.
///
/// # Errors
/// The service's own.
pub async fn first_token(
    service: &dyn Generate,
    model: &str,
    prompt_tokens: usize,
    rounds: usize,
    ids: Range<u32>,
) -> Result<FirstToken, Error> {
    let mut prompts = Prompts::new(ids, prompt_tokens as u64);
    let (mut fresh, mut cached) = (Vec::new(), Vec::new());
    for round in 0..=rounds {
        let prompt = prompts.draw(prompt_tokens);
        let first = timed(service, model, prompt.clone(), 1).await?.first * 1e3;
        let again = timed(service, model, prompt, 1).await?.first * 1e3;
        if round > 0 {
            fresh.push(first);
            cached.push(again);
        }
    }
    Ok(FirstToken { prompt_tokens, fresh_ms: Spread::of(&fresh), cached_ms: Spread::of(&cached) })
}

impl std::fmt::Display for FirstToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let head = ["", "median", "min", "max", "n"].map(str::to_owned);
        let line =
            |name: &str, s: Spread| [name.to_owned(), figure(s.median), figure(s.min), figure(s.max), s.n.to_string()];
        let lines = [head, line("fresh prompt, ms", self.fresh_ms), line("prefix cached, ms", self.cached_ms)];
        writeln!(f, "First token of a prompt of {} tokens, one stream", self.prompt_tokens)?;
        f.write_str(&table(&lines))
    }
}
