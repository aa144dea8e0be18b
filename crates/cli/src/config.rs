//! `tessera config`: the settings file, written, checked, shown.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    path::PathBuf,
};

use anyhow::Context;
use clap::{Args, Subcommand};
use gateway::settings::{FILE, Settings, import};

use crate::{cascades, compose::FileArgs, screen};

/// Options of `config`.
#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    verb: ConfigVerb,
}

#[derive(Debug, Subcommand)]
enum ConfigVerb {
    /// Find the mistakes in a settings file, with their lines
    Check(FileArgs),
    /// Print the settings in force, defaults filled in and secrets redacted
    Show {
        #[command(flatten)]
        file: FileArgs,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print the JSON schema of the file, for editors
    Schema,
    /// Write a settings file in which every key is explained
    Init {
        /// Where; nothing is ever overwritten
        #[arg(value_name = "FILE", default_value = FILE)]
        file: PathBuf,
    },
    /// Print the settings that a LiteLLM proxy's configuration amounts to
    ImportLitellm {
        /// The proxy's YAML file
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

/// Runs it.
pub(crate) fn run(args: ConfigArgs) -> anyhow::Result<()> {
    match args.verb {
        ConfigVerb::Check(file) => check(&file),
        ConfigVerb::Show { file, json } => {
            let settings = file.load()?;
            screen::show(json, &settings, settings.written().trim_end())
        }
        ConfigVerb::Schema => screen::json(&Settings::schema()),
        ConfigVerb::Init { file } => init(&file),
        ConfigVerb::ImportLitellm { file } => {
            let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
            let imported = import(&text).map_err(|error| anyhow::anyhow!("{}: {error}", file.display()))?;
            imported.notes.iter().for_each(screen::note);
            Ok(screen::line(imported.written().trim_end())?)
        }
    }
}

fn check(file: &FileArgs) -> anyhow::Result<()> {
    let path = file.path().with_context(|| format!("there is no {FILE} here: `tessera config init` writes one"))?;
    let settings = Settings::load(&path)?;
    settings.cascades.iter().try_for_each(cascades::check)?;
    Ok(screen::line(format_args!("{} is right; its hash is {}", path.display(), settings.digest()))?)
}

fn init(path: &PathBuf) -> anyhow::Result<()> {
    let made = OpenOptions::new().write(true).create_new(true).open(path);
    let written = made.and_then(|mut file| file.write_all(Settings::sample().as_bytes()));
    written.with_context(|| format!("cannot write {}", path.display()))?;
    Ok(screen::line(format_args!("wrote {}: every key is explained and shows its default", path.display()))?)
}
