//! "Nothing allocates in the steady state": every operation of the table, run again, takes no memory, on any thread.
#![expect(unsafe_code, reason = "an allocator that counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use kernels::Device;
use kernels::conformance::{Op, cases};

static COUNT: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: all calls go to the system's allocator as they are.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise is the system's condition.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is the system's condition.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn operations_run_again_take_no_memory() {
    let dev = Device::new(2);
    let mut found = Vec::new();
    for case in cases().iter().filter(|case| case.timed) {
        let mut job = case.prepare(&dev);
        // Which thread takes which task is chance, and each has buffers of its own that grow.
        let least = (0..6).map(|_| {
            let before = COUNT.load(Ordering::Relaxed);
            job.run(&dev);
            COUNT.load(Ordering::Relaxed) - before
        });
        // The table itself lists the sequences of a call anew.
        let own = usize::from(matches!(case.op, Op::Attention { .. } | Op::StoreKv { .. }));
        let least = least.min().unwrap_or(0);
        if least > own {
            found.push(format!("{case}: {least}"));
        }
    }
    assert!(found.is_empty(), "allocations in each of six runs:\n{}", found.join("\n"));
}
