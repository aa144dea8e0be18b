//! Whether the server lives, whether it should get work, and what it serves.

use std::sync::Arc;

use axum::{
    Extension, Json,
    extract::{Path, State},
    http::StatusCode,
    response::IntoResponse,
    routing::get,
};
use protocol::{
    Error, ErrorKind,
    openai::models::{ModelBody, ModelList},
};
use schemars::JsonSchema;
use serde::Serialize;

use crate::{Caller, api::Route, app::App, refusal::Refusal};

pub(crate) fn routes() -> Vec<Route> {
    let at = |path| {
        let about = "Whether it takes work, and what is in the way";
        Route::get(path, get(ready)).about("server", about).gives::<Ready>().also::<Ready>(503)
    };
    vec![
        Route::get("/v1/models", get(models)).about("models", "The models and what they can do").gives::<ModelList>(),
        Route::get("/v1/models/{*id}", get(model)).about("models", "One model").gives::<ModelBody>().fails(404),
        at("/healthz"),
        at("/healthz/ready"),
        Route::get("/healthz/live", get(live)).about("server", "Whether the process answers").gives::<Live>(),
    ]
}

/// The process answers.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Live {
    /// Always `ok`.
    status: &'static str,
}

/// Whether the server takes work.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Ready {
    /// `ok`, or what is in the way.
    status: String,
    /// Every model's name.
    models: Vec<String>,
    /// What services cannot answer, and why; as long as another one can, the server takes work.
    troubles: Vec<String>,
}

/// `GET /healthz/live`: the process answers.
pub(crate) async fn live() -> Json<Live> {
    Json(Live { status: "ok" })
}

/// `GET /healthz` and `/healthz/ready`: it takes work: nothing in it is broken, and some service can answer.
pub(crate) async fn ready(State(app): State<Arc<App>>) -> impl IntoResponse {
    let models = app.models();
    let health = app.health();
    let (code, status) = match (app.drain.is_draining(), health.able, health.obstacle()) {
        (true, ..) => (StatusCode::SERVICE_UNAVAILABLE, "draining".to_owned()),
        (.., Some(error)) => (StatusCode::SERVICE_UNAVAILABLE, error.message.clone()),
        (_, false, None) => (StatusCode::SERVICE_UNAVAILABLE, "no models".to_owned()),
        _ => (StatusCode::OK, "ok".to_owned()),
    };
    let models = models.into_iter().map(|model| model.id).collect();
    let troubles = health.troubles.into_iter().map(|error| error.message).collect();
    (code, Json(Ready { status, models, troubles }))
}

/// `GET /v1/models`.
pub(crate) async fn models(State(app): State<Arc<App>>, Extension(caller): Extension<Arc<Caller>>) -> Json<ModelList> {
    Json(visible(&app, &caller).into())
}

/// The models a caller may use: others do not exist for them.
fn visible(app: &App, caller: &Caller) -> Vec<ModelBody> {
    app.models().into_iter().filter(|model| caller.may_use(&model.id).is_ok()).collect()
}

/// `GET /v1/models/{id}`; ids may contain slashes.
pub(crate) async fn model(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Arc<Caller>>,
    Path(id): Path<String>,
) -> Result<Json<ModelBody>, Refusal> {
    let models = visible(&app, &caller);
    let names = models.iter().map(|model| format!("`{}`", model.id)).collect::<Vec<_>>().join(", ");
    let found = models.into_iter().find(|model| model.id == id);
    found.map(Json).ok_or_else(|| {
        let message = format!("The model `{id}` does not exist here. Available: {names}.");
        let error = Error::new(ErrorKind::NotFound, message).with_param("model");
        error.with_code("model_not_found").into()
    })
}
