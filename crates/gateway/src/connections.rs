//! Connections, from the accepted socket to the last byte.
//!
//! A token stream is many small writes, and each of them must leave at once: every socket is set so here. Whoever connects costs memory before
//! anything is known of them, so everything they can be slow at has a limit: agreeing on a key, the first request, the head of each further one,
//! and, where several share a connection (HTTP/2), answering a ping. Bodies have theirs in `body`.

use std::{
    convert::Infallible,
    io,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{Router, extract::Request};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{
        conn::auto::Builder,
        graceful::{GracefulShutdown, Watcher},
    },
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch},
    task::JoinSet,
    time::{error::Elapsed, sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

use crate::Listener;

/// How long a client may take to agree on a key.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Handshakes at the same time; further connections wait in the system's queue.
const HANDSHAKES: usize = 256;
/// How long the first request, and the head of each further one, may take to come. A connection that is idle longer is closed.
const HEAD: Duration = Duration::from_secs(60);
/// The most bytes of a head, and of what is read ahead.
const BUFFER: usize = 64 << 10;
/// Requests at the same time over one HTTP/2 connection: a gateway sends all of its own to a worker over one.
const STREAMS: u32 = 4096;
/// Silence after which an HTTP/2 connection is asked whether anybody is there, and how long the answer may take.
const PING: Duration = Duration::from_secs(20);
/// How long to wait when the system has no more sockets.
const EXHAUSTED: Duration = Duration::from_secs(1);

/// Answers whoever connects until `closed`, then lets the listener go and waits for what is in flight.
///
/// Not generic over what it is closed by: it would be compiled in the program then, with all of the HTTP server, and optimised less.
pub(crate) async fn run(listener: Listener, routes: Router, mut closed: oneshot::Receiver<()>) {
    let (socket, acceptor) = (listener.socket, listener.certificate.map(|certificate| certificate.acceptor()));
    let (server, open, handshakes) = (server(HEAD), GracefulShutdown::new(), Arc::new(Semaphore::new(HANDSHAKES)));
    let (close, closing) = watch::channel(());
    // Whatever is left when this is dropped ends with it.
    let mut begun = JoinSet::new();
    loop {
        while begun.try_join_next().is_some() {}
        let accepted = tokio::select! {
            accepted = accept(&socket, &handshakes) => accepted,
            _ = &mut closed => break,
        };
        let Some((stream, permit)) = accepted else { continue };
        let connection = Connection { server: server.clone(), routes: routes.clone(), open: open.watcher() };
        begun.spawn(begin(connection, stream, acceptor.clone(), permit, closing.clone()));
    }
    drop((socket, close));
    open.shutdown().await;
}

fn server(head: Duration) -> Builder<TokioExecutor> {
    let mut server = Builder::new(TokioExecutor::new());
    server.http1().timer(TokioTimer::new()).header_read_timeout(head).max_buf_size(BUFFER);
    let mut http2 = server.http2();
    http2.timer(TokioTimer::new()).keep_alive_interval(PING).keep_alive_timeout(PING).max_concurrent_streams(STREAMS);
    server
}

/// The next socket that works, and a place to shake hands.
async fn accept(socket: &TcpListener, handshakes: &Arc<Semaphore>) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    let permit = handshakes.clone().acquire_owned().await.ok()?;
    match socket.accept().await {
        Ok((stream, peer)) => {
            if let Err(error) = stream.set_nodelay(true) {
                tracing::warn!(%error, %peer, "cannot turn Nagle's delay off");
            }
            Some((stream, permit))
        }
        Err(error) => {
            exhausted(&error).await;
            None
        }
    }
}

/// A client that left early is its own affair; anything else is the system's limit, and does not pass at once.
async fn exhausted(error: &io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    if !matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset) {
        tracing::error!(%error, "no connection can be accepted");
        sleep(EXHAUSTED).await;
    }
}

struct Connection {
    server: Builder<TokioExecutor>,
    routes: Router,
    open: Watcher,
}

async fn begin(
    mut connection: Connection,
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    permit: OwnedSemaphorePermit,
    closing: watch::Receiver<()>,
) {
    let Some(tls) = tls else {
        drop(permit);
        let Some(http1) = unless(closing, timeout(HEAD, speaks_http1(&stream))).await else { return };
        if http1 {
            connection.server = connection.server.http1_only();
        }
        return connection.serve(stream, HEAD).await;
    };
    let agreed = unless(closing, timeout(HANDSHAKE, tls.accept(stream))).await;
    drop(permit);
    if let Some(Ok(stream)) = agreed {
        Box::pin(connection.serve(stream, HEAD)).await;
    }
}

