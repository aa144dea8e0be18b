//! docs/openapi.json against the gateway that serves it, over services that play: schemathesis makes requests of every operation,
//! right and wrong ones, and compares statuses, media types and bodies with the document.
//!
//! One check is left out, `positive_data_acceptance`: a schema cannot say that a tool choice names one of the tools, so requests
//! that fit their schema may be refused, by name.

use std::{
    fs,
    process::{Child, Command},
};

use anyhow::{Context, Result};

use crate::{
    provision,
    run::{cargo, root, run, target_directory},
    sdk::{free_address, wait_until_ready},
};

/// Two minutes of requests, in seconds.
const TIME: &str = "120";
/// Requests of each operation in the random phase.
const EXAMPLES: &str = "60";

pub(crate) fn test() -> Result<()> {
    let python = provision::python_with(&root().join("tests/openapi/requirements.txt"), &[])?;
    run(&mut cargo(&["build", "--package", "gateway", "--example", "fakes"]))?;
    let address = free_address()?;
    let fakes = target_directory()?.join("debug").join("examples").join("fakes");
    let records = target_directory()?.join("tmp").join("fakes");
    if records.exists() {
        fs::remove_dir_all(&records).with_context(|| format!("cannot clear {}", records.display()))?;
    }
    let mut command = Command::new(fakes);
    let child = command.arg(address.to_string()).arg(&records).spawn().context("cannot start the fakes")?;
    let mut fakes = Fakes(child);
    wait_until_ready(&mut fakes.0, address, "the gateway over fakes")?;
    let document = format!("http://{address}/openapi.json");
    let mut command = python.command(&["-m", "schemathesis.cli", "run", &document, "--checks", "all"]);
    command.args(["--exclude-checks", "positive_data_acceptance", "--phases", "examples,coverage,fuzzing"]);
    command.args(["--max-examples", EXAMPLES, "--max-time", TIME, "--seed", "1", "--suppress-health-check", "all"]);
    command.env("SCHEMATHESIS_HOOKS", "hooks").current_dir(root().join("tests/openapi"));
    run(&mut command)
}

/// The started example. Dropping it kills the process.
#[derive(Debug)]
struct Fakes(Child);

impl Drop for Fakes {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
