//! Models: who answers here, what each of them can do as a mosaic of capabilities, and how busy it is now.

use std::{collections::HashMap, sync::Arc};

use axum::{extract::State, response::Response};
use maud::{Markup, html};
use protocol::{Capabilities, Error, Load, ModelCard};

use super::{
    frame::{self, Page, number},
    peers, scrape,
    view::View,
};
use crate::{Services, app::App, measure};

/// A model as one service offers it.
struct Offer {
    card: ModelCard,
    ready: Result<(), Error>,
    load: Option<Load>,
    /// It continues text, so capabilities of answers mean something.
    text: bool,
}

/// What the metrics say of one model.
#[derive(Debug, Default)]
struct Gauges {
    kv: f64,
    kv_used: f64,
    load: Option<Load>,
}

/// `GET /console/models`; htmx takes the list out of it every few seconds.
pub(super) async fn page(State(app): State<Arc<App>>, view: View) -> Response {
    let services = app.services();
    let (offers, peers) = (offers(&services), &services.peers);
    let gauges = gauges(&measure::render().unwrap_or_default());
    let content = html! {
        (frame::heading(view.t("nav.models"), &html! {}))
        @if offers.is_empty() && peers.is_empty() {
            (frame::empty(view.t("models.none"), &html! { (view.t("models.none-next")) code { "tessera serve --model FILE" } }))
        } @else {
            div #models hx-get="/console/models" hx-trigger="every 3s" hx-select="#models" hx-target="this" hx-swap="outerHTML" {
                @if !offers.is_empty() { (table(&view, &offers, &gauges)) p.note.below { (view.t("models.note")) } }
                (peers::section(&view, peers))
            }
        }
    };
    frame::page(&view, Page::Models, view.t("nav.models"), &[], &content)
}

fn offers(services: &Services) -> Vec<Offer> {
    let texts = services.generate.iter().flat_map(|service| {
        let (ready, load) = (service.ready(), service.load());
        service.models().into_iter().map(move |card| Offer { card, ready: ready.clone(), load, text: true })
    });
    let vectors = services.embed.iter().flat_map(|service| {
        let ready = service.ready();
        let offer = move |card| Offer { card, ready: ready.clone(), load: None, text: false };
        service.models().into_iter().map(offer)
    });
    let mut offers: Vec<Offer> = texts.collect();
    for offer in vectors {
        match offers.iter_mut().find(|seen| seen.card.id == offer.card.id) {
            Some(seen) => seen.card.embeddings = true,
            None => offers.push(offer),
        }
    }
    offers
}

fn gauges(page: &str) -> HashMap<String, Gauges> {
    let mut by_model: HashMap<String, Gauges> = HashMap::new();
    for line in scrape::lines(page) {
        let Some(model) = line.label("model") else { continue };
        let gauges = by_model.entry(model.to_owned()).or_default();
        match line.name {
            "tessera_kv_bytes" => gauges.kv = line.value,
            "tessera_kv_used_bytes" => gauges.kv_used = line.value,
            "tessera_running" => gauges.load.get_or_insert_default().running = line.value as usize,
            "tessera_queued" => gauges.load.get_or_insert_default().waiting = line.value as usize,
            _ => {}
        }
    }
    by_model
}

/// Capabilities in the order of the columns.
fn able(capabilities: &Capabilities) -> [(&'static str, bool); 8] {
    [
        ("models.schema", capabilities.schema),
        ("models.grammar", capabilities.grammar),
        ("models.logprobs", capabilities.logprobs),
        ("models.scoring", capabilities.scoring),
        ("models.seed", capabilities.seed),
        ("models.tools", capabilities.tools),
        ("models.images", capabilities.images),
        ("models.replay", capabilities.replay),
    ]
}

fn table(view: &View, offers: &[Offer], gauges: &HashMap<String, Gauges>) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label=(view.t("nav.models")) {
            table.models {
                thead {
                    tr {
                        th scope="col" { (view.t("models.model")) }
                        th scope="col" { (view.t("models.answers")) }
                        th.number scope="col" { (view.t("models.context")) }
                        @for (name, _) in able(&Capabilities::default()) {
                            th.able scope="col" { span { (view.t(name)) } }
                        }
                        th scope="col" { (view.t("models.load")) }
                        th scope="col" { (view.t("models.kv")) }
                    }
                }
                tbody { @for offer in offers { (row(view, offer, gauges.get(&offer.card.id))) } }
            }
        }
    }
}

