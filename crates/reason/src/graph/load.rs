//! From JDM text to a graph that can be walked, or the name of the node that stands in the way.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use protocol::JsonSchema;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use zen_expression::{
    Isolate,
    compiler::Opcode,
    intellisense::{IntelliSense, dependency::ReadDependency},
};
use zen_types::decision::{
    DecisionTableContent, ExpressionNodeContent, InputNodeContent, SwitchNodeContent, TransformAttributes,
};

use super::{
    Broken, Edge, Graph, Graphs, Kind, Node,
    bounds::{self, beginning},
};

/// Sub-decisions inside sub-decisions at most, as in the reference engine.
const MAX_DEPTH: usize = 5;

/// The file, as far as it is common to all nodes: what is inside a node is read where its name can be told.
#[derive(Debug, Deserialize)]
struct File {
    nodes: Vec<RawNode>,
    edges: Vec<RawEdge>,
}

#[derive(Debug, Deserialize)]
struct RawNode {
    id: String,
    name: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    content: Value,
    #[serde(default)]
    position: Position,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Position {
    x: f64,
    y: f64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawEdge {
    source_id: String,
    target_id: String,
    source_handle: Option<Arc<str>>,
}

/// Reads and checks one graph.
pub(super) fn parse(text: &str) -> Result<Graph, Broken> {
    let file: File = serde_json::from_str(text).map_err(|e| Broken::graph(format!("this is not a JDM file: {e}")))?;
    let mut places = HashMap::new();
    for (place, node) in file.nodes.iter().enumerate() {
        if places.insert(node.id.clone(), place).is_some() {
            return Err(Broken::node(&node.name, format!("its id `{}` is taken by another node", node.id)));
        }
    }
    let edges = file.edges.into_iter().map(|edge| connect(edge, &places, &file.nodes));
    let edges = edges.collect::<Result<Vec<_>, _>>()?;
    let nodes = file.nodes.into_iter().map(node).collect::<Result<Vec<_>, _>>()?;
    let graph = Graph { nodes, edges };
    one_input(&graph)?;
    acyclic(&graph)?;
    Ok(graph)
}

fn connect(edge: RawEdge, places: &HashMap<String, usize>, nodes: &[RawNode]) -> Result<Edge, Broken> {
    let name = |id: &str| places.get(id).map(|place| nodes[*place].name.as_str());
    match (places.get(&edge.source_id), places.get(&edge.target_id)) {
        (Some(&from), Some(&to)) => Ok(Edge { from, to, handle: edge.source_handle }),
        (Some(_), None) => Err(Broken {
            node: name(&edge.source_id).map(str::to_owned),
            message: format!("an edge leads from it to `{}`, which is not in the graph", edge.target_id),
        }),
        (None, _) => Err(Broken {
            node: name(&edge.target_id).map(str::to_owned),
            message: format!("an edge comes from `{}`, which is not in the graph", edge.source_id),
        }),
    }
}

fn node(raw: RawNode) -> Result<Node, Broken> {
    let kind = kind(&raw).map_err(|message| Broken::node(&raw.name, message))?;
    let mut expressions = Expressions::default();
    expressions.of(&kind).map_err(|message| Broken::node(&raw.name, message))?;
    let position = (raw.position.x, raw.position.y);
    Ok(Node { id: raw.id.into(), name: raw.name.into(), kind, reads: expressions.reads(), position })
}

fn kind(raw: &RawNode) -> Result<Kind, String> {
    Ok(match raw.kind.as_str() {
        "inputNode" => Kind::Input(schema(&raw.content)?),
        "outputNode" => Kind::Output(schema(&raw.content)?),
        "expressionNode" => Kind::Expression(content(&raw.content)?),
        "decisionTableNode" => Kind::Table(content(&raw.content)?),
        "switchNode" => Kind::Switch(content(&raw.content)?),
        "decisionNode" => Kind::Decision(content(&raw.content)?),
        "functionNode" => {
            return Err("it is a function, and scripts are not run here; say it with expressions or a table".to_owned());
        }
        other => {
            return Err(format!(
                "its type `{other}` is not known here; known are inputNode, outputNode, expressionNode, decisionTableNode, \
                 switchNode and decisionNode"
            ));
        }
    })
}

fn content<T: DeserializeOwned>(content: &Value) -> Result<T, String> {
    T::deserialize(content).map_err(|error| format!("its content does not fit its type: {error}"))
}

/// Input and output share the shape of their content: a JSON schema as text, or nothing.
fn schema(value: &Value) -> Result<Option<JsonSchema>, String> {
    if value.is_null() {
        return Ok(None);
    }
    let Some(schema) = content::<InputNodeContent>(value)?.schema else { return Ok(None) };
    JsonSchema::new(&schema).map(Some).map_err(|error| format!("its schema is not valid: {error}"))
}

/// Compiles every expression of a node and notes the fields they read.
#[derive(Default)]
struct Expressions {
    sense: Option<IntelliSense>,
    reads: BTreeSet<String>,
}

impl Expressions {
    fn of(&mut self, kind: &Kind) -> Result<(), String> {
        match kind {
            Kind::Input(_) | Kind::Output(_) => Ok(()),
            Kind::Expression(content) => self.expressions(content),
            Kind::Table(content) => self.table(content),
            Kind::Switch(content) => self.switch(content),
            Kind::Decision(content) => self.attributes(&content.transform_attributes),
        }
    }

    fn expressions(&mut self, content: &ExpressionNodeContent) -> Result<(), String> {
        for expression in content.expressions.iter().filter(|e| !e.key.is_empty() && !e.value.is_empty()) {
            let bounded = bounds::path(&expression.key).and_then(|()| self.standard(&expression.value));
            bounded.map_err(|e| format!("the expression of `{}`: {e}", beginning(&expression.key)))?;
        }
        self.attributes(&content.transform_attributes)
    }

    fn table(&mut self, content: &DecisionTableContent) -> Result<(), String> {
        for input in content.inputs.iter() {
            if let Some(field) = &input.field {
                self.standard(field).map_err(|e| format!("the field of column `{}`: {e}", input.name))?;
            }
        }
        for output in content.outputs.iter() {
            bounds::path(&output.field).map_err(|e| format!("the field of column `{}`: {e}", output.name))?;
        }
        for (row, rule) in content.rules.iter().enumerate() {
            let at = |column: &str, error| format!("row {}, column `{column}`: {error}", row + 1);
            let cell = |id: &Arc<str>| rule.get(id).filter(|cell| !cell.is_empty());
            for input in content.inputs.iter() {
                let Some(cell) = cell(&input.id) else { continue };
                let checked = if input.field.is_some() { self.unary(cell) } else { self.standard(cell) };
                checked.map_err(|e| at(&input.name, e))?;
            }
            for output in content.outputs.iter() {
                let Some(cell) = cell(&output.id) else { continue };
                self.standard(cell).map_err(|e| at(&output.name, e))?;
            }
        }
        self.attributes(&content.transform_attributes)
    }

    fn switch(&mut self, content: &SwitchNodeContent) -> Result<(), String> {
        for statement in content.statements.iter().filter(|s| !s.condition.is_empty()) {
            let named = |e| format!("the condition `{}`: {e}", beginning(&statement.condition));
            self.standard(&statement.condition).map_err(named)?;
        }
        Ok(())
    }

    fn attributes(&mut self, attributes: &TransformAttributes) -> Result<(), String> {
        let output = attributes.output_path.as_deref().map_or(Ok(()), bounds::path);
        output.map_err(|e| format!("its output path: {e}"))?;
        let Some(field) = &attributes.input_field else { return Ok(()) };
        self.standard(field).map_err(|e| format!("its input field: {e}"))
    }

    fn standard(&mut self, source: &str) -> Result<(), String> {
        bounds::expression(source)?;
        let compiled = Isolate::new().compile_standard(source);
        let compiled = compiled.map_err(|error| format!("`{}` does not parse: {error}", beginning(source)))?;
        no_empty_template(source, compiled.bytecode())?;
        let reads = self.sense.get_or_insert_with(IntelliSense::new).reads(source);
        self.note(reads);
        Ok(())
    }

    fn unary(&mut self, source: &str) -> Result<(), String> {
        bounds::expression(source)?;
        let compiled = Isolate::new().compile_unary(source);
        let compiled = compiled.map_err(|error| format!("`{}` does not parse: {error}", beginning(source)))?;
        no_empty_template(source, compiled.bytecode())?;
        let reads = self.sense.get_or_insert_with(IntelliSense::new).reads_unary(source);
        self.note(reads);
        Ok(())
    }

    fn note(&mut self, reads: Vec<ReadDependency>) {
        for read in reads {
            let path = match read {
                ReadDependency::Direct { path, .. } => path,
                ReadDependency::Iteration { collection, .. } => collection,
                ReadDependency::Unresolved { .. } => continue,
            };
            // `$` and its fields are values of the node itself.
            if path.first().is_some_and(|first| !first.starts_with('$')) {
                self.reads.insert(path.join("."));
            }
        }
    }

    /// The paths, without those that lie under another one.
    fn reads(self) -> Vec<String> {
        let all = &self.reads;
        let under = |path: &str| path.match_indices('.').any(|(at, _)| all.contains(&path[..at]));
        all.iter().filter(|path| !under(path)).cloned().collect()
    }
}

/// The expression library panics over a template of nothing where overflows are checked, and takes a backtick at the end for one.
fn no_empty_template(source: &str, code: &[Opcode]) -> Result<(), String> {
    let of_nothing =
        |four: &[Opcode]| matches!(four, [Opcode::PushNumber(n), Opcode::Array, _, Opcode::Join] if n.is_zero());
    if code.windows(4).any(of_nothing) {
        let source = beginning(source);
        return Err(format!("`{source}` has a template with nothing in it; write \"\" for an empty text"));
    }
    Ok(())
}

fn one_input(graph: &Graph) -> Result<(), Broken> {
    let inputs: Vec<&Node> = graph.nodes.iter().filter(|node| matches!(node.kind, Kind::Input(_))).collect();
    match inputs.as_slice() {
        [_] => Ok(()),
        [] => Err(Broken::graph("the graph has no input node")),
        [_, second, ..] => Err(Broken::node(&second.name, "it is a second input node, and a graph has one")),
    }
}

/// Takes away nodes that nothing open leads to; what is left lies on a cycle or behind one.
fn acyclic(graph: &Graph) -> Result<(), Broken> {
    let mut open: Vec<usize> = (0..graph.nodes.len()).collect();
    loop {
        let reached = |node: usize| graph.edges.iter().any(|edge| edge.to == node && open.contains(&edge.from));
        let left: Vec<usize> = open.iter().copied().filter(|&node| reached(node)).collect();
        if left.is_empty() {
            return Ok(());
        }
        if left.len() == open.len() {
            return Err(cycle(graph, &open));
        }
        open = left;
    }
}

/// Follows edges backwards among `open` nodes, each of which has one leading to it, until a node comes again.
fn cycle(graph: &Graph, open: &[usize]) -> Broken {
    let before = |node: usize| {
        graph.edges.iter().find(|edge| edge.to == node && open.contains(&edge.from)).map_or(node, |edge| edge.from)
    };
    let mut path = vec![open[0]];
    let again = loop {
        let next = before(path[path.len() - 1]);
        if path.contains(&next) {
            break next;
        }
        path.push(next);
    };
    let mut names: Vec<&str> =
        path.iter().skip_while(|node| **node != again).map(|node| &*graph.nodes[*node].name).collect();
    names.push(&graph.nodes[again].name);
    names.reverse();
    Broken::node(names[0], format!("it lies on a cycle: {}", names.join(" → ")))
}

/// Checks what sub-decision nodes name, over all graphs at hand.
pub(crate) struct Link<'a>(pub(crate) &'a Graphs);

impl Link<'_> {
    /// That every sub-decision of `graph`, called `key`, is there, and none leads back to itself.
    pub(crate) fn check(&self, key: &str, graph: &Graph) -> Result<(), Broken> {
        self.follow(graph, &mut vec![key.to_owned()])
    }

