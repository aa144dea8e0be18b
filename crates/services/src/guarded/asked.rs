//! What models are asked about texts: a request before it goes in, an answer once it is whole.

use std::collections::BTreeMap;

use futures_util::{StreamExt, TryStreamExt, future, stream};
use guard::{Direction, Panel, Verdict};
use protocol::{
    Error, Event, EventStream, Finding, FinishReason, Format, GenerateRequest, Message, Prompt, TextOrTokens, Tool,
    ToolChoice,
};
use serde_json::Value;
use tokio::time::Instant;

use super::{blocked, blocks, finding};

/// Judges all that a request says as one text.
pub(super) async fn request(panel: &Panel, request: &GenerateRequest) -> Result<Vec<Finding>, Error> {
    if !panel.asks(Direction::In) || matches!(request.prompt, Prompt::Raw(TextOrTokens::Tokens(_))) {
        return Ok(Vec::new());
    }
    let verdicts = panel.judge(&said(request), Direction::In).await;
    if verdicts.iter().any(blocks) {
        return Err(blocked("messages", &verdicts));
    }
    Ok(verdicts.iter().map(|verdict| finding(None, "messages", verdict)).collect())
}

/// Every text of a request that rules read (`input`), what was said before what was declared; a line each.
fn said(request: &GenerateRequest) -> String {
    let mut lines = Vec::new();
    match &request.prompt {
        Prompt::Raw(TextOrTokens::Text(text)) => lines.push(text.clone()),
        Prompt::Raw(TextOrTokens::Tokens(_)) => {}
        Prompt::Chat(chat) => {
            lines.extend(chat.messages.iter().flat_map(spoken));
            lines.extend(chat.tools.iter().flat_map(declared));
            if let ToolChoice::Named(name) = &chat.tool_choice {
                lines.push(name.clone());
            }
            lines.extend(chat.template_args.iter().map(|(key, value)| format!("{key}: {value}")));
        }
    }
    match &request.format {
        Format::JsonSchema(schema) => lines.push(schema.to_string()),
        Format::Regex(grammar) | Format::Lark(grammar) => lines.push(grammar.clone()),
        Format::Text | Format::JsonObject => {}
    }
    lines.join("\n")
}

fn spoken(message: &Message) -> impl Iterator<Item = String> {
    let calls = message.tool_calls.iter().map(|call| format!("{}: {}", call.name, meant(&call.arguments)));
    message.content.iter().chain(&message.name).cloned().chain(calls)
}

fn declared(tool: &Tool) -> impl Iterator<Item = String> {
    let schema = tool.parameters.as_ref().map(Value::to_string);
    std::iter::once(tool.name.clone()).chain(tool.description.clone()).chain(schema)
}

/// JSON without the escapes that it does not need; what is none, as it is.
fn meant(json: &str) -> String {
    serde_json::from_str::<Value>(json).map_or_else(|_| json.to_owned(), |value| value.to_string())
}

/// The answer once every choice of it was judged; until then nothing of it leaves but that it began.
pub(super) async fn answer(panel: Panel, mut events: EventStream) -> Result<EventStream, Error> {
    if !panel.asks(Direction::Out) {
        return Ok(events);
    }
    let mut begun = Vec::new();
    while !matches!(begun.last(), Some(Event::Started { .. })) {
        match events.next().await.transpose()? {
            Some(event @ Event::Started { .. }) => begun.push(event),
            Some(event) if event.is_note() => begun.push(event),
            other => {
                let rest = stream::iter(other.map(Ok)).chain(events).boxed();
                events = rest;
                break;
            }
        }
    }
    Ok(stream::iter(begun.into_iter().map(Ok)).chain(judged(panel, events)).boxed())
}

/// What leaves of the events once the whole text was judged, and how long that took.
fn judged(panel: Panel, events: EventStream) -> EventStream {
    let judged = async move {
        let heard: Vec<Event> = events.try_collect().await?;
        let began = Instant::now();
        let texts = answered(&heard);
        let asked = texts.iter().map(|(choice, text)| async { (*choice, panel.judge(text, Direction::Out).await) });
        let verdicts: BTreeMap<usize, Vec<Verdict>> = future::join_all(asked).await.into_iter().collect();
        let held = Event::Held { choice: Some(0), time: began.elapsed() };
        let released = heard.into_iter().flat_map(move |event| released(event, &verdicts));
        Ok::<_, Error>(stream::iter(std::iter::once(held).chain(released).map(Ok)))
    };
    stream::once(judged).try_flatten().boxed()
}

/// What each choice says: its text, then a line for every call.
fn answered(events: &[Event]) -> BTreeMap<usize, String> {
    let mut texts: BTreeMap<usize, String> = BTreeMap::new();
    let mut calls: BTreeMap<(usize, usize), (String, String)> = BTreeMap::new();
    for event in events {
        match event {
            Event::Text { choice, text, .. } => *texts.entry(*choice).or_default() += text,
            Event::ToolCall { choice, index, name, arguments, .. } => {
                let call = calls.entry((*choice, *index)).or_default();
                call.0 += name.as_deref().unwrap_or_default();
                call.1 += arguments;
            }
            _ => {}
        }
    }
    for ((choice, _), (name, arguments)) in calls {
        let text = texts.entry(choice).or_default();
        *text += &format!("\n{name}: {}", meant(&arguments));
    }
    texts
}

/// What leaves of an event: of an answer that is blocked only its end.
fn released(event: Event, verdicts: &BTreeMap<usize, Vec<Verdict>>) -> Vec<Event> {
    let of = |choice: &usize| verdicts.get(choice).map_or(&[][..], Vec::as_slice);
    match event {
        Event::Text { choice, .. } | Event::ToolCall { choice, .. } if of(&choice).iter().any(blocks) => Vec::new(),
        Event::Finished { choice, reason } => {
            let found = of(&choice).iter().map(|verdict| Event::Checked(finding(Some(choice), "answer", verdict)));
            let reason = if of(&choice).iter().any(blocks) { FinishReason::ContentFilter } else { reason };
            found.chain([Event::Finished { choice, reason }]).collect()
        }
        other => vec![other],
    }
}
