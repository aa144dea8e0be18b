//! `cargo xtask test`: everything, on a machine that has nothing but Rust, Python with pip, and a network pip can use.
//!
//! What is missing is said plainly and counts as a failure: a run that could not prove something is not green. The steps go on
//! after a failure, so that one run tells all.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::{
    check, console, openapi,
    provision::{self, Python},
    run::{Steps, cargo, root, run},
    sdk, slow, tidy,
};

/// What the tests need and cargo does not bring.
#[derive(Debug, Default)]
pub(crate) struct Needs {
    /// The directory with `models/` and `datasets/`.
    pub(crate) data: Option<PathBuf>,
    /// A Python with the packages of the client tests.
    pub(crate) python: Option<Python>,
}

impl Needs {
    pub(crate) fn models(&self) -> Option<PathBuf> {
        self.data.as_deref().map(|data| data.join("models"))
    }

    pub(crate) fn datasets(&self) -> Option<PathBuf> {
        self.data.as_deref().map(|data| data.join("datasets"))
    }
}

pub(crate) fn test(slow: bool) -> Result<()> {
    let mut steps = Steps::new();
    steps.step("tidy", tidy::tidy);
    steps.step("format", || run(&mut cargo(&["fmt", "--all", "--check"])));
    let needs = provision(&mut steps);
    steps.step("tests", || tests(&needs));
    steps.step("doc tests", || run(&mut cargo(&["test", "--workspace", "--doc"])));
    steps.step("the gateway against its OpenAPI document", openapi::test);
    match needs.models() {
        Some(models) => {
            steps.step("the console in a browser", || console::test(&models, slow));
        }
        None => steps.missing("the console in a browser", "models are missing, see above"),
    }
    match needs.models() {
        Some(models) => {
            steps.step("runs over several processes", || ranks(&models));
        }
        None => steps.missing("runs over several processes", "models are missing, see above"),
    }
    match (&needs.python, needs.models()) {
        (Some(python), Some(models)) => {
            steps.step("OpenAI's and Anthropic's clients against a served model", || sdk::test(python, &models));
        }
        _ => steps.missing(
            "OpenAI's and Anthropic's clients against a served model",
            "Python packages or models are missing, see above",
        ),
    }
    if slow {
        slow::test(&mut steps, &needs);
    }
    steps.finish()
}

fn provision(steps: &mut Steps) -> Needs {
    let mut needs = Needs::default();
    steps.step("models and data sets", || {
        needs.data = Some(provision::models()?);
        Ok(())
    });
    steps.step("PostgreSQL", provision::postgres);
    steps.step("MPI", provision::mpi);
    steps.step("Python packages", || {
        needs.python = Some(provision::python_with(&root().join("tests/sdk/requirements.txt"), &[])?);
        Ok(())
    });
    needs
}

/// Without models the tests that need them still run, and say themselves what they miss.
fn tests(needs: &Needs) -> Result<()> {
    let mut command = check::tests(check::Kind::All);
    with_data(&mut command, needs.models().as_deref(), needs.datasets().as_deref());
    // Here a test that does not find PostgreSQL fails, instead of saying so.
    run(command.env("TESSERA_TEST_POSTGRES", "1"))
}

/// What is built with MPI only.
fn ranks(models: &Path) -> Result<()> {
    let mut command = cargo(&["test", "-p", "cli", "--features", "mpi", "--test", "ranks", "--", "--include-ignored"]);
    with_data(&mut command, Some(models), None);
    run(&mut command)
}

/// Tells tests where models and data sets are.
pub(crate) fn with_data(command: &mut std::process::Command, models: Option<&Path>, datasets: Option<&Path>) {
    models.map(|models| command.env("TESSERA_TEST_MODELS", models));
    datasets.map(|datasets| command.env("TESSERA_TEST_DATASETS", datasets));
}
