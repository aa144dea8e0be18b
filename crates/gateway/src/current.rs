//! What is on offer, replaced as a whole while requests run: a request goes on with what it began with, the next one takes what is
//! in force then.

use std::sync::Arc;

use arc_swap::ArcSwap;
use guard::Guard;
use protocol::{Decide, Draw, Embed, Generate};

/// Services on offer together.
#[derive(Debug, Clone, Default)]
pub struct Services {
    /// Text services, asked in order for the model a request names.
    pub generate: Vec<Arc<dyn Generate>>,
    /// Embedding services, asked in order for the model a request names.
    pub embed: Vec<Arc<dyn Embed>>,
    /// Image services, asked in order for the model a request names.
    pub draw: Vec<Arc<dyn Draw>>,
    /// Reasoning services, asked in order for the decision a request names.
    pub decide: Vec<Arc<dyn Decide>>,
    /// What judges texts that no decorator of a service judges: at `/v1/moderations`, and before decisions, images and vectors.
    pub guard: Guard,
}

/// The services in force.
#[derive(Debug, Default)]
pub struct Current(ArcSwap<Services>);

impl Current {
    /// These are in force.
    pub fn new(services: Services) -> Arc<Self> {
        Arc::new(Self(ArcSwap::from_pointee(services)))
    }

    /// What is in force now.
    pub fn get(&self) -> Arc<Services> {
        self.0.load_full()
    }

    /// From now on these are.
    pub fn replace(&self, services: Services) {
        self.0.store(Arc::new(services));
    }
}
