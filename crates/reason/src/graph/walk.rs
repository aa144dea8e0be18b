//! From the input along the edges to the output.
//!
//! A node runs once everything that leads to it has run; it sees the values of the nodes before it merged into one, where an
//! edge that stands further up in the file wins. A switch takes away the edges of the statements that do not hold, and with them
//! whatever can no longer be reached, or no longer leads anywhere; then the walk starts again with what is left, and nodes that
//! have run keep their value. It ends at an output node; the result is what the nodes without a successor came to.

use std::sync::Arc;

use serde_json::Value;
use zen_expression::{Isolate, variable::Variable};
use zen_types::{
    decision::{SwitchNodeContent, SwitchStatement, SwitchStatementHitPolicy},
    symbol::Symbol,
    variable::VariableMap,
};

use super::{
    Broken, Graph, Graphs, Kind, Node,
    node::{Call, Context},
};
use crate::flow::Stopwatch;

/// Why a node came out as it did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Rule {
    /// This row of the table fits, counted from 0.
    Row(usize),
    /// This statement of the switch holds.
    Branch(Arc<str>),
}

/// A node that is done.
#[derive(Debug)]
pub(crate) struct Visit<'a> {
    pub(crate) node: &'a Node,
    /// Its id, behind those of the sub-decision nodes around it.
    pub(crate) path: String,
    pub(crate) inputs: Value,
    pub(crate) result: Value,
    pub(crate) rules: Vec<Rule>,
    pub(crate) micros: u64,
}

/// Evaluates `graph` over `input`; `visit` is told of every node as it is done.
pub(crate) fn evaluate<'g>(
    graph: &'g Graph,
    graphs: &'g Graphs,
    input: Value,
    visit: &mut dyn FnMut(Visit<'g>),
) -> Result<Value, Broken> {
    let input = Variable::try_from_value(input).map_err(|error| Broken::graph(format!("the facts: {error}")))?;
    let mut context = Context { graphs, visit, prefix: String::new() };
    run(graph, &input, None, &mut context).map(|result| cleaned(result.to_value()))
}

/// Walks one graph; `outer` are the nodes of the graph around it.
pub(super) fn run<'g>(
    graph: &'g Graph,
    input: &Variable,
    outer: Option<&Variable>,
    context: &mut Context<'g, '_>,
) -> Result<Variable, Broken> {
    let mut walk = Walk::new(graph);
    while let Some(turn) = walk.next() {
        let place = match turn {
            Turn::Run(place) => place,
            Turn::Decided(decided) => {
                context.told(decided.visit());
                continue;
            }
        };
        if walk.done[place].is_some() {
            continue;
        }
        let node = &graph.nodes[place];
        let is_input = matches!(node.kind, Kind::Input(_));
        let input = if is_input { input.clone() } else { walk.incoming(place) };
        let output = one(&Call { node, input, nodes: walk.nodes() }, context)?;
        walk.finish(place, output, outer.filter(|_| is_input));
        if matches!(node.kind, Kind::Output(_)) {
            break;
        }
    }
    Ok(walk.result())
}

/// Runs one node and tells of it; a switch was told of when it was decided.
fn one<'g>(call: &Call<'g>, context: &mut Context<'g, '_>) -> Result<Variable, Broken> {
    let watch = Stopwatch::start();
    let outcome = call.run(context)?;
    let micros = watch.micros();
    if !matches!(call.node.kind, Kind::Switch(_)) {
        let result = cleaned(outcome.own.to_value());
        let (node, inputs, path) = (call.node, call.inputs(), String::new());
        context.told(Visit { node, path, inputs, result, rules: outcome.rules, micros });
    }
    Ok(outcome.output)
}

impl<'g> Context<'g, '_> {
    fn told(&mut self, visit: Visit<'g>) {
        let path = format!("{}{}", self.prefix, visit.node.id);
        (self.visit)(Visit { path, ..visit });
    }
}

/// What the walk comes to.
enum Turn<'g> {
    /// A node to run.
    Run(usize),
    /// A switch, whose statements were evaluated.
    Decided(Decided<'g>),
}

