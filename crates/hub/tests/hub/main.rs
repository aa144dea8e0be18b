//! Pulls against a loopback server that speaks the model hub's API, a pip that is a script, and (ignored) the real pip.

#![expect(clippy::unwrap_used, reason = "a test's shared functions may panic")]

mod packages;
mod server;

use std::{
    fs,
    path::PathBuf,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use hub::{Entry, Error, Hub, Name, Options, Retry, Token};
use server::{Script, Server};

/// A cache of its own for every test.
fn options(endpoint: &str) -> Options {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let unique = format!("tessera-hub-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let cache = std::env::temp_dir().join(unique);
    let _ = fs::remove_dir_all(&cache);
    let retry = Retry { attempts: 3, first_wait: Duration::from_millis(1), silence: Duration::from_secs(5) };
    Options { cache, endpoint: endpoint.to_owned(), token: None, python: "python3".into(), retry }
}

async fn pull(options: &Options, name: &str) -> Result<Entry, Error> {
    Hub::new(options.clone()).pull(&Name::parse(name)?, &|_| ()).await
}

/// The bytes that the entry's files hold, in order.
fn bytes(entry: &Entry) -> Vec<u8> {
    let one = |file: &hub::StoredFile| {
        let path = if entry.path.is_dir() { entry.path.join(&file.path) } else { entry.path.clone() };
        fs::read(path).unwrap()
    };
    entry.files.iter().flat_map(one).collect()
}

fn blob(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 % 251) as u8).collect()
}

fn part_file(options: &Options, name: &str) -> PathBuf {
    let key = name.replace([':', '/'], "--");
    let file = name.rsplit('/').next().unwrap();
    options.cache.join("partial").join(key).join("files").join(format!("{file}.part"))
}

const NAME: &str = "hf:owner/repo/model.bin";

fn one_file(len: usize) -> Script {
    Script::default().file("model.bin", blob(len))
}

#[tokio::test]
async fn a_file_comes_through_a_redirect_is_checked_and_kept() {
    let server = Server::start(one_file(300_000)).await;
    let options = options(&server.endpoint);
    let seen = Mutex::new(Vec::new());
    let report = |p: hub::Progress<'_>| seen.lock().unwrap().push((p.stage, p.done, p.total));
    let name = Name::parse(NAME).unwrap();
    let hub = Hub::new(options.clone());
    let entry = hub.pull(&name, &report).await.unwrap();

    assert_eq!(bytes(&entry), blob(300_000));
    assert_eq!(entry.files[0].checked, "hub");
    assert_eq!((entry.licence.as_str(), entry.revision.as_deref()), ("apache-2.0", Some(server::COMMIT)));
    assert_eq!(seen.lock().unwrap().last().unwrap(), &(hub::Stage::Downloading, 300_000, Some(300_000)));
    assert!(!options.cache.join("partial/hf--owner--repo--model.bin").exists(), "nothing is left behind");
    assert_eq!(hub.list(), std::slice::from_ref(&entry));
    assert_eq!(hub.locate(&name), Some(entry.clone()));

    let requests = server.requests().len();
    assert_eq!(hub.pull(&name, &report).await.unwrap(), entry);
    assert_eq!(server.requests().len(), requests, "the second pull asks nobody");
}

#[tokio::test]
async fn a_cut_connection_is_continued_where_it_broke() {
    let server = Server::start(one_file(900_000).cuts(&[100_000, 250_000, 10])).await;
    let options = options(&server.endpoint);
    let entry = pull(&options, NAME).await.unwrap();
    assert_eq!(bytes(&entry), blob(900_000));
    let ranges = server.ranges();
    assert_eq!(ranges[0], None);
    assert!(ranges.len() >= 4 && ranges[1..].iter().all(Option::is_some), "{ranges:?}");
}

#[tokio::test]
async fn a_pull_that_gave_up_is_continued_by_the_next() {
    let server = Server::start(one_file(500_000).cuts(&[200_000, 0, 0, 0])).await;
    let options = options(&server.endpoint);
    let error = pull(&options, NAME).await.unwrap_err();
    assert!(matches!(error, Error::Network { kept: 1.., .. }), "{error}");
    assert!(error.to_string().contains("run the same command again to continue"), "{error}");
    assert!(!error.to_string().contains("signature"), "{error}");
    let kept = fs::metadata(part_file(&options, NAME)).unwrap().len();
    let before = server.requests().len();

    let entry = pull(&options, NAME).await.unwrap();
    assert_eq!(bytes(&entry), blob(500_000));
    let resumed = server.requests()[before..].iter().find_map(|r| r.range.clone());
    assert_eq!(resumed, Some(format!("bytes={kept}-")));
}

