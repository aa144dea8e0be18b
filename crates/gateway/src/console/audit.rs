//! The audit log, to look at: a tile for every request, a record as a story, and proofs that are checked before one's eyes.
//!
//! Whatever the pages show is read with the scope of the person who looks; verifying is done by the ledger, here are its numbers.

use std::sync::Arc;

use axum::{
    extract::{Path, Query, State},
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use ledger::{Content, Filter, Kind, Ledger, Outcome, Page as Part, Record, Records, Route, Verification};
use maud::{Markup, html};
use protocol::{Candidate, Hop, Reason, Step};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    decided,
    frame::{self, Page, number},
    sign,
    view::View,
};
use crate::{app::App, refusal::Refusal};

/// What is looked for; empty fields look for anything.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Wanted {
    /// A request's id, or a model's name.
    q: String,
    kind: String,
    outcome: String,
    before: Option<u64>,
}

impl Wanted {
    fn filter(&self) -> Filter {
        Filter {
            kind: Kind::ALL.into_iter().find(|kind| kind.name() == self.kind),
            outcome: Outcome::ALL.into_iter().find(|outcome| outcome.name() == self.outcome),
            model: Some(self.q.trim().to_owned()).filter(|q| !q.is_empty()),
            ..Filter::default()
        }
    }

    /// Where the next part of the list is.
    fn next(&self, before: u64) -> String {
        let Self { q, kind, outcome, .. } = self;
        format!("/console/audit?q={}&kind={kind}&outcome={outcome}&before={before}", sign::encoded(q))
    }
}

/// Records on a page: enough for a mosaic to look at, few enough to read.
const SHOWN: u32 = 60;

/// `GET /console/audit`; htmx takes the list out of it while somebody types.
pub(super) async fn page(State(app): State<Arc<App>>, view: View, Query(wanted): Query<Wanted>) -> Response {
    let ledger = match ledger(&app, &view) {
        Ok(ledger) => ledger,
        Err(refused) => return *refused,
    };
    let found = match find(ledger, &view, &wanted).await {
        Ok(found) => found,
        Err(error) => return Refusal::from(protocol::Error::from(error)).into_response(),
    };
    let content = html! {
        (frame::heading(view.t("nav.audit"), &verify_button(&view)))
        div #verified aria-live="polite" {}
        (search(&view, &wanted))
        div #records { (list(&view, &wanted, &found)) }
    };
    frame::page(&view, Page::Audit, view.t("nav.audit"), &[], &content)
}

/// The ledger, for those who may read it.
fn ledger<'a>(app: &'a App, view: &View) -> Result<&'a Ledger, Box<Response>> {
    view.caller.may_audit().map_err(|error| Box::new(sign::refused(view, Page::Audit, &error)))?;
    app.gateway.ledger.as_ref().ok_or_else(|| {
        let next = html! { (view.t("audit.off-next")) " " code { "[ledger] url = \"sqlite:tessera.db\"" } };
        let content =
            html! { (frame::heading(view.t("nav.audit"), &html! {})) (frame::empty(view.t("audit.off"), &next)) };
        Box::new(frame::page(view, Page::Audit, view.t("nav.audit"), &[], &content))
    })
}

/// The one record of this id, or those that fit.
async fn find(ledger: &Ledger, view: &View, wanted: &Wanted) -> ledger::Result<Records> {
    let scope = view.caller.scope();
    if !wanted.q.trim().is_empty()
        && let Some(record) = ledger.record(&scope, wanted.q.trim()).await?
    {
        return Ok(Records { records: vec![listed(record)], next: None });
    }
    let part = Part { before: wanted.before, limit: SHOWN };
    ledger.records(&scope, &wanted.filter(), part, listed).await
}

fn verify_button(view: &View) -> Markup {
    html! {
        button.quiet.right type="button" hx-post="/console/audit/verify" hx-target="#verified" hx-disable="this" {
            (view.t("audit.verify"))
        }
    }
}

