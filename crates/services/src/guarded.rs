//! What goes in and comes out is checked by a policy, and what was found is among the events.
//!
//! Every text of a request is judged whole: masked, or the request is refused (`input`). An answer is judged while it comes, each choice by
//! itself, and so are the arguments of every tool call: what a rule has not decided is held, what is found is masked, and a
//! finding that blocks ends that answer with [`FinishReason::ContentFilter`] in front of it (`answer`). An answer that is to be JSON is judged as
//! what it means, as arguments are. No mask can stand in the name of a call: what would be masked there blocks. Scores spell out their tokens, so they
//! leave only with text that is free, and not at all where something was masked; token ids do not leave.
//!
//! A policy may put questions to models (`asked`): about a request before it goes in, about an answer once it is whole. And it may
//! want generated text to end with a line that says so; text alone gets it, since it would break JSON and calls.
//!
//! The time it takes is told with the events ([`Event::Held`]): judging the request, judging a whole answer, and every moment in which pieces
//! come and nothing leaves.
//!
//! Prompts of token ids have no text to judge, and a policy may not be passed by that door: they are refused where it enforces
//! anything on the way in.

mod answer;
mod asked;
mod input;

use std::{collections::VecDeque, sync::Arc};

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream};
use guard::{Action, Direction, Guard, Panel, Release, Report, Verdict};
use protocol::{
    Error, ErrorKind, Event, EventStream, Finding, FinishReason, Format, Generate, GenerateRequest, Load, ModelCard,
    Outcome, TokenLogprob, Usage,
};

use tokio::time::Instant;

use crate::first;
use answer::Answer;

/// A service behind a policy.
#[derive(Debug)]
pub struct Guarded {
    inner: Arc<dyn Generate>,
    guard: Guard,
    panel: Panel,
}

impl Guarded {
    /// The service behind this policy.
    pub fn new(inner: Arc<dyn Generate>, guard: Guard) -> Self {
        Self { inner, guard, panel: Panel::default() }
    }

    /// The same with these models to ask.
    #[must_use]
    pub fn with_panel(self, panel: Panel) -> Self {
        Self { panel, ..self }
    }

    async fn ask(&self, mut request: GenerateRequest) -> Result<EventStream, Error> {
        let began = Instant::now();
        let mut findings = input::request(&self.guard, &mut request)?;
        findings.extend(asked::request(&self.panel, &request).await?);
        let held = Event::Held { choice: None, time: began.elapsed() };
        request.report_tokens = false;
        let n = request.n.max(1);
        let json = matches!(request.format, Format::JsonObject | Format::JsonSchema(_));
        let label = self.guard.policy().labels.line().filter(|_| matches!(request.format, Format::Text));
        let events = self.inner.generate(request).await?;
        let watch = Watch {
            guard: self.guard.clone(),
            events,
            answers: (0..n).map(|_| Answer::new(&self.guard, json)).collect(),
            found: std::iter::once(held).chain(findings.into_iter().map(Event::Checked)).collect(),
            holds: None,
            ready: VecDeque::new(),
            usage: Usage::default(),
            over: false,
            label,
        };
        let events = stream::unfold(watch, async |mut watch| watch.next().await.map(|item| (item, watch))).boxed();
        asked::answer(self.panel.clone(), events).await
    }
}

/// Judges a text that comes in and puts masks into it; an error is a finding that blocks. `place` names the text to the caller.
pub fn judge(guard: &Guard, place: &str, text: &mut String) -> Result<Vec<Finding>, Error> {
    judged(place, guard.check(text, Direction::In), text)
}

/// What becomes of a text that comes in and was judged so.
fn judged(place: &str, report: Report, text: &mut String) -> Result<Vec<Finding>, Error> {
    if report.action == Action::Block {
        return Err(blocked(place, &report.verdicts));
    }
    if let Some(masked) = report.text {
        *text = masked;
    }
    Ok(report.verdicts.iter().map(|verdict| finding(None, place, verdict)).collect())
}

/// Token ids have no text to judge: they are refused where the policy enforces anything on the way in.
pub fn judge_tokens(guard: &Guard, place: &str) -> Result<(), Error> {
    if !guard.policy().enforces(Direction::In) {
        return Ok(());
    }
    let message =
        format!("`{place}`: the policy of this server reads what comes in, which token ids do not allow; send text.");
    Err(Error::new(ErrorKind::Blocked, message).with_param(place).with_code("content_policy"))
}

/// The refusal of a text that some of these verdicts block.
fn blocked(place: &str, verdicts: &[Verdict]) -> Error {
    let blocking = verdicts.iter().filter(|verdict| blocks(verdict));
    let rules: Vec<&str> = blocking.map(|verdict| &*verdict.rule).collect();
    let message = format!("`{place}` was refused by the policy of this server ({}).", rules.join(", "));
    Error::new(ErrorKind::Blocked, message).with_param(place).with_code("content_policy")
}

