//! The prefix cache against a naive model: a list of every sequence ever kept, and the content of every page.

use proptest::prelude::*;

use super::*;
use crate::pages::{Pool, pages_for};

/// A fingerprint of the tokens up to and including a position: what a key and value there depend on.
fn fingerprint(tokens: &[u32]) -> u64 {
    tokens.iter().fold(17, |hash: u64, &token| (hash ^ u64::from(token)).wrapping_mul(0x0100_0000_01b3).rotate_left(7))
}

struct Live {
    tokens: Vec<u32>,
    computed: usize,
    table: PageTable,
}

#[derive(Debug, Clone, Copy)]
enum Op {
    Start { stem: usize, cut: usize, tail: u32, extra: usize },
    Write { which: usize, rows: usize },
    Share { which: usize },
    Keep { which: usize },
    Drop { which: usize },
    Evict { pages: usize },
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0..3usize, 0..400usize, 0..3u32, 0..80usize).prop_map(|(stem, cut, tail, extra)| Op::Start { stem, cut, tail, extra }),
        6 => (0..8usize, 1..200usize).prop_map(|(which, rows)| Op::Write { which, rows }),
        2 => (0..8usize).prop_map(|which| Op::Share { which }),
        3 => (0..8usize).prop_map(|which| Op::Keep { which }),
        1 => (0..8usize).prop_map(|which| Op::Drop { which }),
        1 => (0..9usize).prop_map(|pages| Op::Evict { pages }),
    ]
}

/// Pool, tree and live sequences beside the naive model.
struct World {
    pool: Pool,
    cache: PrefixCache,
    live: Vec<Live>,
    content: Vec<[u64; PAGE_TOKENS]>,
    kept: Vec<Vec<u32>>,
    evicted: bool,
}

