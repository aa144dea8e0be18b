//! `tessera distill`: a small student of a large teacher, for what a file of documents is about.
//!
//! The teacher answers what has no answer ([`answers`]), says token by token what it thinks of the answers ([`lessons`]), a student is cut out of it
//! and learns in rounds ([`learn`]), from the second on also by what it writes itself ([`own`]), its exits are tried ([`early`]), and both are asked what neither has seen ([`measure`]). Everything that took time lies in the run's folder.

mod answers;
mod early;
mod learn;
mod lessons;
mod measure;
mod own;

use std::{fmt, path::PathBuf};

use anyhow::ensure;
use clap::{
    Args,
    builder::{PossibleValuesParser, TypedValueParser},
};
use hub::{Entry, Kind};
use serde::Serialize;
use train::{Bits, Size};

use crate::{
    adapters,
    data::sets,
    model::{self, EngineArgs},
    screen, students,
    train::{
        documents::Source,
        run::{self, Stop},
    },
};

/// Options of `distill`.
#[derive(Debug, Clone, Args)]
pub(crate) struct DistillArgs {
    /// What the student is for, a JSON object a line: {"messages": [..]} or {"prompt": ".."}, with an answer ("completion" of a prompt) or without,
    /// which the teacher then writes; or a set of `tessera data build` by its name
    #[arg(short, long, value_name = "FILE|NAME[@DIGEST]")]
    data: PathBuf,
    /// What to measure by and not to learn, in the same form [default: a tenth of --data, or what the set holds out]
    #[arg(long, value_name = "FILE")]
    held_out: Option<PathBuf>,
    /// The teacher: a catalogue name, hf:owner/name/file, pypi:package==version/member, a path, or one of them with an adapter (MODEL:ADAPTER)
    /// [default: smollm2]
    #[arg(short, long, value_name = "MODEL")]
    model: Option<String>,
    /// The student's name
    #[arg(short, long, value_name = "NAME")]
    name: String,
    /// Folder to put the student into [default: ~/.local/share/tessera/students/NAME]
    #[arg(short, long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[command(flatten)]
    shape: Shape,
    /// Bits of a weight in the student's file; it learns in 16
    #[arg(long, value_name = "8|16", default_value = "8", value_parser = bits(), hide_possible_values = true)]
    bits: Bits,
    /// Layers behind which a token that is sure enough may leave, such as 2,4: the student learns to be good there too, and how sure is enough is found
    /// on what is held out
    #[arg(long, value_name = "N,N", value_delimiter = ',')]
    exits: Vec<usize>,
    /// How often every document is learned, over all rounds
    #[arg(long, value_name = "X", default_value_t = 6.0)]
    epochs: f64,
    /// Rounds; after each, what the student still gets wrong weighs more
    #[arg(long, value_name = "N", default_value_t = 2)]
    rounds: usize,
    /// By how much more a token weighs that the student got wrong in the round before
    #[arg(long, value_name = "X", default_value_t = 2.0)]
    emphasis: f32,
    /// The teacher's share of the loss; what the documents say has the rest
    #[arg(long, value_name = "SHARE", default_value_t = 0.5)]
    share: f32,
    /// Documents that the student answers itself in front of every round but the first, as a share of all: it learns what the teacher thinks of that beside
    /// them; 0 for none
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    own: f32,
    /// Tokens of which the teacher tells its mind at every place
    #[arg(long, value_name = "N", default_value_t = 16)]
    top_k: usize,
    /// Documents of a step
    #[arg(long, value_name = "N", default_value_t = 16)]
    batch: usize,
    /// The highest learning rate
    #[arg(long, value_name = "X", default_value_t = 1e-3)]
    rate: f32,
    /// Tokens that memory holds at the same time, and the longest document
    #[arg(long, value_name = "TOKENS", default_value_t = 2048)]
    rows: usize,
    /// Longest answer of the teacher where there is none, and of both where they are measured
    #[arg(long, value_name = "TOKENS", default_value_t = 256)]
    max_tokens: usize,
    /// How freely the teacher's answers are chosen; 0 takes the most likely
    #[arg(long, value_name = "T", default_value_t = 0.0)]
    temperature: f32,
    /// Of the order of documents
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Begin anew, though an interrupted run of this name could go on
    #[arg(long)]
    fresh: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    engine: EngineArgs,
}

fn bits() -> impl TypedValueParser<Value = Bits> {
    PossibleValuesParser::new(["8", "16"]).map(|text| if text == "8" { Bits::Eight } else { Bits::Bf16 })
}

/// How large the student is.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "Student")]
struct Shape {
    /// Layers [default: a third of the teacher's]
    #[arg(long, value_name = "N")]
    layers: Option<usize>,
    /// Width [default: the teacher's]
    #[arg(long, value_name = "N")]
    width: Option<usize>,
    /// Inner width of feed-forward blocks [default: the teacher's]
    #[arg(long, value_name = "N")]
    ffn: Option<usize>,
    /// Key and value heads [default: the teacher's]
    #[arg(long, value_name = "N")]
    kv_heads: Option<usize>,
    /// Of the vocabulary, the first so many tokens stay beside those that the documents need; 0 keeps these only
    #[arg(long, value_name = "N", default_value_t = 1024)]
    tokens: u32,
}