fn search(view: &View, wanted: &Wanted) -> Markup {
    let kinds = Kind::ALL.map(|kind| (kind.name(), kind_name(view, kind)));
    let outcomes = Outcome::ALL.map(|outcome| (outcome.name(), outcome_name(view, Some(outcome))));
    html! {
        form.filter action="/console/audit" hx-get="/console/audit" hx-trigger="input delay:250ms, change delay:250ms, submit" hx-select="#records"
            hx-target="#records" hx-swap="outerHTML" hx-push-url="true" {
            label.hidden for="q" { (view.t("audit.search")) }
            input #q type="search" name="q" value=(wanted.q) placeholder=(view.t("audit.search"));
            (choice(view.t("audit.any-kind"), "kind", &wanted.kind, &kinds))
            (choice(view.t("audit.any-outcome"), "outcome", &wanted.outcome, &outcomes))
        }
    }
}

fn choice(any: &str, field: &str, chosen: &str, options: &[(&str, &str)]) -> Markup {
    html! {
        select name=(field) aria-label=(any) {
            option value="" { (any) }
            @for (value, name) in options { option value=(value) selected[*value == chosen] { (name) } }
        }
    }
}

fn list(view: &View, wanted: &Wanted, found: &Records) -> Markup {
    html! {
        @if found.records.is_empty() {
            (frame::empty(view.t("audit.none"), &html! { (view.t("audit.none-next")) " " a href="/" { (view.t("nav.play")) } }))
        } @else {
            (mosaic(view, &found.records))
            (table(view, &found.records))
            @if let Some(next) = found.next { p.below { a.quiet href=(wanted.next(next)) { (view.t("audit.older")) } } }
        }
    }
}

/// A tile for every record, oldest first as they were laid.
fn mosaic(view: &View, records: &[Record]) -> Markup {
    html! {
        div.laid aria-hidden="true" {
            @for record in records.iter().rev() {
                a.tile.(stone(record.outcome)) href=(address(record)) tabindex="-1"
                    title={ (kind_name(view, record.kind)) " · " (outcome_name(view, record.outcome)) } {}
            }
        }
    }
}

fn table(view: &View, records: &[Record]) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label=(view.t("audit.records")) {
            table.records {
                thead { tr {
                    @for name in ["audit.when", "audit.what", "audit.said"] { th scope="col" { (view.t(name)) } }
                    @for name in ["audit.tokens", "audit.took", "audit.cost"] { th.number scope="col" { (view.t(name)) } }
                    th scope="col" { (view.t("audit.outcome")) }
                } }
                tbody { @for record in records { (row(view, record)) } }
            }
        }
    }
}

fn row(view: &View, record: &Record) -> Markup {
    html! {
        tr {
            th scope="row" { a href=(address(record)) { (moment(record.accepted_at)) } }
            td { (kind_name(view, record.kind)) div.note { (record.model) } }
            td.said { (record.input_text.as_deref().unwrap_or(view.t("audit.erased"))) }
            td.number { (number(tokens(record))) }
            td.number { (took(record).map_or("–".to_owned(), milliseconds)) }
            td.number { (money(record.cost)) }
            td { span.state { i.tile.(stone(record.outcome)) aria-hidden="true" {} (outcome_name(view, record.outcome)) } }
        }
    }
}

fn address(record: &Record) -> String {
    format!("/console/audit/{}", sign::encoded(&record.request_id))
}

fn tokens(record: &Record) -> u64 {
    (record.usage.prompt_tokens + record.usage.completion_tokens) as u64
}

fn took(record: &Record) -> Option<u64> {
    u64::try_from(record.settled_at? - record.accepted_at).ok()
}

/// What a row needs of a record: of its contents, the line in [`last_line`].
fn listed(record: Record) -> Record {
    let input_text = record.input_text.as_deref().map(last_line);
    Record { input_text, input: None, output_decision: None, inference_steps: Vec::new(), ..record }
}

/// The end of what came in, where the question usually is.
fn last_line(text: &str) -> String {
    let line = text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
    let line = line.strip_prefix("user: ").unwrap_or(line);
    let cut: String = line.chars().take(90).collect();
    if cut.len() < line.len() { cut + "…" } else { cut }
}

fn stone(outcome: Option<Outcome>) -> &'static str {
    match outcome {
        Some(Outcome::Served) => "malachite",
        Some(Outcome::Blocked | Outcome::Refused) => "gold",
        Some(Outcome::Aborted) => "aqua",
        Some(_) => "porphyry",
        None => "unset",
    }
}

fn outcome_name(view: &View, outcome: Option<Outcome>) -> &'static str {
    match outcome {
        None => view.t("audit.running"),
        Some(Outcome::Served) => view.t("audit.served"),
        Some(Outcome::Blocked) => view.t("audit.blocked"),
        Some(Outcome::Refused) => view.t("audit.refused"),
        Some(Outcome::Aborted) => view.t("audit.aborted"),
        Some(Outcome::Lost) => view.t("audit.lost"),
        Some(_) => view.t("audit.failed"),
    }
}

