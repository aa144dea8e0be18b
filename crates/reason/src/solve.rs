//! A problem becomes explicit chains of steps, each computed again, and the chains vote.
//!
//! [`expression`] computes exactly, [`lines`] is the form of a chain and its grammar, [`prompt`] is what the model is shown,
//! [`writer`] writes one chain and keeps wrong steps out of it, [`vote`] counts. All chains are written at the same time, so an
//! engine takes them in one batch; as soon as the vote can no longer change, the others are dropped.
//!
//! What a verdict says is exactly this: every step's arithmetic is right and the answer is the value of a step. Whether the
//! steps are the right ones is the model's word, and what a vote over several chains is for.

pub(crate) mod expression;
mod lines;
mod prompt;
mod vote;
mod writer;

use std::sync::Arc;

use futures_util::{
    StreamExt,
    stream::{SelectAll, try_unfold},
};
use protocol::{Chain, Check, Conclusion, Effort, Error, Solution, SolveRequest, StepStream, Usage, Verdict};

use self::{
    expression::Number,
    vote::{Vote, leader, settled},
    writer::{Task, Writer},
};
use crate::{
    flow::{Steps, stream},
    models::Models,
};

/// The longest problem, in bytes.
const LONGEST: usize = 16 << 10;
/// Most chains of one request.
const MOST_CHAINS: usize = 32;
/// Most times a step may be written again.
const MOST_RETRIES: usize = 8;

/// Solves with the model the request names.
pub(crate) async fn solve(models: &Models, request: SolveRequest) -> Result<StepStream, Error> {
    check(&request)?;
    let (service, card) = models.pick(&request.model)?;
    let deadline = request.deadline;
    let task = Arc::new(Task { service, card, request });
    Ok(stream(deadline, move |steps| work(task, steps)))
}

fn check(request: &SolveRequest) -> Result<(), Error> {
    let Effort { chains, retries, .. } = request.effort;
    if request.problem.trim().is_empty() {
        return Err(Error::invalid("problem", "`problem` is empty: say what is to be solved."));
    }
    if request.problem.len() > LONGEST {
        return Err(Error::invalid("problem", format!("`problem` is longer than {LONGEST} bytes; shorten it.")));
    }
    if chains == 0 || chains > MOST_CHAINS {
        return Err(Error::invalid(
            "chains",
            format!("`chains` must lie between 1 and {MOST_CHAINS}, not at {chains}."),
        ));
    }
    if retries > MOST_RETRIES {
        return Err(Error::invalid("retries", format!("`retries` must be at most {MOST_RETRIES}, not {retries}.")));
    }
    Ok(())
}

/// Writes all chains side by side until they are done or the vote is settled.
async fn work(task: Arc<Task>, mut steps: Steps) -> Result<Conclusion, Error> {
    steps.started("");
    let effort = task.request.effort;
    let writers = (0..effort.chains).map(|index| Writer::new(task.clone(), index));
    let mut lines: SelectAll<_> = writers
        .map(|writer| {
            let next =
                |mut writer: Writer| async move { Ok::<_, Error>(writer.next().await?.map(|line| (line, writer))) };
            Box::pin(try_unfold(writer, next))
        })
        .collect();
    let mut outcome = Outcome::default();
    while let Some(line) = lines.next().await {
        let line = line?;
        outcome.add_usage(line.usage);
        line.step.map(|step| steps.step(step));
        if let Some(chain) = line.end {
            outcome.add(line.chain, chain);
            if settled(&outcome.votes, effort.chains - outcome.chains.len()) {
                break;
            }
        }
    }
    Ok(Conclusion::Solution(outcome.conclude(effort.check)))
}

/// What the chains came to so far.
#[derive(Debug, Default)]
struct Outcome {
    /// With the place of each among all that were begun.
    chains: Vec<(usize, Chain)>,
    votes: Vec<Vote>,
    usage: Usage,
}

impl Outcome {
    fn add_usage(&mut self, usage: Usage) {
        self.usage.prompt_tokens += usage.prompt_tokens;
        self.usage.cached_tokens += usage.cached_tokens;
        self.usage.completion_tokens += usage.completion_tokens;
    }

    /// A chain that was given up has no vote.
    fn add(&mut self, index: usize, chain: Chain) {
        let answer = chain.answer.as_deref().filter(|_| chain.verdict != Verdict::Failed).and_then(Number::parse);
        self.votes.extend(answer.map(|answer| Vote { chain: index, answer, weight: chain.weight }));
        self.chains.push((index, chain));
    }

    fn conclude(mut self, check: Check) -> Solution {
        let winner = leader(&self.votes);
        let answer = winner.as_ref().map(|(answer, ..)| answer.to_string());
        let agrees =
            |chain: &Chain| chain.answer.is_some() && chain.answer == answer && chain.verdict != Verdict::Failed;
        // The chain to show for the answer: a verified one, of these the surest.
        self.chains.sort_by(|(i, a), (j, b)| {
            let rank = |chain: &Chain| (agrees(chain), chain.verdict == Verdict::Verified);
            rank(b).cmp(&rank(a)).then(b.weight.total_cmp(&a.weight)).then(i.cmp(j))
        });
        let nothing = if check == Check::Off { Verdict::Unverified } else { Verdict::Failed };
        let best = self.chains.first().filter(|(_, chain)| agrees(chain));
        Solution {
            verdict: best.map_or(nothing, |(_, chain)| chain.verdict),
            confidence: winner.map_or(0.0, |(_, share, _)| share),
            answer,
            chains: self.chains.into_iter().map(|(_, chain)| chain).collect(),
            usage: self.usage,
        }
    }
}

#[cfg(test)]
mod tests;
