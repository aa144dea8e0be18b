//! Problems with numbers as answers: what chains, checks and votes add to a plain answer, and what they cost.
//!
//! Every way of answering gets the same problems, so differences are taken problem by problem and their intervals are over
//! problems. Answers are the same if they are the same number, however it is written. A chain that is not checked and the same
//! chain under a check without retries are one text up to the first wrong value, so of two such runs the second tells which
//! wrong answers of the first a check catches.

use std::{
    fmt, fs,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
};

use futures_util::{StreamExt, TryStreamExt, stream};
use protocol::{
    Chat, Conclusion, Decide, Effort, Event, Format, Generate, GenerateRequest, Message, Prompt, Solution,
    SolveRequest, StepEvent, Usage, Verdict,
};
use serde::{Deserialize, Serialize};

use crate::{Error, Estimate, Progress, Report, Row, bench::Clock, bootstrap, wilson};

/// What a model is told that answers without a chain.
const PLAIN: &str = "Solve the problem. Give only the final answer, as one number.";
const NUMBER: &str = r"-?[0-9]{1,18}(\.[0-9]{1,8}|/[0-9]{1,9})?";

/// A problem and its answer, as a line of a task file has them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The set it belongs to.
    pub task: String,
    /// The problem, in words.
    pub problem: String,
    /// A number or a fraction.
    pub answer: String,
}

/// A way of answering.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Way {
    /// What it is called.
    pub name: String,
    /// What is spent on chains; `None` answers at once.
    pub effort: Option<Effort>,
}

/// How to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SolveOptions {
    /// Which model; empty means the default one.
    pub model: String,
    /// Problems in flight at once.
    pub concurrency: usize,
    /// The same seed gives the same chains.
    pub seed: u64,
}

/// What came of one problem.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The answer given.
    pub answer: Option<String>,
    /// It is the right one.
    pub right: bool,
    /// What checking said of it.
    pub verdict: Verdict,
    /// Steps of all chains.
    pub steps: usize,
    /// Steps of all chains that were wrong when they were first written.
    pub wrong_steps: usize,
    /// Tokens it took.
    pub usage: Usage,
}

/// What came of all problems, answered in one way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// The way.
    pub way: Way,
    /// One for each problem, in their order.
    pub outcomes: Vec<Outcome>,
    /// What all of it took, from the first question to the last answer.
    pub seconds: f64,
}

/// Runs over the same problems.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SolveResult {
    /// Who answered.
    pub model: String,
    /// The problems.
    pub problems: Vec<Problem>,
    /// One for each way, in their order.
    pub runs: Vec<Run>,
}

