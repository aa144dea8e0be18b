//! The HTTP client of one server: addresses, the key, and what its refusals mean.

use std::{fmt, time::Duration};

use protocol::{Error, ErrorKind, openai};
use reqwest::{
    Client, Method, RequestBuilder, Response, StatusCode, Url,
    header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER},
};
use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Api, Config};
use crate::first;

/// The version of Anthropic's API that the wire types are written for.
const ANTHROPIC_VERSION: &str = "2023-06-01";
/// How much of a refusal is read.
const LONGEST_REFUSAL: usize = 64 << 10;
/// How much of a reply that is no stream is read, in bytes. The largest honest one, 2048 vectors of 3072 numbers, has some 80 MiB.
const LONGEST_REPLY: usize = 128 << 20;
/// Keys of fewer characters are placeholders of servers that want none, and would be found in any words.
const SHORTEST_KEY: usize = 4;

/// The key that a server is asked with, to be kept out of what it says.
#[derive(Clone)]
pub(super) struct Key(Option<SecretString>);

impl Key {
    /// The error without the key: servers and what stands before them quote headers in their refusals, and those go to callers.
    pub(super) fn hidden(&self, mut error: Error) -> Error {
        let Some(key) = self.0.as_ref().map(|key| key.expose_secret()).filter(|key| key.len() >= SHORTEST_KEY) else {
            return error;
        };
        let hide = |text: &mut String| {
            if text.contains(key) {
                *text = text.replace(key, "[key]");
            }
        };
        hide(&mut error.message);
        error.param.as_mut().map(hide);
        if error.code.as_ref().is_some_and(|code| code.contains(key)) {
            error.code = None;
        }
        error
    }
}

/// A client of one server. It does not print its key.
pub(super) struct Http {
    client: Client,
    base: Url,
    first_byte: Option<Duration>,
    pub(super) key: Key,
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http").field("base", &self.base.as_str()).finish_non_exhaustive()
    }
}

impl Http {
    pub(super) fn new(config: &Config) -> Result<Self, Error> {
        // An error means that one is installed already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .default_headers(headers(config)?)
            .connect_timeout(config.connect)
            .tcp_nodelay(true)
            // A redirect would take the key and the conversation to a server that nobody named.
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("tessera/", env!("CARGO_PKG_VERSION")))
            .build();
        let client = client.map_err(|e| wrong(config, &e.to_string()))?;
        Ok(Self { client, base: base(config)?, first_byte: config.first_byte, key: Key(config.key.clone()) })
    }

    /// The response to a request for a stream; its status says that it goes well.
    pub(super) async fn post(&self, place: &str, body: &Value, id: &str) -> Result<Response, Error> {
        let request = self.request(Method::POST, place)?;
        // OpenAI's header for what a client calls a request. Some servers refuse an `x-request-id` that is no UUID.
        let request = if id.is_empty() { request } else { request.header("x-client-request-id", id) };
        self.send(request.header(CONTENT_TYPE, "application/json").body(body.to_string())).await
    }

    /// The whole reply to a request.
    pub(super) async fn exchange<T: DeserializeOwned>(&self, place: &str, body: &Value) -> Result<T, Error> {
        first::within(self.first_byte, async { whole(self.post(place, body, "").await?).await }).await
    }

    pub(super) async fn get<T: DeserializeOwned>(&self, place: &str) -> Result<T, Error> {
        let request = self.request(Method::GET, place)?;
        first::within(self.first_byte, async { whole(self.send(request).await?).await }).await
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, Error> {
        let response = request.send().await.map_err(|e| broken(&e))?;
        if response.status().is_success() { Ok(response) } else { Err(self.key.hidden(refused(response).await)) }
    }

    fn request(&self, method: Method, place: &str) -> Result<RequestBuilder, Error> {
        let url = self.base.join(place).map_err(Error::internal)?;
        Ok(self.client.request(method, url))
    }
}

/// The address that places are joined to: it ends in a slash.
fn base(config: &Config) -> Result<Url, Error> {
    let mut url = Url::parse(&config.url).map_err(|e| wrong(config, &e.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(wrong(config, "it must begin with http:// or https://"));
    }
    let path = match url.path().trim_end_matches('/') {
        "" => "/v1/".to_owned(),
        path => format!("{path}/"),
    };
    url.set_path(&path);
    Ok(url)
}

fn wrong(config: &Config, why: &str) -> Error {
    let message = format!("The address `{}` of the upstream {} cannot be used: {why}.", config.url, config.name);
    Error::new(ErrorKind::Invalid, message).with_param("url")
}

fn headers(config: &Config) -> Result<HeaderMap, Error> {
    let mut headers = HeaderMap::new();
    let key = |name: &'static str, prefix: &str, key: &SecretString| {
        let mut value = HeaderValue::from_str(&format!("{prefix}{}", key.expose_secret()))
            .map_err(|_| wrong(config, "its key has characters that no header can carry"))?;
        value.set_sensitive(true);
        Ok::<_, Error>((HeaderName::from_static(name), value))
    };
    match (config.api, &config.key) {
        (_, None) => {}
        (Api::OpenAi, Some(secret)) => headers.extend([key("authorization", "Bearer ", secret)?]),
        (Api::Anthropic, Some(secret)) => headers.extend([key("x-api-key", "", secret)?]),
    }
    if config.api == Api::Anthropic {
        headers.insert("anthropic-version", HeaderValue::from_static(ANTHROPIC_VERSION));
    }
    Ok(headers)
}

