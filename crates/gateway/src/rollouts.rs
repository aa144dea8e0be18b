//! `/v1/rollouts`: which versions stand behind a name and with which weights, how they do beside each other, and how a shadow's answers
//! compare with those given.

use std::sync::Arc;

use axum::{Extension, Json, extract::State, routing::get};
use schemars::JsonSchema;
use serde::Serialize;
use services::rollout::{Compared, Difference, ERROR, Rollout, Version};

use crate::{Caller, api::Route, app::App, refusal::Refusal, settings};

pub(crate) fn routes() -> Vec<Route> {
    vec![
        Route::get("/v1/rollouts", get(list))
            .about("rollouts", "The rollouts in force, and what their shadows answered")
            .gives::<RolloutList>(),
    ]
}

/// `GET /v1/rollouts`.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct RolloutList {
    rollouts: Vec<RolloutBody>,
}

/// A name and the versions behind it.
#[derive(Debug, Serialize, JsonSchema)]
struct RolloutBody {
    /// The name requests use.
    model: String,
    versions: Vec<VersionBody>,
    /// How likely such numbers of callers are under the weights, at every look.
    mismatch: f64,
    /// They are likely enough; else no comparison should be believed.
    trustworthy: bool,
    /// Who is asked the same and answers nobody.
    #[serde(skip_serializing_if = "Option::is_none")]
    shadow: Option<ShadowBody>,
}

/// A version, and what was counted of it here since the settings last changed.
#[derive(Debug, Serialize, JsonSchema)]
struct VersionBody {
    /// Its model.
    model: String,
    /// Its weight beside the others'.
    weight: u32,
    /// Different callers who got it.
    callers: u64,
    /// Requests that ended or failed.
    requests: u64,
    /// Of these, those that the version failed at.
    failed: u64,
    /// Mean seconds until the first piece of an answer; null before the first.
    wait: Option<f64>,
    /// How much more often it fails than the version of most callers; left out of that one, and while too little is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    failures_beside: Option<DifferenceBody>,
    /// How many seconds longer its callers wait; left out likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    wait_beside: Option<DifferenceBody>,
}

/// A difference that was seen, and what may be concluded at any time, in error at most once in 20.
#[derive(Debug, Serialize, JsonSchema)]
struct DifferenceBody {
    value: f64,
    low: f64,
    high: f64,
    /// How likely a difference this large is where there is none.
    p: f64,
    /// `fine`: not worse by what is tolerated. `worse`: worse, and perhaps by more. `open`: not known yet.
    standing: String,
}

/// What a shadow answered here since the settings were read.
#[derive(Debug, Serialize, JsonSchema)]
struct ShadowBody {
    /// Its model.
    model: String,
    /// Answers that say what the caller's said.
    same: u64,
    /// Answers that say something else.
    differed: u64,
    /// Requests it failed at.
    failed: u64,
    /// Requests that did not fit its bounds.
    left_out: u64,
    /// The mean share of words that its answers have in common with the callers'; null before the first.
    likeness: Option<f64>,
    /// Tokens of its answers.
    tokens: u64,
    /// Tokens of the callers' answers to the same.
    live_tokens: u64,
}

impl RolloutBody {
    fn new(rollout: &Rollout, tolerated: &settings::Rollout) -> Self {
        let (versions, mismatch) = (rollout.versions(), rollout.mismatch());
        // The first one of the heaviest: the last maximum of the reversed.
        let base = versions.iter().rev().max_by_key(|version| version.weight);
        Self {
            model: rollout.name().to_owned(),
            versions: versions.iter().map(|version| VersionBody::new(version, base, tolerated)).collect(),
            mismatch,
            trustworthy: mismatch >= ERROR,
            shadow: rollout.shadow().map(|(model, compared)| ShadowBody::new(model, compared)),
        }
    }
}

impl VersionBody {
    fn new(version: &Version, base: Option<&Version>, tolerated: &settings::Rollout) -> Self {
        let Version { model, weight, figures } = version;
        let base = base.filter(|base| base.model != *model).map(|base| &base.figures);
        let failures = base.and_then(|base| figures.failures_beside(base, tolerated.tolerated_failures));
        let wait = base.and_then(|base| figures.wait_beside(base, tolerated.tolerated_wait.0));
        Self {
            model: model.clone(),
            weight: *weight,
            callers: figures.callers,
            requests: figures.requests,
            failed: figures.failed,
            wait: (figures.wait.n > 0).then_some(figures.wait.mean),
            failures_beside: failures.map(DifferenceBody::from),
            wait_beside: wait.map(DifferenceBody::from),
        }
    }
}

impl From<Difference> for DifferenceBody {
    fn from(difference: Difference) -> Self {
        let Difference { value, interval: (low, high), p, standing } = difference;
        Self { value, low, high, p, standing: standing.word().to_owned() }
    }
}

impl ShadowBody {
    fn new(model: &str, compared: Compared) -> Self {
        let Compared { same, differed, failed, left_out, likeness, live_tokens, tokens } = compared;
        let n = same + differed;
        let likeness = (n > 0).then(|| likeness / n as f64);
        Self { model: model.to_owned(), same, differed, failed, left_out, likeness, tokens, live_tokens }
    }
}

/// `GET /v1/rollouts`.
async fn list(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Arc<Caller>>,
) -> Result<Json<RolloutList>, Refusal> {
    caller.may_audit()?;
    let in_force = app.gateway.settings.get();
    let body = |rollout: &Arc<Rollout>| {
        let written = in_force.settings.rollouts.iter().find(|written| written.model == rollout.name());
        RolloutBody::new(rollout, &written.cloned().unwrap_or_default())
    };
    let rollouts = app.services().rollouts.iter().map(body).collect();
    Ok(Json(RolloutList { rollouts }))
}