#[tokio::test]
async fn a_server_without_ranges_starts_again_and_still_ends_right() {
    let server = Server::start(Script { ignore_ranges: true, ..one_file(400_000).cuts(&[150_000]) }).await;
    assert_eq!(bytes(&pull(&options(&server.endpoint), NAME).await.unwrap()), blob(400_000));
}

#[tokio::test]
async fn a_file_that_changed_meanwhile_is_not_mixed_with_the_old_one() {
    let server = Server::start(one_file(400_000)).await;
    let options = options(&server.endpoint);
    let part = part_file(&options, NAME);
    fs::create_dir_all(part.parent().unwrap()).unwrap();
    fs::write(&part, vec![7; 100_000]).unwrap();
    fs::write(part.with_extension("part-of"), "etag of another file").unwrap();
    assert_eq!(bytes(&pull(&options, NAME).await.unwrap()), blob(400_000));
}

#[tokio::test]
async fn a_partial_longer_than_the_file_is_thrown_away() {
    let server = Server::start(one_file(1000)).await;
    let options = options(&server.endpoint);
    let part = part_file(&options, NAME);
    fs::create_dir_all(part.parent().unwrap()).unwrap();
    fs::write(&part, vec![7; 5000]).unwrap();
    assert_eq!(bytes(&pull(&options, NAME).await.unwrap()), blob(1000));
}

#[tokio::test]
async fn wrong_bytes_are_refused_and_deleted() {
    let server = Server::start(Script { announced: Some("ab".repeat(32)), ..one_file(1000) }).await;
    let options = options(&server.endpoint);
    let error = pull(&options, NAME).await.unwrap_err();
    assert!(matches!(&error, Error::Checksum { expected, .. } if *expected == "ab".repeat(32)), "{error}");
    assert!(error.to_string().contains("deleted"), "{error}");
    assert!(!part_file(&options, NAME).exists());
    assert_eq!(Hub::new(options).list(), []);
}

#[tokio::test]
async fn a_gated_repository_says_how_to_get_in() {
    let server = Server::start(Script { token: Some("hf_secret".to_owned()), ..one_file(1000) }).await;
    let mut options = options(&server.endpoint);
    let error = pull(&options, NAME).await.unwrap_err();
    assert!(matches!(error, Error::Access { status: 401, .. }), "{error}");
    assert!(error.to_string().contains("set HF_TOKEN"), "{error}");

    options.token = Some(Token::new("hf_wrong"));
    let error = pull(&options, NAME).await.unwrap_err();
    assert!(matches!(error, Error::Access { status: 403, .. }), "{error}");
    assert!(!error.to_string().contains("hf_wrong") && !format!("{options:?}{error:?}").contains("hf_wrong"));

    options.token = Some(Token::new("hf_secret\n"));
    assert_eq!(bytes(&pull(&options, NAME).await.unwrap()), blob(1000));
    let leaked = server.requests().into_iter().find(|r| r.at_storage && r.authorization.is_some());
    assert!(leaked.is_none(), "the token went to the storage host");
}

#[tokio::test]
async fn what_is_not_there_is_named() {
    let server = Server::start(one_file(1000)).await;
    let options = options(&server.endpoint);
    for (name, part) in [
        ("hf:owner/absent/x.bin", "check owner, name and revision `main`"),
        ("hf:owner/repo/absent.bin", "model.bin"),
        ("hf:owner/repo/model.bin@nowhere", "revision `nowhere`"),
    ] {
        let error = pull(&options, name).await.unwrap_err();
        assert!(matches!(error, Error::NotFound { .. }), "{name}: {error}");
        assert!(error.to_string().contains(part), "{name}: {error}");
    }
}

#[tokio::test]
async fn a_busy_server_is_asked_again() {
    let server = Server::start(Script { busy: Mutex::new(vec![503, 429]), ..one_file(1000) }).await;
    assert_eq!(bytes(&pull(&options(&server.endpoint), NAME).await.unwrap()), blob(1000));
}

