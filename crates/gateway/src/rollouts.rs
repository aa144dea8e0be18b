//! `/v1/rollouts`: which versions stand behind a name and with which weights, how they do beside each other, where a canary is, and how a
//! shadow's answers compare with those given. Admins move a canary here.

use std::sync::Arc;

use axum::{
    Extension, Json,
    extract::{Path, State},
    routing::{get, post},
};
use ledger::{Course, Move};
use protocol::{Error, ErrorKind};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use services::rollout::{
    Action, Compared, Difference, ERROR, Figures, Metric, Moments, Plan, Rollout, Tolerated, Version,
};

use crate::{Caller, Services, api::Route, app::App, ask::Ask, body, canary, refusal::Refusal, settings};

pub(crate) fn routes() -> Vec<Route> {
    vec![
        Route::get("/v1/rollouts", get(list))
            .about("rollouts", "The rollouts in force, and what their shadows answered")
            .gives::<RolloutList>(),
        Route::post::<ActionBody>("/v1/rollouts/{*id}", post(act))
            .about("rollouts", "Pause, resume, promote or roll back a canary")
            .gives::<RolloutBody>(),
    ]
}

impl From<settings::Metric> for Metric {
    fn from(metric: settings::Metric) -> Self {
        match metric {
            settings::Metric::Failures => Self::Failures,
            settings::Metric::Wait => Self::Wait,
            settings::Metric::Blocks => Self::Blocks,
            settings::Metric::Cost => Self::Cost,
            settings::Metric::Quality => Self::Quality,
        }
    }
}

impl settings::Rollout {
    /// How its canary is let in, and what is tolerated of any version.
    pub fn plan(&self) -> Plan {
        Plan {
            steps: self.steps.clone(),
            hold: self.hold.0,
            hold_requests: self.hold_requests,
            patience: self.patience.unless_zero(),
            tolerated: Tolerated {
                failures: self.tolerated_failures,
                wait: self.tolerated_wait.0,
                blocks: self.tolerated_blocks,
                cost: self.tolerated_cost,
                quality: self.tolerated_quality,
            },
        }
    }
}

/// The body of `POST /v1/rollouts/{id}`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ActionBody {
    /// What the canary is to do.
    action: ActionName,
}

/// What a canary may be told.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ActionName {
    /// Stay at this step.
    Pause,
    /// Go on from this step; after a rollback, from the first one.
    Resume,
    /// All callers get it.
    Promote,
    /// Nobody gets it.
    Rollback,
}

impl From<ActionName> for Action {
    fn from(name: ActionName) -> Self {
        match name {
            ActionName::Pause => Self::Pause,
            ActionName::Resume => Self::Resume,
            ActionName::Promote => Self::Promote,
            ActionName::Rollback => Self::RollBack,
        }
    }
}

/// `GET /v1/rollouts`.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct RolloutList {
    rollouts: Vec<RolloutBody>,
}

/// A name and the versions behind it.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct RolloutBody {
    /// The name requests use.
    pub(crate) model: String,
    pub(crate) versions: Vec<VersionBody>,
    /// How likely such numbers of callers are under the weights, at every look.
    pub(crate) mismatch: f64,
    /// They are likely enough; else no comparison should be believed.
    pub(crate) trustworthy: bool,
    /// Where the version is that is let in step by step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) canary: Option<CanaryBody>,
    /// Who is asked the same and answers nobody.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) shadow: Option<ShadowBody>,
}

/// Where a canary is. Its moves are entries of the audit log.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct CanaryBody {
    /// Its model.
    pub(crate) model: String,
    /// Per cent of the callers that get it.
    pub(crate) share: u32,
    /// How it goes on.
    pub(crate) course: Course,
    /// Microseconds since 1970, when it got there.
    pub(crate) since: i64,
    /// Why.
    pub(crate) why: String,
    /// The key that wanted it; empty where the figures did.
    pub(crate) by: String,
    /// Moves before this one.
    pub(crate) moves: u64,
}

/// A version, and what was counted of it since the settings last changed; with a canary, since its last move, by all gateways.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct VersionBody {
    /// Its model.
    pub(crate) model: String,
    /// Its weight beside the others'.
    pub(crate) weight: u64,
    /// Different callers who got it.
    pub(crate) callers: u64,
    /// Requests that ended or failed.
    pub(crate) requests: u64,
    /// Of these, those that the version failed at.
    pub(crate) failed: u64,
    /// Mean seconds until the first piece of an answer; null before the first.
    pub(crate) wait: Option<f64>,
    /// Of the answers that were given or blocked, those blocked.
    pub(crate) blocked: u64,
    /// Mean nano-units of currency of a request; null before the first.
    pub(crate) cost: Option<f64>,
    /// Mean rating of its answers, 0 to 1; null before the first.
    pub(crate) quality: Option<f64>,
    /// How much more often it fails than the version of most callers; left out of that one, and while too little is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) failures_beside: Option<DifferenceBody>,
    /// How many seconds longer its callers wait; left out likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) wait_beside: Option<DifferenceBody>,
    /// How many more of its answers are blocked; left out likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) blocks_beside: Option<DifferenceBody>,
    /// How much more a request costs; left out likewise, and where nothing costs anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cost_beside: Option<DifferenceBody>,
    /// How much lower its answers are rated; left out likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) quality_beside: Option<DifferenceBody>,
}

