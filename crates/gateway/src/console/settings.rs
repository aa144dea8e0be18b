//! Settings: what is in force, with what each key means, and how the last change went. To be changed in the file.

use std::sync::Arc;

use axum::{extract::State, response::Response};
use maud::{Markup, html};

use super::{
    frame::{self, Page},
    scrape, sign,
    view::View,
};
use crate::{
    app::App,
    measure,
    settings::{Section, Settings},
};

/// `GET /console/settings`.
pub(super) async fn page(State(app): State<Arc<App>>, view: View) -> Response {
    if let Err(error) = view.caller.may_administer() {
        return sign::refused(&view, Page::Settings, &error);
    }
    let in_force = app.gateway.settings.get();
    let defaults = Settings::default().sections(true);
    let content = html! {
        (frame::heading(view.t("nav.settings"), &html! {}))
        div.card.force {
            dl.pairs {
                dt { (view.t("settings.hash")) } dd { code { (in_force.digest) } }
                dt { (view.t("settings.last")) } dd { (reloaded(&view, &measure::render().unwrap_or_default())) }
            }
            p.note { (view.t("settings.note")) }
        }
        @for section in in_force.settings.sections(false) { (table(&view, &section, &defaults)) }
    };
    frame::page(&view, Page::Settings, view.t("nav.settings"), &[], &content)
}

/// How the last change of the file went, as the metrics have it.
fn reloaded(view: &View, metrics: &str) -> Markup {
    let last = scrape::lines(metrics).find(|line| line.name == "tessera_config_last_reload_ok");
    let (stone, text) = match last {
        None => ("unset", "settings.unchanged"),
        Some(line) if line.value > 0.0 => ("malachite", "settings.applied"),
        Some(_) => ("porphyry", "settings.refused"),
    };
    html! { span.state { i.tile.(stone) aria-hidden="true" {} (view.t(text)) } }
}

fn table(view: &View, section: &Section, defaults: &[Section]) -> Markup {
    let default = defaults.iter().find(|default| default.header == section.header);
    let changed = |name: &str, value: &str| {
        default.is_some_and(|default| !default.keys.iter().any(|key| key.name == name && key.value == value))
    };
    html! {
        section.section {
            h2 { code { (section.header) } }
            p.note { (section.about) }
            div.scroll tabindex="0" role="region" aria-label=(section.header) {
                table.settings { tbody { @for key in &section.keys {
                    tr {
                        th scope="row" { code { (key.name) } }
                        td { code { (key.value) } @if changed(&key.name, &key.value) { " " span.chip { (view.t("settings.changed")) } } }
                        td.note { (key.about) }
                    }
                } } }
            }
        }
    }
}