/// A switch that was decided.
struct Decided<'g> {
    call: Call<'g>,
    rules: Vec<Rule>,
    /// The nodes it leads to now.
    to: Vec<Arc<str>>,
    micros: u64,
}

impl<'g> Decided<'g> {
    fn visit(self) -> Visit<'g> {
        let to = self.to.iter().map(|name| Value::from(&**name)).collect();
        let (node, inputs, path) = (self.call.node, self.call.inputs(), String::new());
        Visit { node, path, inputs, result: Value::Array(to), rules: self.rules, micros: self.micros }
    }
}

/// The value of a node that is done.
struct Done {
    value: Variable,
    /// How other nodes see it as `$nodes`, where that differs.
    view: Option<Variable>,
}

struct Walk<'g> {
    graph: &'g Graph,
    done: Vec<Option<Done>>,
    /// Nodes come to since the walk last started.
    visited: Vec<bool>,
    to_visit: Vec<usize>,
    /// Nodes and edges that no switch took away.
    nodes_left: Vec<bool>,
    edges_left: Vec<bool>,
    decided: Vec<bool>,
    /// A node that is visited and not run yet.
    pending: Option<usize>,
}

impl<'g> Walk<'g> {
    fn new(graph: &'g Graph) -> Self {
        let (nodes, edges) = (graph.nodes.len(), graph.edges.len());
        let mut walk = Self {
            graph,
            done: (0..nodes).map(|_| None).collect(),
            visited: Vec::new(),
            to_visit: Vec::new(),
            nodes_left: vec![true; nodes],
            edges_left: vec![true; edges],
            decided: vec![false; nodes],
            pending: None,
        };
        walk.restart();
        walk
    }

    fn restart(&mut self) {
        self.visited = vec![false; self.graph.nodes.len()];
        let inputs = self.graph.nodes.iter().enumerate().filter(|(_, node)| matches!(node.kind, Kind::Input(_)));
        self.to_visit = inputs.map(|(place, _)| place).filter(|place| self.nodes_left[*place]).collect();
    }

