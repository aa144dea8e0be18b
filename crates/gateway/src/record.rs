//! What a request leaves behind, whatever dialect it came in.
//!
//! [`Ask::begin`](crate::ask::Ask) takes what limits and budgets allow and writes the record that precedes the work; the
//! [`Record`] then watches the very events the client gets, and closes itself before the last of them is handed on: a client
//! that has seen the end of an answer can rely on its record. A stream that breaks, is cut, or whose client hangs up is closed
//! as it stands, with what was delivered until then.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use ledger::{Accepted, Account, Answered, Budget, Charge, Hold, Item, Kind, Outcome, Pending, Route, Settled, Window};
use protocol::{
    DrawRequest, EmbedRequest, Error, ErrorKind, Event, FinishReason, Format, GenerateRequest, Hop, ModelCard, Prompt,
    Reason, Step, Stop, TextOrTokens, Usage, openai::Call,
};
use serde_json::{Map, Value, json};
use services::rollout::Report;
use tokio::time::Instant;

use crate::{
    Caller,
    app::App,
    clock,
    journey::{Journey, Stage},
    rate::{self, What},
    settings::{InForce, Period, Price, Settings},
    traces::Span,
};

/// What is about to be done.
#[derive(Debug)]
pub(crate) struct Work {
    pub(crate) kind: Kind,
    /// The model or decision, by its public name.
    pub(crate) model: String,
    /// What identifies its weights or its graph.
    pub(crate) digest: String,
    /// What identifies the adapter beside them.
    pub(crate) adapter: String,
    /// Who offers it.
    pub(crate) service: String,
    /// The parameters in force.
    pub(crate) parameters: Value,
    /// What came in.
    pub(crate) input: Value,
    /// Whom the content concerns; empty means the tenant.
    pub(crate) subject: String,
    /// Tokens it may take at most, as far as that is known.
    pub(crate) estimate: Usage,
}

impl Work {
    /// The work of an embedding request.
    pub(crate) fn embedding(request: &EmbedRequest, end_user: &str, card: Option<ModelCard>) -> Self {
        let card = card.unwrap_or_else(|| ModelCard::new(request.model.clone()));
        let inputs = request.inputs.iter().map(raw).collect();
        let tokens = request.inputs.iter().map(counted).sum();
        Self {
            kind: Kind::Embedding,
            model: request.model.clone(),
            digest: card.digest,
            adapter: card.adapter,
            service: card.owned_by,
            parameters: json!({ "dimensions": request.dimensions, "inputs": request.inputs.len() }),
            input: single(inputs),
            subject: end_user.to_owned(),
            estimate: Usage { prompt_tokens: tokens, ..Usage::default() },
        }
    }

    /// The work of a request for images.
    pub(crate) fn drawing(request: &DrawRequest, end_user: &str, card: Option<ModelCard>) -> Self {
        let card = card.unwrap_or_else(|| ModelCard::new(request.model.clone()));
        Self {
            kind: Kind::Image,
            model: request.model.clone(),
            digest: card.digest,
            adapter: card.adapter,
            service: card.owned_by,
            parameters: json!({ "n": request.n, "size": request.size, "seed": request.seed }),
            input: request.prompt.as_str().into(),
            subject: if end_user.is_empty() { request.tenant.clone() } else { end_user.to_owned() },
            estimate: Usage::default(),
        }
    }

