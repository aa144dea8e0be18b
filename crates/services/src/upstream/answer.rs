//! A response becomes events. Its first one is waited for, so that what fails before it is no stream at all.

use std::{collections::VecDeque, time::Duration};

use futures_util::{StreamExt, stream};
use protocol::{
    Error, ErrorKind, Event, EventStream, anthropic, openai,
    sse::{Decoder, Frame},
};
use reqwest::Response;
use tokio::time::{Instant, timeout, timeout_at};

use super::http;
use crate::first;

/// What the server speaks, with what was read so far.
pub(super) enum Wire {
    OpenAi(openai::Reader),
    Anthropic(anthropic::Reader),
}

/// An answer that is being read.
pub(super) struct Answer {
    response: Response,
    frames: Decoder,
    wire: Wire,
    events: VecDeque<Event>,
    idle: Option<Duration>,
    deadline: Option<Instant>,
    /// The response is read to its end.
    read: bool,
    /// The last event has come.
    over: bool,
}

impl Wire {
    fn push(&mut self, frame: &Frame) -> Result<Vec<Event>, Error> {
        match self {
            Self::OpenAi(reader) => reader.push(&frame.data),
            Self::Anthropic(reader) => reader.push(&frame.data),
        }
    }

    /// The response is over. OpenAI's streams may end without a mark; Anthropic's say that they end.
    fn finish(&mut self) -> Result<Vec<Event>, Error> {
        match self {
            Self::OpenAi(reader) => reader.finish(),
            Self::Anthropic(_) => Err(first::cut()),
        }
    }
}

impl Answer {
    /// An answer whose first event has come.
    pub(super) async fn begin(
        mut response: Response,
        wire: Wire,
        idle: Option<Duration>,
        deadline: Option<Instant>,
    ) -> Result<Self, Error> {
        // Headers are slices of the buffer that they were read into: 8 kB for as long as the answer lasts.
        response.headers_mut().clear();
        let (frames, events) = (Decoder::default(), VecDeque::new());
        // Until then it is the caller who limits the time.
        let mut answer = Self { response, frames, wire, events, idle: None, deadline, read: false, over: false };
        answer.fill().await?;
        answer.idle = idle;
        Ok(answer)
    }

    /// Reads until there is an event to hand out.
    async fn fill(&mut self) -> Result<(), Error> {
        while self.events.is_empty() {
            if let Some(frame) = self.frames.next_frame() {
                self.events.extend(self.wire.push(&frame)?);
            } else if self.read {
                self.events.extend(self.wire.finish()?);
                return if self.events.is_empty() { Err(first::cut()) } else { Ok(()) };
            } else {
                let (idle, response) = (self.idle, &mut self.response);
                let chunk = async { response.chunk().await.map_err(|e| http::broken(&e)) };
                match silent(idle, chunk).await? {
                    Some(bytes) => self.frames.push(&bytes)?,
                    None => {
                        self.frames.finish();
                        self.read = true;
                    }
                }
            }
        }
        Ok(())
    }

    async fn next(&mut self) -> Option<Result<Event, Error>> {
        if self.over {
            return None;
        }
        if self.events.is_empty() {
            let deadline = self.deadline;
            if let Err(error) = before(deadline, self.fill()).await {
                self.over = true;
                return Some(Err(error));
            }
        }
        let event = self.events.pop_front()?;
        self.over = matches!(event, Event::Done(_));
        Some(Ok(event))
    }

    pub(super) fn into_stream(self) -> EventStream {
        stream::unfold(self, async |mut answer| answer.next().await.map(|event| (event, answer))).boxed()
    }
}

async fn silent<T>(limit: Option<Duration>, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let Some(limit) = limit else { return work.await };
    timeout(limit, work).await.unwrap_or_else(|_| {
        let message = format!("The upstream was silent for {limit:?} in the middle of its answer.");
        Err(Error::new(ErrorKind::Upstream, message).with_code("idle_timeout"))
    })
}

/// The outcome of `work`, unless the time for the whole answer is over first.
pub(super) async fn before<T>(
    deadline: Option<Instant>,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let Some(deadline) = deadline else { return work.await };
    timeout_at(deadline, work).await.unwrap_or_else(|_| {
        Err(Error::new(ErrorKind::DeadlineExceeded, "The upstream did not finish within the time for the request."))
    })
}
