//! `cargo xtask check`: what one runs before a commit, cheapest first. Tests that need models are left to `cargo xtask test`.

use std::process::Command;

use anyhow::Result;

use crate::{
    run::{Steps, cargo, run, works},
    tidy,
};

pub(crate) fn check() -> Result<()> {
    let mut steps = Steps::new();
    steps.step("format", || run(&mut cargo(&["fmt", "--all", "--check"])));
    steps.step("tidy", tidy::tidy);
    let clippy = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];
    steps.step("clippy", || run(&mut cargo(&clippy)));
    steps.step("tests", || run(&mut tests(Kind::WithoutModels)));
    steps.step("doc tests", || run(&mut cargo(&["test", "--workspace", "--doc"])));
    steps.step("docs", || run(cargo(&["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings")));
    if works(&mut cargo(&["deny", "--version"])) {
        steps.step("deny", || run(&mut cargo(&["deny", "check"])));
    } else {
        println!("\ncargo-deny is not installed, so licences and advisories are not checked: cargo install cargo-deny");
    }
    steps.finish()
}

/// Which tests to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Those that need nothing.
    WithoutModels,
    /// Also those that need models, but for the long ones.
    All,
    /// The long ones, which have `slow_` in their names.
    Slow,
}

/// Runs tests of a kind with nextest, or with cargo's own runner where that is not installed. Doc tests are apart.
pub(crate) fn tests(kind: Kind) -> Command {
    if works(&mut cargo(&["nextest", "--version"])) {
        let mut command = cargo(&["nextest", "run", "--workspace", "--no-fail-fast"]);
        match kind {
            Kind::WithoutModels => &mut command,
            Kind::All => command.args(["--run-ignored", "all", "-E", "not test(/slow_/)"]),
            Kind::Slow => command.args(["--run-ignored", "all", "-E", "test(/slow_/)", "--no-tests", "pass"]),
        };
        return command;
    }
    let mut command = cargo(&["test", "--workspace", "--no-fail-fast", "--lib", "--bins", "--tests"]);
    match kind {
        Kind::WithoutModels => &mut command,
        Kind::All => command.args(["--", "--include-ignored", "--skip", "slow_"]),
        Kind::Slow => command.args(["--", "--include-ignored", "slow_"]),
    };
    command
}
