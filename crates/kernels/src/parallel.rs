//! Sharing out one buffer over the threads of a device.
#![expect(unsafe_code, reason = "disjoint parts of a slice, written by several threads")]

use std::marker::PhantomData;
use std::ops::Range;

use crate::Device;
use crate::simd::{Kernel, Map, Simd, dispatch, zip_map};

/// Numbers that one task should handle at least: a round of the pool costs about a microsecond, as much as passing over these.
const WORTH_A_TASK: usize = 8192;

/// A slice of which several threads write disjoint parts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Parts<'a, T> {
    start: *mut T,
    len: usize,
    borrow: PhantomData<&'a mut [T]>,
}

// SAFETY: a part is reached only through `part`, whose callers promise that parts in use at the same time are disjoint.
unsafe impl<T: Send> Send for Parts<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Parts<'_, T> {}

impl<'a, T> Parts<'a, T> {
    /// Takes the slice until the last copy of the result is gone.
    pub(crate) fn new(slice: &'a mut [T]) -> Self {
        Self { start: slice.as_mut_ptr(), len: slice.len(), borrow: PhantomData }
    }

    /// One part.
    ///
    /// # Safety
    /// No other part in use at the same time may overlap `range`.
    pub(crate) unsafe fn part(&self, range: Range<usize>) -> &'a mut [T] {
        assert!(range.start <= range.end && range.end <= self.len, "part {range:?} of {}", self.len);
        // SAFETY: inside the slice by the assertion, disjoint from others by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
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
    let parts = Parts::new(data);
    dev.run(n.div_ceil(per_task), &|i| {
        let (first, last) = (i * per_task, ((i + 1) * per_task).min(n));
        // SAFETY: tasks have different `i`, hence disjoint rows.
        task(first, unsafe { parts.part(first * cols..last * cols) });
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
