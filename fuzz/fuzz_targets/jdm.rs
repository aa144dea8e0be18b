//! Any text as a decision graph: it must be refused, or decide about some facts without panicking.

#![no_main]

use libfuzzer_sys::fuzz_target;
use reason::Graph;

fuzz_target!(|text: &str| {
    let Ok(graph) = Graph::parse(text) else { return };
    let facts = serde_json::json!({
        "income": 20000, "debt": 5000.5, "loan": 100000, "x": null, "s": "text", "items": [{"x": 1}, {"x": "a"}, null],
        "kind": "vehicle", "today": "2026-03-05", "incident_date": "2026-03-01", "a": {"b": {"c": [1, 2, 3]}},
    });
    let _ = graph.evaluate(facts);
});
