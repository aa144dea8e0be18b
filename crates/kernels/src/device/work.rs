//! How long threads have had a processor, by the system's own clocks.
//!
//! Linux keeps a clock for every thread that runs only while the thread does. So what other threads of the process compute, and
//! who else wants the processor, is in no reading.

use std::thread::JoinHandle;
use std::time::Duration;

#[cfg(target_os = "linux")]
pub(super) use linux::Clocks;
#[cfg(not(target_os = "linux"))]
pub(super) use other::Clocks;

#[cfg(target_os = "linux")]
mod linux {
    #![expect(unsafe_code, reason = "clocks of threads are read through the C library")]

    use std::os::unix::thread::JoinHandleExt;

    use super::{Duration, JoinHandle};

    /// The clocks of some threads that are not ended before they are joined.
    #[derive(Debug)]
    pub(in crate::device) struct Clocks(Option<Vec<libc::clockid_t>>);

    impl Clocks {
        /// Those of threads that were just started.
        pub(in crate::device) fn of(threads: &[JoinHandle<()>]) -> Self {
            Self(threads.iter().map(clock).collect())
        }

        /// Their times and the calling thread's together.
        pub(in crate::device) fn read(&self) -> Option<Duration> {
            let mine = time(libc::CLOCK_THREAD_CPUTIME_ID)?;
            self.0.as_ref()?.iter().try_fold(mine, |sum, clock| Some(sum + time(*clock)?))
        }
    }

    fn clock(thread: &JoinHandle<()>) -> Option<libc::clockid_t> {
        let mut id = 0;
        // SAFETY: the handle is held, so the thread is not joined and its id is valid; the call writes one number to `id`.
        let failed = unsafe { libc::pthread_getcpuclockid(thread.as_pthread_t(), &raw mut id) };
        (failed == 0).then_some(id)
    }

    fn time(clock: libc::clockid_t) -> Option<Duration> {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the call writes to `time` only; a clock that is gone is an error.
        let failed = unsafe { libc::clock_gettime(clock, &raw mut time) };
        let (seconds, nanos) = (u64::try_from(time.tv_sec).ok()?, u32::try_from(time.tv_nsec).ok()?);
        (failed == 0).then(|| Duration::new(seconds, nanos))
    }
}

#[cfg(not(target_os = "linux"))]
mod other {
    use super::{Duration, JoinHandle};

    /// Nothing is known here.
    #[derive(Debug)]
    pub(in crate::device) struct Clocks;

    impl Clocks {
        pub(in crate::device) fn of(_: &[JoinHandle<()>]) -> Self {
            Self
        }

        pub(in crate::device) fn read(&self) -> Option<Duration> {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;
    use std::time::Duration;

    use crate::Device;

    #[test]
    #[cfg(target_os = "linux")]
    fn work_of_all_threads_counts_and_sleep_does_not() {
        // Until the clock of the thread that works has moved on: no other clock is asked.
        let churn = |_| {
            let alone = Device::new(1);
            let began = alone.processor_time().unwrap();
            while alone.processor_time().unwrap() - began < Duration::from_millis(5) {
                black_box((0..10_000_u64).fold(1, |x, i| black_box(x ^ i)));
            }
        };
        for threads in [1, 3] {
            let dev = Device::new(threads);
            let took = |work: &dyn Fn()| {
                let before = dev.processor_time().unwrap();
                work();
                dev.processor_time().unwrap() - before
            };
            let worked = took(&|| dev.run(8, &churn));
            assert!(
                worked >= Duration::from_millis(40),
                "eight times five milliseconds on {threads} threads: {worked:?}"
            );
            let slept = took(&|| std::thread::sleep(Duration::from_millis(50)));
            assert!(slept < Duration::from_millis(40), "{slept:?}");
        }
    }
}
