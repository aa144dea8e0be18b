//! The playground: talk with a model. The page calls the API as any client does, so what it shows is what clients get; how fast an
//! answer came is measured in the browser, token by token.

use axum::response::Response;
use maud::{Markup, html};

use super::{
    frame::{self, Page},
    view::{FAILURES, View},
};
use crate::app::App;

/// `GET /`, for people.
pub(super) fn chat(app: &App, view: &View) -> Response {
    let models = app.models().into_iter().filter(|model| model.capabilities.iter().any(|word| word == "chat"));
    let names: Vec<String> = models.map(|model| model.id).filter(|id| view.caller.may_use(id).is_ok()).collect();
    let content = html! {
        (frame::heading(view.t("nav.play"), &tabs(view, "chat")))
        @if names.is_empty() {
            (frame::empty(view.t("chat.no-model"), &html! { (view.t("chat.no-model-next")) code { "tessera serve --model FILE" } }))
        } @else {
            div.play #chat data-texts=(frame::texts(view, &[TEXTS, &FAILURES].concat())) { (talk(view)) (parameters(view, &names)) }
        }
    };
    frame::page(view, Page::Play, view.t("chat.title"), &["chat.mjs"], &content)
}

const TEXTS: &[&str] = &[
    "chat.you",
    "chat.model",
    "chat.first-token",
    "chat.speed",
    "chat.speed-unit",
    "chat.tokens",
    "chat.stopped",
    "chat.cut",
    "chat.record",
    "chat.pace",
    "chat.failed",
];

/// The two kinds of play.
pub(super) fn tabs(view: &View, current: &str) -> Markup {
    let tabs = [("chat", "/", "chat.title"), ("decide", "/console/decide", "decide.title")];
    html! {
        nav.tabs aria-label=(view.t("chat.kinds")) {
            @for (name, path, title) in tabs {
                a href=(path) aria-current=[(name == current).then_some("page")] { (view.t(title)) }
            }
        }
    }
}

fn talk(view: &View) -> Markup {
    html! {
        section.talk aria-label=(view.t("chat.title")) {
            ol.messages #messages aria-live="polite" tabindex="0" aria-label=(view.t("chat.messages")) {}
            div.start #start {
                (sketch())
                p.title { (view.t("chat.start")) }
                @for example in ["chat.example-1", "chat.example-2", "chat.example-3"] {
                    button.example type="button" { (view.t(example)) }
                }
            }
            form.composer #composer {
                label.hidden for="prompt" { (view.t("chat.prompt")) }
                textarea #prompt rows="2" placeholder=(view.t("chat.prompt")) required autofocus {}
                div.actions {
                    span.hint { (view.t("chat.hint")) }
                    button.quiet #clear type="button" { (view.t("chat.clear")) }
                    button.quiet #stop type="button" disabled { (view.t("chat.stop")) }
                    button.primary #send type="submit" { (view.t("chat.send")) }
                }
            }
        }
    }
}

/// What answers are going to fill: the outline of a mosaic, its first tiles set along a wave.
fn sketch() -> Markup {
    const WAVE: [usize; 28] = [3, 3, 2, 1, 1, 1, 2, 3, 4, 4, 4, 3, 2, 1, 1, 1, 2, 3, 4, 4, 4, 3, 2, 1, 1, 1, 2, 3];
    const STONES: [&str; 3] = ["lapis", "malachite", "gold"];
    // How far the work has come in each row.
    const SET: [usize; 6] = [0, 14, 16, 13, 11, 9];
    let stone = |x: usize, y: usize| STONES.get(y.checked_sub(WAVE[x])?).filter(|_| x < SET[y]);
    html! {
        svg.sketch viewBox="0 0 616 132" aria-hidden="true" {
            @for (x, y) in (0..WAVE.len()).flat_map(|x| (0..SET.len()).map(move |y| (x, y))) {
                rect.(stone(x, y).unwrap_or(&"bare")) x=(x * 22 + 1) y=(y * 22 + 1) width="20" height="20" rx="3" {}
            }
        }
    }
}

fn parameters(view: &View, names: &[String]) -> Markup {
    html! {
        aside.panel aria-label=(view.t("chat.parameters")) {
            label.field {
                span { (view.t("chat.model")) }
                select #model name="model" { @for name in names { option value=(name) { (name) } } }
            }
            details #parameters open {
                summary { (view.t("chat.parameters")) }
                label.field {
                    span { (view.t("chat.system")) }
                    textarea name="system" rows="3" {}
                }
                (slider(view.t("chat.temperature"), "temperature", "0.7", "2"))
                (slider(view.t("chat.top-p"), "top_p", "1", "1"))
                div.pair {
                    label.field { span { (view.t("chat.max-tokens")) } input type="number" name="max_tokens" value="256" min="1" step="1"; }
                    label.field { span { (view.t("chat.seed")) } input type="number" name="seed" placeholder=(view.t("chat.seed-none")) step="1"; }
                }
            }
            section.key aria-label=(view.t("chat.pace")) {
                h2 { (view.t("chat.pace")) }
                p.note { (view.t("chat.pace-note")) }
                ul.stones {
                    @for (stone, limit) in [("malachite", "≤ 20 ms"), ("lapis", "≤ 50 ms"), ("gold", "≤ 150 ms"), ("porphyry", "> 150 ms")] {
                        li { i.tile.(stone) aria-hidden="true" {} (limit) }
                    }
                }
            }
        }
    }
}

fn slider(name: &str, field: &str, value: &str, most: &str) -> Markup {
    html! {
        label.field {
            span { (name) output { (value) } }
            input type="range" name=(field) min="0" max=(most) step="0.05" value=(value);
        }
    }
}
