//! Memory for weights: aligned, zeroed, and on huge pages where the system has them.
//!
//! A pass over the weights of a model reads more memory than 4 KiB pages have room for in the TLB, so it pays to have them on
//! pages of 2 MiB. A single matrix is often smaller than that: small buffers are therefore carved from shared chunks, and a
//! chunk goes back to the system when the last buffer in it is dropped.

#![expect(unsafe_code, reason = "memory mapped by hand and cut into disjoint slices")]

use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Huge pages have this size on every machine that matters here; chunks start at a multiple of it.
const HUGE_PAGE: usize = 2 << 20;
/// What small buffers are carved from.
const CHUNK: usize = 32 << 20;
/// A cache line: no two buffers share one.
const ALIGN: usize = 64;

/// Where the next small buffer comes from, and how much of it is taken.
static CURRENT: Mutex<(Weak<Chunk>, usize)> = Mutex::new((Weak::new(), 0));

/// Bytes of one's own, zero at first, aligned to 64.
#[derive(Debug)]
pub(crate) struct Buffer {
    chunk: Arc<Chunk>,
    start: usize,
    len: usize,
}

impl Buffer {
    /// Memory is touched, and so taken from the system, when it is first written.
    pub(crate) fn zeroed(len: usize) -> Self {
        if len >= CHUNK / 4 {
            return Self { chunk: Arc::new(Chunk::new(len)), start: 0, len };
        }
        let mut current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
        let (chunk, start) = match current.0.upgrade().filter(|chunk| chunk.len - current.1 >= len) {
            Some(chunk) => (chunk, current.1),
            None => (Arc::new(Chunk::new(CHUNK)), 0),
        };
        *current = (Arc::downgrade(&chunk), start + len.next_multiple_of(ALIGN));
        Self { chunk, start, len }
    }

    /// The bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: `start + len` lies within the chunk, which is initialised (the system hands out zeros) and lives as long as
        // `self`; nobody else has this range.
        unsafe { std::slice::from_raw_parts(self.chunk.base.add(self.start), self.len) }
    }

    /// The bytes, to be written.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`, and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.chunk.base.add(self.start), self.len) }
    }
}

#[derive(Debug)]
struct Chunk {
    /// Aligned to a huge page.
    base: *mut u8,
    len: usize,
    /// What the system gave, aligned to less.
    mapping: (*mut u8, usize),
}

// SAFETY: the chunk is plain memory; buffers give access to disjoint parts of it under the usual borrowing rules.
unsafe impl Send for Chunk {}
// SAFETY: as above.
unsafe impl Sync for Chunk {}

#[cfg(unix)]
impl Chunk {
    fn new(len: usize) -> Self {
        let size = len.next_multiple_of(HUGE_PAGE) + HUGE_PAGE;
        let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a fresh private mapping without a wished address affects no other memory.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), size, access, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            out_of_memory(size);
        }
        let start = start.cast::<u8>();
        // SAFETY: at most HUGE_PAGE - 1 bytes further, inside the mapping, which is that much longer than `len`.
        let base = unsafe { start.add(start.align_offset(HUGE_PAGE)) };
        #[cfg(target_os = "linux")]
        // SAFETY: the range is inside our mapping. A refusal costs speed only.
        unsafe {
            libc::madvise(base.cast(), size - HUGE_PAGE, libc::MADV_HUGEPAGE);
        }
        Self { base, len, mapping: (start, size) }
    }
}

#[cfg(unix)]
impl Drop for Chunk {
    fn drop(&mut self) {
        // SAFETY: `new` mapped exactly this range, and no buffer refers to it any more.
        unsafe { libc::munmap(self.mapping.0.cast(), self.mapping.1) };
    }
}

#[cfg(not(unix))]
impl Chunk {
    fn new(len: usize) -> Self {
        let size = len.max(ALIGN);
        // SAFETY: the layout has a size above zero.
        let base = unsafe { std::alloc::alloc_zeroed(layout(size)) };
        if base.is_null() {
            out_of_memory(size);
        }
        Self { base, len, mapping: (base, size) }
    }
}

#[cfg(not(unix))]
impl Drop for Chunk {
    fn drop(&mut self) {
        // SAFETY: `new` allocated with exactly this layout.
        unsafe { std::alloc::dealloc(self.mapping.0, layout(self.mapping.1)) };
    }
}

fn layout(size: usize) -> std::alloc::Layout {
    std::alloc::Layout::from_size_align(size, ALIGN).unwrap_or(std::alloc::Layout::new::<u64>())
}

/// What every allocation does when memory has run out.
fn out_of_memory(size: usize) -> ! {
    std::alloc::handle_alloc_error(layout(size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_zeroed_and_apart() {
        let mut buffers: Vec<_> = [1, 64, 100, 3 << 20, 9 << 20, 33 << 20, 0].map(Buffer::zeroed).into();
        for (i, buffer) in buffers.iter_mut().enumerate() {
            assert_eq!(buffer.bytes().as_ptr() as usize % ALIGN, 0);
            assert!(buffer.bytes().iter().all(|b| *b == 0));
            buffer.bytes_mut().fill(i as u8 + 1);
        }
        for (i, buffer) in buffers.iter().enumerate() {
            assert!(buffer.bytes().iter().all(|b| *b == i as u8 + 1));
        }
    }

    #[test]
    fn small_buffers_share_a_chunk() {
        let (a, b) = (Buffer::zeroed(1000), Buffer::zeroed(1000));
        // Other tests carve too, and may just have used up the chunk.
        let c = Buffer::zeroed(1000);
        assert!(Arc::ptr_eq(&a.chunk, &b.chunk) || Arc::ptr_eq(&b.chunk, &c.chunk));
    }
}
