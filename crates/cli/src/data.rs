//! `tessera data`: sets of documents, made from files, traffic and texts, and what became of them.
//!
//! Rows come from files ([`data::read_rows`]), from the ledger ([`traffic`]) and from documents ([`questions`]); what is dropped and how the rest
//! is split is the business of crate `data`. A set that stands is found by its name in [`sets`].

mod lineage;
mod questions;
pub(crate) mod sets;
mod traffic;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    path::{Path, PathBuf},
};

use anyhow::ensure;
use clap::{Args, Subcommand, ValueEnum};
use data::{Candidate, Difference, Fields, Layout, Made, Manifest, Options, Personal, Reference, Refined, Set, Source};
use ledger::{Clock, timestamp};

use crate::{compose::LedgerArgs, screen};
use questions::DocumentArgs;
use traffic::TrafficArgs;

/// Examples of each kind that `data diff` shows.
const EXAMPLES: usize = 3;

/// Options of `data`.
#[derive(Debug, Args)]
pub(crate) struct DataArgs {
    #[command(subcommand)]
    verb: DataVerb,
}

/// What to do with data sets.
#[derive(Debug, Subcommand)]
enum DataVerb {
    /// Make a set out of files, of the ledger's records, of documents
    Build(Box<BuildArgs>),
    /// Show what a set holds and where it comes from, or list all sets
    Show {
        /// The set, or one version of it by the beginning of its digest
        #[arg(value_name = "NAME[@DIGEST]")]
        set: Option<Reference>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show what one set has and another has not
    Diff {
        /// The set that was before
        #[arg(value_name = "NAME[@DIGEST]")]
        before: Reference,
        /// The set that is compared with it
        #[arg(value_name = "NAME[@DIGEST]")]
        after: Reference,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show what a set was made of, and the sets, adapters and students that were made from it
    Lineage {
        /// The set
        #[arg(value_name = "NAME[@DIGEST]")]
        set: Reference,
        /// Folder of adapters to look through [default: ~/.local/share/tessera/adapters]
        #[arg(long, value_name = "DIR", env = "TESSERA_ADAPTERS")]
        adapters: Option<PathBuf>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// Options of `data build`.
#[derive(Debug, Args)]
struct BuildArgs {
    /// The set's name
    name: String,
    /// Files of JSON lines, CSV (.csv, .tsv) or Parquet (.parquet), or sets by name
    #[arg(short, long, value_name = "FILE|NAME[@DIGEST]", num_args = 1..)]
    from: Vec<PathBuf>,
    /// Field of what is given, where rows are pairs and it is not called prompt
    #[arg(long, value_name = "FIELD", requires = "completion_column")]
    prompt_column: Option<String>,
    /// Field of what is learned, where it is not called completion
    #[arg(long, value_name = "FIELD", requires = "prompt_column")]
    completion_column: Option<String>,
    /// Licence of the sources, as an SPDX expression or in your words
    #[arg(long, value_name = "LICENCE")]
    licence: Option<String>,
    /// Print the manifest as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    ledger: LedgerArgs,
    #[command(flatten)]
    traffic: TrafficArgs,
    #[command(flatten)]
    documents: DocumentArgs,
    #[command(flatten)]
    passes: PassArgs,
}

/// What is dropped, and what is held out.
#[derive(Debug, Args)]
#[command(next_help_heading = "Passes")]
struct PassArgs {
    /// Field that tells groups apart, such as a customer: a group stands on one side of the split. Rows without one are grouped by what they say
    #[arg(long, value_name = "FIELD", default_value = "group")]
    group: String,
    /// Share of groups that is held out, by the hash of their names
    #[arg(long, value_name = "SHARE", default_value_t = 0.1)]
    held_out: f64,
    /// Of the choice of what is held out
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Rows repeat each other from this similarity on: the share of runs of six characters that they have in common
    #[arg(long, value_name = "SHARE", default_value_t = 0.8)]
    near: f64,
    /// Languages wanted, by their codes of ISO 639-3, such as eng,cmn [default: all]
    #[arg(long, value_name = "CODES", value_delimiter = ',')]
    language: Vec<String>,
    /// The longest row
    #[arg(long, value_name = "CHARACTERS", default_value_t = 32_768)]
    longest: usize,
    /// What becomes of personal data and secrets
    #[arg(long, value_name = "WHAT", value_enum, default_value_t = Hide::Mask)]
    personal: Hide,
    /// Passes to leave out
    #[arg(long, value_name = "PASSES", value_enum, value_delimiter = ',')]
    skip: Vec<Skip>,
}

/// What becomes of personal data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Hide {
    /// Its kind in brackets stands in its place.
    Mask,
    /// Rows that hold some are dropped.
    Drop,
    /// It stays; not for traffic.
    Keep,
}

/// A pass that can be left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Skip {
    /// Rows that are nearly the same.
    Near,
    /// Answers that do not read like text.
    Quality,
    /// Rows that insult somebody.
    Toxicity,
}

impl PassArgs {
    fn options(&self) -> anyhow::Result<Options> {
        ensure!((0.0..1.0).contains(&self.held_out), "--held-out is a share: 0 or more, and below 1");
        ensure!((0.5..=1.0).contains(&self.near), "--near is 0.5 to 1: below, rows are only related");
        let does = |pass| !self.skip.contains(&pass);
        let mut languages = self.language.clone();
        languages.sort();
        languages.dedup();
        Ok(Options {
            held_out: self.held_out,
            seed: self.seed,
            near: does(Skip::Near).then_some(self.near),
            languages,
            longest: self.longest,
            personal: match self.personal {
                Hide::Mask => Personal::Mask,
                Hide::Drop => Personal::Drop,
                Hide::Keep => Personal::Keep,
            },
            quality: does(Skip::Quality),
            toxicity: does(Skip::Toxicity),
        })
    }
}

/// Does it.
pub(crate) async fn run(args: DataArgs) -> anyhow::Result<()> {
    match args.verb {
        DataVerb::Build(args) => build(*args).await,
        DataVerb::Show { set: None, json } => list(json),
        DataVerb::Show { set: Some(set), json } => {
            let manifest = sets::home()?.open(&set)?.manifest;
            screen::show(json, &manifest, story(&manifest))
        }
        DataVerb::Diff { before, after, json } => {
            let sets = sets::home()?;
            let found = Difference::of(&sets.open(&before)?, &sets.open(&after)?, EXAMPLES)?;
            screen::show(json, &found, difference(&found))
        }
        DataVerb::Lineage { set, adapters, json } => lineage::run(&set, adapters, json),
    }
}

/// Rows with where they come from.
#[derive(Debug, Default)]
struct Gathered {
    rows: Vec<Candidate>,
    sources: Vec<Source>,
}

impl Gathered {
    fn add(&mut self, rows: Vec<Candidate>, source: Source) {
        let rows_of_it = rows.iter().filter(|row| row.is_ok()).count();
        self.sources.push(Source { rows: rows_of_it, ..source });
        self.rows.extend(rows);
    }
}

async fn build(args: BuildArgs) -> anyhow::Result<()> {
    let named = args.name.parse::<Reference>().is_ok_and(|name| name.digest.is_empty());
    ensure!(named, "a set's name has letters, digits, `-`, `_` and `.`, such as credit-2");
    let (sets, options) = (sets::home()?, args.passes.options()?);
    let Gathered { rows, mut sources } = Box::pin(args.gather(&sets.folder(&args.name), &options)).await?;
    let own = sources.iter_mut().filter(|source| source.parent.is_none());
    own.for_each(|source| source.licence = args.licence.clone());
    let asked = options.clone();
    let refined = tokio::task::spawn_blocking(move || refine(rows, &asked)).await??;
    let made = Made { by: concat!("tessera ", env!("CARGO_PKG_VERSION")).into(), at: timestamp(Clock::system().now()) };
    let Set { folder, manifest } = sets.write(&args.name, &refined, (sources, &options), made)?;
    screen::show(args.json, &manifest, format!("{}\n\n{}", story(&manifest), folder.display()))
}

/// With what the user sees of it.
fn refine(rows: Vec<Candidate>, options: &Options) -> anyhow::Result<Refined> {
    let bar = screen::count_bar();
    let refined = data::refine(rows, options, &|what, done, all| {
        bar.set_message(what.to_owned());
        bar.set_length(all as u64);
        bar.set_position(done as u64);
    });
    bar.finish_and_clear();
    Ok(refined?)
}

impl BuildArgs {
    /// All rows; `kept` is where answers of a model lie.
    async fn gather(&self, kept: &Path, options: &Options) -> anyhow::Result<Gathered> {
        let mut gathered = Gathered::default();
        for from in &self.from {
            self.read(from, &mut gathered)?;
        }
        if self.traffic.from_ledger {
            ensure!(options.personal != Personal::Keep, "personal data in traffic is masked or dropped, never kept");
            let (rows, source) = traffic::read(&self.traffic, &self.ledger).await?;
            gathered.add(rows, source);
        }
        if let Some((rows, source)) = questions::read(&self.documents, kept).await? {
            gathered.add(rows, source);
        }
        ensure!(!gathered.sources.is_empty(), "nothing to read: name --from, --from-ledger or --from-documents");
        Ok(gathered)
    }

    /// A file, or all rows of a set that stands.
    fn read(&self, from: &Path, gathered: &mut Gathered) -> anyhow::Result<()> {
        let name = from.display().to_string();
        if let Some(set) = sets::named(from)? {
            let usual = Fields { pair: None, group: "group".to_owned() };
            let mut rows = Vec::new();
            for side in [set.train(), set.held()] {
                rows.extend(data::read_rows(&side, &name, &usual)?.rows);
            }
            let parent = Some(set.manifest.reference());
            let licences = set.manifest.sources.iter().filter_map(|source| source.licence.clone());
            let licences: BTreeSet<String> = licences.collect();
            let licence = (!licences.is_empty()).then(|| licences.into_iter().collect::<Vec<_>>().join(", "));
            let sha256 = set.manifest.digest.clone();
            gathered.add(rows, Source { licence, parent, sha256, ..source(&name, "set") });
            return Ok(());
        }
        let pair = self.prompt_column.clone().zip(self.completion_column.clone()).map(<[String; 2]>::from);
        let file = data::read_rows(from, &name, &Fields { pair, group: self.passes.group.clone() })?;
        gathered.add(file.rows, Source { sha256: file.sha256, ..source(&name, Layout::of(from).name()) });
        Ok(())
    }
}

/// A source of which nothing else is known yet.
fn source(name: &str, kind: &str) -> Source {
    let (name, kind) = (name.to_owned(), kind.to_owned());
    Source { name, kind, sha256: String::new(), rows: 0, licence: None, parent: None, model: None }
}

fn list(as_json: bool) -> anyhow::Result<()> {
    let sets: Vec<Manifest> = sets::home()?.all()?.into_iter().map(|set| set.manifest).collect();
    let head = ["SET", "LEARNED", "HELD OUT", "DROPPED", "MADE"].map(str::to_owned).to_vec();
    let row = |set: &Manifest| {
        let dropped: usize = set.dropped.values().sum();
        let counts = [set.train, set.held, dropped].map(|n| n.to_string());
        [vec![set.reference().to_string()], counts.to_vec(), vec![set.created.clone()]].concat()
    };
    let rows: Vec<_> = std::iter::once(head).chain(sets.iter().map(row)).collect();
    screen::show(as_json, &sets, screen::table(&rows))
}

/// What a set says of itself, for people.
fn story(set: &Manifest) -> String {
    let counted = |counts: &BTreeMap<String, usize>| {
        counts.iter().map(|(name, n)| format!("{n} {name}")).collect::<Vec<_>>().join(", ")
    };
    let rows = [
        ("set", set.reference().to_string()),
        ("made", format!("{} by {}", set.created, set.made_by)),
        ("learned", format!("{} rows", set.train)),
        ("held out", format!("{} rows", set.held)),
        ("dropped", counted(&set.dropped)),
        ("languages", counted(&set.languages)),
        ("masked", counted(&set.masked)),
    ];
    let rows = rows.into_iter().filter(|(_, text)| !text.is_empty());
    let mut rows: Vec<Vec<String>> = rows.map(|(name, text)| vec![name.to_owned(), text]).collect();
    rows.extend(set.sources.iter().map(|source| vec!["source".to_owned(), origin(source)]));
    screen::table(&rows)
}

/// A source in a line.
fn origin(source: &Source) -> String {
    let licence = source.licence.as_deref().unwrap_or("licence not stated");
    let sum = source.sha256.get(..12).unwrap_or_default();
    format!("{} ({}, {} rows, {licence}, sha256 {sum})", source.name, source.kind, source.rows)
}

fn difference(found: &Difference) -> String {
    let Difference { added, removed, changed, moved, examples } = found;
    let mut text =
        format!("{added} added, {removed} removed, {changed} changed, {moved} on the other side of the split");
    for change in examples {
        // Writing to a string cannot fail.
        let _ = write!(text, "\n\n{}", change.what);
        for (sign, row) in [("-", &change.before), ("+", &change.after)] {
            let _ = row.as_ref().map_or(Ok(()), |row| write!(text, "\n{sign} {row}"));
        }
    }
    text
}
