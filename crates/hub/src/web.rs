//! The HTTP side of the model hub: who sees the token, how a cut download goes on, when to give up.
//!
//! *Redirects* are followed by hand. The hub answers a file request with a redirect to a storage host, and only that first
//! answer carries what is needed to check the file (`x-linked-etag`, the sha256). Following by hand also settles who sees
//! the token: the hub's own origin, never the host it redirects to.
//!
//! *Resuming.* A request for the rest of a file says which byte comes first. The answer is used only if it starts there and
//! speaks of the same file (same entity tag) as the bytes on disk; otherwise the file starts again. A connection that gave
//! bytes before it failed resets the count of attempts, so a slow line with many cuts still ends.

use std::{fmt, fs, path::PathBuf, time::Duration};

use reqwest::{
    Client, Response, StatusCode, Url,
    header::{
        ACCEPT_ENCODING, AUTHORIZATION, CONTENT_RANGE, ETAG, HeaderMap, HeaderValue, LOCATION, RANGE, RETRY_AFTER,
    },
    redirect,
};

use crate::{Error, partial::Partial};

const MAX_REDIRECTS: usize = 10;
/// A server that asks for more patience than this gets a clear error instead.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// A secret that no log and no error shows.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    /// Wraps it.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into().trim().to_owned())
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// How often and how patiently a failing connection is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// Failures in a row, without a byte between them, before giving up.
    pub attempts: u32,
    /// Wait after the first failure; doubled after each further one.
    pub first_wait: Duration,
    /// A connection that is silent this long has failed.
    pub silence: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self { attempts: 6, first_wait: Duration::from_millis(500), silence: Duration::from_secs(30) }
    }
}

/// Makes ring the provider of TLS in this process, which every HTTP client needs before it is built. Calling it again is
/// harmless.
pub fn install_tls() {
    // An error means that a provider is installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// A client of one model hub.
pub(crate) struct Web {
    client: Client,
    endpoint: Url,
    token: Option<Token>,
    retry: Retry,
}

/// A file to download.
#[derive(Debug, Clone)]
pub(crate) struct Remote {
    pub(crate) url: Url,
    pub(crate) size: Option<u64>,
}

/// What the server said about the file in all answers on the way to its bytes.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Identity {
    /// Entity tag of the content: a sha256 for large files of the hub.
    etag: Option<String>,
    size: Option<u64>,
}

struct Answer {
    response: Response,
    identity: Identity,
}

/// Why an attempt ended without the whole file.
enum Failure {
    /// Trying again may help, after this wait if the server named one.
    Passing(String, Option<Duration>),
    Final(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Final(error)
    }
}

impl Web {
    pub(crate) fn new(endpoint: &str, token: Option<Token>, retry: Retry) -> Result<Self, Error> {
        install_tls();
        let bad = |reason: String| Error::Name { name: endpoint.to_owned(), reason };
        let endpoint = Url::parse(endpoint).ok().filter(|url| url.host().is_some() && !url.cannot_be_a_base());
        let endpoint = endpoint.ok_or_else(|| bad("HF_ENDPOINT must be an address such as https://host".to_owned()))?;
        let client = Client::builder()
            .redirect(redirect::Policy::none())
            .connect_timeout(Duration::from_secs(15))
            .read_timeout(retry.silence)
            .user_agent(concat!("tessera/", env!("CARGO_PKG_VERSION")))
            .build();
        let client = client.map_err(|e| bad(format!("the HTTP client does not start: {e}")))?;
        Ok(Self { client, endpoint, token, retry })
    }

