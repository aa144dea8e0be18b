//! Decision tables: rows of tests and values, the first row that fits or all of them.
//!
//! A cell of a column with a field is a unary test of it (`> 10`, `"a", "b"`, `[1..5)`), with the field's value as `$`; in a
//! column without one it is an expression. An empty cell always fits. A cell that cannot be computed does not fit, and neither
//! does a row whose values cannot be. Output columns whose field ends in `[]` collect from every row that fits, whatever the
//! policy.

use std::{collections::HashMap, hash::BuildHasher, sync::Arc};

use zen_expression::{Isolate, variable::Variable};
use zen_types::decision::{DecisionTableContent, DecisionTableHitPolicy};

use super::{
    node::{Call, Outcome},
    walk::Rule,
};

/// What a row that fits says.
struct Row {
    /// Values of the columns that take one.
    values: Variable,
    /// Values of the columns that collect, with the column's place.
    collected: Vec<(usize, Variable)>,
}

pub(super) fn evaluate(call: &Call<'_>, content: &DecisionTableContent, input: &Variable) -> Outcome {
    let mut isolate = call.isolate(input);
    let collects = content.outputs.iter().any(|output| output.write_path().1);
    match content.hit_policy {
        DecisionTableHitPolicy::Collect => all(content, &mut isolate),
        DecisionTableHitPolicy::First if collects => first_and_collected(content, &mut isolate),
        DecisionTableHitPolicy::First => first(content, &mut isolate),
    }
}

fn first(content: &DecisionTableContent, isolate: &mut Isolate) -> Outcome {
    let rows = content.rules.iter().enumerate();
    let hit = rows.into_iter().find_map(|(row, rule)| Some((row, whole(content, rule, isolate)?)));
    match hit {
        Some((row, values)) => Outcome { rules: vec![Rule::Row(row)], ..Outcome::plain(values) },
        None => Outcome::plain(Variable::Null),
    }
}

fn all(content: &DecisionTableContent, isolate: &mut Isolate) -> Outcome {
    let (mut outputs, mut rules) = (Vec::new(), Vec::new());
    for (row, rule) in content.rules.iter().enumerate() {
        if let Some(values) = whole(content, rule, isolate) {
            outputs.push(values);
            rules.push(Rule::Row(row));
        }
    }
    Outcome { rules, ..Outcome::plain(Variable::from_array(outputs)) }
}

fn first_and_collected(content: &DecisionTableContent, isolate: &mut Isolate) -> Outcome {
    let (mut first, mut rules) = (None, Vec::new());
    let mut collected = vec![Vec::new(); content.outputs.len()];
    for (row, rule) in content.rules.iter().enumerate() {
        if !fits(content, rule, isolate) {
            continue;
        }
        let Some(found) = values(content, rule, isolate, first.is_none()) else { continue };
        rules.push(Rule::Row(row));
        first.get_or_insert(found.values);
        found.collected.into_iter().for_each(|(column, value)| collected[column].push(value));
    }
    let Some(output) = first else { return Outcome::plain(Variable::Null) };
    for (column, values) in content.outputs.iter().zip(collected) {
        let (path, collects) = column.write_path();
        if collects && !path.is_empty() {
            output.dot_insert(path, Variable::from_array(values));
        }
    }
    Outcome { rules, ..Outcome::plain(output) }
}

/// A row's values, all in one object, if it fits.
fn whole<S: BuildHasher>(
    content: &DecisionTableContent,
    rule: &HashMap<Arc<str>, Arc<str>, S>,
    isolate: &mut Isolate,
) -> Option<Variable> {
    if !fits(content, rule, isolate) {
        return None;
    }
    let row = values(content, rule, isolate, true)?;
    for (column, value) in row.collected {
        row.values.dot_insert(content.outputs[column].write_path().0, value);
    }
    Some(row.values)
}

fn fits<S: BuildHasher>(
    content: &DecisionTableContent,
    rule: &HashMap<Arc<str>, Arc<str>, S>,
    isolate: &mut Isolate,
) -> bool {
    content.inputs.iter().all(|input| {
        let Some(cell) = rule.get(&input.id).filter(|cell| !cell.is_empty()) else { return true };
        match &input.field {
            None => isolate.run_standard(cell).ok().and_then(|value| value.as_bool()).unwrap_or(false),
            Some(field) => isolate.set_reference(field).is_ok() && isolate.run_unary(cell).unwrap_or(false),
        }
    })
}

/// What a row's output cells say; columns that take one value only where `with_values`.
fn values<S: BuildHasher>(
    content: &DecisionTableContent,
    rule: &HashMap<Arc<str>, Arc<str>, S>,
    isolate: &mut Isolate,
    with_values: bool,
) -> Option<Row> {
    let mut row = Row { values: Variable::empty_object(), collected: Vec::new() };
    for (place, output) in content.outputs.iter().enumerate() {
        let (path, collects) = output.write_path();
        if path.is_empty() || (!collects && !with_values) {
            continue;
        }
        let Some(cell) = rule.get(&output.id).filter(|cell| !cell.is_empty()) else { continue };
        let value = isolate.run_standard(cell).ok()?.deep_clone();
        if collects {
            row.collected.push((place, value));
        } else {
            row.values.dot_insert(path, value);
        }
    }
    Some(row)
}
