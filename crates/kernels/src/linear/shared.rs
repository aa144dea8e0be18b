//! A slice that several threads write to, each its own part.

#![expect(unsafe_code, reason = "tasks of one job write disjoint parts of a slice")]

use std::marker::PhantomData;

/// A mutable slice that tasks of a job share. Whoever asks for a part must be the only one to use it until the job ends.
#[derive(Debug)]
pub(crate) struct Shared<'a, T> {
    start: *mut T,
    len: usize,
    slice: PhantomData<&'a mut [T]>,
}

// SAFETY: it gives out `&mut [T]` like a `&mut [T]` that is split, which may be sent if `T` may.
unsafe impl<T: Send> Send for Shared<'_, T> {}
// SAFETY: as above; that parts are disjoint is what the users of `part` promise.
unsafe impl<T: Send> Sync for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    pub(crate) fn new(slice: &'a mut [T]) -> Self {
        Self { start: slice.as_mut_ptr(), len: slice.len(), slice: PhantomData }
    }

    /// A part of the slice. Parts that are in use at the same time must not overlap: callers derive them from task numbers,
    /// each of which runs once.
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
