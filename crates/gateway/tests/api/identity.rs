//! Tokens of an identity provider that runs on loopback, TLS with certificates that change, spans that reach a collector.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{Json, Router, body::Body, extract::State, http::Request, routing::get};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use futures_util::future::join_all;
use gateway::{
    Gateway, Protection,
    settings::{Live, Settings, Tls},
};
use jsonwebtoken::get_current_timestamp;
use parking_lot::Mutex;
use ring::{
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PSS_SHA256,
        RsaEncoding, RsaKeyPair, RsaPublicKeyComponents,
    },
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::oneshot, task::JoinSet, time::timeout};

use crate::{fake::Fake, send, sockets::until, text};

/// The issuer's keys: one for every kind of signature.
enum Signer {
    P256(EcdsaKeyPair),
    Rsa(RsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl Signer {
    fn new(kind: &str) -> Self {
        let pem = |text: &str| {
            STANDARD.decode(text.lines().filter(|line| !line.starts_with('-')).collect::<String>()).unwrap()
        };
        match kind {
            "rsa" => Self::Rsa(RsaKeyPair::from_pkcs8(&pem(include_str!("../data/issuer.rsa.pem"))).unwrap()),
            "ed25519" => Self::Ed25519(Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap()),
            _ => {
                let key = pem(include_str!("../data/issuer.pem"));
                let random = SystemRandom::new();
                Self::P256(EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &key, &random).unwrap())
            }
        }
    }

    fn jwk(&self, kid: &str) -> Value {
        let b64 = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        match self {
            Self::P256(pair) => {
                let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
                json!({ "kty": "EC", "crv": "P-256", "kid": kid, "x": b64(x), "y": b64(y) })
            }
            Self::Rsa(pair) => {
                let RsaPublicKeyComponents { n, e } = RsaPublicKeyComponents::<Vec<u8>>::from(pair.public());
                json!({ "kty": "RSA", "kid": kid, "n": b64(&n), "e": b64(&e) })
            }
            Self::Ed25519(pair) => {
                json!({ "kty": "OKP", "crv": "Ed25519", "kid": kid, "x": b64(pair.public_key().as_ref()) })
            }
        }
    }

    fn token(&self, algorithm: &str, kid: &str, claims: &Value) -> String {
        let b64 = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let said = format!("{}.{}", b64(&json!({ "alg": algorithm, "typ": "JWT", "kid": kid })), b64(claims));
        let (message, random) = (said.as_bytes(), SystemRandom::new());
        let signature = match self {
            Self::P256(pair) => pair.sign(&random, message).unwrap().as_ref().to_vec(),
            Self::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
            Self::Rsa(pair) => {
                let padding: &dyn RsaEncoding = if algorithm == "PS256" { &RSA_PSS_SHA256 } else { &RSA_PKCS1_SHA256 };
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(padding, &random, message, &mut signature).unwrap();
                signature
            }
        };
        format!("{said}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// An identity provider: its metadata, its keys under the name they have now, how often it was asked for them, whether it answers.
struct Issuer {
    url: String,
    kid: Arc<Mutex<String>>,
    fetched: Arc<AtomicUsize>,
    silent: Arc<AtomicBool>,
    _task: JoinSet<()>,
}

async fn issuer() -> Issuer {
    let (kid, fetched) = (Arc::new(Mutex::new("one".to_owned())), Arc::new(AtomicUsize::new(0)));
    let silent = Arc::new(AtomicBool::new(false));
    let mute = silent.clone();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let about = json!({ "issuer": url, "jwks_uri": format!("{url}/keys") });
    let keys = async move |State((kid, fetched)): State<(Arc<Mutex<String>>, Arc<AtomicUsize>)>| {
        fetched.fetch_add(1, Ordering::SeqCst);
        if mute.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        let own = Signer::new("p256").jwk(&kid.lock());
        Json(json!({ "keys": [own, Signer::new("rsa").jwk("rsa"), Signer::new("ed25519").jwk("ed25519")] }))
    };
    let app = Router::new()
        .route("/.well-known/openid-configuration", get(async move || Json(about)))
        .route("/keys", get(keys))
        .with_state((kid.clone(), fetched.clone()));
    let mut task = JoinSet::new();
    task.spawn(async move { axum::serve(listener, app).await.unwrap() });
    Issuer { url, kid, fetched, silent, _task: task }
}

fn app(issuer: &Issuer) -> Router {
    let settings = format!(
        "[auth.oidc]\nissuer = \"{}\"\naudience = \"tessera\"\nrole_claim = \"realm.roles\"\n\
         roles = {{ staff = \"user\", boss = \"admin\" }}\n[tenants.narrow]\nmodels = [\"hf:owner/raw\"]\n",
        issuer.url
    );
    let live = Live::new(Settings::parse(&settings).unwrap());
    gateway::router(Gateway { settings: live, ..Fake::parrot().gateway() })
}

fn token(kid: &str, claims: &Value) -> String {
    Signer::new("p256").token("ES256", kid, claims)
}

async fn status(app: &Router, token: &str) -> (u16, String) {
    let request = Request::get("/v1/models").header("authorization", format!("Bearer {token}"));
    let response = send(app, request.body(Body::empty()).unwrap()).await;
    let status = response.status().as_u16();
    (status, text(response).await)
}

#[tokio::test]
async fn tokens_of_the_issuer_are_believed_and_no_others() {
    let issuer = issuer().await;
    let app = app(&issuer);
    let now = get_current_timestamp();
    let good = json!({
        "iss": issuer.url, "aud": "tessera", "sub": "ada", "exp": now + 600,
        "tenant": "acme", "realm": { "roles": ["other", "staff"] },
    });
    let changed = |key: &str, value: Value| {
        let mut claims = good.clone();
        claims[key] = value;
        token("one", &claims)
    };
    let check = async |token: String, expected: u16, word: &str| {
        let (status, body) = status(&app, &token).await;
        assert!(status == expected && body.contains(word), "{status} {body}");
    };
    check(token("one", &good), 200, "talker").await;
    check(changed("exp", json!(now - 600)), 401, "invalid_token").await;
    check(changed("iss", json!("http://elsewhere")), 401, "invalid_token").await;
    check(changed("aud", json!("others")), 401, "invalid_token").await;
    check(changed("nbf", json!(now + 600)), 401, "invalid_token").await;
    check(changed("realm", json!({ "roles": ["other"] })), 403, "no_role").await;
    check(changed("tenant", json!("")), 403, "no_tenant").await;
    let (_, narrow) = status(&app, &changed("tenant", json!("narrow"))).await;
    assert!(
        narrow.contains("hf:owner/raw") && !narrow.contains("talker"),
        "a tenant's list holds for tokens: {narrow}"
    );
    check(token("two", &good), 401, "not one of the issuer's").await;
    let mut forged = token("one", &good);
    forged.replace_range(forged.len() - 4.., "AAAA");
    check(forged, 401, "invalid_token").await;
    check(Signer::new("p256").token("HS256", "one", &good), 401, "not accepted").await;
    for (key, algorithm) in [("rsa", "RS256"), ("rsa", "PS256"), ("ed25519", "EdDSA")] {
        let token = Signer::new(key).token(algorithm, key, &good);
        check(token.clone(), 200, "talker").await;
        check(token.replacen('.', ".e", 1), 401, "invalid_token").await;
    }
    // Another kind of signature than the key's.
    check(Signer::new("rsa").token("RS256", "ed25519", &good), 401, "invalid_token").await;
    check("none".to_owned(), 401, "invalid_api_key").await;
    assert_eq!(issuer.fetched.load(Ordering::SeqCst), 1, "keys are kept");
}

/// A provider rotates its keys: the new one is fetched when a token names it, though not at once for every unknown name.
#[tokio::test]
async fn rotated_keys_are_fetched() {
    let issuer = issuer().await;
    let app = app(&issuer);
    let claims = json!({
        "iss": issuer.url, "aud": "tessera", "sub": "ada", "exp": get_current_timestamp() + 600,
        "tenant": "acme", "realm": { "roles": "boss" },
    });
    assert_eq!(status(&app, &token("one", &claims)).await.0, 200);
    "two".clone_into(&mut issuer.kid.lock());
    assert_eq!(status(&app, &token("two", &claims)).await.0, 401);
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(11)).await;
    tokio::time::resume();
    assert_eq!(status(&app, &token("two", &claims)).await.0, 200);
    assert_eq!(status(&app, &token("one", &claims)).await.0, 401);
}

/// A provider that takes questions and never answers: known keys are believed at once, and of unknown ones it hears once.
#[tokio::test]
async fn a_silent_provider_keeps_nobody_with_a_known_key_waiting() {
    let issuer = issuer().await;
    let app = app(&issuer);
    let claims = json!({
        "iss": issuer.url, "aud": "tessera", "sub": "ada", "exp": get_current_timestamp() + 36_000,
        "tenant": "acme", "realm": { "roles": "boss" },
    });
    let (known, unknown) = (token("one", &claims), token("two", &claims));
    assert_eq!(status(&app, &known).await.0, 200);
    issuer.silent.store(true, Ordering::SeqCst);
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(3600)).await;
    tokio::time::resume();
    let known = join_all((0..8).map(|_| status(&app, &known)));
    let unknown = join_all((0..8).map(|_| status(&app, &unknown)));
    let (believed, refused) =
        tokio::join!(timeout(Duration::from_secs(3), known), timeout(Duration::from_secs(9), unknown));
    assert!(believed.expect("known keys are believed at once").iter().all(|(status, _)| *status == 200));
    assert!(refused.expect("all wait for one fetch").iter().all(|(status, _)| *status == 401));
    assert_eq!(issuer.fetched.load(Ordering::SeqCst), 2, "one fetch for all of them");
}

/// HTTPS with TCP_NODELAY under it; a slow handshake keeps nobody waiting; the listener may be reached from elsewhere.
#[tokio::test]
async fn https_is_spoken() {
    let data = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data");
    let tls = Tls { certificate: format!("{data}/tls.crt").into(), key: format!("{data}/tls.key").into() };
    let open = Protection { keys: true, tls: tls.clone(), plain_remote: false };
    gateway::bind_protected("0.0.0.0:0", &open).await.unwrap();
    for (keys, tls, plain_remote) in [(true, Tls::default(), false), (false, tls.clone(), true)] {
        let protection = Protection { keys, tls, plain_remote };
        assert!(matches!(gateway::bind_protected("0.0.0.0:0", &protection).await, Err(gateway::Error::Exposed { .. })));
    }
    let listener = gateway::bind_protected("127.0.0.1:0", &open).await.unwrap();
    let address = listener.local_addr();
    assert_eq!(listener.scheme(), "https");
    let (_stop, stopped) = oneshot::channel::<()>();
    let mut task = JoinSet::new();
    let shutdown = async { stopped.await.unwrap_or(()) };
    task.spawn(gateway::serve(listener, Fake::parrot().gateway(), shutdown));
    let _silent = tokio::net::TcpStream::connect(address).await.unwrap();
    let certificate = reqwest::Certificate::from_pem(&fs::read(&tls.certificate).unwrap()).unwrap();
    let client = reqwest::Client::builder().tls_certs_only([certificate]).build().unwrap();
    let ask = || client.get(format!("https://localhost:{}/healthz/live", address.port())).send();
    for answer in join_all((0..8).map(|_| ask())).await {
        assert_eq!(answer.unwrap().status().as_u16(), 200);
    }
}

#[tokio::test]
async fn spans_reach_a_collector_in_the_conventions_words() {
    let seen: Arc<Mutex<Vec<Value>>> = Arc::default();
    let collected = seen.clone();
    let take = async move |Json(body): Json<Value>| {
        collected.lock().push(body);
        Json(json!({}))
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1/traces", listener.local_addr().unwrap());
    let mut tasks = JoinSet::new();
    let collector = Router::new().route("/v1/traces", axum::routing::post(take));
    tasks.spawn(async move { axum::serve(listener, collector).await.unwrap() });
    let live = Live::new(Settings::parse(&format!("[tracing]\notlp = \"{url}\"\nservice = \"test\"\n")).unwrap());
    let listener = gateway::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr();
    let (_stop, stopped) = oneshot::channel::<()>();
    let mut server = JoinSet::new();
    let gateway = Gateway { settings: live, ..Fake::parrot().gateway() };
    server.spawn(gateway::serve(listener, gateway, async { stopped.await.unwrap_or(()) }));
    let _ = rustls::crypto::ring::default_provider().install_default();
    let body = r#"{"model":"talker","max_tokens":9,"messages":[{"role":"user","content":"secret words"}]}"#;
    let request = reqwest::Client::new().post(format!("http://{address}/v1/chat/completions"));
    let request = request.header("content-type", "application/json").body(body);
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    assert_eq!(request.header("traceparent", trace).send().await.unwrap().status().as_u16(), 200);
    until("a span arrives", || !seen.lock().is_empty()).await;
    let seen = seen.lock();
    let resource = &seen[0]["resourceSpans"][0];
    let span = &resource["scopeSpans"][0]["spans"][0];
    let attributes = &span["attributes"];
    let attribute = |name: &str| {
        let found = attributes.as_array().unwrap().iter().find(|attribute| attribute["key"] == name);
        found.map(|attribute| attribute["value"].clone()).unwrap_or_default()
    };
    assert_eq!(span["name"], "chat talker");
    assert_eq!(span["traceId"], "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(span["parentSpanId"], "b7ad6b7169203331");
    assert_eq!(attribute("gen_ai.operation.name")["stringValue"], "chat");
    assert_eq!(attribute("gen_ai.usage.input_tokens")["intValue"].to_string().trim_matches('"'), "3");
    assert_eq!(attribute("gen_ai.request.max_tokens")["intValue"].to_string().trim_matches('"'), "9");
    assert!(attribute("tessera.stage.auth_ms")["doubleValue"].is_number());
    assert!(resource["resource"].to_string().contains("\"test\""));
    assert!(!seen[0].to_string().contains("secret words"));
}
