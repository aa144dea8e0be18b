//! `POST /v1/embeddings`.

use axum::{Json, routing::post};
use futures_util::future::{Either, select};
use protocol::{
    Error,
    openai::embedding::{self, EmbeddingList, EmbeddingRequest},
};

use crate::{api::Route, ask::Ask, refusal::Refusal};

pub(crate) fn routes() -> Vec<Route> {
    vec![
        Route::post::<EmbeddingRequest>("/v1/embeddings", post(embeddings))
            .about("embeddings", "Vectors of texts")
            .gives::<EmbeddingList>(),
    ]
}

/// Vectors for the inputs.
pub(crate) async fn embeddings(ask: Ask) -> Result<Json<EmbeddingList>, Refusal> {
    let call = embedding::parse(&ask.body)?;
    ask.caller.may_use(&call.request.model)?;
    let service = ask.app.embeddings(&call.request.model)?;
    let (model, n) = (call.request.model.clone(), call.request.inputs.len());
    let cut = Box::pin(ask.app.drain.cut());
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
