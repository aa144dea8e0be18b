//! Cascades as the settings name them: their calibrations, their rules, and who must be there before whom.

use std::{fs, path::Path, sync::Arc};

use anyhow::{Context, bail};
use gateway::settings::{self, Settings};
use protocol::{Decide, JsonSchema};
use serde::de::DeserializeOwned;
use serde_json::Value;
use services::{
    Target,
    cascade::{Bar, Calibration, Cascade, Measure, OnFailure, Rule, Student},
};

/// What may lead to another of its kind, and to the other kind.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Section<'a> {
    Cascade(&'a settings::Cascade),
    Rollout(&'a settings::Rollout),
}

impl Section<'_> {
    fn name(&self) -> &str {
        match self {
            Self::Cascade(cascade) => &cascade.model,
            Self::Rollout(rollout) => &rollout.model,
        }
    }

    fn leads_to(&self, model: &str) -> bool {
        match self {
            Self::Cascade(cascade) => cascade.student == model || cascade.teacher == model,
            Self::Rollout(rollout) => {
                rollout.versions.contains_key(model) || rollout.canary == model || rollout.shadow == model
            }
        }
    }
}

/// Cascades and rollouts, each behind those that it leads to. Where they lead to each other a cascade comes first, and gets what is behind
/// the name: `large` of a rollout that bears this name, too.
pub(crate) fn in_order(settings: &Settings) -> Vec<Section<'_>> {
    let cascades = settings.cascades.iter().map(Section::Cascade);
    let mut open: Vec<_> = cascades.chain(settings.rollouts.iter().map(Section::Rollout)).collect();
    let mut ordered = Vec::new();
    while !open.is_empty() {
        let waits =
            |one: &Section<'_>| open.iter().any(|other| other.name() != one.name() && one.leads_to(other.name()));
        let next = open.iter().position(|one| !waits(one)).unwrap_or(0);
        ordered.push(open.remove(next));
    }
    ordered
}

/// A cascade over these models and decisions.
pub(crate) fn open(
    section: &settings::Cascade,
    target: impl Fn(&str) -> Option<Target>,
    deciders: &[Arc<dyn Decide>],
) -> anyhow::Result<Cascade> {
    let missing = |model| format!("the cascade {} leads to {model}, which nobody offers", section.model);
    let target = |model| target(model).with_context(|| missing(model));
    let student = Student::new(target(&section.student)?, rules(section, deciders)?);
    let on_failure = match section.on_failure {
        settings::OnFailure::Error => OnFailure::Error,
        settings::OnFailure::Student => OnFailure::Student,
    };
    let (teacher, bar, patience) = (target(&section.teacher)?, bar(section)?, section.student_timeout.unless_zero());
    Ok(Cascade::new(&section.model, student, teacher, bar, on_failure, patience))
}

/// Finds what is wrong with the files of a cascade.
pub(crate) fn check(section: &settings::Cascade) -> anyhow::Result<()> {
    bar(section)?;
    schema(section).map(|_| ())
}

fn bar(section: &settings::Cascade) -> anyhow::Result<Bar> {
    if section.calibration.as_os_str().is_empty() {
        let (measure, threshold) = (Measure::Minimum, section.threshold);
        return Ok(Bar { measure, threshold, longest: None, student: None });
    }
    Ok(read::<Calibration>(section, &section.calibration)?.bar())
}

fn rules(section: &settings::Cascade, deciders: &[Arc<dyn Decide>]) -> anyhow::Result<Vec<Rule>> {
    let mut rules: Vec<_> = schema(section)?.map(Rule::Schema).into_iter().collect();
    let decision = &section.decision;
    if !decision.is_empty() {
        let makes = |service: &&Arc<dyn Decide>| service.decisions().iter().any(|card| card.id == *decision);
        let Some(service) = deciders.iter().find(makes).cloned() else {
            bail!("the cascade {} names the decision {decision}, which nobody makes", section.model);
        };
        rules.push(Rule::Decision { service, decision: decision.clone() });
    }
    Ok(rules)
}

fn schema(section: &settings::Cascade) -> anyhow::Result<Option<JsonSchema>> {
    if section.schema.as_os_str().is_empty() {
        return Ok(None);
    }
    let schema = JsonSchema::new(&read::<Value>(section, &section.schema)?).map_err(anyhow::Error::msg);
    schema
        .map(Some)
        .with_context(|| format!("the cascade {}: {} is no schema", section.model, section.schema.display()))
}

/// A JSON file of a cascade.
fn read<T: DeserializeOwned>(section: &settings::Cascade, path: &Path) -> anyhow::Result<T> {
    let place = || format!("the cascade {}: {}", section.model, path.display());
    let text = fs::read_to_string(path).with_context(place)?;
    serde_json::from_str(&text).with_context(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_led_to_comes_first() {
        fn check(text: &str, expected: &[&str]) {
            let settings = Settings::parse(text).unwrap();
            let found: Vec<_> = in_order(&settings).iter().map(|section| section.name().to_owned()).collect();
            assert_eq!(found, expected, "{text}");
        }
        let rollout =
            |name: &str, version: &str| format!("[[rollouts]]\nmodel = \"{name}\"\nversions = {{ {version} = 1 }}\n");
        let cascade = |name: &str, student: &str, teacher: &str| {
            format!(
                "[[cascades]]\nmodel = \"{name}\"\nstudent = \"{student}\"\nteacher = \"{teacher}\"\nthreshold = 0.5\n"
            )
        };
        check(&(rollout("r", "c") + &cascade("c", "s", "t")), &["c", "r"]);
        check(&(rollout("r", "s") + &cascade("c", "r", "t")), &["r", "c"]);
        let canary = rollout("a", "s") + "canary = \"c\"\n" + &rollout("b", "s");
        check(&(canary + &cascade("c", "b", "t")), &["b", "c", "a"]);
        check(&(cascade("a", "s", "b") + &cascade("b", "s", "t")), &["b", "a"]);
        check(&(rollout("large", "c") + &cascade("c", "s", "large")), &["c", "large"]);
        check(&cascade("t", "s", "t"), &["t"]);
    }
}
