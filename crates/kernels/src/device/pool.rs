//! A persistent pool that starts a job in about a microsecond and costs nothing while idle.
//!
//! # Claiming
//! One 64-bit ticket holds the job's epoch and the next task. Whoever is awake claims tasks by incrementing it, so a thread
//! whose core was taken away delays only the task it holds, and a worker that never woke up delays nobody: a job is over
//! when its tasks are done, not when its workers have checked in. The publisher closes the ticket before it changes the
//! job's fields, and a claim is a compare-and-swap on the whole ticket; so a claim that succeeds has read the fields of
//! its own epoch, however late the worker is.
//!
//! # Waiting
//! Jobs come in bursts, microseconds apart within a step of a model. Both sides of the barrier spin for about as long as
//! such gaps last, then sleep on a condition variable. A longer spin would take the core from whoever has work.

#![expect(unsafe_code, reason = "a job borrows the caller's stack while other threads run it")]

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::work::Clocks;

/// How long a worker without work, or a caller without tasks left, spins before it sleeps.
const SPIN: Duration = Duration::from_micros(30);
/// Spins between two looks at the clock.
const SPINS_PER_LOOK: u32 = 16;
/// The task number of a ticket that nobody may claim from.
const CLOSED: u64 = u32::MAX as u64;

thread_local! {
    /// Set while this thread runs a task: a nested job then runs in line instead of waiting for itself.
    static BUSY: Cell<bool> = const { Cell::new(false) };
}

/// Threads that wait for jobs; the caller of [`Pool::run`] is one more.
#[derive(Debug)]
pub(super) struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    clocks: Clocks,
    /// Held by the caller whose job runs.
    turn: Mutex<()>,
}

/// A value on cache lines of its own (two, for the adjacent-line prefetcher).
#[derive(Debug)]
#[repr(align(128))]
struct Apart<T>(T);

#[derive(Debug)]
struct Shared {
    /// `epoch << 32 | next task`.
    ticket: Apart<AtomicU64>,
    /// Tasks finished of the current job.
    done: Apart<AtomicUsize>,
    /// Tasks of the current job.
    len: AtomicUsize,
    /// The current job, valid while a task of it is claimed and not done.
    job: AtomicPtr<Job<'static>>,
    stop: AtomicBool,
    sleepers: AtomicUsize,
    caller_sleeps: AtomicBool,
    lock: Mutex<()>,
    published: Condvar,
    finished: Condvar,
}

struct Job<'a> {
    task: &'a (dyn Fn(usize) + Sync),
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

impl Pool {
    pub(super) fn new(threads: usize) -> Self {
        let shared = Arc::new(Shared::new());
        let spawn = |i| {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new().name(format!("kernels-{i}")).spawn(move || shared.work())
        };
        // A system that refuses a thread gets a smaller pool: slower, and just as right.
        let workers: Vec<_> = (1..threads).map_while(|i| spawn(i).ok()).collect();
        Self { shared, clocks: Clocks::of(&workers), workers, turn: Mutex::new(()) }
    }

    pub(super) fn processor_time(&self) -> Option<Duration> {
        self.clocks.read()
    }

    pub(super) fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    pub(super) fn run(&self, n: usize, task: &(dyn Fn(usize) + Sync)) {
        if n <= 1 || self.workers.is_empty() || BUSY.get() {
            return (0..n).for_each(task);
        }
        let _turn = acquire(&self.turn);
        let limit = CLOSED as usize - 1;
        for start in (0..n).step_by(limit) {
            self.run_batch((n - start).min(limit), &|i| task(start + i));
        }
    }

    fn run_batch(&self, n: usize, task: &(dyn Fn(usize) + Sync)) {
        let job = Job { task, panic: Mutex::new(None) };
        self.shared.publish(&job, n);
        self.shared.drain();
        self.shared.wait_done(n);
        let panic = acquire(&job.panic).take();
        if let Some(payload) = panic {
            resume_unwind(payload);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        drop(acquire(&self.shared.lock));
        self.shared.published.notify_all();
        for worker in self.workers.drain(..) {
            // A worker catches its tasks' panics, so there is nothing to learn from how it ended.
            let _ = worker.join();
        }
    }
}

impl Shared {
    fn new() -> Self {
        Self {
            ticket: Apart(AtomicU64::new(CLOSED)),
            done: Apart(AtomicUsize::new(0)),
            len: AtomicUsize::new(0),
            job: AtomicPtr::new(std::ptr::null_mut()),
            stop: AtomicBool::new(false),
            sleepers: AtomicUsize::new(0),
            caller_sleeps: AtomicBool::new(false),
            lock: Mutex::new(()),
            published: Condvar::new(),
            finished: Condvar::new(),
        }
    }