    /// The work of a call for text, with what answers.
    pub(crate) fn text(kind: Kind, call: &Call, card: Option<ModelCard>, assumed: u64) -> Self {
        let requests = &call.requests;
        let first = &requests[0];
        let card = card.unwrap_or_else(|| ModelCard::new(first.model.clone()));
        let assumed = usize::try_from(assumed).unwrap_or(usize::MAX);
        let answer = first.stop.max_tokens.unwrap_or(assumed.min(card.context_length.max(1)));
        let estimate = Usage {
            prompt_tokens: requests.iter().map(|request| guessed(&request.prompt)).sum(),
            completion_tokens: answer.saturating_mul(first.n).saturating_mul(requests.len()),
            ..Usage::default()
        };
        let inputs: Vec<Value> = requests.iter().map(|request| input(&request.prompt)).collect();
        let mut sealed = shape(first);
        if !call.recorded.is_empty() {
            sealed.insert("recorded".to_owned(), call.recorded.clone().into());
        }
        let end_user = end_user(&call.recorded);
        Self {
            kind,
            model: first.model.clone(),
            digest: card.digest,
            adapter: card.adapter,
            service: card.owned_by,
            parameters: parameters(first, requests.len()),
            input: beside(single(inputs), sealed),
            subject: if end_user.is_empty() { first.tenant.clone() } else { end_user.to_owned() },
            estimate,
        }
    }
}

/// Tokens of a prompt, before anybody counted: four bytes each.
fn guessed(prompt: &Prompt) -> usize {
    match prompt {
        Prompt::Raw(input) => counted(input),
        Prompt::Chat(chat) => {
            let text = |message: &protocol::Message| message.content.as_ref().map_or(0, String::len) / 4 + 4;
            chat.messages.iter().map(text).sum()
        }
    }
}

fn counted(input: &TextOrTokens) -> usize {
    match input {
        TextOrTokens::Tokens(ids) => ids.len(),
        TextOrTokens::Text(text) => text.len() / 4 + 1,
    }
}

fn raw(input: &TextOrTokens) -> Value {
    match input {
        TextOrTokens::Text(text) => text.as_str().into(),
        TextOrTokens::Tokens(ids) => json!(ids),
    }
}

fn input(prompt: &Prompt) -> Value {
    match prompt {
        Prompt::Raw(input) => raw(input),
        Prompt::Chat(chat) if chat.tools.is_empty() => json!(chat.messages),
        Prompt::Chat(chat) => json!({ "messages": chat.messages, "tools": chat.tools }),
    }
}

/// The end user whom a request names: whom its content concerns, whoever's key it came with. Empty where it names nobody.
pub(crate) fn end_user(recorded: &Map<String, Value>) -> &str {
    let named = ["safety_identifier", "user"].iter().find_map(|name| recorded.get(*name)?.as_str());
    named.or_else(|| recorded.get("metadata")?.get("user_id")?.as_str()).unwrap_or_default()
}

/// What came in, with what else may hold names and is sealed with it.
fn beside(input: Value, sealed: Map<String, Value>) -> Value {
    if sealed.is_empty() {
        return input;
    }
    let mut whole = match input {
        Value::Object(whole) => whole,
        Value::Array(messages) => Map::from_iter([("messages".to_owned(), messages.into())]),
        text => Map::from_iter([("text".to_owned(), text)]),
    };
    whole.extend(sealed);
    whole.into()
}

/// What the caller wrote about how the answer ends and looks: words of theirs, which an erasure must reach.
fn shape(request: &GenerateRequest) -> Map<String, Value> {
    let mut words = Map::new();
    if !request.stop.strings.is_empty() {
        words.insert("stop".to_owned(), json!(request.stop.strings));
    }
    if !matches!(request.format, Format::Text | Format::JsonObject) {
        words.insert("format".to_owned(), json!(request.format));
    }
    words
}

/// What decides about the answer, defaults filled in. It stands open in the log for good, so no words of the caller are in it.
fn parameters(request: &GenerateRequest, prompts: usize) -> Value {
    let Stop { max_tokens, strings, ignore_eos } = &request.stop;
    json!({
        "sampling": request.sampling,
        "stop": { "max_tokens": max_tokens, "strings": strings.len(), "ignore_eos": ignore_eos },
        "format": kind(&request.format),
        "n": request.n,
        "logprobs": request.logprobs,
        "echo": request.echo,
        "prompts": prompts,
    })
}

