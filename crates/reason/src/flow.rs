//! A stream of steps out of a future that sends them.
//!
//! The future is handed a [`Steps`] and runs inside the stream: it makes progress while the stream is polled and is dropped
//! with it, so a client that hangs up cancels the work and no task is left behind.

use std::{future::Future, task::Poll, time::Duration};

use futures_util::{FutureExt, stream};
use protocol::{Conclusion, Error, Step, StepEvent, StepStream};
use tokio::{sync::mpsc, time::Instant};

/// Sends steps as they are done, numbered from 1.
#[derive(Debug)]
pub(crate) struct Steps {
    sender: mpsc::UnboundedSender<StepEvent>,
    sent: usize,
}

impl Steps {
    /// Tells the caller which version of the graph decides (empty for a solution).
    pub(crate) fn started(&self, version: impl Into<String>) {
        self.send(StepEvent::Started { version: version.into() });
    }

    /// Sends a step under the next number and returns it as it was sent.
    pub(crate) fn step(&mut self, mut step: Step) -> Step {
        self.sent += 1;
        step.step = self.sent;
        self.send(StepEvent::Step(step.clone()));
        step
    }

    fn send(&self, event: StepEvent) {
        // The receiver lives in the same stream as the future that sends: without it nobody polls us.
        let _ = self.sender.send(event);
    }
}

/// Measures how long a step takes, on tokio's clock, which tests can pause.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn elapsed(self) -> Duration {
        self.0.elapsed()
    }

    /// For [`Step::duration_us`].
    pub(crate) fn micros(self) -> u64 {
        u64::try_from(self.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

/// Runs `work` inside a stream of what it sends; what it returns ends the stream. With a deadline it ends by then.
pub(crate) fn stream<W>(deadline: Option<Duration>, work: impl FnOnce(Steps) -> W) -> StepStream
where
    W: Future<Output = Result<Conclusion, Error>> + Send + 'static,
{
    let (sender, mut sent) = mpsc::unbounded_channel();
    let mut work = Box::pin(within(deadline, work(Steps { sender, sent: 0 })).fuse());
    let (mut over, mut end) = (false, None);
    // The end is told when the work is over and nothing is left to tell. The channel may close before, with the thread that had its other end, or stay
    // open behind it, if a deadline cut the work off.
    Box::pin(stream::poll_fn(move |context| {
        if let Poll::Ready(result) = work.poll_unpin(context) {
            (over, end) = (true, Some(result.map(|conclusion| StepEvent::Done(Box::new(conclusion)))));
        }
        match sent.poll_recv(context) {
            Poll::Ready(Some(event)) => Poll::Ready(Some(Ok(event))),
            _ if over => Poll::Ready(end.take()),
            _ => Poll::Pending,
        }
    }))
}

async fn within<W>(deadline: Option<Duration>, work: W) -> Result<Conclusion, Error>
where
    W: Future<Output = Result<Conclusion, Error>>,
{
    let Some(limit) = deadline else { return work.await };
    let late = Error::new(protocol::ErrorKind::DeadlineExceeded, "The deadline passed before the work was done.");
    tokio::time::timeout(limit, work).await.unwrap_or(Err(late))
}
