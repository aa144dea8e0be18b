//! A request's time, stage by stage, and what its caller is told about limits.
//!
//! A stopwatch with laps: every moment from the request's head to its last byte belongs to exactly one stage, so the stages
//! sum up to the total by construction. What no stage claims is a stage itself, `rest`.

use std::{
    fmt::Write,
    sync::Arc,
    time::{Duration, SystemTime},
};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use metrics::histogram;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::{
    clock,
    rate::{Standing, What},
    traces::Parent,
};

/// Where time goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(usize)]
pub(crate) enum Stage {
    /// Reading the body.
    Accept,
    /// Finding out who asks.
    Auth,
    /// Limits, budgets, and the record that precedes the work.
    Limit,
    /// Understanding what is asked, and choosing the service.
    Route,
    /// Waiting for the service to begin.
    Queue,
    /// From there to the first token.
    FirstToken,
    /// From there to the last one.
    Tokens,
    /// Judging what comes in, and what is ready and waits for a verdict.
    Guard,
    /// Waiting for the client to take what is ready.
    Flush,
    /// Writing the record that closes the request.
    Settle,
    /// Everything else.
    Rest,
}

impl Stage {
    pub(crate) const ALL: [Self; 11] = [
        Self::Accept,
        Self::Auth,
        Self::Limit,
        Self::Route,
        Self::Queue,
        Self::FirstToken,
        Self::Tokens,
        Self::Guard,
        Self::Flush,
        Self::Settle,
        Self::Rest,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Auth => "auth",
            Self::Limit => "limit",
            Self::Route => "route",
            Self::Queue => "queue",
            Self::FirstToken => "first_token",
            Self::Tokens => "tokens",
            Self::Guard => "guard",
            Self::Flush => "flush",
            Self::Settle => "settle",
            Self::Rest => "rest",
        }
    }

    /// Its name in spans; milliseconds.
    pub(crate) fn attribute(self) -> &'static str {
        match self {
            Self::Accept => "tessera.stage.accept_ms",
            Self::Auth => "tessera.stage.auth_ms",
            Self::Limit => "tessera.stage.limit_ms",
            Self::Route => "tessera.stage.route_ms",
            Self::Queue => "tessera.stage.queue_ms",
            Self::FirstToken => "tessera.stage.first_token_ms",
            Self::Tokens => "tessera.stage.tokens_ms",
            Self::Guard => "tessera.stage.guard_ms",
            Self::Flush => "tessera.stage.flush_ms",
            Self::Settle => "tessera.stage.settle_ms",
            Self::Rest => "tessera.stage.rest_ms",
        }
    }
}

/// A request's way through the gateway. Shared by the layers that it passes.
#[derive(Debug, Clone)]
pub(crate) struct Journey(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    started: Instant,
    date: SystemTime,
    parent: Parent,
    lap: Instant,
    spent: [Duration; Stage::ALL.len()],
    standings: Vec<(What, Standing)>,
    recorded: bool,
}

impl Journey {
    pub(crate) fn start(parent: Parent) -> Self {
        let (now, date) = (Instant::now(), clock::now());
        let spent = [Duration::ZERO; Stage::ALL.len()];
        let (standings, recorded) = (Vec::new(), false);
        Self(Arc::new(Mutex::new(Inner { started: now, date, parent, lap: now, spent, standings, recorded })))
    }

    /// The request has its record.
    pub(crate) fn record(&self) {
        self.0.lock().recorded = true;
    }

    /// Whether it has.
    pub(crate) fn is_recorded(&self) -> bool {
        self.0.lock().recorded
    }

    /// When it began, and the trace it belongs to.
    pub(crate) fn origin(&self) -> (SystemTime, Parent) {
        let inner = self.0.lock();
        (inner.date, inner.parent)
    }

    /// The time since the last lap was this stage's.
    pub(crate) fn lap(&self, stage: Stage) {
        let mut inner = self.0.lock();
        let now = Instant::now();
        let since = now - inner.lap;
        inner.spent[stage as usize] += since;
        inner.lap = now;
    }

    /// So much of what passed in this stage was the guard's.
    pub(crate) fn guarded(&self, within: Stage, time: Duration) {
        let spent = &mut self.0.lock().spent;
        // Of several prompts at once, each has a guard that counts; together they cannot take more than there was.
        let time = time.min(spent[within as usize]);
        spent[within as usize] -= time;
        spent[Stage::Guard as usize] += time;
    }

