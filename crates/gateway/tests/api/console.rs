//! The console's pages as they are sent. What a browser makes of them is tested in `tests/console`.

use std::{sync::Arc, time::Duration};

use axum::{Router, body::Body, http::Request};
use gateway::{
    Gateway, Peer, PeerKind, Protection, Services,
    settings::{Api, Live, Settings, Tls, Watch},
};
use protocol::{Error, ErrorKind, Generate, GenerateRequest, Prompt, TextOrTokens};
use services::{Breaker, Trip};
use tokio::task::JoinSet;

use crate::{fake::Fake, send, text};

async fn page(app: &Router, path: &str, language: &str) -> String {
    let request = Request::get(path).header("accept", "text/html").header("accept-language", language);
    text(send(app, request.body(Body::empty()).unwrap()).await).await
}

#[tokio::test]
async fn a_refused_file_is_shown_by_line_until_it_is_mended() {
    let path = std::env::temp_dir().join(format!("tessera-console-{}.toml", std::process::id()));
    let live = Live::new(Settings::default());
    let watch = Watch::new(path.clone(), live.clone(), |_| {});
    let app = gateway::router(Gateway { settings: live, ..Fake::parrot().gateway() });
    std::fs::write(&path, "[limits]\n\nrequests_per_minute = \"many\"\n").unwrap();
    watch.reload();
    let shown = page(&app, "/console/settings", "en").await;
    assert!(shown.contains("refused") && shown.contains("line 3:"), "{shown}");
    assert!(page(&app, "/console/settings", "zh").await.contains("第 3 行"));
    std::fs::write(&path, "[limits]\nrequests_per_minute = 9\n").unwrap();
    watch.reload();
    std::fs::write(&path, "[server]\nmax_body = \"1MiB\"\n").unwrap();
    watch.reload();
    assert!(page(&app, "/console/settings", "en").await.contains("[server] cannot change while the server runs"));
    std::fs::write(&path, "[limits]\nrequests_per_minute = 9\n").unwrap();
    watch.reload();
    let shown = page(&app, "/console/settings", "en").await;
    assert!(shown.contains("applied") && !shown.contains("class=\"failure\""), "{shown}");
    std::fs::remove_file(&path).unwrap();
}

fn peer(kind: PeerKind, url: &str, offers: Services) -> Peer {
    Peer { name: "north".to_owned(), url: url.to_owned(), kind, offers }
}

#[tokio::test]
async fn those_elsewhere_are_listed_without_their_secrets_and_with_their_breaker() {
    let broken = Fake::refusing(Error::new(ErrorKind::Upstream, "it is down"));
    let pause = Duration::from_millis(200);
    let breaker = Arc::new(Breaker::new(Arc::new(broken), Trip { failures: 1, pause, ..Trip::default() }));
    let upstream = Services { generate: vec![breaker.clone()], ..Services::default() };
    let worker = Services { generate: vec![Arc::new(Fake::parrot())], ..Services::default() };
    let peers = vec![
        peer(PeerKind::Upstream(Api::OpenAi), "https://ada:secret@gpu-1:8000/v1?key=secret", upstream),
        peer(PeerKind::Worker, "http://10.0.0.2:9090", worker),
    ];
    let app = gateway::router(Fake::parrot().gateway_of(Services { peers, ..Services::default() }));
    let shown = page(&app, "/console/models", "en").await;
    for word in ["https://gpu-1:8000/v1<", "http://10.0.0.2:9090", "north", "talker", "closed", "another Tessera"] {
        assert!(shown.contains(word), "{word}: {shown}");
    }
    assert!(!shown.contains("secret"), "{shown}");
    let request = GenerateRequest::new(Prompt::Raw(TextOrTokens::Text("hello".to_owned())), 4);
    assert!(breaker.generate(request).await.is_err());
    let shown = page(&app, "/console/models", "en").await;
    assert!(shown.contains("asked again in") && shown.contains("not ready"), "{shown}");
    assert!(page(&app, "/console/models", "zh").await.contains("秒后重试"));
    tokio::time::sleep(pause).await;
    assert!(page(&app, "/console/models", "en").await.contains("half open"));
    assert!(page(&app, "/console/models", "zh").await.contains("半开"));
}

/// Signing out sets the cookie as signing in does.
#[tokio::test]
async fn the_cookie_never_leaves_tls_where_there_is_tls() {
    let app = Fake::parrot().router();
    let request = Request::post("/console/sign-out").header("host", "localhost:8080");
    let response = send(&app, request.body(Body::empty()).unwrap()).await;
    let cookie = response.headers()["set-cookie"].to_str().unwrap();
    assert!(cookie.ends_with("; SameSite=Strict; HttpOnly"), "{cookie}");

    let data = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data");
    let tls = Tls { certificate: format!("{data}/tls.crt").into(), key: format!("{data}/tls.key").into() };
    let protection = Protection { tls: tls.clone(), ..Protection::default() };
    let listener = gateway::bind_protected("127.0.0.1:0", &protection).await.unwrap();
    let url = format!("https://localhost:{}/console/sign-out", listener.local_addr().port());
    let mut task = JoinSet::new();
    task.spawn(gateway::serve(listener, Fake::parrot().gateway(), std::future::pending()));
    let certificate = reqwest::Certificate::from_pem(&std::fs::read(&tls.certificate).unwrap()).unwrap();
    let stay = reqwest::redirect::Policy::none();
    let client = reqwest::Client::builder().tls_certs_only([certificate]).redirect(stay).build().unwrap();
    let cookie = client.post(url).send().await.unwrap().headers()["set-cookie"].to_str().unwrap().to_owned();
    assert!(cookie.ends_with("; SameSite=Strict; HttpOnly; Secure"), "{cookie}");
}
