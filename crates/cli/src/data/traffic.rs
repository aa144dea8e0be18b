//! Records of the ledger as rows: what was asked and what was answered, where whoever asked allowed that it is learned from.
//!
//! Consent stands in the request itself, as `"metadata": {"train": "yes"}`, and nothing else counts as one. It is sealed with the content, so a person
//! who was erased has none. Of the others only their number is told. Where feedback says how an answer should have been, that is learned; one
//! that was only rated down is left out.

use clap::Args;
use data::{Candidate, Dropped, Form, Pass, Place, Row, Source, parse_value};
use guard::Labels;
use ledger::{Filter, Ledger, Outcome, Page, Record, Scope};
use protocol::{
    Message, Reason, Tool, ToolCall,
    openai::chat::{MessageBody, ToolBody},
};
use serde_json::{Value, json};

use super::source;
use crate::{audit, compose::LedgerArgs, screen};

/// The name of the ledger among the sources.
const LEDGER: &str = "ledger";

/// Which records are taken.
#[derive(Debug, Args)]
#[command(next_help_heading = "Traffic")]
pub(super) struct TrafficArgs {
    /// Take records of the ledger whose requests carry {"metadata": {"train": "yes"}}
    #[arg(long)]
    pub(super) from_ledger: bool,
    /// Those only that asked this model
    #[arg(long, value_name = "MODEL", requires = "from_ledger")]
    asked_model: Option<String>,
    /// Those only that this model answered, and no student in front of it
    #[arg(long, value_name = "MODEL", requires = "from_ledger")]
    answered_by: Option<String>,
    /// Those only that were accepted on this day (2026-11-26) or at this moment (2026-11-26T12:00:00Z), in UTC, or later
    #[arg(long, value_name = "MOMENT", requires = "from_ledger", value_parser = audit::moment)]
    since: Option<i64>,
    /// Those of this tenant only
    #[arg(long, value_name = "TENANT", requires = "from_ledger")]
    tenant: Option<String>,
}

/// The rows of all records that may be learned from.
pub(super) async fn read(args: &TrafficArgs, place: &LedgerArgs) -> anyhow::Result<(Vec<Candidate>, Source)> {
    let ledger = Ledger::open(place.settings()?).await?;
    let rows = candidates(&ledger, args).await;
    ledger.close().await;
    let rows = rows?;
    let said: Vec<String> = rows.iter().flatten().map(Row::digest).collect();
    Ok((rows, Source { sha256: data::sum(said), ..source(LEDGER, LEDGER) }))
}

async fn candidates(ledger: &Ledger, args: &TrafficArgs) -> anyhow::Result<Vec<Candidate>> {
    let TrafficArgs { asked_model: model, answered_by, since, tenant, .. } = args;
    let wanted = |record: &&Record| answered_by.as_deref().is_none_or(|model| answered(record, model));
    let filter = Filter { model: model.clone(), since: *since, outcome: Some(Outcome::Served), ..Filter::default() };
    let scope = tenant.clone().map_or(Scope::All, Scope::Tenant);
    let (mut rows, mut page) = (Vec::new(), Page::default());
    let bar = screen::count_bar();
    bar.set_message("reading the ledger");
    loop {
        let found = ledger.records(&scope, &filter, page, |record| record).await?;
        bar.inc(found.records.len() as u64);
        rows.extend(found.records.iter().filter(wanted).map(candidate));
        match found.next {
            Some(before) => page.before = Some(before),
            None => break,
        }
    }
    bar.finish_and_clear();
    Ok(rows)
}

/// Whether this model answered, by its name here. What a student said in its place is not its answer.
fn answered(record: &Record, model: &str) -> bool {
    let hops = &record.route.hops;
    let on_the_way = hops.iter().any(|hop| hop.model == model || hop.asked == model);
    (on_the_way || record.answered.model == model) && hops.iter().all(|hop| hop.reason != Reason::Accepted)
}

fn candidate(record: &Record) -> Candidate {
    let place = Place { source: LEDGER.to_owned(), at: record.request_id.clone() };
    let dropped = |pass, reason: String| Dropped { place: place.clone(), pass, reason };
    if !consents(record) {
        return Err(dropped(Pass::Consent, "its request carries no consent".to_owned()));
    }
    if is_bad(record) {
        return Err(dropped(
            Pass::Validation,
            "its answer was rated down, and nobody said how it should have been".to_owned(),
        ));
    }
    let form = form(record).map_err(|reason| dropped(Pass::Validation, reason))?;
    Ok(Row { form, group: None, place })
}

fn consents(record: &Record) -> bool {
    record.input.as_ref().is_some_and(|input| input["recorded"]["metadata"]["train"] == "yes")
}

/// How the answer should have been, by the newest feedback that says so.
fn correction(record: &Record) -> Option<Message> {
    let said = record.feedback.iter().rev().find_map(|given| given.correction.clone())?;
    Some(Message { role: "assistant".to_owned(), content: Some(said), ..Message::default() })
}

fn is_bad(record: &Record) -> bool {
    let rating = record.feedback.iter().rev().find_map(|given| given.rating);
    rating.is_some_and(|rating| rating < 0.5) && correction(record).is_none()
}

/// What was asked, and what is learned as its answer.
fn form(record: &Record) -> Result<Form, String> {
    let input = record.input.as_ref().ok_or("its content is gone")?;
    let output = record.output_decision.as_ref().ok_or("its content is gone")?;
    let answer = correction(record).or_else(|| answer(output)).ok_or("it has no single answer")?;
    if let Some(prompt) = input["text"].as_str() {
        return parse_value(json!({ "prompt": prompt, "completion": answer.content }));
    }
    let messages: Vec<Message> = fields(&input["messages"]).ok_or("it is no conversation")?;
    let tools: Vec<Tool> = if input["tools"].is_null() {
        Vec::new()
    } else {
        fields(&input["tools"]).ok_or("its tools cannot be read")?
    };
    let messages: Vec<MessageBody> = messages.iter().chain([&answer]).map(MessageBody::from).collect();
    let tools: Vec<ToolBody> = tools.iter().map(ToolBody::from).collect();
    parse_value(json!({ "messages": messages, "tools": tools }))
}

fn fields<T: serde::de::DeserializeOwned>(value: &Value) -> Option<T> {
    serde_json::from_value(value.clone()).ok()
}

/// The one answer that was delivered, without the line that says who wrote it.
fn answer(output: &Value) -> Option<Message> {
    let (text, calls) = match output {
        Value::String(text) => (text.as_str(), Vec::new()),
        Value::Array(answers) if answers.len() == 1 => {
            let calls = answers[0]["tool_calls"].as_array()?.iter().enumerate();
            (answers[0]["text"].as_str()?, calls.map(call).collect::<Option<Vec<_>>>()?)
        }
        _ => return None,
    };
    let line = Labels { visible: true, ..Labels::default() }.line().unwrap_or_default();
    let text = text.strip_suffix(line).unwrap_or(text);
    let content = Some(text.to_owned()).filter(|text| !text.is_empty() || calls.is_empty());
    Some(Message { role: "assistant".to_owned(), content, tool_calls: calls, ..Message::default() })
}

fn call((at, call): (usize, &Value)) -> Option<ToolCall> {
    let text = |name: &str| call[name].as_str().map(str::to_owned);
    Some(ToolCall { id: format!("call_{at}"), name: text("name")?, arguments: text("arguments")? })
}