fn kind(format: &Format) -> &'static str {
    match format {
        Format::Text => "text",
        Format::JsonObject => "json_object",
        Format::JsonSchema(_) => "json_schema",
        Format::Regex(_) => "regex",
        Format::Lark(_) => "lark",
    }
}

/// The only one of a list, or the list.
fn single(mut values: Vec<Value>) -> Value {
    if values.len() == 1 { values.remove(0) } else { Value::Array(values) }
}

/// A rate that was taken, to be settled.
#[derive(Debug)]
struct Taken {
    account: rate::Account,
    limit: u64,
    tokens: u64,
}

/// A request's record while the request runs.
#[derive(Debug)]
pub(crate) struct Record {
    app: Arc<App>,
    journey: Journey,
    /// `None` where there is no ledger, and once it is closed.
    pending: Option<Pending>,
    taken: Vec<Taken>,
    price: Price,
    answers: BTreeMap<(usize, usize), Answer>,
    settled: Settled,
    closed: bool,
    began: bool,
    about: About,
}

/// What a span says beside the record.
#[derive(Debug)]
struct About {
    id: String,
    /// The model that was asked for.
    model: String,
    kind: Kind,
    temperature: Option<f64>,
    max_tokens: Option<i64>,
}

/// What one answer became, as delivered.
#[derive(Debug, Default)]
struct Answer {
    text: String,
    calls: Vec<(String, String)>,
    reason: Option<FinishReason>,
}

impl Record {
    /// Limits, budgets, and the record that precedes the work.
    pub(crate) async fn begin(
        app: &Arc<App>,
        caller: &Caller,
        journey: &Journey,
        request_id: &str,
        work: Work,
    ) -> Result<Self, Error> {
        let in_force = app.gateway.settings.get();
        let taken = take(app, caller, journey, &in_force.settings, &work.estimate)?;
        let price = in_force.settings.prices.get(&work.model).copied().unwrap_or_default();
        let mut record = Self::new(app, journey, request_id, &work, (taken, price));
        if let Some(ledger) = &app.gateway.ledger {
            match ledger.accept(accepted(caller, &in_force, &price, request_id, work)).await {
                Ok(pending) => {
                    record.pending = Some(pending);
                    journey.record();
                }
                Err(error) => {
                    // Nothing was done: what was taken from the rates goes back with the record.
                    record.settled.outcome = Outcome::Refused;
                    return Err(error.into());
                }
            }
        }
        journey.lap(Stage::Limit);
        Ok(record)
    }

    fn new(app: &Arc<App>, journey: &Journey, id: &str, work: &Work, (taken, price): (Vec<Taken>, Price)) -> Self {
        let why = Reason::Named.word().to_owned();
        let route = Route { chosen: work.service.clone(), why, hops: Vec::new() };
        let answered =
            Answered { model: work.model.clone(), adapter: work.adapter.clone(), digest: work.digest.clone() };
        let about = About {
            id: id.to_owned(),
            model: work.model.clone(),
            kind: work.kind,
            temperature: work.parameters["sampling"]["temperature"].as_f64(),
            max_tokens: work.parameters["stop"]["max_tokens"].as_i64(),
        };
        Self {
            app: app.clone(),
            journey: journey.clone(),
            pending: None,
            taken,
            price,
            answers: BTreeMap::new(),
            settled: Settled { route, answered, usage: Usage::NOTHING, ..Settled::default() },
            closed: false,
            began: false,
            about,
        }
    }

