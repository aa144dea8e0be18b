//! Decisions, watched: the graph is drawn here, from the card; the script lights its nodes as the steps arrive.
//!
//! The drawing lays nodes out anew, in rows by how far they are from the input: editors place them side by side, which no column of a
//! page is wide enough for.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    extract::{Query, State},
    response::Response,
};
use maud::{Markup, html};
use protocol::DecisionCard;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    frame::{self, Page},
    play,
    text::Lang,
    view::{FAILURES, View},
};
use crate::app::App;

/// Which decision is played with.
#[derive(Debug, Deserialize)]
pub(super) struct Chosen {
    decision: Option<String>,
}

/// `GET /console/decide`.
pub(super) async fn page(State(app): State<Arc<App>>, view: View, Query(chosen): Query<Chosen>) -> Response {
    let cards: Vec<_> = app.services().decide.iter().flat_map(|service| service.decisions()).collect();
    let card = chosen.decision.and_then(|id| cards.iter().find(|card| card.id == id)).or(cards.first());
    let content = html! {
        (frame::heading(view.t("nav.play"), &play::tabs(&view, "decide")))
        @match card {
            None => (frame::empty(view.t("decide.none"), &html! { (view.t("decide.none-next")) })),
            Some(card) => (decision(&view, &cards, card)),
        }
    };
    frame::page(&view, Page::Play, view.t("decide.title"), &["decide.mjs"], &content)
}

fn decision(view: &View, cards: &[DecisionCard], card: &DecisionCard) -> Markup {
    html! {
        div.decide #decide data-texts=(frame::texts(view, &[TEXTS, &FAILURES].concat())) data-decision=(told(view, card)) {
            div.column {
                (choice(view, cards, card))
                @if let Some(problem) = &card.problem { p.failure { (problem) } }
                (ask(view, card))
                section #facts hidden aria-label=(view.t("decide.facts")) {}
                section #missing hidden aria-label=(view.t("decide.missing")) {}
                section #outcome hidden aria-live="polite" aria-label=(view.t("decide.outcome")) {}
            }
            div.column {
                figure.card.graph {
                    (drawing(view, card))
                }
                section aria-label=(view.t("decide.steps")) { ol.steps #steps {} }
            }
        }
    }
}

const TEXTS: &[&str] = &[
    "decide.facts",
    "decide.given",
    "decide.missing",
    "decide.missing-note",
    "decide.go-on",
    "decide.why",
    "decide.record",
    "decide.failed",
    "decide.yes",
    "decide.no",
    "decide.rule",
    "decide.from",
    "decide.undecided",
];

/// What the script must know of a decision: its name, and how its facts are called and entered.
fn told(view: &View, card: &DecisionCard) -> String {
    let properties = card.schema["properties"].as_object().cloned().unwrap_or_default();
    let fact = |(name, schema): (String, Value)| {
        let told = json!({ "title": title(view, &name, &schema), "type": schema["type"], "enum": schema["enum"], "format": schema["format"] });
        (name, told)
    };
    let facts: Map<String, Value> = properties.into_iter().map(fact).collect();
    let words = card.schema["x-decision"]["words"].as_object().cloned().unwrap_or_default();
    let words: Map<String, Value> =
        words.into_iter().map(|(key, word)| (key, word[view.lang.code()].clone())).collect();
    json!({ "id": card.id, "facts": facts, "words": words }).to_string()
}

fn title<'a>(view: &View, name: &'a str, schema: &'a Value) -> &'a str {
    let chinese = schema["x-fact"]["zh"].as_str().filter(|_| view.lang == Lang::Zh);
    chinese.or_else(|| schema["title"].as_str()).unwrap_or(name)
}

/// A word of the decision in the person's language, where it has one.
pub(super) fn word<'a>(view: &View, card: &'a DecisionCard, key: &str) -> Option<&'a str> {
    card.schema["x-decision"]["words"][key][view.lang.code()].as_str()
}

fn choice(view: &View, cards: &[DecisionCard], current: &DecisionCard) -> Markup {
    html! {
        nav.tabs.wide aria-label=(view.t("decide.title")) {
            @for card in cards {
                a href={ "/console/decide?decision=" (card.id) } aria-current=[(card.id == current.id).then_some("page")] {
                    (name(view, card))
                }
            }
        }
    }
}

