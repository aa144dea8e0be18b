//! Stopping: new work is refused, what runs finishes, what does not is cut.

use std::{sync::atomic::Ordering, time::Duration};

use tokio::{net::TcpStream, time::timeout};

use crate::{
    fake::{Fake, Step, done, ends, says, started},
    sockets::{Server, chat, read_until, request, serve, until},
};

async fn ended(mut server: Server) {
    let joined = timeout(Duration::from_secs(10), server.task.join_next()).await.expect("the server ends");
    joined.unwrap().unwrap();
    assert!(TcpStream::connect(server.address).await.is_err(), "nothing listens any more");
}

fn slow(millis: u64) -> Fake {
    let end = [says(0, " you"), ends(0), done()].map(Step::Send);
    let begin = [Step::Send(started()), Step::Send(says(0, "Hello")), Step::Wait(Duration::from_millis(millis))];
    Fake::new(move |_| Ok(begin.iter().chain(&end).cloned().collect()))
}

#[tokio::test]
async fn idle_ends_at_once() {
    let mut server = serve(&Fake::parrot()).await;
    let (idle, kept) = (TcpStream::connect(server.address).await.unwrap(), chat(&server, "").await);
    server.stop.take().unwrap().send(()).unwrap();
    ended(server).await;
    drop((idle, kept));
}

#[tokio::test]
async fn running_streams_finish_and_new_work_is_refused() {
    let fake = slow(700);
    let mut server = serve(&fake).await;
    let mut running = chat(&server, ",\"stream\":true").await;
    read_until(&mut running, "Hello").await;
    server.stop.take().unwrap().send(()).unwrap();

    let mut probe = request(&server, "GET /healthz/ready", "").await;
    while !read_until(&mut probe, "models").await.contains("503 Service") {
        probe = request(&server, "GET /healthz/ready", "").await;
    }
    let mut refused = chat(&server, "").await;
    let answer = read_until(&mut refused, "server_error").await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("retry-after: 5"), "{answer}");
    let mut live = request(&server, "GET /healthz/live", "").await;
    read_until(&mut live, "200 OK").await;

    let rest = read_until(&mut running, "[DONE]").await;
    assert!(rest.contains(" you"), "{rest}");
    ended(server).await;
}

#[tokio::test]
async fn what_does_not_finish_is_cut() {
    let mut fake = slow(60_000);
    fake.config.drain_limit = Duration::from_millis(200);
    let mut server = serve(&fake).await;
    let mut streamed = chat(&server, ",\"stream\":true").await;
    read_until(&mut streamed, "Hello").await;
    let mut whole = chat(&server, "").await;
    until("both run", || fake.live.load(Ordering::SeqCst) == 2).await;
    server.stop.take().unwrap().send(()).unwrap();

    let rest = read_until(&mut streamed, "server is stopping").await;
    assert!(!rest.contains("[DONE]"), "{rest}");
    let answer = read_until(&mut whole, "server is stopping").await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert_eq!(fake.live.load(Ordering::SeqCst), 0);
    ended(server).await;
}
