//! A request for work as routes get it: who asks, under which name, the bytes of what; and the one path that every dialect of
//! text generation takes from its decoded call to its answer.

use std::sync::Arc;

use axum::{
    Json,
    extract::{FromRequest, Request},
    http::HeaderValue,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use guard::Provenance;
use ledger::Kind;
use protocol::{
    Error, Generate,
    openai::{Call, Collected, Envelope, Streamed},
};

use crate::{
    Caller,
    app::App,
    body,
    id::{ClientId, RequestId},
    journey::{Journey, Stage},
    record::{self, Record, Work},
    refusal::Refusal,
    sse,
    stream::Events,
};

/// A request for work.
#[derive(Debug)]
pub(crate) struct Ask {
    pub(crate) app: Arc<App>,
    pub(crate) id: RequestId,
    /// What the caller calls it.
    client_id: Option<ClientId>,
    pub(crate) caller: Arc<Caller>,
    pub(crate) journey: Journey,
    kind: Kind,
    pub(crate) body: Bytes,
}

impl FromRequest<Arc<App>> for Ask {
    type Rejection = Refusal;

    async fn from_request(mut request: Request, app: &Arc<App>) -> Result<Self, Refusal> {
        let kind = kind(request.uri().path());
        let extensions = request.extensions_mut();
        let client_id = extensions.remove::<ClientId>();
        let named = extensions.remove::<RequestId>().zip(extensions.remove::<Arc<Caller>>());
        let named = named.zip(extensions.get::<Journey>().cloned());
        let ((id, caller), journey) =
            named.ok_or_else(|| Error::internal("A request came past the layers that name it."))?;
        let body = body::read(request, app.gateway.config.max_body_bytes).await?;
        journey.lap(Stage::Accept);
        Ok(Self { app: app.clone(), id, client_id, caller, journey, kind, body })
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
        let model = call.model().to_owned();
        let response = if call.stream {
            let reply = pieces(&call);
            self.stream(service, self.prepared(call), reply).await?
        } else {
            let reply = whole(&call);
            self.collect(service, self.prepared(call), reply).await?
        };
        Ok(self.labelled(&model, response))
    }

    /// Where generated content comes from.
    pub(crate) fn provenance(&self, model: &str) -> Provenance {
        Provenance::new("tessera", model, &self.id.0)
    }

    /// The answer with a header that says for machines that it is generated, where the policy wants that.
    fn labelled(&self, model: &str, mut response: Response) -> Response {
        if self.app.services().guard.policy().labels.metadata {
            let provenance = serde_json::to_vec(&self.provenance(model)).unwrap_or_default();
            if let Ok(value) = HeaderValue::from_bytes(&provenance) {
                response.headers_mut().insert("x-aigc", value);
            }
        }
        response
    }

    /// The call with what the gateway adds to its requests: names, the tenant and the deadline.
    pub(crate) fn prepared(&self, mut call: Call) -> Call {
        let RequestId(id) = &self.id;
        let unit = self.caller.unit(record::end_user(&call.recorded));
        let several = call.requests.len() > 1;
        for (i, request) in call.requests.iter_mut().enumerate() {
            request.id = if several { format!("{id}-{i}") } else { id.clone() };
            request.unit.clone_from(&unit);
            request.deadline = self.app.gateway.config.deadline;
            // While nobody says who asks, the end user whom the request names keeps its place in the queue.
            if self.caller.is_known() {
                request.tenant.clone_from(&self.caller.tenant);
            }
        }
        call
    }

    /// Takes what limits and budgets allow, and writes the record that precedes the work.
    pub(crate) async fn begin(&self, mut work: Work) -> Result<Record, Error> {
        self.journey.lap(Stage::Route);
        if let (Some(ClientId(id)), Some(parameters)) = (&self.client_id, work.parameters.as_object_mut()) {
            parameters.insert("client_request_id".to_owned(), id.as_str().into());
        }
        Record::begin(&self.app, &self.caller, &self.journey, &self.id.0, work).await
    }

    async fn start(&self, service: &Arc<dyn Generate>, call: Call) -> Result<Events, Error> {
        let card = service.card(call.model());
        let assumed = self.app.gateway.settings.get().settings.limits.assumed_answer;
        let record = self.begin(Work::text(self.kind, &call, card, assumed)).await?;
        let at_once = self.app.gateway.config.prompts_at_once;
        Ok(Events::start(service, call.requests, at_once, record, self.app.drain.cut()))
    }

    /// The status is not sent before the first event: a request that is refused on admission gets its own status.
    async fn stream<S>(&self, service: &Arc<dyn Generate>, call: Call, reply: S) -> Result<Response, Refusal>
    where
        S: Streamed + 'static,
    {
        let mut events = self.start(service, call).await?;
        let first = events.next().await.ok_or_else(nothing)??;
        Ok(sse::response(reply, first, events, self.app.gateway.config.keep_alive))
    }

    /// The client hanging up drops this future, and with it the service's streams.
    async fn collect<C>(&self, service: &Arc<dyn Generate>, call: Call, mut reply: C) -> Result<Response, Refusal>
    where
        C: Collected,
    {
        let mut events = self.start(service, call).await?;
        while let Some(item) = events.next().await {
            let (prompt, event) = item?;
            reply.push(prompt, event);
        }
        Ok(self.timed(Json(reply.finish())))
    }

    /// A whole reply, with the time it took by stage.
    pub(crate) fn timed(&self, reply: impl IntoResponse) -> Response {
        let mut response = reply.into_response();
        if let Some(timing) = self.journey.timing() {
            response.headers_mut().insert("server-timing", timing);
        }
        response
    }
}

/// What a path asks for.
pub(crate) fn kind(path: &str) -> Kind {
    match path {
        "/v1/completions" => Kind::Completion,
        "/v1/embeddings" => Kind::Embedding,
        "/v1/messages" => Kind::Message,
        "/v1/responses" => Kind::Response,
        "/v1/images/generations" => Kind::Image,
        "/v1/moderations" => Kind::Moderation,
        "/v1/reasoning/decisions" => Kind::Decision,
        "/v1/reasoning/solve" => Kind::Solution,
        _ => Kind::Chat,
    }
}

fn nothing() -> Error {
    Error::internal("The call held no request.")
}
