//! Whether the server lives, whether it should get work, and what it serves.

use std::sync::Arc;

use axum::{
    Extension, Json,
    extract::{Path, State},
    http::StatusCode,
    response::IntoResponse,
};
use protocol::{
    Error, ErrorKind,
    openai::models::{ModelBody, ModelList},
};
use serde_json::{Value, json};

use crate::{Caller, app::App, refusal::Refusal};

/// `GET /healthz/live`: the process answers.
pub(crate) async fn live() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}

/// `GET /healthz` and `/healthz/ready`: it takes work, and every model can do it.
pub(crate) async fn ready(State(app): State<Arc<App>>) -> impl IntoResponse {
    let models = app.models();
    let (status, word) = match (app.drain.is_draining(), models.is_empty(), app.ready()) {
        (true, ..) => (StatusCode::SERVICE_UNAVAILABLE, "draining".to_owned()),
        (_, true, _) => (StatusCode::SERVICE_UNAVAILABLE, "no models".to_owned()),
        (.., Err(error)) => (StatusCode::SERVICE_UNAVAILABLE, error.message),
        _ => (StatusCode::OK, "ok".to_owned()),
    };
    let names: Vec<_> = models.into_iter().map(|model| model.id).collect();
    (status, Json(json!({ "status": word, "models": names })))
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
