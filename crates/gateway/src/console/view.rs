//! What a page knows about the person who looks: language, light or dark, who they are.
//!
//! Language and theme follow the browser until the person chooses; a choice is a cookie, so that the first byte of the next page is
//! right already and nothing flickers.

use std::sync::Arc;

use axum::{
    Form,
    extract::FromRequestParts,
    http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use maud::{Markup, html};
use protocol::{Error, ErrorKind};
use serde::Deserialize;

use super::text::{self, Lang};
use crate::Caller;

const LANG: &str = "tessera-lang";
const THEME: &str = "tessera-theme";

/// Who looks at a page, and how they want to see it.
#[derive(Debug, Clone)]
pub(crate) struct View {
    pub(super) lang: Lang,
    pub(super) theme: Theme,
    pub(super) caller: Arc<Caller>,
    /// The page's address, to come back to.
    pub(super) here: String,
}

/// Light or dark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Theme {
    /// As the browser has it.
    Auto,
    Light,
    Dark,
}

impl Theme {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Light => "light",
            Self::Dark => "dark",
        }
    }

    fn of(word: &str) -> Self {
        match word {
            "light" => Self::Light,
            "dark" => Self::Dark,
            _ => Self::Auto,
        }
    }
}

impl View {
    /// The text called `key` in the person's language.
    pub(super) fn t(&self, key: &str) -> &'static str {
        text::text(self.lang, key)
    }

    /// What went wrong: a service's own words, and where the person reads another language, what kind of thing that is in front.
    pub(super) fn failure(&self, error: &Error) -> Markup {
        html! {
            @match self.lang {
                Lang::En => (error.message),
                Lang::Zh => { (self.t(kind_of(error.kind))) " " small lang="en" { (error.message) } }
            }
        }
    }

    fn new(headers: &HeaderMap, caller: Arc<Caller>, here: String) -> Self {
        let accepted = headers.get(header::ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let lang = cookie(headers, LANG).and_then(Lang::of_code).unwrap_or_else(|| Lang::accepted(accepted));
        let theme = cookie(headers, THEME).map_or(Theme::Auto, Theme::of);
        Self { lang, theme, caller, here }
    }
}

/// Every text that says what kind of thing went wrong; scripts get them with a page's other texts.
pub(super) const FAILURES: [&str; 8] = [
    "failure.absent",
    "failure.forbidden",
    "failure.budget",
    "failure.busy",
    "failure.late",
    "failure.stopping",
    "failure.upstream",
    "failure.other",
];

fn kind_of(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::NotFound => "failure.absent",
        ErrorKind::Forbidden | ErrorKind::Unauthenticated => "failure.forbidden",
        ErrorKind::OverBudget => "failure.budget",
        ErrorKind::Overloaded => "failure.busy",
        ErrorKind::DeadlineExceeded => "failure.late",
        ErrorKind::ShuttingDown => "failure.stopping",
        ErrorKind::Upstream => "failure.upstream",
        _ => "failure.other",
    }
}

impl<S: Send + Sync> FromRequestParts<S> for View {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let caller = parts.extensions.get::<Arc<Caller>>().cloned().unwrap_or_else(|| Arc::new(Caller::open()));
        let here = parts.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Ok(Self::new(&parts.headers, caller, here))
    }
}

/// The value of a cookie.
pub(super) fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let values = headers.get_all(header::COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    let pairs = values.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.filter(|(key, _)| *key == name).map(|(_, value)| value).next()
}

/// What a person chose.
#[derive(Debug, Deserialize)]
pub(super) struct Choice {
    lang: Option<String>,
    theme: Option<String>,
    back: String,
}

/// `POST /console/prefer`: keeps a choice and goes back to the page it was made on. Works without scripts.
pub(super) async fn prefer(Form(choice): Form<Choice>) -> Response {
    let lang = choice.lang.as_deref().and_then(Lang::of_code).map(|lang| (LANG, lang.code()));
    let theme = choice.theme.as_deref().map(|word| (THEME, Theme::of(word).word()));
    let mut response = see_other(&choice.back);
    for (name, value) in lang.into_iter().chain(theme) {
        let cookie = format!("{name}={value}; Path=/; Max-Age=31536000; SameSite=Lax; HttpOnly");
        if let Ok(cookie) = HeaderValue::try_from(cookie) {
            response.headers_mut().append(header::SET_COOKIE, cookie);
        }
    }
    response
}

/// Sends the browser to one of our own pages; anywhere else becomes the first page.
pub(super) fn see_other(path: &str) -> Response {
    // `//host` and `/\host` are addresses of other servers to a browser.
    let ours = path.starts_with('/') && !path.starts_with("//") && !path.contains('\\');
    let path = HeaderValue::from_str(if ours { path } else { "/" });
    (StatusCode::SEE_OTHER, [(header::LOCATION, path.unwrap_or(HeaderValue::from_static("/")))]).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(headers: &[(header::HeaderName, &str)]) -> View {
        let headers = headers.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect();
        View::new(&headers, Arc::new(Caller::open()), "/".to_owned())
    }

    #[test]
    fn language_and_theme_follow_the_choice_then_the_browser() {
        let check = |headers: &[(header::HeaderName, &str)], lang, theme| {
            let view = view(headers);
            assert_eq!((view.lang, view.theme), (lang, theme), "{headers:?}");
        };
        let accept = header::ACCEPT_LANGUAGE;
        check(&[], Lang::En, Theme::Auto);
        check(&[(accept.clone(), "zh-CN,zh;q=0.9,en;q=0.8")], Lang::Zh, Theme::Auto);
        check(&[(accept.clone(), "de,en;q=0.8,zh;q=0.5")], Lang::En, Theme::Auto);
        check(&[(accept.clone(), "en;q=0.3, zh-Hant;q=0.7")], Lang::Zh, Theme::Auto);
        check(&[(accept, "zh"), (header::COOKIE, "a=b; tessera-lang=en; tessera-theme=dark")], Lang::En, Theme::Dark);
        check(&[(header::COOKIE, "tessera-lang=xx; tessera-theme=<b>")], Lang::En, Theme::Auto);
    }

    #[test]
    fn failures_are_told_in_the_readers_language_beside_the_original() {
        let error = Error::new(ErrorKind::Upstream, "The upstream <b> failed.");
        let check = |lang, expected| {
            let shown = view(&[(header::ACCEPT_LANGUAGE, lang)]).failure(&error).into_string();
            assert_eq!(shown, expected);
        };
        check("en", "The upstream &lt;b&gt; failed.");
        check("zh", "上游服务出错。 <small lang=\"en\">The upstream &lt;b&gt; failed.</small>");
    }

    #[test]
    fn nobody_is_sent_to_a_stranger() {
        for (asked, sent) in [
            ("/console/audit?q=a", "/console/audit?q=a"),
            ("//evil.example", "/"),
            ("/\\evil.example", "/"),
            ("https://evil.example", "/"),
            ("/a\nb", "/"),
            ("", "/"),
        ] {
            assert_eq!(see_other(asked).headers()[header::LOCATION], sent, "{asked:?}");
        }
    }
}
