//! The steps of a lap as commands of this program, and the gates behind them.
//!
//! A command's result is what it prints with `--json`; what it says beside that goes to the terminal as always. A command that was stopped
//! prints nothing, and goes on where it was when the step is run again.

use std::{path::PathBuf, process::Stdio, time::Duration};

use anyhow::{Context, bail, ensure};
use gateway::{
    laps::{Lap, Outcome, Step, micros},
    settings::Loop,
};
use serde_json::{Value, json};
use services::cascade;
use tokio::{process::Command, time::sleep};

use super::{Place, ServerArgs, settings};
use crate::{remote, screen, serve};

/// The share that is held out: half of it makes the calibration, which needs more items the lower the risk.
const HELD_OUT: &str = "0.2";
/// Behind a lap's name: its model of its own, where it makes one.
pub(super) const STUDENT: &str = "-student";
/// How often the server is asked how it is.
const LOOK: Duration = Duration::from_secs(2);
/// How often until it should have taken up a new file.
const LOOKS: usize = 30;

/// Does a step; what it said.
pub(super) async fn run(step: Step, place: &Place, lap: &Lap, server: &ServerArgs) -> anyhow::Result<Value> {
    match step {
        Step::Data => tessera(place, &data(place)).await,
        Step::Learn => tessera(place, &learn(place, lap)?).await,
        Step::Distil if place.section.student_layers == 0 => Ok(Value::Null),
        Step::Distil => tessera(place, &distil(place, lap)?).await,
        Step::Evaluate => {
            settings::serve(place, lap)?;
            let student = student(place, lap)?;
            until(server, "/v1/models", &format!("offers {student}"), |said| offers(said, &student)).await?;
            tessera(place, &evaluate(place, lap, server)?).await
        }
        Step::Offer => {
            settings::offer(place, lap)?;
            let name = name(place, lap);
            let took = format!("took {} up: its log says why", place.file.display());
            until(server, "/v1/rollouts", &took, |said| canary(said, place).is_some_and(|at| at["model"] == *name))
                .await?;
            Ok(json!({ "canary": name, "at": micros() }))
        }
        Step::Canary => watch(place, server).await,
    }
}

/// How the lap ends by what is done of it, if it does. A lap that was cut off between its last step and its end is ended the next time.
pub(super) fn outcome(section: &Loop, lap: &Lap) -> Option<Outcome> {
    lap.steps.keys().find_map(|step| gate(*step, section, lap))
}

/// Whether the lap ends behind this step.
fn gate(step: Step, section: &Loop, lap: &Lap) -> Option<Outcome> {
    let said = lap.said(step);
    let stopped = |why: String| Some(Outcome::Stopped { why });
    match step {
        Step::Data => {
            let count = |part: &str| said[part].as_u64().unwrap_or(0);
            let (rows, held, least) = (count("train"), count("held"), section.least as u64);
            // Half of what is held out calibrates.
            let calibrates = (cascade::fewest(section.risk) as u64).saturating_mul(2);
            let why = if rows < least {
                format!("there are {rows} rows to learn from, and {least} must be (least)")
            } else if held < calibrates {
                format!("{held} rows are held out, and to calibrate for this risk takes {calibrates} (risk)")
            } else {
                return None;
            };
            stopped(why)
        }
        Step::Evaluate => {
            let measured = &said["measured"];
            // There is none where the teacher was never right.
            let share = |of: &str| measured[of]["value"].as_f64();
            let gates = [
                ("kept", section.kept, "of the teacher's right answers are kept"),
                ("accepted", section.accepted, "of the answers are the student's"),
            ];
            let missed = gates.into_iter().find(|(of, least, _)| share(of).is_none_or(|share| share < *least));
            let why = |(of, least, what): (&str, f64, &str)| match share(of) {
                Some(share) => format!("{:.1} % {what}, and {:.1} % must be ({of})", 100.0 * share, 100.0 * least),
                None => format!("nobody can say how many {what}, for the teacher was never right ({of})"),
            };
            missed.map(why).and_then(stopped)
        }
        Step::Canary if said["course"] == "promoted" => Some(Outcome::Promoted),
        Step::Canary => Some(Outcome::RolledBack { why: said["why"].as_str().unwrap_or_default().to_owned() }),
        Step::Learn | Step::Distil | Step::Offer => None,
    }
}

