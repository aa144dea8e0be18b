//! The events of all prompts of a call as one stream.
//!
//! A completion may hold two thousand prompts. They are handed to the service a few at a time, so that one call neither
//! fills the service's queue nor fails because it is full; their events come as they happen, in any order between
//! prompts and in order within each.

use std::{pin::Pin, sync::Arc};

use futures_util::{Stream, StreamExt, TryStreamExt, future, stream};
use protocol::{Error, Event, Generate, GenerateRequest};

use crate::record::Record;

/// An event and the prompt it belongs to.
type Of = (usize, Event);

/// Events until every prompt is done. Dropping it drops what the service still works on.
pub(crate) struct Events {
    inner: Pin<Box<dyn Stream<Item = Result<Of, Error>> + Send>>,
    cut: Pin<Box<dyn Future<Output = Error> + Send>>,
    /// Prompts that are not done.
    open: usize,
    record: Record,
}

impl Events {
    /// Starts the requests, `at_once` of them together. `cut` ends them all with its error.
    pub(crate) fn start(
        service: &Arc<dyn Generate>,
        requests: Vec<GenerateRequest>,
        at_once: usize,
        record: Record,
        cut: impl Future<Output = Error> + Send + 'static,
    ) -> Self {
        let open = requests.len();
        let service = service.clone();
        let one = move |(prompt, request)| Box::pin(of_prompt(service.clone(), (prompt, open), request));
        let inner = stream::iter(requests.into_iter().enumerate()).map(one).flatten_unordered(at_once.max(1));
        Self { inner: Box::pin(inner), cut: Box::pin(cut), open, record }
    }

    /// The next event. An error is the last item; without one the last event is the last prompt's [`Event::Done`]. The last
    /// item comes when the record of the request is closed.
    pub(crate) async fn next(&mut self) -> Option<Result<Of, Error>> {
        if self.open == 0 {
            return None;
        }
        self.record.waited();
        let item = self.heard().await;
        match &item {
            Ok((_, Event::Done(_))) => self.open -= 1,
            Ok(_) => {}
            Err(_) => self.open = 0,
        }
        Some(self.recorded(item).await)
    }

    /// The next item that is the caller's; what stands beside the answer is the record's alone, but for the name that the answer bears.
    async fn heard(&mut self) -> Result<Of, Error> {
        loop {
            let item = match future::select(self.inner.next(), &mut self.cut).await {
                future::Either::Left((Some(item), _)) => item,
                future::Either::Left((None, _)) => {
                    Err(Error::internal("The service ended its answer early; try again."))
                }
                future::Either::Right((error, _)) => Err(error),
            };
            match &item {
                Ok((prompt, event)) if event.is_note() && !names(event) => self.record.see(*prompt, event),
                _ => return item,
            }
        }
    }

    async fn recorded(&mut self, item: Result<Of, Error>) -> Result<Of, Error> {
        match &item {
            Ok((prompt, event)) => {
                self.record.see(*prompt, event);
                if self.open == 0 {
                    self.record.close(None).await?;
                }
            }
            Err(error) => self.record.close(Some(error)).await?,
        }
        item
    }
}

/// Whether it says under which name the answer goes out.
fn names(event: &Event) -> bool {
    matches!(event, Event::Routed(hop) if hop.answers_as().is_some())
}

/// The events of the `prompt`-th of `n` requests.
fn of_prompt(
    service: Arc<dyn Generate>,
    (prompt, n): (usize, usize),
    request: GenerateRequest,
) -> impl Stream<Item = Result<Of, Error>> + Send {
    let events = stream::once(async move { service.generate(request).await }).try_flatten();
    events.map_ok(move |event| (prompt, event)).map_err(move |error| placed(error, prompt, n))
}

/// With several prompts, the error says which one is at fault.
fn placed(mut error: Error, prompt: usize, n: usize) -> Error {
    if n > 1 && error.param.as_deref() == Some("prompt") {
        error.param = Some(format!("prompt[{prompt}]"));
    }
    error
}
