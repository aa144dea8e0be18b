//! Requests that were turned away leave records, too, but nobody can flood the log with them.
//!
//! Whoever asks beyond a limit, a budget or a right is answered at once, so nothing slows them down, and the log is append-only: a
//! record for each would let any key fill the disk. The first refusal of a kind (whose it was, and why) is therefore recorded by
//! itself, before it is answered. Those of the minute behind it are counted, and the count becomes one record when the minute is
//! over. So every refusal is in the log, and a key writes at most two such records a minute for each reason.
//!
//! What such a request said is not kept: it may not even have been read. A caller whom nobody knows (401) leaves no record, because
//! it would be nobody's; neither does a request that could not be understood (400), nor one that a stopping server sends away.

use std::{collections::HashMap, sync::Arc, time::Duration};

use ledger::{Accepted, Answered, Kind, Ledger, Outcome, Settled};
use parking_lot::Mutex;
use protocol::{Error, ErrorKind};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{Caller, app::App, id};

/// Refusals alike are counted for so long.
const ALIKE: Duration = Duration::from_secs(60);

/// Who was turned away, and why.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Cause {
    tenant: String,
    key_id: String,
    code: String,
}

/// How often, since the first one was recorded.
#[derive(Debug, Clone, Copy)]
struct Tally {
    since: Instant,
    kind: Kind,
    more: u64,
}

/// Refusals that wait for their minute to be over.
#[derive(Debug, Default)]
pub(crate) struct Turned(Mutex<HashMap<Cause, Tally>>);

/// Whether a failure turned the caller away, rather than failed at the work.
pub(crate) fn away(error: &Error) -> bool {
    matches!(error.kind, ErrorKind::Forbidden | ErrorKind::Overloaded | ErrorKind::OverBudget)
}

impl Turned {
    /// Whether this one is the first of its kind; the others are counted.
    fn first(&self, cause: &Cause, kind: Kind) -> bool {
        let mut tallies = self.0.lock();
        match tallies.get_mut(cause) {
            Some(tally) => {
                tally.more += 1;
                false
            }
            None => {
                tallies.insert(cause.clone(), Tally { since: Instant::now(), kind, more: 0 });
                true
            }
        }
    }

    /// Those whose minute is over.
    fn over(&self, alike: Duration) -> Vec<(Cause, Tally)> {
        let over = |_: &Cause, tally: &mut Tally| tally.since.elapsed() >= alike;
        self.0.lock().extract_if(over).collect()
    }

    /// Notes a request that was turned away; returns once what there is to record is recorded.
    pub(crate) async fn note(app: &App, caller: &Caller, kind: Kind, id: &str, error: &Error) {
        metrics::counter!("tessera_requests_total", "kind" => kind.name(), "outcome" => Outcome::Refused.name())
            .increment(1);
        let code = error.code.clone().unwrap_or_else(|| error.kind.word().into());
        let cause = Cause { tenant: caller.tenant.clone(), key_id: caller.key_id.clone(), code: code.to_string() };
        if app.turned.first(&cause, kind) {
            written(app, id.to_owned(), cause, kind, 1).await;
        }
    }

    /// Records what was counted: of all minutes that are over, or when the server stops of all.
    pub(crate) async fn sum_up(app: &Arc<App>, stopping: bool) {
        for (cause, tally) in app.turned.over(if stopping { Duration::ZERO } else { ALIKE }) {
            if tally.more > 0 {
                written(app, id::fresh(), cause, tally.kind, tally.more).await;
            }
        }
    }
}

async fn written(app: &App, id: String, cause: Cause, kind: Kind, refused: u64) {
    let Some(ledger) = &app.gateway.ledger else { return };
    let config = app.gateway.settings.get().digest.clone();
    if let Err(error) = write(ledger, config, id, cause, kind, refused).await {
        tracing::warn!(%error, refused, "refusals are not recorded");
    }
}

async fn write(
    ledger: &Ledger,
    config_hash: String,
    request_id: String,
    cause: Cause,
    kind: Kind,
    refused: u64,
) -> ledger::Result<()> {
    let Cause { tenant, key_id, code } = cause;
    let accepted = Accepted {
        request_id,
        tenant,
        key_id,
        kind,
        model: String::new(),
        config_hash,
        parameters: json!({ "refused": refused }),
        input: Value::Null,
        subject: String::new(),
        holds: Vec::new(),
    };
    let settled =
        Settled { outcome: Outcome::Refused, error: Some(code), answered: Answered::default(), ..Settled::default() };
    ledger.accept(accepted).await?.settle(settled).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_first_is_told_apart_and_the_others_are_counted() {
        let turned = Turned::default();
        let cause = |code: &str| Cause { tenant: "a".into(), key_id: "k".into(), code: code.into() };
        let refuse = |code| turned.first(&cause(code), Kind::Chat);
        assert_eq!(["rate", "rate", "budget", "rate"].map(refuse), [true, false, true, false]);
        assert!(turned.over(ALIKE).is_empty());
        tokio::time::advance(ALIKE).await;
        let mut over: Vec<_> = turned.over(ALIKE).into_iter().map(|(cause, tally)| (cause.code, tally.more)).collect();
        over.sort();
        assert_eq!(over, [("budget".to_owned(), 0), ("rate".to_owned(), 2)]);
        assert!(refuse("rate"));
    }
}
