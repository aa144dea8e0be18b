//! `POST /v1/embeddings`.

use axum::{Json, response::Response, routing::post};
use futures_util::future::{Either, select};
use protocol::{
    Embed, EmbedRequest, Embeddings, Error, TextOrTokens, Usage,
    openai::embedding::{self, EmbeddingList, EmbeddingRequest},
};
use serde_json::json;
use services::judge_tokens;

use crate::{
    api::Route,
    ask::Ask,
    record::{Record, Work, end_user},
    refusal::Refusal,
};

pub(crate) fn routes() -> Vec<Route> {
    vec![
        Route::post::<EmbeddingRequest>("/v1/embeddings", post(embeddings))
            .about("embeddings", "Vectors of texts")
            .gives::<EmbeddingList>(),
    ]
}

/// Vectors for the inputs.
pub(crate) async fn embeddings(ask: Ask) -> Result<Response, Refusal> {
    let call = embedding::parse(&ask.body)?;
    let (model, encoding) = (call.request.model.clone(), call.encoding);
    ask.caller.may_use(&model)?;
    let service = ask.app.embeddings(&model)?;
    let card = service.models().into_iter().find(|card| card.id == model);
    let mut record = ask.begin(Work::embedding(&call.request, end_user(&call.recorded), card)).await?;
    let embeddings = match vectors(&ask, service.as_ref(), &mut record, call.request).await {
        Ok(embeddings) => embeddings,
        Err(error) => return Err(record.fail(error).await.into()),
    };
    embeddings.hops.iter().for_each(|hop| record.went(hop));
    let dimensions = embeddings.vectors.first().map_or(0, Vec::len);
    let usage = Usage { prompt_tokens: embeddings.prompt_tokens, ..Usage::default() };
    // Vectors say nothing to an auditor, and can be made again.
    record.deliver(json!({ "vectors": embeddings.vectors.len(), "dimensions": dimensions }), Vec::new(), usage).await?;
    Ok(ask.timed(Json(EmbeddingList::new(model, embeddings, encoding))))
}

async fn vectors(
    ask: &Ask,
    service: &dyn Embed,
    record: &mut Record,
    mut request: EmbedRequest,
) -> Result<Embeddings, Error> {
    for (i, input) in request.inputs.iter_mut().enumerate() {
        match input {
            TextOrTokens::Text(text) => record.judge(&format!("input[{i}]"), text)?,
            TextOrTokens::Tokens(_) => judge_tokens(&ask.app.services().guard, "input")?,
        }
    }
    let n = request.inputs.len();
    let cut = Box::pin(ask.app.drain.cut());
    let embeddings = match select(service.embed(request), cut).await {
        Either::Left((embeddings, _)) => embeddings?,
        Either::Right((error, _)) => return Err(error),
    };
    if embeddings.vectors.len() != n {
        let message = format!("The service made {} vectors of {n} inputs.", embeddings.vectors.len());
        return Err(Error::internal(message));
    }
    Ok(embeddings)
}
