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
mod audit;
mod decide;
mod decided;
mod frame;
mod history;
mod keys;
mod models;
mod peers;
mod play;
mod rollouts;
mod scrape;
mod settings;
mod sign;
mod text;
mod traffic;
mod view;

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, State},
    http::{HeaderMap, header},
    middleware::from_fn_with_state,
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

/// The longest form, in bytes.
const FORM: usize = 64 << 10;

/// The pages and what they are made of.
pub(crate) fn routes(app: &Arc<App>) -> Router<Arc<App>> {
    let pages = Router::new()
        .route("/console/decide", get(decide::page))
        .route("/console/traffic", get(traffic::page))
        .route("/console/traffic/events", get(traffic::events))
        .route("/console/audit", get(audit::page))
        .route("/console/audit/verify", post(audit::verify))
        .route("/console/audit/{id}", get(audit::record))
        .route("/console/audit/{id}/verify", post(audit::verify_record))
        .route("/console/audit/{id}/proof", get(audit::proof))
        .route("/console/models", get(models::page))
        .route("/console/rollouts", get(rollouts::page).post(rollouts::act))
        .route("/console/keys", get(keys::page).post(keys::create))
        .route("/console/keys/{id}/revoke", post(keys::revoke))
        .route("/console/settings", get(settings::page))
        .route("/console/sign-in", get(sign::page).post(sign::sign_in))
        .route("/console/sign-out", post(sign::sign_out))
        .route_layer(from_fn_with_state(app.clone(), sign::guard));
    Router::new()
        .route("/", get(home))
        .route("/console/prefer", post(view::prefer))
        .route("/console/assets/{hash}/{*path}", get(assets::file))
        .merge(pages)
        // Forms are small, and anybody may send the one for signing in.
        .layer(DefaultBodyLimit::max(FORM))
}

/// `GET /`: the playground for people; for programs, where the API is.
async fn home(State(app): State<Arc<App>>, headers: HeaderMap, view: View) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if accept.contains("text/html") {
        return if view.caller.is_nobody() { sign::ask(&view) } else { play::chat(&app, &view) };
    }
    let models: Vec<_> = app.models().into_iter().map(|model| model.id).collect();
    Json(json!({ "name": "tessera", "version": env!("CARGO_PKG_VERSION"), "api": "/v1", "models": models }))
        .into_response()
}
