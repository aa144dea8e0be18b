//! Who takes part in the next step, and with how many rows.

use std::time::Duration;

use kernels::PAGE_TOKENS;
use protocol::Event;

use super::{Core, RequestId};
use crate::{
    adapters::root,
    executor::Executor,
    job::Job,
    meters::seconds,
    pages::{OwnPage, PageTable, pages_for},
    prefix::{Match, Partial, Root, common_prefix},
    sequence::Sequence,
};

/// Pages evicted at a time when a running sequence needs one.
const EVICTION: usize = 8;

/// Whether tokens can start now.
enum Placement {
    /// With these pages, which hold so many of the tokens already.
    Room(PageTable, usize),
    /// There are too few pages.
    Full,
    /// A running sequence is computing a prefix of theirs.
    Soon,
}

/// Tokens that look for pages.
struct Wish<'a> {
    request: RequestId,
    root: Root,
    tokens: &'a [u32],
    reusable: usize,
}

impl<E: Executor> Core<E> {
    pub(super) fn plan(&mut self) {
        let everybody_stayed = self.grow();
        let mut budget = self.share_rows();
        if everybody_stayed {
            budget = self.admit(budget);
        }
        self.top_up(budget);
    }

    /// Gives running sequences the pages their next rows need, the oldest first. False if one had to be paused.
    fn grow(&mut self) -> bool {
        let before = self.running.len();
        let mut at = 0;
        while let Some(sequence) = self.running.get(at) {
            if sequence.table.capacity() >= sequence.tokens.len() {
                at += 1;
            } else if let Some(page) = self.take_page(at) {
                self.running[at].table.push(page);
            }
        }
        self.running.len() == before
    }

    /// A page for the running sequence `at`, if need be at the cost of the youngest; none if that is itself.
    fn take_page(&mut self, at: usize) -> Option<OwnPage> {
        loop {
            if let Some(page) = self.pool.take() {
                return Some(page);
            }
            if self.cache.evict(EVICTION) == 0 {
                let youngest = self.running.pop()?;
                let paused = self.keep(youngest);
                self.pause(paused);
                if at == self.running.len() {
                    return None;
                }
            }
        }
    }

    fn pause(&mut self, sequence: Sequence) {
        let at = self.paused.partition_point(|other| other.age < sequence.age);
        self.paused.insert(at, sequence);
    }

    /// Shares out the rows among running sequences. Returns how many are left for new ones.
    fn share_rows(&mut self) -> usize {
        let waited_for = self.running.iter().any(Sequence::is_decoding);
        let mut budget = if waited_for { self.config.mixed_rows } else { self.config.prefill_rows };
        let somebody_waits = self.queue.len() + self.paused.len() > 0;
        let mut prefilling = Vec::new();
        for sequence in &mut self.running {
            sequence.produced = false;
            sequence.rows = 0;
            if sequence.is_decoding() {
                sequence.rows = sequence.pending().min(self.config.mixed_rows);
            } else {
                prefilling.push(sequence);
            }
        }
        // The oldest prompt gets half whatever else comes, so it ends; of the others the shortest goes first.
        let contended = somebody_waits || prefilling.len() > 1;
        let others = if contended { budget / 2 } else { 0 };
        if let Some((oldest, rest)) = prefilling.split_first_mut() {
            budget -= oldest.take_rows(budget - others);
            rest.sort_by_key(|sequence| sequence.pending());
            rest.iter_mut().for_each(|sequence| budget -= sequence.take_rows(budget));
        }
        budget
    }

    /// Admits while there are rows, places and pages: first what was admitted before, then whose turn it is. Returns how
    /// many rows nobody took.
    fn admit(&mut self, mut budget: usize) -> usize {
        while budget > 0 && self.running.len() < self.config.max_sequences {
            let Some(mut sequence) = self.next_sequence() else { break };
            budget -= sequence.take_rows(budget);
            let at = self.running.partition_point(|other| other.age < sequence.age);
            self.running.insert(at, sequence);
        }
        budget
    }

    /// Gives rows that nobody else took to prompts, the oldest first.
    fn top_up(&mut self, mut budget: usize) {
        for sequence in self.running.iter_mut().filter(|sequence| !sequence.is_decoding()) {
            budget -= sequence.take_rows(budget);
        }
    }

    /// The next sequence, with its pages.
    fn next_sequence(&mut self) -> Option<Sequence> {
        match self.paused.iter().position(|sequence| self.may_start(sequence)) {
            Some(at) => self.resume(at),
            None => self.admit_request(),
        }
    }

    /// Followers wait until their prompt was computed once.
    fn may_start(&self, sequence: &Sequence) -> bool {
        !sequence.follows || self.requests.get(&sequence.request).is_some_and(|request| request.prompt_ready)
    }

    fn resume(&mut self, at: usize) -> Option<Sequence> {
        let mut sequence = self.paused.remove(at);
        match self.place(&Wish::of(&sequence)) {
            Placement::Room(table, computed) => {
                (sequence.table, sequence.computed) = (table, computed);
                self.open(&mut sequence);
                Some(sequence)
            }
            Placement::Full | Placement::Soon => {
                self.paused.insert(at, sequence);
                None
            }
        }
    }

    fn admit_request(&mut self) -> Option<Sequence> {
        let (id, job) = self.queue.pop()?;
        let wish =
            Wish { request: id, root: root(job.adaptation.as_ref()), tokens: &job.prompt, reusable: job.reusable() };
        let Placement::Room(table, computed) = self.place(&wish) else {
            let tenant = job.tenant.clone();
            self.queue.put_back(&tenant, (id, job));
            return None;
        };
        self.start(id, job, table, computed).or_else(|| self.admit_request())
    }

