//! Pages of the key-value cache as scarce resources.
//!
//! A page is either an [`OwnPage`], held by exactly one sequence that may write it, or a [`SharedPage`], held by any
//! number of readers and written by nobody. [`OwnPage::freeze`] is the only way from one to the other and there is no way
//! back, so a page that others read cannot be written: the types do not allow it. Dropping the last holder gives the page
//! back to its [`Pool`]; nothing is freed by hand, so nothing leaks and nothing is freed twice.

use std::sync::Arc;

use kernels::PAGE_TOKENS;
use parking_lot::Mutex;

/// Hands out the pages of one cache.
#[derive(Debug)]
pub(crate) struct Pool {
    /// Free page numbers. The one given back last is handed out first: it is warm, and memory never touched stays so.
    free: Arc<Mutex<Vec<u32>>>,
    total: usize,
}

/// A page that one sequence may write.
#[derive(Debug)]
pub(crate) struct OwnPage {
    id: u32,
    free: Arc<Mutex<Vec<u32>>>,
}

/// A page that nobody may write any more.
#[derive(Debug, Clone)]
pub(crate) struct SharedPage(Arc<OwnPage>);

/// The pages of one sequence: shared ones in front, then its own.
#[derive(Debug, Default)]
pub(crate) struct PageTable {
    shared: Vec<SharedPage>,
    own: Vec<OwnPage>,
    ids: Vec<u32>,
}

/// Pages that hold `tokens` tokens.
pub(crate) fn pages_for(tokens: usize) -> usize {
    tokens.div_ceil(PAGE_TOKENS)
}

impl Pool {
    pub(crate) fn new(total: usize) -> Self {
        let free = (0..total as u32).rev().collect();
        Self { free: Arc::new(Mutex::new(free)), total }
    }

    pub(crate) fn total(&self) -> usize {
        self.total
    }

    pub(crate) fn free(&self) -> usize {
        self.free.lock().len()
    }

    pub(crate) fn take(&self) -> Option<OwnPage> {
        let id = self.free.lock().pop()?;
        Some(OwnPage { id, free: Arc::clone(&self.free) })
    }
}

impl OwnPage {
    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    /// Gives up the right to write it.
    pub(crate) fn freeze(self) -> SharedPage {
        SharedPage(Arc::new(self))
    }
}

impl Drop for OwnPage {
    fn drop(&mut self) {
        self.free.lock().push(self.id);
    }
}

impl SharedPage {
    pub(crate) fn id(&self) -> u32 {
        self.0.id
    }

    /// Somebody besides the caller holds it.
    pub(crate) fn is_pinned(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }
}

impl PageTable {
    /// Starts with the pages of a prefix.
    pub(crate) fn with_prefix(shared: Vec<SharedPage>) -> Self {
        let ids = shared.iter().map(SharedPage::id).collect();
        Self { shared, own: Vec::new(), ids }
    }

    /// Page numbers by position, as the kernels want them.
    pub(crate) fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Tokens that fit.
    pub(crate) fn capacity(&self) -> usize {
        self.ids.len() * PAGE_TOKENS
    }

    /// The first position that may be written: everything before lies in shared pages.
    pub(crate) fn writable_from(&self) -> usize {
        self.shared.len() * PAGE_TOKENS
    }

    pub(crate) fn push(&mut self, page: OwnPage) {
        self.ids.push(page.id());
        self.own.push(page);
    }

    /// Freezes all pages that the first `tokens` tokens fill, and returns the shared pages for inspection or exchange.
    pub(crate) fn freeze(&mut self, tokens: usize) -> &[SharedPage] {
        let full = (tokens / PAGE_TOKENS).saturating_sub(self.shared.len()).min(self.own.len());
        self.shared.extend(self.own.drain(..full).map(OwnPage::freeze));
        &self.shared
    }

    /// Freezes everything, the last and partly written page too: the sequence has ended.
    pub(crate) fn into_shared(mut self) -> Vec<SharedPage> {
        self.shared.extend(self.own.drain(..).map(OwnPage::freeze));
        self.shared
    }

    /// Exchanges a shared page for another one of the same content.
    pub(crate) fn exchange(&mut self, index: usize, page: SharedPage) {
        self.ids[index] = page.id();
        self.shared[index] = page;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_come_back_when_the_last_holder_goes() {
        let pool = Pool::new(3);
        let mut table = PageTable::default();
        table.push(pool.take().unwrap());
        table.push(pool.take().unwrap());
        let kept = table.freeze(PAGE_TOKENS + 5).to_vec();
        assert_eq!((kept.len(), table.writable_from(), pool.free()), (1, PAGE_TOKENS, 1));
        drop(table);
        assert_eq!(pool.free(), 2);
        assert!(!kept[0].is_pinned());
        drop(kept);
        assert_eq!(pool.free(), pool.total());
    }

    #[test]
    fn an_empty_pool_gives_nothing() {
        let pool = Pool::new(1);
        let page = pool.take().unwrap();
        assert!(pool.take().is_none());
        drop(page);
        assert_eq!(pool.take().unwrap().id(), 0);
    }
}