impl Shape {
    /// The student's size beside a teacher of so many layers.
    fn size(self, layers: usize) -> Size {
        let Self { width, ffn, kv_heads, .. } = self;
        Size { layers: Some(self.depth(layers)), width, ffn, kv_heads }
    }

    fn depth(self, teacher: usize) -> usize {
        self.layers.unwrap_or_else(|| (teacher / 3).max(2))
    }
}

/// What came of it.
#[derive(Debug, Serialize)]
struct Outcome {
    student: PathBuf,
    teacher: String,
    answered_by_teacher: usize,
    #[serde(flatten)]
    made: learn::Made,
    measured: measure::Measured,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { made, measured, .. } = self;
        writeln!(f, "{} documents, {} of them answered by {}", made.documents, self.answered_by_teacher, self.teacher)?;
        writeln!(f, "{} steps, {:.0} s, {} tokens in the vocabulary\n", made.steps, made.seconds, made.vocabulary)?;
        writeln!(
            f,
            "{}\n",
            measured.table([made.teacher_parameters, made.parameters], [made.teacher_bytes, made.bytes])
        )?;
        made.exits.iter().try_for_each(|exit| writeln!(f, "{}", early::described(exit)))?;
        made.written.iter().try_for_each(|written| writeln!(f, "{}", early::compared(written)))?;
        write!(f, "tessera serve --model {}", self.student.display())
    }
}

pub(crate) async fn run(mut args: DistillArgs) -> anyhow::Result<()> {
    ensure!(adapters::is_name(&args.name), "--name: letters, digits, `-`, `_` and `.`, such as credit-2");
    ensure!((1..=kernels::TEACHER_TOKENS).contains(&args.top_k), "--top-k must be 1 to {}", kernels::TEACHER_TOKENS);
    ensure!((0.0..=1.0).contains(&args.own), "--own must be a share from 0 to 1");
    ensure!(args.own == 0.0 || args.share > 0.0, "--own is learned by the teacher's word: --share must be above 0");
    ensure!(args.rounds > 0, "--rounds must be 1 at least");
    let found = sets::find(&args.data, args.held_out.as_deref())?;
    (args.data, args.held_out) = (found.data, found.held_out);
    let folder = run::folder(&args.name)?;
    let student = args.out.clone().map_or_else(|| students::folder(&args.name), Ok)?;
    let teacher = args.model.clone().unwrap_or_else(|| model::default_name(Kind::Chat));
    let entry = model::fetch(&teacher).await?;
    check_exits(&args, &entry)?;
    let engine = model::load(&teacher, &args.engine).await?;
    if let Some(path) = adapter(&args, &teacher)? {
        let module = ::model::Adapter::open(&path)?.is_module();
        ensure!(!module, "{teacher} is a module of experts: take one of its adapters as the teacher");
    }
    let (sources, answered) = answers::fill(&args, &folder, &engine).await?;
    drop(engine);
    let (stop, job) =
        (Stop::default(), learn::Job { args: args.clone(), set: found.set, teacher, entry, folder, student });
    let (stopped, asked) = (stop.clone(), job.clone());
    let work = tokio::task::spawn_blocking(move || asked.run(sources, &stopped));
    let Some((made, questions)) = run::unless_interrupted(work, &stop).await? else { return Ok(()) };
    let measured = measure::both(&args, [&job.teacher, &job.student.display().to_string()], &questions).await?;
    let outcome = Outcome { student: job.student, teacher: job.teacher, answered_by_teacher: answered, made, measured };
    screen::show(args.json, &outcome, &outcome)
}

/// Refuses exits that the student could not have, before anything takes time.
fn check_exits(args: &DistillArgs, teacher: &Entry) -> anyhow::Result<()> {
    if args.exits.is_empty() {
        return Ok(());
    }
    let layers = args.shape.depth(::model::inspect(&teacher.path)?.spec.layers.len());
    let ascending = args.exits.windows(2).all(|two| two[0] < two[1]);
    ensure!(ascending, "--exits: numbers of layers must ascend, such as 2,4");
    let inside = args.exits.iter().all(|after| (1..layers).contains(after));
    ensure!(
        inside,
        "--exits: the student has {layers} layers, and exits stand behind 1 to {} of them",
        layers.saturating_sub(1)
    );
    Ok(())
}

/// The file of the teacher's adapter, if it has one.
fn adapter(args: &DistillArgs, teacher: &str) -> anyhow::Result<Option<PathBuf>> {
    let file = |name| anyhow::Ok(args.engine.adapters_folder()?.join(format!("{name}.safetensors")));
    model::adapter(teacher).map(file).transpose()
}

/// Files of the user's as sources.
fn sources(args: &DistillArgs) -> anyhow::Result<[Option<Source>; 2]> {
    let read = |file: &PathBuf| anyhow::Ok(Source { file: file.clone(), documents: data::read_open(file)? });
    Ok([Some(read(&args.data)?), args.held_out.as_ref().map(read).transpose()?])
}
