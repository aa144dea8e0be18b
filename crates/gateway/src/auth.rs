//! Who asks. One layer in front of every route finds out and leaves a [`Caller`] among the request's extensions.
//!
//! A key comes as `Authorization: Bearer ..` (OpenAI's clients), as `x-api-key` (Anthropic's) or as the console's cookie; a
//! token of the identity provider comes as a bearer. Until the first key exists nobody is asked, and only this machine can
//! connect; from then on every route but the health probes and the console's pages demands one. Keys are looked up in memory,
//! so authentication goes on while the database is away.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use arc_swap::ArcSwapOption;
use axum::{
    Extension,
    extract::{Request, State},
    http::{HeaderMap, Method, Uri, header},
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

    /// Whom a secret stands for, on a route that is public or not; with the rights that the tenant's settings leave them now.
    pub(crate) async fn caller(&self, secret: Option<&str>, public: bool) -> Result<Arc<Caller>, Error> {
        let caller = self.found(secret, public).await?;
        let in_force = self.live.get();
        Ok(match in_force.settings.tenants.get(&caller.tenant) {
            Some(tenant) => caller.within(&tenant.models),
            None => caller,
        })
    }

    async fn found(&self, secret: Option<&str>, public: bool) -> Result<Arc<Caller>, Error> {
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
    if let Some(error) = under_a_foreign_name(&app, &request) {
        return Refusal::from(error).into_response();
    }
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

/// That a page of ours sent this. Where nobody is asked for a key, the name in the address must also be this machine's: a
/// stranger's name may be made to lead here.
pub(crate) fn from_here(headers: &HeaderMap, open: bool) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let host = text(header::HOST.as_str()).unwrap_or_default();
    let same = match (text("sec-fetch-site"), text(header::ORIGIN.as_str())) {
        (Some(site), _) => site == "same-origin",
        (None, Some(origin)) => {
            origin.parse::<Uri>().ok().and_then(|uri| uri.authority().map(|a| a.as_str() == host)).unwrap_or(false)
        }
        // No browser: it sends neither, and no browser's cookies either.
        (None, None) => true,
    };
    same && (!open || host.is_empty() || of_this_machine(name(host)))
}

/// A page of a stranger's site whose name is made to lead here (DNS rebinding) counts as ours to the browser. Only the name
/// tells it from ours, so while nobody is asked for a key, what comes under a foreign name is refused.
fn under_a_foreign_name(app: &App, request: &Request) -> Option<Error> {
    // Gateways prove that they know the workers' secret, under whatever name they reach a worker.
    let proven = request.uri().path().starts_with("/internal/v1/");
    if proven || !app.gateway.public || app.auth.demanded() {
        return None;
    }
    let in_force = app.gateway.settings.get();
    let bound = name(&in_force.settings.server.listen);
    let header = request.headers().get_all(header::HOST).iter().map(|host| host.to_str().unwrap_or("?"));
    let mut hosts = header.chain(request.uri().authority().map(|authority| authority.as_str()));
    let foreign = hosts.find(|host| !of_this_machine(name(host)) && !name(host).eq_ignore_ascii_case(bound))?;
    let message = format!(
        "While no key is demanded, only this machine's own names are answered, and {foreign:?} is none of them: use \
         http://127.0.0.1 or http://localhost, or make a key first (`tessera keys create`)."
    );
    Some(Error::new(ErrorKind::Forbidden, message).with_code("foreign_host"))
}

/// The name or address of `host:port`.
fn name(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

fn of_this_machine(name: &str) -> bool {
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    address.map_or_else(|_| name.eq_ignore_ascii_case("localhost"), |address| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn names_of_this_machine() {
        let check = |host: &str, own| assert_eq!(of_this_machine(name(host)), own, "{host}");
        for host in
            ["localhost", "LOCALHOST:80", "127.0.0.1:8080", "127.8.8.8", "[::1]", "[::1]:8080", "[::ffff:127.0.0.1]:1"]
        {
            check(host, true);
        }
        for host in [
            "evil.example:18080",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "10.0.0.1",
            "0.0.0.0",
            "",
            "[::]",
        ] {
            check(host, false);
        }
    }

    #[test]
    fn only_pages_of_ours_change_anything() {
        let check = |headers: &[(&str, &str)], open, fine| {
            let pairs = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
            let headers: HeaderMap = pairs.collect::<Vec<(header::HeaderName, HeaderValue)>>().into_iter().collect();
            assert_eq!(from_here(&headers, open), fine, "{headers:?} {open}");
        };
        let local = ("host", "127.0.0.1:8080");
        check(&[local, ("sec-fetch-site", "same-origin")], true, true);
        check(&[local, ("sec-fetch-site", "cross-site")], true, false);
        check(&[local, ("sec-fetch-site", "same-site")], false, false);
        check(&[local, ("origin", "http://127.0.0.1:8080")], true, true);
        check(&[local, ("origin", "http://127.0.0.1:9090")], true, false);
        check(&[local, ("origin", "null")], true, false);
        check(&[local], true, true);
        check(&[("host", "rebound.example:8080"), ("sec-fetch-site", "same-origin")], true, false);
        check(&[("host", "tessera.example"), ("sec-fetch-site", "same-origin")], false, true);
    }
}
