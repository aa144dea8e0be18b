//! The value of one node: what its content makes of its input, between the attributes that all kinds share.
//!
//! `inputField` picks a part of the input, `executionMode: loop` runs the content once per element of it, `outputPath` puts what
//! came of it under a path, and `passThrough` lays it over the node's own input.

use protocol::JsonSchema;
use serde_json::Value;
use zen_expression::{Isolate, variable::Variable};
use zen_types::decision::{ExpressionNodeContent, TransformAttributes, TransformExecutionMode};

use super::{
    Broken, Graphs, Kind, Node,
    load::key,
    table,
    walk::{self, Rule, Visit},
};

/// What every part of one evaluation shares.
pub(super) struct Context<'g, 'v> {
    /// All graphs, for sub-decisions.
    pub(super) graphs: &'g Graphs,
    /// Told of every node that is done.
    pub(super) visit: &'v mut dyn FnMut(Visit<'g>),
    /// The ids of the sub-decision nodes around this graph, each with a slash behind it.
    pub(super) prefix: String,
}

/// A node and what it works on.
pub(super) struct Call<'g> {
    pub(super) node: &'g Node,
    pub(super) input: Variable,
    /// The values of the nodes done so far, by name.
    pub(super) nodes: Variable,
}

/// What came of a node.
pub(super) struct Outcome {
    /// What the nodes behind it see.
    pub(super) output: Variable,
    /// The same without what only passed through.
    pub(super) own: Variable,
    /// Why it came out so.
    pub(super) rules: Vec<Rule>,
}

impl Outcome {
    pub(super) fn plain(output: Variable) -> Self {
        Self { own: output.clone(), output, rules: Vec::new() }
    }
}

impl Call<'_> {
    /// Where expressions run: over `input`, with the other nodes as `$nodes`.
    pub(super) fn isolate(&self, input: &Variable) -> Isolate {
        let mut isolate = Isolate::with_environment(input.clone());
        isolate.set_local(Variable::nodes_key(), self.nodes.clone());
        isolate
    }

    pub(super) fn broken(&self, message: impl std::fmt::Display) -> Broken {
        Broken::node(&self.node.name, message)
    }

    pub(super) fn run(&self, context: &mut Context<'_, '_>) -> Result<Outcome, Broken> {
        match &self.node.kind {
            Kind::Input(schema) | Kind::Output(schema) => self.validated(schema.as_ref()),
            Kind::Expression(content) => {
                self.transformed(&content.transform_attributes, |input| self.expressions(content, &input))
            }
            Kind::Table(content) => {
                self.transformed(&content.transform_attributes, |input| Ok(table::evaluate(self, content, &input)))
            }
            Kind::Decision(content) => {
                let looped = content.transform_attributes.execution_mode == TransformExecutionMode::Loop;
                self.transformed(&content.transform_attributes, |input| {
                    self.decision(key(&content.key), &input, !looped, context)
                })
            }
            // The walk evaluates its statements, since they decide where it goes.
            Kind::Switch(_) => Ok(Outcome::plain(self.input.clone())),
        }
    }

    fn validated(&self, schema: Option<&JsonSchema>) -> Result<Outcome, Broken> {
        if let Some(schema) = schema {
            let value = self.input.to_value();
            if let Some(mistake) = schema.mistakes(&value).first() {
                return Err(self.broken(mistake.to_string()));
            }
        }
        Ok(Outcome::plain(self.input.clone()))
    }

    /// Keys see the values of the keys above them as `$`.
    fn expressions(&self, content: &ExpressionNodeContent, input: &Variable) -> Result<Outcome, Broken> {
        let result = Variable::empty_object();
        let mut isolate = self.isolate(input);
        for expression in content.expressions.iter().filter(|e| !e.key.is_empty() && !e.value.is_empty()) {
            let value = isolate
                .run_standard(&expression.value)
                .map_err(|error| self.broken(format!("cannot compute `{}`: {error}", expression.value)))?
                // `$` as a value would hold itself otherwise.
                .deep_clone();
            isolate.insert_dollar(&expression.key, value.clone());
            result.dot_insert(&expression.key, value);
        }
        Ok(Outcome::plain(result))
    }

    /// The steps inside are `told` but for loops, whose number is the data's.
    fn decision(
        &self,
        key: &str,
        input: &Variable,
        told: bool,
        context: &mut Context<'_, '_>,
    ) -> Result<Outcome, Broken> {
        let graph = context.graphs.get(key).ok_or_else(|| self.broken(format!("there is no decision `{key}`")))?;
        let mut nobody = |_: Visit<'_>| {};
        let mut inner = Context {
            graphs: context.graphs,
            visit: if told { &mut *context.visit } else { &mut nobody },
            prefix: format!("{}{}/", context.prefix, self.node.id),
        };
        let output = walk::run(graph, input, Some(&self.nodes), &mut inner);
        output.map(Outcome::plain).map_err(|error| self.broken(error))
    }

    fn transformed(
        &self,
        attributes: &TransformAttributes,
        mut evaluate: impl FnMut(Variable) -> Result<Outcome, Broken>,
    ) -> Result<Outcome, Broken> {
        let input = match &attributes.input_field {
            None => self.input.clone(),
            Some(field) => self
                .isolate(&self.input)
                .run_standard(field)
                .map_err(|error| self.broken(format!("cannot compute its input field `{field}`: {error}")))?,
        };
        let mut outcome = match attributes.execution_mode {
            TransformExecutionMode::Single => evaluate(input)?,
            TransformExecutionMode::Loop => self.each(&input, attributes.pass_through, evaluate)?,
        };
        if let Some(path) = &attributes.output_path {
            let placed = Variable::empty_object();
            placed.dot_insert(path, outcome.output);
            outcome.output = placed;
        }
        outcome.own = outcome.output.clone();
        if attributes.pass_through {
            outcome.output = self.input.clone().merge_clone(&outcome.output);
        }
        Ok(outcome)
    }

    fn each(
        &self,
        input: &Variable,
        pass_through: bool,
        mut evaluate: impl FnMut(Variable) -> Result<Outcome, Broken>,
    ) -> Result<Outcome, Broken> {
        let items = input.as_array().ok_or_else(|| self.broken("it loops, and its input is not an array"))?;
        let items = items.borrow().clone();
        let (mut outputs, mut rules) = (Vec::with_capacity(items.len()), Vec::new());
        for item in items {
            let outcome = evaluate(item.clone())?;
            rules.extend(outcome.rules);
            let output = if pass_through { item.clone().merge_clone(&outcome.output) } else { outcome.output };
            outputs.push(output);
        }
        Ok(Outcome { rules, ..Outcome::plain(Variable::from_array(outputs)) })
    }

    /// What the node read, for its step.
    pub(super) fn inputs(&self) -> Value {
        if !matches!(self.node.kind, Kind::Expression(_) | Kind::Table(_) | Kind::Switch(_)) {
            return self.input.to_value();
        }
        let read = |path: &String| Some((path.clone(), self.input.dot(path)?.to_value()));
        Value::Object(self.node.reads.iter().filter_map(read).collect())
    }
}
