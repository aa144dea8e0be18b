//! A response as named events: it is created, its items and their parts open, grow and close, and it ends.

use serde::{Deserialize, Serialize};

use super::reply::{Answer, Change, OutputItem, OutputText, ResponseBody, ResponseError, Settings};
use crate::{
    Error, ErrorKind, Event,
    openai::{ChatLogprob, Chunk, Envelope, Streamed},
};

/// One event.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ResponseEvent {
    /// Its name.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Counts the events of a stream from 0.
    pub sequence_number: usize,
    /// What it says.
    #[serde(flatten)]
    pub payload: Payload,
}

/// What an event says. `output_index` is the item's place in the output, `content_index` the part's in the item.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
#[expect(missing_docs, reason = "the fields are OpenAI's")]
pub enum Payload {
    /// The response as it is now.
    Response { response: Box<ResponseBody> },
    /// An item opened or closed.
    Item { output_index: usize, item: OutputItem },
    /// A part of a message opened or closed.
    Part { item_id: String, output_index: usize, content_index: usize, part: OutputText },
    /// More text.
    TextDelta { item_id: String, output_index: usize, content_index: usize, delta: String, logprobs: Vec<ChatLogprob> },
    /// The whole text.
    TextDone { item_id: String, output_index: usize, content_index: usize, text: String, logprobs: Vec<ChatLogprob> },
    /// More arguments.
    ArgumentsDelta { item_id: String, output_index: usize, delta: String },
    /// The whole arguments.
    ArgumentsDone { item_id: String, output_index: usize, name: String, arguments: String },
}

impl Chunk for ResponseEvent {
    fn name(&self) -> Option<&'static str> {
        Some(self.kind)
    }
}

/// A response as events.
#[derive(Debug)]
pub struct Stream {
    answer: Answer,
    sent: usize,
}

impl Stream {
    /// The events of a response to a call with these settings.
    pub fn new(envelope: Envelope, settings: Settings) -> Self {
        Self { answer: Answer::new(envelope, settings), sent: 0 }
    }

    fn event(&mut self, kind: &'static str, payload: Payload) -> ResponseEvent {
        let sequence_number = self.sent;
        self.sent += 1;
        ResponseEvent { kind, sequence_number, payload }
    }

    fn response(&mut self, kind: &'static str) -> ResponseEvent {
        let response = Box::new(self.answer.body.clone());
        self.event(kind, Payload::Response { response })
    }

    fn events(&mut self, change: Change) -> Vec<ResponseEvent> {
        match change {
            Change::Opened(at) => self.opened(at),
            Change::Text(output_index, delta, logprobs) => {
                let item_id = self.item(output_index).id().to_owned();
                let payload = Payload::TextDelta { item_id, output_index, content_index: 0, delta, logprobs };
                vec![self.event("response.output_text.delta", payload)]
            }
            Change::Arguments(output_index, delta) => {
                let item_id = self.item(output_index).id().to_owned();
                let payload = Payload::ArgumentsDelta { item_id, output_index, delta };
                vec![self.event("response.function_call_arguments.delta", payload)]
            }
            Change::Closed(at) => self.closed(at),
            Change::Ended => {
                let complete = self.answer.body.incomplete_details.is_none();
                vec![self.response(if complete { "response.completed" } else { "response.incomplete" })]
            }
        }
    }

    fn item(&self, at: usize) -> &OutputItem {
        &self.answer.body.output[at]
    }

    fn opened(&mut self, output_index: usize) -> Vec<ResponseEvent> {
        let item = self.item(output_index).opened();
        let part = matches!(item, OutputItem::Message { .. }).then(|| {
            let item_id = item.id().to_owned();
            Payload::Part { item_id, output_index, content_index: 0, part: OutputText::default() }
        });
        let mut events = vec![self.event("response.output_item.added", Payload::Item { output_index, item })];
        events.extend(part.map(|part| self.event("response.content_part.added", part)));
        events
    }

    fn closed(&mut self, output_index: usize) -> Vec<ResponseEvent> {
        let item = self.item(output_index).clone();
        let item_id = item.id().to_owned();
        let mut events = Vec::new();
        match &item {
            OutputItem::Message { content, .. } => {
                for (content_index, part) in content.iter().cloned().enumerate() {
                    let (item_id, text, logprobs) = (item_id.clone(), part.text.clone(), part.logprobs.clone());
                    let done =
                        Payload::TextDone { item_id: item_id.clone(), output_index, content_index, text, logprobs };
                    events.push(self.event("response.output_text.done", done));
                    let closed = Payload::Part { item_id, output_index, content_index, part };
                    events.push(self.event("response.content_part.done", closed));
                }
            }
            OutputItem::FunctionCall { name, arguments, .. } => {
                let (name, arguments) = (name.clone(), arguments.clone());
                let done = Payload::ArgumentsDone { item_id, output_index, name, arguments };
                events.push(self.event("response.function_call_arguments.done", done));
            }
        }
        events.push(self.event("response.output_item.done", Payload::Item { output_index, item }));
        events
    }
}

impl Streamed for Stream {
    type Chunk = ResponseEvent;
    type Failure = ResponseEvent;

    /// The last event ends the stream by its name.
    const END: Option<&'static str> = None;

    fn push(&mut self, _prompt: usize, event: Event) -> Vec<ResponseEvent> {
        let mut events = Vec::new();
        if self.sent == 0 {
            events.extend(["response.created", "response.in_progress"].map(|kind| self.response(kind)));
        }
        for change in self.answer.push(event) {
            events.extend(self.events(change));
        }
        events
    }

    fn finish(&mut self) -> Option<ResponseEvent> {
        None
    }

    fn fail(&mut self, error: &Error) -> ResponseEvent {
        let code = match error.kind {
            ErrorKind::Overloaded | ErrorKind::OverBudget => "rate_limit_exceeded",
            ErrorKind::Invalid | ErrorKind::Blocked | ErrorKind::Unsupported => "invalid_prompt",
            _ => "server_error",
        };
        let body = &mut self.answer.body;
        body.error = Some(ResponseError { code: code.to_owned(), message: error.message.clone() });
        "failed".clone_into(&mut body.status);
        self.response("response.failed")
    }
}