#[tokio::test]
async fn a_dead_endpoint_ends_in_a_clear_error() {
    let error = pull(&options("http://127.0.0.1:9"), NAME).await.unwrap_err();
    assert!(matches!(error, Error::Network { .. }), "{error}");
    let error = pull(&options("not an address"), NAME).await.unwrap_err();
    assert!(error.to_string().contains("HF_ENDPOINT"), "{error}");
}

#[tokio::test]
async fn a_whole_model_comes_as_one_directory_and_continues_after_a_cut() {
    let script = Script::default()
        .file("config.json", b"{}".to_vec())
        .file("tokenizer.json", b"{\"t\":1}".to_vec())
        .file("model-00001-of-00002.safetensors", blob(100_000))
        .file("model-00002-of-00002.safetensors", blob(70_000))
        .file("pytorch_model.bin", blob(10));
    let server = Server::start(script.cuts(&[40_000, 0, 0, 0])).await;
    let options = options(&server.endpoint);
    let first = pull(&options, "hf:owner/repo").await.unwrap_err();
    assert!(matches!(first, Error::Network { .. }), "{first}");
    let entry = pull(&options, "hf:owner/repo").await.unwrap();
    assert!(entry.path.is_dir());
    let paths: Vec<_> = entry.files.iter().map(|f| f.path.as_str()).collect();
    let shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
    assert_eq!(paths, [&["config.json"], &shards[..], &["tokenizer.json"]].concat());
    assert_eq!(entry.size, 170_009);
}

#[tokio::test]
async fn a_sum_seen_first_is_pinned_until_it_is_forgotten() {
    let server = Server::start(one_file(1000)).await;
    let options = options(&server.endpoint);
    let (hub, name) = (Hub::new(options.clone()), Name::parse(NAME).unwrap());
    pull(&options, NAME).await.unwrap();
    hub.remove(&name).unwrap();
    server.replace("model.bin", blob(2000));
    let error = pull(&options, NAME).await.unwrap_err();
    assert!(matches!(error, Error::Changed { .. }), "{error}");
    assert!(error.to_string().contains("rm --forget hf:owner/repo/model.bin"), "{error}");
    hub.forget(&name).unwrap();
    assert_eq!(bytes(&pull(&options, NAME).await.unwrap()), blob(2000));
}

#[tokio::test]
async fn two_pulls_at_once_download_once() {
    let server = Server::start(one_file(200_000)).await;
    let options = options(&server.endpoint);
    let (a, b) = tokio::join!(pull(&options, NAME), pull(&options, NAME));
    assert_eq!(a.unwrap(), b.unwrap());
    assert_eq!(server.requests().iter().filter(|r| r.at_storage).count(), 1);
}

#[tokio::test]
async fn a_damaged_entry_is_pulled_again_and_removal_says_what_it_freed() {
    let server = Server::start(one_file(1000)).await;
    let options = options(&server.endpoint);
    let (hub, name) = (Hub::new(options.clone()), Name::parse(NAME).unwrap());
    let entry = pull(&options, NAME).await.unwrap();
    fs::write(&entry.path, b"cut").unwrap();
    assert_eq!(hub.locate(&name), None);
    assert_eq!(bytes(&pull(&options, NAME).await.unwrap()), blob(1000));
    assert!(hub.remove(&name).unwrap() >= 1000);
    assert!(matches!(hub.remove(&name), Err(Error::NotFound { .. })));
}

#[tokio::test]
async fn a_path_is_taken_as_it_is_and_never_deleted() {
    let options = options("http://127.0.0.1:9");
    let path = std::env::temp_dir().join(format!("tessera-path-{}.gguf", std::process::id()));
    fs::write(&path, b"GGUF").unwrap();
    let name = path.display().to_string();
    let entry = pull(&options, &name).await.unwrap();
    assert_eq!((entry.path.as_path(), entry.size), (path.as_path(), 4));
    assert!(Hub::new(options.clone()).remove(&Name::parse(&name).unwrap()).is_err() && path.exists());
    fs::remove_file(&path).unwrap();
    assert!(matches!(pull(&options, &name).await, Err(Error::NotFound { .. })));
}
