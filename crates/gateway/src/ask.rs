//! A request for work as routes get it: who asks, under which name, the bytes of what; and the one path that every dialect of
//! text generation takes from its decoded call to its answer.

use std::sync::Arc;

use axum::{
    Json,
    extract::{FromRequest, Request},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use protocol::{
    Error, Generate,
    openai::{Call, Collected, Envelope, Streamed},
};

use crate::{Caller, app::App, body, id::RequestId, refusal::Refusal, sse, stream::Events};

/// A request for work.
#[derive(Debug)]
pub(crate) struct Ask {
    pub(crate) app: Arc<App>,
    pub(crate) id: RequestId,
    pub(crate) caller: Arc<Caller>,
    pub(crate) body: Bytes,
}

impl FromRequest<Arc<App>> for Ask {
    type Rejection = Refusal;

    async fn from_request(mut request: Request, app: &Arc<App>) -> Result<Self, Refusal> {
        let extensions = request.extensions_mut();
        let named = extensions.remove::<RequestId>().zip(extensions.remove::<Arc<Caller>>());
        let (id, caller) = named.ok_or_else(|| Error::internal("A request came past the layers that name it."))?;
        let body = body::read(request, app.gateway.config.max_body_bytes).await?;
        Ok(Self { app: app.clone(), id, caller, body })
    }
}

impl Ask {
    /// The service that chats with this model, if the caller may use it.
    pub(crate) fn chat(&self, model: &str) -> Result<Arc<dyn Generate>, Error> {
        self.caller.may_use(model)?;
        self.app.chat(model)
    }

    /// The service that continues raw text with this model, if the caller may use it.
    pub(crate) fn completions(&self, model: &str) -> Result<Arc<dyn Generate>, Error> {
        self.caller.may_use(model)?;
        self.app.completions(model)
    }

    /// The frame of the reply; `prefix` is how ids of its kind begin.
    pub(crate) fn envelope(&self, prefix: &str, model: &str) -> Envelope {
        App::envelope(prefix, &self.id.0, model)
    }

    /// Calls the service and delivers what it says, in pieces or whole as the call wants it.
    pub(crate) async fn deliver<S, C>(
        &self,
        service: &Arc<dyn Generate>,
        call: Call,
        pieces: impl FnOnce(&Call) -> S,
        whole: impl FnOnce(&Call) -> C,
    ) -> Result<Response, Refusal>
    where
        S: Streamed + 'static,
        C: Collected,
    {
        if call.stream {
            let reply = pieces(&call);
            return self.stream(service, self.prepared(call), reply).await;
        }
        let reply = whole(&call);
        self.collect(service, self.prepared(call), reply).await
    }

    /// The call with what the gateway adds to its requests: names, the tenant and the deadline.
    pub(crate) fn prepared(&self, mut call: Call) -> Call {
        let RequestId(id) = &self.id;
        if !call.recorded.is_empty() {
            let recorded = serde_json::Value::Object(call.recorded.clone());
            tracing::debug!(%id, %recorded, "advisory fields");
        }
        let several = call.requests.len() > 1;
        for (i, request) in call.requests.iter_mut().enumerate() {
            request.id = if several { format!("{id}-{i}") } else { id.clone() };
            request.deadline = self.app.gateway.config.deadline;
            // While nobody says who asks, the end user whom the request names keeps its place in the queue.
            if self.caller.is_known() {
                request.tenant.clone_from(&self.caller.tenant);
            }
        }
        call
    }

    fn start(&self, service: &Arc<dyn Generate>, call: Call) -> Events {
        Events::start(service, call.requests, self.app.gateway.config.prompts_at_once, self.app.drain.cut())
    }

    /// The status is not sent before the first event: a request that is refused on admission gets its own status.
    async fn stream<S>(&self, service: &Arc<dyn Generate>, call: Call, reply: S) -> Result<Response, Refusal>
    where
        S: Streamed + 'static,
    {
        let mut events = self.start(service, call);
        let first = events.next().await.ok_or_else(nothing)??;
        Ok(sse::response(reply, first, events, self.app.gateway.config.keep_alive))
    }

    /// The client hanging up drops this future, and with it the service's streams.
    async fn collect<C>(&self, service: &Arc<dyn Generate>, call: Call, mut reply: C) -> Result<Response, Refusal>
    where
        C: Collected,
    {
        let mut events = self.start(service, call);
        while let Some(item) = events.next().await {
            let (prompt, event) = item?;
            reply.push(prompt, event);
        }
        Ok(Json(reply.finish()).into_response())
    }
}

fn nothing() -> Error {
    Error::internal("The call held no request.")
}