impl Problem {
    /// Reads a file with one problem per line.
    ///
    /// # Errors
    /// A file that cannot be read, a line that is no problem, or an answer that is no number.
    pub fn load(path: &Path) -> Result<Vec<Self>, Error> {
        let text = fs::read_to_string(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
        let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        lines
            .map(|(i, line)| {
                let broken = |message: String| Error::Data { path: path.to_owned(), line: i + 1, message };
                let problem: Self = serde_json::from_str(line).map_err(|e| broken(e.to_string()))?;
                match fraction(&problem.answer) {
                    Some(_) => Ok(problem),
                    None => Err(broken(format!("the answer {:?} is no number", problem.answer))),
                }
            })
            .collect()
    }

    fn is_answered_by(&self, answer: &str) -> bool {
        fraction(answer).is_some_and(|answer| fraction(&self.answer) == Some(answer))
    }
}

/// Asks all problems in every way, one way after the other.
///
/// # Errors
/// The service's own.
pub async fn solve(
    text: &dyn Generate,
    reason: &dyn Decide,
    problems: &[Problem],
    ways: &[Way],
    options: &SolveOptions,
    progress: Progress<'_>,
) -> Result<SolveResult, Error> {
    let done = AtomicUsize::new(0);
    let all = problems.len() * ways.len();
    let mut runs = Vec::new();
    for way in ways {
        let clock = Clock::start();
        let one = |(index, problem)| {
            let done = &done;
            async move {
                let outcome = match way.effort {
                    None => plain(text, problem, options).await?,
                    Some(effort) => chains(reason, problem, effort, index, options).await?,
                };
                progress(done.fetch_add(1, Ordering::Relaxed) + 1, all);
                Ok::<_, Error>(outcome)
            }
        };
        let outcomes = stream::iter(problems.iter().enumerate()).map(one).buffered(options.concurrency.max(1));
        let outcomes = outcomes.try_collect().await?;
        runs.push(Run { way: way.clone(), outcomes, seconds: clock.seconds() });
    }
    let model = match options.model.is_empty() {
        true => text.models().first().map_or_else(String::new, |card| card.id.clone()),
        false => options.model.clone(),
    };
    Ok(SolveResult { model, problems: problems.to_vec(), runs })
}

async fn plain(text: &dyn Generate, problem: &Problem, options: &SolveOptions) -> Result<Outcome, Error> {
    let turn = |role: &str, text: &str| Message { role: role.into(), content: Some(text.into()), ..Message::default() };
    let messages = vec![turn("system", PLAIN), turn("user", &problem.problem)];
    let mut request = GenerateRequest::new(Prompt::Chat(Chat { messages, ..Chat::default() }), 40);
    request.model.clone_from(&options.model);
    request.sampling.temperature = 0.0;
    request.format = Format::Regex(NUMBER.into());
    let mut events = text.generate(request).await?;
    let (mut answer, mut usage) = (String::new(), Usage::default());
    while let Some(event) = events.next().await {
        match event? {
            Event::Text { text, .. } => answer.push_str(&text),
            Event::Done(found) => usage = found,
            _ => {}
        }
    }
    let right = problem.is_answered_by(&answer);
    let verdict = Verdict::Unverified;
    Ok(Outcome { answer: Some(answer), right, verdict, steps: 0, wrong_steps: 0, usage })
}

async fn chains(
    reason: &dyn Decide,
    problem: &Problem,
    effort: Effort,
    index: usize,
    options: &SolveOptions,
) -> Result<Outcome, Error> {
    let request = SolveRequest {
        id: format!("eval{index}"),
        problem: problem.problem.clone(),
        model: options.model.clone(),
        effort,
        seed: Some(options.seed.wrapping_add(index as u64)),
        tenant: String::new(),
        deadline: None,
    };
    let mut events = reason.solve(request).await?;
    while let Some(event) = events.next().await {
        if let StepEvent::Done(conclusion) = event?
            && let Conclusion::Solution(solution) = *conclusion
        {
            return Ok(judge(problem, solution));
        }
    }
    Err(Error::unexpected("a solution at the end of its stream", "a stream without one"))
}

fn judge(problem: &Problem, solution: Solution) -> Outcome {
    let steps = || solution.chains.iter().flat_map(|chain| &chain.steps);
    let wrong = |step: &&protocol::ChainStep| {
        step.retries > 0 || step.computed.as_ref().is_some_and(|value| fraction(value) != fraction(&step.claimed))
    };
    Outcome {
        right: solution.answer.as_deref().is_some_and(|answer| problem.is_answered_by(answer)),
        verdict: solution.verdict,
        steps: steps().count(),
        wrong_steps: steps().filter(wrong).count(),
        usage: solution.usage,
        answer: solution.answer,
    }
}

/// A decimal or a fraction in lowest terms; whole numbers of up to 18 digits on either side.
fn fraction(text: &str) -> Option<(i128, i128)> {
    let clean: String = text.trim().chars().filter(|c| !matches!(c, ',' | '$' | ' ')).collect();
    let (numer, denom) = match clean.split_once('/') {
        Some((numer, denom)) => (numer.parse().ok()?, denom.parse().ok()?),
        None => decimal(&clean)?,
    };
    let divisor = divisor(numer, denom) * i128::signum(denom);
    (denom != 0).then(|| (numer / divisor, denom / divisor))
}

fn decimal(text: &str) -> Option<(i128, i128)> {
    let (whole, places) = text.split_once('.').unwrap_or((text, ""));
    let denom = 10i128.checked_pow(u32::try_from(places.len()).ok()?)?;
    Some((format!("{whole}{places}").parse().ok()?, denom))
}

/// The greatest common divisor; 1 where there is none.
fn divisor(a: i128, b: i128) -> i128 {
    let (mut a, mut b) = (a.abs(), b.abs());
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a.max(1)
}

impl Run {
    fn right(&self) -> Estimate {
        wilson(self.outcomes.iter().filter(|outcome| outcome.right).count(), self.outcomes.len())
    }

    /// The mean over problems of what `of` says.
    fn mean(&self, of: impl Fn(&Outcome) -> f64) -> Estimate {
        bootstrap(&self.outcomes.iter().map(|outcome| (of(outcome), 1.0)).collect::<Vec<_>>())
    }