fn kind_name(view: &View, kind: Kind) -> &'static str {
    match kind {
        Kind::Chat => view.t("audit.chat"),
        Kind::Completion => view.t("audit.completion"),
        Kind::Embedding => view.t("audit.embedding"),
        Kind::Decision => view.t("audit.decision"),
        Kind::Solution => view.t("audit.solution"),
        Kind::Message => view.t("audit.message"),
        Kind::Response => view.t("audit.response"),
        Kind::Image => view.t("audit.image"),
        Kind::Moderation => view.t("audit.moderation"),
        _ => view.t("audit.other"),
    }
}

/// `GET /console/audit/{id}`: a record as a story.
pub(super) async fn record(State(app): State<Arc<App>>, view: View, Path(id): Path<String>) -> Response {
    let ledger = match ledger(&app, &view) {
        Ok(ledger) => ledger,
        Err(refused) => return *refused,
    };
    let content = match ledger.record(&view.caller.scope(), &id).await {
        Ok(Some(record)) => story(&app, &view, &record),
        Ok(None) => html! {
            (frame::heading(view.t("audit.record"), &html! {}))
            (frame::empty(view.t("audit.no-record"), &html! { (view.t("audit.no-record-next")) " " a href="/console/audit" { (view.t("nav.audit")) } }))
        },
        Err(error) => return Refusal::from(protocol::Error::from(error)).into_response(),
    };
    frame::page(&view, Page::Audit, view.t("audit.record"), &[], &content)
}

fn story(app: &App, view: &View, record: &Record) -> Markup {
    let state = html! { span.state { i.tile.(stone(record.outcome)) aria-hidden="true" {} (outcome_name(view, record.outcome)) } };
    html! {
        p.crumb { a href="/console/audit" { (view.t("nav.audit")) } }
        (frame::heading(kind_name(view, record.kind), &html! { (state) code.right { (record.request_id) } }))
        div.record {
            ol.story {
                (chapter(view.t("audit.accepted"), Some(record.accepted_at), &accepted(view, record)))
                (chapter(view.t("audit.input"), None, &said(view, record.input_text.as_deref())))
                @if !record.inference_steps.is_empty() { (chapter(view.t("audit.steps"), None, &steps(&record.inference_steps))) }
                @if !record.verdicts.is_empty() { (chapter(view.t("audit.verdicts"), None, &verdicts(&record.verdicts))) }
                (chapter(view.t("audit.output"), None, &output(app, view, record)))
                @if let Some(at) = record.settled_at { (chapter(view.t("audit.settled"), Some(at), &settled(view, record))) }
                @for given in &record.feedback { (chapter(view.t("audit.feedback"), Some(given.at), &json(given))) }
            }
            (place(view, record))
        }
    }
}

fn chapter(title: &str, at: Option<i64>, content: &Markup) -> Markup {
    html! { li { h2 { (title) @if let Some(at) = at { small { (moment(at)) } } } (content) } }
}

fn pairs(rows: &[(&str, Markup)]) -> Markup {
    html! { dl.pairs { @for (name, value) in rows { dt { (name) } dd { (value) } } } }
}

fn accepted(view: &View, record: &Record) -> Markup {
    let key = if record.key_id.is_empty() {
        html! { (view.t("audit.no-key")) }
    } else {
        html! { code { (record.key_id) } }
    };
    let rows = [
        (view.t("audit.tenant"), html! { (record.tenant) }),
        (view.t("audit.key"), key),
        (
            if record.kind == Kind::Decision { view.t("audit.decision") } else { view.t("audit.model") },
            html! { (record.model) },
        ),
        (view.t("audit.config"), html! { code { (record.config_hash) } }),
    ];
    html! {
        (pairs(&rows))
        details { summary { (view.t("audit.parameters")) } (json(&record.parameters)) }
    }
}

fn said(view: &View, text: Option<&str>) -> Markup {
    html! {
        @match text {
            Some(text) => div.quoted { (text) },
            None => p.note { (view.t("audit.erased")) },
        }
    }
}

