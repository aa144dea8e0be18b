//! The service: [`Decide`] over decisions and text models in this process.

use std::sync::Arc;

use futures_util::future::{BoxFuture, FutureExt, ready};
use protocol::{Decide, DecideRequest, DecisionCard, Error, ErrorKind, Generate, SolveRequest, StepStream};

use crate::{models::Models, solve};

/// Decides by rules and solves by checked chains.
#[derive(Debug)]
pub struct Reason {
    models: Models,
}

impl Reason {
    /// Over these text services; the first model of the first one is the default.
    pub fn new(models: Vec<Arc<dyn Generate>>) -> Self {
        Self { models: Models::new(models) }
    }
}

impl Decide for Reason {
    fn decisions(&self) -> Vec<DecisionCard> {
        Vec::new()
    }

    fn decide(&self, request: DecideRequest) -> BoxFuture<'_, Result<StepStream, Error>> {
        let message = format!("There is no decision `{}` here.", request.decision);
        ready(Err(Error::new(ErrorKind::NotFound, message).with_param("decision"))).boxed()
    }

    fn solve(&self, request: SolveRequest) -> BoxFuture<'_, Result<StepStream, Error>> {
        solve::solve(&self.models, request).boxed()
    }
}
