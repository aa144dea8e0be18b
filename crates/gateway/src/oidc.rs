//! Tokens of an identity provider: signature by its published keys, then issuer, audience and time, then who that is here.
//!
//! The keys are fetched when the first token needs them, again when they are old, and at once when a token names a key that is not
//! among them, which is how providers rotate. One fetch is under way at most, and fetches begin at least ten seconds apart, whatever
//! tokens say. Only who needs a key that is not known waits for one: while the provider is slow, silent or away, the keys known so far
//! go on being used.

mod signature;

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use jsonwebtoken::{
    Algorithm, DecodingKey, Validation, decode, decode_header,
    jwk::{Jwk, JwkSet},
};
use parking_lot::Mutex;
use protocol::{Error, ErrorKind};
use serde_json::{Map, Value};
use tokio::time::{Instant, timeout};

use crate::{Caller, Role, settings::Oidc};

/// Fetches begin at least this far apart.
const APART: Duration = Duration::from_secs(10);
/// How long a fetch may take; less than [`APART`], so that two never run at a time.
const PATIENCE: Duration = Duration::from_secs(5);
/// Only signatures that the provider alone can make.
const ALGORITHMS: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

/// An identity provider.
#[derive(Debug)]
pub(crate) struct Provider {
    settings: Arc<Oidc>,
    client: reqwest::Client,
    keys: Arc<ArcSwapOption<Keys>>,
    /// The newest fetch, and when it began.
    fetch: Mutex<Option<(Instant, Shared<BoxFuture<'static, ()>>)>>,
}

#[derive(Debug)]
struct Keys {
    set: JwkSet,
    fetched: Instant,
}

/// What a fetch takes along; it goes on when the request that began it is gone.
struct Source {
    settings: Arc<Oidc>,
    client: reqwest::Client,
}

impl Provider {
    pub(crate) fn new(settings: Oidc) -> Result<Self, String> {
        crate::tls::install();
        // Fails if it is installed already.
        let _ = signature::PROVIDER.install_default();
        let client = reqwest::Client::builder().build().map_err(|error| error.to_string())?;
        Ok(Self { settings: Arc::new(settings), client, keys: Arc::default(), fetch: Mutex::default() })
    }

    /// Who the token is about.
    pub(crate) async fn caller(&self, token: &str) -> Result<Caller, Error> {
        let header = decode_header(token).map_err(invalid)?;
        if !ALGORITHMS.contains(&header.alg) {
            return Err(invalid(format!("tokens signed with {:?} are not accepted", header.alg)));
        }
        let key = self.key(header.kid.as_deref()).await?;
        let mut validation = Validation::new(header.alg);
        validation.set_issuer(&[&self.settings.issuer]);
        validation.set_audience(&[&self.settings.audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation.validate_nbf = true;
        validation.leeway = 30;
        let claims = decode::<Map<String, Value>>(token, &key, &validation).map_err(invalid)?.claims;
        self.mapped(&claims)
    }

    fn mapped(&self, claims: &Map<String, Value>) -> Result<Caller, Error> {
        let named = |value: Option<&Value>| value.and_then(Value::as_str).filter(|s| !s.is_empty()).map(str::to_owned);
        let tenant = named(find(claims, &self.settings.tenant_claim)).ok_or_else(|| {
            let message = format!("The token names no tenant: its claim `{}` is missing.", self.settings.tenant_claim);
            Error::new(ErrorKind::Forbidden, message).with_code("no_tenant")
        })?;
        let role =
            find(claims, &self.settings.role_claim).and_then(|value| self.strongest(value)).ok_or_else(|| {
                let message = format!("The token's claim `{}` names no role known here.", self.settings.role_claim);
                Error::new(ErrorKind::Forbidden, message).with_code("no_role")
            })?;
        let key_id = named(claims.get("sub")).ok_or_else(|| invalid("it names nobody (`sub`)"))?;
        Ok(Caller { tenant, key_id, role, models: None, grant: None })
    }

    /// Of a role, or a list of them.
    fn strongest(&self, value: &Value) -> Option<Role> {
        let words = value.as_str().map(|text| text.split_whitespace().collect());
        let words: Vec<&str> =
            words.unwrap_or_else(|| value.as_array().into_iter().flatten().filter_map(Value::as_str).collect());
        let roles: Vec<Role> = words.iter().filter_map(|word| self.settings.roles.get(*word)).copied().collect();
        [Role::Admin, Role::User, Role::Auditor].into_iter().find(|role| roles.contains(role))
    }

    async fn key(&self, id: Option<&str>) -> Result<DecodingKey, Error> {
        let known = self.keys.load_full();
        let old = known.as_ref().is_none_or(|keys| keys.fetched.elapsed() >= self.settings.refresh.0);
        let mut found = known.and_then(|keys| chosen(&keys.set, id).cloned());
        if old || found.is_none() {
            let fetch = self.fetched();
            if found.is_none() {
                fetch.await;
                let keys = self.keys.load_full().ok_or_else(|| {
                    Error::new(ErrorKind::Upstream, "The identity provider's keys cannot be fetched; try again later.")
                })?;
                found = chosen(&keys.set, id).cloned();
            }
        }
        let jwk = found.ok_or_else(|| invalid("its key is not one of the issuer's"))?;
        DecodingKey::from_jwk(&jwk).map_err(invalid)
    }

    /// A fetch that is under way or was a moment ago, or else a new one.
    #[expect(
        clippy::disallowed_methods,
        reason = "it ends by itself, after `PATIENCE` at the latest, and touches nothing else"
    )]
    fn fetched(&self) -> Shared<BoxFuture<'static, ()>> {
        let mut newest = self.fetch.lock();
        if let Some((began, fetch)) = &*newest
            && began.elapsed() < APART
        {
            return fetch.clone();
        }
        let source = Source { settings: self.settings.clone(), client: self.client.clone() };
        let task = tokio::spawn(source.renew(self.keys.clone()));
        let fetch = task.map(drop).boxed().shared();
        *newest = Some((Instant::now(), fetch.clone()));
        fetch
    }
}

