//! The routes and what every request passes on its way to one.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderValue, Method, StatusCode, Uri, header::HeaderName, request::Parts},
    middleware::{Next, from_fn, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use protocol::Error;
use tower_http::{
    catch_panic::CatchPanicLayer,
    cors::{AllowHeaders, AllowOrigin, CorsLayer},
};

use crate::{app::App, auth, console, embed, health, id, measure, messages, moderation, refusal::Refusal, text};

/// From the outside in: a name, the count, cross-origin rules, who asks, a net for panics, the route.
pub(crate) fn router(app: Arc<App>) -> Router {
    let work = Router::new()
        .route("/v1/chat/completions", post(text::chat))
        .route("/v1/completions", post(text::completions))
        .route("/v1/responses", post(text::responses))
        .route("/v1/messages", post(messages::create))
        .route("/v1/messages/count_tokens", post(messages::count))
        .route("/v1/embeddings", post(embed::embeddings))
        .route("/v1/moderations", post(moderation::moderations))
        .route_layer(from_fn_with_state(app.clone(), admit));
    let look = Router::new()
        .route("/v1/models", get(health::models))
        .route("/v1/models/{*id}", get(health::model))
        .route("/healthz", get(health::ready))
        .route("/healthz/ready", get(health::ready))
        .route("/healthz/live", get(health::live))
        .route("/metrics", get(measure::page));
    let cors = cors(&app.gateway.config.origins);
    work.merge(look)
        .merge(console::routes(&app))
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(CatchPanicLayer::custom(|panic| caught(&panic)))
        .layer(from_fn(auth::identify))
        .layer(from_fn(messages::speak))
        .layer(cors)
        .layer(from_fn(measure::count))
        .layer(from_fn(id::name))
        .with_state(app)
}

/// Counts work in for the drain, until the last byte of its answer; refuses it while stopping.
async fn admit(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    match app.drain.enter() {
        Ok(entered) => {
            let response = next.run(request).await;
            response.map(|body| axum::body::Body::new(measure::Held { body, _until_sent: entered }))
        }
        Err(stopping) => Refusal::from(stopping).into_response(),
    }
}

async fn no_route(method: Method, uri: Uri) -> Refusal {
    let path = uri.path();
    let hint = match path {
        "/chat/completions" | "/completions" | "/embeddings" | "/models" => {
            "The API is under /v1: set the base URL to end in /v1."
        }
        _ => "The API is POST /v1/chat/completions, /v1/completions, /v1/embeddings and GET /v1/models.",
    };
    Refusal::new(StatusCode::NOT_FOUND, "unknown_url", format!("There is no {method} {path} here. {hint}"))
}

async fn no_method(method: Method, uri: Uri) -> Refusal {
    let message = format!("{} does not answer {method}; the header Allow says what it answers.", uri.path());
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
}

fn caught(panic: &(dyn std::any::Any + Send)) -> Response {
    let what = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    tracing::error!(panic = what, "a request panicked");
    Refusal::from(Error::internal("Something broke inside the server; its log says more.")).into_response()
}

/// Without keys the browser's origin is the only thing that tells this machine's pages from a stranger's, so pages of
/// other sites get no permission unless the owner lists them.
fn cors(origins: &[String]) -> CorsLayer {
    let listed: Vec<HeaderValue> = origins.iter().filter_map(|origin| origin.parse().ok()).collect();
    let allowed = move |origin: &HeaderValue, _: &Parts| listed.contains(origin) || of_this_machine(origin);
    CorsLayer::new()
        .allow_origin(AllowOrigin::predicate(allowed))
        .allow_methods([Method::GET, Method::POST])
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers([id::REQUEST_ID, HeaderName::from_static("retry-after")])
        .max_age(std::time::Duration::from_secs(3600))
}

fn of_this_machine(origin: &HeaderValue) -> bool {
    let uri = origin.to_str().ok().and_then(|text| text.parse::<Uri>().ok());
    uri.and_then(|uri| uri.host().map(|host| matches!(host, "localhost" | "127.0.0.1" | "[::1]"))).unwrap_or(false)
}