impl World {
    fn new(pages: usize) -> Self {
        let content = vec![[0; PAGE_TOKENS]; pages];
        Self {
            pool: Pool::new(pages),
            cache: PrefixCache::default(),
            live: vec![],
            content,
            kept: vec![],
            evicted: false,
        }
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Start { stem, cut, tail, extra } => self.start(stem, cut, tail, extra),
            Op::Write { which, rows } => self.write(which, rows),
            Op::Share { which } => self.share(which),
            Op::Keep { which } => self.keep(which),
            Op::Drop { which } => drop(self.take(which)),
            Op::Evict { pages } => {
                let expected = pages.min(self.cache.evictable());
                assert_eq!(self.cache.evict(pages), expected);
                self.evicted |= expected > 0;
            }
        }
        self.check();
    }

    fn take(&mut self, which: usize) -> Option<Live> {
        (which < self.live.len()).then(|| self.live.swap_remove(which))
    }

    fn start(&mut self, stem: usize, cut: usize, tail: u32, extra: usize) {
        let mut tokens: Vec<u32> = (0..cut as u32).map(|i| i.wrapping_mul(stem as u32 + 1) % 7).collect();
        tokens.extend((0..=extra as u32).map(|i| 100 + tail + i % 5));
        let found = self.cache.find(BASE, &tokens);
        self.check_found(&tokens, &found);
        let mut live = Live { computed: found.tokens(), tokens, table: PageTable::with_prefix(found.full) };
        if let Some(Partial { page, tokens: n, _pin }) = found.partial {
            match self.pool.take() {
                Some(own) => {
                    let (from, to) = (page as usize, own.id() as usize);
                    let copied = self.content[from];
                    self.content[to][..n].copy_from_slice(&copied[..n]);
                    live.table.push(own);
                }
                None => live.computed -= n,
            }
        }
        self.live.push(live);
    }

    /// What is found is as long as the naive model says (shorter only after evictions) and holds the right content.
    fn check_found(&self, tokens: &[u32], found: &Match) {
        let naive = self.kept.iter().map(|kept| common_prefix(kept, tokens)).max().unwrap_or(0);
        assert!(found.tokens() <= naive);
        assert!(self.evicted || found.tokens() == naive, "found {} of {naive}", found.tokens());
        let partial = found.partial.iter().map(|partial| partial.page);
        let pages: Vec<u32> = found.full.iter().map(SharedPage::id).chain(partial).collect();
        self.check_content(tokens, found.tokens(), &pages);
    }

    fn check_content(&self, tokens: &[u32], computed: usize, pages: &[u32]) {
        for position in 0..computed {
            let slot = self.content[pages[position / PAGE_TOKENS] as usize][position % PAGE_TOKENS];
            assert_eq!(slot, fingerprint(&tokens[..=position]), "position {position}");
        }
    }

    fn write(&mut self, which: usize, rows: usize) {
        let Some(live) = self.live.get_mut(which) else { return };
        let end = live.tokens.len().min(live.computed + rows);
        while live.table.capacity() < end {
            let Some(page) = self.pool.take() else { return };
            live.table.push(page);
        }
        assert!(live.computed == end || live.computed >= live.table.writable_from());
        for position in live.computed..end {
            let page = live.table.ids()[position / PAGE_TOKENS] as usize;
            self.content[page][position % PAGE_TOKENS] = fingerprint(&live.tokens[..=position]);
        }
        live.computed = end;
    }

    fn share(&mut self, which: usize) {
        let Some(live) = self.live.get_mut(which) else { return };
        self.cache.share(BASE, &live.tokens[..live.computed], &mut live.table);
        let whole = live.computed / PAGE_TOKENS * PAGE_TOKENS;
        self.kept.push(live.tokens[..whole].to_vec());
    }

    fn keep(&mut self, which: usize) {
        let Some(live) = self.take(which) else { return };
        self.kept.push(live.tokens[..live.computed].to_vec());
        self.cache.keep(BASE, &live.tokens[..live.computed], live.table);
    }

    /// No live sequence ever sees another's writes, and every page is somewhere exactly once.
    fn check(&self) {
        let mut held = vec![false; self.pool.total()];
        for live in &self.live {
            self.check_content(&live.tokens, live.computed, live.table.ids());
            live.table.ids().iter().for_each(|&id| held[id as usize] = true);
            for &id in &live.table.ids()[live.table.writable_from() / PAGE_TOKENS..] {
                let holders = self.live.iter().filter(|other| other.table.ids().contains(&id)).count();
                assert_eq!(holders, 1, "a page of its own is held by one sequence");
            }
        }
        for node in self.cache.nodes.iter().flatten() {
            held[node.page.id() as usize] = true;
        }
        assert_eq!(held.iter().filter(|held| **held).count() + self.pool.free(), self.pool.total());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn behaves_like_the_naive_model(ops in prop::collection::vec(op(), 1..80)) {
        let mut world = World::new(24);
        ops.into_iter().for_each(|op| world.apply(op));
        world.live.clear();
        let cached = world.cache.evictable();
        assert_eq!(cached + world.pool.free(), world.pool.total(), "what nobody uses can be evicted");
        assert_eq!(world.cache.evict(usize::MAX), cached);
        assert_eq!(world.pool.free(), world.pool.total());
    }
}

#[test]
fn a_partial_page_is_found_at_token_granularity() {
    let (pool, mut cache) = (Pool::new(8), PrefixCache::default());
    let tokens: Vec<u32> = (0..150).collect();
    let mut table = PageTable::default();
    (0..pages_for(tokens.len())).for_each(|_| table.push(pool.take().unwrap()));
    cache.keep(BASE, &tokens, table);
    let mut other = tokens.clone();
    other[137] = 9999;
    for (prompt, found) in
        [(&tokens[..], 150), (&tokens[..70], 70), (&tokens[..64], 64), (&other[..], 137), (&tokens[1..], 0)]
    {
        assert_eq!(cache.find(BASE, prompt).tokens(), found);
    }
}

#[test]
fn the_least_recently_used_goes_first() {
    let (pool, mut cache) = (Pool::new(2), PrefixCache::default());
    for token in [1, 2] {
        let mut table = PageTable::default();
        table.push(pool.take().unwrap());
        cache.keep(BASE, &[token; 10], table);
    }
    assert_eq!(cache.find(BASE, &[1; 10]).tokens(), 10);
    assert_eq!(cache.evict(1), 1);
    assert_eq!((cache.find(BASE, &[1; 10]).tokens(), cache.find(BASE, &[2; 10]).tokens()), (10, 0));
}
