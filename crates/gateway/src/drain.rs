//! Stopping without losing anything: refuse what is new, let what runs finish, cut what does not.
//!
//! The listener stays open while draining, so that new requests and readiness probes get an honest 503 instead of a
//! refused connection. Only requests for work count; probes and the metrics page do not hold the server up.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use protocol::{Error, ErrorKind};
use tokio::{sync::watch, time::timeout};

/// The state of the drain.
#[derive(Debug, Clone)]
pub(crate) struct Drain {
    draining: Arc<AtomicBool>,
    in_flight: watch::Sender<usize>,
    cut: watch::Sender<bool>,
}

impl Default for Drain {
    fn default() -> Self {
        Self { draining: Arc::default(), in_flight: watch::Sender::new(0), cut: watch::Sender::new(false) }
    }
}

/// A request in flight; dropping it counts it out.
#[derive(Debug)]
pub(crate) struct Entered(watch::Sender<usize>);

impl Drop for Entered {
    fn drop(&mut self) {
        self.0.send_modify(|n| *n = n.saturating_sub(1));
    }
}

impl Drain {
    /// Counts a request in, unless the server is stopping or has `limit` of them already.
    pub(crate) fn enter(&self, limit: usize) -> Result<Entered, Error> {
        // Count first, look after: a drain that starts in between waits for this request or is seen here.
        self.in_flight.send_modify(|n| *n += 1);
        let entered = Entered(self.in_flight.clone());
        match (self.is_draining(), *self.in_flight.borrow() > limit) {
            (true, _) => Err(stopping()),
            (_, true) => Err(busy(limit)),
            _ => Ok(entered),
        }
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    /// Refuses new work, waits up to `limit` for what is in flight, then cuts the rest.
    pub(crate) async fn run(&self, limit: Duration) {
        self.draining.store(true, Ordering::SeqCst);
        let mut in_flight = self.in_flight.subscribe();
        tracing::info!(in_flight = *in_flight.borrow(), ?limit, "draining");
        if timeout(limit, in_flight.wait_for(|n| *n == 0)).await.is_err() {
            tracing::warn!(in_flight = *in_flight.borrow(), "the drain limit is over: cutting what is left");
            self.cut.send_replace(true);
        }
    }

    /// Completes when this request must end now.
    pub(crate) fn cut(&self) -> impl Future<Output = Error> + Send + 'static {
        let mut cut = self.cut.subscribe();
        async move {
            if cut.wait_for(|cut| *cut).await.is_err() {
                // Nobody is left who could cut.
                std::future::pending::<()>().await;
            }
            stopping()
        }
    }
}

fn busy(limit: usize) -> Error {
    let message =
        format!("The server works on {limit} requests, as many as it takes at the same time; try again soon.");
    Error::new(ErrorKind::Overloaded, message).with_code("server_busy")
}

fn stopping() -> Error {
    Error::new(ErrorKind::ShuttingDown, "The server is stopping and takes no new work; try again in a few seconds.")
}