/// The decisions that are shipped have a name in both languages; others have the one they bring.
fn name<'a>(view: &View, card: &'a DecisionCard) -> &'a str {
    match card.id.as_str() {
        "credit-approval" => view.t("decide.credit-approval"),
        "insurance-triage" => view.t("decide.insurance-triage"),
        "refund-policy" => view.t("decide.refund-policy"),
        _ => &card.title,
    }
}

fn ask(view: &View, card: &DecisionCard) -> Markup {
    html! {
        form.composer #ask {
            label.hidden for="text" { (view.t("decide.text")) }
            textarea #text rows="3" placeholder=(view.t("decide.text")) required {}
            div.read #read hidden {}
            div.actions {
                button.quiet #again type="button" hidden { (view.t("decide.again")) }
                button.primary #decide-now type="submit" { (view.t("decide.decide")) }
            }
        }
        div.examples #examples {
            @for example in examples(view, card) { button.example type="button" { (example) } }
        }
    }
}

/// Texts to try, in the person's language.
fn examples<'a>(view: &View, card: &'a DecisionCard) -> Vec<&'a str> {
    let chinese = |text: &&str| text.chars().any(|c| ('\u{4e00}'..='\u{9fff}').contains(&c));
    let all = card.schema["x-decision"]["examples"].as_array().into_iter().flatten();
    let texts = all.filter_map(|example| example["text"].as_str());
    texts.filter(|text| chinese(text) == (view.lang == Lang::Zh)).take(3).collect()
}

/// A node in its place.
#[derive(Debug, Clone, PartialEq)]
struct Node {
    id: String,
    name: String,
    kind: String,
    /// Left edge, and top.
    x: f64,
    y: f64,
}

const HEIGHT: f64 = 46.0;
/// Between nodes beside each other.
const GAP: f64 = 20.0;
const ROW: f64 = HEIGHT + 26.0;

/// A graph laid out: nodes, edges between their places, and the size of it all.
#[derive(Debug, Default)]
struct Layout {
    nodes: Vec<Node>,
    edges: Vec<(usize, usize)>,
    /// How wide a node is.
    node: f64,
    width: f64,
    height: f64,
}

impl Layout {
    fn new(graph: &Value) -> Self {
        let list = |key: &str| graph[key].as_array().cloned().unwrap_or_default();
        let string = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (mut given, links) = (list("nodes"), list("edges"));
        // Beside each other as the editor has them above each other.
        given.sort_by(|a, b| a["y"].as_f64().unwrap_or(0.0).total_cmp(&b["y"].as_f64().unwrap_or(0.0)));
        let place: BTreeMap<String, usize> =
            given.iter().enumerate().map(|(i, node)| (string(&node["id"]), i)).collect();
        let at = |end: &Value| place.get(end.as_str()?).copied();
        let edges: Vec<_> = links.iter().filter_map(|edge| Some((at(&edge["from"])?, at(&edge["to"])?))).collect();
        let rows = rows(given.len(), &edges);
        let widest = rows.iter().map(|row| rows.iter().filter(|other| *other == row).count()).max().unwrap_or(0);
        let node_width = node_width(widest);
        let column = node_width + GAP;
        let width = widest as f64 * column - GAP;
        let mut nodes = Vec::new();
        for (i, (node, row)) in given.iter().zip(&rows).enumerate() {
            let here = rows.iter().filter(|other| *other == row).count() as f64;
            let before = rows[..i].iter().filter(|other| *other == row).count() as f64;
            let x = (width - (here * column - GAP)) / 2.0 + before * column;
            let (id, name, kind) = (string(&node["id"]), string(&node["name"]), string(&node["kind"]));
            nodes.push(Node { id, name, kind, x, y: *row as f64 * ROW });
        }
        let height = rows.iter().max().map_or(0.0, |last| *last as f64 * ROW + HEIGHT);
        Self { nodes, edges, node: node_width, width, height }
    }
}

