//! Who asks. One layer in front of every route finds out and leaves a [`Caller`] among the request's extensions.

use std::sync::Arc;

use axum::{extract::Request, middleware::Next, response::Response};

use crate::Caller;

/// Names the caller.
pub(crate) async fn identify(mut request: Request, next: Next) -> Response {
    request.extensions_mut().insert(Arc::new(Caller::open()));
    next.run(request).await
}
