//! What this machine can do at most: the ceilings that kernels are held against.
//!
//! A figure in GB/s or Gop/s says little without the machine's own, taken in the same minutes: clocks fall under wide
//! instructions, and a shared host gives more or less from second to second. So every ceiling is measured here, in this
//! process, on the threads and the huge pages that the kernels use, several times in turns with all the others; the middle
//! and the ends of the passes are reported. Reading goes over working sets from a core's own cache to main memory.

mod peak;
mod read;

use std::time::Instant;

use crate::{Device, Isa, buffer::Buffer};

pub use peak::Arithmetic;

const MIB: usize = 1 << 20;
/// Each probe runs about so long in every pass: far above the clock's grain and a sleeping thread's wake-up, short enough
/// that all probes meet the same conditions.
const PROBE_SECONDS: f64 = 0.02;
/// From a core's second-level cache to far beyond the third.
const WORKING_SETS: [usize; 8] = [MIB, 4 * MIB, 12 * MIB, 24 * MIB, 48 * MIB, 96 * MIB, 384 * MIB, 1024 * MIB];

/// A rate per second over several passes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// The middle pass.
    pub median: f64,
    /// The slowest pass.
    pub min: f64,
    /// The fastest pass.
    pub max: f64,
}

/// How fast a working set is read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bandwidth {
    /// Bytes read over and over, by all threads together.
    pub working_set: usize,
    /// Threads reading, each its own share.
    pub threads: usize,
    /// Bytes per second over all threads.
    pub bytes: Rate,
}

/// How fast one kind of arithmetic is when nothing comes from memory.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Peak {
    /// Which kind.
    pub arithmetic: Arithmetic,
    /// Threads computing.
    pub threads: usize,
    /// Operations per second over all threads; a multiply-add is two.
    pub operations: Rate,
}

/// All ceilings.
#[derive(Debug, Clone, PartialEq)]
pub struct Machine {
    /// The instruction set measured.
    pub isa: Isa,
    /// Threads of the device.
    pub threads: usize,
    /// Passes behind each rate.
    pub passes: usize,
    /// Reading, by working set, first on one thread and then on all.
    pub bandwidth: Vec<Bandwidth>,
    /// Arithmetic, first on one thread and then on all.
    pub peaks: Vec<Peak>,
}

impl Machine {
    /// Measures the ceilings of `dev`'s instruction set on one thread and on all of its threads, over working sets of at most
    /// `largest` bytes (which it allocates). It takes about a second for each pass.
    pub fn measure(dev: &Device, passes: usize, largest: usize) -> Self {
        let sets: Vec<usize> = WORKING_SETS.into_iter().filter(|&set| set <= largest.max(MIB)).collect();
        let mut memory = Buffer::zeroed(sets.last().copied().unwrap_or(MIB));
        // Pages that were never written are all one page of zeros, which would be read from the cache.
        memory.bytes_mut().fill(1);
        let single = Device::with_isa(1, dev.isa());
        let devices: Vec<&Device> = if dev.threads() > 1 { vec![&single, dev] } else { vec![dev] };
        let mut readings = readings(&devices, &sets, memory.bytes());
        let mut computations = computations(&devices);
        for _ in 0..passes.max(1) {
            readings.iter_mut().for_each(|(_, probe)| probe.pass());
            computations.iter_mut().for_each(|(_, probe)| probe.pass());
        }
        let bandwidth = readings.into_iter().map(|(label, probe)| Bandwidth { bytes: probe.rate(), ..label });
        let peaks = computations.into_iter().map(|(label, probe)| Peak { operations: probe.rate(), ..label });
        Self {
            isa: dev.isa(),
            threads: dev.threads(),
            passes: passes.max(1),
            bandwidth: bandwidth.collect(),
            peaks: peaks.collect(),
        }
    }

    /// Bytes per second from the largest working set that was measured, on all threads: what streaming weights can have.
    pub fn stream_bytes(&self) -> f64 {
        self.bandwidth.last().map_or(f64::NAN, |b| b.bytes.median)
    }

    /// Bytes per second of the smallest measured working set that holds `bytes` (the largest, if none does), on all threads.
    pub fn read_bytes(&self, bytes: usize) -> f64 {
        let mut all = self.bandwidth.iter().filter(|b| b.threads == self.threads);
        all.clone().find(|b| b.working_set >= bytes).or(all.next_back()).map_or(f64::NAN, |b| b.bytes.median)
    }

