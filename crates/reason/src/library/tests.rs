//! Files that change, break and heal.

use std::{fs, path::PathBuf};

use serde_json::{Value, json};

use super::Library;
use crate::cases::check;

/// A directory that goes away with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("tessera-reason-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.0.join(name), text).unwrap();
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn graph(value: &str) -> String {
    json!({
        "nodes": [
            {"id": "i", "name": "In", "type": "inputNode", "content": {}},
            {"id": "x", "name": "Sum", "type": "expressionNode", "content": {"expressions": [{"id": "1", "key": "v", "value": value}]}},
        ],
        "edges": [{"id": "e", "sourceId": "i", "targetId": "x"}],
    })
    .to_string()
}

fn naming(key: &str) -> String {
    json!({
        "nodes": [
            {"id": "i", "name": "In", "type": "inputNode", "content": {}},
            {"id": "d", "name": "Inner", "type": "decisionNode", "content": {"key": key}},
        ],
        "edges": [{"id": "e", "sourceId": "i", "targetId": "d"}],
    })
    .to_string()
}

#[test]
fn shipped_decisions_are_good() {
    let cards = Library::shipped().current().cards();
    let ids: Vec<&str> = cards.iter().map(|card| card.id.as_str()).collect();
    assert_eq!(ids, ["credit-approval", "insurance-triage", "refund-policy"]);
    for card in cards {
        assert_eq!(card.problem, None, "{}", card.id);
        assert_eq!(card.version.len(), 64);
        assert!(card.schema["properties"].as_object().is_some_and(|properties| !properties.is_empty()));
        assert!(card.graph["nodes"].as_array().is_some_and(|nodes| nodes.len() > 4));
    }
}

#[tokio::test]
async fn shipped_decisions_pass_their_cases() {
    let reports = check(&Library::shipped()).await;
    let failed: Vec<String> = reports
        .iter()
        .filter_map(|report| Some(format!("{}: {}: {}", report.decision, report.case, report.failure.as_ref()?)))
        .collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    assert!(reports.len() >= 30);
}

#[test]
fn changes_apply_and_what_breaks_leaves_the_last_good_version() {
    let scratch = Scratch::new("changes");
    let library = Library::with_directory(&scratch.0);
    let look = |name: &str| {
        let entry = library.current().entries.get(name).cloned();
        entry.map(|entry| (entry.decision.is_some(), entry.version, entry.problem.unwrap_or_default()))
    };
    assert_eq!(look("mine"), None);
    scratch.write("mine.json", &graph("1"));
    let (_, first, problem) = look("mine").unwrap();
    assert_eq!((first.len(), problem.as_str()), (64, ""));
    scratch.write("mine.json", &graph("22"));
    let (_, second, _) = look("mine").unwrap();
    assert_ne!(first, second);
    scratch.write("mine.json", &graph("22 +"));
    let (good, third, problem) = look("mine").unwrap();
    assert!(good && problem.contains("node `Sum`"), "{problem}");
    assert_eq!(second, third);
    scratch.write("mine.facts.json", "{}");
    scratch.write("mine.json", &graph("333"));
    assert!(look("mine").unwrap().2.starts_with("facts: "));
    fs::remove_file(scratch.0.join("mine.facts.json")).unwrap();
    let (_, fourth, problem) = look("mine").unwrap();
    assert_eq!(problem, "");
    assert_ne!(second, fourth);
    fs::remove_file(scratch.0.join("mine.json")).unwrap();
    assert_eq!(look("mine"), None);
    scratch.write("new.json", "{}");
    let (good, version, problem) = look("new").unwrap();
    assert!(!good && version.is_empty() && problem.contains("not a JDM file"), "{problem}");
}

#[test]
fn decisions_inside_decisions_are_linked_and_part_of_the_version() {
    let scratch = Scratch::new("links");
    let library = Library::with_directory(&scratch.0);
    let look = |name: &str| library.current().entries[name].clone();
    scratch.write("outer.json", &naming("inner"));
    assert!(look("outer").problem.unwrap().contains("there is no decision `inner`"));
    scratch.write("inner.json", &graph("1"));
    // The outer one's files did not change, and it is good again.
    let first = look("outer");
    assert_eq!(first.problem, None);
    scratch.write("inner.json", &graph("22"));
    assert_ne!(first.version, look("outer").version);
    scratch.write("inner.json", &naming("outer"));
    let broken: Vec<Option<String>> = ["inner", "outer"].iter().map(|name| look(name).problem).collect();
    assert!(broken.iter().flatten().any(|problem| problem.contains("leads back")), "{broken:?}");
    assert!(look("outer").decision.is_some());
    let facts: Value = serde_json::from_str(&naming("inner")).unwrap();
    assert!(facts.is_object());
}
