//! How much of bodies may be in memory while they are being read: those who send them hold no place yet (`drain`), so no other limit counts them.
//!
//! What counts is what has come, not what was announced. All callers together have a bound, and one caller has half of it, so that nobody
//! keeps everybody else out. While no key is asked for, all callers are one.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;

/// So many bodies of the longest kind, for all callers.
const BODIES: usize = 16;
/// The least that all callers have, where bodies are short.
const LEAST: usize = 64 << 20;

/// What is being read.
#[derive(Debug, Clone)]
pub(crate) struct Intake {
    most: usize,
    read: Arc<Mutex<Read>>,
}

#[derive(Debug, Default)]
struct Read {
    all: usize,
    by_caller: HashMap<String, usize>,
}

impl Intake {
    /// For bodies of at most so many bytes each.
    pub(crate) fn new(longest: usize) -> Self {
        Self::of(longest.saturating_mul(BODIES).max(LEAST))
    }

    fn of(most: usize) -> Self {
        Self { most, read: Arc::default() }
    }

    /// The share of a body that this caller begins to send.
    pub(crate) fn share(&self, caller: &str) -> Share {
        Share { intake: self.clone(), caller: caller.to_owned(), bytes: 0 }
    }
}

/// What one body takes; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    intake: Intake,
    caller: String,
    bytes: usize,
}

impl Share {
    /// Takes more; where that is too much, gives all back.
    pub(crate) fn grow(&mut self, bytes: usize) -> bool {
        let mut read = self.intake.read.lock();
        let own = read.by_caller.get(&self.caller).copied().unwrap_or_default();
        if read.all + bytes > self.intake.most || own + bytes > self.intake.most / 2 {
            drop(read);
            self.give_back();
            return false;
        }
        read.all += bytes;
        *read.by_caller.entry(self.caller.clone()).or_default() += bytes;
        self.bytes += bytes;
        true
    }

    fn give_back(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        let mut read = self.intake.read.lock();
        read.all -= bytes;
        if let Some(own) = read.by_caller.get_mut(&self.caller) {
            *own -= bytes;
            if *own == 0 {
                read.by_caller.remove(&self.caller);
            }
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.give_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_have_a_bound_and_one_has_half() {
        let intake = Intake::of(100);
        let mut ann = [intake.share("ann"), intake.share("ann")];
        assert!(ann[0].grow(30) && ann[1].grow(20));
        assert!(!ann[1].grow(1), "over half");
        assert!(ann[0].grow(20), "what was refused is given back");
        let (mut bob, mut eve) = (intake.share("bob"), intake.share("eve"));
        assert!(bob.grow(40) && eve.grow(10));
        assert!(!eve.grow(1), "over all");
        drop(ann);
        assert!(eve.grow(50));
        drop((bob, eve));
        let read = intake.read.lock();
        assert!(read.all == 0 && read.by_caller.is_empty(), "{read:?}");
    }
}
