//! Where arithmetic runs: an instruction set and a persistent pool of threads.
//!
//! The instruction set is found once, at run time; every operation reads it from its [`Device`] and picks its kernel.
//! A test can ask for a lesser one. The pool lives in [`pool`], detection in [`isa`].

mod isa;
mod pool;
mod work;

use std::time::Duration;

pub use isa::Isa;

use pool::Pool;

/// An instruction set and a pool of threads. Cheap to share by reference; dropping it ends its threads.
#[derive(Debug)]
pub struct Device {
    isa: Isa,
    pool: Pool,
}

impl Device {
    /// The best instruction set and `threads` threads, the calling one included (at least 1).
    pub fn new(threads: usize) -> Self {
        Self::with_isa(threads, Isa::detect())
    }

    /// The same with a chosen instruction set (for tests); falls back to what the machine has.
    pub fn with_isa(threads: usize, isa: Isa) -> Self {
        Self { isa: isa.min(Isa::detect()), pool: Pool::new(threads) }
    }

    /// Threads, the calling one included.
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// Processor time that the pool's threads and the calling one have taken since each of them began, waiting for each other in a spin
    /// included. What a stretch of work took is the difference of two readings by the same thread. `None` where the system does not tell.
    pub fn processor_time(&self) -> Option<Duration> {
        self.pool.processor_time()
    }

    /// The instruction set in use.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Calls `task(i)` once for every `i` in `0..n`, spread over the threads, and returns when all are done. A panic in a task
    /// is passed on to the caller once all others are done. A task that calls `run` itself gets its inner tasks run in line.
    pub fn run(&self, n: usize, task: &(dyn Fn(usize) + Sync)) {
        self.pool.run(n, task);
    }
}
