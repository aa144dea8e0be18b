//! `tessera rollout`: the rollouts of a running server, how its canaries move, and how large a rollout must be.

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use services::rollout::{ERROR, sequence};

use crate::{remote, screen};

/// Options of `rollout`.
#[derive(Debug, Args)]
pub(crate) struct RolloutArgs {
    #[command(subcommand)]
    verb: RolloutVerb,
}

#[derive(Debug, Subcommand)]
enum RolloutVerb {
    /// List the versions with their weights, what was counted of them, and how they stand beside the first of most callers; where canaries are
    List(AskArgs),
    /// Say what rollouts show as experiments, each by the metric that its settings name, and how much it still takes
    Experiments(AskArgs),
    /// Say how many requests two equal parts need until a difference between them shows
    Size(SizeArgs),
    /// Show one rollout as JSON, its shadow included
    Show {
        /// The name that requests use
        #[arg(value_name = "NAME")]
        name: String,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Keep a canary at the share it has
    Pause(NamedArgs),
    /// Let a canary go on, after a rollback from its first step
    Resume(NamedArgs),
    /// Give a canary to all callers at once
    Promote(NamedArgs),
    /// Take a canary back from all callers
    Rollback(NamedArgs),
}

#[derive(Debug, Args)]
struct NamedArgs {
    /// The name that requests use
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    server: ServerArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct AskArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct ServerArgs {
    /// The server; TESSERA_API_KEY is an auditor's or an admin's key for it
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    url: String,
}

#[derive(Debug, Args)]
struct SizeArgs {
    /// How often the better version fails, 0 to 1
    #[arg(long, value_name = "SHARE")]
    rate: f64,
    /// How much more often the other one fails
    #[arg(long, value_name = "SHARE")]
    difference: f64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs it.
pub(crate) async fn run(args: RolloutArgs) -> anyhow::Result<()> {
    match args.verb {
        RolloutVerb::List(AskArgs { server, json }) => {
            let found = rollouts(&server).await?;
            let canaries: String = found.iter().filter_map(canary).collect();
            screen::show(json, &found, screen::table(&table(&found)) + &canaries)
        }
        RolloutVerb::Experiments(AskArgs { server, json }) => {
            let found = remote::get(&server.url, "/v1/experiments").await?;
            let found = found["experiments"].as_array().cloned().unwrap_or_default();
            screen::show(json, &found, screen::table(&experiments(&found)))
        }
        RolloutVerb::Size(args) => size(&args),
        RolloutVerb::Show { name, server } => {
            let found = rollouts(&server).await?;
            let named = found.iter().find(|rollout| rollout["model"] == *name);
            screen::json(named.ok_or_else(|| anyhow::anyhow!("no rollout is called {name}"))?)
        }
        RolloutVerb::Pause(args) => act(args, "pause").await,
        RolloutVerb::Resume(args) => act(args, "resume").await,
        RolloutVerb::Promote(args) => act(args, "promote").await,
        RolloutVerb::Rollback(args) => act(args, "rollback").await,
    }
}

fn size(args: &SizeArgs) -> anyhow::Result<()> {
    let SizeArgs { rate, difference, json } = *args;
    anyhow::ensure!(
        rate >= 0.0 && difference > 0.0 && rate + difference < 1.0,
        "--rate and --difference are shares, and their sum is less than 1"
    );
    let requests = sequence::needed(rate, difference, ERROR);
    let text = format!("{requests} requests, half to each version: found in 4 of 5 trials, wrongly in 1 of 20 at most");
    screen::show(json, &json!({ "requests": requests, "power": 0.8, "error": ERROR }), text)
}

/// Tells a canary what to do; the answer is where it is then.
async fn act(NamedArgs { name, server, json }: NamedArgs, action: &str) -> anyhow::Result<()> {
    let moved = remote::post(&server.url, &format!("/v1/rollouts/{name}"), &json!({ "action": action })).await?;
    let canary = &moved["canary"];
    let [model, share, course] = ["model", "share", "course"].map(|key| told(&canary[key]));
    screen::show(json, canary, format!("{name}: {model} has {share} % of the callers, {}", course.replace('_', " ")))
}

async fn rollouts(server: &ServerArgs) -> anyhow::Result<Vec<Value>> {
    let found = remote::get(&server.url, "/v1/rollouts").await?;
    Ok(found["rollouts"].as_array().cloned().unwrap_or_default())
}

fn table(rollouts: &[Value]) -> Vec<Vec<String>> {
    let head =
        ["NAME", "VERSION", "WEIGHT", "CALLERS", "REQUESTS", "FAILED", "FAILURES", "WAIT", "BLOCKS", "COST", "QUALITY"];
    let head = head.map(str::to_owned).to_vec();
    let rows = rollouts.iter().flat_map(|rollout| {
        rollout["versions"].as_array().into_iter().flatten().map(|version| {
            let counted = ["model", "weight", "callers", "requests", "failed"].map(|key| told(&version[key]));
            let standing = ["failures", "wait", "blocks", "cost", "quality"];
            let standing = standing.map(|metric| told(&version[format!("{metric}_beside")]["standing"]));
            std::iter::once(told(&rollout["model"])).chain(counted).chain(standing).collect()
        })
    });
    std::iter::once(head).chain(rows).collect()
}

/// A row for each version beside the one it is compared with.
fn experiments(found: &[Value]) -> Vec<Vec<String>> {
    let head = ["NAME", "METRIC", "VERSION", "SAMPLES", "MEAN", "DIFFERENCE", "LOW", "HIGH", "STILL NEEDED", "VERDICT"];
    let rows = found.iter().flat_map(|experiment| {
        experiment["versions"].as_array().into_iter().flatten().map(|version| {
            let of = ["model", "metric"].map(|key| told(&experiment[key]));
            let counted = ["model", "samples"].map(|key| told(&version[key]));
            let beside = &version["beside"];
            let [difference, low, high] = ["difference", "low", "high"].map(|key| figure(&beside[key]));
            let verdict = beside["verdict"].as_str().unwrap_or("control").replace('_', " ");
            let rest = [figure(&version["mean"]), difference, low, high, told(&beside["still_needed"]), verdict];
            of.into_iter().chain(counted).chain(rest).collect()
        })
    });
    std::iter::once(head.map(str::to_owned).to_vec()).chain(rows).collect()
}

/// Four digits of it.
fn figure(value: &Value) -> String {
    value.as_f64().map_or_else(String::new, |value| format!("{value:.4}"))
}

/// Where a rollout's canary is, and why.
fn canary(rollout: &Value) -> Option<String> {
    let canary = rollout.get("canary")?;
    let [share, course, why] = ["share", "course", "why"].map(|key| told(&canary[key]));
    let (name, model, course) = (told(&rollout["model"]), told(&canary["model"]), course.replace('_', " "));
    Some(format!("\n{name}: {model} has {share} % of the callers, {course}: {why}"))
}

fn told(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}