    /// An address of the hub. Each piece is one segment: a `/` in it is escaped.
    pub(crate) fn address<'a>(&self, pieces: impl IntoIterator<Item = &'a str>) -> Url {
        let mut url = self.endpoint.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(pieces);
        }
        url
    }

    /// The body of a small answer, tried again while that may help.
    pub(crate) async fn get(&self, url: &Url) -> Result<Vec<u8>, Error> {
        let mut failures = 0;
        loop {
            match self.try_get(url).await {
                Ok(body) => return Ok(body),
                Err(failure) => self.wait(url, failure, &mut failures, 0).await?,
            }
        }
    }

    /// Fills `partial` to the end. Returns the sha256 that the hub announced, if it did.
    pub(crate) async fn download(
        &self,
        remote: &Remote,
        partial: &mut Partial,
        mut progress: impl FnMut(u64),
    ) -> Result<Option<String>, Error> {
        let mut failures = 0;
        loop {
            let before = partial.len();
            match self.try_download(remote, partial, &mut progress).await {
                Ok(identity) => return Ok(identity.etag.filter(|etag| crate::name::is_sha256(etag))),
                Err(failure) => {
                    if partial.len() > before {
                        failures = 0;
                    }
                    self.wait(&remote.url, failure, &mut failures, partial.len()).await?;
                }
            }
        }
    }

    async fn try_get(&self, url: &Url) -> Result<Vec<u8>, Failure> {
        let answer = self.send(url, 0).await?;
        check_status(&answer.response, url)?;
        let body = answer.response.bytes().await.map_err(passing)?;
        Ok(body.into())
    }

    async fn try_download(
        &self,
        remote: &Remote,
        partial: &mut Partial,
        progress: &mut impl FnMut(u64),
    ) -> Result<Identity, Failure> {
        let mut answer = self.send(&remote.url, partial.len()).await?;
        let status = answer.response.status();
        let same = same_file(partial, &answer.identity);
        let total = total_of(&answer).or(remote.size);
        match status {
            StatusCode::RANGE_NOT_SATISFIABLE if same && total == Some(partial.len()) => return Ok(answer.identity),
            StatusCode::PARTIAL_CONTENT if same && range_start(&answer.response) == Some(partial.len()) => {}
            StatusCode::OK => partial.restart()?,
            StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE => {
                partial.restart()?;
                remember(partial, None)?;
                return Err(Failure::Passing(
                    "the file changed meanwhile: starting again".to_owned(),
                    Some(Duration::ZERO),
                ));
            }
            _ => return Err(check_status(&answer.response, &remote.url).err().unwrap_or_else(|| odd(status))),
        }
        remember(partial, answer.identity.etag.as_deref())?;
        progress(partial.len());
        while let Some(chunk) = answer.response.chunk().await.map_err(passing)? {
            partial.write(&chunk).map_err(|e| with_missing(e, total, partial.len()))?;
            progress(partial.len());
        }
        match total {
            Some(total) if partial.len() < total => Err(Failure::Passing("the connection was cut".to_owned(), None)),
            _ => Ok(answer.identity),
        }
    }

    /// Follows redirects to the bytes from `start` on, gathering what each answer says about the file.
    async fn send(&self, url: &Url, start: u64) -> Result<Answer, Failure> {
        let (mut url, mut identity) = (url.clone(), Identity::default());
        for _ in 0..MAX_REDIRECTS {
            let mut request = self.client.get(url.clone()).header(ACCEPT_ENCODING, "identity");
            if start > 0 {
                request = request.header(RANGE, format!("bytes={start}-"));
            }
            if let Some(secret) = self.secret_for(&url) {
                request = request.header(AUTHORIZATION, secret);
            }
            let response = request.send().await.map_err(passing)?;
            identity.learn(response.headers(), response.status());
            let target = response.headers().get(LOCATION).filter(|_| response.status().is_redirection());
            let Some(target) = target.and_then(|t| t.to_str().ok()) else {
                return Ok(Answer { response, identity });
            };
            url = next_hop(&url, target)?;
        }
        Err(Failure::Final(network(&url, "too many redirects", 0)))
    }

    /// The token, for addresses of the hub itself.
    fn secret_for(&self, url: &Url) -> Option<HeaderValue> {
        let token = self.token.as_ref().filter(|_| url.origin() == self.endpoint.origin())?;
        let mut value = HeaderValue::from_str(&format!("Bearer {}", token.0)).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    /// Waits before the next attempt, or gives up.
    async fn wait(&self, url: &Url, failure: Failure, failures: &mut u32, kept: u64) -> Result<(), Error> {
        let (reason, asked) = match failure {
            Failure::Final(Error::Network { url, reason, .. }) => return Err(Error::Network { url, reason, kept }),
            Failure::Final(error) => return Err(error),
            Failure::Passing(reason, asked) => (reason, asked),
        };
        *failures += 1;
        let wait = asked.unwrap_or_else(|| self.retry.first_wait * (1 << (*failures - 1).min(6)));
        if *failures >= self.retry.attempts || wait > LONGEST_WAIT {
            return Err(network(url, &reason, kept));
        }
        tracing::warn!(reason, attempt = *failures, "download interrupted, trying again");
        tokio::time::sleep(wait).await;
        Ok(())
    }
}

