//! Values equal those the reference engine was recorded with; what is broken is refused by name.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Graph, Graphs, Link, Rule, evaluate};

#[derive(Deserialize)]
struct Recorded {
    subs: Map<String, Value>,
    graphs: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    name: String,
    graph: Value,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    input: Value,
    result: Option<Value>,
    fails_at: Option<String>,
}

fn graph(value: &Value) -> Graph {
    Graph::parse(&value.to_string()).unwrap()
}

/// Numbers are equal by value: the reference writes `5` where ours may say `5.0`.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        _ => a == b,
    }
}

#[test]
fn values_equal_those_of_the_reference_engine() {
    let recorded: Recorded = serde_json::from_str(include_str!("../../tests/goldens/zen.json")).unwrap();
    let graphs: Graphs = recorded.subs.iter().map(|(key, sub)| (key.clone(), Arc::new(graph(sub)))).collect();
    let mut wrong = Vec::new();
    for entry in &recorded.graphs {
        let graph = graph(&entry.graph);
        Link(&graphs).check("", &graph).unwrap();
        for case in &entry.cases {
            let found = evaluate(&graph, &graphs, case.input.clone(), &mut |_| {});
            let right = match (&found, &case.result, &case.fails_at) {
                (Ok(found), Some(result), _) => same(found, result),
                (Err(broken), None, Some(node)) => broken.node.as_ref() == Some(node),
                _ => false,
            };
            if !right {
                let wanted = case.result.clone().unwrap_or_else(|| json!({"fails_at": case.fails_at}));
                wrong.push(format!("{} on {}: {found:?} and not {wanted}", entry.name, case.input));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(recorded.graphs.len() >= 40);
}

#[expect(clippy::needless_pass_by_value, reason = "a literal reads best in its place")]
fn node(id: &str, kind: &str, content: Value) -> Value {
    json!({"id": id, "name": id, "type": kind, "content": content})
}

fn expressions(id: &str, key: &str, value: &str) -> Value {
    node(id, "expressionNode", json!({"expressions": [{"id": "1", "key": key, "value": value}]}))
}

fn edge(from: &str, to: &str) -> Value {
    json!({"id": format!("{from}{to}"), "sourceId": from, "targetId": to})
}

/// An input, these nodes one behind the other.
fn chain(nodes: &[Value]) -> Value {
    let nodes: Vec<Value> = [node("In", "inputNode", json!({}))].iter().chain(nodes).cloned().collect();
    let edges: Vec<Value> =
        nodes.windows(2).map(|pair| edge(pair[0]["id"].as_str().unwrap(), pair[1]["id"].as_str().unwrap())).collect();
    json!({"nodes": nodes, "edges": edges})
}

#[test]
fn what_is_broken_is_refused_by_name() {
    let check = |graph: Value, message: &str| {
        let error = Graph::parse(&graph.to_string()).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    };
    let table = |cell: &str, value: &str| {
        let content = json!({
            "hitPolicy": "first",
            "inputs": [{"id": "a", "name": "Age", "field": "age"}],
            "outputs": [{"id": "b", "name": "Rate", "field": "rate"}],
            "rules": [{"a": "> 1", "b": "1"}, {"a": cell, "b": value}],
        });
        chain(&[node("Rates", "decisionTableNode", content)])
    };
    check(json!([]), "not a JDM file");
    check(json!({"nodes": [], "edges": []}), "no input node");
    check(chain(&[node("Two", "inputNode", json!({}))]), "node `Two`: it is a second input node");
    check(
        chain(&[node("Script", "functionNode", json!({"source": "x"}))]),
        "node `Script`: it is a function, and scripts",
    );
    check(chain(&[node("Own", "customNode", json!({}))]), "node `Own`: its type `customNode` is not known");
    check(chain(&[node("Empty", "decisionTableNode", json!({}))]), "node `Empty`: its content does not fit");
    check(chain(&[expressions("Sum", "x", "1 +")]), "node `Sum`: the expression of `x`: `1 +` does not parse");
    check(table(">", "1"), "node `Rates`: row 2, column `Age`: `>` does not parse");
    // A fuzzer's find: the expression library panics over these.
    check(table("> `", "1"), "node `Rates`: row 2, column `Age`: `> `` has a template with nothing in it");
    check(
        chain(&[expressions("Sum", "x", "``")]),
        "node `Sum`: the expression of `x`: ```` has a template with nothing",
    );
    check(table("> 1", "1 1 ("), "node `Rates`: row 2, column `Rate`: `1 1 (` does not parse");
    check(
        chain(&[node("Way", "switchNode", json!({"statements": [{"id": "1", "condition": "a >"}]}))]),
        "node `Way`: the condition `a >`",
    );
    let mut graph = chain(&[expressions("A", "x", "1"), expressions("B", "x", "1"), expressions("C", "x", "1")]);
    graph["edges"].as_array_mut().unwrap().push(edge("B", "A"));
    check(graph.clone(), "node `A`: it lies on a cycle: A → B → A");
    graph["edges"] = json!([edge("A", "Nowhere")]);
    check(graph.clone(), "node `A`: an edge leads from it to `Nowhere`");
    graph["edges"] = json!([edge("Nowhere", "A")]);
    check(graph.clone(), "node `A`: an edge comes from `Nowhere`");
    graph["nodes"][1]["id"] = json!("In");
    check(graph, "node `A`: its id `In` is taken");
}

/// Each of these ended the process or went on for hours.
#[test]
fn what_is_too_long_or_too_deep_is_refused_by_name() {
    let check = |graph: String, part: &str| {
        let error = Graph::parse(&graph).unwrap_err().to_string();
        assert!(error.contains(part) && error.len() < 1000, "{error}");
    };
    let around = |open: &str, n: usize, inner: &str, close: &str| open.repeat(n) + inner + &close.repeat(n);
    let sum = |source: String| chain(&[expressions("Sum", "x", &source)]).to_string();
    let cell = |source: String| {
        let content = json!({
            "hitPolicy": "first",
            "inputs": [{"id": "a", "name": "Age", "field": "age"}],
            "outputs": [],
            "rules": [{"a": source}],
        });
        chain(&[node("Rates", "decisionTableNode", content)]).to_string()
    };
    let way = |source: String| {
        chain(&[node("Way", "switchNode", json!({"statements": [{"id": "1", "condition": source}]}))]).to_string()
    };
    check(
        sum(vec!["1"; 200_000].join(" + ")),
        "node `Sum`: the expression of `x`: it is an expression of 799997 bytes",
    );
    check(sum(around("[", 100_000, "", "]")), "node `Sum`: the expression of `x`: it is an expression of 200000 bytes");
    let deep =
        [("[", "", "]"), ("(", "1", ")"), ("{a:", "1", "}"), ("map(a, ", "1", ")"), ("abs(", "1", ")"), ("[", "", "")];
    for (open, inner, close) in deep {
        check(sum(around(open, 300, inner, close)), "node `Sum`: the expression of `x`: its brackets are 300 deep");
        check(cell(around(open, 300, inner, close)), "node `Rates`: row 1, column `Age`: its brackets are 300 deep");
    }
    let chains = ["a".to_owned() + &".b".repeat(5000), "a".to_owned() + &"[1]".repeat(5000), "-".repeat(5000) + "1"];
    for chain in chains.into_iter().chain([around("a ? ", 2500, "1", ":1"), vec!["1"; 3000].join("^")]) {
        check(sum(chain.clone()), "node `Sum`: the expression of `x`: it has ");
        check(way(chain), "node `Way`: the condition `");
    }
    for range in ["[1..2]", "]1..2]"] {
        check(
            sum(around("(", 30, range, ")")),
            "brackets are 31 deep, and 8 is the most in an expression with a range",
        );
    }
    check(chain(&[expressions("Sum", &vec!["a"; 50_000].join("."), "1")]).to_string(), "its path has 50000 parts");
    let graph = chain(&[node("Deep", "decisionTableNode", json!("here"))]).to_string();
    check(graph.replace("\"here\"", &around("[", 100_000, "", "]")), "not a JDM file: recursion limit");
}

/// The bounds stand far from what people write.
#[test]
fn what_is_long_and_flat_is_accepted() {
    let check = |source: String| drop(graph(&chain(&[expressions("Sum", "x", &source)])));
    check(vec!["amount"; 1000].join(" + "));
    check(format!("a in [{}]", vec!["\"word\""; 2000].join(", ")));
    check(format!("[{}]", vec!["{a: 1, b: 2}"; 1000].join(", ")));
    check(vec!["a in (1..5]"; 200].join(" or "));
    check("(".repeat(60) + "`${a}`" + &")".repeat(60));
}

#[test]
fn sub_decisions_are_checked_over_all_graphs() {
    let sub = |key: &str| graph(&chain(&[node("Sub", "decisionNode", json!({"key": key}))]));
    let graphs = [("a", "b.json"), ("b", "a"), ("c", "nowhere"), ("d", "e"), ("f", "f")];
    let mut graphs: Graphs = graphs.iter().map(|(key, names)| ((*key).to_owned(), Arc::new(sub(names)))).collect();
    graphs.insert("e".to_owned(), Arc::new(graph(&chain(&[]))));
    let check = |key: &str, message: Option<&str>| {
        let found = Link(&graphs).check(key, &graphs[key]).map_err(|error| error.to_string());
        assert_eq!(found.err().as_deref(), message, "{key}");
    };
    check("a", Some("node `Sub`: it leads back to a decision it is part of: a → b → a"));
    check("c", Some("node `Sub`: there is no decision `nowhere`"));
    check("d", None);
    check("f", Some("node `Sub`: it leads back to a decision it is part of: f → f"));
}

#[test]
fn a_value_that_would_hold_itself_is_a_copy() {
    let graph = graph(&chain(&[node(
        "X",
        "expressionNode",
        json!({"expressions": [{"id": "1", "key": "a", "value": "1"}, {"id": "2", "key": "b", "value": "$"}]}),
    )]));
    let found = graph.evaluate(json!({})).unwrap();
    assert_eq!(found, json!({"a": 1, "b": {"a": 1}}));
}

#[test]
fn visits_tell_what_was_read_and_which_rule_decided() {
    let content = json!({
        "hitPolicy": "first",
        "passThrough": true,
        "inputs": [{"id": "a", "name": "Age", "field": "p.age"}],
        "outputs": [{"id": "b", "name": "Rate", "field": "rate"}],
        "rules": [{"a": "> 60", "b": "1"}, {"a": "", "b": "p.age * base"}],
    });
    let graph = graph(&chain(&[node("Rates", "decisionTableNode", content)]));
    let mut seen = Vec::new();
    let input = json!({"p": {"age": 20}, "base": 2, "other": 1});
    evaluate(&graph, &Graphs::new(), input, &mut |visit| {
        seen.push((visit.path, visit.inputs, visit.result, visit.rules));
    })
    .unwrap();
    let (path, inputs, result, rules) = &seen[1];
    assert_eq!(path, "Rates");
    assert_eq!(*inputs, json!({"base": 2, "p.age": 20}));
    assert_eq!(*result, json!({"rate": 40}));
    assert_eq!(*rules, vec![Rule::Row(1)]);
}
