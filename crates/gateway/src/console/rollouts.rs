//! Rollouts: which versions stand behind a name, how they do beside each other, how far a canary is; and the laps of the loops that make
//! canaries out of traffic.

use std::sync::Arc;

use axum::{Form, extract::State, response::Response};
use ledger::Course;
use maud::{Markup, html};
use protocol::Error;
use serde::Deserialize;
use serde_json::Value;
use services::rollout::Rollout;

use super::{
    audit::moment,
    frame::{self, Page, number},
    sign,
    view::View,
};
use crate::{
    app::App,
    experiments::ExperimentBody,
    laps::{self, Lap, Outcome, Step},
    rollouts::{ActionName, CanaryBody, DifferenceBody, RolloutBody, ShadowBody, VersionBody, moved},
};

/// `GET /console/rollouts`; htmx takes what moves out of it every few seconds.
pub(super) async fn page(State(app): State<Arc<App>>, view: View) -> Response {
    if let Err(error) = view.caller.may_audit() {
        return sign::refused(&view, Page::Rollouts, &error);
    }
    let content = html! { (frame::heading(view.t("nav.rollouts"), &html! {})) (shown(&app, &view, None)) };
    frame::page(&view, Page::Rollouts, view.t("nav.rollouts"), &[], &content)
}

/// What a person wants of a canary.
#[derive(Debug, Deserialize)]
pub(super) struct Wanted {
    model: String,
    action: ActionName,
}

/// `POST /console/rollouts`.
pub(super) async fn act(State(app): State<Arc<App>>, view: View, Form(wanted): Form<Wanted>) -> Response {
    let failed = moved(&app, &view.caller, &wanted.model, wanted.action).await.err();
    frame::fragment(&shown(&app, &view, failed.as_ref()))
}

fn shown(app: &App, view: &View, failed: Option<&Error>) -> Markup {
    let body = |rollout: &Arc<Rollout>| (RolloutBody::of(app, rollout), ExperimentBody::of(app, rollout));
    let rollouts: Vec<_> = app.services().rollouts.iter().map(body).collect();
    let loops = &app.gateway.settings.get().settings.loops;
    html! {
        div #rollouts hx-get="/console/rollouts" hx-trigger="every 3s" hx-select="#rollouts" hx-target="this" hx-swap="outerHTML" {
            @if let Some(error) = failed { p.failure role="alert" { (view.failure(error)) } }
            @if rollouts.is_empty() && loops.is_empty() {
                (frame::empty(view.t("rollouts.none"), &html! { (view.t("rollouts.none-next")) code { "[[rollouts]]" } }))
            }
            @for (rollout, experiment) in &rollouts { (section(view, rollout, experiment.as_ref())) }
            @for section in loops { (looped(app, view, &section.name)) }
        }
    }
}

fn section(view: &View, rollout: &RolloutBody, experiment: Option<&ExperimentBody>) -> Markup {
    html! {
        section.section {
            h2 { (rollout.model) }
            @if let Some(canary) = &rollout.canary { (way(view, &rollout.model, canary)) }
            @if !rollout.trustworthy { p.failure { (view.t("rollouts.mismatch")) } }
            (table(view, &rollout.model, &rollout.versions))
            @if let Some(experiment) = experiment { (verdicts(view, experiment)) }
            @if let Some(shadow) = &rollout.shadow { (compared(view, shadow)) }
        }
    }
}

/// How far a canary is, why, and what may be done about it.
fn way(view: &View, model: &str, canary: &CanaryBody) -> Markup {
    let (stone, course, actions) = match canary.course {
        Course::Running => ("gold", "rollouts.running", &ACTIONS[..3]),
        Course::Paused => ("gold", "rollouts.paused", &ACTIONS[1..]),
        Course::Promoted => ("malachite", "rollouts.promoted", &ACTIONS[2..3]),
        Course::RolledBack => ("porphyry", "rollouts.rolled-back", &ACTIONS[3..]),
    };
    html! {
        div.canary {
            p.way {
                span.state { i.tile.(stone) aria-hidden="true" {} b { (canary.model) } " " (view.t(course)) }
                span { (canary.share) " % " (view.t("rollouts.of-callers")) }
                span.note { (moment(canary.since)) }
            }
            svg.meter viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true" {
                rect.ground width="100" height="8" {}
                rect.(stone) width=(canary.share) height="8" {}
            }
            p.note { (canary.why) }
            @if view.caller.may_administer().is_ok() {
                form.actions hx-post="/console/rollouts" hx-target="#rollouts" hx-swap="outerHTML" {
                    input type="hidden" name="model" value=(model);
                    @for (action, name, class) in actions {
                        button.(class) type="submit" name="action" value=(action) { (view.t(name)) }
                    }
                }
            }
        }
    }
}

