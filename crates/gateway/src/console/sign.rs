//! Who may see the console. While no keys are demanded, whoever sits at this machine; after that, whoever pastes a key.
//!
//! The key becomes a cookie that scripts cannot read and other sites cannot send; the layer that judges keys judges it like any other,
//! on every request, so a revoked key is out at once and the server keeps no sessions that a second gateway would not know.

use std::sync::Arc;

use axum::{
    Form,
    extract::{Query, Request, State},
    http::{HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use maud::html;
use protocol::{Error, ErrorKind};
use serde::Deserialize;

use super::{
    frame::{self, Page},
    view::{self, View},
};
use crate::{
    app::App,
    auth::{COOKIE, from_here},
    refusal::Refusal,
};

/// A day's work; the browser forgets the key after it.
const KEPT_SECONDS: u32 = 12 * 60 * 60;

const SIGN_IN: &str = "/console/sign-in";

/// In front of every page: strangers are asked for a key, and nothing changes on another site's behalf.
pub(super) async fn guard(State(app): State<Arc<App>>, view: View, request: Request, next: Next) -> Response {
    if request.method() != Method::GET && !from_here(request.headers(), !app.auth.demanded()) {
        let message = "This was not sent by a page of this console.";
        return Refusal::from(Error::new(ErrorKind::Forbidden, message).with_code("cross_site")).into_response();
    }
    if view.caller.is_nobody() && request.uri().path() != SIGN_IN {
        let place = place(&view);
        // htmx would put the page it is sent to into the one it stands on.
        if request.headers().contains_key("hx-request") {
            let redirect = HeaderValue::try_from(place).unwrap_or(HeaderValue::from_static(SIGN_IN));
            return ([("hx-redirect", redirect)], "").into_response();
        }
        return view::see_other(&place);
    }
    next.run(request).await
}

/// Sends a stranger to where a key is asked for.
pub(super) fn ask(view: &View) -> Response {
    view::see_other(&place(view))
}

/// Where a key is asked for, and the way back.
fn place(view: &View) -> String {
    format!("{SIGN_IN}?back={}", encoded(&view.here))
}

/// Where to go once signed in.
#[derive(Debug, Deserialize)]
pub(super) struct Back {
    back: Option<String>,
}

/// `GET /console/sign-in`.
pub(super) async fn page(view: View, Query(Back { back }): Query<Back>) -> Response {
    form(&view, back.as_deref().unwrap_or("/"), None, StatusCode::OK)
}

fn form(view: &View, back: &str, wrong: Option<&str>, status: StatusCode) -> Response {
    let content = html! {
        div.sign {
            h1 { (view.t("sign.title")) }
            p.note { (view.t("sign.note")) }
            @if let Some(wrong) = wrong { p.failure role="alert" { (wrong) } }
            form method="post" action=(SIGN_IN) {
                input type="hidden" name="back" value=(back);
                // Password managers file what they keep under a name.
                input.hidden type="text" name="username" value="tessera" autocomplete="username" tabindex="-1" aria-hidden="true" readonly;
                label.field { span { (view.t("sign.key")) } input type="password" name="key" autocomplete="current-password" required autofocus; }
                button.primary type="submit" { (view.t("sign.in")) }
            }
            p.note { (view.t("sign.none")) " " code { "tessera keys create" } }
        }
    };
    let mut response = frame::page(view, Page::Aside, view.t("sign.title"), &[], &content);
    *response.status_mut() = status;
    response
}

/// What was pasted.
#[derive(Debug, Deserialize)]
pub(super) struct Pasted {
    key: String,
    back: String,
}

/// `POST /console/sign-in`.
pub(super) async fn sign_in(State(app): State<Arc<App>>, view: View, Form(pasted): Form<Pasted>) -> Response {
    let secret = pasted.key.trim();
    match app.auth.caller(Some(secret), false).await {
        Ok(_) => with_cookie(&app, view::see_other(&pasted.back), secret),
        Err(error) => form(&view, &pasted.back, Some(&error.message), StatusCode::UNAUTHORIZED),
    }
}

/// `POST /console/sign-out`.
pub(super) async fn sign_out(State(app): State<Arc<App>>) -> Response {
    cookie(&app, view::see_other("/"), "", 0)
}

/// Signs the browser in with this key.
pub(super) fn with_cookie(app: &App, response: Response, secret: &str) -> Response {
    cookie(app, response, secret, KEPT_SECONDS)
}

/// Where connections are TLS the browser never sends it over any other.
fn cookie(app: &App, mut response: Response, secret: &str, seconds: u32) -> Response {
    let secure = if app.tls { "; Secure" } else { "" };
    let cookie = format!("{COOKIE}={secret}; Path=/; Max-Age={seconds}; SameSite=Strict; HttpOnly{secure}");
    if let Ok(cookie) = HeaderValue::try_from(cookie) {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    response
}

/// A page for somebody who may not see what they asked for.
pub(super) fn refused(view: &View, page: Page, error: &Error) -> Response {
    let content = frame::empty(view.t("sign.refused"), &view.failure(error));
    let mut response = frame::page(view, page, view.t("sign.refused"), &[], &content);
    *response.status_mut() = StatusCode::FORBIDDEN;
    response
}

/// An address as the value of a query.
pub(super) fn encoded(text: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/-_.~".contains(byte);
    text.bytes().map(|byte| if plain(&byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_encoded() {
        assert_eq!(encoded("/console/audit?q=a b&c"), "/console/audit%3Fq%3Da%20b%26c");
    }
}
