//! Adapters of a running engine: added and taken away while requests run, chosen by the name behind the model's, `smollm2:credit`.
//!
//! One that was added never changes: the same name with another file is a new generation, and requests in flight keep the one they began with. Keys and
//! values depend on it, so every generation has a prefix cache of its own (`root`).

use std::{collections::BTreeMap, sync::Arc};

use model::{Adapter, Domain};
use parking_lot::RwLock;

use crate::prefix::{BASE, Root};

/// One generation of an adapter.
#[derive(Debug)]
pub struct Adaptation {
    /// Behind the model's name and a colon, it is what requests call.
    pub name: String,
    /// What identifies its file.
    pub digest: String,
    pub(crate) adapter: Adapter,
    /// Where its domain lies, if its file says so.
    pub(crate) domain: Option<Domain>,
    pub(crate) root: Root,
}

/// Whose keys and values a sequence has.
pub(crate) fn root(adaptation: Option<&Arc<Adaptation>>) -> Root {
    adaptation.map_or(BASE, |adaptation| adaptation.root)
}

/// All that can be asked for now.
#[derive(Debug, Default)]
pub(crate) struct Adapters(RwLock<Known>);

#[derive(Debug, Default)]
struct Known {
    by_name: BTreeMap<String, Arc<Adaptation>>,
    generations: Root,
}

impl Adapters {
    /// Takes the place of one with the same name.
    pub(crate) fn add(&self, name: &str, digest: String, (adapter, domain): (Adapter, Option<Domain>)) {
        let mut known = self.0.write();
        known.generations += 1;
        let root = BASE + known.generations;
        let adaptation = Adaptation { name: name.to_owned(), digest, adapter, domain, root };
        known.by_name.insert(name.to_owned(), Arc::new(adaptation));
    }

    pub(crate) fn remove(&self, name: &str) {
        self.0.write().by_name.remove(name);
    }

    pub(crate) fn find(&self, name: &str) -> Option<Arc<Adaptation>> {
        self.0.read().by_name.get(name).cloned()
    }

    /// Whether prompts can choose among them.
    pub(crate) fn any_domain(&self) -> bool {
        self.0.read().by_name.values().any(|adaptation| adaptation.domain.is_some())
    }

    pub(crate) fn all(&self) -> Vec<Arc<Adaptation>> {
        self.0.read().by_name.values().cloned().collect()
    }
}
