//! The service: [`Decide`] over decisions and text models in this process.

use std::sync::Arc;

use futures_util::future::{BoxFuture, FutureExt, ready};
use protocol::{Decide, DecideRequest, DecisionCard, Error, Generate, SolveRequest, StepStream};

use crate::{clock, decide::Decider, library::Library, models::Models, solve};

/// Decides by rules and solves by checked chains.
#[derive(Debug)]
pub struct Reason {
    library: Arc<Library>,
    models: Models,
}

impl Reason {
    /// Over these text services, the first model of the first one being the default, with the decisions inside this binary. Without
    /// a service texts are read by cues alone, and nothing is solved.
    pub fn new(models: Vec<Arc<dyn Generate>>) -> Self {
        Self { library: Arc::new(Library::shipped()), models: Models::new(models) }
    }

    /// The same with other decisions.
    #[must_use]
    pub fn with_library(self, library: impl Into<Arc<Library>>) -> Self {
        Self { library: library.into(), ..self }
    }
}

impl Decide for Reason {
    fn decisions(&self) -> Vec<DecisionCard> {
        self.library.current().cards()
    }

    fn decide(&self, request: DecideRequest) -> BoxFuture<'_, Result<StepStream, Error>> {
        let decider = Decider::new(&self.library, &self.models, clock::today(), request);
        ready(decider.map(Decider::stream)).boxed()
    }

    fn solve(&self, request: SolveRequest) -> BoxFuture<'_, Result<StepStream, Error>> {
        solve::solve(&self.models, request).boxed()
    }
}
