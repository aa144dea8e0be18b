//! What every page has around its content: the head, the way to the other pages, language and theme, and the mark.

use axum::{
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{Html, IntoResponse, Response},
};
use maud::{DOCTYPE, Markup, html};

use super::{
    assets,
    text::Lang,
    view::{Theme, View},
};

/// The pages one can go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Page {
    Play,
    Traffic,
    Audit,
    Models,
    Rollouts,
    Keys,
    Settings,
    /// Outside the navigation: signing in, what does not exist.
    Aside,
}

/// Address, name and icon of a page. Icons are paths on a grid of 16, made of tiles like everything here.
const NAVIGATION: [(Page, &str, &str, &str); 7] = [
    (Page::Play, "/", "nav.play", "M2 3h12v8H7l-3 3v-3H2z"),
    (Page::Traffic, "/console/traffic", "nav.traffic", "M2 9h3v5H2zM6.5 5h3v9h-3zM11 2h3v12h-3z"),
    (Page::Audit, "/console/audit", "nav.audit", "M3 2h10v12H3zM5 5h6M5 8h6M5 11h3"),
    (Page::Models, "/console/models", "nav.models", "M2 2h5v5H2zM9 2h5v5H9zM2 9h5v5H2zM9 9h5v5H9z"),
    (Page::Rollouts, "/console/rollouts", "nav.rollouts", "M2 13h3v-3H2zM6.5 13h3V7h-3zM11 13h3V3h-3zM2 6l4-3 3 1"),
    (Page::Keys, "/console/keys", "nav.keys", "M2 8a3 3 0 1 0 6 0a3 3 0 1 0-6 0M8 8h6M12 8v3"),
    (Page::Settings, "/console/settings", "nav.settings", "M2 4h12M2 8h12M2 12h12M5 2.5v3M10.5 6.5v3M6.5 10.5v3"),
];

/// A whole page. `scripts` are modules of ours that it needs.
pub(super) fn page(view: &View, page: Page, title: &str, scripts: &[&str], content: &Markup) -> Response {
    let theme = (view.theme != Theme::Auto).then(|| view.theme.word());
    let whole = html! {
        (DOCTYPE)
        html lang=(view.lang.tag()) data-theme=[theme] {
            (head(title, scripts))
            body {
                a.skip href="#main" { (view.t("frame.skip")) }
                (side(view, page))
                main #main tabindex="-1" { (content) }
            }
        }
    };
    respond(StatusCode::OK, &whole)
}

/// A part of a page, for htmx to put in.
pub(super) fn fragment(content: &Markup) -> Response {
    respond(StatusCode::OK, content)
}

/// HTML under the rules that every page keeps: scripts and styles are files of ours and nothing else runs, nobody frames us, and
/// nothing of it is kept by the browser.
pub(super) fn respond(status: StatusCode, markup: &Markup) -> Response {
    const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
                          form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
    let headers = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "same-origin"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    let mut response = (status, Html(markup.0.clone())).into_response();
    for (name, value) in headers {
        response.headers_mut().insert::<HeaderName>(name, HeaderValue::from_static(value));
    }
    response
}

fn head(title: &str, scripts: &[&str]) -> Markup {
    // htmx may not write styles; the policy above forbids it anyway. Going back loads a page again, since it shows what is now.
    const HTMX: &str = r#"{"includeIndicatorCSS": false, "history": "reload"}"#;
    html! {
        head {
            meta charset="utf-8";
            meta name="viewport" content="width=device-width, initial-scale=1";
            meta name="htmx-config" content=(HTMX);
            title { (title) " · Tessera" }
            link rel="icon" type="image/svg+xml" href=(assets::url("mark.svg"));
            link rel="stylesheet" href=(assets::url("console.css"));
            script src=(assets::url("vendor/htmx-4.0.1.min.js")) defer {}
            @for script in scripts {
                @if script.ends_with(".mjs") { script type="module" src=(assets::url(script)) {} }
                @else { script src=(assets::url(script)) defer {} }
            }
        }
    }
}

fn side(view: &View, current: Page) -> Markup {
    html! {
        header.side {
            a.brand href="/" { (mark()) span { "Tessera" } }
            nav aria-label=(view.t("frame.pages")) {
                @for (page, path, name, icon) in NAVIGATION {
                    a href=(path) aria-current=[(page == current).then_some("page")] {
                        svg.icon viewBox="0 0 16 16" aria-hidden="true" { path d=(icon) {} }
                        span { (view.t(name)) }
                    }
                }
            }
            div.prefer {
                (who(view))
                form method="post" action="/console/prefer" {
                    input type="hidden" name="back" value=(view.here);
                    (language(view))
                    (theme(view))
                }
            }
        }
    }
}

