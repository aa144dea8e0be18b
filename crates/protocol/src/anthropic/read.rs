//! Stream events of Anthropic's API as plain events: what a client of it needs.

use super::reply::{BlockDelta, MessageChange, StreamEvent, UsageBody};
use crate::{Error, ErrorKind, Event, FinishReason, MOST_CALLS, Usage, too_many_calls};

/// Reads one message. Thoughts, citations and kinds of the future have no plain form and are left out.
#[derive(Debug, Default)]
pub struct Reader {
    usage: Usage,
    /// The wire's index of every call's block, in order: calls are numbered without the texts between them.
    calls: Vec<usize>,
    /// What the request watched for.
    stops: Vec<String>,
    finished: bool,
    /// Pieces of the answer so far: how many tokens there were at least.
    pieces: usize,
}

impl Reader {
    /// A reader of the answer to a request with these stop strings.
    pub fn new(stops: Vec<String>) -> Self {
        Self { stops, ..Self::default() }
    }

    /// The events of the data of one server-sent event.
    pub fn push(&mut self, data: &str) -> Result<Vec<Event>, Error> {
        let event = serde_json::from_str(data).map_err(|e| {
            Error::new(ErrorKind::Upstream, format!("The upstream sent an event that is not understood: {e}."))
        })?;
        self.event(event)
    }

    fn event(&mut self, event: StreamEvent) -> Result<Vec<Event>, Error> {
        Ok(match event {
            StreamEvent::MessageStart { message } => {
                self.count(message.usage);
                let Usage { prompt_tokens, cached_tokens, .. } = self.usage.plausible(0);
                vec![Event::Started { prompt_tokens, cached_tokens }]
            }
            StreamEvent::ContentBlockStart { index, content_block } => match content_block.kind.as_str() {
                "tool_use" => vec![self.call(index, content_block.id, content_block.name)?],
                _ => content_block.text.into_iter().filter(|text| !text.is_empty()).map(text).collect(),
            },
            StreamEvent::ContentBlockDelta { index, delta } => self.delta(index, delta).into_iter().collect(),
            StreamEvent::MessageDelta { delta, usage } => {
                self.count(usage);
                self.end(&delta).into_iter().collect()
            }
            StreamEvent::MessageStop => self.stop(),
            StreamEvent::Error { error } => return Err(error.into()),
            StreamEvent::ContentBlockStop { .. } | StreamEvent::Ping | StreamEvent::Unknown => Vec::new(),
        })
    }

    fn call(&mut self, block: usize, id: Option<String>, name: Option<String>) -> Result<Event, Error> {
        if self.calls.len() >= MOST_CALLS {
            return Err(too_many_calls());
        }
        self.calls.push(block);
        let index = self.calls.len() - 1;
        let (id, name) = (Some(id.unwrap_or_default()), Some(name.unwrap_or_default()));
        Ok(Event::ToolCall { choice: 0, index, id, name, arguments: String::new() })
    }

    fn delta(&mut self, block: usize, delta: BlockDelta) -> Option<Event> {
        self.pieces += 1;
        match delta {
            BlockDelta::TextDelta { text: more } => Some(text(more)),
            BlockDelta::InputJsonDelta { partial_json: arguments } => {
                let index = self.calls.iter().position(|call| *call == block)?;
                Some(Event::ToolCall { choice: 0, index, id: None, name: None, arguments })
            }
            BlockDelta::Unknown => None,
        }
    }

    fn end(&mut self, change: &MessageChange) -> Option<Event> {
        let reason = match change.stop_reason.as_deref()? {
            "max_tokens" | "model_context_window_exceeded" => FinishReason::Length,
            "tool_use" => FinishReason::ToolCalls,
            "refusal" => FinishReason::ContentFilter,
            "stop_sequence" => {
                let which = self.stops.iter().position(|stop| change.stop_sequence.as_ref() == Some(stop));
                which.map_or(FinishReason::Stop, FinishReason::StopString)
            }
            _ => FinishReason::Stop,
        };
        self.finished = true;
        Some(Event::Finished { choice: 0, reason })
    }

    /// A message that never said why it ended, ended by itself.
    fn stop(&mut self) -> Vec<Event> {
        let finished = (!self.finished).then_some(Event::Finished { choice: 0, reason: FinishReason::Stop });
        finished.into_iter().chain([Event::Done(self.usage.plausible(self.pieces))]).collect()
    }

    /// Counts are totals; the last one counts. Later events may leave the prompt out.
    fn count(&mut self, usage: UsageBody) {
        if let Some(plain) = usage.input_tokens {
            let cached = usage.cache_read_input_tokens.unwrap_or(0);
            self.usage.cached_tokens = cached;
            let written = usage.cache_creation_input_tokens.unwrap_or(0);
            self.usage.prompt_tokens = plain.saturating_add(cached).saturating_add(written);
        }
        self.usage.completion_tokens = usage.output_tokens;
    }
}

fn text(text: String) -> Event {
    Event::Text { choice: 0, text, logprobs: Vec::new() }
}
