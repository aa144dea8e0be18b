//! Mirrored traffic: a candidate is asked what others were asked, its answer is compared and counted, and nobody gets it.
//!
//! The mirrored request leaves when the caller's answer has ended, so it takes no time of theirs, and in a tenant of its own, so that
//! it waits behind nobody's turn but its own. It is bounded in number (a share, so many at once) and in cost (tokens an hour, held
//! back before the request as budgets are, and settled behind it); what does not fit is left out and counted. Only whole single
//! answers are compared.
//!
//! Invariant: nothing of the candidate, neither word nor error, reaches a caller.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures_util::StreamExt;
use parking_lot::Mutex;
use protocol::{Error, Event, GenerateRequest, Usage};
use rand::RngExt;
use serde_json::Value;
use tokio::{
    task::JoinSet,
    time::{Instant, timeout},
};

use crate::{Target, first};

/// The queue that mirrored requests wait in.
const TENANT: &str = "shadow";
/// The longest mirrored answer where the request names no limit, in tokens.
const LONGEST: usize = 1024;
const HOUR: Duration = Duration::from_secs(3600);

/// How much is mirrored.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bounds {
    /// The share of requests, 0 to 1.
    pub share: f64,
    /// Requests at the same time.
    pub at_once: usize,
    /// Tokens an hour; 0 is no limit.
    pub tokens_per_hour: u64,
    /// How long one may take.
    pub time: Duration,
}

/// How a candidate's answers compare with those that callers got.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Compared {
    /// Answers with the same text and calls; JSON that means the same is the same.
    pub same: u64,
    /// Answers that differ.
    pub differed: u64,
    /// Requests that the candidate failed at.
    pub failed: u64,
    /// Requests that were to be mirrored and did not fit the bounds.
    pub left_out: u64,
    /// How alike the texts are, a sum over the compared: the share of words they have in common, 1 for the same.
    pub likeness: f64,
    /// Tokens that callers' compared answers had.
    pub live_tokens: u64,
    /// Tokens that the candidate's had.
    pub tokens: u64,
}

/// A candidate that hears what others are asked.
#[derive(Debug)]
pub struct Shadow {
    candidate: Target,
    bounds: Bounds,
    standing: Arc<Mutex<Standing>>,
    /// Mirrored requests under way; they end with the shadow.
    tasks: Mutex<JoinSet<()>>,
}

/// What was counted, and what is under way.
#[derive(Debug, Default)]
struct Standing {
    compared: Compared,
    running: usize,
    /// When the hour began that `spent` counts.
    since: Option<Instant>,
    spent: u64,
}

impl Shadow {
    /// `candidate` hears what these bounds let through.
    pub fn new(candidate: Target, bounds: Bounds) -> Self {
        Self { candidate, bounds, standing: Arc::default(), tasks: Mutex::default() }
    }

    /// The candidate's model.
    pub fn model(&self) -> &str {
        &self.candidate.model
    }

    /// How its answers compared so far.
    pub fn compared(&self) -> Compared {
        self.standing.lock().compared
    }

    /// Who listens to the answer of this request, if it is to be mirrored.
    pub(super) fn watch(shadow: &Arc<Self>, request: &GenerateRequest) -> Option<Watcher> {
        let single = request.n == 1 && request.logprobs.is_none() && !request.echo;
        let mirrors = single && request.model != shadow.candidate.model && rand::rng().random_bool(shadow.bounds.share);
        mirrors.then(|| Watcher { shadow: shadow.clone(), request: Some(request.clone()), live: Said::default() })
    }

    fn mirror(&self, mut request: GenerateRequest, live: Said, used: Usage) {
        let answer = *request.stop.max_tokens.get_or_insert(LONGEST);
        let estimate = used.prompt_tokens.saturating_add(answer) as u64;
        let Some(running) = Running::admit(&self.standing, &self.bounds, estimate) else { return };
        request.model.clone_from(&self.candidate.model);
        request.id += "-shadow";
        TENANT.clone_into(&mut request.tenant);
        let (candidate, limit) = (self.candidate.clone(), self.bounds.time);
        let mut tasks = self.tasks.lock();
        while tasks.try_join_next().is_some() {}
        tasks.spawn(async move {
            let said = timeout(limit, answered(&candidate, request)).await;
            running.end(said.ok().and_then(Result::ok), &live, used);
        });
    }
}

/// The candidate's whole answer and what it cost.
async fn answered(candidate: &Target, request: GenerateRequest) -> Result<(Said, Usage), Error> {
    let mut events = candidate.service.generate(request).await?;
    let mut said = Said::default();
    while let Some(event) = events.next().await {
        match event? {
            Event::Done(usage) => return Ok((said, usage)),
            event => said.take(&event),
        }
    }
    Err(first::cut())
}

/// A place among the mirrored requests, and the tokens held back for it; dropping it gives the place back.
struct Running {
    standing: Arc<Mutex<Standing>>,
    held: u64,
}

impl Running {
    fn admit(standing: &Arc<Mutex<Standing>>, bounds: &Bounds, held: u64) -> Option<Self> {
        let mut now = standing.lock();
        let fresh = now.since.is_some_and(|since| since.elapsed() < HOUR);
        if !fresh {
            // What runs still counts for its own hour, which is over.
            (now.since, now.spent) = (Some(Instant::now()), 0);
        }
        let dear = bounds.tokens_per_hour > 0 && now.spent.saturating_add(held) > bounds.tokens_per_hour;
        if dear || now.running >= bounds.at_once {
            now.compared.left_out += 1;
            return None;
        }
        now.running += 1;
        now.spent += held;
        drop(now);
        Some(Self { standing: standing.clone(), held })
    }

