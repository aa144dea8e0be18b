//! Up to the first byte of an answer, within a time: as long as nothing was delivered, somebody else may still answer.

use std::time::Duration;

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream};
use protocol::{Error, ErrorKind, Event, EventStream, Generate, GenerateRequest, Hop};
use tokio::time::timeout;

/// The service's stream once the first piece of an answer has come, with what came before it. An error means that nothing was
/// delivered; dropping the future cancels the work.
pub(crate) fn open(
    service: &dyn Generate,
    request: GenerateRequest,
    limit: Option<Duration>,
) -> BoxFuture<'_, Result<EventStream, Error>> {
    let opened = async move {
        let mut stream = service.generate(request).await?;
        let mut held = Vec::new();
        while let Some(event) = stream.next().await {
            let event = event?;
            let piece = !matches!(event, Event::Started { .. }) && !event.is_note();
            held.push(Ok(event));
            if piece {
                return Ok(stream::iter(held).chain(stream).boxed());
            }
        }
        Err(cut())
    };
    async move { within(limit, opened).await }.boxed()
}

/// The stream with a word in front on where it comes from.
pub(crate) fn routed(hop: Hop, events: EventStream) -> EventStream {
    stream::iter([Ok(Event::Routed(Box::new(hop)))]).chain(events).boxed()
}

/// The outcome of `work`, or that its first byte did not come in time.
pub(crate) async fn within<T>(
    limit: Option<Duration>,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let Some(limit) = limit else { return work.await };
    timeout(limit, work).await.unwrap_or_else(|_| {
        let message = format!("The service did not begin to answer within {limit:?}.");
        Err(Error::new(ErrorKind::DeadlineExceeded, message).with_code("first_byte_timeout"))
    })
}

/// A stream that ended without saying so.
pub(crate) fn cut() -> Error {
    Error::new(ErrorKind::Upstream, "The service ended its answer before its end.")
}

/// Failures of a service, after which another one may answer. Other errors are the request's own fault, or a decision.
pub(crate) fn elsewhere(error: &Error) -> bool {
    matches!(
        error.kind,
        ErrorKind::Upstream | ErrorKind::Overloaded | ErrorKind::DeadlineExceeded | ErrorKind::ShuttingDown
    )
}
