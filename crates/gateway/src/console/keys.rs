//! API keys: make one and see its secret once, see all, end one.
//!
//! The first key closes the open door: from then on everybody needs one. So it is an admin's, and the browser that made it is signed
//! in with it at once.

use std::sync::Arc;

use axum::{
    Form,
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use ledger::{ApiKey, Grant, Keys, Limits, Role};
use maud::{Markup, html};
use protocol::Error;
use serde::Deserialize;

use super::{
    audit::moment,
    frame::{self, Page, number},
    sign,
    view::View,
};
use crate::{app::App, refusal::Refusal};

/// `GET /console/keys`.
pub(super) async fn page(State(app): State<Arc<App>>, view: View) -> Response {
    let keys = match keys(&app, &view) {
        Ok(keys) => keys,
        Err(refused) => return *refused,
    };
    let content = html! {
        (frame::heading(view.t("nav.keys"), &html! {}))
        @if !keys.exist() { p.notice.below { (view.t("keys.open")) } }
        (form(&app, &view, keys.exist()))
        div #keys { (list(&view, &keys, None).await) }
    };
    frame::page(&view, Page::Keys, view.t("nav.keys"), &["keys.mjs"], &content)
}

fn keys(app: &App, view: &View) -> Result<Keys, Box<Response>> {
    view.caller.may_administer().map_err(|error| Box::new(sign::refused(view, Page::Keys, &error)))?;
    app.gateway.ledger.as_ref().map(ledger::Ledger::keys).ok_or_else(|| {
        let next = html! { (view.t("audit.off-next")) " " code { "[ledger] url = \"sqlite:tessera.db\"" } };
        let content =
            html! { (frame::heading(view.t("nav.keys"), &html! {})) (frame::empty(view.t("keys.off"), &next)) };
        Box::new(frame::page(view, Page::Keys, view.t("nav.keys"), &[], &content))
    })
}

fn form(app: &App, view: &View, others: bool) -> Markup {
    let models: Vec<_> = app.models().into_iter().map(|model| model.id).collect();
    html! {
        form.card.make hx-post="/console/keys" hx-target="#keys" hx-swap="innerHTML" {
            h2 { (view.t("keys.make")) }
            div.fields {
                (text(view.t("keys.name"), "name", "", view.t("keys.name-example")))
                (text(view.t("keys.tenant"), "tenant", crate::DEFAULT_TENANT, ""))
                label.field {
                    span { (view.t("keys.role")) }
                    select name="role" {
                        @if others { option value="user" { (view.t("keys.user")) } option value="auditor" { (view.t("keys.auditor")) } }
                        option value="admin" { (view.t("keys.admin")) }
                    }
                }
                label.field {
                    span { (view.t("keys.models")) }
                    input name="models" list="models" placeholder=(view.t("keys.all-models"));
                    datalist #models { @for model in &models { option value=(model) {} } }
                }
                label.field { span { (view.t("keys.requests")) } input type="number" name="requests" min="1" placeholder=(view.t("keys.no-limit")); }
                label.field { span { (view.t("keys.tokens")) } input type="number" name="tokens" min="1" placeholder=(view.t("keys.no-limit")); }
            }
            div.actions { span.hint { (view.t("keys.make-note")) } button.primary type="submit" { (view.t("keys.make")) } }
        }
    }
}

fn text(name: &str, field: &str, value: &str, example: &str) -> Markup {
    html! { label.field { span { (name) } input name=(field) value=(value) placeholder=(example) maxlength="128" required; } }
}

/// What a key is to be; empty fields mean no limit.
#[derive(Debug, Deserialize)]
pub(super) struct Wanted {
    name: String,
    tenant: String,
    role: Role,
    models: String,
    requests: String,
    tokens: String,
}

impl Wanted {
    /// A number that cannot be read is refused: as no limit at all it would be the opposite of what was meant.
    fn grant(self) -> Result<Grant, Error> {
        let limits = Limits { requests: limit("requests", &self.requests)?, tokens: limit("tokens", &self.tokens)? };
        let models = self.models.split([',', '，']).map(str::trim).filter(|name| !name.is_empty());
        Ok(Grant {
            name: self.name.trim().to_owned(),
            tenant: self.tenant.trim().to_owned(),
            role: self.role,
            models: models.map(str::to_owned).collect(),
            limits,
            budgets: Vec::new(),
            expires_at: None,
        })
    }
}

/// A limit a minute; an empty field is none.
fn limit(field: &str, text: &str) -> Result<Option<u32>, Error> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().ok().filter(|limit| *limit > 0).map(Some).ok_or_else(|| {
        let message =
            format!("`{field}` is {text:?}: write a whole number from 1 to {}, or nothing for no limit.", u32::MAX);
        Error::invalid(field, message)
    })
}