/// Who is signed in, and the way out.
fn who(view: &View) -> Markup {
    html! {
        @if view.caller.is_known() {
            form.who method="post" action="/console/sign-out" {
                span title=(view.caller.key_id) { (view.caller.tenant) }
                button type="submit" { (view.t("sign.out")) }
            }
        }
    }
}

fn language(view: &View) -> Markup {
    let choices = [(Lang::En, "EN", "English"), (Lang::Zh, "中", "中文")];
    html! {
        div.switch role="group" aria-label=(view.t("frame.language")) {
            @for (lang, short, name) in choices {
                button type="submit" name="lang" value=(lang.code()) lang=(lang.tag()) title=(name)
                    aria-pressed=(if lang == view.lang { "true" } else { "false" }) {
                    span aria-hidden="true" { (short) }
                    span.hidden { (name) }
                }
            }
        }
    }
}

fn theme(view: &View) -> Markup {
    const AUTO: &str = "M8 2a6 6 0 0 0 0 12z M8 2a6 6 0 0 1 0 12";
    const LIGHT: &str = "M5 8a3 3 0 1 0 6 0a3 3 0 1 0-6 0M8 1v2M8 13v2M1 8h2M13 8h2M3 3l1.5 1.5M11.5 11.5L13 13M3 13l1.5-1.5M11.5 4.5L13 3";
    const DARK: &str = "M13 10A6 6 0 0 1 6 3a6 6 0 1 0 7 7z";
    let choices =
        [(Theme::Auto, "frame.auto", AUTO), (Theme::Light, "frame.light", LIGHT), (Theme::Dark, "frame.dark", DARK)];
    html! {
        div.switch role="group" aria-label=(view.t("frame.theme")) {
            @for (theme, name, icon) in choices {
                button type="submit" name="theme" value=(theme.word()) title=(view.t(name))
                    aria-pressed=(if theme == view.theme { "true" } else { "false" }) {
                    svg.icon viewBox="0 0 16 16" aria-hidden="true" { path d=(icon) {} }
                    span.hidden { (view.t(name)) }
                }
            }
        }
    }
}

/// The mark: a small mosaic with its last tile being set.
fn mark() -> Markup {
    const TILES: [(u8, u8, &str); 8] = [
        (0, 0, "lapis"),
        (1, 0, "lapis"),
        (2, 0, "gold"),
        (0, 1, "lapis"),
        (1, 1, "gold"),
        (2, 1, "malachite"),
        (0, 2, "gold"),
        (1, 2, "malachite"),
    ];
    html! {
        svg.mark viewBox="0 0 24 24" aria-hidden="true" {
            @for (x, y, stone) in TILES {
                rect.(stone) x=(1 + x * 7) y=(2 + y * 7) width="6" height="6" rx="1" {}
            }
            rect.porphyry x="16" y="17" width="6" height="6" rx="1" transform="rotate(14 19 20)" {}
        }
    }
}

/// The page's title with what belongs beside it.
pub(super) fn heading(title: &str, beside: &Markup) -> Markup {
    html! { div.heading { h1 { (title) } (beside) } }
}

/// What a page shows while there is nothing to show: what it is, and what to do next.
pub(super) fn empty(title: &str, next: &Markup) -> Markup {
    html! {
        div.empty {
            svg.outline viewBox="0 0 62 20" aria-hidden="true" {
                @for (x, set) in [(0, true), (21, true), (42, false)] {
                    rect.set[set] x=(x + 1) y="1" width="18" height="18" rx="2" {}
                }
            }
            p.title { (title) }
            p { (next) }
        }
    }
}

/// Texts that a script shows, as JSON for a `data-texts` attribute; a script knows a key by what stands behind its family.
pub(super) fn texts(view: &View, keys: &[&str]) -> String {
    let pair = |key: &&str| {
        let name = key.split_once('.').map_or(*key, |(_, name)| name);
        (name.to_owned(), serde_json::Value::from(view.t(key)))
    };
    serde_json::Value::Object(keys.iter().map(pair).collect()).to_string()
}

/// Numbers with thin groups of three digits, which both languages read.
pub(super) fn number(n: u64) -> String {
    let digits = n.to_string();
    let groups: Vec<&str> = {
        let first = digits.len() % 3;
        let (head, tail) = digits.split_at(first);
        let tail = (0..tail.len() / 3).map(|i| &tail[i * 3..i * 3 + 3]);
        std::iter::once(head).filter(|head| !head.is_empty()).chain(tail).collect()
    };
    groups.join("\u{202f}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        for (n, shown) in [(0, "0"), (999, "999"), (1000, "1\u{202f}000"), (1_234_567, "1\u{202f}234\u{202f}567")] {
            assert_eq!(number(n), shown);
        }
    }
}
