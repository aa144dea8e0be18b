//! The web console at `/`: what the platform does, to look at.
//!
//! Pages are written here and sent whole; htmx puts in the parts that change on demand, and a few small scripts of ours draw what
//! moves: an answer, a decision, the charts. A page holds no script and no style of its own, so the strictest content policy holds
//! ([`frame::respond`]). Whatever a page can do, the API can do: playing calls `/v1` as any client would, and charts show what
//! `/metrics` shows, kept for a quarter of an hour ([`history`]).
//!
//! Where things are: [`frame`] is what all pages share, [`view`] who looks and how, [`text`] every sentence in both languages,
//! [`assets`] the files; every other module is a page.

mod assets;
mod frame;
mod history;
mod models;
mod play;
mod scrape;
mod text;
mod traffic;
mod view;

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::json;

use crate::{app::App, clock, measure};
use view::View;

/// What the console remembers between requests.
#[derive(Debug, Default)]
pub(crate) struct Console {
    history: history::History,
}

impl Console {
    /// To be called once a second: takes the metrics in for the charts.
    pub(crate) fn tick(&self) {
        if let Some(page) = measure::render() {
            self.history.tick(&page, clock::unix_seconds());
        }
    }
}

/// The pages and what they are made of.
pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/", get(home))
        .route("/console/traffic", get(traffic::page))
        .route("/console/traffic/events", get(traffic::events))
        .route("/console/models", get(models::page))
        .route("/console/prefer", post(view::prefer))
        .route("/console/assets/{hash}/{*path}", get(assets::file))
}

/// `GET /`: the playground for people; for programs, where the API is.
async fn home(State(app): State<Arc<App>>, headers: HeaderMap, view: View) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if accept.contains("text/html") {
        return play::chat(State(app), view).await;
    }
    let models: Vec<_> = app.models().into_iter().map(|model| model.id).collect();
    Json(json!({ "name": "tessera", "version": env!("CARGO_PKG_VERSION"), "api": "/v1", "models": models }))
        .into_response()
}
