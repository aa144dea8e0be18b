//! The prefix cache: pages of ended and running sequences, found again by their tokens.
//!
//! A radix tree whose edges are pages. A node holds up to 64 tokens and the page with their keys and values; only a full
//! node has children, since position `p` of a sequence always lies in page `p / 64`. Among siblings none is a prefix of
//! another, so in sorted order the best partial match of a prompt is the entry just before or just after it. That gives
//! reuse at token granularity: full pages are shared as they are, of the last one the matching tokens are copied.
//!
//! A page is pinned while a sequence holds it; sequences hold whole paths, so an unpinned node has unpinned children.
//! Eviction takes unpinned leaves, the least recently used first.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, HashMap},
    ops::Bound,
};

use kernels::PAGE_TOKENS;

use crate::pages::{PageTable, SharedPage};

type NodeId = usize;

/// Whose keys and values they are: those of the base model, or of a generation of an adapter. Tokens alone do not say.
pub(crate) type Root = u64;
/// The base model's.
pub(crate) const BASE: Root = 0;

/// A place whose children are pages: the beginning of sequences, or a page.
#[derive(Debug, Clone, Copy)]
enum At {
    Root(Root),
    Page(NodeId),
}

/// What the cache holds of a prompt.
#[derive(Debug, Default)]
pub(crate) struct Match {
    /// Pages that match whole.
    pub(crate) full: Vec<SharedPage>,
    /// A page whose first tokens match: to be copied.
    pub(crate) partial: Option<Partial>,
}

/// A page of which the first tokens match.
#[derive(Debug)]
pub(crate) struct Partial {
    pub(crate) page: u32,
    pub(crate) tokens: usize,
    /// Keeps the page from being evicted until it is copied.
    pub(crate) _pin: Option<SharedPage>,
}

impl Match {
    /// Tokens found.
    pub(crate) fn tokens(&self) -> usize {
        self.full.len() * PAGE_TOKENS + self.partial.as_ref().map_or(0, |partial| partial.tokens)
    }
}

#[derive(Debug)]
struct Node {
    page: SharedPage,
    parent: At,
    tokens: Box<[u32]>,
    children: BTreeMap<Box<[u32]>, NodeId>,
    used: u64,
}

/// The tree.
#[derive(Debug, Default)]
pub(crate) struct PrefixCache {
    roots: HashMap<Root, BTreeMap<Box<[u32]>, NodeId>>,
    /// Of a root that nobody has been to.
    nothing: BTreeMap<Box<[u32]>, NodeId>,
    nodes: Vec<Option<Node>>,
    vacant: Vec<NodeId>,
    /// Counts finds and inserts: the age of a node is the count when it was last on a path.
    tick: u64,
}

/// How many leading tokens two sequences have in common.
pub(crate) fn common_prefix(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(x, y)| x == y).count()
}

impl PrefixCache {
    /// The longest known prefix of `tokens`.
    pub(crate) fn find(&mut self, root: Root, tokens: &[u32]) -> Match {
        self.tick += 1;
        let mut found = Match::default();
        let mut at = At::Root(root);
        let mut chunks = tokens.chunks_exact(PAGE_TOKENS);
        for chunk in &mut chunks {
            let Some(&child) = self.children(at).get(chunk) else {
                found.partial = self.best_partial(at, chunk);
                return found;
            };
            found.full.extend(self.touch(child));
            at = At::Page(child);
        }
        found.partial = self.best_partial(at, chunks.remainder());
        found
    }

    /// Puts the first `tokens.len()` tokens of a running sequence into the tree, whole pages only. Where the tree knows a
    /// page already, the sequence takes over that one and its own goes free.
    pub(crate) fn share(&mut self, root: Root, tokens: &[u32], table: &mut PageTable) {
        self.tick += 1;
        let pages = table.freeze(tokens.len()).to_vec();
        let mut at = At::Root(root);
        for (index, (chunk, page)) in tokens.chunks_exact(PAGE_TOKENS).zip(pages).enumerate() {
            let node = self.enter(at, chunk, page);
            if let Some(page) = self.touch(node) {
                table.exchange(index, page);
            }
            at = At::Page(node);
        }
    }

    /// Keeps the pages of an ended sequence, the last, partly filled one too.
    pub(crate) fn keep(&mut self, root: Root, tokens: &[u32], table: PageTable) {
        self.tick += 1;
        let mut at = At::Root(root);
        for (chunk, page) in tokens.chunks(PAGE_TOKENS).zip(table.into_shared()) {
            if chunk.len() < PAGE_TOKENS && self.is_covered(at, chunk) {
                return;
            }
            let node = self.enter(at, chunk, page);
            self.touch(node);
            at = At::Page(node);
        }
    }