/// Verdicts on a name: no mask can stand in its place, so what would be masked blocks.
fn on_name(guard: &Guard, name: &str, direction: Direction) -> Vec<Verdict> {
    let verdicts = guard.check(name, direction).verdicts.into_iter();
    verdicts.map(|v| Verdict { action: if v.action == Action::Mask { Action::Block } else { v.action }, ..v }).collect()
}

fn blocks(verdict: &Verdict) -> bool {
    verdict.action == Action::Block
}

/// A verdict for the record; it names the place and never quotes.
fn finding(choice: Option<usize>, place: &str, verdict: &Verdict) -> Finding {
    let outcome = match verdict.action {
        Action::Block => Outcome::Blocked,
        Action::Mask => Outcome::Masked,
        Action::Monitor | Action::Allow => Outcome::Noted,
    };
    let detail = format!("{place}, bytes {} to {}, score {}", verdict.span.start, verdict.span.end, verdict.score);
    Finding { choice, rule: verdict.rule.clone(), outcome, detail }
}

/// An answer that is watched.
struct Watch {
    guard: Guard,
    events: EventStream,
    answers: Vec<Answer>,
    /// What was found in the request; it leaves behind the beginning of the answer.
    found: Vec<Event>,
    /// What may leave.
    ready: VecDeque<Event>,
    /// Since when pieces come and nothing leaves.
    holds: Option<Instant>,
    /// What is known of the cost, for an answer that ends early.
    usage: Usage,
    over: bool,
    /// What generated text ends with.
    label: Option<&'static str>,
}

