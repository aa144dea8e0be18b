//! A model hub on the loopback: the API, redirects to a second origin that holds the bytes, and faults by script.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex},
};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;

/// The commit every branch stands at.
pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What the server holds and what goes wrong.
#[derive(Debug, Default)]
pub(crate) struct Script {
    pub(crate) files: Mutex<BTreeMap<String, Vec<u8>>>,
    /// The next answers of the storage end after so many bytes.
    pub(crate) cuts: Mutex<Vec<usize>>,
    /// The storage sends whole files whatever is asked.
    pub(crate) ignore_ranges: bool,
    /// The sum announced instead of the right one.
    pub(crate) announced: Option<String>,
    /// Who may read.
    pub(crate) token: Option<String>,
    /// Statuses of the next answers of the API.
    pub(crate) busy: Mutex<Vec<u16>>,
}

impl Script {
    pub(crate) fn file(self, path: &str, content: Vec<u8>) -> Self {
        self.files.lock().unwrap().insert(path.to_owned(), content);
        self
    }

    pub(crate) fn cuts(self, cuts: &[usize]) -> Self {
        *self.cuts.lock().unwrap() = cuts.iter().rev().copied().collect();
        self
    }
}

/// A request as the server saw it.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) at_storage: bool,
    pub(crate) range: Option<String>,
    pub(crate) authorization: Option<String>,
}

#[derive(Debug)]
struct Shared {
    script: Script,
    seen: Mutex<Vec<Seen>>,
    storage: String,
}

#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) endpoint: String,
    shared: Arc<Shared>,
}

impl Server {
    pub(crate) async fn start(script: Script) -> Self {
        let (api, storage) =
            (TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap());
        let address = |l: &TcpListener| format!("http://{}", l.local_addr().unwrap());
        let (endpoint, storage_address) = (address(&api), address(&storage));
        let shared = Arc::new(Shared { script, seen: Mutex::default(), storage: storage_address });
        let api_routes = Router::new()
            .route("/api/models/{owner}/{repo}/revision/{revision}", get(describe))
            .route("/{owner}/{repo}/resolve/{revision}/{*path}", get(resolve))
            .with_state(shared.clone());
        let storage_routes = Router::new().route("/blob/{*path}", get(blob)).with_state(shared.clone());
        for (listener, routes) in [(api, api_routes), (storage, storage_routes)] {
            #[expect(clippy::disallowed_methods, reason = "the server lives as long as the test's runtime")]
            tokio::spawn(async move { axum::serve(listener, routes).await });
        }
        Self { endpoint, shared }
    }

    pub(crate) fn requests(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// The ranges asked of the storage.
    pub(crate) fn ranges(&self) -> Vec<Option<String>> {
        self.requests().into_iter().filter(|r| r.at_storage).map(|r| r.range).collect()
    }

    pub(crate) fn replace(&self, path: &str, content: Vec<u8>) {
        self.shared.script.files.lock().unwrap().insert(path.to_owned(), content);
    }
}

impl Shared {
    fn note(&self, headers: &HeaderMap, at_storage: bool) {
        let text = |name| headers.get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
        let seen = Seen { at_storage, range: text(header::RANGE), authorization: text(header::AUTHORIZATION) };
        self.seen.lock().unwrap().push(seen);
    }

    fn refusal(&self, headers: &HeaderMap) -> Option<StatusCode> {
        if let Some(status) = self.script.busy.lock().unwrap().pop() {
            return StatusCode::from_u16(status).ok();
        }
        let token = self.script.token.as_ref()?;
        match headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()) {
            None => Some(StatusCode::UNAUTHORIZED),
            Some(given) if given == format!("Bearer {token}") => None,
            Some(_) => Some(StatusCode::FORBIDDEN),
        }
    }

    fn content(&self, path: &str) -> Option<Vec<u8>> {
        self.script.files.lock().unwrap().get(path).cloned()
    }