    /// Takes an event in that the client is about to get.
    pub(crate) fn see(&mut self, prompt: usize, event: &Event) {
        match event {
            Event::Started { prompt_tokens, cached_tokens } => {
                self.journey.lap(Stage::Queue);
                self.settled.usage.prompt_tokens += prompt_tokens;
                self.settled.usage.cached_tokens += cached_tokens;
            }
            Event::Text { choice, text, .. } => {
                self.token();
                self.answers.entry((prompt, *choice)).or_default().text += text;
            }
            Event::ToolCall { choice, index, name, arguments, .. } => {
                self.token();
                let calls = &mut self.answers.entry((prompt, *choice)).or_default().calls;
                calls.resize_with(calls.len().max(index + 1), Default::default);
                calls[*index].0 += name.as_deref().unwrap_or_default();
                calls[*index].1 += arguments;
            }
            Event::Checked(finding) => {
                if finding.outcome == protocol::Outcome::Blocked {
                    self.settled.outcome = Outcome::Blocked;
                }
                self.settled.verdicts.push(json!(finding));
            }
            Event::Routed(hop) => self.went(hop),
            Event::Held { choice, time } => self.held(*choice, *time),
            Event::Finished { choice, reason } => {
                self.answers.entry((prompt, *choice)).or_default().reason = Some(*reason);
            }
            Event::Done(usage) => {
                // `Started` has said what the prompt had; a service that never started says it here.
                let started = self.settled.usage.prompt_tokens > 0;
                self.settled.usage.completion_tokens += usage.completion_tokens;
                self.settled.usage.work(usage.processor_micros);
                if !started {
                    self.settled.usage.prompt_tokens += usage.prompt_tokens;
                    self.settled.usage.cached_tokens += usage.cached_tokens;
                }
            }
            _ => {}
        }
    }

    /// Takes in where the request went. Several prompts of one call go the same way mostly, and each way is kept once.
    pub(crate) fn went(&mut self, hop: &Hop) {
        let Settled { route, answered, .. } = &mut self.settled;
        if route.hops.contains(hop) {
            return;
        }
        route.hops.push(hop.clone());
        route.why = route.hops.iter().map(|hop| hop.reason.word()).collect::<Vec<_>>().join(", ");
        if !hop.service.is_empty() {
            route.chosen.clone_from(&hop.service);
        }
        answered.model.clone_from(&hop.model);
        answered.digest.clone_from(&hop.digest);
        answered.adapter.clone_from(&hop.adapter);
    }

    /// The guard had the request, or what is ready of an answer, for so long.
    fn held(&self, choice: Option<usize>, time: Duration) {
        let within = match choice {
            None => Stage::Queue,
            Some(_) => self.writing(),
        };
        if within != Stage::Queue {
            self.journey.lap(within);
        }
        self.journey.guarded(within, time);
    }

    /// Judges a text that comes in and puts masks into it; an error is a finding that blocks.
    pub(crate) fn judge(&mut self, place: &str, text: &mut String) -> Result<(), Error> {
        let findings = services::judge(&self.app.services().guard, place, text);
        self.judged();
        self.settled.verdicts.extend(findings?.iter().map(|finding| json!(finding)));
        Ok(())
    }

    /// What passed since the work began was the guard's.
    pub(crate) fn judged(&self) {
        self.journey.lap(Stage::Guard);
    }

    /// The stage that an answer is in.
    fn writing(&self) -> Stage {
        if self.began { Stage::Tokens } else { Stage::FirstToken }
    }

    /// The client took what there was and asks for more.
    pub(crate) fn waited(&self) {
        if self.began {
            self.journey.lap(Stage::Flush);
        }
    }

    /// Time until something came of the service.
    fn token(&mut self) {
        self.journey.lap(self.writing());
        self.began = true;
    }

    /// Closes the record of an answer that is not made of events: what is delivered, the steps that led to it, and
    /// the tokens it took.
    pub(crate) async fn deliver(mut self, output: Value, steps: Vec<Step>, usage: Usage) -> Result<(), Error> {
        self.settled.output = output;
        self.settled.steps = steps;
        self.settled.usage = usage;
        self.journey.lap(Stage::Tokens);
        self.close(None).await
    }

    /// Closes the record of a request that failed, and gives the error back.
    pub(crate) async fn fail(mut self, error: Error) -> Error {
        match self.close(Some(&error)).await {
            Ok(()) => error,
            Err(unrecorded) => unrecorded,
        }
    }

