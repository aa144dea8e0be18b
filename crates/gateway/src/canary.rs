//! Canaries move: every second each is judged by what all gateways on the same ledger counted, and its move is written before it is made.
//!
//! The state is the ledger's: what another gateway or a person moved is followed within a second, and a restart goes on from there. Without a
//! ledger a canary moves all the same, and begins anew with the process.

use std::time::UNIX_EPOCH;

use ledger::{Course, Ledger, Move};
use protocol::{Error, ErrorKind};
use services::rollout::{Action, Counted, Rollout};

use crate::{app::App, clock};

/// Judges every canary once.
pub(crate) async fn advance(app: &App) {
    for rollout in &app.services().rollouts {
        if let Err(error) = judge(app.gateway.ledger.as_ref(), rollout).await {
            tracing::warn!(%error, rollout = rollout.name(), "a canary could not be judged");
        }
    }
}

async fn judge(ledger: Option<&Ledger>, rollout: &Rollout) -> ledger::Result<()> {
    if let Some(ledger) = ledger {
        catch_up(ledger, rollout).await?;
        exchange(ledger, rollout).await?;
    }
    match rollout.judge(micros()) {
        // Another gateway may have moved it at the same moment; that is seen the next time.
        Some(next) => match go(ledger, rollout, next).await {
            Err(ledger::Error::Duplicate(_)) => Ok(()),
            done => done,
        },
        None => Ok(()),
    }
}

/// What a person wants of a canary.
///
/// # Errors
/// If there is no canary, it makes no sense in this state, or the rollout was moved at the same moment.
pub(crate) async fn act(app: &App, rollout: &Rollout, action: Action, by: &str) -> Result<(), Error> {
    let ledger = app.gateway.ledger.as_ref();
    if let Some(ledger) = ledger {
        catch_up(ledger, rollout).await?;
    }
    let refused = |why: String| Error::new(ErrorKind::Invalid, why).with_code("rollout_state");
    let none = || refused(format!("The rollout `{}` has no canary, or it has not begun yet.", rollout.name()));
    let ((_, plan), state) = rollout.canary().zip(rollout.state()).ok_or_else(none)?;
    let next = plan.act(&state, action, by, micros()).map_err(refused)?;
    go(ledger, rollout, next).await.map_err(|error| match error {
        ledger::Error::Duplicate(_) => refused("The rollout was moved in this moment: look again.".to_owned()),
        other => other.into(),
    })
}

/// Follows what was moved elsewhere.
async fn catch_up(ledger: &Ledger, rollout: &Rollout) -> ledger::Result<()> {
    let Some((canary, _)) = rollout.canary() else { return Ok(()) };
    if let Some(moved) = ledger.last_move(rollout.name(), canary).await? {
        rollout.follow(moved);
    }
    Ok(())
}

/// Tells others what was counted here, and adds what they counted; nobody needs that of a canary that is settled.
async fn exchange(ledger: &Ledger, rollout: &Rollout) -> ledger::Result<()> {
    let under_way = |counted: &Counted| matches!(counted.since.course, Course::Running | Course::Paused);
    let Some(Counted { since, counter, figures }) = rollout.counted().filter(under_way) else { return Ok(()) };
    if let Some(figures) = figures {
        ledger.keep_figures(&since, &counter, &figures).await?;
    }
    let others = ledger.figures_of_others(&since, &counter).await?;
    rollout.add(&since, &others);
    Ok(())
}

/// Makes a move, written first.
async fn go(ledger: Option<&Ledger>, rollout: &Rollout, next: Move) -> ledger::Result<()> {
    if let Some(ledger) = ledger {
        ledger.record_move(&next).await?;
    }
    let Move { canary, share, course, why, by, .. } = &next;
    tracing::info!(rollout = rollout.name(), canary, share, course = course.name(), why, by, "a canary moved");
    metrics::counter!("tessera_canary_moves_total", "course" => course.name()).increment(1);
    rollout.follow(next);
    Ok(())
}

/// Microseconds since 1970.
fn micros() -> i64 {
    let since = clock::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