async fn whole<T: DeserializeOwned>(response: Response) -> Result<T, Error> {
    let bytes = bounded(response, LONGEST_REPLY).await?;
    serde_json::from_slice(&bytes)
        .map_err(|e| Error::new(ErrorKind::Upstream, format!("The upstream sent a reply that is not understood: {e}.")))
}

/// The body, unless it is longer than `most` bytes: nothing beyond is read, and nothing at all of a body that says so in front.
async fn bounded(mut response: Response, most: usize) -> Result<Vec<u8>, Error> {
    let long = || {
        let message = format!("The upstream sent a reply of more than {} MiB, which is not read.", most >> 20);
        Error::new(ErrorKind::Upstream, message).with_code("reply_too_long")
    };
    if response.content_length().is_some_and(|length| length > most as u64) {
        return Err(long());
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|e| broken(&e))? {
        if body.len() + chunk.len() > most {
            return Err(long());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// A failure of the connection, told down to its cause. The address is left out: it may be a secret of the network's.
pub(super) fn broken(error: &reqwest::Error) -> Error {
    let mut why = String::new();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        why = format!("{why}: {error}");
        cause = error.source();
    }
    let what = if error.is_connect() { "cannot be reached" } else { "broke the connection" };
    Error::new(ErrorKind::Upstream, format!("The upstream {what}{why}."))
}

/// What a refusal means. Its words are passed on; that it does not take our key, or does not know the model that our settings
/// name, is a fault of ours, for which the caller can do nothing and another service may stand in.
async fn refused(mut response: Response) -> Error {
    let status = response.status();
    let retry_after = retry_after(response.headers());
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        body.extend_from_slice(&chunk);
        if body.len() > LONGEST_REFUSAL {
            break;
        }
    }
    let said = serde_json::from_slice::<Value>(&body).unwrap_or_default();
    let mut error = meaning(status, &said);
    error.retry_after = retry_after;
    error
}

fn meaning(status: StatusCode, said: &Value) -> Error {
    let inner = said.get("error").filter(|error| !error.is_null()).unwrap_or(said);
    if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        // Its words may spell out part of our key, and are about nothing that the caller did.
        let message = format!("The upstream answers {status}: the key that this server asks it with is not accepted.");
        return Error::new(ErrorKind::Upstream, message).with_code("upstream_key");
    }
    let told = inner.is_string() || inner.get("message").is_some_and(Value::is_string);
    let mut error = openai::error_of(inner);
    let quota = error.code.as_deref() == Some("insufficient_quota");
    if error.kind != ErrorKind::Blocked && !quota {
        error.kind = openai::kind_of_status(status.as_u16().into());
    }
    if !told {
        error.message = format!("The upstream answers {status}.");
    } else if error.kind == ErrorKind::Upstream {
        error.message = format!("The upstream answers {status}: {}", error.message);
    }
    if error.kind == ErrorKind::Invalid && too_long(&error.message) {
        error.code = Some("context_length_exceeded".into());
    }
    error
}

