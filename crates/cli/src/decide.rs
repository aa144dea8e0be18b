//! `tessera decide`: a decision by rules, from facts or a text, with its steps as they come.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use futures_util::StreamExt;
use protocol::{Conclusion, Decide, DecideRequest, Decision, Step, StepEvent, StepStream};
use reason::{Library, Reason};
use serde_json::{Map, Value};

use crate::{chat::SourceArgs, model::EngineArgs, remote, screen};

/// Where decisions of one's own lie, if the directory is there.
pub(crate) const DIRECTORY: &str = "decisions";

/// Options of `decide`.
#[derive(Debug, Args)]
pub(crate) struct DecideArgs {
    /// The decision to make
    #[arg(short, long, value_name = "NAME", default_value = "credit-approval")]
    decision: String,
    /// A text to find the facts in
    #[arg(short, long, value_name = "TEXT", required_unless_present_any = ["facts", "test"])]
    text: Option<String>,
    /// Facts that are known, as a JSON object; they win over the text
    #[arg(short, long, value_name = "JSON", value_parser = facts)]
    facts: Option<Map<String, Value>>,
    /// Language of the explanation, such as en or zh [default: the text's]
    #[arg(long, value_name = "TAG")]
    language: Option<String>,
    #[command(flatten)]
    source: SourceArgs,
    #[command(flatten)]
    library: LibraryArgs,
    /// Run the tests that stand beside the decisions of this directory, and those of the shipped ones, without a model
    #[arg(long, value_name = "DIR", conflicts_with_all = ["text", "facts", "url"])]
    test: Option<PathBuf>,
    /// Print the decision as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    engine: EngineArgs,
}

/// Which decisions there are.
#[derive(Debug, Args)]
pub(crate) struct LibraryArgs {
    /// Directory of decisions besides the shipped ones; changes apply at once [default: decisions, if it is there]
    #[arg(long, value_name = "DIR")]
    decisions: Option<PathBuf>,
}

impl LibraryArgs {
    /// The decisions inside this binary and those of the directory.
    pub(crate) fn library(&self) -> Library {
        Library::with_directory(self.decisions.clone().unwrap_or_else(|| DIRECTORY.into()))
    }
}

fn facts(text: &str) -> Result<Map<String, Value>, String> {
    serde_json::from_str(text).map_err(|error| format!("not a JSON object: {error}"))
}

/// Decides, or runs the tests of decisions.
pub(crate) async fn run(args: DecideArgs) -> anyhow::Result<()> {
    match &args.test {
        Some(directory) => test(&Library::with_directory(directory)).await,
        None => show(open(&args).await?, args.json).await,
    }
}

async fn open(args: &DecideArgs) -> anyhow::Result<StepStream> {
    let request = DecideRequest {
        id: "decide".to_owned(),
        decision: args.decision.clone(),
        facts: args.facts.clone().unwrap_or_default(),
        text: args.text.clone(),
        model: String::new(),
        language: args.language.clone(),
        tenant: String::new(),
        deadline: None,
    };
    if let Some(url) = &args.source.url {
        let model = args.source.model.clone().unwrap_or_default();
        return remote::decide(url, DecideRequest { model, ..request }).await;
    }
    let mut services = Vec::new();
    // Facts alone need no model.
    if args.text.is_some() {
        services.push(args.source.open(&args.engine).await?.0);
    }
    Ok(Reason::new(services).with_library(args.library.library()).decide(request).await?)
}

async fn show(mut events: StepStream, as_json: bool) -> anyhow::Result<()> {
    while let Some(event) = events.next().await {
        match event? {
            StepEvent::Step(step) if !as_json => screen::line(line(&step))?,
            StepEvent::Done(conclusion) => {
                let Conclusion::Decision(decision) = *conclusion else { continue };
                return if as_json { screen::json(&decision) } else { conclude(&decision) };
            }
            _ => {}
        }
    }
    Err(anyhow::anyhow!("the decision ended early")).context("no decision")
}

/// `3. Debt calculation → {..}  (rule)`.
fn line(step: &Step) -> String {
    let rule = step.rule.as_deref().map_or_else(String::new, |rule| format!("  ({rule})"));
    format!("{}. {} → {}{rule}", step.step, step.action, step.result)
}

fn conclude(decision: &Decision) -> anyhow::Result<()> {
    screen::line(format_args!("\n{}", decision.explanation))?;
    match &decision.output {
        Some(output) => Ok(screen::line(serde_json::to_string_pretty(output)?)?),
        None => Ok(()),
    }
}

async fn test(library: &Library) -> anyhow::Result<()> {
    let reports = reason::check(library).await;
    let failed = reports.iter().filter(|report| report.failure.is_some()).count();
    for report in &reports {
        match &report.failure {
            Some(failure) => screen::line(format_args!("FAILED  {}: {}: {failure}", report.decision, report.case))?,
            None => screen::line(format_args!("ok      {}: {}", report.decision, report.case))?,
        }
    }
    anyhow::ensure!(failed == 0, "{failed} of {} tests failed", reports.len());
    Ok(screen::line(format_args!("{} tests passed", reports.len()))?)
}