/// A difference that was seen, and what may be concluded at any time, in error at most once in 20.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct DifferenceBody {
    pub(crate) value: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
    /// How likely a difference this large is where there is none.
    pub(crate) p: f64,
    /// `fine`: not worse by what is tolerated. `worse`: worse, and perhaps by more. `open`: not known yet.
    pub(crate) standing: String,
}

/// What a shadow answered here since the settings were read.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ShadowBody {
    /// Its model.
    pub(crate) model: String,
    /// Answers that say what the caller's said.
    pub(crate) same: u64,
    /// Answers that say something else.
    pub(crate) differed: u64,
    /// Requests it failed at.
    pub(crate) failed: u64,
    /// Requests that did not fit its bounds.
    pub(crate) left_out: u64,
    /// The mean share of words that its answers have in common with the callers'; null before the first.
    pub(crate) likeness: Option<f64>,
    /// Tokens of its answers.
    pub(crate) tokens: u64,
    /// Tokens of the callers' answers to the same.
    pub(crate) live_tokens: u64,
}

impl RolloutBody {
    fn new(rollout: &Rollout, tolerated: &Tolerated) -> Self {
        let (versions, mismatch) = (rollout.versions(), rollout.mismatch());
        let base = rollout.base(&versions);
        Self {
            model: rollout.name().to_owned(),
            versions: versions.iter().map(|version| VersionBody::new(version, base, tolerated)).collect(),
            mismatch,
            trustworthy: mismatch >= ERROR,
            canary: rollout.state().map(CanaryBody::from),
            shadow: rollout.shadow().map(|(model, compared)| ShadowBody::new(model, compared)),
        }
    }

    /// As it is in force.
    pub(crate) fn of(app: &App, rollout: &Rollout) -> Self {
        Self::new(rollout, &written(app, rollout).plan().tolerated)
    }
}

/// Its settings.
pub(crate) fn written(app: &App, rollout: &Rollout) -> settings::Rollout {
    let in_force = app.gateway.settings.get();
    in_force.settings.rollouts.iter().find(|written| written.model == rollout.name()).cloned().unwrap_or_default()
}

impl From<Move> for CanaryBody {
    fn from(moved: Move) -> Self {
        let Move { canary: model, share, course, at: since, why, by, number: moves, .. } = moved;
        Self { model, share, course, since, why, by, moves }
    }
}

impl VersionBody {
    fn new(version: &Version, base: Option<&Version>, tolerated: &Tolerated) -> Self {
        let Version { model, weight, figures } = version;
        let Figures { callers, requests, failed, wait, blocked, cost, quality, .. } = figures;
        let base = base.filter(|base| base.model != *model).map(|base| &base.figures);
        let beside = |metric| figures.beside(base?, metric, tolerated, ERROR).map(DifferenceBody::from);
        let mean = |moments: &Moments| (moments.n > 0).then_some(moments.mean);
        Self {
            model: model.clone(),
            weight: *weight,
            callers: *callers,
            requests: *requests,
            failed: *failed,
            wait: mean(wait),
            blocked: *blocked,
            cost: mean(cost),
            quality: mean(quality),
            failures_beside: beside(Metric::Failures),
            wait_beside: beside(Metric::Wait),
            blocks_beside: beside(Metric::Blocks),
            cost_beside: beside(Metric::Cost),
            quality_beside: beside(Metric::Quality),
        }
    }
}

impl From<Difference> for DifferenceBody {
    fn from(difference: Difference) -> Self {
        let Difference { value, interval: (low, high), p, standing, .. } = difference;
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
    let rollouts = app.services().rollouts.iter().map(|rollout| RolloutBody::of(&app, rollout)).collect();
    Ok(Json(RolloutList { rollouts }))
}

/// `POST /v1/rollouts/{id}`.
async fn act(Path(name): Path<String>, ask: Ask) -> Result<Json<RolloutBody>, Refusal> {
    let ActionBody { action } = body::object(&ask.body)?;
    Ok(Json(moved(&ask.app, &ask.caller, &name, action).await?))
}

/// The rollout of this name.
///
/// # Errors
/// If there is none.
pub(crate) fn named<'s>(services: &'s Services, name: &str) -> Result<&'s Rollout, Error> {
    let missing = || {
        let message = format!("No rollout is called `{name}`; GET /v1/rollouts lists them.");
        Error::new(ErrorKind::NotFound, message).with_code("no_rollout")
    };
    services.rollouts.iter().map(AsRef::as_ref).find(|rollout| rollout.name() == name).ok_or_else(missing)
}

/// Tells the canary of a rollout what to do.
///
/// # Errors
/// If the caller may not, there is no such rollout, or it makes no sense in its state.
pub(crate) async fn moved(app: &App, caller: &Caller, name: &str, action: ActionName) -> Result<RolloutBody, Error> {
    caller.may_administer()?;
    let services = app.services();
    let rollout = named(&services, name)?;
    let by = if caller.is_known() { &*caller.key_id } else { "anybody" };
    canary::act(app, rollout, action.into(), by).await?;
    Ok(RolloutBody::of(app, rollout))
}
