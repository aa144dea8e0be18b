//! The lines that a measured process speaks, and our side of them over any service.
//!
//! The process writes one [`Ready`] line when it can work, then answers every [`Job`] line with an [`Outcome`] line, and ends
//! with its input. What a job costs is timed inside the process, so neither pipes nor JSON count.

use std::io::{BufRead, Write};

use futures_util::future::try_join_all;
use protocol::Generate;
use serde::{Deserialize, Serialize};

use crate::{
    Error,
    bench::{Clock, serve::timed},
};

/// The first line: it can work now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ready {
    /// Engine and version.
    pub name: String,
    /// How it is set up, for the table's foot.
    pub settings: String,
    /// Seconds from the start of loading to ready, as the process itself counts them.
    pub load_seconds: f64,
}

/// Work: continue all prompts at once, greedily, by exactly `new_tokens` tokens each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Token ids of the prompts.
    pub prompts: Vec<Vec<u32>>,
    /// Tokens to add to each.
    pub new_tokens: usize,
}

/// What it took.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Seconds until every prompt had its first token.
    pub first_seconds: f64,
    /// Seconds until all tokens were there.
    pub total_seconds: f64,
    /// Tokens generated over all prompts.
    pub tokens: usize,
}

/// Answers jobs from `input` over `service` until the input ends.
///
/// # Errors
/// The service's own, and lines that are not jobs.
pub async fn entrant(
    service: &dyn Generate,
    ready: &Ready,
    input: impl BufRead,
    mut output: impl Write,
) -> Result<(), Error> {
    send(&mut output, ready)?;
    for line in input.lines() {
        let line = line.map_err(|source| Error::Io { path: "standard input".into(), source })?;
        let job: Job = serde_json::from_str(&line).map_err(|e| Error::Invalid(format!("not a job: {e}")))?;
        send(&mut output, &work(service, job).await?)?;
    }
    Ok(())
}

async fn work(service: &dyn Generate, job: Job) -> Result<Outcome, Error> {
    let clock = Clock::start();
    let timings =
        try_join_all(job.prompts.into_iter().map(|prompt| timed(service, "", prompt, job.new_tokens))).await?;
    Ok(Outcome {
        first_seconds: timings.iter().map(|t| t.first).fold(0.0, f64::max),
        total_seconds: clock.seconds(),
        tokens: timings.iter().map(|t| t.tokens).sum(),
    })
}

fn send(output: &mut impl Write, line: &impl Serialize) -> Result<(), Error> {
    let text = serde_json::to_string(line).map_err(|e| Error::Invalid(e.to_string()))?;
    writeln!(output, "{text}")
        .and_then(|()| output.flush())
        .map_err(|source| Error::Io { path: "standard output".into(), source })
}