/// What may be done: to one that runs the first three, to one that is paused all but the first, to others the way back.
const ACTIONS: [(&str, &str, &str); 4] = [
    ("pause", "rollouts.pause", "quiet"),
    ("promote", "rollouts.promote", "quiet"),
    ("rollback", "rollouts.roll-back", "danger"),
    ("resume", "rollouts.resume", "quiet"),
];

const COLUMNS: [&str; 9] = [
    "rollouts.version",
    "rollouts.weight",
    "rollouts.callers",
    "rollouts.requests",
    "rollouts.failed",
    "rollouts.wait",
    "rollouts.blocked",
    "rollouts.cost",
    "rollouts.quality",
];

fn table(view: &View, model: &str, versions: &[VersionBody]) -> Markup {
    let weights = versions.iter().map(|version| version.weight).sum::<u64>().max(1);
    html! {
        div.scroll tabindex="0" role="region" aria-label=(model) {
            table.rollouts {
                thead { tr { @for (at, name) in COLUMNS.into_iter().enumerate() {
                    th.number[at > 0] scope="col" { (view.t(name)) }
                } } }
                tbody { @for version in versions { (row(view, version, weights)) } }
            }
        }
    }
}

fn row(view: &View, version: &VersionBody, weights: u64) -> Markup {
    let share = |n: u64| match version.requests {
        0 => number(n),
        all => format!("{} ({:.1} %)", number(n), 100.0 * n as f64 / all as f64),
    };
    let or_dash = |shown: Option<String>| shown.unwrap_or_else(|| "–".to_owned());
    html! {
        tr {
            th scope="row" { div.name { (version.model) } }
            td.number { (format!("{:.0} %", 100.0 * version.weight as f64 / weights as f64)) }
            td.number { (number(version.callers)) }
            td.number { (number(version.requests)) }
            (figure(view, &share(version.failed), version.failures_beside.as_ref()))
            (figure(view, &or_dash(version.wait.map(|s| format!("{:.0} ms", 1e3 * s))), version.wait_beside.as_ref()))
            (figure(view, &share(version.blocked), version.blocks_beside.as_ref()))
            (figure(view, &or_dash(version.cost.map(|nano| format!("{:.6}", nano / 1e9))), version.cost_beside.as_ref()))
            (figure(view, &or_dash(version.quality.map(|mean| format!("{mean:.2}"))), version.quality_beside.as_ref()))
        }
    }
}

/// A figure of a version, with a tile that says how it is beside the version of most callers.
fn figure(view: &View, shown: &str, beside: Option<&DifferenceBody>) -> Markup {
    let (stone, word) = match beside.map(|difference| difference.standing.as_str()) {
        Some("fine") => ("malachite", "rollouts.fine"),
        Some("worse") => ("porphyry", "rollouts.worse"),
        _ => ("gold", "rollouts.open"),
    };
    html! {
        td.number {
            (shown)
            @if let Some(DifferenceBody { low, high, .. }) = beside {
                " " i.tile.(stone) aria-hidden="true" title={ (view.t(word)) ": " (format!("{low:+.4} .. {high:+.4}")) } {}
                span.hidden { (view.t(word)) }
            }
        }
    }
}

/// What each version is called beside the one of most callers, by the metric that was named beforehand.
fn verdicts(view: &View, experiment: &ExperimentBody) -> Markup {
    html! {
        p.note.below {
            (view.t("experiments.by")) " " b { (view.t(metric(experiment.metric))) } ", " (view.t("experiments.beside")) " " b { (experiment.control) }
        }
        @for arm in &experiment.versions { @if let Some(beside) = &arm.beside {
            @let (stone, word) = verdict(beside.verdict);
            p.standing {
                span.state { i.tile.(stone) aria-hidden="true" {} b { (arm.model) } " " (view.t(word)) }
                @if let (Some(low), Some(high)) = (beside.low, beside.high) { span.note { (format!("{low:+.4} .. {high:+.4}")) } }
                @if let Some(needed) = beside.still_needed.filter(|needed| *needed > 0) {
                    span.note { (view.t("experiments.needed")) " " (number(needed)) }
                }
            }
        } }
    }
}

/// A metric's column has its name.
fn metric(word: &str) -> &'static str {
    match word {
        "wait" => "rollouts.wait",
        "blocks" => "rollouts.blocked",
        "cost" => "rollouts.cost",
        "quality" => "rollouts.quality",
        _ => "rollouts.failed",
    }
}