/// Nodes take the room there is: a chain has the column for itself.
fn node_width(beside: usize) -> f64 {
    match beside {
        0 | 1 => 360.0,
        2 => 220.0,
        _ => 196.0,
    }
}

/// Which row each of `n` nodes belongs to: one below the lowest that leads to it. Graphs have no cycles; a cycle would end the
/// search after `n` rounds.
fn rows(n: usize, edges: &[(usize, usize)]) -> Vec<usize> {
    let mut rows = vec![0; n];
    for _ in 0..n {
        let before = rows.clone();
        for &(from, to) in edges {
            rows[to] = rows[to].max(rows[from] + 1).min(n);
        }
        if rows == before {
            break;
        }
    }
    rows
}

fn drawing(view: &View, card: &DecisionCard) -> Markup {
    let layout = Layout::new(&card.graph);
    let edge = |&(from, to): &(usize, usize)| {
        let (a, b) = (&layout.nodes[from], &layout.nodes[to]);
        let (x1, y1, x2, y2) = (a.x + layout.node / 2.0, a.y + HEIGHT, b.x + layout.node / 2.0, b.y);
        let middle = f64::midpoint(y1, y2);
        (format!("M{x1} {y1}C{x1} {middle} {x2} {middle} {x2} {y2}"), &a.id, &b.id)
    };
    let letters = (layout.node / 7.5) as usize;
    let name = |node: &Node| word(view, card, &node.id).unwrap_or(&node.name).chars().take(letters).collect::<String>();
    html! {
        svg viewBox=(format!("-2 -2 {} {}", layout.width + 4.0, layout.height + 4.0)) width=(layout.width + 4.0) role="img"
            aria-label=(view.t("decide.graph")) {
            @for (path, from, to) in layout.edges.iter().map(edge) { path.edge d=(path) data-from=(from) data-to=(to) {} }
            @for node in &layout.nodes {
                g.node data-node=(node.id) transform=(format!("translate({} {})", node.x, node.y)) {
                    rect width=(layout.node) height=(HEIGHT) rx="6" {}
                    rect.stone x="12" y="13" width="9" height="9" rx="2" {}
                    text x="28" y="21" { (name(node)) }
                    text.result x="28" y="37" { (kind(view, &node.kind)) }
                }
            }
        }
    }
}

fn kind<'a>(view: &View, kind: &'a str) -> &'a str {
    match kind {
        "input" => view.t("decide.input"),
        "expression" => view.t("decide.expression"),
        "table" => view.t("decide.table"),
        "switch" => view.t("decide.switch"),
        "decision" => view.t("decide.sub"),
        "output" => view.t("decide.output"),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_stand_below_all_that_lead_to_them_and_beside_their_peers() {
        let node = |id: &str, y: f64| json!({ "id": id, "name": id, "kind": "table", "x": 0, "y": y });
        let edge = |from: &str, to: &str| json!({ "from": from, "to": to });
        let layout = Layout::new(&json!({
            "nodes": [node("in", 0.0), node("right", 9.0), node("left", 1.0), node("out", 0.0)],
            "edges": [edge("in", "left"), edge("in", "right"), edge("left", "out"), edge("right", "out"), edge("in", "out"), edge("in", "nowhere")],
        }));
        let at = |id: &str| layout.nodes.iter().find(|node| node.id == id).map(|node| (node.x, node.y)).unwrap();
        assert_eq!(layout.edges.len(), 5);
        assert_eq!((at("in").1, at("left").1, at("out").1), (0.0, ROW, 2.0 * ROW));
        let column = layout.node + GAP;
        assert_eq!((at("left").0, at("right").0), (0.0, column));
        assert_eq!(at("in").0, at("out").0, "both in the middle");
        assert_eq!((layout.width, layout.height), (2.0 * column - GAP, 2.0 * ROW + HEIGHT));
    }

    #[test]
    fn a_broken_or_cyclic_drawing_is_drawn_as_far_as_it_goes() {
        assert_eq!(Layout::new(&Value::Null).nodes, vec![]);
        assert_eq!(rows(2, &[(0, 1), (1, 0)]).len(), 2);
    }
}
