//! Over real sockets: what is bound, how sockets are set, and what a client that hangs up leaves behind.

use std::{sync::atomic::Ordering, time::Duration};

use gateway::{
    Gateway,
    settings::{Live, Settings},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::oneshot,
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::fake::{Fake, Step, says, started};

/// A server in the background; dropping it stops it.
pub(crate) struct Server {
    pub(crate) address: std::net::SocketAddr,
    pub(crate) stop: Option<oneshot::Sender<()>>,
    pub(crate) task: JoinSet<()>,
}

pub(crate) async fn serve(fake: &Fake) -> Server {
    let listener = gateway::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr();
    let (stop, stopped) = oneshot::channel();
    let shutdown = async { stopped.await.unwrap_or(()) };
    let mut task = JoinSet::new();
    task.spawn(gateway::serve(listener, fake.gateway(), shutdown));
    Server { address, stop: Some(stop), task }
}

pub(crate) async fn request(server: &Server, head: &str, body: &str) -> TcpStream {
    let mut client = TcpStream::connect(server.address).await.unwrap();
    let length = body.len();
    let text = format!(
        "{head} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    client.write_all(text.as_bytes()).await.unwrap();
    client
}

pub(crate) async fn chat(server: &Server, extra: &str) -> TcpStream {
    let body = format!(r#"{{"model":"talker","messages":[{{"role":"user","content":"Hi"}}]{extra}}}"#);
    request(server, "POST /v1/chat/completions", &body).await
}

/// Reads until `needle` has come.
pub(crate) async fn read_until(client: &mut TcpStream, needle: &str) -> String {
    let mut seen = Vec::new();
    let mut chunk = [0; 4096];
    while !String::from_utf8_lossy(&seen).contains(needle) {
        let n = timeout(Duration::from_secs(10), client.read(&mut chunk)).await.expect("more comes").unwrap();
        assert!(n > 0, "closed before {needle:?}: {}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&chunk[..n]);
    }
    String::from_utf8(seen).unwrap()
}

pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..500 {
        if condition() {
            return;
        }
        sleep(Duration::from_millis(10)).await;
    }
    panic!("not within 5 s: {what}");
}

#[tokio::test]
async fn only_loopback_is_bound() {
    for address in ["127.0.0.1:0", "localhost:0", "127.8.8.8:0"] {
        gateway::bind(address).await.unwrap();
    }
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:80", "[::ffff:192.0.2.1]:80"] {
        let error = gateway::bind(address).await.unwrap_err();
        assert!(matches!(error, gateway::Error::Exposed { .. }), "{error}");
        assert!(error.to_string().contains("tessera keys create"), "{error}");
    }
    assert!(matches!(gateway::bind("8080").await, Err(gateway::Error::Address { .. })));
    let first = gateway::bind("127.0.0.1:0").await.unwrap();
    let taken = gateway::bind(&first.local_addr().to_string()).await.unwrap_err();
    assert!(matches!(taken, gateway::Error::Bind { .. }), "{taken}");
}

fn hangs(after: Vec<Step>) -> Fake {
    Fake::new(move |_| Ok(after.iter().cloned().chain([Step::Hang]).collect()))
}

/// Before, in the middle of and without a stream: the service's stream is dropped when the client is gone.
#[tokio::test]
async fn a_client_that_hangs_up_frees_its_stream() {
    let speaks = vec![Step::Send(started()), Step::Send(says(0, "Hello"))];
    let cases = [(vec![], ",\"stream\":true", ""), (speaks.clone(), ",\"stream\":true", "Hello"), (speaks, "", "")];
    for (steps, extra, wait_for) in cases {
        let fake = hangs(steps);
        let server = serve(&fake).await;
        let mut client = chat(&server, extra).await;
        read_until(&mut client, wait_for).await;
        until("the request arrives", || fake.live.load(Ordering::SeqCst) == 1).await;
        drop(client);
        until("its stream is dropped", || fake.live.load(Ordering::SeqCst) == 0).await;
    }
}

/// A client that only writes gets the refusal, not a broken pipe.
#[tokio::test]
async fn a_long_body_gets_its_refusal() {
    let mut fake = Fake::parrot();
    fake.config.max_body_bytes = 1 << 20;
    let server = serve(&fake).await;
    let body = " ".repeat(5 << 20);
    let mut client = request(&server, "POST /v1/chat/completions", &body).await;
    let answer = read_until(&mut client, "request_too_large").await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
}

/// Clients that send half a request take no place from those who send a whole one.
#[tokio::test]
async fn half_sent_requests_keep_nobody_out() {
    let live = Live::new(Settings::parse("[limits]\nin_flight = 1\n").unwrap());
    let gateway = Gateway { settings: live, ..Fake::parrot().gateway() };
    let listener = gateway::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr();
    let mut task = JoinSet::new();
    task.spawn(gateway::serve(listener, gateway, std::future::pending()));
    let server = Server { address, stop: None, task };
    let mut halves = Vec::new();
    for _ in 0..8 {
        let mut client = TcpStream::connect(address).await.unwrap();
        let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";
        client.write_all(format!("{head}content-length: 500\r\n\r\n{{").as_bytes()).await.unwrap();
        halves.push(client);
    }
    sleep(Duration::from_millis(100)).await;
    let answer = read_until(&mut chat(&server, "").await, "Hi").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

/// Sixty-four streams at once over real sockets, each with its own words.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_streams_keep_their_words() {
    let server = serve(&Fake::parrot()).await;
    let one = |i: usize| {
        let server = &server;
        async move {
            let prompt: String = (0..20).map(|k| format!("w{i}x{k} ")).collect();
            let body = format!(r#"{{"model":"talker","prompt":"{prompt}","stream":true}}"#);
            let mut client = request(server, "POST /v1/completions", &body).await;
            let answer = read_until(&mut client, "[DONE]").await;
            let mut words = String::new();
            for data in answer.lines().filter_map(|line| line.strip_prefix("data: {")) {
                let chunk: serde_json::Value = serde_json::from_str(&format!("{{{data}")).unwrap();
                words += chunk["choices"][0]["text"].as_str().unwrap();
            }
            assert_eq!(words, prompt);
        }
    };
    futures_util::future::join_all((0..64).map(one)).await;
}
