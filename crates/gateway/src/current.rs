//! What is on offer, replaced as a whole while requests run: a request goes on with what it began with, the next one takes what is
//! in force then.

use std::sync::Arc;

use arc_swap::ArcSwap;
use guard::Guard;
use protocol::{Decide, Draw, Embed, Error, Generate, Hop, Reason};
use services::rollout::{Report, Rollout};

use crate::settings::Api;

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
    /// Rollouts among the text services: to be looked at, not to be asked.
    pub rollouts: Vec<Arc<Rollout>>,
    /// What judges texts that no decorator of a service judges: at `/v1/moderations`, and before decisions, images and vectors.
    pub guard: Guard,
    /// Who is behind those that are not in this process: to be looked at, not to be asked.
    pub peers: Vec<Peer>,
}

/// Somebody elsewhere.
#[derive(Debug, Clone)]
pub struct Peer {
    /// What it is called in the settings; a worker is called by its address.
    pub name: String,
    /// Its base URL.
    pub url: String,
    /// What it is.
    pub kind: PeerKind,
    /// What it offers, as it says itself.
    pub offers: Services,
}

/// What somebody elsewhere is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerKind {
    /// A server that speaks this API.
    Upstream(Api),
    /// Another Tessera that works for this one.
    Worker,
}

impl Services {
    /// Tells the rollouts on a request's way what became of it, each by the version that was assigned.
    pub(crate) fn report(&self, hops: &[Hop], report: impl Fn(&Hop) -> Report) {
        for hop in hops.iter().filter(|hop| hop.reason == Reason::Assigned) {
            if let Some(rollout) = self.rollouts.iter().find(|rollout| rollout.name() == hop.asked) {
                rollout.report(&hop.model, report(hop));
            }
        }
    }

    /// Of every service that answers: whether it can now.
    pub(crate) fn states(&self) -> Vec<Result<(), Error>> {
        let Self { generate, embed, draw, decide, .. } = self;
        (generate.iter().map(|service| service.ready()))
            .chain(embed.iter().map(|service| service.ready()))
            .chain(draw.iter().map(|service| service.ready()))
            .chain(decide.iter().map(|service| service.ready()))
            .collect()
    }
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

    /// From now on these are. Rollouts go on where those before them stood.
    pub fn replace(&self, services: Services) {
        let before = self.get();
        for rollout in &services.rollouts {
            before.rollouts.iter().for_each(|other| rollout.succeed(other));
        }
        self.0.store(Arc::new(services));
    }
}