fn verdict(word: &str) -> (&'static str, &'static str) {
    match word {
        "better" => ("malachite", "experiments.better"),
        "no_worse" => ("malachite", "rollouts.fine"),
        "worse" => ("porphyry", "rollouts.worse"),
        "unbelievable" => ("porphyry", "experiments.unbelievable"),
        _ => ("gold", "rollouts.open"),
    }
}

fn compared(view: &View, shadow: &ShadowBody) -> Markup {
    let ShadowBody { model, same, differed, failed, .. } = shadow;
    let counts = [("rollouts.same", same), ("rollouts.differed", differed), ("rollouts.failed", failed)];
    html! {
        p.note.below {
            (view.t("rollouts.shadow")) " " b { (model) }
            @for (name, n) in counts { " · " (view.t(name)) " " (number(*n)) }
        }
    }
}

/// The laps of a loop, the newest first.
fn looped(app: &App, view: &View, name: &str) -> Markup {
    let folder = app.gateway.config.loops.as_ref().map(|loops| loops.join(name));
    let laps = folder.map_or_else(|| Ok(Vec::new()), |folder| laps::all(&folder));
    html! {
        section.section {
            h2 { (view.t("laps.title")) " " (name) }
            @match laps {
                Err(error) => p.failure { (error) },
                Ok(laps) if laps.is_empty() => p.note { (view.t("laps.none")) code { "tessera loop run " (name) } },
                Ok(laps) => (laid(view, name, &laps)),
            }
        }
    }
}

fn laid(view: &View, name: &str, laps: &[Lap]) -> Markup {
    const COLUMNS: [&str; 8] = [
        "laps.lap",
        "laps.steps",
        "laps.rows",
        "laps.student",
        "laps.teacher",
        "laps.cascade",
        "laps.by-student",
        "laps.outcome",
    ];
    html! {
        div.scroll tabindex="0" role="region" aria-label=(name) {
            table.laps {
                thead { tr { @for name in COLUMNS { th scope="col" { (view.t(name)) } } } }
                tbody { @for lap in laps.iter().rev() { (lap_row(view, lap)) } }
            }
        }
    }
}

fn lap_row(view: &View, lap: &Lap) -> Markup {
    let measured = &lap.said(Step::Evaluate)["measured"];
    let done = |step: Step| lap.steps.contains_key(&step);
    html! {
        tr {
            th scope="row" { div.name { (lap.number) } div.note { (moment(lap.began)) } }
            td {
                span.path aria-hidden="true" { @for step in Step::ALL {
                    i.tile.lapis[done(step)].unset[!done(step)] title=(view.t(name(step))) {}
                } }
                @if let Some((last, _)) = lap.steps.last_key_value() { div.note { (view.t(name(*last))) } }
            }
            td { @if let Some(rows) = lap.said(Step::Data)["train"].as_u64() { (number(rows)) } @else { "–" } }
            @for who in ["student", "teacher", "cascade"] { td { (estimate(&measured[who]["accuracy"])) } }
            td { (by_student(lap)) }
            td { (outcome(view, lap)) }
        }
    }
}

fn name(step: Step) -> &'static str {
    match step {
        Step::Data => "laps.data",
        Step::Learn => "laps.learn",
        Step::Distil => "laps.distil",
        Step::Evaluate => "laps.evaluate",
        Step::Offer => "laps.offer",
        Step::Canary => "laps.canary",
    }
}

/// A share with its interval.
fn estimate(estimate: &Value) -> Markup {
    let part = |key: &str| estimate[key].as_f64().map(|value| 100.0 * value);
    html! {
        @match (part("value"), part("low"), part("high")) {
            (Some(value), Some(low), Some(high)) => {
                (format!("{value:.1} %")) div.note { (format!("{low:.1} – {high:.1}")) }
            }
            _ => "–",
        }
    }
}

/// The share of the answers since the canary began that a student gave.
fn by_student(lap: &Lap) -> String {
    let since = lap.report.as_ref().map(|report| &report["since"]);
    let count = |key: &str| since.and_then(|since| since[key].as_f64());
    match (count("by_student"), count("requests")) {
        (Some(students), Some(all)) if all > 0.0 => format!("{:.1} %", 100.0 * students / all),
        _ => "–".to_owned(),
    }
}

fn outcome(view: &View, lap: &Lap) -> Markup {
    let (stone, word, why) = match &lap.end {
        None => ("gold", "laps.under-way", ""),
        Some(Outcome::Promoted) => ("malachite", "laps.promoted", ""),
        Some(Outcome::RolledBack { why }) => ("porphyry", "laps.rolled-back", why.as_str()),
        Some(Outcome::Stopped { why }) => ("porphyry", "laps.stopped", why.as_str()),
    };
    html! { span.state { i.tile.(stone) aria-hidden="true" {} (view.t(word)) } @if !why.is_empty() { div.note { (why) } } }
}
