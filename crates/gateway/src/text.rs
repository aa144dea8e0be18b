//! `POST /v1/chat/completions`, `POST /v1/completions` and `POST /v1/responses`: what OpenAI's dialects of text differ in.

use axum::{response::Response, routing::post};
use protocol::openai::{chat, completion, responses};

use crate::{api::Route, ask::Ask, refusal::Refusal};

pub(crate) fn routes() -> Vec<Route> {
    vec![
        Route::post::<chat::ChatRequest>("/v1/chat/completions", post(chat))
            .about("text", "Continue a conversation")
            .gives::<chat::ChatCompletion>()
            .streams(),
        Route::post::<completion::CompletionRequest>("/v1/completions", post(completions))
            .about("text", "Continue raw text")
            .gives::<completion::Completion>()
            .streams(),
        Route::post::<responses::ResponseRequest>("/v1/responses", post(responses))
            .about("text", "Continue a conversation of items")
            .gives::<responses::ResponseBody>()
            .streams(),
    ]
}

/// `POST /v1/chat/completions`.
pub(crate) async fn chat(ask: Ask) -> Result<Response, Refusal> {
    let call = chat::parse(&ask.body)?;
    let service = ask.chat(call.model())?;
    let envelope = ask.envelope("chatcmpl-", call.model());
    let pieces = |call: &_| chat::Stream::new(envelope.clone(), call);
    let whole = |call: &_| chat::Collector::new(envelope.clone(), call);
    ask.deliver(&service, call, pieces, whole).await
}

/// `POST /v1/completions`.
pub(crate) async fn completions(ask: Ask) -> Result<Response, Refusal> {
    let call = completion::parse(&ask.body)?;
    let service = ask.completions(call.model())?;
    let envelope = ask.envelope("cmpl-", call.model());
    let pieces = |call: &_| completion::Stream::new(envelope.clone(), call);
    let whole = |call: &_| completion::Collector::new(envelope.clone(), call);
    ask.deliver(&service, call, pieces, whole).await
}

/// `POST /v1/responses`.
pub(crate) async fn responses(ask: Ask) -> Result<Response, Refusal> {
    let responses::ResponseCall { call, settings } = responses::parse(&ask.body)?;
    let service = ask.chat(call.model())?;
    let envelope = ask.envelope("resp_", call.model());
    let pieces = |_: &_| responses::Stream::new(envelope.clone(), settings.clone());
    let whole = |_: &_| responses::Collector::new(envelope.clone(), settings.clone());
    ask.deliver(&service, call, pieces, whole).await
}