    /// Operations per second of one kind on all threads; `None` if this instruction set lacks it.
    pub fn operations(&self, arithmetic: Arithmetic) -> Option<f64> {
        let found = self.peaks.iter().rfind(|p| p.arithmetic == arithmetic && p.threads == self.threads);
        found.map(|p| p.operations.median)
    }
}

/// Of a probe that did not run yet.
const NO_RATE: Rate = Rate { median: f64::NAN, min: f64::NAN, max: f64::NAN };

fn readings<'a>(devices: &[&'a Device], sets: &[usize], memory: &'a [u8]) -> Vec<(Bandwidth, Probe<'a>)> {
    let all = devices.iter().flat_map(|&dev| sets.iter().map(move |&set| (dev, set)));
    let label = |dev: &Device, working_set| Bandwidth { working_set, threads: dev.threads(), bytes: NO_RATE };
    all.map(|(dev, set)| (label(dev, set), Probe::reading(dev, &memory[..set]))).collect()
}

fn computations<'a>(devices: &[&'a Device]) -> Vec<(Peak, Probe<'a>)> {
    let all = devices.iter().flat_map(|&dev| Arithmetic::of(dev.isa()).iter().map(move |&kind| (dev, kind)));
    let label = |dev: &Device, arithmetic| Peak { arithmetic, threads: dev.threads(), operations: NO_RATE };
    all.map(|(dev, kind)| (label(dev, kind), Probe::computing(dev, kind))).collect()
}

/// Work that can be repeated, its units (bytes or operations) per repetition, and the rates seen.
struct Probe<'a> {
    work: Box<dyn Fn(usize) + 'a>,
    units: f64,
    repeats: usize,
    rates: Vec<f64>,
}

impl<'a> Probe<'a> {
    fn reading(dev: &'a Device, bytes: &'a [u8]) -> Self {
        let (lines, n) = (bytes.as_chunks().0, dev.threads());
        let share = move |i: usize| &lines[lines.len() * i / n..lines.len() * (i + 1) / n];
        let work = move |repeats| dev.run(n, &|i| read::read(dev.isa(), share(i), repeats));
        Self::new(Box::new(work), bytes.len() as f64)
    }

    fn computing(dev: &'a Device, kind: Arithmetic) -> Self {
        let n = dev.threads();
        let run = move |repeats| {
            dev.run(n, &|_| {
                std::hint::black_box(peak::compute(dev.isa(), kind, repeats));
            });
        };
        Self::new(Box::new(run), peak::compute(dev.isa(), kind, 1) as f64 * n as f64)
    }

    /// Finds how many repetitions last long enough; the search also warms caches and clocks.
    fn new(work: Box<dyn Fn(usize) + 'a>, units: f64) -> Self {
        let mut repeats = 1;
        while seconds(|| work(repeats)) < PROBE_SECONDS && repeats < 1 << 40 {
            repeats *= 2;
        }
        Self { work, units, repeats, rates: Vec::new() }
    }

    fn pass(&mut self) {
        let taken = seconds(|| (self.work)(self.repeats));
        self.rates.push(self.units * self.repeats as f64 / taken);
    }

    fn rate(&self) -> Rate {
        let mut sorted = self.rates.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = (sorted[(sorted.len() - 1) / 2] + sorted[sorted.len() / 2]) / 2.0;
        Rate { median: middle, min: sorted[0], max: sorted[sorted.len() - 1] }
    }
}

#[expect(clippy::disallowed_methods, reason = "measuring real time is what this module is for")]
fn seconds(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_instruction_set_has_ceilings() {
        for isa in Isa::available() {
            let machine = Machine::measure(&Device::with_isa(2, isa), 1, 4 * MIB);
            assert_eq!(
                (machine.isa, machine.threads, machine.bandwidth.len()),
                (isa, 2, 4),
                "two sets on one thread and on two"
            );
            let rates = machine.bandwidth.iter().map(|b| b.bytes).chain(machine.peaks.iter().map(|p| p.operations));
            assert!(rates.into_iter().all(|r| r.min > 1e6 && r.min <= r.median && r.median <= r.max), "{machine:?}");
            assert!(machine.operations(Arithmetic::F32).is_some() && machine.stream_bytes() > 1e6);
        }
    }

    #[test]
    fn the_middle_of_an_even_number_of_passes() {
        let probe = Probe { work: Box::new(|_| ()), units: 1.0, repeats: 1, rates: vec![4.0, 1.0, 3.0, 2.0] };
        assert_eq!(probe.rate(), Rate { median: 2.5, min: 1.0, max: 4.0 });
    }
}
