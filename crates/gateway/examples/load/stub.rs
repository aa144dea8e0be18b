//! An upstream that costs next to nothing: it speaks OpenAI's chat completions and says the same words every time.

use std::{convert::Infallible, pin::Pin, task, time::Duration};

use bytes::Bytes;
use futures_util::Stream;
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::{Request, Response, body::Frame, body::Incoming, header, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, time::Interval};

/// Words of a paced answer.
const PACED: usize = 100;
/// Words of another one.
const SHORT: usize = 8;
/// Time between the words of a paced answer: forty of them in a second.
pub(crate) const PACE: Duration = Duration::from_millis(25);
/// How long a slow answer takes.
const SLOW: Duration = Duration::from_millis(50);

type Body = BoxBody<Bytes, Infallible>;

/// Answers for ever.
pub(crate) async fn serve(listener: TcpListener) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let _ = stream.set_nodelay(true);
        connections.spawn(async move {
            let http = hyper::server::conn::http1::Builder::new();
            let _ = http.serve_connection(TokioIo::new(stream), service_fn(answer)).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

/// What a paced answer says.
pub(crate) fn text() -> String {
    (0..PACED).map(word).collect()
}

fn word(i: usize) -> String {
    format!("word{i:03} ")
}

async fn answer(request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let has = |needle: &[u8]| body.windows(needle.len()).any(|window| window == needle);
    if has(b"\"slow\"") {
        tokio::time::sleep(SLOW).await;
    }
    let stream = has(b"\"stream\":true");
    let body = match (stream, has(b"\"paced\"")) {
        (false, _) => Full::from(whole()).boxed(),
        (true, false) => Full::from(frames(SHORT).concat()).boxed(),
        (true, true) => StreamBody::new(Paced::new()).boxed(),
    };
    let kind = if stream { "text/event-stream" } else { "application/json" };
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    Ok(response)
}

/// An answer in one body.
fn whole() -> String {
    let text: String = (0..SHORT).map(word).collect();
    format!(
        r#"{{"id":"c","object":"chat.completion","created":1,"model":"stub","choices":[{{"index":0,"message":{{"role":"assistant","content":"{text}"}},"finish_reason":"stop"}}],"usage":{{"prompt_tokens":12,"completion_tokens":{SHORT},"total_tokens":{}}}}}"#,
        12 + SHORT
    )
}

/// The frames of an answer of `n` words.
fn frames(n: usize) -> Vec<String> {
    let head = r#"data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"stub","choices":"#;
    let frame = |delta: &str, finish: &str| {
        format!("{head}[{{\"index\":0,\"delta\":{delta},\"finish_reason\":{finish}}}]}}\n\n")
    };
    let mut frames = vec![frame(r#"{"role":"assistant","content":""}"#, "null")];
    frames.extend((0..n).map(|i| frame(&format!(r#"{{"content":"{}"}}"#, word(i)), "null")));
    let usage = format!(r#"{{"prompt_tokens":12,"completion_tokens":{n},"total_tokens":{}}}"#, 12 + n);
    frames.push(format!("{}{head}[],\"usage\":{usage}}}\n\ndata: [DONE]\n\n", frame("{}", "\"stop\"")));
    frames
}

/// One frame with every tick.
struct Paced {
    frames: std::vec::IntoIter<String>,
    ticks: Interval,
}

impl Paced {
    fn new() -> Self {
        Self { frames: frames(PACED).into_iter(), ticks: tokio::time::interval(PACE) }
    }
}

impl Stream for Paced {
    type Item = Result<Frame<Bytes>, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut task::Context<'_>) -> task::Poll<Option<Self::Item>> {
        task::ready!(self.ticks.poll_tick(context));
        task::Poll::Ready(self.frames.next().map(|frame| Ok(Frame::data(frame.into()))))
    }
}
