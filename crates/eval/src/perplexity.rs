//! Perplexity and bits per byte over the windows of a text.

use futures_util::{StreamExt, TryStreamExt, stream};
use protocol::TextOrTokens;
use serde::{Deserialize, Serialize};

use crate::{Corpus, Error, Estimate, Progress, Report, Row, Scorer, Windows, bootstrap, score::logprob};

/// Windows in flight at once.
const IN_FLIGHT: usize = 2;

/// How well a model predicts a text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Perplexity {
    /// The model.
    pub model: String,
    /// `exp` of the mean negative log-probability per scored token.
    pub perplexity: Estimate,
    /// Negative log2-probability per byte of scored text: comparable between tokenizers.
    pub bits_per_byte: Estimate,
    /// Tokens scored.
    pub tokens: usize,
    /// Bytes these tokens spell.
    pub bytes: usize,
    /// Tokens per window.
    pub window: usize,
    /// Tokens at the start of each window that only served as context.
    pub context: usize,
    /// From one window's start to the next.
    pub stride: usize,
}

/// What one window adds.
#[derive(Debug, Clone, Copy)]
struct Part {
    nats: f64,
    tokens: usize,
    bytes: usize,
}

/// Scores `corpus` window by window. The intervals are over windows.
///
/// # Errors
/// Windows that do not fit the text, or the service's own.
pub async fn perplexity(
    scorer: &Scorer<'_>,
    corpus: &Corpus,
    shape: Windows,
    progress: Progress<'_>,
) -> Result<Perplexity, Error> {
    let windows = corpus.windows(shape)?;
    let total = windows.len();
    let done = std::sync::atomic::AtomicUsize::new(0);
    let parts: Vec<Part> = stream::iter(windows)
        .map(|(tokens, first)| {
            let done = &done;
            async move {
                let part = part(scorer, corpus, tokens, first, shape).await?;
                progress(done.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1, total);
                Ok::<_, Error>(part)
            }
        })
        .buffered(IN_FLIGHT)
        .try_collect()
        .await?;
    Ok(summary(scorer.model(), &parts, shape))
}

async fn part(
    scorer: &Scorer<'_>,
    corpus: &Corpus,
    tokens: Vec<u32>,
    first: usize,
    shape: Windows,
) -> Result<Part, Error> {
    let scored = scorer.score(TextOrTokens::Tokens(tokens), 0, shape.context).await?;
    if scored.len() != shape.length {
        return Err(Error::unexpected(format!("{} scored tokens", shape.length), format!("{}", scored.len())));
    }
    let mut nats = 0.0;
    for (i, token) in scored.iter().enumerate().skip(shape.context) {
        nats -= logprob(token, i)?;
    }
    let tokens = shape.length - shape.context;
    let bytes = corpus.bytes[first..first + tokens].iter().map(|&b| b as usize).sum();
    Ok(Part { nats, tokens, bytes })
}

fn summary(model: String, parts: &[Part], shape: Windows) -> Perplexity {
    let per =
        |count: fn(&Part) -> usize| bootstrap(&parts.iter().map(|p| (p.nats, count(p) as f64)).collect::<Vec<_>>());
    Perplexity {
        model,
        perplexity: per(|p| p.tokens).map(f64::exp),
        bits_per_byte: per(|p| p.bytes).map(|nats| nats / std::f64::consts::LN_2),
        tokens: parts.iter().map(|p| p.tokens).sum(),
        bytes: parts.iter().map(|p| p.bytes).sum(),
        window: shape.length,
        context: shape.context,
        stride: shape.stride,
    }
}

impl Perplexity {
    /// As a table.
    #[must_use]
    pub fn report(&self) -> Report {
        let rows =
            vec![Row::of("perplexity", self.perplexity, ""), Row::of("bits per byte", self.bits_per_byte, "bit/B")];
        Report::new(format!("Perplexity of {}", self.model), rows).note(format!(
            "{} tokens ({} bytes) scored in windows of {}, stride {}, the first {} of each as context only; n counts windows",
            self.tokens, self.bytes, self.window, self.stride, self.context
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_windows_by_hand() {
        let parts =
            [Part { nats: 4f64.ln() * 3.0, tokens: 3, bytes: 6 }, Part { nats: 4f64.ln() * 3.0, tokens: 3, bytes: 6 }];
        let p = summary("m".into(), &parts, Windows::halves(5));
        assert!((p.perplexity.value - 4.0).abs() < 1e-12, "every token at probability 1/4");
        assert!((p.bits_per_byte.value - 1.0).abs() < 1e-12, "2 bits a token, 2 bytes a token");
        assert_eq!((p.tokens, p.bytes, p.perplexity.n), (6, 12, 2));
    }
}
