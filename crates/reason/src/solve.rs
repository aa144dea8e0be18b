//! A problem becomes an explicit chain of steps, each computed again.

use protocol::{Error, ErrorKind, SolveRequest, StepStream};

use crate::models::Models;

/// Solves with the model the request names.
pub(crate) async fn solve(models: &Models, request: SolveRequest) -> Result<StepStream, Error> {
    models.pick(&request.model)?;
    Err(Error::new(ErrorKind::Unsupported, "Solving is not part of this build."))
}
