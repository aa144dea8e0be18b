//! Decision graphs in GoRules' open format (JDM): read, checked as a whole, walked.
//!
//! [`load`] refuses what could only fail later, and says which node is at fault: an expression that does not parse, an edge to
//! nowhere, a cycle, a script. [`walk`] follows the edges from the input on and asks [`node`] for the value of every node it comes
//! to. The language inside the nodes is zen-expression's, and merging values is zen-types'; values equal those of the reference
//! engine, which tests hold against recordings of it.

mod bounds;
mod load;
mod node;
mod table;
#[cfg(test)]
mod tests;
mod walk;

use std::{collections::BTreeMap, fmt, sync::Arc};

use protocol::JsonSchema;
use serde_json::{Value, json};
use zen_types::decision::{DecisionNodeContent, DecisionTableContent, ExpressionNodeContent, SwitchNodeContent};

pub(crate) use load::Link;
pub(crate) use walk::{Rule, Visit, evaluate};

/// Graphs by the key under which a sub-decision node names them.
pub(crate) type Graphs = BTreeMap<String, Arc<Graph>>;

/// A graph that was checked as a whole.
#[derive(Debug)]
pub struct Graph {
    pub(crate) nodes: Vec<Node>,
    pub(crate) edges: Vec<Edge>,
}

/// A node.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) id: Arc<str>,
    pub(crate) name: Arc<str>,
    pub(crate) kind: Kind,
    /// The fields its expressions read, as dotted paths, so that a step can say what it was made from.
    pub(crate) reads: Vec<String>,
    /// Where the editor drew it.
    position: (f64, f64),
}

/// What a node does.
#[derive(Debug)]
pub(crate) enum Kind {
    Input(Option<JsonSchema>),
    Output(Option<JsonSchema>),
    Expression(ExpressionNodeContent),
    Table(DecisionTableContent),
    Switch(SwitchNodeContent),
    Decision(DecisionNodeContent),
}

impl Kind {
    /// The word a drawing uses.
    fn word(&self) -> &'static str {
        match self {
            Self::Input(_) => "input",
            Self::Output(_) => "output",
            Self::Expression(_) => "expression",
            Self::Table(_) => "table",
            Self::Switch(_) => "switch",
            Self::Decision(_) => "decision",
        }
    }
}

/// An edge between two nodes, by their places in [`Graph::nodes`].
#[derive(Debug)]
pub(crate) struct Edge {
    pub(crate) from: usize,
    pub(crate) to: usize,
    /// The statement of a switch that it belongs to.
    pub(crate) handle: Option<Arc<str>>,
}

/// Why a graph is refused, or could not be evaluated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{message}", .node.as_ref().map(|name| format!("node `{name}`: ")).unwrap_or_default())]
pub struct Broken {
    /// The name of the node at fault, where it is one node's.
    pub node: Option<String>,
    /// What is wrong with it.
    pub message: String,
}

impl Broken {
    fn graph(message: impl fmt::Display) -> Self {
        Self { node: None, message: message.to_string() }
    }

    pub(crate) fn node(name: &str, message: impl fmt::Display) -> Self {
        Self { node: Some(name.to_owned()), message: message.to_string() }
    }
}

impl Node {
    /// Input and output hand on what they get.
    pub(crate) fn is_end(&self) -> bool {
        matches!(self.kind, Kind::Input(_) | Kind::Output(_))
    }
}

impl Graph {
    /// Reads a graph in the JDM format. Sub-decisions are not looked up yet: whoever has all graphs checks the links.
    pub fn parse(text: &str) -> Result<Self, Broken> {
        load::parse(text)
    }

    /// What the graph makes of these facts, without any other decision at hand.
    pub fn evaluate(&self, facts: Value) -> Result<Value, Broken> {
        evaluate(self, &Graphs::new(), facts, &mut |_| {})
    }

    /// The graph to draw, in the shape of [`protocol::DecisionCard::graph`].
    pub(crate) fn drawing(&self) -> Value {
        let node = |node: &Node| {
            let (x, y) = node.position;
            json!({"id": &*node.id, "name": &*node.name, "kind": node.kind.word(), "x": x, "y": y})
        };
        let id = |place: usize| &*self.nodes[place].id;
        let edge = |edge: &Edge| json!({"from": id(edge.from), "to": id(edge.to)});
        let nodes: Vec<Value> = self.nodes.iter().map(node).collect();
        json!({"nodes": nodes, "edges": self.edges.iter().map(edge).collect::<Vec<_>>()})
    }
}