/// vLLM and Anthropic have no word for programs, only sentences.
fn too_long(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    ["maximum context length", "prompt is too long", "context window"].iter().any(|words| message.contains(words))
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let number = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse::<f64>().ok().filter(|n| *n >= 0.0);
    let milliseconds = number("retry-after-ms").map(|ms| ms / 1000.0);
    let seconds = milliseconds.or_else(|| number(RETRY_AFTER.as_str()))?;
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use bytes::Bytes;
    use futures_util::stream;
    use http_body_util::StreamBody;
    use hyper::body::Frame;
    use serde_json::json;

    use super::*;

    #[test]
    fn addresses() {
        let check = |url: &str, expected: &str| {
            let base = base(&Config::new("x", url, Api::OpenAi)).map(|base| base.join("models").unwrap().to_string());
            assert_eq!(base.ok().as_deref(), Some(expected).filter(|e| !e.is_empty()), "{url}");
        };
        check("http://127.0.0.1:8080", "http://127.0.0.1:8080/v1/models");
        check("http://127.0.0.1:8080/", "http://127.0.0.1:8080/v1/models");
        check("http://host/v1/", "http://host/v1/models");
        check("https://host/api/v1beta/openai", "https://host/api/v1beta/openai/models");
        check("ftp://host", "");
        check("host:80", "");
    }

    #[test]
    fn keys_are_not_printed() {
        let key = Some(SecretString::from("sk-secret"));
        for api in [Api::OpenAi, Api::Anthropic] {
            let config = Config { key: key.clone(), ..Config::new("x", "http://h", api) };
            let upstream = super::super::Upstream::new(config.clone()).unwrap();
            let printed = format!("{config:?} {upstream:?} {:?}", headers(&config).unwrap());
            assert!(!printed.contains("sk-secret"), "{printed}");
        }
    }

    #[test]
    fn keys_are_taken_out_of_what_upstreams_say() {
        let check = |key: &str, said: &str, told: &str| {
            let error = Error::new(ErrorKind::Invalid, said).with_param(said).with_code(said.to_owned());
            let error = Key(Some(key.into())).hidden(error);
            assert_eq!((&*error.message, error.param.as_deref()), (told, Some(told)));
            assert_eq!(error.code.as_deref(), Some(said).filter(|_| said == told), "a code is a word for programs");
        };
        check("sk-secret", "Bad header `Bearer sk-secret` (sk-secret)", "Bad header `Bearer [key]` ([key])");
        check("sk-secret", "no such model", "no such model");
        check("x", "the maximum is exceeded", "the maximum is exceeded");
    }

    /// The length is said in front, and it is not.
    #[tokio::test]
    async fn replies_have_a_longest_length() {
        let check = async |body: reqwest::Body, most: usize, expected: Result<usize, Option<&str>>| {
            let response = Response::from(hyper::Response::new(body));
            let read = bounded(response, most).await.map(|body| body.len());
            assert_eq!(read.as_ref().map_err(|error| error.code.as_deref()).copied(), expected);
        };
        let said = || reqwest::Body::from(vec![b' '; 9]);
        let unsaid = || {
            let pieces = [4, 5].map(|n| Ok::<_, Infallible>(Frame::data(Bytes::from(vec![b' '; n]))));
            reqwest::Body::wrap(StreamBody::new(stream::iter(pieces)))
        };
        for body in [said, unsaid] as [fn() -> reqwest::Body; 2] {
            check(body(), 9, Ok(9)).await;
            check(body(), 8, Err(Some("reply_too_long"))).await;
        }
    }

    #[test]
    fn refusals_have_a_meaning() {
        let check = |status: u16, said: Value, kind: ErrorKind, code: Option<&str>, words: &str| {
            let error = meaning(StatusCode::from_u16(status).unwrap(), &said);
            assert_eq!((error.kind, error.code.as_deref()), (kind, code), "{status} {said}");
            assert!(error.message.contains(words), "{error}");
        };
        let openai = |code: Value| json!({"error": {"message": "words", "type": "x", "param": "p", "code": code}});
        let long = Some("context_length_exceeded");
        check(400, openai(json!("context_length_exceeded")), ErrorKind::Invalid, long, "words");
        check(401, openai(json!("invalid_api_key")), ErrorKind::Upstream, Some("upstream_key"), "401");
        check(404, openai(json!("model_not_found")), ErrorKind::Upstream, Some("model_not_found"), "words");
        check(429, openai(json!("insufficient_quota")), ErrorKind::Upstream, Some("insufficient_quota"), "words");
        check(400, openai(json!("content_filter")), ErrorKind::Blocked, Some("content_filter"), "words");
        let vllm = "This model's maximum context length is 4096 tokens. However, you requested 5000";
        let body = json!({"error": {"message": vllm, "type": "BadRequestError", "param": null, "code": 400}});
        check(400, body, ErrorKind::Invalid, long, "4096");
        let anthropic = |kind: &str, words: &str| json!({"type": "error", "error": {"type": kind, "message": words}});
        let words = "prompt is too long: 9 tokens > 8 maximum";
        check(400, anthropic("invalid_request_error", words), ErrorKind::Invalid, long, words);
        check(529, anthropic("overloaded_error", "Overloaded"), ErrorKind::Overloaded, None, "Overloaded");
        check(502, Value::Null, ErrorKind::Upstream, None, "502");
        check(500, json!({"detail": "x"}), ErrorKind::Upstream, None, "500");
        check(503, json!({"error": "plain"}), ErrorKind::Overloaded, None, "plain");
    }

    #[test]
    fn waits_are_read() {
        let check = |name: &'static str, value: &str, expected: Option<u64>| {
            let headers =
                HeaderMap::from_iter([(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())]);
            assert_eq!(retry_after(&headers), expected.map(Duration::from_millis), "{name}: {value}");
        };
        check("retry-after", "2", Some(2000));
        check("retry-after", "0.5", Some(500));
        check("retry-after-ms", "30", Some(30));
        check("retry-after", "-1", None);
        check("retry-after", "Wed, 21 Oct 2026 07:28:00 GMT", None);
    }
}