fn steps(steps: &[Step]) -> Markup {
    html! {
        ol.steps {
            @for step in steps {
                li { details {
                    summary { i.tile.gold aria-hidden="true" {} span { (step.action) } @if let Some(rule) = &step.rule { span.brief { (rule) } } small { (microseconds(step.duration_us)) } }
                    @if let Some(rule) = &step.rule { p { (rule) } }
                    (json(&step.inputs))
                    (json(&step.result))
                } }
            }
        }
    }
}

fn verdicts(verdicts: &[Value]) -> Markup {
    html! { @for verdict in verdicts { (json(verdict)) } }
}

fn output(app: &App, view: &View, record: &Record) -> Markup {
    let decided = record.output_decision.as_ref().filter(|_| record.kind == Kind::Decision);
    html! {
        @if let Some(output) = decided.and_then(|whole| whole["output_decision"].as_object()) {
            @let services = app.services();
            @let card = services.decide.iter().flat_map(|service| service.decisions()).find(|card| card.id == record.model);
            (decided::output(view, card.as_ref(), output))
        }
        @match &record.output_decision {
            Some(Value::String(text)) => (said(view, Some(text))),
            Some(Value::Null) => p.note { (view.t("audit.nothing")) },
            Some(value) => details { summary { (view.t("audit.as-sent")) } (json(value)) },
            None if record.outcome.is_none() => p.note { (view.t("audit.running")) },
            None => (said(view, None)),
        }
        @if let Some(error) = &record.error { p.failure { code { (error) } } }
    }
}

fn settled(view: &View, record: &Record) -> Markup {
    let usage = &record.usage;
    let rows = [
        (
            view.t("audit.tokens"),
            html! { (number(usage.prompt_tokens as u64)) " + " (number(usage.completion_tokens as u64)) },
        ),
        (view.t("audit.processor"), html! { (processor(view, usage.processor_micros)) }),
        (view.t("audit.cost"), html! { (money(record.cost)) }),
        (view.t("audit.route"), route(view, &record.route)),
        (view.t("audit.weights"), html! { code { (record.answered.digest) } }),
    ];
    html! {
        (stages(view, record))
        (pairs(&rows))
    }
}

/// Processor time, where it is known.
fn processor(view: &View, micros: Option<u64>) -> String {
    micros.map_or_else(|| view.t("audit.unknown").to_owned(), |micros| format!("{} ms", number(micros / 1000)))
}

/// Who answered, and every choice on the way there.
fn route(view: &View, route: &Route) -> Markup {
    html! {
        (route.chosen) " " span.note { (why(view, &route.why)) }
        @if !route.hops.is_empty() { ol.hops { @for hop in &route.hops { li { (hop_told(view, hop)) } } } }
    }
}

/// The recorded words in the reader's; one of an older record stays as it is.
fn why(view: &View, words: &str) -> String {
    let told =
        |word: &str| Reason::ALL.into_iter().find(|reason| reason.word() == word).map(|reason| view.t(name(reason)));
    words.split(", ").map(|word| told(word).unwrap_or(word)).collect::<Vec<_>>().join(", ")
}

fn name(reason: Reason) -> &'static str {
    match reason {
        Reason::Alias => "hop.alias",
        Reason::First => "hop.first",
        Reason::Fallback => "hop.fallback",
        Reason::Balanced => "hop.balanced",
        Reason::Turn => "hop.turn",
        Reason::Only => "hop.only",
        Reason::Resumed => "hop.resumed",
        Reason::Assigned => "hop.assigned",
        Reason::Accepted => "hop.accepted",
        Reason::Escalated => "hop.escalated",
        Reason::Domain => "hop.domain",
        _ => "hop.named",
    }
}

/// By what a candidate was compared.
fn compared(one: &Candidate) -> String {
    one.nearness.map_or_else(|| number(one.busy), |nearness| format!("{:.3}", f64::from(nearness) / 1000.0))
}

fn hop_told(view: &View, hop: &Hop) -> Markup {
    let failed: Vec<_> = hop.failed.iter().map(|miss| format!("{} ({})", miss.who, miss.error)).collect();
    let among: Vec<_> = hop.among.iter().map(|one| format!("{} ({})", one.service, compared(one))).collect();
    html! {
        code { (hop.asked) } " → " code { (hop.model) } @if !hop.service.is_empty() { " @ " (hop.service) } ": " (view.t(name(hop.reason)))
        @if let Some(score) = hop.score { div.note { (view.t("hop.score").replace("{}", &format!("{score:.3}"))) } }
        @if !failed.is_empty() { div.note { (view.t("hop.failed").replace("{}", &failed.join(", "))) } }
        @if !among.is_empty() { div.note { (view.t("hop.among").replace("{}", &among.join(", "))) } }
    }
}

