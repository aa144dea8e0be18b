//! Traces: one span for every request, in the words of OpenTelemetry's conventions for generative AI, sent by OTLP over HTTP.
//!
//! Spans carry numbers and names, never contents. They wait in a bounded queue and leave in batches from the server's own
//! loop; when the collector is slow, spans are dropped and counted, and requests go on.

use std::time::{Duration, SystemTime};

use metrics::counter;
use opentelemetry::{
    InstrumentationScope, KeyValue, SpanId, TraceFlags, TraceId, Value,
    trace::{SpanContext, SpanKind, Status, TraceState},
};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig};
use opentelemetry_sdk::{
    Resource,
    trace::{SpanData, SpanEvents, SpanExporter as _, SpanLinks},
};
use tokio::sync::mpsc;

use crate::settings::Tracing;

const WAITING: usize = 4096;
const BATCH: usize = 512;
/// How long a batch gathers.
const GATHER: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_secs(10);

/// The trace a request belongs to: the caller's (W3C `traceparent`), or one of its own.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Parent {
    trace: TraceId,
    span: SpanId,
    sampled: Option<bool>,
}

impl Parent {
    /// Reads `00-TRACE-SPAN-FLAGS`; anything else is as good as nothing.
    pub(crate) fn read(header: Option<&str>) -> Self {
        header.and_then(Self::parse).unwrap_or_else(|| Self {
            trace: TraceId::from_bytes(rand::random()),
            span: SpanId::INVALID,
            sampled: None,
        })
    }

    fn parse(header: &str) -> Option<Self> {
        let mut parts = header.split('-');
        let (_version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let trace = TraceId::from_hex(trace).ok().filter(|id| *id != TraceId::INVALID)?;
        let span = SpanId::from_hex(span).ok().filter(|id| *id != SpanId::INVALID)?;
        let flags = u8::from_str_radix(flags, 16).ok()?;
        Some(Self { trace, span, sampled: Some(flags & 1 == 1) })
    }

    /// A caller who decided is followed; else a share of all traces, by their ids.
    fn sampled(&self, share: f64) -> bool {
        let bytes = self.trace.to_bytes();
        let low =
            u64::from_be_bytes([bytes[8], bytes[9], bytes[10], bytes[11], bytes[12], bytes[13], bytes[14], bytes[15]]);
        self.sampled.unwrap_or((low >> 11) as f64 / (1_u64 << 53) as f64 <= share)
    }
}

/// A request as a span.
#[derive(Debug)]
pub(crate) struct Span {
    pub(crate) parent: Parent,
    pub(crate) name: String,
    pub(crate) started: SystemTime,
    pub(crate) ended: SystemTime,
    pub(crate) attributes: Vec<(&'static str, Value)>,
    /// The code of the error.
    pub(crate) error: Option<String>,
}

/// Where spans go in.
#[derive(Debug)]
pub(crate) struct Traces {
    queue: mpsc::Sender<SpanData>,
    share: f64,
}

/// Where they come out.
#[derive(Debug)]
pub(crate) struct Export {
    exporter: SpanExporter,
    queue: mpsc::Receiver<SpanData>,
}

/// Both ends, if a collector is named.
pub(crate) fn open(settings: &Tracing) -> Result<Option<(Traces, Export)>, String> {
    if settings.otlp.is_empty() {
        return Ok(None);
    }
    crate::tls::install();
    let builder = SpanExporter::builder().with_http().with_endpoint(&settings.otlp);
    let built = builder.with_protocol(Protocol::HttpJson).with_timeout(PATIENCE).build();
    let mut exporter = built.map_err(|error| format!("no traces: {error}"))?;
    exporter.set_resource(&Resource::builder().with_service_name(settings.service.clone()).build());
    let (send, queue) = mpsc::channel(WAITING);
    Ok(Some((Traces { queue: send, share: settings.sample }, Export { exporter, queue })))
}

impl Traces {
    pub(crate) fn record(&self, span: Span) {
        if span.parent.sampled(self.share) && self.queue.try_send(data(span)).is_err() {
            counter!("tessera_spans_dropped_total").increment(1);
        }
    }
}

fn data(span: Span) -> SpanData {
    let id = SpanId::from_bytes(rand::random());
    let status = span.error.map_or(Status::Unset, Status::error);
    let attributes = span.attributes.into_iter().map(|(key, value)| KeyValue::new(key, value));
    SpanData {
        span_context: SpanContext::new(span.parent.trace, id, TraceFlags::SAMPLED, false, TraceState::NONE),
        parent_span_id: span.parent.span,
        parent_span_is_remote: true,
        span_kind: SpanKind::Server,
        name: span.name.into(),
        start_time: span.started,
        end_time: span.ended,
        attributes: attributes.collect(),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status,
        instrumentation_scope: InstrumentationScope::builder("tessera.gateway").build(),
    }
}

impl Export {
    /// Ends when nobody can send any more.
    pub(crate) async fn run(mut self) {
        let mut batch = Vec::new();
        while self.queue.recv_many(&mut batch, BATCH).await > 0 {
            if batch.len() < BATCH {
                tokio::time::sleep(GATHER).await;
                while batch.len() < BATCH {
                    let Ok(span) = self.queue.try_recv() else { break };
                    batch.push(span);
                }
            }
            let n = batch.len() as u64;
            if let Err(error) = self.exporter.export(std::mem::take(&mut batch)).await {
                counter!("tessera_spans_dropped_total").increment(n);
                tracing::warn!(%error, "the collector does not take spans");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_callers_trace_is_gone_on_with() {
        let read = |text: &str| Parent::read(Some(text));
        let parent = read("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
        assert_eq!(parent.trace.to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!((parent.span.to_string().as_str(), parent.sampled), ("b7ad6b7169203331", Some(true)));
        for wrong in ["", "00-00000000000000000000000000000000-b7ad6b7169203331-01", "00-x-y-z"] {
            assert_eq!(read(wrong).span, SpanId::INVALID, "{wrong}");
        }
    }

    #[test]
    fn a_share_is_a_share() {
        let sampled = |share: f64| (0..4000).filter(|_| Parent::read(None).sampled(share)).count();
        assert_eq!((sampled(0.0), sampled(1.0)), (0, 4000));
        assert!((800..1200).contains(&sampled(0.25)));
        let decided = Parent::read(Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"));
        assert!(!decided.sampled(1.0));
    }
}