    /// Makes the sequences of a request; the first one starts at once, further choices follow it.
    fn start(&mut self, id: RequestId, job: Job, table: PageTable, computed: usize) -> Option<Sequence> {
        self.note_admission(id, computed, self.clock.now(), job.prompt.len() - computed);
        let started = Event::Started { prompt_tokens: job.prompt.len(), cached_tokens: computed };
        let first_age = self.admissions;
        self.admissions += job.choices() as u64;
        let sequences = match job.into_sequences(id, self.executor.pooling(), &self.tokenizer) {
            Ok(sequences) => sequences,
            Err(error) => {
                self.failures.push((id, error));
                return None;
            }
        };
        let has_exits = self.executor.has_exits();
        let mut sequences = sequences.into_iter().zip(first_age..).map(|(sequence, age)| {
            let leaves = has_exits && sequence.is_free();
            Sequence { age, leaves, ..sequence }
        });
        let mut first = sequences.next()?;
        self.paused.extend(sequences);
        (first.table, first.computed) = (table, computed);
        if first.makes_answer() {
            self.events.push(started);
        }
        self.open(&mut first);
        Some(first)
    }

    /// Sends what a sequence sends before anything is computed for it.
    fn open(&mut self, sequence: &mut Sequence) {
        let opened = sequence.open(&self.tokenizer, &mut self.events);
        self.send(sequence.request);
        if let Err(error) = opened {
            self.failures.push((sequence.request, error));
        }
    }

    /// Books a request as admitted, with `rows` tokens of its prompt to compute.
    pub(super) fn note_admission(&mut self, id: RequestId, cached: usize, now: Duration, rows: usize) {
        let Some(request) = self.requests.get_mut(&id) else { return };
        request.admitted = true;
        request.usage.cached_tokens = cached;
        self.meters.queue.record(seconds(now.saturating_sub(request.submitted)));
        // Charged now, so that the next turn already knows about it.
        self.queue.charge(&request.tenant, rows);
    }

    /// Looks for pages.
    fn place(&mut self, wish: &Wish<'_>) -> Placement {
        let mut found = self.known_prefix(wish);
        if self.config.prefix_cache && self.prefix_in_flight(wish) > found.tokens() + PAGE_TOKENS {
            return Placement::Soon;
        }
        if !self.has_room(wish, &found) {
            // A partly matching page is pinned while it is copied: it may be the very one that is missing.
            found.partial = None;
            if !self.has_room(wish, &found) {
                return Placement::Full;
            }
        }
        self.build(wish, found)
    }

    /// The longest prefix that the cache or a running sequence holds. Without prefix cache only choices of one request
    /// share.
    fn known_prefix(&mut self, wish: &Wish<'_>) -> Match {
        let found =
            if self.config.prefix_cache { self.cache.find(wish.root, wish.reusable()) } else { Match::default() };
        self.prefix_of_running(wish, found.tokens()).unwrap_or(found)
    }

    /// A running sequence that holds more than `known` tokens of the prefix.
    fn prefix_of_running(&mut self, wish: &Wish<'_>, known: usize) -> Option<Match> {
        let (tokens, prefix_cache) = (wish.reusable(), self.config.prefix_cache);
        let may_share =
            |other: &&mut Sequence| other.root() == wish.root && (prefix_cache || other.request == wish.request);
        let holds = |other: &Sequence| common_prefix(other.shareable(), tokens);
        let candidates = self.running.iter_mut().filter(may_share).map(|other| (holds(other), other));
        let (common, other) = candidates.max_by_key(|(common, _)| *common).filter(|(common, _)| *common > known)?;
        let whole = common / PAGE_TOKENS;
        let full = other.table.freeze(common)[..whole].to_vec();
        let rest = common % PAGE_TOKENS;
        // No pin is needed: the other one runs until the copy is made.
        let partial = (rest > 0).then(|| Partial { page: other.table.ids()[whole], tokens: rest, _pin: None });
        Some(Match { full, partial })
    }

    /// Tokens of the longest prefix, in whole pages, that is being computed right now.
    fn prefix_in_flight(&self, wish: &Wish<'_>) -> usize {
        let prefilling = self.running.iter().filter(|other| !other.is_decoding() && other.root() == wish.root);
        let common = prefilling.map(|other| common_prefix(&other.tokens[..other.prompt_len], wish.reusable()));
        common.max().unwrap_or(0) / PAGE_TOKENS * PAGE_TOKENS
    }

    /// All its tokens fit, and every running sequence could grow by a page.
    fn has_room(&self, wish: &Wish<'_>, found: &Match) -> bool {
        let wanted = pages_for(wish.tokens.len()) - found.full.len();
        self.pool.free() + self.cache.evictable() >= wanted + self.running.len()
    }

    fn build(&mut self, wish: &Wish<'_>, found: Match) -> Placement {
        let wanted = pages_for(wish.tokens.len()) - found.full.len();
        self.cache.evict(wanted.saturating_sub(self.pool.free()));
        let tokens = found.tokens();
        let mut table = PageTable::with_prefix(found.full);
        let mut copy = found.partial;
        for _ in 0..wanted {
            let Some(page) = self.pool.take() else { return Placement::Full };
            if let Some(partial) = copy.take() {
                self.executor.copy_page(partial.page, page.id(), partial.tokens);
            }
            table.push(page);
        }
        Placement::Room(table, tokens)
    }
}

impl<'a> Wish<'a> {
    fn of(sequence: &'a Sequence) -> Self {
        let Sequence { request, tokens, .. } = sequence;
        Self { request: *request, root: sequence.root(), tokens, reusable: sequence.reusable_now() }
    }

    /// The tokens that need not be computed if somebody has them.
    fn reusable(&self) -> &'a [u32] {
        &self.tokens[..self.reusable.min(self.tokens.len() - 1)]
    }
}
