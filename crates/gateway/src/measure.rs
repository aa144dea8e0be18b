//! `/metrics`: what HTTP did, counted here, beside whatever the services record through the `metrics` facade.
//!
//! Labels come from closed sets (matched routes, known methods, statuses), so that no caller can grow the page. A
//! request's time ends when its last byte is handed over or its client is gone, so a stream counts whole.

use std::{
    pin::Pin,
    sync::OnceLock,
    task::{Context, Poll},
};

use axum::{
    body::{Body, HttpBody},
    extract::{MatchedPath, Request},
    http::{Method, StatusCode, header},
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use metrics::{counter, gauge, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::time::Instant;

use crate::{api::Route, auth, id::RequestId, refusal::Refusal};

const REQUESTS: &str = "tessera_http_requests_total";
const SECONDS: &str = "tessera_http_request_duration_seconds";
const IN_FLIGHT: &str = "tessera_http_requests_in_flight";

/// From a cached token to a long answer.
pub(crate) const SECOND_BUCKETS: [f64; 17] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0];
/// For probabilities, finest where they are high.
const SCORE_BUCKETS: [f64; 14] = [0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0];
/// For counts: tokens, batch sizes.
const COUNT_BUCKETS: [f64; 13] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 4096.0, 16384.0];

static RECORDER: OnceLock<Option<PrometheusHandle>> = OnceLock::new();

/// Makes the process's metric recorder the one behind `/metrics`. Call it first, before any service makes its handles:
/// handles made earlier count into nothing. Calling it again is harmless.
pub fn install_metrics() {
    recorder();
}

fn recorder() -> Option<&'static PrometheusHandle> {
    let install = || match build() {
        Ok(handle) => Some(handle),
        Err(error) => {
            tracing::warn!(error, "no /metrics: the process already has another recorder");
            None
        }
    };
    RECORDER.get_or_init(install).as_ref()
}

fn build() -> Result<PrometheusHandle, String> {
    let builder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECOND_BUCKETS)
        .and_then(|builder| builder.set_buckets_for_metric(Matcher::Suffix("_score".to_owned()), &SCORE_BUCKETS))
        .and_then(|builder| builder.set_buckets(&COUNT_BUCKETS));
    let recorder = builder.map_err(|e| e.to_string())?.build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).map_err(|e| e.to_string())?;
    metrics::describe_counter!(REQUESTS, "HTTP requests by route, method and status");
    metrics::describe_histogram!(SECONDS, metrics::Unit::Seconds, "Time from a request's head to its last byte");
    metrics::describe_gauge!(IN_FLIGHT, "HTTP requests being answered");
    Ok(handle)
}

/// The page as it stands. Whoever reads it once in a while also keeps histograms from growing: reading folds them.
pub(crate) fn render() -> Option<String> {
    recorder().map(PrometheusHandle::render)
}

pub(crate) fn routes() -> Vec<Route> {
    vec![
        Route::get("/metrics", get(page).route_layer(from_fn(auth::auditors)))
            .about("server", "Metrics for Prometheus")
            .gives_text("text/plain")
            .fails(404),
    ]
}

/// `GET /metrics`.
pub(crate) async fn page() -> Response {
    const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
    match render() {
        Some(page) => ([(header::CONTENT_TYPE, TEXT)], page).into_response(),
        None => {
            let message = "The process records its metrics elsewhere.".to_owned();
            Refusal::new(StatusCode::NOT_FOUND, "no_metrics", message).into_response()
        }
    }
}

/// Counts a request from its head to its last byte.
pub(crate) async fn count(request: Request, next: Next) -> Response {
    let mut flight = Flight::new(&request);
    let response = next.run(request).await;
    flight.status = Some(response.status());
    response.map(|body| Body::new(Held { body, _until_sent: flight }))
}

/// A request being answered; dropping it records it.
#[derive(Debug)]
struct Flight {
    id: String,
    route: String,
    method: &'static str,
    started: Instant,
    /// None when the client left before there was an answer.
    status: Option<StatusCode>,
}

impl Flight {
    fn new(request: &Request) -> Self {
        gauge!(IN_FLIGHT).increment(1.0);
        let extensions = request.extensions();
        Self {
            id: extensions.get::<RequestId>().map(|id| id.0.clone()).unwrap_or_default(),
            route: extensions.get::<MatchedPath>().map_or("other", MatchedPath::as_str).to_owned(),
            method: known(request.method()),
            started: Instant::now(),
            status: None,
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let seconds = self.started.elapsed().as_secs_f64();
        // 499 is nginx's number for a client that left.
        let status = self.status.map_or(499, |status| status.as_u16());
        let (route, method) = (self.route.clone(), self.method);
        gauge!(IN_FLIGHT).decrement(1.0);
        histogram!(SECONDS, "route" => route.clone()).record(seconds);
        counter!(REQUESTS, "route" => route, "method" => method, "status" => status.to_string()).increment(1);
        tracing::info!(id = %self.id, method, route = %self.route, status, seconds, "request");
    }
}

fn known(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "POST" => "POST",
        "HEAD" => "HEAD",
        "OPTIONS" => "OPTIONS",
        "PUT" => "PUT",
        "DELETE" => "DELETE",
        "PATCH" => "PATCH",
        _ => "other",
    }
}

/// A body that keeps something until it is sent or dropped.
#[derive(Debug)]
pub(crate) struct Held<T> {
    pub(crate) body: Body,
    pub(crate) _until_sent: T,
}

impl<T: Unpin> HttpBody for Held<T> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