impl Identity {
    /// The first answer that names the content wins: the hub's word goes before the storage's.
    fn learn(&mut self, headers: &HeaderMap, status: StatusCode) {
        let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok());
        let linked = text("x-linked-etag");
        let etag = linked.or_else(|| text(ETAG.as_str()).filter(|_| status.is_success()));
        let etag = etag.map(|tag| tag.trim_start_matches("W/").trim_matches('"').to_owned());
        self.etag = self.etag.take().or(etag);
        self.size = self.size.or_else(|| text("x-linked-size")?.parse().ok());
    }
}

/// An address without its query, which may hold a signature.
fn bare(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.to_string()
}

fn network(url: &Url, reason: &str, kept: u64) -> Error {
    Error::Network { url: bare(url), reason: reason.to_owned(), kept }
}

/// A failure of the connection, told by its innermost cause and without the address.
#[expect(clippy::needless_pass_by_value, reason = "the shape map_err takes")]
fn passing(error: reqwest::Error) -> Failure {
    let mut cause: &dyn std::error::Error = &error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    let reason = if error.is_timeout() { "no answer in time".to_owned() } else { cause.to_string() };
    Failure::Passing(reason, None)
}

fn odd(status: StatusCode) -> Failure {
    Failure::Passing(format!("unexpected HTTP status {status}"), None)
}

fn next_hop(url: &Url, target: &str) -> Result<Url, Failure> {
    let next = url.join(target).map_err(|e| Failure::Final(network(url, &format!("bad redirect: {e}"), 0)))?;
    if url.scheme() == "https" && next.scheme() != "https" {
        return Err(Failure::Final(network(url, "redirect from https to an unencrypted address refused", 0)));
    }
    Ok(next)
}

/// Sorts an unsuccessful status into the errors that have a next step. The caller adds what it knows to 401, 403 and 404.
fn check_status(response: &Response, url: &Url) -> Result<(), Failure> {
    let status = response.status();
    match status.as_u16() {
        200..=299 => Ok(()),
        401 | 403 => {
            let (repo, hint) = (bare(url), String::new());
            Err(Failure::Final(Error::Access { repo, status: status.as_u16(), hint }))
        }
        404 => Err(Failure::Final(Error::NotFound { what: bare(url), hint: String::new() })),
        408 | 429 | 500..=599 => {
            let wait = response.headers().get(RETRY_AFTER).and_then(|v| v.to_str().ok()?.parse().ok());
            Err(Failure::Passing(format!("HTTP status {status}"), wait.map(Duration::from_secs)))
        }
        _ => Err(Failure::Final(network(url, &format!("unexpected HTTP status {status}"), 0))),
    }
}

/// `bytes 100-199/200`: the first number.
fn range_start(response: &Response) -> Option<u64> {
    content_range(response)?.split_once('-')?.0.parse().ok()
}

/// The size of the whole file, from whichever header says it.
fn total_of(answer: &Answer) -> Option<u64> {
    let of_range = content_range(&answer.response).and_then(|range| range.rsplit_once('/')?.1.parse().ok());
    let of_body = answer.response.content_length().filter(|_| answer.response.status() == StatusCode::OK);
    of_range.or(answer.identity.size).or(of_body)
}

fn content_range(response: &Response) -> Option<&str> {
    response.headers().get(CONTENT_RANGE)?.to_str().ok()?.strip_prefix("bytes ")
}

/// The note beside a partial file: the entity tag of what its bytes belong to.
fn note(partial: &Partial) -> PathBuf {
    partial.path().with_extension("part-of")
}

fn remember(partial: &Partial, etag: Option<&str>) -> Result<(), Error> {
    let path = note(partial);
    fs::write(&path, etag.unwrap_or_default()).map_err(|e| Error::io(&path, e))
}

/// The bytes on disk belong to the file the server speaks of. Without a tag on either side the final sum decides.
fn same_file(partial: &Partial, identity: &Identity) -> bool {
    let noted = fs::read_to_string(note(partial)).unwrap_or_default();
    identity.etag.as_ref().is_none_or(|etag| noted.is_empty() || *etag == noted)
}

fn with_missing(error: Error, total: Option<u64>, have: u64) -> Error {
    match error {
        Error::DiskFull { path, .. } => Error::disk_full(&path, total.map(|total| total.saturating_sub(have))),
        other => other,
    }
}
