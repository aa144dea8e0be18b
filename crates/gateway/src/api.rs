//! The routes of the API as data: one table of which both the router and the OpenAPI document are made, so that neither can have
//! what the other has not.
//!
//! A module that serves routes hands out rows (`pub(crate) fn routes() -> Vec<Route>`), and [`routes`] puts them together. Schemas
//! come from the wire types, completed by the field tables of `protocol`. The pages of the console are for people and stand
//! apart.

use std::sync::{Arc, LazyLock};

use axum::{
    http::header,
    response::IntoResponse,
    routing::{MethodRouter, get},
};
use protocol::{anthropic, openai::ErrorBody};
use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use crate::{
    app::App, audit, draw, embed, experiments, feedback, health, measure, messages, moderation, reasoning, rollouts,
    text,
};

type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// Every route of the API.
pub(crate) fn routes() -> Vec<Route> {
    [
        text::routes(),
        messages::routes(),
        embed::routes(),
        moderation::routes(),
        draw::routes(),
        reasoning::routes(),
        feedback::routes(),
        audit::routes(),
        rollouts::routes(),
        experiments::routes(),
        health::routes(),
        measure::routes(),
        own(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn own() -> Vec<Route> {
    vec![Route::get("/openapi.json", get(page)).about("server", "This document").gives::<Value>()]
}

/// A route: where it is, who answers, and what the document says about it.
#[derive(Debug)]
pub(crate) struct Route {
    method: &'static str,
    /// As the router writes it: `{*id}` is a parameter that may contain slashes.
    pub(crate) path: &'static str,
    pub(crate) handler: MethodRouter<Arc<App>>,
    /// It counts for the drain, and is refused while stopping.
    pub(crate) work: bool,
    tag: &'static str,
    summary: &'static str,
    body: Option<SchemaOf>,
    /// Nothing may stand in the place of the body.
    bare: bool,
    /// An object whose fields are the parameters behind the `?`.
    query: Option<SchemaOf>,
    answer: Answer,
    /// Answers a stream of events as well.
    streams: bool,
    /// Statuses beside 200, each with what is sent under it.
    others: Vec<(u16, SchemaOf)>,
    /// What failures look like.
    failure: SchemaOf,
}

#[derive(Debug)]
enum Answer {
    Json(SchemaOf),
    Text(&'static str),
    Events,
}

/// Failures of the layers in front of every route.
const ALWAYS: [u16; 3] = [401, 403, 500];
/// Failures of reading a body.
const READING: [u16; 4] = [400, 408, 413, 415];
/// Failures of asking a service.
const WORKING: [u16; 5] = [404, 429, 502, 503, 504];

impl Route {
    /// A route to look at something.
    pub(crate) fn get(path: &'static str, handler: MethodRouter<Arc<App>>) -> Self {
        Self::new("get", path, handler)
    }

    /// A route that does work for a body of type `B`.
    pub(crate) fn post<B: JsonSchema>(path: &'static str, handler: MethodRouter<Arc<App>>) -> Self {
        let body: SchemaOf = |generator| generator.subschema_for::<B>();
        let route = Self { work: true, body: Some(body), ..Self::new("post", path, handler) };
        READING.into_iter().chain(WORKING).fold(route, Self::fails)
    }

    fn new(method: &'static str, path: &'static str, handler: MethodRouter<Arc<App>>) -> Self {
        let failure: SchemaOf = |generator| generator.subschema_for::<ErrorBody>();
        let answer = Answer::Text("text/plain");
        let (tag, summary, others) = ("", "", Vec::new());
        let (work, body, bare, query, streams) = (false, None, false, None, false);
        let route =
            Self { method, path, handler, work, tag, summary, body, bare, query, answer, streams, others, failure };
        ALWAYS.into_iter().fold(route, Self::fails)
    }

    /// Which chapter of the document it belongs to, and what it is in a few words.
    pub(crate) fn about(self, tag: &'static str, summary: &'static str) -> Self {
        Self { tag, summary, ..self }
    }

    /// It takes an empty body, too.
    pub(crate) fn or_nothing(self) -> Self {
        Self { bare: true, ..self }
    }

    /// What may stand behind the `?`: the fields of a `Q`; anything else is refused.
    pub(crate) fn asks<Q: JsonSchema>(self) -> Self {
        let query: SchemaOf = |generator| Q::json_schema(generator);
        Self { query: Some(query), ..self }.fails(400)
    }

    /// What it answers.
    pub(crate) fn gives<T: JsonSchema>(self) -> Self {
        Self { answer: Answer::Json(|generator| generator.subschema_for::<T>()), ..self }
    }

    /// It answers text of this media type.
    pub(crate) fn gives_text(self, media: &'static str) -> Self {
        Self { answer: Answer::Text(media), ..self }
    }

    /// It answers a stream of events.
    pub(crate) fn gives_events(self) -> Self {
        Self { answer: Answer::Events, ..self }
    }

    /// With `stream` it answers events.
    pub(crate) fn streams(self) -> Self {
        Self { streams: true, ..self }
    }

    /// It may fail so.
    pub(crate) fn fails(mut self, status: u16) -> Self {
        self.others.push((status, self.failure));
        self
    }

    /// Under this status it sends a `T`.
    pub(crate) fn also<T: JsonSchema>(mut self, status: u16) -> Self {
        self.others.push((status, |generator| generator.subschema_for::<T>()));
        self
    }

    /// Its failures have Anthropic's form.
    pub(crate) fn fails_as_messages(mut self) -> Self {
        let failure: SchemaOf = |generator| generator.subschema_for::<anthropic::ErrorBody>();
        self.others.iter_mut().for_each(|(_, schema)| *schema = failure);
        Self { failure, ..self }
    }

    /// It tells how the process is rather than doing what clients ask for: a process that is only a worker has it too.
    pub(crate) fn serves_probes(&self) -> bool {
        self.tag == "server"
    }

    /// The path as OpenAPI writes it, and its parameters.
    fn documented_path(&self) -> (String, Vec<&'static str>) {
        let parts = self.path.split('/');
        let name = |part: &'static str| Some(part.strip_prefix('{')?.strip_suffix('}')?.trim_start_matches('*'));
        (self.path.replace("{*", "{"), parts.filter_map(name).collect())
    }

    fn operation(&self, generator: &mut SchemaGenerator) -> Value {
        let id = format!("{}{}", self.method, self.path.replace(['/', '{', '}', '*', '.'], "_"));
        let mut operation = json!({"operationId": id, "summary": self.summary, "tags": [self.tag]});
        let parameters = self.parameters(generator);
        if !parameters.is_empty() {
            operation["parameters"] = parameters.into();
        }
        if let Some(body) = self.body {
            let content = json!({"application/json": {"schema": body(generator)}});
            operation["requestBody"] = json!({"required": !self.bare, "content": content});
        }
        operation["responses"] = self.responses(generator);
        operation
    }

    /// Parts of the path, then what may stand behind the `?`.
    fn parameters(&self, generator: &mut SchemaGenerator) -> Vec<Value> {
        let (_, names) = self.documented_path();
        let of_path =
            |name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string", "minLength": 1}});
        let query = self.query.map(|query| query(generator));
        let fields = query.as_ref().and_then(|schema| schema.get("properties")).and_then(Value::as_object);
        let of_query =
            |(name, schema): (&String, &Value)| json!({"name": name, "in": "query", "schema": stated(schema)});
        names.into_iter().map(of_path).chain(fields.into_iter().flatten().map(of_query)).collect()
    }

    fn responses(&self, generator: &mut SchemaGenerator) -> Value {
        let mut content = match &self.answer {
            Answer::Json(schema) => json!({"application/json": {"schema": schema(generator)}}),
            Answer::Text(media) => json!({ *media: {"schema": {"type": "string"}} }),
            Answer::Events => json!({"text/event-stream": {"schema": event()}}),
        };
        if self.streams {
            content["text/event-stream"] = json!({ "schema": event() });
        }
        let mut responses = Map::new();
        responses.insert("200".to_owned(), json!({"description": "It went well.", "content": content}));
        let mut others = self.others.clone();
        others.sort_by_key(|(status, _)| *status);
        for (status, schema) in others {
            let content = json!({"application/json": {"schema": schema(generator)}});
            responses.insert(status.to_string(), json!({"description": meaning(status), "content": content}));
        }
        responses.into()
    }
}

/// The schema of a field without its null: what is not asked for is left out.
fn stated(schema: &Value) -> Value {
    let mut schema = schema.clone();
    if let Some(fields) = schema.as_object_mut().filter(|fields| fields.get("default") == Some(&Value::Null)) {
        fields.remove("default");
    }
    if let Some(types) = schema.get_mut("type").and_then(Value::as_array_mut) {
        types.retain(|kind| kind != "null");
    }
    if let Some(kinds) = schema.get_mut("anyOf").and_then(Value::as_array_mut) {
        kinds.retain(|kind| kind["type"] != "null");
    }
    schema
}

/// What one event of a stream is; OpenAPI 3.1 has no word for the stream of them.
fn event() -> Value {
    json!({
        "type": "object",
        "description": "One event of the stream. Where the dialect has no names, `event` is left out; `data` is JSON, or `[DONE]`.",
        "properties": {"event": {"type": "string"}, "data": {"type": "string"}},
        "required": ["data"],
    })
}

/// When a status is sent.
fn meaning(status: u16) -> &'static str {
    match status {
        400 => "The request can never succeed as it stands; `param` names the field at fault.",
        401 => "Nobody said who asks, or the key is not known here.",
        403 => "This caller may not do this.",
        404 => "What the request names does not exist here.",
        408 => "Nothing of the body came for 30 seconds.",
        413 => "The body is over the limit.",
        415 => "The body is not `application/json`.",
        429 => "Too much work is waiting, or a limit or budget is used up; Retry-After says when to come back.",
        500 => "A fault of the server.",
        502 => "A service behind this server failed.",
        503 => "The server is stopping, or cannot work now.",
        504 => "The deadline passed before the work was done.",
        _ => "See the documentation.",
    }
}

/// The OpenAPI document of these routes.
fn document(routes: &[Route]) -> Value {
    let settings =
        SchemaSettings::draft2020_12().with(|settings| settings.definitions_path = "/components/schemas".into());
    let mut generator = settings.into_generator();
    let mut paths = Map::new();
    for route in routes {
        let item = paths.entry(route.documented_path().0).or_insert(json!({}));
        item[route.method] = route.operation(&mut generator);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Tessera",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Models, decisions and images behind one API. Every field of a request is honoured, recorded or refused \
                by name; docs/api.md says which.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{}, {"bearer": []}, {"key": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
            "schemas": generator.take_definitions(true),
        },
    })
}

/// The OpenAPI document of the API, as JSON text.
pub fn openapi() -> &'static str {
    static DOCUMENT: LazyLock<String> = LazyLock::new(|| format!("{:#}\n", document(&routes())));
    &DOCUMENT
}

/// `GET /openapi.json`.
async fn page() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], openapi())
}
