//! Traffic: what the metrics say, as charts that move. The page is a frame; its script draws what the stream beside it brings.

use std::{convert::Infallible, sync::Arc};

use axum::{
    extract::{Query, State},
    response::{
        IntoResponse, Response,
        sse::{Event, Sse},
    },
};
use futures_util::stream;
use maud::{Markup, html};
use serde::Deserialize;

use super::{
    assets,
    frame::{self, Page},
    view::View,
};
use crate::app::App;

/// A chart and its lines.
struct Chart {
    title: &'static str,
    /// What its numbers are, for the script to format: `rate`, `ms`, `bytes`, `count`.
    unit: &'static str,
    /// Lines stand on each other.
    stacked: bool,
    /// Key in the columns, name, stone.
    lines: &'static [(&'static str, &'static str, &'static str)],
}

const CHARTS: [Chart; 7] = [
    Chart {
        title: "traffic.requests",
        unit: "rate",
        stacked: true,
        lines: &[
            ("ok", "traffic.ok", "malachite"),
            ("refused", "traffic.refused", "gold"),
            ("failed", "traffic.failed", "porphyry"),
        ],
    },
    Chart {
        title: "traffic.tokens",
        unit: "rate",
        stacked: false,
        lines: &[
            ("generated", "traffic.generated", "lapis"),
            ("prompt", "traffic.prompt", "gold"),
            ("cached", "traffic.cached", "aqua"),
        ],
    },
    Chart {
        title: "traffic.stages",
        unit: "ms",
        stacked: true,
        lines: &[
            ("stage.tokens", "traffic.stage-tokens", "lapis"),
            ("stage.first_token", "traffic.stage-first", "malachite"),
            ("stage.queue", "traffic.stage-queue", "gold"),
            ("stage.guard", "traffic.stage-guard", "porphyry"),
            ("stage.client", "traffic.stage-client", "aqua"),
            ("stage.gateway", "traffic.stage-gateway", "ink"),
        ],
    },
    Chart {
        title: "traffic.first-token",
        unit: "ms",
        stacked: false,
        lines: &[
            ("first_token.p50", "traffic.first-p50", "lapis"),
            ("first_token.p95", "traffic.first-p95", "porphyry"),
            ("queue.p95", "traffic.queue-p95", "gold"),
        ],
    },
    Chart {
        title: "traffic.inter-token",
        unit: "ms",
        stacked: false,
        lines: &[("inter_token.p50", "traffic.p50", "lapis"), ("inter_token.p95", "traffic.p95", "porphyry")],
    },
    Chart {
        title: "traffic.kv",
        unit: "bytes",
        stacked: false,
        lines: &[("kv_used", "traffic.kv-used", "lapis"), ("kv", "traffic.kv-total", "gold")],
    },
    Chart {
        title: "traffic.batch",
        unit: "count",
        stacked: false,
        lines: &[
            ("batch", "traffic.rows", "lapis"),
            ("running", "traffic.running", "malachite"),
            ("queued", "traffic.queued", "porphyry"),
        ],
    },
];

/// `GET /console/traffic`.
pub(super) async fn page(view: View) -> Response {
    let content = html! {
        (frame::heading(view.t("nav.traffic"), &spans(&view)))
        div.charts #charts { @for chart in &CHARTS { (frame_of(&view, chart)) } }
        p.note.below { (view.t("traffic.note")) " " a href="/metrics" { code { "/metrics" } } }
        link rel="stylesheet" href=(assets::url("vendor/uplot-1.6.32.min.css"));
    };
    frame::page(&view, Page::Traffic, view.t("nav.traffic"), &["vendor/uplot-1.6.32.min.js", "charts.mjs"], &content)
}

/// How far back one looks: seconds of a step, and what the button says.
fn spans(view: &View) -> Markup {
    html! {
        div.tabs.right role="group" aria-label=(view.t("traffic.span")) {
            @for (step, name, pressed) in [(1, "traffic.minutes-3", "true"), (5, "traffic.minutes-15", "false")] {
                button type="button" data-step=(step) aria-pressed=(pressed) { (view.t(name)) }
            }
        }
    }
}

fn frame_of(view: &View, chart: &Chart) -> Markup {
    html! {
        figure.card.chart data-unit=(chart.unit) data-stacked[chart.stacked] {
            figcaption { h2 { (view.t(chart.title)) } }
            ul.legend {
                @for (key, name, stone) in chart.lines {
                    li data-key=(key) { i.tile.(stone) aria-hidden="true" {} span { (view.t(name)) } output { "–" } }
                }
            }
            div.plot role="img" aria-label=(view.t(chart.title)) {}
        }
    }
}

/// How far apart rows are.
#[derive(Debug, Deserialize)]
pub(super) struct Wanted {
    step: Option<u64>,
}

/// `GET /console/traffic/events`: first every row there is, then each as its step ends. Ends when the server stops.
pub(super) async fn events(State(app): State<Arc<App>>, Query(wanted): Query<Wanted>) -> Response {
    let step = wanted.step.unwrap_or(1).clamp(1, 60);
    let ticks = app.console.history.ticks();
    let rows = stream::unfold((app, ticks, None), move |(app, mut ticks, sent)| async move {
        loop {
            let (columns, end) = app.console.history.columns(step, sent.unwrap_or(0));
            if sent.is_none() || sent.is_some_and(|sent| end > sent) {
                let event = Event::default().data(columns.to_string());
                return Some((Ok::<_, Infallible>(event), (app, ticks, Some(end))));
            }
            ticks.changed().await.ok().filter(|()| !app.drain.is_draining())?;
        }
    });
    Sse::new(rows).into_response()
}
