//! What only `cargo xtask test --slow` runs: minutes each, and worth it before a release.
//!
//! Perplexity is compared with what llama.cpp gives on the same file and text (`crates/eval/peers/llama_perplexity.py` recorded it), and
//! multiple choice with what lm-eval measures through the API (`crates/eval/peers/lm_eval/run.py`).

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{
    check,
    provision::{cache, python_with},
    run::{Steps, cargo, output, root, run},
    sdk::Server,
    test::{Needs, with_data},
};

/// Model, and llama.cpp's perplexity of the text of [`text`] in windows of 512.
const RECORDED: [(&str, f64); 1] = [("SmolLM2-135M-Instruct.Q4_1.gguf", 17.7465)];
/// How far ours may be from it: llama.cpp's own kernels differ by as much between machines.
const PERPLEXITY_TOLERANCE: f64 = 0.005;
/// Passages of BoolQ's questions that make the text.
const PASSAGES: usize = 100;

/// Questions per task: enough for 0.3 points to mean something (one question is 0.2 points or less).
const TASKS: [(&str, usize); 3] = [("piqa", 1500), ("boolq", 500), ("openbookqa", 500)];
/// In points (hundredths).
const CHOICE_TOLERANCE: f64 = 0.003;

/// Long tests of the crates, full-text perplexity, and lm-eval beside `tessera eval`.
pub(crate) fn test(steps: &mut Steps, needs: &Needs) {
    steps.step("long tests", || {
        let mut command = check::tests(check::Kind::Slow);
        with_data(&mut command, needs.models().as_deref(), needs.datasets().as_deref());
        run(&mut command)
    });
    let (Some(models), Some(datasets)) = (needs.models(), needs.datasets()) else {
        return steps.missing("perplexity and lm-eval", "models or data sets are missing, see above");
    };
    for (model, recorded) in RECORDED {
        steps.step(&format!("perplexity of {model}"), || perplexity(&models.join(model), &datasets, recorded));
    }
    let model = models.join(RECORDED[0].0);
    steps.step("lm-eval", || lm_eval(&models, &model, &datasets));
}

fn perplexity(model: &Path, datasets: &Path, recorded: f64) -> Result<()> {
    let file = cache()?.join("boolq.txt");
    fs::write(&file, text(&fs::read_to_string(datasets.join("BoolQ/dev.jsonl"))?)?)?;
    let mut command = tessera(&["eval", "perplexity", "--window", "512", "--json", "--text"]);
    let found: Value = serde_json::from_str(&output(command.arg(&file).arg("--model").arg(model))?)?;
    let ours = found["perplexity"]["value"].as_f64().context("no perplexity in the result")?;
    let off = ours / recorded - 1.0;
    println!("perplexity {ours:.4}, llama.cpp {recorded:.4}, {:+.2} %", off * 100.0);
    if off.abs() > PERPLEXITY_TOLERANCE {
        bail!("{ours:.4} is not within {} % of llama.cpp's {recorded:.4}", PERPLEXITY_TOLERANCE * 100.0);
    }
    Ok(())
}

/// The first passages, a line each.
fn text(lines: &str) -> Result<String> {
    let mut text = String::new();
    for line in lines.lines().take(PASSAGES) {
        let line: Value = serde_json::from_str(line)?;
        text.push_str(line["passage"].as_str().context("a line without a passage")?);
        text.push('\n');
    }
    Ok(text)
}

fn lm_eval(models: &Path, model: &Path, datasets: &Path) -> Result<()> {
    let folder = root().join("crates/eval/peers/lm_eval");
    let python = python_with(&folder.join("requirements.txt"), &[])?;
    let mut theirs = Vec::new();
    let server = Server::start(models)?;
    for (task, n) in TASKS {
        let mut command =
            python.command(&["crates/eval/peers/lm_eval/run.py", "--task", task, "--limit", &n.to_string()]);
        command.args(["--url", &server.base_url()]).arg("--model").arg(model).arg("--datasets").arg(datasets);
        theirs.push(last_json(&output(&mut command)?)?);
    }
    server.stop()?;
    let mut worst = 0.0f64;
    for ((task, n), theirs) in TASKS.into_iter().zip(theirs) {
        let mut command = tessera(&["eval", "choice", "--json", "--task", task, "--limit", &n.to_string()]);
        let ours = last_json(&output(command.arg("--model").arg(model).arg("--data").arg(datasets))?)?;
        for metric in ["acc", "acc_norm"] {
            let (a, b) = (ours[metric]["value"].as_f64(), theirs[metric].as_f64());
            let (a, b) = a.zip(b).with_context(|| format!("{task} lacks {metric}: {ours} {theirs}"))?;
            println!("{task:<12} {metric:<9} tessera {:.2} lm-eval {:.2} of {n} questions", a * 100.0, b * 100.0);
            worst = worst.max((a - b).abs());
        }
    }
    if worst > CHOICE_TOLERANCE {
        bail!("tessera eval and lm-eval differ by {:.2} points", worst * 100.0);
    }
    Ok(())
}

/// The last line that is a JSON object; a program may have said something before.
fn last_json(text: &str) -> Result<Value> {
    let whole = serde_json::from_str(text).ok();
    let line = || text.lines().rev().find_map(|line| serde_json::from_str(line).ok());
    whole.or_else(line).with_context(|| format!("no JSON in {text:?}"))
}

fn tessera(args: &[&str]) -> Command {
    let mut command = cargo(&["run", "--quiet", "--release", "--package", "cli", "--bin", "tessera", "--"]);
    command.args(args);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_found_behind_other_lines() {
        assert_eq!(last_json("hello\n{\"a\": 1}\n").unwrap()["a"], 1);
        assert_eq!(last_json("{\n \"a\": 2\n}\n").unwrap()["a"], 2);
        assert!(last_json("nothing").is_err());
    }

    #[test]
    fn passages_are_lines() {
        assert_eq!(text("{\"passage\": \"a\"}\n{\"passage\": \"b\"}\n").unwrap(), "a\nb\n");
        assert!(text("{}").is_err());
    }
}