    fn sum(&self, content: &[u8]) -> String {
        let right = Sha256::digest(content).iter().map(|b| format!("{b:02x}")).collect();
        self.script.announced.clone().unwrap_or(right)
    }

    /// Large files have their sum in the API, small ones do not: as on the real hub.
    fn sibling(&self, path: &str, content: &[u8]) -> Value {
        let mut sibling = json!({ "rfilename": path, "size": content.len(), "blobId": "b" });
        if !path.ends_with(".json") {
            sibling["lfs"] = json!({ "sha256": self.sum(content), "size": content.len() });
        }
        sibling
    }
}

type Hub = State<Arc<Shared>>;

async fn describe(
    State(hub): Hub,
    Path((_, repo, revision)): Path<(String, String, String)>,
    headers: HeaderMap,
) -> Response {
    hub.note(&headers, false);
    if let Some(status) = hub.refusal(&headers) {
        return status.into_response();
    }
    if repo != "repo" || revision != "main" {
        return StatusCode::NOT_FOUND.into_response();
    }
    let files = hub.script.files.lock().unwrap().clone();
    let siblings: Vec<_> = files.iter().map(|(path, content)| hub.sibling(path, content)).collect();
    Json(json!({ "sha": COMMIT, "siblings": siblings, "tags": ["gguf", "license:apache-2.0"] })).into_response()
}

async fn resolve(
    State(hub): Hub,
    Path((_, _, revision, path)): Path<(String, String, String, String)>,
    headers: HeaderMap,
) -> Response {
    hub.note(&headers, false);
    if let Some(status) = hub.refusal(&headers) {
        return status.into_response();
    }
    let Some(content) = hub.content(&path).filter(|_| revision == COMMIT) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    if path.ends_with(".json") {
        return ([(header::ETAG, "\"b\"")], content).into_response();
    }
    let location = format!("{}/blob/{path}?signature=secret", hub.storage);
    let linked =
        [("x-linked-etag", format!("\"{}\"", hub.sum(&content))), ("x-linked-size", content.len().to_string())];
    (StatusCode::FOUND, linked, [(header::LOCATION, location)]).into_response()
}

async fn blob(State(hub): Hub, Path(path): Path<String>, headers: HeaderMap) -> Response {
    hub.note(&headers, true);
    let Some(content) = hub.content(&path) else { return StatusCode::NOT_FOUND.into_response() };
    let total = content.len();
    let range = headers.get(header::RANGE).filter(|_| !hub.script.ignore_ranges);
    let start = range.and_then(|r| r.to_str().ok()?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
    let status = if start.is_some() { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
    let start: usize = start.unwrap_or(0);
    if start >= total {
        let range = [(header::CONTENT_RANGE, format!("bytes */{total}"))];
        return (StatusCode::RANGE_NOT_SATISFIABLE, range).into_response();
    }
    let cut = hub.script.cuts.lock().unwrap().pop().unwrap_or(usize::MAX);
    let mut response = Response::new(body(&content[start..], cut));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_LENGTH, (total - start).into());
    headers.insert(header::ETAG, "\"of the storage\"".parse().unwrap());
    if status == StatusCode::PARTIAL_CONTENT {
        headers.insert(header::CONTENT_RANGE, format!("bytes {start}-{}/{total}", total - 1).parse().unwrap());
    }
    response
}

/// The bytes in small pieces; the connection dies after `cut` of them.
fn body(content: &[u8], cut: usize) -> Body {
    let whole = cut >= content.len();
    let sent = &content[..cut.min(content.len())];
    let mut pieces: Vec<Result<Bytes, io::Error>> =
        sent.chunks(16_384).map(|c| Ok(Bytes::copy_from_slice(c))).collect();
    if !whole {
        pieces.push(Err(io::Error::other("cut")));
    }
    // A pause before the cut lets the bytes in front of it leave the machine.
    let slow = futures_util::StreamExt::then(futures_util::stream::iter(pieces), |piece| async {
        if piece.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        piece
    });
    Body::from_stream(slow)
}