    fn follow(&self, graph: &Graph, path: &mut Vec<String>) -> Result<(), Broken> {
        for node in &graph.nodes {
            let Kind::Decision(content) = &node.kind else { continue };
            let key = key(&content.key);
            let broken = |message: String| Broken::node(&node.name, message);
            let sub = self.0.get(key).ok_or_else(|| broken(format!("there is no decision `{key}`")))?;
            if path.iter().any(|seen| seen == key) {
                return Err(broken(format!("it leads back to a decision it is part of: {} → {key}", path.join(" → "))));
            }
            if path.len() >= MAX_DEPTH {
                return Err(broken(format!("decisions are nested more than {MAX_DEPTH} deep: {}", path.join(" → "))));
            }
            path.push(key.to_owned());
            self.follow(sub, path)?;
            path.pop();
        }
        Ok(())
    }

    /// The keys that `graph` names, itself or through others.
    pub(crate) fn below(&self, graph: &Graph) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        for node in &graph.nodes {
            let Kind::Decision(content) = &node.kind else { continue };
            let key = key(&content.key);
            if let Some(sub) = self.0.get(key) {
                found.extend(self.below(sub));
            }
            found.insert(key.to_owned());
        }
        found
    }
}

/// Editors write the file's name, with or without its ending.
pub(super) fn key(text: &str) -> &str {
    text.strip_suffix(".json").unwrap_or(text)
}