impl Source {
    async fn renew(self, keys: Arc<ArcSwapOption<Keys>>) {
        let fetched = timeout(PATIENCE, self.fetch()).await;
        match fetched.unwrap_or_else(|_| Err(format!("no answer within {} s", PATIENCE.as_secs()))) {
            Ok(set) => keys.store(Some(Arc::new(Keys { set, fetched: Instant::now() }))),
            Err(error) => tracing::warn!(%error, issuer = %self.settings.issuer, "cannot fetch the issuer's keys"),
        }
    }

    async fn fetch(&self) -> Result<JwkSet, String> {
        let Oidc { issuer, jwks, .. } = &*self.settings;
        if jwks.is_empty() {
            let address = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
            let about: Value = self.get(&address).await?;
            let address = about["jwks_uri"].as_str().ok_or_else(|| format!("{address} names no jwks_uri"))?;
            return self.get(address).await;
        }
        if jwks.starts_with("http://") || jwks.starts_with("https://") {
            return self.get(jwks).await;
        }
        let text = std::fs::read(jwks).map_err(|error| format!("{jwks}: {error}"))?;
        serde_json::from_slice(&text).map_err(|error| format!("{jwks}: {error}"))
    }

    async fn get<T: serde::de::DeserializeOwned>(&self, address: &str) -> Result<T, String> {
        let said = |error: reqwest::Error| error.to_string();
        let response = self.client.get(address).send().await.map_err(said)?.error_for_status().map_err(said)?;
        let bytes = response.bytes().await.map_err(said)?;
        serde_json::from_slice(&bytes).map_err(|error| format!("{address}: {error}"))
    }
}

/// The key a token names; a token that names none may only mean the only one.
fn chosen<'a>(set: &'a JwkSet, id: Option<&str>) -> Option<&'a Jwk> {
    match (id, &set.keys[..]) {
        (Some(id), _) => set.find(id),
        (None, [only]) => Some(only),
        (None, _) => None,
    }
}

/// A claim by its name, or by a path with dots into objects.
fn find<'a>(claims: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    claims.get(path).or_else(|| {
        let mut parts = path.split('.');
        let first = claims.get(parts.next()?)?;
        parts.try_fold(first, |value, part| value.get(part))
    })
}

fn invalid(why: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Unauthenticated, format!("The token is not valid: {why}.")).with_code("invalid_token")
}
