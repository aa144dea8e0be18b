//! Who is next: tenants with waiting work take turns, counted in tokens.
//!
//! Every tenant has a count of tokens served; the next request comes from the waiting tenant with the smallest count
//! (virtual token counters, Sheng et al. 2024). A tenant that was away starts level with the least served active one, so
//! idleness earns no credit and a burst of one tenant delays another by one request at most. Within a tenant the order is
//! that of arrival.

use std::collections::{BTreeMap, VecDeque};

/// Waiting work by tenant.
#[derive(Debug)]
pub(crate) struct FairQueue<T> {
    tenants: BTreeMap<String, Tenant<T>>,
    len: usize,
    arrivals: u64,
}

#[derive(Debug)]
struct Tenant<T> {
    waiting: VecDeque<(u64, T)>,
    served: u64,
    /// Requests taken out and not yet ended.
    running: usize,
}

impl<T> Tenant<T> {
    fn is_active(&self) -> bool {
        self.running > 0 || !self.waiting.is_empty()
    }

    /// Sort key among waiting tenants: least served, then longest waiting.
    fn turn(&self) -> Option<(u64, u64)> {
        self.waiting.front().map(|(arrival, _)| (self.served, *arrival))
    }
}

impl<T> FairQueue<T> {
    pub(crate) fn new() -> Self {
        Self { tenants: BTreeMap::new(), len: 0, arrivals: 0 }
    }

    /// Waiting items.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn push(&mut self, tenant: &str, item: T) {
        let floor = self.least_served();
        let entry = self.tenants.entry(tenant.to_owned());
        let tenant = entry.or_insert_with(|| Tenant { waiting: VecDeque::new(), served: 0, running: 0 });
        if !tenant.is_active() {
            tenant.served = tenant.served.max(floor);
        }
        tenant.waiting.push_back((self.arrivals, item));
        self.arrivals += 1;
        self.len += 1;
    }

    /// The item whose turn it is.
    pub(crate) fn front(&self) -> Option<&T> {
        let tenant = self.next_tenant()?;
        self.tenants.get(tenant)?.waiting.front().map(|(_, item)| item)
    }

    /// Takes that item out; its tenant has one more running until [`FairQueue::ended`].
    pub(crate) fn pop(&mut self) -> Option<T> {
        let name = self.next_tenant()?.to_owned();
        let tenant = self.tenants.get_mut(&name)?;
        let (_, item) = tenant.waiting.pop_front()?;
        tenant.running += 1;
        self.len -= 1;
        Some(item)
    }

    /// Takes a popped item back: it could not start, and its turn remains.
    pub(crate) fn put_back(&mut self, tenant: &str, item: T) {
        if let Some(tenant) = self.tenants.get_mut(tenant) {
            tenant.waiting.push_front((0, item));
            tenant.running = tenant.running.saturating_sub(1);
            self.len += 1;
        }
    }

    /// Counts tokens served.
    pub(crate) fn charge(&mut self, tenant: &str, tokens: usize) {
        if let Some(tenant) = self.tenants.get_mut(tenant) {
            tenant.served += tokens as u64;
        }
    }

    /// A running item of this tenant has ended.
    pub(crate) fn ended(&mut self, tenant: &str) {
        if let Some(tenant) = self.tenants.get_mut(tenant) {
            tenant.running = tenant.running.saturating_sub(1);
        }
        self.forget_idle();
    }

    /// Takes out all waiting items that match.
    pub(crate) fn remove_where(&mut self, mut matches: impl FnMut(&T) -> bool) -> Vec<T> {
        let mut removed = Vec::new();
        for tenant in self.tenants.values_mut() {
            for (arrival, item) in std::mem::take(&mut tenant.waiting) {
                if matches(&item) {
                    removed.push(item);
                } else {
                    tenant.waiting.push_back((arrival, item));
                }
            }
        }
        self.len -= removed.len();
        if !removed.is_empty() {
            self.forget_idle();
        }
        removed
    }

    fn next_tenant(&self) -> Option<&str> {
        let waiting = self.tenants.iter().filter_map(|(name, tenant)| Some((tenant.turn()?, name)));
        waiting.min().map(|(_, name)| name.as_str())
    }

    fn least_served(&self) -> u64 {
        self.tenants.values().filter(|tenant| tenant.is_active()).map(|tenant| tenant.served).min().unwrap_or(0)
    }

    /// An idle tenant that is not ahead of the active ones would start level with them anyway.
    fn forget_idle(&mut self) {
        let floor = self.least_served();
        let any_active = self.tenants.values().any(Tenant::is_active);
        self.tenants.retain(|_, tenant| tenant.is_active() || (any_active && tenant.served > floor));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Serves everything, each item costing `cost` tokens; returns the order.
    fn drain(queue: &mut FairQueue<(&'static str, usize)>) -> Vec<&'static str> {
        std::iter::from_fn(|| {
            let (tenant, cost) = queue.pop()?;
            queue.charge(tenant, cost);
            queue.ended(tenant);
            Some(tenant)
        })
        .collect()
    }

    #[test]
    fn tenants_take_turns_by_tokens() {
        let mut queue = FairQueue::new();
        (0..4).for_each(|_| queue.push("a", ("a", 100)));
        (0..4).for_each(|_| queue.push("b", ("b", 50)));
        assert_eq!(drain(&mut queue), ["a", "b", "b", "a", "b", "b", "a", "a"]);
    }

    #[test]
    fn absence_earns_no_credit() {
        let mut queue = FairQueue::new();
        queue.push("busy", ("busy", 0));
        queue.pop();
        queue.charge("busy", 1000);
        (0..2).for_each(|_| queue.push("new", ("new", 10)));
        (0..2).for_each(|_| queue.push("busy", ("busy", 10)));
        assert_eq!(drain(&mut queue), ["new", "busy", "new", "busy"]);
    }

    #[test]
    fn idle_tenants_are_forgotten() {
        let mut queue = FairQueue::new();
        for name in ["a", "b", "c"] {
            queue.push(name, name);
        }
        assert_eq!(queue.remove_where(|name| *name != "b").len(), 2);
        assert_eq!((queue.len(), queue.tenants.len()), (1, 1));
        queue.pop();
        queue.ended("b");
        assert!(queue.tenants.is_empty());
    }
}
