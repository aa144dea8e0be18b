//! The routes and what every request passes on its way to one.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderValue, Method, StatusCode, Uri, header::HeaderName, request::Parts},
    middleware::{Next, from_fn, from_fn_with_state},
    response::{IntoResponse, Response},
};
use protocol::Error;
use tower_http::{
    catch_panic::CatchPanicLayer,
    cors::{AllowHeaders, AllowOrigin, CorsLayer},
};

use crate::{
    Caller,
    api::{self, Route},
    app::App,
    ask, auth, body, console,
    drain::Entered,
    id::{self, RequestId},
    internal,
    journey::{Ending, Journey},
    measure, messages,
    refusal::{Failed, Refusal},
    turned::{self, Turned},
};

/// From the outside in: a name, the count, cross-origin rules, who asks, a net for panics, the route.
pub(crate) fn router(app: Arc<App>) -> Router {
    let public = app.gateway.public;
    let offered = api::routes().into_iter().filter(|route| public || route.serves_probes());
    let (work, look): (Vec<_>, Vec<_>) = offered.partition(|route| route.work);
    let put = |router: Router<Arc<App>>, route: Route| router.route(route.path, route.handler);
    let (internal_work, internal_look) = internal::routes();
    let work = work.into_iter().fold(internal_work, put).route_layer(from_fn_with_state(app.clone(), admit));
    let look = look.into_iter().fold(internal_look, put);
    let look = if public { look.merge(console::routes(&app)) } else { look };
    let cors = cors(&app.gateway.config.origins);
    work.merge(look)
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(CatchPanicLayer::custom(|panic| caught(&panic)))
        .layer(from_fn_with_state(app.clone(), auth::identify))
        .layer(from_fn(messages::speak))
        .layer(cors)
        .layer(from_fn(measure::count))
        .layer(from_fn(id::name))
        .with_state(app)
}

/// Counts work in for the drain, until the last byte of its answer; refuses it while stopping. Who is turned away is noted.
async fn admit(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let limit = app.gateway.settings.get().settings.limits.in_flight;
    let extensions = request.extensions();
    let journey = extensions.get::<Journey>().cloned();
    let asked = extensions.get::<Arc<Caller>>().cloned().zip(extensions.get::<RequestId>().cloned());
    let kind = ask::kind(request.uri().path());
    let response = match entered(&app, request, limit).await {
        Ok((request, entered)) => {
            let ending = journey.clone().map(Ending);
            let response = next.run(request).await;
            response.map(|body| axum::body::Body::new(measure::Held { body, _until_sent: (entered, ending) }))
        }
        Err(refused) => refused.into_response(),
    };
    if let (Some(Failed(error)), Some((caller, RequestId(id)))) = (response.extensions().get(), asked)
        && turned::away(error)
        && !caller.is_nobody()
        && !journey.is_some_and(|journey| journey.is_recorded())
    {
        Turned::note(&app, &caller, kind, &id, error).await;
    }
    response
}

/// A request takes a place once its body is there: clients that send slowly, or half a request, keep nobody else out.
async fn entered(app: &App, request: Request, limit: usize) -> Result<(Request, Entered), Refusal> {
    // Whoever is turned away anyway is told so at once; a worker reads what gateways send by rules of its own.
    let waits = !app.drain.is_draining() && !request.uri().path().starts_with("/internal/v1/");
    if !waits {
        return Ok((request, app.drain.enter(limit)?));
    }
    let caller = request.extensions().get::<Arc<Caller>>().map_or("", |caller| &caller.key_id);
    let share = app.intake.share(caller);
    let request = body::gathered(request, app.gateway.config.max_body_bytes, share).await?;
    Ok((request, app.drain.enter(limit)?))
}

async fn no_route(method: Method, uri: Uri) -> Refusal {
    let path = uri.path();
    let hint = match path {
        "/chat/completions" | "/completions" | "/embeddings" | "/models" => {
            "The API is under /v1: set the base URL to end in /v1."
        }
        _ => "GET /openapi.json describes the API.",
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
        .expose_headers([id::REQUEST_ID, id::CLIENT_REQUEST_ID, HeaderName::from_static("retry-after")])
        .max_age(std::time::Duration::from_secs(3600))
}

fn of_this_machine(origin: &HeaderValue) -> bool {
    let uri = origin.to_str().ok().and_then(|text| text.parse::<Uri>().ok());
    uri.and_then(|uri| uri.host().map(|host| matches!(host, "localhost" | "127.0.0.1" | "[::1]"))).unwrap_or(false)
}
