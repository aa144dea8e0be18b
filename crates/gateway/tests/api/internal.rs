//! A worker and the remote form that asks it, over a real socket.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures_util::StreamExt;
use protocol::{Embed, EmbedRequest, Error, ErrorKind, Event, Generate, GenerateRequest, Prompt, TextOrTokens};
use services::remote::{Gatekeeper, Remote, Secret};
use tokio::{sync::oneshot, task::JoinSet, time::timeout};

use crate::{
    fake::{Fake, Step, done, ends, says, scored, started},
    sockets::{Server, read_until, request as raw, until},
};

fn secret(letter: &str) -> Secret {
    Secret::new(&letter.repeat(32)).unwrap()
}

/// A worker that answers nobody but those who know the secret.
async fn worker(fake: &Fake) -> Server {
    worker_at(fake, "127.0.0.1:0").await
}

async fn worker_at(fake: &Fake, address: &str) -> Server {
    let listener = gateway::bind(address).await.unwrap();
    let address = listener.local_addr();
    let (stop, stopped) = oneshot::channel();
    let mut gateway = fake.gateway();
    gateway.worker = Some(Arc::new(Gatekeeper::new(secret("a"))));
    gateway.public = false;
    let mut task = JoinSet::new();
    task.spawn(gateway::serve(listener, gateway, async { stopped.await.unwrap_or(()) }));
    Server { address, stop: Some(stop), task }
}

async fn remote(server: &Server, secret: Secret) -> Remote {
    let remote = Remote::new(&format!("http://{}", server.address), secret).unwrap();
    remote.probe().await;
    remote
}

fn request() -> GenerateRequest {
    let prompt = Prompt::Raw(TextOrTokens::Text("one two".to_owned()));
    GenerateRequest { model: "talker".to_owned(), ..GenerateRequest::new(prompt, 9) }
}

#[tokio::test]
async fn a_remote_service_is_the_service() {
    let score = scored(b"\xff", Some(f32::NEG_INFINITY), &[(b"x", -0.0)]);
    let text = Event::Text { choice: 0, text: "é".to_owned(), logprobs: vec![score] };
    let events = vec![started(), Event::Tokens { choice: 0, ids: vec![1, u32::MAX] }, text, ends(0), done()];
    let fake = Fake::saying(events.clone());
    let server = worker(&fake).await;
    let remote = remote(&server, secret("a")).await;
    Generate::ready(&remote).unwrap();
    assert_eq!(Generate::models(&remote), fake.models());
    let heard: Vec<_> = remote.generate(request()).await.unwrap().map(Result::unwrap).collect().await;
    assert_eq!(heard, events);
    let inputs = vec![TextOrTokens::Text("four".to_owned())];
    let embedded = remote.embed(EmbedRequest { model: "vectors".to_owned(), inputs, dimensions: None }).await.unwrap();
    assert_eq!(embedded.vectors, [[4.0, 4.0]]);
    let unknown = GenerateRequest { model: "other".to_owned(), ..request() };
    assert_eq!(remote.generate(unknown).await.err().unwrap().kind, ErrorKind::Upstream);
}

#[tokio::test]
async fn failures_keep_their_kind() {
    let wrong = Error::invalid("prompt", "too long").with_code("context_length_exceeded");
    let server = worker(&Fake::refusing(wrong.clone())).await;
    assert_eq!(remote(&server, secret("a")).await.generate(request()).await.err(), Some(wrong.clone()));
    let failing = wrong.clone();
    let fake = Fake::new(move |_| Ok(vec![Step::Send(says(0, "x")), Step::Fail(failing.clone())]));
    let server = worker(&fake).await;
    let heard: Vec<_> = remote(&server, secret("a")).await.generate(request()).await.unwrap().collect().await;
    assert_eq!(heard, [Ok(says(0, "x")), Err(wrong)]);
}

/// What was meant for the old worker is refused by the new one in its place, which tells its name, so the gateway asks again by itself.
#[tokio::test]
async fn a_worker_that_was_started_anew_is_asked_on() {
    let fake = Fake::saying(vec![started(), done()]);
    let mut server = worker(&fake).await;
    let remote = remote(&server, secret("a")).await;
    let address = server.address.to_string();
    server.task.shutdown().await;
    drop(server);
    assert!(remote.generate(request()).await.is_err());
    let _anew = worker_at(&fake, &address).await;
    assert_eq!(remote.generate(request()).await.unwrap().count().await, 2);
}

