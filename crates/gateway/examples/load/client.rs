//! The load generator: so many connections, each with one request at a time.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use bytes::Bytes;
use hdrhistogram::Histogram;
use http_body_util::{BodyExt, Full};
use hyper::{Request, body::Incoming, client::conn::http1::SendRequest, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{net::TcpStream, task::JoinSet};

use crate::stub;

/// A client that is told to come back waits so long, whatever the header says: an impatient one.
const IMPATIENT: Duration = Duration::from_millis(20);

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    /// A short answer in one body.
    Whole,
    /// The same from an upstream that takes its time.
    Slow,
    /// A long answer, word by word.
    Paced,
}

/// A load.
#[derive(Debug)]
pub(crate) struct Load {
    address: SocketAddr,
    ask: Ask,
    concurrency: usize,
    request: Request<Full<Bytes>>,
}

/// What became of it.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) done: u64,
    /// Refused with 429 and a time to come back.
    pub(crate) refused: u64,
    pub(crate) failed: u64,
    /// Streams whose text was not the whole text.
    pub(crate) lossy: u64,
    pub(crate) seconds: f64,
    pub(crate) longest_silence: Duration,
    micros: Histogram<u64>,
}

impl Report {
    fn new() -> Self {
        let micros = Histogram::new_with_bounds(1, 600_000_000, 3).unwrap();
        let (done, refused, failed, lossy) = (0, 0, 0, 0);
        Self { done, refused, failed, lossy, seconds: 0.0, longest_silence: Duration::ZERO, micros }
    }

    fn add(&mut self, other: &Self) {
        self.done += other.done;
        self.refused += other.refused;
        self.failed += other.failed;
        self.lossy += other.lossy;
        self.longest_silence = self.longest_silence.max(other.longest_silence);
        self.micros.add(&other.micros).unwrap();
    }

    /// Answered in a second.
    pub(crate) fn rate(&self) -> f64 {
        self.done as f64 / self.seconds
    }

    /// Milliseconds within which this share was answered.
    pub(crate) fn ms(&self, quantile: f64) -> f64 {
        self.micros.value_at_quantile(quantile) as f64 / 1e3
    }

    pub(crate) fn must_be_clean(&self) {
        let Self { done, refused, failed, lossy, .. } = self;
        let clean = *done > 0 && refused + failed + lossy == 0;
        assert!(clean, "{done} done, {refused} refused, {failed} failed, {lossy} with another text");
    }
}

impl Load {
    pub(crate) fn new(address: SocketAddr, key: &str, ask: Ask, concurrency: usize) -> Self {
        let (model, stream) = match ask {
            Ask::Whole => ("stub", false),
            Ask::Slow => ("slow", false),
            Ask::Paced => ("paced", true),
        };
        let body = format!(
            r#"{{"model":"{model}","stream":{stream},"max_tokens":128,"messages":[{{"role":"system","content":"You are brief."}},{{"role":"user","content":"What comes to those who wait, and how long does it take on a Tuesday?"}}]}}"#
        );
        let request = Request::post("/v1/chat/completions")
            .header(header::HOST, "load")
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::AUTHORIZATION, format!("Bearer {key}"))
            .body(Full::from(body))
            .unwrap();
        Self { address, ask, concurrency, request }
    }

    /// For so long.
    pub(crate) async fn run(&self, time: Duration) -> Report {
        self.workers(Some(Instant::now() + time)).await
    }

    /// One request on every connection.
    pub(crate) async fn once(&self) -> Report {
        self.workers(None).await
    }

    async fn workers(&self, until: Option<Instant>) -> Report {
        let started = Instant::now();
        let mut workers = JoinSet::new();
        for _ in 0..self.concurrency {
            workers.spawn(worker(self.address, self.ask, self.request.clone(), until));
        }
        let mut report = Report::new();
        while let Some(part) = workers.join_next().await {
            report.add(&part.unwrap());
        }
        report.seconds = started.elapsed().as_secs_f64();
        report
    }
}

async fn connect(address: SocketAddr) -> SendRequest<Full<Bytes>> {
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (send, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    send
}

async fn worker(address: SocketAddr, ask: Ask, request: Request<Full<Bytes>>, until: Option<Instant>) -> Report {
    let mut report = Report::new();
    let mut send = connect(address).await;
    loop {
        if send.ready().await.is_err() {
            send = connect(address).await;
        }
        if exchange(&mut send, ask, request.clone(), &mut report).await.is_none() {
            report.failed += 1;
        }
        if until.is_none_or(|until| Instant::now() >= until) {
            return report;
        }
    }
}

/// One request; nothing if it failed.
async fn exchange(
    send: &mut SendRequest<Full<Bytes>>,
    ask: Ask,
    request: Request<Full<Bytes>>,
    report: &mut Report,
) -> Option<()> {
    let started = Instant::now();
    let response = send.send_request(request).await.ok()?;
    let (status, told) = (response.status().as_u16(), response.headers().contains_key(header::RETRY_AFTER));
    let body = read(response.into_body(), report).await?;
    match (status, told) {
        (200, _) => {
            report.done += 1;
            report.micros.record(u64::try_from(started.elapsed().as_micros()).ok()?.max(1)).ok()?;
            report.lossy += u64::from(ask == Ask::Paced && said(&body) != stub::text());
        }
        (429, true) => {
            report.refused += 1;
            tokio::time::sleep(IMPATIENT).await;
        }
        _ => return None,
    }
    Some(())
}

/// Reads to the end, and looks at the clock between the pieces.
async fn read(mut body: Incoming, report: &mut Report) -> Option<Vec<u8>> {
    let (mut seen, mut last) = (Vec::new(), Instant::now());
    while let Some(frame) = body.frame().await {
        let frame = frame.ok()?;
        report.longest_silence = report.longest_silence.max(last.elapsed());
        last = Instant::now();
        seen.extend_from_slice(frame.data_ref()?);
    }
    Some(seen)
}

/// What the frames of a stream say together.
fn said(body: &[u8]) -> String {
    let lines = body.split(|&byte| byte == b'\n').filter_map(|line| line.strip_prefix(b"data: "));
    let frames = lines.filter_map(|line| serde_json::from_slice::<Value>(line).ok());
    frames.filter_map(|frame| frame["choices"][0]["delta"]["content"].as_str().map(str::to_owned)).collect()
}