    /// Frees at least `pages` pages if so many are unpinned; returns how many it freed.
    pub(crate) fn evict(&mut self, pages: usize) -> usize {
        let mut leaves: BinaryHeap<_> =
            (0..self.nodes.len()).filter(|&id| self.is_free_leaf(id)).map(|id| Reverse((self.age(id), id))).collect();
        let mut freed = 0;
        while freed < pages {
            let Some(Reverse((_, id))) = leaves.pop() else { break };
            let parent = self.remove(id);
            freed += 1;
            if let Some(parent) = parent.filter(|&parent| self.is_free_leaf(parent)) {
                leaves.push(Reverse((self.age(parent), parent)));
            }
        }
        freed
    }

    /// Pages that nobody but the tree holds.
    pub(crate) fn evictable(&self) -> usize {
        self.nodes.iter().flatten().filter(|node| !node.page.is_pinned()).count()
    }

    fn children(&self, at: At) -> &BTreeMap<Box<[u32]>, NodeId> {
        let children = match at {
            At::Root(root) => self.roots.get(&root),
            At::Page(id) => self.nodes[id].as_ref().map(|node| &node.children),
        };
        children.unwrap_or(&self.nothing)
    }

    fn children_mut(&mut self, at: At) -> &mut BTreeMap<Box<[u32]>, NodeId> {
        match at {
            At::Root(root) => self.roots.entry(root).or_default(),
            At::Page(id) => self.nodes[id].as_mut().map_or(&mut self.nothing, |node| &mut node.children),
        }
    }

    /// Marks a node as just used and hands out its page.
    fn touch(&mut self, id: NodeId) -> Option<SharedPage> {
        let tick = self.tick;
        self.nodes[id].as_mut().map(|node| {
            node.used = tick;
            node.page.clone()
        })
    }

    fn age(&self, id: NodeId) -> u64 {
        self.nodes[id].as_ref().map_or(0, |node| node.used)
    }

    fn is_free_leaf(&self, id: NodeId) -> bool {
        self.nodes[id].as_ref().is_some_and(|node| node.children.is_empty() && !node.page.is_pinned())
    }

    /// The siblings around `tokens` in sorted order: the last that is not behind it, the first that is.
    fn neighbours(&self, at: At, tokens: &[u32]) -> [Option<(&[u32], NodeId)>; 2] {
        let children = self.children(at);
        let before = children.range::<[u32], _>((Bound::Unbounded, Bound::Included(tokens))).next_back();
        let after = children.range::<[u32], _>((Bound::Excluded(tokens), Bound::Unbounded)).next();
        [before, after].map(|entry| entry.map(|(key, &id)| (&**key, id)))
    }

    fn best_partial(&mut self, at: At, tokens: &[u32]) -> Option<Partial> {
        let siblings = self.neighbours(at, tokens).into_iter().flatten();
        let (common, id) = siblings.map(|(key, id)| (common_prefix(key, tokens), id)).max()?;
        if common == 0 {
            return None;
        }
        self.touch(id).map(|page| Partial { page: page.id(), tokens: common, _pin: Some(page) })
    }

    /// A sibling begins with `tokens`, so a page of its own would add nothing.
    fn is_covered(&mut self, at: At, tokens: &[u32]) -> bool {
        let siblings = self.neighbours(at, tokens);
        let cover = siblings.into_iter().flatten().find(|(key, _)| key.starts_with(tokens)).map(|(_, id)| id);
        cover.and_then(|id| self.touch(id)).is_some()
    }

    /// The child of `at` for `tokens`; a new one with `page` if there is none. A shorter sibling that it covers goes.
    fn enter(&mut self, at: At, tokens: &[u32], page: SharedPage) -> NodeId {
        if let Some(&known) = self.children(at).get(tokens) {
            return known;
        }
        if let [Some((key, shorter)), _] = self.neighbours(at, tokens)
            && tokens.starts_with(key)
        {
            self.remove(shorter);
        }
        let tokens: Box<[u32]> = tokens.into();
        let node = Node { page, parent: at, tokens: tokens.clone(), children: BTreeMap::new(), used: self.tick };
        let id = self.vacant.pop().unwrap_or(self.nodes.len());
        if id == self.nodes.len() {
            self.nodes.push(None);
        }
        self.nodes[id] = Some(node);
        self.children_mut(at).insert(tokens, id);
        id
    }

    /// Takes a leaf out and returns its parent, if that is a page.
    fn remove(&mut self, id: NodeId) -> Option<NodeId> {
        let node = self.nodes[id].take()?;
        self.vacant.push(id);
        let siblings = self.children_mut(node.parent);
        siblings.remove(&node.tokens);
        let left = !siblings.is_empty();
        match node.parent {
            At::Page(parent) => Some(parent),
            At::Root(root) => {
                if !left {
                    self.roots.remove(&root);
                }
                None
            }
        }
    }
}

#[cfg(test)]
mod tests;
