//! Trying again before the first byte: a few times, with growing pauses, and never sooner than the server asked for.

use std::time::Duration;

use protocol::{Error, ErrorKind};
use rand::RngExt;
use tokio::time::sleep;

/// How often and how soon a request is sent again that failed before its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// Times after the first one.
    pub times: u32,
    /// The first pause; each one after it is twice as long.
    pub pause: Duration,
    /// The longest pause. A server that asks for a longer one is not asked again.
    pub longest: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self { times: 2, pause: Duration::from_millis(250), longest: Duration::from_secs(10) }
    }
}

impl Retry {
    /// Nothing is sent again.
    pub const NEVER: Self = Self { times: 0, pause: Duration::ZERO, longest: Duration::ZERO };

    /// The first success of `attempt`, or its last error.
    pub(crate) async fn run<T, F>(&self, mut attempt: impl FnMut() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let mut tried = 0;
        loop {
            let error = match attempt().await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            let Some(pause) = self.pause_after(tried, &error) else { return Err(error) };
            tracing::debug!(%error, ?pause, tried, "trying again");
            sleep(pause).await;
            tried += 1;
        }
    }

    /// How long to wait after this failure, the `tried`-th again; `None` if it counts. A service that was too slow once is not
    /// made faster by asking again, so that is left to whoever has another one.
    fn pause_after(&self, tried: u32, error: &Error) -> Option<Duration> {
        let again = matches!(error.kind, ErrorKind::Upstream | ErrorKind::Overloaded);
        let asked = error.retry_after.unwrap_or_default();
        if !again || tried >= self.times || asked > self.longest {
            return None;
        }
        let grown = self.pause.saturating_mul(1 << tried.min(16)).min(self.longest);
        // Callers that failed together must not come back together.
        Some(grown.mul_f64(rand::rng().random_range(0.5..=1.0)).max(asked))
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    /// How many attempts a script of failures takes, how long they take together, and how it ends.
    async fn check(script: &[Error], attempts: usize, seconds: std::ops::Range<f64>, ends: Option<ErrorKind>) {
        let retry = Retry { times: 3, pause: Duration::from_secs(1), longest: Duration::from_secs(5) };
        let (start, mut calls) = (Instant::now(), 0);
        let outcome = retry
            .run(|| {
                calls += 1;
                let error = script.get(calls - 1).cloned();
                async move { error.map_or(Ok(()), Err) }
            })
            .await;
        assert_eq!((calls, outcome.err().map(|error| error.kind)), (attempts, ends), "{script:?}");
        let took = start.elapsed().as_secs_f64();
        assert!(seconds.contains(&took), "{script:?} took {took} s");
    }

    #[tokio::test(start_paused = true)]
    async fn scripts() {
        let broken = || Error::new(ErrorKind::Upstream, "x");
        let busy = |seconds| Error::new(ErrorKind::Overloaded, "x").with_retry_after(Duration::from_secs(seconds));
        check(&[], 1, 0.0..0.01, None).await;
        check(&[broken()], 2, 0.5..1.01, None).await;
        check(&[broken(), broken(), broken()], 4, 3.5..7.01, None).await;
        check(&[broken(), broken(), broken(), broken()], 4, 3.5..7.01, Some(ErrorKind::Upstream)).await;
        check(&[busy(4)], 2, 4.0..4.01, None).await;
        check(&[busy(6)], 1, 0.0..0.01, Some(ErrorKind::Overloaded)).await;
        check(&[Error::new(ErrorKind::Invalid, "x")], 1, 0.0..0.01, Some(ErrorKind::Invalid)).await;
        check(&[Error::new(ErrorKind::DeadlineExceeded, "x")], 1, 0.0..0.01, Some(ErrorKind::DeadlineExceeded)).await;
    }
}
