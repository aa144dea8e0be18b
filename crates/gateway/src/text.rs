//! `POST /v1/chat/completions` and `POST /v1/completions`: decode, call, and deliver whole or in pieces.

use std::sync::Arc;

use axum::{
    Extension, Json,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use protocol::{
    Error, Generate,
    openai::{Call, Collected, Streamed, chat, completion},
};

use crate::{Caller, app::App, body, id::RequestId, refusal::Refusal, sse, stream::Events};

/// `POST /v1/chat/completions`.
pub(crate) async fn chat(
    State(app): State<Arc<App>>,
    Extension(id): Extension<RequestId>,
    Extension(caller): Extension<Arc<Caller>>,
    request: Request,
) -> Result<Response, Refusal> {
    let call = chat::parse(&body::read(request, app.gateway.config.max_body_bytes).await?)?;
    caller.may_use(call.model())?;
    let service = app.chat(call.model())?;
    let envelope = App::envelope("chatcmpl", &id.0, call.model());
    if call.stream {
        let reply = chat::Stream::new(envelope, &call);
        return stream(&app, &service, prepared(&app, &id, &caller, call), reply).await;
    }
    let reply = chat::Collector::new(envelope, &call);
    collect(&app, &service, prepared(&app, &id, &caller, call), reply).await
}

/// `POST /v1/completions`.
pub(crate) async fn completions(
    State(app): State<Arc<App>>,
    Extension(id): Extension<RequestId>,
    Extension(caller): Extension<Arc<Caller>>,
    request: Request,
) -> Result<Response, Refusal> {
    let call = completion::parse(&body::read(request, app.gateway.config.max_body_bytes).await?)?;
    caller.may_use(call.model())?;
    let service = app.completions(call.model())?;
    let envelope = App::envelope("cmpl", &id.0, call.model());
    if call.stream {
        let reply = completion::Stream::new(envelope, &call);
        return stream(&app, &service, prepared(&app, &id, &caller, call), reply).await;
    }
    let reply = completion::Collector::new(envelope, &call);
    collect(&app, &service, prepared(&app, &id, &caller, call), reply).await
}

/// The call with what the gateway adds to its requests: names, the tenant and the deadline.
fn prepared(app: &App, RequestId(id): &RequestId, caller: &Caller, mut call: Call) -> Call {
    if !call.recorded.is_empty() {
        let recorded = serde_json::Value::Object(call.recorded.clone());
        tracing::debug!(%id, %recorded, "advisory fields");
    }
    let several = call.requests.len() > 1;
    for (i, request) in call.requests.iter_mut().enumerate() {
        request.id = if several { format!("{id}-{i}") } else { id.clone() };
        request.deadline = app.gateway.config.deadline;
        // While nobody says who asks, the end user whom the request names keeps its place in the queue.
        if caller.is_known() {
            request.tenant.clone_from(&caller.tenant);
        }
    }
    call
}

fn start(app: &App, service: &Arc<dyn Generate>, call: Call) -> Events {
    Events::start(service, call.requests, app.gateway.config.prompts_at_once, app.drain.cut())
}

/// The status is not sent before the first event: a request that is refused on admission gets its own status.
async fn stream<S>(app: &App, service: &Arc<dyn Generate>, call: Call, reply: S) -> Result<Response, Refusal>
where
    S: Streamed + 'static,
{
    let mut events = start(app, service, call);
    let first = events.next().await.ok_or_else(nothing)??;
    Ok(sse::response(reply, first, events, app.gateway.config.keep_alive))
}

/// The client hanging up drops this future, and with it the service's streams.
async fn collect<C>(app: &App, service: &Arc<dyn Generate>, call: Call, mut reply: C) -> Result<Response, Refusal>
where
    C: Collected,
{
    let mut events = start(app, service, call);
    while let Some(item) = events.next().await {
        let (prompt, event) = item?;
        reply.push(prompt, event);
    }
    Ok(Json(reply.finish()).into_response())
}

fn nothing() -> Error {
    Error::internal("The call held no request.")
}
