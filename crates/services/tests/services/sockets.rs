//! Over real sockets: what is sent, what is tried again, how long is waited, and what a caller that hangs up leaves behind.

use std::time::Duration;

use futures_util::StreamExt;
use protocol::{
    Draw, DrawRequest, Embed, EmbedRequest, Error, ErrorKind, Event, Generate, GenerateRequest, ModelCard, Prompt,
    Reason, TextOrTokens,
};
use secrecy::SecretString;
use services::{
    Retry,
    upstream::{Api, Config, Offer, Upstream},
};
use tokio::time::timeout;

use crate::{
    fake::{answer, events, request, way},
    server::{Reply, Server},
};

const HELLO: &str = concat!(
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hello\"}}]}\n\n",
    "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n",
    "data: [DONE]\n\n"
);
const BEGUN: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hello\"}}]}\n\n";

fn config(url: &str, api: Api) -> Config {
    let offers = || vec![Offer { card: ModelCard::new("m"), upstream: "there".to_owned() }];
    let retry = Retry { times: 2, pause: Duration::from_millis(1), longest: Duration::from_secs(1) };
    let key = Some(SecretString::from("sk-1"));
    let (models, embed_models, image_models) = (offers(), offers(), offers());
    Config { key, models, embed_models, image_models, retry, ..Config::new("x", url, api) }
}

fn upstream(server: &Server) -> Upstream {
    Upstream::new(config(&server.url, Api::OpenAi)).unwrap()
}

#[tokio::test]
async fn what_is_asked() {
    let server = Server::start([Reply::stream(HELLO)]).await;
    let asked = GenerateRequest { id: "req_7".to_owned(), tenant: "acme".to_owned(), ..request() };
    assert_eq!(answer(&upstream(&server), asked).await.unwrap(), "Hello");
    let seen = server.asked.lock()[0].clone();
    for line in ["post /v1/chat/completions http/1.1", "authorization: bearer sk-1", "x-client-request-id: req_7"] {
        assert!(seen.head.contains(line), "{line}: {}", seen.head);
    }
    let expected = concat!(
        r#"{"model":"there","messages":[{"role":"user","content":"Hi"}],"max_completion_tokens":9,"#,
        r#""stream":true,"stream_options":{"include_usage":true}}"#
    );
    assert_eq!(seen.body, expected);
    let prompt = Prompt::Raw(TextOrTokens::Tokens(vec![1, 2]));
    answer(&upstream(&server), GenerateRequest { prompt, ..request() }).await.unwrap();
    assert!(server.asked.lock()[1].head.contains("post /v1/completions "));
}

/// A server that knows the older name of the bound only is sent that one, and nothing else is different.
#[tokio::test]
async fn the_older_name_of_the_bound() {
    let server = Server::start([Reply::stream(HELLO)]).await;
    let older = Config { older_limit: true, ..config(&server.url, Api::OpenAi) };
    for upstream in [upstream(&server), Upstream::new(older).unwrap()] {
        answer(&upstream, request()).await.unwrap();
    }
    let bodies: Vec<serde_json::Value> =
        server.asked.lock().iter().map(|asked| serde_json::from_str(&asked.body).unwrap()).collect();
    let mut expected = bodies[0].clone();
    let bound = expected.as_object_mut().unwrap().remove("max_completion_tokens").unwrap();
    expected["max_tokens"] = bound;
    assert_eq!(bodies[1], expected);
}

/// A name of ours that stands for another one there is told; one that is the same is not.
#[tokio::test]
async fn an_alias_is_told() {
    let server = Server::start([Reply::stream(HELLO)]).await;
    let heard = events(&upstream(&server), request()).await.unwrap();
    assert_eq!(way(&heard[..1]), [(Reason::Alias, "m to there of x".to_owned(), Vec::new())]);
    let mut same = config(&server.url, Api::OpenAi);
    same.models[0].upstream = "m".to_owned();
    assert_eq!(way(&events(&Upstream::new(same).unwrap(), request()).await.unwrap()), []);
}

#[tokio::test]
async fn what_anthropic_is_asked() {
    let server = Server::start([Reply::stream("event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n")]).await;
    let upstream = Upstream::new(config(&server.url, Api::Anthropic)).unwrap();
    answer(&upstream, request()).await.unwrap();
    let seen = server.asked.lock()[0].clone();
    for line in ["post /v1/messages http/1.1", "x-api-key: sk-1", "anthropic-version: 2023-06-01"] {
        assert!(seen.head.contains(line), "{line}: {}", seen.head);
    }
    let expected = r#"{"model":"there","max_tokens":9,"messages":[{"role":"user","content":"Hi"}],"stream":true}"#;
    assert_eq!(seen.body, expected);
    let raw = GenerateRequest { prompt: Prompt::Raw(TextOrTokens::Text("x".to_owned())), ..request() };
    assert_eq!(answer(&upstream, raw).await.unwrap_err().kind, ErrorKind::Unsupported);
}