    /// Closes the record; returns once it has reached the operating system.
    pub(crate) async fn close(&mut self, error: Option<&Error>) -> Result<(), Error> {
        // Before the first token only a guard blocks.
        let blocked = error.is_some_and(|error| error.kind == ErrorKind::Blocked);
        self.journey.lap(if blocked && !self.began { Stage::Guard } else { self.writing() });
        let settling = self.settle(error.map(outcome), error);
        let settled = match settling {
            Some(settling) => settling.await.map_err(Error::from),
            None => Ok(()),
        };
        self.journey.lap(Stage::Settle);
        settled
    }

    fn settle(&mut self, outcome: Option<Outcome>, error: Option<&Error>) -> Option<ledger::Settling> {
        if std::mem::replace(&mut self.closed, true) {
            return None;
        }
        let mut settled = std::mem::take(&mut self.settled);
        if outcome.is_some() {
            // It ended before anybody said what it took.
            settled.usage.processor_micros = None;
        }
        if let Some(outcome) = outcome.filter(|_| settled.outcome != Outcome::Blocked) {
            settled.outcome = outcome;
        }
        settled.error = error.map(|error| error.word().to_owned());
        if settled.output.is_null() {
            settled.output = delivered(std::mem::take(&mut self.answers));
        }
        let used = settled.usage;
        let total = u64::try_from(used.prompt_tokens + used.completion_tokens).unwrap_or(u64::MAX);
        for taken in self.taken.drain(..) {
            self.app.rates.correct(&taken.account, taken.tokens, total, taken.limit);
        }
        settled.charges = charges(&self.price, used);
        self.tell(&settled);
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        settled.latency = self.journey.stages().map(|(stage, time)| (stage.name().into(), micros(time))).collect();
        let kind = self.about.kind.name();
        metrics::counter!("tessera_requests_total", "kind" => kind, "outcome" => settled.outcome.name()).increment(1);
        if let Some(traces) = &self.app.traces {
            traces.record(self.span(&settled));
        }
        self.pending.take().map(|pending| pending.settle(settled))
    }

    /// Tells rollouts on the way what became of it, at the price of the version's own model where that has one.
    fn tell(&self, settled: &Settled) {
        let blocked = settled.outcome == Outcome::Blocked;
        if !blocked && settled.outcome != Outcome::Served {
            return;
        }
        let in_force = self.app.gateway.settings.get();
        self.app.services().report(&settled.route.hops, |hop| {
            let price = in_force.settings.prices.get(&hop.model).unwrap_or(&self.price);
            let cost =
                charges(price, settled.usage).iter().fold(0_i64, |sum, charge| sum.saturating_add(charge.amount));
            Report::Settled { blocked, cost }
        });
    }

    /// The request in the words of OpenTelemetry's conventions for generative AI.
    fn span(&self, settled: &Settled) -> Span {
        let operation = match self.about.kind {
            Kind::Chat | Kind::Message | Kind::Response => "chat",
            Kind::Completion => "text_completion",
            Kind::Embedding => "embeddings",
            other => other.name(),
        };
        let model = &self.about.model;
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX).into();
        let mut attributes: Vec<(&'static str, opentelemetry::Value)> = vec![
            ("gen_ai.operation.name", operation.into()),
            ("gen_ai.provider.name", "tessera".into()),
            ("gen_ai.request.model", model.clone().into()),
            ("gen_ai.response.model", settled.answered.model.clone().into()),
            ("gen_ai.response.id", self.about.id.clone().into()),
            ("gen_ai.usage.input_tokens", count(settled.usage.prompt_tokens)),
            ("gen_ai.usage.output_tokens", count(settled.usage.completion_tokens)),
            ("tessera.outcome", settled.outcome.name().into()),
        ];
        attributes.extend(self.about.temperature.map(|value| ("gen_ai.request.temperature", value.into())));
        attributes.extend(self.about.max_tokens.map(|value| ("gen_ai.request.max_tokens", value.into())));
        attributes.extend(settled.error.clone().map(|code| ("error.type", code.into())));
        let stages = self.journey.stages().map(|(stage, time)| (stage.attribute(), (time.as_secs_f64() * 1e3).into()));
        attributes.extend(stages);
        let (started, parent) = self.journey.origin();
        let name = format!("{operation} {model}");
        Span { parent, name, started, ended: clock::now(), attributes, error: settled.error.clone() }
    }
}

