//! `/v1/experiments`: a rollout of several versions as an A/B test. One metric was named beforehand (`metric` of its settings); by it each
//! version stands beside the one of most callers, with an interval that holds at any look, what it says so far, and how many more requests it takes.
//!
//! Nothing is counted for this: it is what [`crate::rollouts`] counts, read by one metric. An experiment is ended as it is begun, in the weights; a
//! canary's ends by itself.

use std::sync::Arc;

use axum::{
    Extension, Json,
    extract::{Path, State},
    routing::get,
};
use protocol::{Error, ErrorKind};
use schemars::JsonSchema;
use serde::Serialize;
use services::rollout::{ERROR, Metric, Rollout, Tolerated, Verdict, Version};

use crate::{
    Caller,
    api::Route,
    app::App,
    refusal::Refusal,
    rollouts::{self, CanaryBody},
};

pub(crate) fn routes() -> Vec<Route> {
    vec![
        Route::get("/v1/experiments", get(list))
            .about("rollouts", "Rollouts of several versions, each as an experiment by its metric")
            .gives::<ExperimentList>(),
        Route::get("/v1/experiments/{*id}", get(one))
            .about("rollouts", "One experiment, as it stands")
            .gives::<ExperimentBody>()
            .fails(404),
    ]
}

/// `GET /v1/experiments`.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ExperimentList {
    experiments: Vec<ExperimentBody>,
}

/// Versions beside each other by one metric.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ExperimentBody {
    /// The name requests use.
    model: String,
    /// What it is about, as it was named beforehand: `failures`, `wait` (seconds), `blocks`, `cost` (nano-units of currency), `quality`.
    pub(crate) metric: &'static str,
    /// How much worse than the control a version may be and still be called no worse; a larger difference is worth finding. Of the cost it is
    /// a share of the control's.
    tolerated: f64,
    /// How sure intervals and verdicts are, over all looks together.
    confidence: f64,
    /// The version of most callers, which the others are compared with.
    pub(crate) control: String,
    pub(crate) versions: Vec<ArmBody>,
    /// How likely such numbers of callers are under the weights, at every look.
    mismatch: f64,
    /// They are likely enough; else no verdict is given.
    trustworthy: bool,
    /// Where the version is that is let in step by step. Since its last move is counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    canary: Option<CanaryBody>,
}

/// A version in an experiment.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ArmBody {
    /// Its model.
    pub(crate) model: String,
    /// Its weight beside the others'.
    weight: u64,
    /// Different callers who got it.
    callers: u64,
    /// What was counted of the metric: requests, first pieces, answers, ratings.
    samples: u64,
    /// Their mean, which of failures and blocks is a share; null before the first.
    mean: Option<f64>,
    /// How it stands beside the control; left out of the control.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) beside: Option<BesideBody>,
}

/// What an experiment says of a version at this look.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub(crate) struct BesideBody {
    /// `better`; `no_worse` by what is tolerated, and perhaps better; `worse`, if perhaps by less than is tolerated; `running` while nothing is known;
    /// `unbelievable` where callers are not spread as the weights say.
    pub(crate) verdict: &'static str,
    /// How much larger its mean is than the control's, of quality how much smaller: below zero it is better. Null below 100 samples of each.
    difference: Option<f64>,
    /// The interval of the difference.
    pub(crate) low: Option<f64>,
    pub(crate) high: Option<f64>,
    /// How likely a difference this large is where there is none.
    p: Option<f64>,
    /// How many more samples of both together, spread as they are, until a difference as large as is tolerated shows in 4 of 5 trials.
    pub(crate) still_needed: Option<u64>,
}

impl ExperimentBody {
    /// As it stands; `None` of a rollout with a single version.
    pub(crate) fn of(app: &App, rollout: &Rollout) -> Option<Self> {
        let (versions, mismatch) = (rollout.versions(), rollout.mismatch());
        let control = rollout.base(&versions).filter(|_| versions.len() > 1)?;
        let written = rollouts::written(app, rollout);
        let (metric, tolerated) = (Metric::from(written.metric), written.plan().tolerated);
        let trustworthy = mismatch >= ERROR;
        let arm = |version: &Version| ArmBody::new(version, control, metric, &tolerated, trustworthy);
        Some(Self {
            model: rollout.name().to_owned(),
            metric: metric.word(),
            tolerated: tolerated.of(metric),
            confidence: 1.0 - ERROR,
            control: control.model.clone(),
            versions: versions.iter().map(arm).collect(),
            mismatch,
            trustworthy,
            canary: rollout.state().map(CanaryBody::from),
        })
    }
}

impl ArmBody {
    fn new(version: &Version, control: &Version, metric: Metric, tolerated: &Tolerated, trustworthy: bool) -> Self {
        let (samples, mean) = version.figures.mean(metric);
        let beside = (version.model != control.model).then(|| BesideBody::new(version, control, metric, tolerated));
        Self {
            model: version.model.clone(),
            weight: version.weight,
            callers: version.figures.callers,
            samples,
            mean: (samples > 0).then_some(mean),
            beside: beside.map(|beside| beside.believed(trustworthy)),
        }
    }
}

impl BesideBody {
    fn new(version: &Version, control: &Version, metric: Metric, tolerated: &Tolerated) -> Self {
        let Some(difference) = version.figures.beside(&control.figures, metric, tolerated, ERROR) else {
            return Self { verdict: Verdict::Running.word(), ..Self::default() };
        };
        let there = version.figures.mean(metric).0 + control.figures.mean(metric).0;
        Self {
            verdict: difference.verdict().word(),
            difference: Some(difference.value),
            low: Some(difference.interval.0),
            high: Some(difference.interval.1),
            p: Some(difference.p),
            still_needed: difference.needed.map(|needed| needed.saturating_sub(there)),
        }
    }

    fn believed(self, trustworthy: bool) -> Self {
        if trustworthy { self } else { Self { verdict: "unbelievable", ..self } }
    }
}

/// `GET /v1/experiments`.
async fn list(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Arc<Caller>>,
) -> Result<Json<ExperimentList>, Refusal> {
    caller.may_audit()?;
    let experiments = app.services().rollouts.iter().filter_map(|rollout| ExperimentBody::of(&app, rollout)).collect();
    Ok(Json(ExperimentList { experiments }))
}

/// `GET /v1/experiments/{id}`.
async fn one(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Arc<Caller>>,
    Path(name): Path<String>,
) -> Result<Json<ExperimentBody>, Refusal> {
    caller.may_audit()?;
    let services = app.services();
    let found = ExperimentBody::of(&app, rollouts::named(&services, &name)?);
    let alone = || {
        let message = format!("`{name}` has a single version: give it another one, or a canary, to compare with.");
        Error::new(ErrorKind::NotFound, message).with_code("no_experiment")
    };
    Ok(Json(found.ok_or_else(alone)?))
}