/// What data sets, adapters and cascades of a lap are called.
pub(super) fn name(place: &Place, lap: &Lap) -> String {
    format!("{}-{}", place.section.name, lap.number)
}

/// What requests call the base with the lap's adapter.
fn adapted(lap: &Lap) -> anyhow::Result<&str> {
    lap.said(Step::Learn)["adapter"].as_str().context("no adapter was learned")
}

/// What the lap's model of its own is called, if it made one.
pub(super) fn distilled(place: &Place, lap: &Lap) -> Option<String> {
    lap.said(Step::Distil).is_object().then(|| format!("{}{STUDENT}", name(place, lap)))
}

/// What requests call the lap's student.
pub(super) fn student(place: &Place, lap: &Lap) -> anyhow::Result<String> {
    distilled(place, lap).map_or_else(|| adapted(lap).map(str::to_owned), Ok)
}

/// Where the lap's calibration is.
pub(super) fn calibration(place: &Place, lap: &Lap) -> PathBuf {
    lap.folder(&place.folder).join("calibration.json")
}

/// Only what the teacher said is learned: a student that learns from students forgets what it is for.
fn data(place: &Place) -> Vec<String> {
    let Loop { name, rollout, teacher, .. } = &place.section;
    let from = ["data", "build", name, "--from-ledger", "--asked-model", rollout, "--answered-by", teacher];
    words(&[&from[..], &["--held-out", HELD_OUT, "--json"]].concat())
}

fn set(lap: &Lap) -> anyhow::Result<String> {
    let text = |key: &str| lap.said(Step::Data)[key].as_str().context("no data set was made");
    Ok(format!("{}@{}", text("name")?, text("digest")?))
}

fn learn(place: &Place, lap: &Lap) -> anyhow::Result<Vec<String>> {
    let Loop { base, epochs, .. } = &place.section;
    let (set, name, epochs) = (set(lap)?, name(place, lap), epochs.to_string());
    Ok(words(&["train", "lora", "--data", &set, "--model", base, "--name", &name, "--epochs", &epochs, "--json"]))
}

/// The base and its adapter are the teacher of this student: what it is cut out of already knows how the loop's teacher answers.
fn distil(place: &Place, lap: &Lap) -> anyhow::Result<Vec<String>> {
    let section = &place.section;
    let base = format!("{}:{}", section.base, name(place, lap));
    let (set, name, epochs) = (set(lap)?, name(place, lap) + STUDENT, section.student_epochs.to_string());
    let made = ["distill", "--data", &set, "--model", &base, "--name", &name, "--epochs", &epochs, "--json"];
    let sizes = [
        ("--layers", section.student_layers),
        ("--width", section.student_width),
        ("--ffn", section.student_ffn),
        ("--kv-heads", section.student_kv_heads),
    ];
    let sizes = sizes.into_iter().filter(|(_, size)| *size > 0);
    Ok(words(&made).into_iter().chain(sizes.flat_map(|(key, size)| [key.to_owned(), size.to_string()])).collect())
}

fn evaluate(place: &Place, lap: &Lap, server: &ServerArgs) -> anyhow::Result<Vec<String>> {
    let (set, student, risk, out) =
        (set(lap)?, student(place, lap)?, place.section.risk.to_string(), calibration(place, lap));
    let out = out.to_str().context("the path of the calibration is not UTF-8")?;
    let asked = ["eval", "cascade", "--student", &student, "--teacher", &place.section.teacher, "--data", &set];
    let rest = ["--risk", &risk, "--out", out, "--url", &server.url, "--json"];
    Ok(words(&[&asked[..], &rest].concat()))
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(ToString::to_string).collect()
}

