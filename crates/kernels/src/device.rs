//! Where arithmetic runs: an instruction set and a persistent pool of threads.

/// An instruction set with kernels of its own. Ordered: later ones are faster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Isa {
    /// Plain Rust, the oracle of every other.
    Scalar,
    /// AVX2 + FMA + F16C.
    Avx2,
    /// AVX-512 F, BW, VL, DQ, VNNI and BF16.
    Avx512,
}

impl Isa {
    /// The best one this machine has.
    pub fn detect() -> Self { unimplemented!() }
    /// All that this machine can run, [`Isa::Scalar`] first.
    pub fn available() -> Vec<Self> { unimplemented!() }
}

/// An instruction set and a pool of threads. Cheap to share by reference; dropping it ends its threads.
#[derive(Debug)]
pub struct Device {}

impl Device {
    /// The best instruction set and `threads` threads, the calling one included (at least 1).
    pub fn new(_threads: usize) -> Self { unimplemented!() }
    /// The same with a chosen instruction set (for tests); falls back to what the machine has.
    pub fn with_isa(_threads: usize, _isa: Isa) -> Self { unimplemented!() }
    /// Threads, the calling one included.
    pub fn threads(&self) -> usize { unimplemented!() }
    /// The instruction set in use.
    pub fn isa(&self) -> Isa { unimplemented!() }
    /// Calls `task(i)` once for every `i` in `0..n`, spread over the threads, and returns when all are done. A panic in a task
    /// is passed on to the caller. Not re-entrant: a task must not call `run`.
    pub fn run(&self, _n: usize, _task: &(dyn Fn(usize) + Sync)) { unimplemented!() }
}