impl Drop for Record {
    /// The client hung up, or the work was dropped: closed as it stands, in the background.
    fn drop(&mut self) {
        let outcome = if self.settled.outcome == Outcome::Refused { Outcome::Refused } else { Outcome::Aborted };
        drop(self.settle(Some(outcome), None));
    }
}

/// What the ledger is told before the work.
fn accepted(caller: &Caller, in_force: &InForce, price: &Price, request_id: &str, work: Work) -> Accepted {
    Accepted {
        request_id: request_id.to_owned(),
        tenant: caller.tenant.clone(),
        key_id: caller.key_id.clone(),
        kind: work.kind,
        model: work.model,
        config_hash: in_force.digest.clone(),
        holds: holds(caller, &in_force.settings, price, &work.estimate),
        parameters: work.parameters,
        input: work.input,
        subject: work.subject,
    }
}

/// What limits leave to the caller; taken from every account that has one, or from none.
fn take(
    app: &App,
    caller: &Caller,
    journey: &Journey,
    settings: &Settings,
    estimate: &Usage,
) -> Result<Vec<Taken>, Error> {
    let tokens = u64::try_from(estimate.prompt_tokens.saturating_add(estimate.completion_tokens)).unwrap_or(u64::MAX);
    let own = caller.grant.as_ref().map(|grant| grant.limits).unwrap_or_default();
    let tenant = settings.tenants.get(&caller.tenant);
    let limits = [
        (&caller.key_id, What::Requests, own.requests.map_or(settings.limits.requests_per_minute, u64::from)),
        (&caller.key_id, What::Tokens, own.tokens.map_or(settings.limits.tokens_per_minute, u64::from)),
        (&caller.tenant, What::Requests, tenant.map_or(0, |tenant| tenant.requests_per_minute)),
        (&caller.tenant, What::Tokens, tenant.map_or(0, |tenant| tenant.tokens_per_minute)),
    ];
    let now = Instant::now();
    let mut taken: Vec<Taken> = Vec::new();
    for (place, (owner, what, limit)) in limits.into_iter().enumerate().filter(|(_, (_, _, limit))| *limit > 0) {
        let n = if what == What::Requests { 1 } else { tokens };
        let owner = if place < 2 { format!("key {owner}") } else { format!("tenant {owner}") };
        let account = rate::Account { owner, what };
        match app.rates.take(&account, n, limit, now) {
            Ok(standing) => {
                journey.stands(what, standing);
                // A request stays used; the estimate of its tokens is settled.
                taken.push(Taken { account, limit, tokens: n });
            }
            Err(exceeded) => {
                journey.stands(what, exceeded.standing);
                taken.iter().for_each(|taken| app.rates.correct(&taken.account, taken.tokens, 0, taken.limit));
                return Err(limited(&account, n, exceeded));
            }
        }
    }
    taken.retain(|taken| taken.account.what == What::Tokens);
    Ok(taken)
}

fn limited(account: &rate::Account, n: u64, exceeded: rate::Exceeded) -> Error {
    let (what, owner, standing) = (account.what, &account.owner, exceeded.standing);
    metrics::counter!("tessera_limited_total", "what" => if what == What::Requests { "requests" } else { "tokens" })
        .increment(1);
    let (unit, code) = match what {
        What::Requests => ("requests", "rate_limit_exceeded"),
        What::Tokens => ("tokens", "tokens_rate_limit_exceeded"),
    };
    let Some(wait) = exceeded.wait else {
        let message =
            format!("This request may take {n} {unit}, more than the {} a minute of {owner}.", standing.limit);
        return Error::new(ErrorKind::Invalid, message).with_code("request_exceeds_rate_limit");
    };
    let message = format!(
        "The limit of {owner} is reached: {} {unit} a minute, {} left, {n} wanted. Try again in {:.1} s.",
        standing.limit,
        standing.remaining,
        wait.as_secs_f64()
    );
    Error::new(ErrorKind::Overloaded, message).with_code(code).with_retry_after(wait)
}