/// A worker whose engine broke is out of service itself; the gateway that asks it is not.
#[tokio::test]
async fn a_broken_worker_is_not_the_gateways_fault() {
    let mut fake = Fake::parrot();
    fake.broken = Some(Error::internal("the engine has stopped"));
    let server = worker(&fake).await;
    let remote = Arc::new(remote(&server, secret("a")).await);
    let trouble = Generate::ready(&*remote).unwrap_err();
    assert_eq!((trouble.kind, &*trouble.message), (ErrorKind::Upstream, "the engine has stopped"));
    let own = Fake::parrot();
    let mut services = own.services();
    services.decide.push(remote.clone());
    services.generate.push(remote);
    let ready = crate::send(&gateway::router(own.gateway_of(services)), crate::get("/healthz/ready")).await;
    assert_eq!(ready.status(), 200);
    assert!(crate::text(ready).await.contains("the engine has stopped"));
}

#[tokio::test]
async fn strangers_get_nothing() {
    let server = worker(&Fake::parrot()).await;
    let stranger = remote(&server, secret("b")).await;
    let trouble = Generate::ready(&stranger).unwrap_err();
    assert!(trouble.message.contains("does not accept our secret"), "{trouble}");
    assert!(Generate::models(&stranger).is_empty());
    assert_eq!(stranger.generate(request()).await.err().unwrap().kind, ErrorKind::Upstream);
    for (path, status) in [("/internal/v1/generate", "401"), ("/v1/chat/completions", "404"), ("/", "404")] {
        let mut client = raw(&server, &format!("POST {path}"), "{}").await;
        assert!(read_until(&mut client, "\r\n\r\n").await.contains(status), "{path}");
    }
    // Where no secret is configured there is no such route, and a gateway notices that nobody proves anything.
    let open = crate::sockets::serve(&Fake::parrot()).await;
    let trouble = Generate::ready(&remote(&open, secret("a")).await).unwrap_err();
    assert!(trouble.message.contains("without knowing our secret"), "{trouble}");
}

#[tokio::test]
async fn dropping_a_stream_frees_it_there() {
    let fake = Fake::new(|_| Ok(vec![Step::Send(started()), Step::Send(says(0, "x")), Step::Hang]));
    let server = worker(&fake).await;
    let remote = remote(&server, secret("a")).await;
    let mut streams = Vec::new();
    for _ in 0..3 {
        let mut stream = remote.generate(request()).await.unwrap();
        assert_eq!(stream.next().await, Some(Ok(started())));
        streams.push(stream);
    }
    until("all three arrive", || fake.live.load(Ordering::SeqCst) == 3).await;
    streams.pop();
    until("one is dropped", || fake.live.load(Ordering::SeqCst) == 2).await;
    drop(streams);
    until("all are dropped", || fake.live.load(Ordering::SeqCst) == 0).await;
    // Dropped before it is admitted, too.
    let hangs = Fake::new(|_| Ok(vec![Step::Hang]));
    let server = worker(&hangs).await;
    let mut stream = self::remote(&server, secret("a")).await.generate(request()).await.unwrap();
    assert!(timeout(Duration::from_millis(50), stream.next()).await.is_err());
    drop(stream);
    until("it is dropped", || hangs.live.load(Ordering::SeqCst) == 0).await;
}

/// A worker that stops says so: in its standing, and in the streams that it cuts.
#[tokio::test]
async fn a_worker_that_stops_hands_over() {
    let mut fake = Fake::new(|_| Ok(vec![Step::Send(says(0, "x")), Step::Hang]));
    fake.config.drain_limit = Duration::from_millis(300);
    let mut server = worker(&fake).await;
    let remote = remote(&server, secret("a")).await;
    let mut stream = remote.generate(request()).await.unwrap();
    assert_eq!(stream.next().await, Some(Ok(says(0, "x"))));
    server.stop.take().unwrap().send(()).unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    remote.probe().await;
    assert_eq!(Generate::ready(&remote).unwrap_err().kind, ErrorKind::ShuttingDown);
    let cut = timeout(Duration::from_secs(5), stream.next()).await.unwrap().unwrap().unwrap_err();
    assert_eq!(cut.kind, ErrorKind::ShuttingDown);
    // Gone, it is known to be gone at the first try.
    drop(server);
    remote.probe().await;
    assert_eq!(Generate::ready(&remote).unwrap_err().kind, ErrorKind::Upstream);
}
