//! Starting programs, and keeping count of what passed.

use std::{
    env,
    ffi::OsString,
    fmt::Display,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

/// The repository's root: this package stands one below it.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// The cargo that runs this, at the repository's root.
pub(crate) fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
    command.args(args).current_dir(root());
    command
}

/// Runs a program to its end; an exit code other than 0 is an error that names the command.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    println!("$ {}", shown(command));
    let status = command.status().with_context(|| format!("cannot start {}", shown(command)))?;
    if !status.success() {
        bail!("{} ended with {status}", shown(command));
    }
    Ok(())
}

/// Runs a program and returns what it wrote to standard output.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let found =
        command.stderr(Stdio::inherit()).output().with_context(|| format!("cannot start {}", shown(command)))?;
    if !found.status.success() {
        bail!("{} ended with {}", shown(command), found.status);
    }
    Ok(String::from_utf8(found.stdout)?)
}

/// The program starts and ends well; what it says is dropped.
pub(crate) fn works(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default();
    let words = std::iter::once(program).chain(command.get_args()).map(|word| word.to_string_lossy().into_owned());
    words.collect::<Vec<_>>().join(" ").chars().take(200).collect()
}

/// Where cargo puts what it builds.
pub(crate) fn target_directory() -> Result<PathBuf> {
    let text = output(&mut cargo(&["metadata", "--no-deps", "--format-version", "1"]))?;
    let metadata: serde_json::Value = serde_json::from_str(&text)?;
    Ok(metadata["target_directory"].as_str().context("cargo metadata names no target directory")?.into())
}

/// The steps of a chore: each runs whatever became of the ones before, and the end tells of all.
#[derive(Debug)]
pub(crate) struct Steps {
    done: Vec<(String, Duration, Option<String>)>,
}

impl Steps {
    pub(crate) fn new() -> Self {
        Self { done: Vec::new() }
    }

    /// Runs a step; its failure is noted, not passed on.
    pub(crate) fn step(&mut self, name: &str, work: impl FnOnce() -> Result<()>) -> bool {
        println!("\n== {name}");
        let start = now();
        let result = work();
        let failure = result.err().map(|error| format!("{error:#}"));
        if let Some(failure) = &failure {
            println!("FAILED: {failure}");
        }
        let ok = failure.is_none();
        self.done.push((name.to_owned(), start.elapsed(), failure));
        ok
    }

    /// Notes a step that cannot run, with the reason, as a failure.
    pub(crate) fn missing(&mut self, name: &str, why: impl Display) {
        self.step(name, || bail!("cannot run: {why}"));
    }

    /// Tells how every step went.
    pub(crate) fn finish(self) -> Result<()> {
        println!("\n== summary");
        for (name, time, failure) in &self.done {
            let verdict = if failure.is_none() { "ok" } else { "FAILED" };
            println!("{verdict:>8}  {name:<40} {:>7.1} s", time.as_secs_f64());
        }
        let failed = self.done.iter().filter(|(_, _, failure)| failure.is_some());
        let failures: Vec<_> =
            failed.map(|(name, _, failure)| format!("{name}: {}", failure.as_deref().unwrap_or(""))).collect();
        if failures.is_empty() {
            println!("all {} steps passed", self.done.len());
            return Ok(());
        }
        bail!("{} of {} steps failed\n  {}", failures.len(), self.done.len(), failures.join("\n  "))
    }
}

/// The real time.
#[expect(clippy::disallowed_methods, reason = "chores are timed for the person who waits for them")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failed_step_fails_the_chore_and_the_others_still_run() {
        let mut steps = Steps::new();
        assert!(!steps.step("first", || bail!("broken")));
        assert!(steps.step("second", || Ok(())));
        let error = steps.finish().unwrap_err().to_string();
        assert!(error.contains("1 of 2 steps failed") && error.contains("first: broken"), "{error}");
    }

    #[test]
    fn a_failing_program_is_named() {
        assert!(run(Command::new("false").arg("--why")).unwrap_err().to_string().starts_with("false --why ended with"));
        assert!(run(&mut Command::new("/nowhere/at-all")).unwrap_err().to_string().contains("cannot start at-all"));
        assert_eq!(output(Command::new("echo").arg("hello")).unwrap(), "hello\n");
    }
}