    fn publish(&self, job: &Job<'_>, n: usize) {
        let epoch = (self.ticket.0.load(Ordering::Relaxed) >> 32) + 1;
        self.ticket.0.store(epoch << 32 | CLOSED, Ordering::SeqCst);
        self.done.0.store(0, Ordering::Release);
        self.len.store(n, Ordering::Release);
        self.job.store(std::ptr::from_ref(job).cast_mut().cast(), Ordering::Release);
        self.ticket.0.store((epoch + 1) << 32, Ordering::SeqCst);
        let sleepers = self.sleepers.load(Ordering::SeqCst);
        if sleepers > 0 {
            drop(acquire(&self.lock));
            (0..sleepers.min(n - 1)).for_each(|_| self.published.notify_one());
        }
    }

    /// Runs tasks of the current job until none is left to claim. Returns the ticket it gave up at.
    fn drain(&self) -> u64 {
        loop {
            let ticket = self.ticket.0.load(Ordering::Acquire);
            let task = ticket & CLOSED;
            let job = self.job.load(Ordering::Acquire);
            if task == CLOSED || task as usize >= self.len.load(Ordering::Acquire) {
                return ticket;
            }
            let claimed = self.ticket.0.compare_exchange(ticket, ticket + 1, Ordering::SeqCst, Ordering::Relaxed);
            if claimed.is_ok() {
                // SAFETY: the claim succeeded, so `job` is of the ticket's epoch, and its owner waits in `wait_done` for
                // the task just claimed before the job goes out of scope.
                unsafe { &*job }.call(task as usize);
                self.finish_one();
            }
        }
    }

    fn finish_one(&self) {
        // `len` is stable here: this task was not counted yet, so the publisher still waits.
        let len = self.len.load(Ordering::Relaxed);
        if self.done.0.fetch_add(1, Ordering::SeqCst) + 1 == len && self.caller_sleeps.load(Ordering::SeqCst) {
            drop(acquire(&self.lock));
            self.finished.notify_all();
        }
    }

    fn wait_done(&self, n: usize) {
        let done = || self.done.0.load(Ordering::SeqCst) == n;
        if spin_until(done) {
            return;
        }
        self.caller_sleeps.store(true, Ordering::SeqCst);
        let mut guard = acquire(&self.lock);
        while !done() {
            guard = self.finished.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        self.caller_sleeps.store(false, Ordering::SeqCst);
    }

    fn work(&self) {
        while !self.stop.load(Ordering::SeqCst) {
            let seen = self.drain() >> 32;
            self.wait_published(seen);
        }
    }

    /// Waits until the epoch is no longer `seen`, or the pool ends.
    fn wait_published(&self, seen: u64) {
        let news = || self.ticket.0.load(Ordering::SeqCst) >> 32 != seen || self.stop.load(Ordering::SeqCst);
        if spin_until(news) {
            return;
        }
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        let mut guard = acquire(&self.lock);
        while !news() {
            guard = self.published.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        drop(guard);
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Job<'_> {
    fn call(&self, i: usize) {
        BUSY.set(true);
        let result = catch_unwind(AssertUnwindSafe(|| (self.task)(i)));
        BUSY.set(false);
        if let Err(payload) = result {
            acquire(&self.panic).get_or_insert(payload);
        }
    }
}

/// Spins until `ready`; false when it took longer than [`SPIN`].
#[expect(clippy::disallowed_methods, reason = "how long to spin is about the real time, and no result depends on it")]
fn spin_until(ready: impl Fn() -> bool) -> bool {
    let mut start = None;
    loop {
        for _ in 0..SPINS_PER_LOOK {
            if ready() {
                return true;
            }
            std::hint::spin_loop();
        }
        if start.get_or_insert_with(Instant::now).elapsed() > SPIN {
            return false;
        }
    }
}

/// Locks; nothing that a panic could leave half done is ever kept under these locks.
fn acquire<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