    /// The next node all of whose predecessors have been visited.
    fn next(&mut self) -> Option<Turn<'g>> {
        if let Some(place) = self.pending.take() {
            return Some(self.enter(place));
        }
        while let Some(place) = self.to_visit.pop() {
            if self.visited[place] {
                continue;
            }
            let waiting: Vec<usize> = self.before(place).filter(|before| !self.visited[*before]).collect();
            if !waiting.is_empty() {
                self.to_visit.push(place);
                self.to_visit.extend(waiting);
                continue;
            }
            self.visited[place] = true;
            return Some(match &self.graph.nodes[place].kind {
                Kind::Switch(content) if !self.decided[place] => Turn::Decided(self.decide(place, content)),
                _ => self.enter(place),
            });
        }
        None
    }

    fn enter(&mut self, place: usize) -> Turn<'g> {
        let after: Vec<usize> = self.after(place).collect();
        self.to_visit.extend(after);
        Turn::Run(place)
    }

    /// Edges into a node, the last of the file first.
    fn edges_in(&self, place: usize) -> impl Iterator<Item = usize> + use<'_, 'g> {
        (0..self.graph.edges.len())
            .rev()
            .filter(move |edge| self.edges_left[*edge] && self.graph.edges[*edge].to == place)
    }

    /// Edges out of a node, the last of the file first.
    fn edges_out(&self, place: usize) -> impl Iterator<Item = usize> + use<'_, 'g> {
        (0..self.graph.edges.len())
            .rev()
            .filter(move |edge| self.edges_left[*edge] && self.graph.edges[*edge].from == place)
    }

    fn before(&self, place: usize) -> impl Iterator<Item = usize> + use<'_, 'g> {
        self.edges_in(place).map(|edge| self.graph.edges[edge].from)
    }

    fn after(&self, place: usize) -> impl Iterator<Item = usize> + use<'_, 'g> {
        self.edges_out(place).map(|edge| self.graph.edges[edge].to)
    }

    /// Takes away the edges of statements that do not hold; if there were any, the walk starts again.
    fn decide(&mut self, place: usize, content: &SwitchNodeContent) -> Decided<'g> {
        let watch = Stopwatch::start();
        self.decided[place] = true;
        let call = Call { node: &self.graph.nodes[place], input: self.incoming(place), nodes: self.nodes() };
        let holding = holding(content, &mut call.isolate(&call.input));
        let edge = |edge: usize| &self.graph.edges[edge];
        let (open, closed): (Vec<usize>, Vec<usize>) = self
            .edges_out(place)
            .partition(|out| edge(*out).handle.as_ref().is_some_and(|handle| holding.contains(handle)));
        let to = open.iter().rev().map(|open| self.graph.nodes[edge(*open).to].name.clone()).collect();
        closed.iter().for_each(|edge| self.remove(*edge));
        if closed.is_empty() {
            self.pending = Some(place);
        } else {
            self.restart();
        }
        let rules = holding.into_iter().map(Rule::Branch).collect();
        Decided { call, rules, to, micros: watch.micros() }
    }

    /// Takes an edge away, and everything that is then cut off on one of its ends.
    fn remove(&mut self, edge: usize) {
        if !std::mem::take(&mut self.edges_left[edge]) {
            return;
        }
        let (from, to) = (self.graph.edges[edge].from, self.graph.edges[edge].to);
        if self.edges_in(to).next().is_none() {
            let dangling: Vec<usize> = self.edges_out(to).collect();
            dangling.into_iter().for_each(|edge| self.remove(edge));
            self.nodes_left[to] = false;
        }
        if self.edges_out(from).next().is_none() {
            let dangling: Vec<usize> = self.edges_in(from).collect();
            dangling.into_iter().for_each(|edge| self.remove(edge));
            self.nodes_left[from] = false;
        }
    }

    /// The values before a node, merged.
    fn incoming(&self, place: usize) -> Variable {
        let mut values = self.before(place).filter_map(|before| self.done[before].as_ref()).map(|done| &done.value);
        let first = match values.next() {
            Some(value @ (Variable::Object(_) | Variable::Array(_))) => value.clone(),
            _ => Variable::empty_object(),
        };
        values.fold(first, |mut merged, value| merged.merge_clone(value))
    }

    /// What expressions see as `$nodes`.
    fn nodes(&self) -> Variable {
        let done = self.graph.nodes.iter().zip(&self.done);
        let view = |done: &Done| done.view.clone().unwrap_or_else(|| done.value.clone());
        let named = done.filter_map(|(node, done)| Some((Symbol::from(&*node.name), view(done.as_ref()?))));
        Variable::from_object(named.collect::<VariableMap>())
    }

    fn finish(&mut self, place: usize, value: Variable, outer: Option<&Variable>) {
        let view = outer.map(|nodes| {
            let view = value.depth_clone(1);
            view.dot_insert(&Variable::nodes_key(), nodes.clone());
            view
        });
        self.done[place] = Some(Done { value, view });
    }

    /// The values of the nodes without a successor, merged.
    fn result(&self) -> Variable {
        let ends =
            |place: &usize| self.nodes_left[*place] && self.visited[*place] && self.edges_out(*place).next().is_none();
        let ends = (0..self.graph.nodes.len()).filter(ends).filter_map(|place| self.done[place].as_ref());
        ends.fold(Variable::empty_object(), |mut merged, done| merged.merge_clone(&done.value))
    }
}

/// The ids of the statements that hold: the first of them, or all.
fn holding(content: &SwitchNodeContent, isolate: &mut Isolate) -> Vec<Arc<str>> {
    let holds = |statement: &&SwitchStatement| {
        statement.condition.is_empty()
            || isolate.run_standard(&statement.condition).ok().and_then(|value| value.as_bool()).unwrap_or(false)
    };
    let most = match content.hit_policy {
        SwitchStatementHitPolicy::First => 1,
        SwitchStatementHitPolicy::Collect => content.statements.len(),
    };
    content.statements.iter().filter(holds).take(most).map(|statement| statement.id.clone()).collect()
}

/// Without the nodes of an outer graph, which expressions may have copied.
fn cleaned(mut value: Value) -> Value {
    match &mut value {
        Value::Object(fields) => {
            fields.retain(|key, _| key != "$nodes");
            fields.values_mut().for_each(|field| *field = cleaned(field.take()));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| *item = cleaned(item.take())),
        _ => {}
    }
    value
}
