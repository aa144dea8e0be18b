//! A reply as server-sent events: one `data:` line of JSON per chunk, under the chunk's name where its wire has names, then
//! the wire's mark of the end.
//!
//! Silence is filled with comments, so that proxies keep the connection while a long prompt is read. A failure in the
//! middle is sent in the wire's own form, on which clients raise, and the stream ends there without the mark.

use std::{collections::VecDeque, convert::Infallible, time::Duration};

use axum::response::{
    IntoResponse, Response,
    sse::{Event as Frame, KeepAlive, Sse},
};
use futures_util::{Stream, stream};
use protocol::{
    Error, Event,
    openai::{Chunk, Streamed},
};

use crate::stream::Events;

/// A stream being written.
struct Writer<S> {
    events: Events,
    reply: S,
    /// Frames that wait to be sent.
    frames: VecDeque<Frame>,
    over: bool,
}

/// The response that sends `first` and then the rest of `events`.
pub(crate) fn response<S>(reply: S, first: (usize, Event), events: Events, keep_alive: Duration) -> Response
where
    S: Streamed + 'static,
{
    let mut writer = Writer { events, reply, frames: VecDeque::new(), over: false };
    writer.take(Some(Ok(first)));
    let comments = KeepAlive::new().interval(keep_alive).text("keep-alive");
    Sse::new(writer.into_stream()).keep_alive(comments).into_response()
}

impl<S: Streamed + 'static> Writer<S> {
    fn into_stream(self) -> impl Stream<Item = Result<Frame, Infallible>> + Send {
        stream::unfold(self, |mut writer| async move { writer.next().await.map(|frame| (Ok(frame), writer)) })
    }

    async fn next(&mut self) -> Option<Frame> {
        while self.frames.is_empty() && !self.over {
            let item = self.events.next().await;
            self.take(item);
        }
        self.frames.pop_front()
    }

    fn take(&mut self, item: Option<Result<(usize, Event), Error>>) {
        match item {
            Some(Ok((prompt, event))) => {
                let chunks = self.reply.push(prompt, event);
                self.frames.extend(chunks.iter().map(frame));
            }
            Some(Err(error)) => {
                tracing::warn!(%error, "a stream ends in an error");
                self.frames.push_back(frame(&self.reply.fail(&error)));
                self.over = true;
            }
            None => {
                self.frames.extend(self.reply.finish().iter().map(frame));
                self.frames.extend(S::END.map(|mark| Frame::default().data(mark)));
                self.over = true;
            }
        }
    }
}

fn frame(chunk: &impl Chunk) -> Frame {
    let frame = chunk.name().map_or_else(Frame::default, |name| Frame::default().event(name));
    // Wire types have string keys only, so this cannot fail; a comment is the harmless form of "cannot".
    frame.json_data(chunk).unwrap_or_else(|error| Frame::default().comment(error.to_string()))
}
