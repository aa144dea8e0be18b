//! `cargo xtask fuzz`: hostile bytes into every parser, with the compiler this repository pins and nothing to install.
//!
//! cargo-fuzz wants a nightly compiler for its sanitizers. What finds hostile input here is coverage and debug assertions: this
//! code has no `unsafe` outside `kernels`, so a panic, an overflow or an endless loop is what can go wrong. LLVM's coverage
//! pass is reachable from a stable compiler by two stable flags, and libFuzzer comes with the crate `libfuzzer-sys`. The flags
//! are given for a named target, which keeps them off build scripts.
//!
//! A crash is kept in `fuzz/artifacts/TARGET/`; the target run on that one file shows it again.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::run::{Steps, cargo, output, root, run};

/// What cargo-fuzz passes, without the sanitizer.
const FLAGS: [&str; 9] = [
    "--cfg fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
    "-Cdebug-assertions=on",
    "-Coverflow-checks=on",
];
/// Long enough for the largest seeds, short enough to run often.
const LARGEST_INPUT: usize = 65536;

pub(crate) fn fuzz(args: &[&str]) -> Result<()> {
    let (seconds, wanted) = match args {
        [] => (60, None),
        [first] => first.parse().map_or((60, Some(*first)), |seconds| (seconds, None)),
        [seconds, target] => (seconds.parse().context("the first word is how many seconds to run")?, Some(*target)),
        _ => bail!("cargo xtask fuzz [seconds] [target]"),
    };
    let targets: Vec<String> = targets()?.into_iter().filter(|t| wanted.is_none_or(|wanted| wanted == t)).collect();
    if targets.is_empty() {
        bail!("no fuzz target {:?} in fuzz/fuzz_targets", wanted.unwrap_or_default());
    }
    let programs = build()?;
    let mut steps = Steps::new();
    for target in &targets {
        steps.step(&format!("fuzz {target} for {seconds} s"), || fuzz_one(&programs, target, seconds));
    }
    steps.finish()
}

fn targets() -> Result<Vec<String>> {
    let entries = fs::read_dir(root().join("fuzz/fuzz_targets"))?;
    let names = entries.filter_map(|entry| entry.ok()?.path().file_stem()?.to_str().map(str::to_owned));
    let mut names: Vec<_> = names.collect();
    names.sort();
    Ok(names)
}

/// Builds all targets and returns where they are.
fn build() -> Result<PathBuf> {
    let host = output(Command::new("rustc").arg("-vV"))?;
    let host = host.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc -vV names no host")?;
    let manifest = root().join("fuzz/Cargo.toml");
    let mut command = cargo(&["build", "--release", "--bins", "--target", host, "--manifest-path"]);
    run(command.arg(&manifest).env("RUSTFLAGS", FLAGS.join(" ")).env_remove("CARGO_TARGET_DIR"))?;
    Ok(root().join("fuzz/target").join(host).join("release"))
}

fn fuzz_one(programs: &Path, target: &str, seconds: u64) -> Result<()> {
    let folder = |kind: &str| -> Result<PathBuf> {
        let path = root().join("fuzz").join(kind).join(target);
        fs::create_dir_all(&path)?;
        Ok(path)
    };
    // New finds go to the first folder; the committed seeds behind it are only read.
    let mut command = Command::new(programs.join(target));
    command
        .arg(folder("corpus")?)
        .arg(folder("seeds")?)
        .arg(format!("-artifact_prefix={}/", folder("artifacts")?.display()));
    command.args([format!("-max_total_time={seconds}"), format!("-max_len={LARGEST_INPUT}")]);
    run(command.args(["-timeout=10", "-rss_limit_mb=2048", "-print_final_stats=1", "-verbosity=0"]).current_dir(root()))
}
