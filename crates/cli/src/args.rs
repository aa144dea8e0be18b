//! The verbs, and the help that shows them in groups. The options of a verb stand in the verb's file.

use clap::{Command, Parser, Subcommand};

use crate::{
    audit, bench, chat, circle, config, data, decide, distill, embed, eval, generate, keys, models, rollout, serve,
    solve, train, up,
};

/// How the help sorts the verbs.
const GROUPS: [(&str, &[&str]); 4] = [
    ("Run", &["up", "serve", "chat", "generate", "decide", "solve", "embed"]),
    ("Govern", &["config", "keys", "rollout", "audit"]),
    ("Improve", &["data", "train", "distill", "eval", "loop"]),
    ("Inspect", &["models", "bench"]),
];

const TEMPLATE: &str = "{about-with-newline}\n{usage-heading} {usage}\n{after-help}\n\nOptions:\n{options}\n";

/// Tessera: language models on hardware you already have, behind the OpenAI API.
#[derive(Debug, Parser)]
#[command(name = "tessera", version, help_template = TEMPLATE, after_help = groups(), max_term_width = 110)]
#[command(subcommand_required = true, arg_required_else_help = true, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Fetch the default models once and serve them.
    Up(up::UpArgs),
    /// Serve models behind the OpenAI API.
    Serve(serve::ServeArgs),
    /// Talk to a model in the terminal.
    Chat(chat::ChatArgs),
    /// Give one answer to one prompt.
    Generate(generate::GenerateArgs),
    /// Decide by rules, from facts or a text.
    Decide(decide::DecideArgs),
    /// Solve a problem by a chain of steps, each of them computed.
    Solve(solve::SolveArgs),
    /// Turn texts into vectors.
    Embed(embed::EmbedArgs),
    /// Make data sets out of files, traffic and documents; compare them, follow them.
    Data(data::DataArgs),
    /// Teach a model from documents.
    Train(train::TrainArgs),
    /// Make a small model out of a large one, for one domain.
    Distill(distill::DistillArgs),
    /// Measure the quality of a model.
    Eval(eval::EvalArgs),
    /// Make, list and revoke API keys.
    Keys(keys::KeysArgs),
    /// Check, show, write and import settings.
    Config(config::ConfigArgs),
    /// Show the versions behind a name and their weights.
    Rollout(rollout::RolloutArgs),
    /// Turn traffic into a small model that takes it over, lap by lap.
    Loop(circle::LoopArgs),
    /// Fetch, list, inspect and remove models.
    Models(models::ModelsArgs),
    /// Read, prove and verify the log of requests; erase, back up, restore.
    Audit(audit::AuditArgs),
    /// Measure speed: of the machine, the kernels, a service, beside a peer.
    Bench(bench::BenchArgs),
}

/// The verbs by group, as the help shows them.
fn groups() -> String {
    let verbs = Verb::augment_subcommands(Command::new("tessera"));
    let about = |name: &str| verbs.find_subcommand(name).and_then(Command::get_about).map(ToString::to_string);
    let line = |name: &&str| format!("\n  {name:<10}{}", about(name).unwrap_or_default());
    let group =
        |(title, names): &(&str, &[&str])| format!("\n{title}:{}\n", names.iter().map(line).collect::<String>());
    let end = "\n`tessera VERB --help` explains a verb.";
    GROUPS.iter().map(group).collect::<String>() + end
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    const REFERENCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/cli.md");
    const HEAD: &str = "# The command line\n\nGenerated from the program's own help by `TESSERA_UPDATE=1 cargo test -p cli \
                        reference`; a test compares the two.\n";

    /// `docs/cli.md`, as the help of every verb says it.
    fn reference(command: &mut Command, path: &str, level: usize) -> String {
        let help = command.clone().term_width(100).disable_help_flag(true).render_long_help().to_string();
        let trimmed: String = help.lines().map(|line| format!("{}\n", line.trim_end())).collect();
        let mut text = format!("\n{} `{path}`\n\n```text\n{}\n```\n", "#".repeat(level), trimmed.trim_end());
        for sub in command.get_subcommands_mut().filter(|sub| !sub.is_hide_set()) {
            let path = format!("{path} {}", sub.get_name());
            text += &reference(sub, &path, level + 1);
        }
        text
    }

    #[test]
    fn the_reference_equals_its_committed_copy() {
        let mut command = Cli::command();
        command.build();
        let current = HEAD.to_owned() + &reference(&mut command, "tessera", 2);
        if std::env::var_os("TESSERA_UPDATE").is_some() {
            std::fs::write(REFERENCE, &current).unwrap();
        }
        let committed = std::fs::read_to_string(REFERENCE).unwrap_or_default();
        assert!(committed == current, "docs/cli.md is old: run TESSERA_UPDATE=1 cargo test -p cli reference");
    }

    #[test]
    fn every_verb_is_in_one_group_and_the_definitions_hold() {
        Cli::command().debug_assert();
        let verbs: Vec<_> = Cli::command().get_subcommands().map(|c| c.get_name().to_owned()).collect();
        let mut grouped: Vec<_> = GROUPS.iter().flat_map(|(_, names)| names.iter().map(ToString::to_string)).collect();
        assert_eq!(grouped.len(), verbs.len());
        grouped.retain(|name| !verbs.contains(name));
        assert_eq!(grouped, Vec::<String>::new());
    }
}
