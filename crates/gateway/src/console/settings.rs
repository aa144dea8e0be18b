//! Settings: what is in force, with what each key means, and how the last change went, down to the line that was refused. To be
//! changed in the file.

use std::sync::Arc;

use axum::{extract::State, response::Response};
use maud::{Markup, html};

use super::{
    frame::{self, Page},
    scrape, sign,
    text::{self, Lang},
    view::View,
};
use crate::{
    app::App,
    measure,
    settings::{Refused, Section, Settings, SettingsError},
};

/// `GET /console/settings`.
pub(super) async fn page(State(app): State<Arc<App>>, view: View) -> Response {
    if let Err(error) = view.caller.may_administer() {
        return sign::refused(&view, Page::Settings, &error);
    }
    let in_force = app.gateway.settings.get();
    let refused = app.gateway.settings.refused();
    let defaults = Settings::default().sections(true);
    let content = html! {
        (frame::heading(view.t("nav.settings"), &html! {}))
        div.card.force {
            dl.pairs {
                dt { (view.t("settings.hash")) } dd { code { (in_force.digest) } }
                dt { (view.t("settings.last")) } dd { (reloaded(&view, refused.is_some())) }
            }
            @if let Some(refused) = &refused { (mistakes(&view, refused)) }
            p.note { (view.t("settings.note")) }
        }
        @for section in in_force.settings.sections(false) { (table(&view, &section, &defaults)) }
    };
    frame::page(&view, Page::Settings, view.t("nav.settings"), &[], &content)
}

/// How the last change of the file went; that there was one is in the metrics.
fn reloaded(view: &View, refused: bool) -> Markup {
    let metrics = measure::render().unwrap_or_default();
    let changed = scrape::lines(&metrics).any(|line| line.name == "tessera_config_last_reload_ok");
    let (stone, text) = match (refused, changed) {
        (true, _) => ("porphyry", "settings.refused"),
        (false, true) => ("malachite", "settings.applied"),
        (false, false) => ("unset", "settings.unchanged"),
    };
    html! { span.state { i.tile.(stone) aria-hidden="true" {} (view.t(text)) } }
}

/// What is wrong with the file, line by line.
fn mistakes(view: &View, refused: &Refused) -> Markup {
    html! {
        div.failure role="status" {
            @match refused {
                Refused::Wrong(SettingsError::Mistakes { path, mistakes }) => {
                    p { code { (path) } }
                    ul.mistakes { @for mistake in mistakes { li {
                        @if mistake.line > 0 { b { (view.t("settings.line").replace("{}", &mistake.line.to_string())) } " " }
                        (mistake.message)
                    } } }
                }
                other => p { (other.to_string()) },
            }
        }
    }
}

/// What a setting means; in English its type says it.
fn about<'a>(view: &View, section: &Section, key: &str, english: &'a str) -> &'a str {
    text::about(&section.header, key).filter(|_| view.lang == Lang::Zh).unwrap_or(english)
}

fn table(view: &View, section: &Section, defaults: &[Section]) -> Markup {
    let default = defaults.iter().find(|default| default.header == section.header);
    let changed = |name: &str, value: &str| {
        default.is_some_and(|default| !default.keys.iter().any(|key| key.name == name && key.value == value))
    };
    html! {
        section.section {
            h2 { code { (section.header) } }
            p.note { (about(view, section, "", &section.about)) }
            div.scroll tabindex="0" role="region" aria-label=(section.header) {
                table.settings { tbody { @for key in &section.keys {
                    tr {
                        th scope="row" { code { (key.name) } }
                        td { code { (key.value) } @if changed(&key.name, &key.value) { " " span.chip { (view.t("settings.changed")) } } }
                        td.note { (about(view, section, &key.name, &key.about)) }
                    }
                } } }
            }
        }
    }
}
