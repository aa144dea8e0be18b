//! `POST /v1/chat/completions` and `POST /v1/completions`.

use axum::response::Response;
use protocol::openai::{chat, completion};

use crate::{ask::Ask, refusal::Refusal};

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
