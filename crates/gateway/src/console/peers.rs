//! Upstreams and workers: who answers from elsewhere, where that is, and why not if not. For those who administer the server, since
//! addresses tell how its network is laid out.

use axum::http::Uri;
use maud::{Markup, html};
use protocol::{Circuit, Error};

use super::view::View;
use crate::{Peer, PeerKind, Services, settings::Api};

/// The section of the models page; nothing where everything is in this process.
pub(super) fn section(view: &View, peers: &[Peer]) -> Markup {
    html! {
        @if !peers.is_empty() && view.caller.may_administer().is_ok() {
            section.section {
                h2 { (view.t("peers.title")) }
                (table(view, peers))
            }
        }
    }
}

fn table(view: &View, peers: &[Peer]) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label=(view.t("peers.title")) {
            table.peers {
                thead { tr { @for name in ["peers.name", "peers.address", "peers.models", "peers.state", "peers.breaker"] {
                    th scope="col" { (view.t(name)) }
                } } }
                tbody { @for peer in peers { (row(view, peer)) } }
            }
        }
    }
}

fn row(view: &View, peer: &Peer) -> Markup {
    let trouble = peer.offers.states().into_iter().find_map(Result::err);
    let address = address(&peer.url);
    html! {
        tr {
            th scope="row" {
                div.name { (if peer.kind == PeerKind::Worker { view.t("peers.worker") } else { &peer.name }) }
                div.note { (kind(view, peer.kind)) }
            }
            td { code { (address) } }
            td { (models(&peer.offers)) }
            td { (state(view, trouble.as_ref())) }
            td { (breaker(view, peer)) }
        }
    }
}

fn kind(view: &View, kind: PeerKind) -> &'static str {
    match kind {
        PeerKind::Upstream(Api::OpenAi) => view.t("peers.openai"),
        PeerKind::Upstream(Api::Anthropic) => view.t("peers.anthropic"),
        PeerKind::Worker => view.t("peers.tessera"),
    }
}

/// Names of what it offers: models, then decisions.
fn models(offers: &Services) -> String {
    let mut names: Vec<String> = Vec::new();
    let texts = offers.generate.iter().flat_map(|service| service.models());
    let vectors = offers.embed.iter().flat_map(|service| service.models());
    let images = offers.draw.iter().flat_map(|service| service.models());
    let decisions = offers.decide.iter().flat_map(|service| service.decisions()).map(|card| card.id);
    for name in texts.chain(vectors).chain(images).map(|card| card.id).chain(decisions) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    if names.is_empty() { "–".to_owned() } else { names.join(", ") }
}

fn state(view: &View, trouble: Option<&Error>) -> Markup {
    html! {
        @match trouble {
            None => span.state { i.tile.malachite aria-hidden="true" {} (view.t("models.ready")) },
            Some(error) => {
                span.state { i.tile.porphyry aria-hidden="true" {} (view.t("models.broken")) }
                @if error.code.as_deref() != Some("breaker_open") { div.note { (view.failure(error)) } }
            }
        }
    }
}

/// Only upstreams of text stand behind a breaker.
fn breaker(view: &View, peer: &Peer) -> Markup {
    html! {
        @match peer.offers.generate.iter().find_map(|service| service.circuit()) {
            None => "–",
            Some(Circuit::Closed) => (view.t("peers.closed")),
            Some(Circuit::Open(left)) => {
                span.chip { (view.t("peers.open")) }
                div.note { (view.t("peers.open-note").replace("{}", &left.as_secs().max(1).to_string())) }
            }
            Some(Circuit::HalfOpen { probing }) => {
                span.chip { (view.t("peers.half-open")) }
                div.note { (view.t(if probing { "peers.probing" } else { "peers.half-open-note" })) }
            }
        }
    }
}

/// An address as it may be shown: names, passwords and queries may be secrets.
fn address(url: &str) -> String {
    let Ok(uri) = url.parse::<Uri>() else { return "–".to_owned() };
    let (scheme, host) = (uri.scheme_str().unwrap_or("http"), uri.host().unwrap_or_default());
    let port = uri.port_u16().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{scheme}://{host}{port}{}", uri.path().trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_keep_their_secrets() {
        for (url, shown) in [
            ("http://gpu-1:8000/v1/", "http://gpu-1:8000/v1"),
            ("https://ada:secret@api.example/v1?key=secret", "https://api.example/v1"),
            ("http://[::1]:9090", "http://[::1]:9090"),
            ("not an address", "–"),
        ] {
            assert_eq!(address(url), shown);
        }
    }
}