/// Where the time went, as one bar.
fn stages(view: &View, record: &Record) -> Markup {
    const STONES: [&str; 5] = ["lapis", "gold", "malachite", "porphyry", "aqua"];
    let total: u64 = record.latency.values().sum();
    let mut parts: Vec<_> = record.latency.iter().filter(|(_, us)| **us > 0).collect();
    parts.sort_by_key(|(_, us)| std::cmp::Reverse(**us));
    let mut at = 0.0;
    let bars: Vec<_> = parts
        .iter()
        .zip(STONES.iter().cycle())
        .map(|((name, us), stone)| {
            let width = 1000.0 * **us as f64 / total as f64;
            at += width;
            (name, **us, *stone, at - width, width)
        })
        .collect();
    html! {
        @if total > 0 {
            svg.stages viewBox="0 0 1000 16" preserveAspectRatio="none" role="img" aria-label=(view.t("audit.latency")) {
                @for (_, _, stone, x, width) in &bars { rect.(stone) x=(format!("{x:.2}")) width=(format!("{:.2}", (width - 2.0).max(1.0))) height="16" {} }
            }
            ul.stones { @for (name, us, stone, ..) in &bars { li { i.tile.(stone) aria-hidden="true" {} (name) " " b { (microseconds(*us)) } } } }
        }
    }
}

/// Where it stands in the log, and how to be sure of it.
fn place(view: &View, record: &Record) -> Markup {
    let here = sign::encoded(&record.request_id);
    let (content, stone) = match record.content {
        Content::Intact => ("audit.content-intact", "malachite"),
        Content::Erased => ("audit.content-erased", "gold"),
        Content::Altered => ("audit.content-altered", "porphyry"),
    };
    let signed = if record.log.checkpointed { ("audit.signed", "malachite") } else { ("audit.not-signed", "gold") };
    html! {
        aside.panel aria-label=(view.t("audit.in-the-log")) {
            h2 { (view.t("audit.in-the-log")) }
            ul.states {
                li { i.tile.lapis aria-hidden="true" {} (view.t("audit.entry")) " " b { (number(record.log.accepted)) @if let Some(settled) = record.log.settled { ", " (number(settled)) } } }
                li { i.tile.(signed.1) aria-hidden="true" {} (view.t(signed.0)) }
                li { i.tile.(stone) aria-hidden="true" {} (view.t(content)) }
            }
            button.primary type="button" hx-post={ "/console/audit/" (here) "/verify" } hx-target="#proof" hx-disable="this" { (view.t("audit.verify-record")) }
            div #proof aria-live="polite" {}
            a.quiet href={ "/console/audit/" (here) "/proof" } download { (view.t("audit.download")) }
            p.note { (view.t("audit.download-note")) }
        }
    }
}

/// `POST /console/audit/{id}/verify`: proves the entries of a record and checks the proofs with the log's public key.
pub(super) async fn verify_record(State(app): State<Arc<App>>, view: View, Path(id): Path<String>) -> Response {
    let ledger = match ledger(&app, &view) {
        Ok(ledger) => ledger,
        Err(refused) => return *refused,
    };
    let checked = async {
        let proofs = ledger.prove(&view.caller.scope(), &id, true).await?;
        let check = |proof: &ledger::Proof| proof.check(ledger.verifier()).map(|proven| (proven, proof.hashes.len()));
        proofs.iter().map(check).collect::<ledger::Result<Vec<_>>>()
    };
    let content = match checked.await {
        Ok(proven) => html! {
            div.proof.good {
                p.verdict.good { (view.t("audit.proven")) }
                @for (proven, hashes) in &proven {
                    div.path { @for _ in 0..*hashes { i.tile.malachite {} } i.tile.gold {} }
                    p { (view.t("audit.entry")) " " b { (number(proven.index)) } " / " (number(proven.size)) " · " (view.t("audit.hashes")) " " b { (hashes) } }
                }
                p.note { (view.t("audit.signed-by")) " " code { (ledger.verifier().name()) } }
            }
        },
        Err(error) => html! { p.failure { (view.failure(&error.into())) } },
    };
    frame::fragment(&content)
}

