//! What models are asked about texts: a request before it goes in, an answer once it is whole.

use std::collections::BTreeMap;

use futures_util::{StreamExt, TryStreamExt, future, stream};
use guard::{Direction, Panel, Verdict};
use protocol::{Error, Event, EventStream, Finding, FinishReason, Prompt, TextOrTokens};
use tokio::time::Instant;

use super::{blocked, blocks, finding};

/// Judges all that a request says as one text.
pub(super) async fn request(panel: &Panel, prompt: &Prompt) -> Result<Vec<Finding>, Error> {
    if !panel.asks(Direction::In) {
        return Ok(Vec::new());
    }
    let text = match prompt {
        Prompt::Raw(TextOrTokens::Text(text)) => text.clone(),
        Prompt::Raw(TextOrTokens::Tokens(_)) => return Ok(Vec::new()),
        Prompt::Chat(chat) => {
            let said: Vec<&str> = chat.messages.iter().filter_map(|message| message.content.as_deref()).collect();
            said.join("\n")
        }
    };
    let verdicts = panel.judge(&text, Direction::In).await;
    if verdicts.iter().any(blocks) {
        return Err(blocked("messages", &verdicts));
    }
    Ok(verdicts.iter().map(|verdict| finding(None, "messages", verdict)).collect())
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
        let mut texts: BTreeMap<usize, String> = BTreeMap::new();
        for event in &heard {
            if let Event::Text { choice, text, .. } = event {
                *texts.entry(*choice).or_default() += text;
            }
        }
        let asked = texts.iter().map(|(choice, text)| async { (*choice, panel.judge(text, Direction::Out).await) });
        let verdicts: BTreeMap<usize, Vec<Verdict>> = future::join_all(asked).await.into_iter().collect();
        let held = Event::Held { choice: Some(0), time: began.elapsed() };
        let released = heard.into_iter().flat_map(move |event| released(event, &verdicts));
        Ok::<_, Error>(stream::iter(std::iter::once(held).chain(released).map(Ok)))
    };
    stream::once(judged).try_flatten().boxed()
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