/// `POST /console/keys`.
pub(super) async fn create(State(app): State<Arc<App>>, view: View, Form(wanted): Form<Wanted>) -> Response {
    let keys = match keys(&app, &view) {
        Ok(keys) => keys,
        Err(refused) => return *refused,
    };
    let mut grant = match wanted.grant() {
        Ok(grant) => grant,
        Err(error) => return Refusal::from(error).into_response(),
    };
    let first = !app.auth.demanded();
    if first {
        grant.role = Role::Admin;
    }
    match keys.create(grant).await {
        Ok((key, secret)) => {
            let response = frame::fragment(&list(&view, &keys, Some((&key, &secret))).await);
            if first { sign::with_cookie(&app, response, &secret) } else { response }
        }
        Err(error) => Refusal::from(protocol::Error::from(error)).into_response(),
    }
}

/// `POST /console/keys/{id}/revoke`.
pub(super) async fn revoke(State(app): State<Arc<App>>, view: View, Path(id): Path<String>) -> Response {
    let keys = match keys(&app, &view) {
        Ok(keys) => keys,
        Err(refused) => return *refused,
    };
    match keys.revoke(&id).await {
        Ok(()) => frame::fragment(&list(&view, &keys, None).await),
        Err(error) => Refusal::from(protocol::Error::from(error)).into_response(),
    }
}

/// The keys there are, below the one that was just made, with its secret.
async fn list(view: &View, keys: &Keys, made: Option<(&ApiKey, &str)>) -> Markup {
    let all = keys.list(None).await;
    html! {
        @if let Some((key, secret)) = made { (shown_once(view, key, secret)) }
        @match all {
            Err(error) => p.failure { (view.failure(&error.into())) },
            Ok(all) if all.is_empty() => {},
            Ok(all) => (table(view, &all)),
        }
    }
}

fn shown_once(view: &View, key: &ApiKey, secret: &str) -> Markup {
    html! {
        div.card.secret role="status" {
            p.title { (view.t("keys.made")) " " b { (key.grant.name) } }
            p { (view.t("keys.once")) }
            div.copy {
                input.mono readonly value=(secret) aria-label=(view.t("keys.secret"));
                button.quiet type="button" data-copy=(view.t("keys.copied")) { (view.t("keys.copy")) }
            }
            pre { "curl http://HOST/v1/models -H 'authorization: Bearer " (secret.get(..12).unwrap_or_default()) "…'" }
        }
    }
}

fn table(view: &View, all: &[ApiKey]) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label=(view.t("nav.keys")) {
            table {
                thead { tr { @for name in ["keys.name", "keys.tenant", "keys.role", "keys.models", "keys.limits", "keys.created", "keys.used", "keys.state"] {
                    th scope="col" { (view.t(name)) }
                } } }
                tbody { @for key in all { (row(view, key)) } }
            }
        }
    }
}

fn row(view: &View, key: &ApiKey) -> Markup {
    let ApiKey { id, grant, created_at, revoked_at, used_at } = key;
    let limit = |limit: Option<u32>| limit.map_or("–".to_owned(), |limit| number(limit.into()));
    html! {
        tr.revoked[revoked_at.is_some()] {
            th scope="row" { div.name { (grant.name) } code.note { (id) } }
            td { (grant.tenant) }
            td { (role(view, grant.role)) }
            td { @if grant.models.is_empty() { (view.t("keys.all-models")) } @else { (grant.models.join(", ")) } }
            td { (limit(grant.limits.requests)) " / " (limit(grant.limits.tokens)) }
            td { (moment(*created_at)) }
            td { @if let Some(at) = used_at { (moment(*at)) } @else { "–" } }
            td {
                @if revoked_at.is_some() { span.state { i.tile.porphyry aria-hidden="true" {} (view.t("keys.revoked")) } }
                @else {
                    button.danger type="button" hx-post={ "/console/keys/" (id) "/revoke" } hx-target="#keys" hx-swap="innerHTML"
                        hx-confirm=(view.t("keys.sure")) { (view.t("keys.revoke")) }
                }
            }
        }
    }
}

fn role(view: &View, role: Role) -> &'static str {
    match role {
        Role::Admin => view.t("keys.admin"),
        Role::User => view.t("keys.user"),
        Role::Auditor => view.t("keys.auditor"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_or_refused() {
        let check =
            |text: &str, expected: Option<Option<u32>>| assert_eq!(limit("requests", text).ok(), expected, "{text}");
        check("", Some(None));
        check(" 60 ", Some(Some(60)));
        for wrong in ["1e3", "99999999999", "0", "-1", "1.5", "many"] {
            check(wrong, None);
        }
    }
}