impl Watch {
    async fn next(&mut self) -> Option<Result<Event, Error>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(Ok(event));
            }
            if self.over {
                return None;
            }
            match self.events.next().await {
                Some(Ok(event)) => {
                    if let Err(error) = self.weigh(event) {
                        self.over = true;
                        return Some(Err(error));
                    }
                }
                other => {
                    self.over = true;
                    return Some(Err(other.and_then(Result::err).unwrap_or_else(first::cut)));
                }
            }
        }
    }

    /// Takes an event in; what leaves then says how long it was kept.
    fn weigh(&mut self, event: Event) -> Result<(), Error> {
        let choice = match event {
            Event::Text { choice, .. } | Event::ToolCall { choice, .. } | Event::Finished { choice, .. } => choice,
            other => return self.take(other),
        };
        let since = self.holds.take().unwrap_or_else(Instant::now);
        self.take(event)?;
        if self.ready.iter().all(Event::is_note) {
            self.holds = Some(since);
        } else {
            self.ready.push_front(Event::Held { choice: Some(choice), time: since.elapsed() });
        }
        Ok(())
    }

    fn take(&mut self, event: Event) -> Result<(), Error> {
        if !matches!(event, Event::Started { .. } | Event::Routed(_)) {
            self.ready.extend(self.found.drain(..));
        }
        match event {
            Event::Text { choice, text, logprobs } => self.text(choice, &text, logprobs)?,
            Event::ToolCall { choice, index, id, name, arguments } => {
                self.call(choice, index, (id, name), &arguments)?;
            }
            Event::Finished { choice, reason } => self.finish(choice, reason)?,
            Event::Tokens { .. } => {}
            Event::Done(usage) => self.end(usage),
            Event::Started { prompt_tokens, cached_tokens } => {
                self.usage = Usage { prompt_tokens, cached_tokens, completion_tokens: 0, ..Usage::default() };
                self.ready.push_back(event);
            }
            other => self.ready.push_back(other),
        }
        // All that is wanted has ended: what is still written would be thrown away.
        let early = !self.over && self.answers.iter().all(|answer| answer.ended);
        if early && self.blocked() {
            self.end(self.usage);
        }
        Ok(())
    }

    fn blocked(&self) -> bool {
        let filtered = |event: &Event| matches!(event, Event::Finished { reason: FinishReason::ContentFilter, .. });
        self.ready.iter().any(filtered)
    }

    fn end(&mut self, usage: Usage) {
        self.ready.push_back(Event::Done(usage));
        self.over = true;
        // Dropping the stream cancels the work.
        self.events = stream::empty().boxed();
    }

    fn answer(&mut self, choice: usize) -> Result<&mut Answer, Error> {
        self.answers.get_mut(choice).ok_or_else(|| Error::internal(format!("There is no answer {choice}.")))
    }

    fn text(&mut self, choice: usize, text: &str, logprobs: Vec<TokenLogprob>) -> Result<(), Error> {
        self.usage.completion_tokens += 1;
        let answer = self.answer(choice)?;
        if answer.ended {
            return Ok(());
        }
        answer.scores.extend(logprobs);
        let release = answer.text.push(text);
        self.release_text(choice, release)?;
        self.free(choice)
    }

    fn release_text(&mut self, choice: usize, release: Release) -> Result<(), Error> {
        let answer = self.answer(choice)?;
        if release.verdicts.iter().any(|verdict| verdict.action > Action::Monitor) {
            answer.scores.clear();
        }
        let free = answer.text.held() == 0;
        let logprobs = if free { std::mem::take(&mut answer.scores) } else { Vec::new() };
        answer.spoke |= !release.text.is_empty();
        if !release.text.is_empty() || !logprobs.is_empty() {
            self.ready.push_back(Event::Text { choice, text: release.text, logprobs });
        }
        self.report(choice, "answer", &release.verdicts, release.blocked)
    }

    fn call(
        &mut self,
        choice: usize,
        index: usize,
        named: (Option<String>, Option<String>),
        arguments: &str,
    ) -> Result<(), Error> {
        self.usage.completion_tokens += 1;
        let guard = self.guard.clone();
        let answer = self.answer(choice)?;
        if answer.ended {
            return Ok(());
        }
        if let Some(name) = named.1.as_deref().filter(|_| answer.begins(index)) {
            let verdicts = on_name(&guard, name, Direction::Out);
            let blocked = verdicts.iter().any(blocks);
            self.report(choice, &format!("name of call {index}"), &verdicts, blocked)?;
            if blocked {
                return Ok(());
            }
        }
        let release = self.answer(choice)?.push(&guard, index, named, arguments)?;
        self.release_call(choice, index, &release)
    }

    fn release_call(&mut self, choice: usize, index: usize, release: &Release) -> Result<(), Error> {
        self.free(choice)?;
        self.report(choice, &format!("arguments of call {index}"), &release.verdicts, release.blocked)
    }

    /// Lets calls go that nothing is held in front of.
    fn free(&mut self, choice: usize) -> Result<(), Error> {
        let answer = self.answer(choice)?;
        let events = if answer.ended { Vec::new() } else { answer.free(choice) };
        self.ready.extend(events);
        Ok(())
    }

    /// The text is complete, and then every call; a finding that blocks ends it there.
    fn flush(&mut self, choice: usize) -> Result<(), Error> {
        let release = self.answer(choice)?.text.finish();
        self.release_text(choice, release)?;
        for place in 0..self.answer(choice)?.calls() {
            let answer = self.answer(choice)?;
            if answer.ended {
                break;
            }
            let (index, release) = answer.finish(place);
            self.release_call(choice, index, &release)?;
        }
        Ok(())
    }

    fn finish(&mut self, choice: usize, reason: FinishReason) -> Result<(), Error> {
        if self.answer(choice)?.ended {
            return Ok(());
        }
        self.flush(choice)?;
        let label = self.label;
        let answer = self.answer(choice)?;
        if !std::mem::replace(&mut answer.ended, true) {
            let label = label.filter(|_| answer.spoke && answer.calls() == 0);
            let line = label.map(|line| Event::Text { choice, text: line.to_owned(), logprobs: Vec::new() });
            self.ready.extend(line);
            self.ready.push_back(Event::Finished { choice, reason });
        }
        Ok(())
    }

    /// Puts the verdicts among the events; one that blocks ends the answer.
    fn report(&mut self, choice: usize, place: &str, verdicts: &[Verdict], blocked: bool) -> Result<(), Error> {
        let findings = verdicts.iter().map(|verdict| Event::Checked(finding(Some(choice), place, verdict)));
        self.ready.extend(findings);
        let answer = self.answer(choice)?;
        if blocked && !std::mem::replace(&mut answer.ended, true) {
            self.ready.push_back(Event::Finished { choice, reason: FinishReason::ContentFilter });
        }
        Ok(())
    }
}

impl Generate for Guarded {
    /// What leaves may be less than was written, so nobody can resume it.
    fn models(&self) -> Vec<ModelCard> {
        let mut cards = self.inner.models();
        cards.iter_mut().for_each(|card| card.capabilities.replay = false);
        cards
    }

    fn card(&self, model: &str) -> Option<ModelCard> {
        let mut card = self.inner.card(model)?;
        card.capabilities.replay = false;
        Some(card)
    }

    fn ready(&self) -> Result<(), Error> {
        self.inner.ready()
    }

    fn load(&self) -> Option<Load> {
        self.inner.load()
    }

    fn generate(&self, request: GenerateRequest) -> BoxFuture<'_, Result<EventStream, Error>> {
        self.ask(request).boxed()
    }

    fn count(&self, request: GenerateRequest) -> BoxFuture<'_, Result<usize, Error>> {
        self.inner.count(request)
    }
}