/// What came of it in time, if the server is not closing: nobody waits for who has not asked for anything yet.
async fn unless<T>(mut closing: watch::Receiver<()>, begun: impl Future<Output = Result<T, Elapsed>>) -> Option<T> {
    tokio::select! {
        begun = begun => begun.ok(),
        _ = closing.changed() => None,
    }
}

/// Whether the first bytes say so: only HTTP/2 begins with `PR`. A connection that hyper still has to find it out of takes a buffer twice as large.
async fn speaks_http1(stream: &TcpStream) -> bool {
    let mut first = [0; 2];
    matches!(stream.peek(&mut first).await, Ok(2)) && first != *b"PR"
}

impl Connection {
    /// Until either side ends it, or the first request does not come.
    async fn serve(self, stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, head: Duration) {
        let Self { server, routes, open } = self;
        let asked = Arc::new(AtomicBool::new(false));
        let asks = asked.clone();
        let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
            asks.store(true, Ordering::Relaxed);
            let answer = routes.clone().oneshot(request);
            async move { Ok::<_, Infallible>(answer.await.unwrap_or_else(|never| match never {})) }
        });
        let mut served = pin!(open.watch(server.serve_connection(TokioIo::new(stream), service).into_owned()));
        tokio::select! {
            ended = &mut served => return note(ended),
            () = sleep(head) => {}
        }
        if asked.load(Ordering::Relaxed) {
            note(served.await);
        }
    }
}

/// Clients hang up in many ways; none of them is the server's trouble.
fn note(ended: Result<(), Box<dyn std::error::Error + Send + Sync>>) {
    if let Err(error) = ended {
        tracing::debug!(error, "a connection broke");
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn accepted_sockets_have_no_delay() {
        let listener = crate::bind("127.0.0.1:0").await.unwrap();
        let _client = TcpStream::connect(listener.local_addr()).await.unwrap();
        let (stream, _) = accept(&listener.socket, &Arc::new(Semaphore::new(1))).await.unwrap();
        assert!(stream.nodelay().unwrap());
    }

    #[tokio::test]
    async fn who_says_nothing_keeps_no_server_from_closing() {
        let listener = crate::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr()).await.unwrap();
        let (close, closed) = oneshot::channel();
        let closing = async {
            sleep(Duration::from_millis(300)).await;
            close.send(()).unwrap();
        };
        let both = async { tokio::join!(run(listener, Router::new(), closed), closing) };
        assert!(timeout(HEAD / 6, both).await.is_ok());
        drop(client);
    }

    /// What a client gets that sends these parts, with time to be late between them.
    async fn gets(parts: &[&str]) -> String {
        let head = Duration::from_millis(300);
        let (mut client, ours) = tokio::io::duplex(1 << 16);
        let routes = Router::new().route("/", axum::routing::get(async || "hello"));
        let open = GracefulShutdown::new();
        let connection = Connection { server: server(head), routes: routes.with_state(()), open: open.watcher() };
        let mut served = JoinSet::new();
        served.spawn(connection.serve(ours, head));
        for part in parts {
            client.write_all(part.as_bytes()).await.unwrap();
            sleep(head / 3).await;
        }
        let mut got = String::new();
        timeout(Duration::from_secs(10), client.read_to_string(&mut got)).await.expect("it is closed").unwrap();
        served.join_next().await.unwrap().unwrap();
        got
    }

    #[tokio::test]
    async fn who_does_not_ask_is_let_go() {
        const ASK: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
        let check = async |parts: &[&str], answers| {
            assert_eq!(gets(parts).await.matches("hello").count(), answers, "{parts:?}");
        };
        check(&[], 0).await;
        // Neither version is known yet, a head that does not end, an HTTP/2 connection without a request.
        check(&["P"], 0).await;
        check(&["GET / HTTP/1.1\r\n", "host: a\r\n", "x: y\r\n"], 0).await;
        check(&["PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"], 0).await;
        check(&["GET / HTTP/1.1\r\n", "host: a\r\n\r\n"], 1).await;
        check(&[ASK, ASK, ASK, ASK, ASK, "GET /"], 5).await;
    }
}