    fn rows(&self) -> Vec<Row> {
        let name = |what: &str| format!("{}: {what}", self.way.name);
        let per_problem = self.seconds / self.outcomes.len().max(1) as f64;
        let seconds = Estimate { value: per_problem, low: per_problem, high: per_problem, n: 1 };
        let mut rows = vec![Row::of(name("right"), self.right().map(|share| share * 100.0), "%")];
        let verified: Vec<_> = self.outcomes.iter().filter(|o| o.verdict == Verdict::Verified).collect();
        if !verified.is_empty() {
            let right = wilson(verified.iter().filter(|outcome| outcome.right).count(), verified.len());
            rows.push(Row::of(name("right among verified"), right.map(|share| share * 100.0), "%"));
        }
        let steps = self.outcomes.iter().map(|outcome| outcome.steps).sum();
        if steps > 0 {
            let wrong = wilson(self.outcomes.iter().map(|outcome| outcome.wrong_steps).sum(), steps);
            rows.push(Row::of(name("steps found wrong"), wrong.map(|share| share * 100.0), "% of steps"));
        }
        rows.push(Row::of(name("tokens written"), self.mean(|o| o.usage.completion_tokens as f64), "per problem"));
        rows.push(Row::of(name("time"), seconds, "s per problem, side by side"));
        rows
    }
}

impl SolveResult {
    /// As a table, with every way's difference from the first chains.
    #[must_use]
    pub fn report(&self) -> Report {
        let mut rows: Vec<Row> = self.runs.iter().flat_map(Run::rows).collect();
        let base = self.runs.iter().position(|run| run.way.effort.is_some()).unwrap_or(0);
        for run in self.runs.iter().skip(base + 1) {
            rows.extend(self.runs.get(base).map(|base| difference(run, base)));
            rows.extend(self.runs.get(base).and_then(|base| caught(run, base)));
        }
        Report::new(format!("{} problems with {}", self.problems.len(), self.model), rows)
            .note("differences are taken problem by problem; intervals are over problems")
    }

    /// The part of it that belongs to one task.
    #[must_use]
    pub fn of_task(&self, task: &str) -> Self {
        let of = |i: &usize| self.problems.get(*i).is_some_and(|problem| problem.task == task);
        let places: Vec<usize> = (0..self.problems.len()).filter(of).collect();
        let share = places.len() as f64 / self.problems.len().max(1) as f64;
        let run = |run: &Run| Run {
            way: run.way.clone(),
            outcomes: places.iter().filter_map(|&i| run.outcomes.get(i).cloned()).collect(),
            seconds: run.seconds * share,
        };
        Self {
            model: self.model.clone(),
            problems: places.iter().filter_map(|&i| self.problems.get(i).cloned()).collect(),
            runs: self.runs.iter().map(run).collect(),
        }
    }
}

fn difference(run: &Run, base: &Run) -> Row {
    let points = |outcome: &Outcome| if outcome.right { 100.0 } else { 0.0 };
    let pairs = run.outcomes.iter().zip(&base.outcomes);
    let units: Vec<_> = pairs.map(|(ours, theirs)| (points(ours) - points(theirs), 1.0)).collect();
    Row::of(format!("{} - {}", run.way.name, base.way.name), bootstrap(&units), "points")
}

/// Of the wrong answers of the base run, the share whose chain this run gave up: what a check alone catches. Only a run that
/// never writes anything again gives up for what stood in the other.
fn caught(run: &Run, base: &Run) -> Option<Row> {
    let comparable = run.way.effort.is_some_and(|effort| effort.retries == 0 && effort.chains == 1);
    let wrong: Vec<_> = run.outcomes.iter().zip(&base.outcomes).filter(|(_, base)| !base.right).collect();
    let caught = wilson(wrong.iter().filter(|(run, _)| run.verdict == Verdict::Failed).count(), wrong.len());
    let name = format!("{}: wrong answers of {} caught", run.way.name, base.way.name);
    comparable.then(|| Row::of(name, caught.map(|share| share * 100.0), "% of wrong answers"))
}

impl fmt::Display for SolveResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut tasks: Vec<&str> = Vec::new();
        for problem in &self.problems {
            if !tasks.contains(&problem.task.as_str()) {
                tasks.push(&problem.task);
            }
        }
        if tasks.len() > 1 {
            for task in &tasks {
                writeln!(f, "{task}: {}", self.of_task(task).report())?;
            }
        }
        self.report().fmt(f)
    }
}

#[cfg(test)]
mod tests;
