//! Numbers that begin at a cache line, so that no vector of rows of sixteen lies across two.

use std::ops::{Deref, DerefMut};

/// A cache line, in numbers.
pub(crate) const LINE: usize = 16;

/// Room for numbers, kept from one use to the next.
#[derive(Debug, Default)]
pub struct Aligned {
    words: Vec<f32>,
    /// Where the first cache line begins.
    start: usize,
    len: usize,
}

impl Aligned {
    /// Makes room for so many. They keep what stands in them while they do not grow, and are anything afterwards.
    pub fn resize(&mut self, len: usize) {
        if self.words.len() < len + LINE {
            self.words = Vec::new();
            self.words = vec![0.0; len + LINE];
            self.start = self.words.as_ptr().align_offset(LINE * size_of::<f32>()).min(LINE);
        }
        self.len = len;
    }

    /// Bytes that it takes.
    pub fn bytes(&self) -> usize {
        size_of_val(self.words.as_slice())
    }
}

impl Deref for Aligned {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.words[self.start..][..self.len]
    }
}

impl DerefMut for Aligned {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.words[self.start..][..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_begin_at_a_cache_line_however_they_grew() {
        let mut numbers = Aligned::default();
        assert!(numbers.is_empty());
        for len in [1, 16, 1000, 17, 0, 1 << 20, 5000] {
            numbers.resize(len);
            assert_eq!((numbers.len(), numbers.as_ptr().align_offset(64)), (len, 0), "{len} numbers");
        }
    }
}
