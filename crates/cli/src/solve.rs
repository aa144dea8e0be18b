//! `tessera solve`: a problem, its chains as they are written, and the answer they agree on.

use anyhow::Context;
use clap::{Args, ValueEnum};
use futures_util::StreamExt;
use protocol::{Check, Conclusion, Decide, Effort, Solution, SolveRequest, Step, StepEvent, Verdict};
use reason::Reason;

use crate::{chat::SourceArgs, generate::read, model::EngineArgs, screen};

/// Options of `solve`.
#[derive(Debug, Args)]
pub(crate) struct SolveArgs {
    /// The problem, in words; without one, or as `-`, it is read from standard input
    problem: Option<String>,
    #[command(flatten)]
    source: SourceArgs,
    #[command(flatten)]
    effort: EffortArgs,
    /// The same seed gives the same chains
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Print the solution with all its chains as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    engine: EngineArgs,
}

/// How much is spent on a problem.
#[derive(Debug, Args)]
#[command(next_help_heading = "Effort")]
pub(crate) struct EffortArgs {
    /// Chains written at the same time; they vote on the answer
    #[arg(long, value_name = "N", default_value_t = Effort::default().chains)]
    chains: usize,
    /// Times a wrong step is written again before its chain is given up
    #[arg(long, value_name = "N", default_value_t = Effort::default().retries)]
    retries: usize,
    /// Where the values of steps come from
    #[arg(long, value_enum, default_value_t = Values::Compute)]
    check: Values,
}

/// What is done about the values of steps.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Values {
    /// The model's word stands
    Off,
    /// The model writes them; a step whose value is wrong is written again
    Resample,
    /// The model writes expressions; their values are computed and put in
    Compute,
}

impl EffortArgs {
    pub(crate) fn effort(&self) -> Effort {
        let check = match self.check {
            Values::Off => Check::Off,
            Values::Resample => Check::Resample,
            Values::Compute => Check::Compute,
        };
        Effort { chains: self.chains, retries: self.retries, check }
    }
}

/// Shows every step as it is done, then what it came to.
pub(crate) async fn run(args: SolveArgs) -> anyhow::Result<()> {
    let problem = read(args.problem.as_deref())?;
    let (service, model) = args.source.open(&args.engine).await?;
    let reason = Reason::new(vec![service]);
    let request = SolveRequest {
        id: "solve".into(),
        problem,
        model,
        effort: args.effort.effort(),
        seed: args.seed,
        tenant: String::new(),
        deadline: None,
    };
    let mut events = reason.solve(request).await?;
    while let Some(event) = events.next().await {
        match event? {
            StepEvent::Step(step) if !args.json => screen::line(shown(&step))?,
            StepEvent::Done(conclusion) => {
                let Conclusion::Solution(solution) = *conclusion else { continue };
                return if args.json { screen::json(&solution) } else { conclude(&solution) };
            }
            _ => {}
        }
    }
    Err(anyhow::anyhow!("the solution ended early")).context("no answer")
}

/// `2  in May: 48 / 2 = 24 (computed)`, with the number of the chain before it.
fn shown(step: &Step) -> String {
    let value = step.result.as_str().unwrap_or_default();
    let expression =
        step.inputs["expression"].as_str().map_or_else(String::new, |expression| format!("{expression} = "));
    let rule = step.rule.as_deref().map_or_else(String::new, |rule| format!("  ({rule})"));
    format!("{:>2}  {}: {expression}{value}{rule}", step.node.as_deref().unwrap_or_default(), step.action)
}

fn conclude(solution: &Solution) -> anyhow::Result<()> {
    let verdict = match solution.verdict {
        Verdict::Verified => "every step computed",
        Verdict::Unverified => "not checked",
        Verdict::Failed => "no chain held",
    };
    let answer = solution.answer.as_deref().unwrap_or("none");
    let share = solution.confidence * 100.0;
    Ok(screen::line(format_args!("answer: {answer}  ({verdict}; {share:.0} % of the vote)"))?)
}