    /// What passed in each stage so far.
    pub(crate) fn stages(&self) -> impl Iterator<Item = (Stage, Duration)> {
        let spent = self.0.lock().spent;
        Stage::ALL.into_iter().map(move |stage| (stage, spent[stage as usize])).filter(|(_, time)| !time.is_zero())
    }

    /// Where an account stands, to be told to the caller; of several for the same thing, the one with the least left.
    pub(crate) fn stands(&self, what: What, standing: Standing) {
        let standings = &mut self.0.lock().standings;
        match standings.iter_mut().find(|(known, _)| *known == what) {
            Some((_, known)) if known.remaining <= standing.remaining => {}
            Some((_, known)) => *known = standing,
            None => standings.push((what, standing)),
        }
    }

    /// The limits' headers, in OpenAI's words.
    pub(crate) fn limits(&self, headers: &mut HeaderMap) {
        for (what, standing) in &self.0.lock().standings {
            let names = match what {
                What::Requests => REQUESTS,
                What::Tokens => TOKENS,
            };
            let reset = format!("{:.3}s", standing.reset.as_secs_f64());
            for (name, value) in
                names.into_iter().zip([standing.limit.to_string(), standing.remaining.to_string(), reset])
            {
                if let Ok(value) = HeaderValue::from_str(&value) {
                    headers.insert(HeaderName::from_static(name), value);
                }
            }
        }
    }

    /// `server-timing`, for a reply that is sent whole: milliseconds by stage.
    pub(crate) fn timing(&self) -> Option<HeaderValue> {
        let mut text = String::new();
        for (stage, time) in self.stages() {
            let comma = if text.is_empty() { "" } else { ", " };
            let _ = write!(text, "{comma}{};dur={:.3}", stage.name(), time.as_secs_f64() * 1e3);
        }
        let total = self.0.lock().started.elapsed();
        let _ = write!(text, ", total;dur={:.3}", total.as_secs_f64() * 1e3);
        HeaderValue::from_str(&text).ok()
    }

    /// Ends the journey of a request for work: what passed since the last lap is the client's, and all stages are counted.
    pub(crate) fn end(&self) {
        self.lap(Stage::Flush);
        for (stage, time) in self.stages() {
            histogram!("tessera_stage_seconds", "stage" => stage.name()).record(time.as_secs_f64());
        }
    }
}

/// Ends the journey when it is dropped, with the last byte of the answer.
#[derive(Debug)]
pub(crate) struct Ending(pub(crate) Journey);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.end();
    }
}

const REQUESTS: [&str; 3] =
    ["x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"];
const TOKENS: [&str; 3] = ["x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"];

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn stages_sum_up_to_the_total() {
        let journey = Journey::start(Parent::read(None));
        for (stage, ms) in [(Stage::Accept, 3), (Stage::Auth, 1), (Stage::Tokens, 40), (Stage::Rest, 2)] {
            advance(Duration::from_millis(ms)).await;
            journey.lap(stage);
        }
        advance(Duration::from_millis(30)).await;
        journey.lap(Stage::Tokens);
        let spent = |wanted| journey.stages().find(|(stage, _)| *stage == wanted).map(|(_, time)| time.as_millis());
        assert_eq!(spent(Stage::Tokens), Some(70));
        journey.guarded(Stage::Tokens, Duration::from_millis(15));
        journey.guarded(Stage::Accept, Duration::from_millis(9));
        assert_eq!((spent(Stage::Tokens), spent(Stage::Guard), spent(Stage::Accept)), (Some(55), Some(18), None));
        let sum: Duration = journey.stages().map(|(_, time)| time).sum();
        assert_eq!(sum, Duration::from_millis(76));
        let timing = journey.timing().unwrap();
        assert!(timing.to_str().unwrap().ends_with("rest;dur=2.000, total;dur=76.000"), "{timing:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_scarcest_limit_is_told() {
        let journey = Journey::start(Parent::read(None));
        let standing = |remaining| Standing { limit: 100, remaining, reset: Duration::from_millis(1500) };
        [7, 3, 9].into_iter().for_each(|remaining| journey.stands(What::Requests, standing(remaining)));
        let mut headers = HeaderMap::new();
        journey.limits(&mut headers);
        assert_eq!(headers["x-ratelimit-remaining-requests"], "3");
        assert_eq!(headers["x-ratelimit-reset-requests"], "1.500s");
        assert!(!headers.contains_key("x-ratelimit-limit-tokens"));
    }
}
