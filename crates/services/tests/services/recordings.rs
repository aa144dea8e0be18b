//! What vLLM, OpenAI and Anthropic send, played back through an upstream: streams, calls of tools, and errors.
//!
//! A recording is a response as it goes over the socket, behind comments that say what it shows. The events it is stand in the file
//! beside it. Each is played whole, byte by byte, and in pieces of 7.

use expect_test::expect_file;
use protocol::{Error, Event};
use services::{
    Retry,
    upstream::{Api, Config, Offer, Upstream},
};

use crate::{
    fake::request,
    server::{Reply, Server},
};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/recordings");

/// The response in a file, with the line ends of HTTP in its head.
fn recorded(name: &str) -> String {
    let text = std::fs::read_to_string(format!("{FOLDER}/{name}.http")).unwrap();
    let text: String = text.lines().skip_while(|line| line.starts_with('#')).map(|line| format!("{line}\n")).collect();
    let (head, body) = text.split_once("\n\n").unwrap();
    format!("{}\r\nconnection: close\r\n\r\n{body}", head.replace('\n', "\r\n"))
}

async fn played(name: &str, api: Api, piece: usize) -> Vec<Result<Event, Error>> {
    use futures_util::StreamExt;
    use protocol::Generate;
    let server = Server::start([Reply { piece, ..Reply::new(&recorded(name)) }]).await;
    let card = protocol::ModelCard::new("m");
    let models = vec![Offer { card, upstream: "m".to_owned() }];
    let config = Config { models, retry: Retry::NEVER, ..Config::new("recorded", &server.url, api) };
    let mut request = request();
    request.stop.strings = vec!["\n\n".to_owned(), "END".to_owned()];
    let upstream = Upstream::new(config).unwrap();
    match upstream.generate(request).await {
        Ok(events) => events.collect().await,
        Err(error) => vec![Err(error)],
    }
}

fn shown(events: &[Result<Event, Error>]) -> String {
    let line = |event: &Result<Event, Error>| match event {
        Ok(event) => format!("{event:?}\n"),
        Err(error) => format!("{error:?}\n"),
    };
    events.iter().map(line).collect()
}

#[tokio::test]
async fn recordings_are_understood() {
    let mut names: Vec<String> = std::fs::read_dir(FOLDER)
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.strip_suffix(".http").map(str::to_owned))
        .collect();
    names.sort();
    assert!(names.len() >= 15, "{names:?}");
    for name in names {
        let api = if name.starts_with("anthropic") { Api::Anthropic } else { Api::OpenAi };
        let whole = played(&name, api, usize::MAX).await;
        expect_file![format!("{FOLDER}/{name}.events")].assert_eq(&shown(&whole));
        for piece in [1, 7] {
            assert_eq!(played(&name, api, piece).await, whole, "{name} in pieces of {piece}");
        }
    }
}