/// How often the server is asked, and what comes of it.
async fn check(replies: Vec<Reply>, times: usize, expected: Result<&str, ErrorKind>) {
    let server = Server::start(replies.clone()).await;
    let heard = answer(&upstream(&server), request()).await.map_err(|error| error.kind);
    assert_eq!(heard.as_deref(), expected.as_ref().map(|text| *text), "{replies:?}");
    assert_eq!(server.times(), times, "{replies:?}");
}

#[tokio::test]
async fn what_is_tried_again() {
    let refuses = |status: &str, headers: &str| Reply::json(status, headers, r#"{"error":{"message":"no"}}"#);
    let hello = || Reply::stream(HELLO);
    let busy = || refuses("503 Service Unavailable", "retry-after: 0\r\n");
    check(vec![busy(), busy(), hello()], 3, Ok("Hello")).await;
    check(vec![busy(), busy(), busy(), hello()], 3, Err(ErrorKind::Overloaded)).await;
    check(vec![refuses("500 Internal Server Error", ""), hello()], 2, Ok("Hello")).await;
    check(vec![refuses("429 Too Many Requests", "retry-after: 60\r\n"), hello()], 1, Err(ErrorKind::Overloaded)).await;
    check(vec![refuses("400 Bad Request", ""), hello()], 1, Err(ErrorKind::Invalid)).await;
    // Broken before its first byte, with a head and without.
    check(vec![Reply::stream(""), hello()], 2, Ok("Hello")).await;
    check(vec![Reply::new(""), hello()], 2, Ok("Hello")).await;
    // The error is the first thing in the stream.
    check(vec![Reply::stream("data: {\"error\":{\"message\":\"x\",\"code\":500}}\n\n"), hello()], 2, Ok("Hello")).await;
    // Broken after it: nothing is sent twice.
    check(vec![Reply::stream(BEGUN), hello()], 1, Err(ErrorKind::Upstream)).await;
    // Where the redirect leads, our key is not taken.
    check(vec![refuses("307 Temporary Redirect", "location: http://127.0.0.1:9/\r\n")], 3, Err(ErrorKind::Upstream))
        .await;
}

/// A refusal that quotes our headers, as the first word, and in the middle of a stream.
#[tokio::test]
async fn the_key_does_not_come_back() {
    let words = r#"{"error":{"message":"Bad header `Authorization: Bearer sk-1`","code":400}}"#;
    let stream = format!("data: {words}\n\n");
    for reply in
        [Reply::json("400 Bad Request", "", words), Reply::stream(&stream), Reply::stream(&format!("{BEGUN}{stream}"))]
    {
        let server = Server::start([reply]).await;
        let error = answer(&upstream(&server), request()).await.unwrap_err();
        assert_eq!(error.message, "Bad header `Authorization: Bearer [key]`");
    }
}

#[tokio::test]
async fn a_server_that_is_not_there() {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", socket.local_addr().unwrap());
    drop(socket);
    let upstream = Upstream::new(config(&url, Api::OpenAi)).unwrap();
    let error = answer(&upstream, request()).await.unwrap_err();
    assert!(error.kind == ErrorKind::Upstream && error.message.contains("cannot be reached"), "{error}");
    assert!(!error.message.contains(&url), "{error}");
    let unknown = GenerateRequest { model: "other".to_owned(), ..request() };
    assert_eq!(answer(&upstream, unknown).await.unwrap_err().kind, ErrorKind::NotFound);
}

#[tokio::test]
async fn waiting_has_an_end() {
    let check = async |reply: Reply, change: fn(&mut Config), kind: ErrorKind, code: Option<&str>| {
        let server = Server::start([reply.held()]).await;
        let mut config = config(&server.url, Api::OpenAi);
        change(&mut config);
        let upstream = Upstream::new(config).unwrap();
        let heard = answer(&upstream, request());
        let error = timeout(Duration::from_secs(10), heard).await.expect("it ends").unwrap_err();
        assert_eq!((error.kind, error.code.as_deref()), (kind, code), "{error}");
    };
    let soon = Some(Duration::from_millis(50));
    let slow = Some("first_byte_timeout");
    let first_byte = |config: &mut Config| config.first_byte = Some(Duration::from_millis(50));
    check(Reply::new(""), first_byte, ErrorKind::DeadlineExceeded, slow).await;
    check(Reply::stream(": still thinking\n\n"), first_byte, ErrorKind::DeadlineExceeded, slow).await;
    let idle = |config: &mut Config| config.idle = Some(Duration::from_millis(50));
    check(Reply::stream(BEGUN), idle, ErrorKind::Upstream, Some("idle_timeout")).await;
    let whole = |config: &mut Config| config.whole = Some(Duration::from_millis(50));
    check(Reply::new(""), whole, ErrorKind::DeadlineExceeded, None).await;
    check(Reply::stream(BEGUN), whole, ErrorKind::DeadlineExceeded, None).await;
    let server = Server::start([Reply::stream(BEGUN).held()]).await;
    let limited = GenerateRequest { deadline: soon, ..request() };
    assert_eq!(answer(&upstream(&server), limited).await.unwrap_err().kind, ErrorKind::DeadlineExceeded);
}

/// Before the head, before the first event, and in the middle: the connection is closed when the caller is gone.
#[tokio::test]
async fn a_caller_that_hangs_up_ends_the_request() {
    for (reply, begins) in [(Reply::new(""), false), (Reply::stream(""), false), (Reply::stream(BEGUN), true)] {
        let mut server = Server::start([reply.held()]).await;
        let upstream = upstream(&server);
        let waited = timeout(Duration::from_millis(300), async {
            let mut events = upstream.generate(request()).await?;
            events.next().await;
            events.next().await.transpose()?;
            Ok::<_, Error>(events)
        });
        let begun = waited.await;
        assert_eq!(begun.is_ok(), begins);
        assert_eq!(server.times(), 1);
        drop(begun);
        let gone = server.left.wait_for(|left| *left == 1);
        timeout(Duration::from_secs(5), gone).await.expect("the server sees it").unwrap();
    }
}

#[tokio::test]
async fn vectors() {
    let vector = |index: usize, x: f32| format!(r#"{{"object":"embedding","index":{index},"embedding":[{x},0.5]}}"#);
    let list = |data: &str| {
        format!(r#"{{"object":"list","data":[{data}],"model":"there","usage":{{"prompt_tokens":4,"total_tokens":4}}}}"#)
    };
    let both = list(&format!("{},{}", vector(1, 2.0), vector(0, 1.0)));
    let server =
        Server::start([Reply::json("200 OK", "", &both), Reply::json("200 OK", "", &list(&vector(0, 1.0)))]).await;
    let inputs = ["a", "b"].map(|text| TextOrTokens::Text(text.to_owned())).to_vec();
    let request = EmbedRequest { model: "m".to_owned(), inputs, dimensions: None };
    let upstream = upstream(&server);
    let embeddings = upstream.embed(request.clone()).await.unwrap();
    assert_eq!((embeddings.vectors, embeddings.prompt_tokens), (vec![vec![1.0, 0.5], vec![2.0, 0.5]], 4));
    assert_eq!(upstream.embed(request).await.unwrap_err().kind, ErrorKind::Upstream);
    assert_eq!(server.asked.lock()[0].body, r#"{"model":"there","input":["a","b"]}"#);
}

#[tokio::test]
async fn images() {
    let server =
        Server::start([Reply::json("200 OK", "", r#"{"created":1,"data":[{"b64_json":"iVBORw0KGgo="}]}"#)]).await;
    let request = DrawRequest {
        id: String::new(),
        model: "m".to_owned(),
        prompt: "a cat".to_owned(),
        n: 1,
        size: Some((64, 32)),
        seed: None,
        tenant: String::new(),
    };
    let drawing = upstream(&server).draw(request.clone()).await.unwrap();
    assert_eq!(drawing.images[0].media_type, "image/png");
    let body = r#"{"model":"there","prompt":"a cat","n":1,"size":"64x32","response_format":"b64_json"}"#;
    assert_eq!(server.asked.lock()[0].body, body);
    let seeded = upstream(&server).draw(DrawRequest { seed: Some(1), ..request }).await.unwrap_err();
    assert_eq!((seeded.kind, server.times()), (ErrorKind::Unsupported, 1));
}

#[tokio::test]
async fn models_can_be_discovered() {
    let list = r#"{"object":"list","data":[{"id":"a/b","object":"model","created":1,"owned_by":"vllm","max_model_len":4096}]}"#;
    let server = Server::start([Reply::json("200 OK", "", list), Reply::stream(HELLO)]).await;
    let found = Upstream::discover(config(&server.url, Api::OpenAi)).await.unwrap();
    let cards = Generate::models(&found);
    assert!(cards.len() == 1 && cards[0].id == "a/b" && cards[0].context_length == 4096, "{cards:?}");
    let mut events = found.generate(GenerateRequest { model: String::new(), ..request() }).await.unwrap();
    assert!(matches!(events.next().await, Some(Ok(Event::Started { .. }))));
    assert!(server.asked.lock()[1].body.contains(r#""model":"a/b""#));
}