/// `GET /console/audit/{id}/proof`: the proofs, to keep and to check anywhere with `tessera audit verify`.
pub(super) async fn proof(State(app): State<Arc<App>>, view: View, Path(id): Path<String>) -> Response {
    let ledger = match ledger(&app, &view) {
        Ok(ledger) => ledger,
        Err(refused) => return *refused,
    };
    match ledger.prove(&view.caller.scope(), &id, false).await {
        Ok(proofs) => {
            let body = serde_json::to_string_pretty(&proofs).unwrap_or_default();
            let name: String = id.chars().filter(|c| c.is_ascii_alphanumeric() || "-_".contains(*c)).collect();
            let name = HeaderValue::try_from(format!("attachment; filename=\"{name}.proof.json\""));
            let name = name.unwrap_or(HeaderValue::from_static("attachment"));
            let kind = HeaderValue::from_static("application/json");
            ([(header::CONTENT_TYPE, kind), (header::CONTENT_DISPOSITION, name)], body).into_response()
        }
        Err(error) => Refusal::from(protocol::Error::from(error)).into_response(),
    }
}

/// `POST /console/audit/verify`: computes the whole log again.
pub(super) async fn verify(State(app): State<Arc<App>>, view: View) -> Response {
    if let Err(error) = view.caller.may_administer() {
        return frame::fragment(&html! { p.failure { (view.failure(&error)) } });
    }
    let ledger = match ledger(&app, &view) {
        Ok(ledger) => ledger,
        Err(refused) => return *refused,
    };
    frame::fragment(&match ledger.verify(None).await {
        Ok(found) => verification(&view, &found),
        Err(error) => html! { p.failure { (view.failure(&error.into())) } },
    })
}

fn verification(view: &View, found: &Verification) -> Markup {
    let fine = found.problems.is_empty();
    let numbers = [
        ("audit.n-entries", found.entries),
        ("audit.n-signed", found.signed),
        ("audit.n-checkpoints", found.checkpoints),
        ("audit.n-contents", found.contents),
        ("audit.n-erased", found.erased),
        ("audit.n-usage", found.usage),
    ];
    html! {
        div.card.proof {
            p.verdict.(if fine { "good" } else { "bad" }) { (view.t(if fine { "audit.whole" } else { "audit.broken" })) }
            dl.numbers { @for (name, n) in numbers { div { dt { (view.t(name)) } dd { (number(n)) } } } }
            p.note { (view.t("audit.root")) " " code { (found.root) } }
            @if !fine { ul { @for problem in &found.problems { li.failure { (problem.what) } } } }
        }
    }
}

/// Microseconds since 1970 as a moment, in UTC.
pub(super) fn moment(at: i64) -> Markup {
    let machine = ledger::timestamp(at);
    let shown = machine.split('.').next().unwrap_or_default().replace('T', " ");
    html! { time datetime=(machine) { (shown) } }
}

fn milliseconds(us: u64) -> String {
    if us >= 1_000_000 { format!("{:.1} s", us as f64 / 1e6) } else { format!("{} ms", us / 1000) }
}

fn microseconds(us: u64) -> String {
    if us >= 1000 { milliseconds(us) } else { format!("{us} µs") }
}

/// Nano-units of currency, to the last digit that says something.
pub(super) fn money(nano: i64) -> String {
    if nano == 0 {
        return "0".to_owned();
    }
    let sign = if nano < 0 { "-" } else { "" };
    let (whole, rest) = (nano.unsigned_abs() / 1_000_000_000, nano.unsigned_abs() % 1_000_000_000);
    let digits = format!("{rest:09}");
    let digits = digits.trim_end_matches('0');
    if digits.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{digits}") }
}

fn json(value: &impl Serialize) -> Markup {
    html! { pre { (serde_json::to_string_pretty(value).unwrap_or_default()) } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_by_people_and_machines() {
        let shown = moment(1_772_323_199_000_000).into_string();
        assert_eq!(shown, "<time datetime=\"2026-02-28T23:59:59.000Z\">2026-02-28 23:59:59</time>");
    }

    #[test]
    fn money_is_exact() {
        for (nano, shown) in [(0, "0"), (1, "0.000000001"), (1_500_000_000, "1.5"), (-2_000_000_000, "-2")] {
            assert_eq!(money(nano), shown);
        }
    }
}