/// What is held back from every budget that applies until the request is settled.
fn holds(caller: &Caller, settings: &Settings, price: &Price, estimate: &Usage) -> Vec<Hold> {
    let money = charges(price, *estimate).iter().map(|charge| charge.amount).fold(0_i64, i64::saturating_add);
    let tokens = i64::try_from(estimate.prompt_tokens.saturating_add(estimate.completion_tokens)).unwrap_or(i64::MAX);
    let hold = |account, budget| Hold { account, budget, money, tokens };
    let own = caller.grant.iter().flat_map(|grant| &grant.budgets);
    let own = own.map(|budget| hold(Account::key(&caller.tenant, &caller.key_id), *budget));
    let tenant = settings.tenants.get(&caller.tenant).and_then(budget);
    own.chain(tenant.map(|budget| hold(Account::tenant(&caller.tenant), budget))).collect()
}

/// A tenant's budget, as the ledger counts it.
pub(crate) fn budget(tenant: &crate::settings::Tenant) -> Option<Budget> {
    let limit = |n: u64| (n > 0).then(|| i64::try_from(n).unwrap_or(i64::MAX));
    let window = match tenant.period {
        Period::Day => Window::Day,
        Period::Month => Window::Month,
        Period::Total => Window::Total,
    };
    let budget = Budget { money: limit(tenant.budget.0), tokens: limit(tenant.token_budget), window };
    (budget.money.is_some() || budget.tokens.is_some()).then_some(budget)
}

/// What tokens cost, a row for each kind of them.
fn charges(price: &Price, usage: Usage) -> Vec<Charge> {
    let nano = |money: crate::settings::Money| i64::try_from(money.0).unwrap_or(i64::MAX);
    let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    let cached = if price.cached.0 == 0 { price.input } else { price.cached };
    let rows = [
        (Item::InputTokens, usage.prompt_tokens.saturating_sub(usage.cached_tokens), price.input),
        (Item::CachedTokens, usage.cached_tokens, cached),
        (Item::OutputTokens, usage.completion_tokens, price.output),
    ];
    let used = rows.into_iter().filter(|(_, n, _)| *n > 0);
    used.map(|(item, n, price)| Charge::new(item, count(n), nano(price))).collect()
}

/// The answers as they were delivered: a text if there is only one, else a list.
fn delivered(answers: BTreeMap<(usize, usize), Answer>) -> Value {
    let plain = |answer: &Answer| answer.calls.is_empty() && answer.reason != Some(FinishReason::ContentFilter);
    let answers: Vec<Answer> = answers.into_values().collect();
    match &answers[..] {
        [] => Value::Null,
        [only] if plain(only) => only.text.as_str().into(),
        several => several.iter().map(whole).collect(),
    }
}

fn whole(answer: &Answer) -> Value {
    let call = |(name, arguments): &(String, String)| json!({ "name": name, "arguments": arguments });
    json!({
        "text": answer.text,
        "tool_calls": answer.calls.iter().map(call).collect::<Vec<_>>(),
        "finish_reason": answer.reason,
    })
}

fn outcome(error: &Error) -> Outcome {
    match error.kind {
        ErrorKind::Blocked => Outcome::Blocked,
        ErrorKind::Forbidden | ErrorKind::Unauthenticated | ErrorKind::OverBudget | ErrorKind::Overloaded => {
            Outcome::Refused
        }
        _ => Outcome::Failed,
    }
}
