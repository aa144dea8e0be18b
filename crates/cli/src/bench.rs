//! `tessera bench`: options for the measurements of speed in `eval` and `kernels`.

mod kernels;

use std::{
    env,
    ffi::OsString,
    io,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use ::kernels::{
    Device,
    machine::{Arithmetic, Bandwidth, Machine, Peak, Rate},
};
use anyhow::Context;
use clap::{Args, Subcommand};
use eval::bench::{Case, Ceilings, Clock, Costs, Entrant, LLAMA_CPP, Load, Plan, Ready};
use hub::Kind;
use protocol::Generate;
use serde_json::{Value, json};

use crate::{
    chat::SourceArgs,
    eval::Counter,
    model::{self, EngineArgs},
    screen, size,
};

/// Where prompt ids are drawn from: ordinary tokens in every vocabulary of more than 32,000.
const IDS: Range<u32> = 300..30_000;
const STREAMS: &str = "16";

/// Options of `bench`.
#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    verb: BenchVerb,
}

/// What to measure.
#[derive(Debug, Subcommand)]
enum BenchVerb {
    /// What this machine can do at most: reading by working set, arithmetic by kind
    Machine(MachineArgs),
    /// The kernels on the shapes of real models, beside what the machine can do at most
    Kernels(kernels::KernelsArgs),
    /// What the users of a service feel: first token, tokens per second, under so many streams
    Serve(ServeArgs),
    /// How long until the first token, of fresh prompts and of the same ones again
    FirstToken(FirstTokenArgs),
    /// What a great many adapters in memory cost the streams that use them
    Adapters(AdaptersArgs),
    /// Beside llama.cpp, on the same file, in turns
    Compare(CompareArgs),
    /// Answers jobs on standard input: our side of `compare`
    #[command(hide = true)]
    Entrant(EntrantArgs),
}

/// Options of `bench machine`.
#[derive(Debug, Args)]
struct MachineArgs {
    /// Threads; 0 takes one per core
    #[arg(long, value_name = "N", default_value_t = 0)]
    threads: usize,
    /// Passes behind each median, about a second each
    #[arg(long, value_name = "N", default_value_t = 5)]
    passes: usize,
    /// Largest working set (units: MiB, GiB); it is allocated
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = size::parse)]
    largest: u64,
    /// Print one JSON object, in bytes and operations per second
    #[arg(long)]
    json: bool,
}

/// Options of `bench serve`.
#[derive(Debug, Args)]
struct ServeArgs {
    #[command(flatten)]
    source: SourceArgs,
    /// Tokens of each prompt
    #[arg(long, value_name = "TOKENS", default_value_t = 256)]
    prompt: usize,
    /// Tokens of each answer
    #[arg(long, value_name = "TOKENS", default_value_t = 64)]
    output: usize,
    /// Streams at the same time
    #[arg(short, long, value_name = "N", default_value_t = 4)]
    concurrency: usize,
    /// Streams in all
    #[arg(short, long, value_name = "N", default_value_t = 32)]
    requests: usize,
    /// The same seed draws the same prompts
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    engine: EngineArgs,
}

/// Options of `bench first-token`.
#[derive(Debug, Args)]
struct FirstTokenArgs {
    #[command(flatten)]
    source: SourceArgs,
    /// Tokens of each prompt
    #[arg(long, value_name = "TOKENS", default_value_t = 256)]
    prompt: usize,
    /// Rounds behind each median
    #[arg(long, value_name = "N", default_value_t = 10)]
    rounds: usize,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    engine: EngineArgs,
}