fn row(view: &View, offer: &Offer, gauges: Option<&Gauges>) -> Markup {
    let Offer { card, ready, load, text } = offer;
    html! {
        tr {
            th scope="row" {
                div.name { (state(view, ready)) span { (card.id) } }
                div.note {
                    (card.owned_by)
                    @if !card.digest.is_empty() { " · " code title=(card.digest) { (short(&card.digest)) } }
                }
                @if let Err(error) = ready { p.failure { (view.failure(error)) } }
            }
            td { (answers(view, card, *text)) }
            td.number { @if card.context_length > 0 { (number(card.context_length as u64)) } @else { "–" } }
            @for (name, yes) in able(&card.capabilities) {
                td.able {
                    @if *text {
                        i.tile.lapis[yes] aria-hidden="true" title=(view.t(name)) {}
                        span.hidden { (view.t(if yes { "models.yes" } else { "models.no" })) }
                    } @else { span.note aria-hidden="true" { "·" } span.hidden { (view.t("models.no")) } }
                }
            }
            td { (busy(view, load.or(gauges.and_then(|gauges| gauges.load)))) }
            td { (cache(gauges)) }
        }
    }
}

fn state(view: &View, ready: &Result<(), Error>) -> Markup {
    let (stone, word) = if ready.is_ok() { ("malachite", "models.ready") } else { ("porphyry", "models.broken") };
    html! { i.tile.(stone) aria-hidden="true" title=(view.t(word)) {} span.hidden { (view.t(word)) } }
}

fn answers(view: &View, card: &ModelCard, text: bool) -> Markup {
    let kinds =
        [("models.chat", text && card.chat), ("models.text", text), ("models.vectors", card.embeddings || !text)];
    let words: Vec<_> = kinds.iter().filter(|(_, yes)| *yes).map(|(name, _)| view.t(name)).collect();
    html! { (words.join(" · ")) }
}

fn busy(view: &View, load: Option<Load>) -> Markup {
    html! {
        @match load {
            None => "–",
            Some(load) => {
                div.count { (load.running) " " small { (view.t("models.running")) } }
                div.count { (load.waiting) " " small { (view.t("models.waiting")) } }
            }
        }
    }
}

/// How full the key-value cache is.
fn cache(gauges: Option<&Gauges>) -> Markup {
    let full = gauges.filter(|gauges| gauges.kv > 0.0).map(|gauges| 100.0 * gauges.kv_used / gauges.kv);
    html! {
        @match full {
            None => "–",
            Some(percent) => {
                svg.meter viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true" {
                    rect.ground width="100" height="8" {}
                    rect.lapis width=(format!("{percent:.1}")) height="8" {}
                }
                (format!("{percent:.0} %"))
            }
        }
    }
}

/// Enough of a digest to tell two apart.
pub(super) fn short(digest: &str) -> &str {
    let hash = digest.rsplit(':').next().unwrap_or(digest);
    hash.get(..12).unwrap_or(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gauges_belong_to_their_model() {
        let page =
            "tessera_kv_bytes{model=\"a\"} 8\ntessera_kv_used_bytes{model=\"a\"} 2\ntessera_kv_bytes{model=\"b\"} 4\n";
        let found = gauges(page);
        assert_eq!((found.len(), found["a"].kv_used, found["b"].kv), (2, 2.0, 4.0));
    }

    #[test]
    fn digests_are_cut_and_short_names_are_not() {
        assert_eq!(short("sha256:0123456789abcdef"), "0123456789ab");
        assert_eq!(short("v1"), "v1");
    }
}