/// A command of this program under the loop's settings.
async fn tessera(place: &Place, words: &[String]) -> anyhow::Result<Value> {
    let shown = format!("tessera {}", words.join(" "));
    screen::note(format_args!("$ {shown}"));
    let mut command = Command::new(std::env::current_exe()?);
    command.args(words).env("TESSERA_CONFIG", &place.file).stdin(Stdio::null()).stdout(Stdio::piped());
    let output = command.spawn()?.wait_with_output().await?;
    ensure!(output.status.success(), "`{shown}` failed: mend that, and run the loop again: it goes on from here");
    ensure!(!output.stdout.is_empty(), "`{shown}` was stopped; run the loop again: it goes on from there");
    serde_json::from_slice(&output.stdout).with_context(|| format!("`{shown}` said what is no JSON"))
}

/// Waits until what the server says under a path is as it should be.
async fn until(server: &ServerArgs, path: &str, what: &str, is: impl Fn(&Value) -> bool) -> anyhow::Result<()> {
    for _ in 0..LOOKS {
        if is(&remote::get(&server.url, path).await?) {
            return Ok(());
        }
        sleep(LOOK).await;
    }
    bail!("{} is not a server that {what}", server.url)
}

fn offers(said: &Value, model: &str) -> bool {
    said["data"].as_array().is_some_and(|models| models.iter().any(|offered| offered["id"] == model))
}

/// Where the canary of the loop's rollout is.
fn canary<'v>(said: &'v Value, place: &Place) -> Option<&'v Value> {
    let named = said["rollouts"].as_array()?.iter().find(|rollout| rollout["model"] == *place.section.rollout)?;
    named.get("canary")
}

/// Waits until the canary is through or back; every move is told.
async fn watch(place: &Place, server: &ServerArgs) -> anyhow::Result<Value> {
    let mut moves = Value::Null;
    loop {
        let said = remote::get(&server.url, "/v1/rollouts").await?;
        let at =
            canary(&said, place).context("the rollout has lost its canary: `tessera loop abandon` ends the lap")?;
        if at["moves"] != moves {
            moves = at["moves"].clone();
            let why = at["why"].as_str().unwrap_or_default();
            screen::note(format_args!("{} % of the callers, {}: {why}", at["share"], told(at)));
        }
        if matches!(told(at), "promoted" | "rolled_back") {
            return Ok(at.clone());
        }
        tokio::select! {
            () = sleep(LOOK) => {}
            () = serve::interrupt() => bail!("stopped waiting; run the loop again: it goes on from here"),
        }
    }
}

fn told(canary: &Value) -> &str {
    canary["course"].as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gates_say_what_is_missing() {
        let section = Loop { least: 100, risk: 0.1, kept: 0.97, accepted: 0.3, ..Loop::default() };
        let check = |step: Step, said: Value, wanted: Option<&str>| {
            let lap = Lap { number: 1, began: 0, steps: [(step, said.clone())].into(), end: None, report: None };
            let found = outcome(&section, &lap).map(|outcome| format!("{outcome:?}"));
            match wanted {
                None => assert_eq!(found, None, "{said}"),
                Some(word) => assert!(found.as_ref().is_some_and(|found| found.contains(word)), "{said}: {found:?}"),
            }
        };
        check(Step::Data, json!({ "train": 100, "held": 22 }), None);
        check(Step::Data, json!({ "train": 99, "held": 22 }), Some("99 rows"));
        check(
            Step::Data,
            json!({ "train": 100, "held": 21 }),
            Some("21 rows are held out, and to calibrate for this risk takes 22"),
        );
        let measured = |kept: f64, accepted: f64| json!({ "measured": { "kept": { "value": kept }, "accepted": { "value": accepted } } });
        check(Step::Evaluate, measured(0.98, 0.5), None);
        check(Step::Evaluate, measured(0.96, 0.5), Some("96.0 % of the teacher"));
        check(Step::Evaluate, measured(0.98, 0.2), Some("(accepted)"));
        let never_right = json!({ "measured": { "kept": { "value": null }, "accepted": { "value": 1.0 } } });
        check(Step::Evaluate, never_right, Some("never right"));
        check(Step::Learn, json!({}), None);
        check(Step::Canary, json!({ "course": "promoted" }), Some("Promoted"));
        check(Step::Canary, json!({ "course": "rolled_back", "why": "slow" }), Some("slow"));
    }
}