/// Options of `bench adapters`.
#[derive(Debug, Args)]
struct AdaptersArgs {
    /// The model [default: smollm2]
    #[arg(short, long, value_name = "MODEL")]
    model: Option<String>,
    /// An adapter of it, as `tessera train lora` leaves it
    #[arg(long, value_name = "FILE")]
    adapter: PathBuf,
    /// How often it is loaded, each time as another one with memory of its own
    #[arg(long, value_name = "N", default_value_t = 1000)]
    count: usize,
    /// Tokens of each prompt
    #[arg(long, value_name = "TOKENS", default_value_t = 32)]
    prompt: usize,
    /// Tokens of each answer
    #[arg(long, value_name = "TOKENS", default_value_t = 64)]
    output: usize,
    /// Streams at the same time
    #[arg(short, long, value_name = "N", default_value_t = 8)]
    concurrency: usize,
    /// Streams of a round
    #[arg(short, long, value_name = "N", default_value_t = 32)]
    requests: usize,
    /// Rounds behind each median
    #[arg(long, value_name = "N", default_value_t = 5)]
    rounds: usize,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    engine: EngineArgs,
}

/// Options of `bench compare`.
#[derive(Debug, Args)]
struct CompareArgs {
    /// The model: a name or path of a GGUF file, which both engines read [default: smollm2]
    #[arg(short, long, value_name = "MODEL")]
    model: Option<String>,
    /// A Python with llama-cpp-python built for this machine
    #[arg(long, value_name = "PYTHON", env = "TESSERA_PEER_PYTHON")]
    peer_python: OsString,
    /// Threads of both; 0 takes one per core
    #[arg(long, value_name = "N", default_value_t = 0)]
    threads: usize,
    /// Rounds behind each median
    #[arg(long, value_name = "N", default_value_t = 5)]
    rounds: usize,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Options of the hidden verb.
#[derive(Debug, Args)]
struct EntrantArgs {
    #[arg(long)]
    model: String,
    #[command(flatten)]
    engine: EngineArgs,
}

/// Measures.
pub(crate) async fn run(args: BenchArgs) -> anyhow::Result<()> {
    match args.verb {
        BenchVerb::Machine(args) => machine(&args),
        BenchVerb::Kernels(args) => kernels::run(&args),
        BenchVerb::Serve(args) => serve(args).await,
        BenchVerb::FirstToken(args) => first_token(args).await,
        BenchVerb::Adapters(args) => adapters(args).await,
        BenchVerb::Compare(args) => compare(args).await,
        BenchVerb::Entrant(args) => entrant(args).await,
    }
}

fn machine(args: &MachineArgs) -> anyhow::Result<()> {
    let device = Device::new(threads(args.threads));
    let machine = Machine::measure(&device, args.passes, usize::try_from(args.largest)?);
    screen::show(args.json, &describe(&machine), tables(&machine))
}

/// 0 is one per core.
fn threads(asked: usize) -> usize {
    if asked > 0 { asked } else { std::thread::available_parallelism().map_or(1, usize::from) }
}

fn tables(machine: &Machine) -> String {
    let giga = |rate: Rate| format!("{:.1} ({:.1} .. {:.1})", rate.median / 1e9, rate.min / 1e9, rate.max / 1e9);
    let head = |names: [&str; 3]| names.map(str::to_owned).to_vec();
    let mut reading = vec![head(["WORKING SET", "THREADS", "GB/s"])];
    let row = |b: &Bandwidth| vec![format!("{} MiB", b.working_set >> 20), b.threads.to_string(), giga(b.bytes)];
    reading.extend(machine.bandwidth.iter().map(row));
    let mut peaks = vec![head(["ARITHMETIC", "THREADS", "Gop/s"])];
    let row = |p: &Peak| vec![p.arithmetic.to_string(), p.threads.to_string(), giga(p.operations)];
    peaks.extend(machine.peaks.iter().map(row));
    let (isa, passes) = (machine.isa, machine.passes);
    let note = format!("{isa:?}; median (least .. most) of {passes} passes; a multiply-add is two operations");
    format!("{}\n\n{}\n\n{note}", screen::table(&reading), screen::table(&peaks))
}

fn describe(machine: &Machine) -> Value {
    let rate = |rate: Rate| json!({ "median": rate.median, "min": rate.min, "max": rate.max });
    let reading = |b: &Bandwidth| json!({ "working_set": b.working_set, "threads": b.threads, "bytes_per_second": rate(b.bytes) });
    let peak = |p: &Peak| {
        let operations = rate(p.operations);
        json!({ "arithmetic": p.arithmetic.to_string(), "threads": p.threads, "operations_per_second": operations })
    };
    json!({
        "isa": format!("{:?}", machine.isa),
        "threads": machine.threads,
        "passes": machine.passes,
        "bandwidth": machine.bandwidth.iter().map(reading).collect::<Vec<_>>(),
        "peaks": machine.peaks.iter().map(peak).collect::<Vec<_>>(),
    })
}

/// The service, the name of the model to ask it for, and ids of its ordinary tokens.
async fn open(source: &SourceArgs, args: &EngineArgs) -> anyhow::Result<(Arc<dyn Generate>, String, Range<u32>)> {
    if source.url.is_some() {
        let (service, name) = source.open(args).await?;
        return Ok((service, name, IDS));
    }
    let engine = source.load(args).await?;
    let ids = ordinary(engine.tokenizer().len());
    Ok((engine, String::new(), ids))
}

/// Of a smaller vocabulary what [`IDS`] leaves of it, or its second half: special tokens and single bytes stand in front.
fn ordinary(vocabulary: usize) -> Range<u32> {
    let end = IDS.end.min(u32::try_from(vocabulary).unwrap_or(u32::MAX));
    IDS.start.min(end / 2)..end
}

async fn serve(args: ServeArgs) -> anyhow::Result<()> {
    let (service, name, ids) = open(&args.source, &args.engine).await?;
    let load = Load {
        prompt_tokens: args.prompt,
        output_tokens: args.output,
        concurrency: args.concurrency,
        requests: args.requests,
        ids,
        seed: args.seed,
    };
    let served = eval::bench::serve(service.as_ref(), &[name], &load).await?;
    screen::show(args.json, &served, &served)
}

async fn adapters(args: AdaptersArgs) -> anyhow::Result<()> {
    let name = args.model.unwrap_or_else(|| model::default_name(Kind::Chat));
    let engine = model::load(&name, &args.engine).await?;
    let bar = screen::count_bar();
    bar.set_message("loading adapters");
    for number in bar.wrap_iter(0..args.count) {
        engine.add_adapter(&number.to_string(), &args.adapter, String::new())?;
    }
    bar.finish_and_clear();
    let names: Vec<String> = (0..args.count).map(|number| format!("{}:{number}", engine.card().id)).collect();
    let load = Load {
        prompt_tokens: args.prompt,
        output_tokens: args.output,
        concurrency: args.concurrency,
        requests: args.requests,
        ids: ordinary(engine.tokenizer().len()),
        seed: 0,
    };
    let costs = eval::bench::adapters(engine.as_ref(), "", &names, &load, args.rounds).await?;
    screen::show(args.json, &costs, &costs)
}

async fn first_token(args: FirstTokenArgs) -> anyhow::Result<()> {
    let (service, name, ids) = open(&args.source, &args.engine).await?;
    let times = eval::bench::first_token(service.as_ref(), &name, args.prompt, args.rounds, ids).await?;
    screen::show(args.json, &times, &times)
}

async fn compare(args: CompareArgs) -> anyhow::Result<()> {
    let name = args.model.unwrap_or_else(|| model::default_name(Kind::Chat));
    let file = model::fetch(&name).await?.path;
    let threads = threads(args.threads);
    let cases = Case::standard();
    let context = cases.iter().map(|case| case.context()).max().unwrap_or(0).to_string();
    let common = [OsString::from("--model"), file.clone().into(), "--threads".into(), threads.to_string().into()];
    let costs = costs(&file)?;
    let cache = ["--kv-memory".to_owned(), cache_size(&costs, cases.iter().map(|case| case.context()).max())]
        .map(OsString::from);
    let ours = [["bench", "entrant"].map(OsString::from).as_slice(), &common, &cache].concat();
    let room = ["--context", &context, "--streams", STREAMS].map(OsString::from);
    let peer = [["-c", LLAMA_CPP].map(OsString::from).as_slice(), &common, &room].concat();
    let program = env::current_exe().context("this program's own path is unknown")?;
    let plan = Plan {
        ours: Entrant { name: "tessera".into(), program, args: ours },
        peer: Entrant { name: "llama.cpp".into(), program: args.peer_python.into(), args: peer },
        cases,
        rounds: args.rounds,
        ids: IDS,
        costs,
        ceilings: ceilings(&file, threads)?,
    };
    let bar = Counter::new("cases");
    let comparison = tokio::task::block_in_place(|| eval::bench::compare(&plan, &|done, all| bar.at(done, all)))?;
    drop(bar);
    screen::show(args.json, &comparison, &comparison)
}

/// A cache as large as the peer's, which is made for the longest case, and a page more for every stream.
fn cache_size(costs: &Costs, context: Option<usize>) -> String {
    let tokens = context.unwrap_or(0) + 17 * ::kernels::PAGE_TOKENS;
    format!("{}MiB", (tokens as f64 * costs.kv_bytes / f64::from(1 << 20)).ceil())
}

/// What a token costs by the shape of the model: every matrix once, the head (tied or not) apart.
fn costs(file: &Path) -> anyhow::Result<Costs> {
    let seen = ::model::inspect(file)?;
    let numbers = |tensor: &&::model::TensorInfo| tensor.shape.iter().product::<usize>() as f64;
    let is_matrix = |tensor: &&::model::TensorInfo| tensor.shape.len() == 2;
    let is_table = |tensor: &&::model::TensorInfo| tensor.shape.first() == Some(&seen.spec.vocab);
    let matrices = seen.tensors.iter().filter(is_matrix);
    let tables: Vec<u64> = matrices.clone().filter(is_table).map(|tensor| tensor.bytes).collect();
    // Where embedding and head are two tensors, decoding reads one of them and a single row of the other.
    let unread: u64 = tables.iter().sum::<u64>() - tables.iter().max().copied().unwrap_or(0);
    Ok(Costs {
        weight_bytes: (seen.weight_bytes - unread) as f64,
        multiply_adds: matrices.filter(|tensor| !is_table(tensor)).map(|tensor| numbers(&tensor)).sum(),
        head_multiply_adds: (seen.spec.vocab * seen.spec.width) as f64,
        kv_bytes: seen.kv_bytes_per_token as f64,
    })
}

fn ceilings(file: &Path, threads: usize) -> anyhow::Result<Ceilings> {
    let bytes = usize::try_from(file.metadata()?.len())?;
    let machine = Machine::measure(&Device::new(threads), 3, bytes.next_power_of_two());
    let kinds = [Arithmetic::Int8Tiles, Arithmetic::Int8, Arithmetic::F32];
    let operations = kinds.into_iter().find_map(|kind| machine.operations(kind)).unwrap_or(f64::NAN);
    Ok(Ceilings { read_bytes: machine.read_bytes(bytes), operations })
}

async fn entrant(args: EntrantArgs) -> anyhow::Result<()> {
    let clock = Clock::start();
    let engine = model::load(&args.model, &args.engine).await?;
    let ready = Ready {
        name: concat!("tessera ", env!("CARGO_PKG_VERSION")).to_owned(),
        settings: format!("{} threads", threads(args.engine.threads.unwrap_or(0))),
        load_seconds: clock.seconds(),
    };
    Ok(eval::bench::entrant(engine.as_ref(), &ready, io::stdin().lock(), io::stdout().lock()).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_are_of_tokens_that_there_are() {
        for (vocabulary, ids) in [(262_144, IDS), (29_000, 300..29_000), (499, 249..499), (0, 0..0)] {
            assert_eq!(ordinary(vocabulary), ids);
        }
    }
}
