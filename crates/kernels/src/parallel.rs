//! Sharing out one buffer over the threads of a device.
#![expect(unsafe_code, reason = "disjoint parts of a slice, written by several threads")]

use std::marker::PhantomData;

use crate::Device;
use crate::simd::{Kernel, Map, Simd, dispatch, zip_map};

/// Numbers that one task should handle at least: a round of the pool costs about a microsecond, as much as passing over these.
const WORTH_A_TASK: usize = 8192;

/// A slice of which the tasks of a job write disjoint parts. That they do is a promise of everybody who asks for a part, and stays inside of this
/// crate: callers derive parts from the numbers of tasks, each of which runs once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shared<'a, T> {
    start: *mut T,
    len: usize,
    borrow: PhantomData<&'a mut [T]>,
}

// SAFETY: it gives out `&mut [T]` like a `&mut [T]` that is split, which may be sent if `T` may.
unsafe impl<T: Send> Send for Shared<'_, T> {}
// SAFETY: as above; that parts are disjoint is what the users of `part` promise.
unsafe impl<T: Send> Sync for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    /// Takes the slice until the last copy of the result is gone.
    pub(crate) fn new(slice: &'a mut [T]) -> Self {
        Self { start: slice.as_mut_ptr(), len: slice.len(), borrow: PhantomData }
    }

    /// A part of the slice. Parts that are in use at the same time must not overlap.
    #[expect(clippy::mut_from_ref, reason = "that is what it is for")]
    pub(crate) fn part(&self, start: usize, len: usize) -> &mut [T] {
        assert!(start <= self.len && len <= self.len - start, "{start} + {len} of {}", self.len);
        // SAFETY: within the slice, which is borrowed for `'a`; callers keep parts disjoint.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), len) }
    }

    /// A part that nobody writes any more until the job ends.
    pub(crate) fn read(&self, start: usize, len: usize) -> &[T] {
        assert!(start <= self.len && len <= self.len - start, "{start} + {len} of {}", self.len);
        // SAFETY: within the slice, which is borrowed for `'a`; callers promise that it is not written.
        unsafe { std::slice::from_raw_parts(self.start.add(start), len) }
    }
}

/// Calls `task(first_row, rows)` for blocks of rows of `data`, over the threads if there is enough to do. How rows are grouped
/// depends on the sizes only, and no row's result may depend on it.
pub(crate) fn rows<T: Send>(dev: &Device, data: &mut [T], cols: usize, task: impl Fn(usize, &mut [T]) + Sync) {
    assert!(cols > 0 && data.len().is_multiple_of(cols), "{} numbers are not rows of {cols}", data.len());
    let n = data.len() / cols;
    let per_task = (WORTH_A_TASK / cols).max(1);
    if n <= per_task || dev.threads() == 1 {
        return task(0, data);
    }
    let shared = Shared::new(data);
    dev.run(n.div_ceil(per_task), &|i| {
        let (first, last) = (i * per_task, ((i + 1) * per_task).min(n));
        task(first, shared.part(first * cols, (last - first) * cols));
    });
}

/// `y = f(y, a, a)`, number by number, over the threads.
pub(crate) fn zip(dev: &Device, y: &mut [f32], a: &[f32], f: &(impl Map + Sync)) {
    assert_eq!(y.len(), a.len());
    rows(dev, y, 1, |first, y| {
        let a = &a[first..][..y.len()];
        dispatch(dev.isa(), Zip { y, a, f });
    });
}

struct Zip<'a, F> {
    y: &'a mut [f32],
    a: &'a [f32],
    f: &'a F,
}

impl<F: Map> Kernel for Zip<'_, F> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        zip_map(s, self.y, self.a, self.a, self.f);
    }
}