    /// Counts the answer. What a failed one cost nobody knows, so it keeps what was held back for it.
    fn end(&self, answer: Option<(Said, Usage)>, live: &Said, used: Usage) {
        let mut now = self.standing.lock();
        let Some((said, usage)) = answer else {
            now.compared.failed += 1;
            return;
        };
        now.spent = now.spent.saturating_sub(self.held).saturating_add(usage.total() as u64);
        let likeness = live.likeness(&said);
        let compared = &mut now.compared;
        *(if likeness >= 1.0 { &mut compared.same } else { &mut compared.differed }) += 1;
        compared.likeness += likeness;
        compared.live_tokens += used.completion_tokens as u64;
        compared.tokens += usage.completion_tokens as u64;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.standing.lock().running -= 1;
    }
}

/// Listens to an answer while its caller gets it.
pub(super) struct Watcher {
    shadow: Arc<Shadow>,
    /// `None` once it was mirrored.
    request: Option<GenerateRequest>,
    live: Said,
}

impl Watcher {
    /// Takes in what the caller is about to get; behind the last of it the request is mirrored.
    pub(super) fn see(&mut self, item: &Result<Event, Error>) {
        match item {
            Ok(Event::Done(usage)) => {
                if let Some(request) = self.request.take() {
                    self.shadow.mirror(request, std::mem::take(&mut self.live), *usage);
                }
            }
            Ok(event) => self.live.take(event),
            // An answer that broke is compared with nothing.
            Err(_) => self.request = None,
        }
    }
}

/// What an answer says.
#[derive(Debug, Default)]
struct Said {
    text: String,
    /// Name and arguments.
    calls: Vec<(String, String)>,
}

impl Said {
    fn take(&mut self, event: &Event) {
        match event {
            Event::Text { text, .. } => self.text += text,
            Event::ToolCall { index, name, arguments, .. } => {
                self.calls.resize_with(self.calls.len().max(index + 1), Default::default);
                self.calls[*index].0 += name.as_deref().unwrap_or_default();
                self.calls[*index].1 += arguments;
            }
            _ => {}
        }
    }

    /// 1 for the same text and calls, less the fewer words two answers share (Dice's coefficient), 0 where their calls differ.
    fn likeness(&self, other: &Self) -> f64 {
        let calls = self.calls.iter().zip(&other.calls);
        let agree = calls.clone().all(|(a, b)| a.0 == b.0 && means_the_same(&a.1, &b.1));
        if !agree || self.calls.len() != other.calls.len() {
            return 0.0;
        }
        if means_the_same(&self.text, &other.text) {
            return 1.0;
        }
        // Different texts of the same words are alike, and not the same.
        shared_words(&self.text, &other.text).min(0.999)
    }
}

fn means_the_same(a: &str, b: &str) -> bool {
    let json = |text: &str| serde_json::from_str::<Value>(text).ok();
    a.trim() == b.trim() || json(a).is_some_and(|value| Some(value) == json(b))
}

/// Twice the words that both have, over the words of both.
fn shared_words(a: &str, b: &str) -> f64 {
    let mut left: HashMap<&str, usize> = HashMap::new();
    a.split_whitespace().for_each(|word| *left.entry(word).or_default() += 1);
    let mut shared = 0;
    for word in b.split_whitespace() {
        if let Some(n) = left.get_mut(word).filter(|n| **n > 0) {
            *n -= 1;
            shared += 1;
        }
    }
    let all = a.split_whitespace().count() + b.split_whitespace().count();
    2.0 * f64::from(shared) / all.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn likeness() {
        fn check(a: (&str, &[(&str, &str)]), b: (&str, &[(&str, &str)]), expected: f64) {
            let said = |(text, calls): (&str, &[(&str, &str)])| Said {
                text: text.to_owned(),
                calls: calls.iter().map(|(name, arguments)| ((*name).to_owned(), (*arguments).to_owned())).collect(),
            };
            assert!((said(a).likeness(&said(b)) - expected).abs() < 1e-9, "{a:?} {b:?}");
            assert!((said(b).likeness(&said(a)) - expected).abs() < 1e-9, "{b:?} {a:?}");
        }
        check(("", &[]), ("", &[]), 1.0);
        check(("a b", &[]), ("a b\n", &[]), 1.0);
        check(("a b", &[]), ("b a", &[]), 0.999);
        check(("a b c", &[]), ("a x", &[]), 0.4);
        check(("a a", &[]), ("a", &[]), 2.0 / 3.0);
        check(("a", &[]), ("", &[]), 0.0);
        check((r#"{"a":1,"b":2}"#, &[]), (r#"{"b": 2, "a": 1}"#, &[]), 1.0);
        check(("", &[("f", r#"{"a":1}"#)]), ("", &[("f", r#"{ "a": 1 }"#)]), 1.0);
        check(("", &[("f", "{}")]), ("", &[("g", "{}")]), 0.0);
        check(("a", &[("f", "{}")]), ("a", &[]), 0.0);
    }
}
