//! `tessera bench kernels`: the table that the kernels' tests check, timed beside the machine's ceilings.
//!
//! A short call is repeated until it fills a slice of time well above the clock's grain; the median of several slices counts,
//! taken case by case, with the ceilings measured in the same process.

use clap::Args;
use eval::{Spread, bench::Clock};
use kernels::{
    Device,
    conformance::{Case, cases},
    machine::Machine,
};
use serde::Serialize;

use super::threads;
use crate::{eval::Counter, screen};

/// A slice is at least so long.
const SLICE_SECONDS: f64 = 0.02;
/// Ceilings are taken over working sets up to that of the largest matrix in the table.
const LARGEST: usize = 256 << 20;

/// Options of `bench kernels`.
#[derive(Debug, Args)]
pub(super) struct KernelsArgs {
    /// Threads; 0 takes one per core
    #[arg(long, value_name = "N", default_value_t = 0)]
    threads: usize,
    /// Slices behind each median
    #[arg(long, value_name = "N", default_value_t = 5)]
    passes: usize,
    /// Only cases whose name holds this text
    #[arg(long, value_name = "TEXT", default_value = "")]
    filter: String,
    /// Print a JSON array
    #[arg(long)]
    json: bool,
}

/// One case, timed.
#[derive(Debug, Serialize)]
struct Timed {
    case: String,
    microseconds: Spread,
    /// Bytes that must move, per second.
    bytes_per_second: f64,
    /// Operations per second; 0 where bytes are what counts.
    operations_per_second: f64,
    /// Of the larger share: how much of the machine's bandwidth or of its arithmetic is reached.
    share_of_ceiling: f64,
}

/// Times every case worth it.
pub(super) fn run(args: &KernelsArgs) -> anyhow::Result<()> {
    let device = Device::new(threads(args.threads));
    let machine = Machine::measure(&device, 3, LARGEST);
    let chosen: Vec<Case> =
        cases().into_iter().filter(|case| case.timed && case.to_string().contains(&args.filter)).collect();
    let bar = Counter::new("cases");
    let mut rows = Vec::new();
    for case in &chosen {
        rows.push(time(case, &device, &machine, args.passes));
        bar.at(rows.len(), chosen.len());
    }
    drop(bar);
    screen::show(args.json, &rows, table(&rows))
}

fn time(case: &Case, device: &Device, machine: &Machine, passes: usize) -> Timed {
    let mut job = case.prepare(device);
    let mut slice = |calls: usize| {
        let clock = Clock::start();
        (0..calls).for_each(|_| job.run(device));
        clock.seconds()
    };
    // The first call grows buffers and warms caches.
    slice(1);
    let calls = ((SLICE_SECONDS / slice(1).max(1e-9)).ceil() as usize).max(1);
    let times: Vec<f64> = (0..passes.max(1)).map(|_| slice(calls) / calls as f64 * 1e6).collect();
    let microseconds = Spread::of(&times);
    let seconds = microseconds.median / 1e6;
    let (bytes, operations) = (case.bytes() as f64 / seconds, case.operations() as f64 / seconds);
    let peak = machine.operations(case.arithmetic(device)).unwrap_or(f64::INFINITY);
    let share_of_ceiling = (bytes / machine.read_bytes(case.bytes())).max(operations / peak);
    let case = case.to_string();
    Timed { case, microseconds, bytes_per_second: bytes, operations_per_second: operations, share_of_ceiling }
}

fn table(rows: &[Timed]) -> String {
    let head = ["CASE", "us", "GB/s", "Gop/s", "OF CEILING"].map(str::to_owned).to_vec();
    let row = |timed: &Timed| {
        vec![
            timed.case.clone(),
            format!("{:.1}", timed.microseconds.median),
            format!("{:.1}", timed.bytes_per_second / 1e9),
            format!("{:.1}", timed.operations_per_second / 1e9),
            format!("{:.0} %", timed.share_of_ceiling * 100.0),
        ]
    };
    screen::table(&std::iter::once(head).chain(rows.iter().map(row)).collect::<Vec<_>>())
}
