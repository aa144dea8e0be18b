//! `POST /v1/embeddings`.

use std::sync::Arc;

use axum::{
    Extension, Json,
    extract::{Request, State},
};
use futures_util::future::{Either, select};
use protocol::{
    Error,
    openai::embedding::{self, EmbeddingList},
};

use crate::{Caller, app::App, body, refusal::Refusal};

/// Vectors for the inputs.
pub(crate) async fn embeddings(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Arc<Caller>>,
    request: Request,
) -> Result<Json<EmbeddingList>, Refusal> {
    let call = embedding::parse(&body::read(request, app.gateway.config.max_body_bytes).await?)?;
    caller.may_use(&call.request.model)?;
    let service = app.embeddings(&call.request.model)?;
    let (model, n) = (call.request.model.clone(), call.request.inputs.len());
    let cut = Box::pin(app.drain.cut());
    let embeddings = match select(service.embed(call.request), cut).await {
        Either::Left((embeddings, _)) => embeddings?,
        Either::Right((error, _)) => return Err(error.into()),
    };
    if embeddings.vectors.len() != n {
        let message = format!("The service made {} vectors of {n} inputs.", embeddings.vectors.len());
        return Err(Error::internal(message).into());
    }
    Ok(Json(EmbeddingList::new(model, embeddings, call.encoding)))
}
