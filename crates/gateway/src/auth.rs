//! Who asks. One layer in front of every route finds out and leaves a [`Caller`] among the request's extensions.
//!
//! A key comes as `Authorization: Bearer ..` (OpenAI's clients), as `x-api-key` (Anthropic's) or as the console's cookie; a
//! token of the identity provider comes as a bearer. Until the first key exists nobody is asked, and only this machine can
//! connect; from then on every route but the health probes and the console's pages demands one. Keys are looked up in memory,
//! so authentication goes on while the database is away.

use std::{collections::HashMap, sync::Arc};

use arc_swap::ArcSwapOption;
use axum::{
    Extension,
    extract::{Request, State},
    http::{HeaderMap, Method, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use parking_lot::Mutex;
use protocol::{Error, ErrorKind};

use crate::{
    Caller,
    app::App,
    journey::{Journey, Stage},
    oidc::Provider,
    refusal::Refusal,
    settings::{Live, Settings},
    traces::Parent,
};

/// The console's cookie. Whoever sets it makes it `HttpOnly` and `SameSite=Strict`, and `Secure` under TLS.
pub(crate) const COOKIE: &str = "tessera_key";

/// A key of the ledger, and whom it makes of its bearer.
type Known = (Arc<ledger::ApiKey>, Arc<Caller>);

/// What finding out takes.
#[derive(Debug)]
pub(crate) struct Auth {
    keys: Option<ledger::Keys>,
    live: Arc<Live>,
    provider: Arc<ArcSwapOption<Provider>>,
    /// Callers of keys seen before, so that a request costs no copy of a key's grant.
    known: Mutex<HashMap<String, Known>>,
}

impl Auth {
    pub(crate) fn new(keys: Option<ledger::Keys>, live: Arc<Live>) -> Self {
        let provider = Arc::new(ArcSwapOption::empty());
        match made(&live.get().settings) {
            Ok(first) => provider.store(first),
            Err(error) => tracing::error!(%error, "no tokens are accepted"),
        }
        let followed = provider.clone();
        live.follow(move |settings| {
            let (next, followed) = (made(settings)?, followed.clone());
            Ok(Box::new(move || followed.store(next)))
        });
        Self { keys, live, provider, known: Mutex::default() }
    }

    /// Whether a caller must say who they are.
    pub(crate) fn demanded(&self) -> bool {
        let settings = &self.live.get().settings.auth;
        settings.required || !settings.oidc.issuer.is_empty() || self.keys.as_ref().is_some_and(ledger::Keys::exist)
    }

    /// Whom a secret stands for, on a route that is public or not.
    pub(crate) async fn caller(&self, secret: Option<&str>, public: bool) -> Result<Arc<Caller>, Error> {
        if let Some(secret) = secret.filter(|secret| secret.starts_with(ledger::PREFIX)) {
            if let Some(caller) = self.by_key(secret) {
                return Ok(caller);
            }
            return Err(unknown("The API key is not known here, was revoked or is past its time."));
        }
        if let (Some(token), Some(provider)) = (secret.filter(|s| s.split('.').count() == 3), self.provider.load_full())
        {
            return provider.caller(token).await.map(Arc::new);
        }
        match (self.demanded(), public, secret) {
            (false, ..) => Ok(Arc::new(Caller::open())),
            (true, true, _) => Ok(Arc::new(Caller::nobody())),
            (true, false, None) => {
                Err(unknown("No API key: send the header `Authorization: Bearer KEY`.").with_code("missing_api_key"))
            }
            (true, false, Some(_)) => Err(unknown("The API key is not one of this server's.")),
        }
    }

    fn by_key(&self, secret: &str) -> Option<Arc<Caller>> {
        let key = self.keys.as_ref()?.find(secret)?;
        let mut known = self.known.lock();
        if let Some((_, caller)) = known.get(&key.id).filter(|(seen, _)| Arc::ptr_eq(seen, &key)) {
            return Some(caller.clone());
        }
        let caller = Arc::new(Caller::of_key(&key));
        known.insert(key.id.clone(), (key, caller.clone()));
        Some(caller)
    }
}

fn made(settings: &Settings) -> Result<Option<Arc<Provider>>, String> {
    let oidc = &settings.auth.oidc;
    if oidc.issuer.is_empty() {
        return Ok(None);
    }
    Provider::new(oidc.clone()).map(Arc::new).map(Some)
}

/// Names the caller, or refuses.
pub(crate) async fn identify(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let traceparent = request.headers().get("traceparent").and_then(|value| value.to_str().ok());
    let journey = Journey::start(Parent::read(traceparent));
    let public = public(request.uri().path());
    let named = match credential(request.headers(), request.method()) {
        Ok(secret) => app.auth.caller(secret, public).await,
        Err(error) => Err(error),
    };
    let named = match named {
        // A browser goes on sending a key that was revoked; pages meet it as a stranger.
        Err(_) if public => app.auth.caller(None, true).await,
        named => named,
    };
    match named {
        Ok(caller) => drop(request.extensions_mut().insert(caller)),
        Err(error) => return Refusal::from(error).into_response(),
    }
    journey.lap(Stage::Auth);
    request.extensions_mut().insert(journey.clone());
    let mut response = next.run(request).await;
    journey.limits(response.headers_mut());
    response
}

/// Lets only those through who may read records.
pub(crate) async fn auditors(Extension(caller): Extension<Arc<Caller>>, request: Request, next: Next) -> Response {
    match caller.may_audit() {
        Ok(()) => next.run(request).await,
        Err(error) => Refusal::from(error).into_response(),
    }
}

/// What says who asks.
fn credential<'a>(headers: &'a HeaderMap, method: &Method) -> Result<Option<&'a str>, Error> {
    let text = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(value) = text(header::AUTHORIZATION) {
        let bearer = value.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        let (_, secret) = bearer.ok_or_else(|| unknown("The header Authorization must be `Bearer KEY`."))?;
        return Ok(Some(secret.trim()));
    }
    if let Some(secret) = text(header::HeaderName::from_static("x-api-key")) {
        return Ok(Some(secret));
    }
    let pairs = text(header::COOKIE).into_iter().flat_map(|cookies| cookies.split(';'));
    let cookie = pairs.filter_map(|pair| pair.trim().split_once('=')).find(|(name, _)| *name == COOKIE);
    // A browser sends cookies by itself: what changes something must come from a page of ours.
    let foreign = text(header::HeaderName::from_static("sec-fetch-site"))
        .is_some_and(|site| site != "same-origin" && site != "none");
    Ok(cookie.map(|(_, secret)| secret).filter(|_| !foreign || method == Method::GET))
}

/// Routes that answer everybody: probes, and the pages of the console, which ask for a key themselves.
fn public(path: &str) -> bool {
    path == "/"
        || path.starts_with("/healthz")
        || path.starts_with("/console")
        || path == "/openapi.json"
        || path.starts_with("/internal/v1/")
}

fn unknown(message: &str) -> Error {
    Error::new(ErrorKind::Unauthenticated, message).with_code("invalid_api_key")
}
